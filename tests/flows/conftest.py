"""One real Prefect server for all flow tests of a session: ours, which starts in seconds."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crboost.project import Project
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
    from prefect.logging.handlers import APILogWorker

    values = {
        settings.PREFECT_API_URL: prefect_server.api_url,
        settings.PREFECT_API_AUTH_STRING: prefect_server.environment["PREFECT_API_AUTH_STRING"],
        settings.PREFECT_HOME: prefect_server.home,
        settings.PREFECT_LOGGING_LEVEL: "INFO",
    }
    with settings.temporary_settings(values):
        yield
        # Prefect sends its log in batches; the server goes before its last one otherwise.
        APILogWorker.drain_all(timeout=10)


@pytest.fixture
def prefect(_prefect_settings: None) -> None:
    """Flows called in the test run against the session's Prefect server."""


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "run.out"


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tilt series, small enough that a whole run takes seconds."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("data")
    make_example_data(
        directory, series=2, size_px=256, frames=2, tilt_range_deg=40, tilt_step_deg=10,
        defects=False,
    )  # fmt: skip
    return directory


def holder_pids(project: Path) -> list[int]:
    """Processes whose command line names this project: its schemer and its drivers."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            directory = (entry / "cwd").readlink()
        except OSError:
            continue
        ours = str(project) in command or directory == project
        if ours and ("crboost" in command or "behaviour" in command):
            found.append(int(entry.name))
    return found


@dataclass
class Bench:
    """A project to run things in, and the means to make its jobs do as a test wants.

    Attributes:
        project: a project of the example data.
        interpreter: stands for the compute node's Python; runs `behaviour/<node>.sh` first.
    """

    project: Project
    interpreter: Path

    @property
    def directory(self) -> Path:
        return self.project.directory

    def behave(self, node: str, script: str) -> None:
        """Have the job of this node run a shell script (with $job, $node) before the driver.

        A script that ends with `exit` takes the driver's place.
        """
        path = self.directory / "behaviour" / f"{node}.sh"
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)

    def starts(self) -> list[str]:
        """The nodes of all job starts so far, in order."""
        path = self.directory / "starts.txt"
        return path.read_text().split() if path.exists() else []


_INTERPRETER = """\
#!/bin/bash
# Does what the test wants in place of, or before, the driver.
arguments=("$@")
if [ "$4" = job ] && [ "$5" = run ]; then  # -P -m crboost job run
  while [ $# -gt 0 ]; do
    case "$1" in --o) job="${{2%/}}" ;; --node) node="$2" ;; esac
    shift
  done
  echo "$node" >> starts.txt
  if [ -f "behaviour/$node.sh" ]; then . "behaviour/$node.sh"; fi
fi
exec {python} "${{arguments[@]}}"
"""


@pytest.fixture
def bench(tmp_path: Path, example_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    import sys

    interpreter = tmp_path / "interpreter"
    interpreter.write_text(_INTERPRETER.format(python=sys.executable))
    interpreter.chmod(interpreter.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CRBOOST_PYTHON", str(interpreter))
    monkeypatch.setenv("CRBOOST_SCHEMER", "embedded")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    created = Project.create(
        tmp_path / "project",
        movies=[str(example_data / "frames" / "*")],
        mdocs=[str(example_data / "*.mdoc")],
    )
    yield Bench(created.project, interpreter)
    for pid in holder_pids(created.project.directory):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], float], None]:
    """Wait until something holds; fails after so many seconds."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.1)

    return wait
