"""Shared by all tests: nothing phones home, and one small set of example data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Real RELION, Apptainer and Slurm, where they have been brought up: tests/testbed/README.md; a
# real Chromium, and a Prefect server with its pages: tests/browser/.
pytest_plugins = ["testbed.fixtures", "browser.fixtures", "browser.service"]

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Two processes on two cores, not two times as many threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

#: Files that take minutes: begun last, each would keep one worker busy after all others are done.
LONGEST = (
    "whole/test_whole_session.py",
    "cluster/test_cluster_warp.py",
    "stages/test_stages_warp.py",
    "flows/test_flows_ingest.py",
    "cluster/test_cluster_array.py",
    "stages/test_stages_stack_align.py",
    "cluster/test_cluster_failures.py",
    "flows/test_flows_deployments_worker.py",
    "cli/test_cli_up.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; all others in their order."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def empty_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's settings file that sets nothing."""
    path = tmp_path_factory.mktemp("site") / "settings.toml"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def _no_site_settings(monkeypatch: pytest.MonkeyPatch, empty_settings: Path) -> None:
    """The machine's own settings must not decide how a test ends."""
    monkeypatch.setenv("CRBOOST_SETTINGS", str(empty_settings))
    monkeypatch.delenv("CRBOOST_SCHEMER", raising=False)


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small tilt series: TS_02 lacks a movie, TS_03 has a dead tilt. Read only."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("example")
    make_example_data(directory, size_px=256, frames=3, tilt_step_deg=6)
    return directory


@pytest.fixture(scope="session")
def golden() -> Path:
    """A tilt-series project that RELION 5.1 itself made (its STAR files only)."""
    return Path(__file__).parent / "golden" / "relion51"
