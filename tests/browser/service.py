"""A whole Prefect server with its web pages, crboost's deployments on it, and a worker.

Fixtures: `service` (the server), `deployed` (with the deployments), `worker` (its directory, with
its log `out`), `simulated_project` (a project of the example data), `eventually`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect_api import ask

from crboost.process import dying_with_us
from crboost.project import Project
from flows.local_server import LocalServer

#: What `LocalServer` does without, and a server for people has.
_SWITCHED_OFF = (
    "PREFECT_SERVER_API_BLOCKS_REGISTER_ON_START", "PREFECT_API_BLOCKS_REGISTER_ON_START",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION", "PREFECT_SERVER_UI_ENABLED",
    "PREFECT__SERVER_EPHEMERAL",
)  # fmt: skip


@dataclass(frozen=True)
class Service:
    """A Prefect server that people use: pages, triggers, automations, a password.

    Attributes:
        server: the process.
        url: of its pages.
        login: what its login page wants.
    """

    server: LocalServer
    url: str
    login: str

    @property
    def environment(self) -> dict[str, str]:
        """For commands that talk to it."""
        return self.server.environment

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to its API; what it answers."""
        answer = ask(method, f"{self.url}/api{path}", self.login, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def run(
        self, *argv: str, cwd: Path, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A command of this environment's Python, as a user of the server."""
        return subprocess.run(
            [sys.executable, *argv], cwd=cwd, env={**self.environment, **environment},
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def deployments(self) -> dict[str, dict[str, Any]]:
        """By `flow/deployment`."""
        flows = {one["id"]: one["name"] for one in self.call("POST", "/flows/filter", {})}
        found = self.call("POST", "/deployments/filter", {})
        return {f"{flows[one['flow_id']]}/{one['name']}": one for one in found}

    def flow_runs(self, flow: str) -> list[dict[str, Any]]:
        """Runs of one flow, oldest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"}
        return list(self.call("POST", "/flow_runs/filter", body))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The server, without any deployment yet."""
    directory = tmp_path_factory.mktemp("service")
    server = LocalServer(directory)
    for name in list(server.environment):
        if name.startswith("PREFECT_SERVER_SERVICES_") or name in _SWITCHED_OFF:
            server.environment.pop(name)
    # The pages are copied with their address in them; not into the installed package.
    server.environment["PREFECT_UI_STATIC_DIRECTORY"] = str(directory / "pages")
    server.start()
    try:
        server.wait()
        url = server.api_url.removesuffix("/api")
        yield Service(server, url, server.environment["PREFECT_API_AUTH_STRING"])
    finally:
        server.stop()


@pytest.fixture(scope="session")
def deployed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The server with crboost's deployments."""
    done = service.run("-m", "flows.deploy", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stdout + done.stderr
    return service


@pytest.fixture(scope="session")
def worker(deployed: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A worker of the pool; its directory, with its log `out`."""
    directory = tmp_path_factory.mktemp("worker")
    settings = tmp_path_factory.mktemp("site") / "settings.toml"
    settings.touch()
    argv = ["-m", "prefect", "worker", "start", "--pool", "headnode", "--type", "process"]
    environment = {
        **deployed.environment,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "CRBOOST_SETTINGS": str(settings),
        "CRBOOST_SCHEMER": "embedded",
    }
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *argv], cwd=directory, stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, env=environment, start_new_session=True,
            preexec_fn=dying_with_us(signal.SIGKILL),
        )  # fmt: skip
    yield directory
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def simulated_project(tmp_path: Path, example_data: Path) -> Project:
    """A project of the example data, not yet run."""
    return Project.create(
        tmp_path / "project",
        movies=[str(example_data / "frames" / "*")],
        mdocs=[str(example_data / "*.mdoc")],
    ).project


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait until something is true; returns it, fails after so many seconds."""

    def wait(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.2)
        return value

    return wait
