"""A whole service for tests: Prefect server, worker and watcher in processes that can be killed."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from prefect_api import ask

from crboost.project import Project
from crboost.session import end_session, start_session
from crboost.settings import ServiceSettings, Settings
from flows.local_server import prepare_database, server_environment

#: The simulated microscope is fast, and nobody waits long.
RULES = {
    "patience": {
        "stable_seconds": 0.5, "mdoc_quiet_seconds": 1.5, "partial_after_seconds": 5.0,
        "expected_tilts": 9,  # however slow the test machine is
    },
    "batch_seconds": 1.0,
}  # fmt: skip


@dataclass
class Service:
    """What `crboost up` keeps running, in one directory.

    Attributes:
        directory: for all of it.
        environment: of all its processes.
    """

    directory: Path
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # -- processes ----------------------------------------------------------------------------

    def start(self, name: str, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process under a name; its output goes to a file of that name."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *argv], cwd=self.directory, stdout=log, stderr=log,
                env={**self.environment, **environment}, start_new_session=True,
            )  # fmt: skip
        return self.processes[name]

    def start_server(self) -> None:
        """Start Prefect's server, always at the same address, and wait until it answers."""
        port = self.environment["PREFECT_SERVER_API_PORT"]
        process = self.start("server", "-m", "prefect", "server", "start", "--port", port)

        def answers() -> bool:
            assert process.poll() is None, self.log("server")
            try:
                url = f"{self.environment['PREFECT_API_URL']}/health"
                return httpx.get(url, auth=self._login).is_success
            except httpx.HTTPError:
                return False

        until(answers, 90)

    @property
    def _login(self) -> tuple[str, str]:
        user, _, secret = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        return user, secret

    def start_worker(self) -> None:
        self.start("worker", "-m", "prefect", "worker", "start", "--pool", "headnode",
                   "--type", "process")  # fmt: skip

    def start_watcher(self, **environment: str) -> subprocess.Popen[bytes]:
        return self.start("watcher", "-m", "flows.watcher", **environment)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(number)
        process.wait(timeout=60)

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- Prefect ------------------------------------------------------------------------------

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        url = self.environment["PREFECT_API_URL"] + path
        login = self.environment["PREFECT_API_AUTH_STRING"]
        answer = ask("POST", url, login, body, busy_seconds=math.inf, timeout=180)
        answer.raise_for_status()
        return answer.json()

    def flow_runs(self, flow: str, project: Path | None = None) -> list[dict[str, Any]]:
        """Runs of a flow, oldest first."""
        found = self.post("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
        return sorted(
            (
                run for run in found
                if project is None or run["parameters"].get("project_dir") == str(project)
            ),
            key=lambda run: str(run["created"]),
        )  # fmt: skip

    def events(self, name: str, project: Path | None = None) -> list[dict[str, Any]]:
        """Events of a name, oldest first."""
        now = datetime.now(UTC)
        body = {
            "filter": {
                "event": {"name": [name]},
                "occurred": {
                    "since": (now - timedelta(hours=1)).isoformat(),
                    "until": (now + timedelta(hours=1)).isoformat(),
                },
                "order": "ASC",
            },
            "limit": 50,
        }  # fmt: skip
        found: list[dict[str, Any]] = self.post("/events/filter", body)["events"]
        return [
            one for one in found
            if project is None or one["payload"]["project_dir"] == str(project)
        ]  # fmt: skip

    def run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Run a deployment to its end."""
        made = self.create_run(deployment, **parameters)
        until(lambda: self.flow_run(made)["state"]["type"] in ENDED, 300)
        return self.flow_run(made)

    def create_run(self, deployment: str, **parameters: Any) -> str:
        """Have a deployment run; the id of the run."""
        found = self.post("/deployments/filter", {})
        flows = {one["id"]: one["name"] for one in self.post("/flows/filter", {})}
        (id,) = (one["id"] for one in found if flows[one["flow_id"]] == deployment)
        made = self.post(f"/deployments/{id}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def flow_run(self, id: str) -> dict[str, Any]:
        body = {"flow_runs": {"id": {"any_": [id]}}}
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", body)
        return found[0]

    def cancel(self, id: str) -> None:
        """What the page's button does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.post(f"/flow_runs/{id}/set_state", {"state": state})

    # -- sessions -----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return Settings(service=ServiceSettings(directory=self.directory / "service"))

    def start_session(self, project: Path, watch: Path, **rules: Any) -> Project:
        watch.mkdir(parents=True, exist_ok=True)
        start_session(
            project, watch=[watch], preset=None, settings=self.settings, now=datetime.now(UTC),
            rules={**RULES, **rules},
        )  # fmt: skip
        return Project.open(project)

    def end_session(self, project: Project) -> None:
        end_session(project, now=datetime.now(UTC))


ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def until(condition: Callable[[], object], seconds: float = 180.0, words: str = "") -> None:
    """Wait until something holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {seconds} s {words}"
        time.sleep(0.2)


@contextmanager
def service(directory: Path, interpreter: Path) -> Iterator[Service]:
    """Server and deployments; worker and watcher are the test's to start."""
    home = directory / "prefect"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = server_environment(os.environ, home, "secret")
    for name in [name for name in environment if name.startswith("PREFECT_SERVER_SERVICES")]:
        del environment[name]  # all of them
    environment |= {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "CRBOOST_SERVICE__DIRECTORY": str(directory / "service"),
        "CRBOOST_PYTHON": str(interpreter),
        "CRBOOST_SCHEMER": "embedded",
    }
    prepare_database(home)
    made = Service(directory, environment)
    try:
        made.start_server()
        deployed = subprocess.run(
            [sys.executable, "-m", "flows.deploy"], cwd=directory, env=environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        yield made
    finally:
        for name in sorted(made.processes, reverse=True):
            made.kill(name)
        end_what_is_left(directory)


def end_what_is_left(directory: Path) -> None:
    """Kill flow runs, schemers, drivers and their tools that live in a test's directory."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            where = (entry / "cwd").readlink()
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if where.is_relative_to(directory) or str(directory).encode() in words:
            with suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
