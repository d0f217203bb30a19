"""One real Prefect server for all flow tests of a session: ours, which starts in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.local_server import LocalServer


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    server = LocalServer(tmp_path_factory.mktemp("prefect"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def _prefect_settings(prefect_server: LocalServer) -> Iterator[None]:
    from prefect import settings

    values = {
        settings.PREFECT_API_URL: prefect_server.api_url,
        settings.PREFECT_API_AUTH_STRING: prefect_server.environment["PREFECT_API_AUTH_STRING"],
        settings.PREFECT_HOME: prefect_server.home,
        settings.PREFECT_LOGGING_LEVEL: "INFO",
    }
    with settings.temporary_settings(values):
        yield


@pytest.fixture
def prefect(_prefect_settings: None) -> None:
    """Flows called in the test run against the session's Prefect server."""


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "run.out"
