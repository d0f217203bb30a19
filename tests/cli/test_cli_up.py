"""`crboost up` and `down` for real: server, worker and watcher, killed and stopped in every way.

The tests of this file go on from one another's service, in order.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crboost.project import Project
from crboost.service.api import Api, ApiError
from crboost.service.directory import ServiceDirectory
from crboost.service.status import read_status
from crboost.turn import Claim, Turn

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

#: Stands for the compute node's Python: the job waits until the test lets it go.
PYTHON = """\
#!/bin/bash
arguments=("$@")
if [ "$4" = job ] && [ "$5" = run ]; then
  for _ in $(seq 600); do [ -e {go} ] && break; sleep 0.2; done
fi
exec {python} "${{arguments[@]}}"
"""


class Service:
    """A service of this test file's own."""

    def __init__(self, tmp: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.directory = ServiceDirectory(tmp / "state" / "crboost")
        self.go = tmp / "go"
        interpreter = tmp / "python"
        interpreter.write_text(PYTHON.format(go=self.go, python=sys.executable))
        interpreter.chmod(0o755)
        settings = tmp / "settings.toml"
        settings.write_text(
            f'python = "{interpreter}"\n[service]\ndirectory = "{self.directory.path}"\n'
            f"port = {self.port}\nrestart_seconds = 0.2\n"
            '[[service.notify]]\nname = "typo"\nurl = "carrier-pigeon://loft"\n'
            '[[service.notify]]\nname = "lost"\nurl_file = "/nowhere/address"\n'
        )
        kept = {key: one for key, one in os.environ.items() if not key.startswith("PREFECT_")}
        self.settings = f"CRBOOST_SETTINGS={settings}"
        self.environment = {**kept, "CRBOOST_SETTINGS": str(settings)}

    def crboost(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "crboost", *argv], env=self.environment, text=True,
            capture_output=True, timeout=200, check=False,
        )  # fmt: skip

    def up(self) -> str:
        done = self.crboost("up")
        assert done.returncode == 0, done.stderr + self.logs()
        assert "warning: " in done.stderr and "channel 'typo'" in done.stderr
        return done.stdout

    @property
    def api(self) -> Api:
        return Api(f"http://127.0.0.1:{self.port}/api", self.directory.login())

    def pid(self, part: str) -> int | None:
        status = read_status(self.directory)
        found = status.part(part) if status is not None else None
        return found.process.pid if found is not None and found.process is not None else None

    def supervisor(self) -> int:
        status = read_status(self.directory)
        assert status is not None
        return status.process.pid

    def processes(self) -> list[str]:
        """Command lines of what belongs to the service: flow runs too, but no jobs."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes()
                prefect = any(name in words for name in ("prefect", "uvicorn", " flows."))
                if prefect and self.settings.encode() in environment:
                    found.append(words)
        return found

    def logs(self) -> str:
        return "".join(
            f"\n--- {log.name}\n{log.read_text()[-2000:]}"
            for log in sorted(self.directory.logs.glob("*.log"))
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("up"))
    try:
        yield service
    finally:
        service.go.touch()
        service.crboost("down")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("project")
    data = directory / "data"
    make_example_data(
        data, series=1, size_px=128, frames=2, tilt_range_deg=20, tilt_step_deg=10, defects=False
    )
    movies, mdocs = [str(data / "frames" / "*")], [str(data / "*.mdoc")]
    return Project.create(directory / "project", movies=movies, mdocs=mdocs).project


def eventually(condition: Callable[[], Any], seconds: float, service: Service) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ApiError):
            found = condition()
            if found:
                return found
        assert time.monotonic() < deadline, service.logs()
        time.sleep(0.2)


def start_run(service: Service, flow: str, parameters: dict[str, Any]) -> str:
    flows = {one["id"]: one["name"] for one in service.api.post("/flows/filter", {})}
    deployments = service.api.post("/deployments/filter", {})
    deployment = next(one["id"] for one in deployments if flows[one["flow_id"]] == flow)
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(service.api.post(f"/deployments/{deployment}/create_flow_run", body)["id"])


def state_of(service: Service, run: str) -> str:
    return str(service.api.get(f"/flow_runs/{run}")["state"]["type"])


def test_one_command_and_everything_is_there(service: Service) -> None:
    assert service.crboost("up", "--check").returncode == 1
    assert "crboost up" in service.crboost("up", "--env").stderr

    said = service.up()

    login = service.directory.login()
    assert f"http://127.0.0.1:{service.port}" in said and f"login          {login}" in said
    assert re.search(rf"ssh -L {service.port}:127\.0\.0\.1:{service.port} \S+@\S+", said)
    checked = json.loads(service.crboost("up", "--check", "--json").stdout)
    assert checked["exit_code"] == 0
    status = {one["check"]: one["status"] for one in checked["findings"]}
    assert set(status) == {
        "service.supervisor", "service.server", "service.login", "service.deployments",
        "service.worker", "service.watcher", "service.notify",
    }  # fmt: skip
    # Wrong addresses are said, and keep nothing from being processed.
    assert status.pop("service.notify") == "warning"
    assert set(status.values()) == {"ok"}, checked
    (deaf,) = (one["found"] for one in checked["findings"] if one["check"] == "service.notify")
    assert "channel 'typo'" in deaf and "/nowhere/address cannot be read" in deaf
    assert service.up() == said  # again: nothing happens
    exports = service.crboost("up", "--env").stdout
    assert f"export PREFECT_API_AUTH_STRING={login}\n" in exports


def test_nobody_else_gets_in(service: Service) -> None:
    directory = service.directory
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    for secret in (directory.login_file, directory.environment_file):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with pytest.raises(ApiError) as refused:
        Api(f"http://127.0.0.1:{service.port}/api", None).get("/admin/version")
    assert refused.value.status == 401
    with pytest.raises(ApiError) as refused:
        Api(f"http://127.0.0.1:{service.port}/api", "crboost:guess").post("/flows/filter", {})
    assert refused.value.status == 401
    # Not with the login alone either: a page of somebody else's has no token.
    token = base64.b64encode((directory.login() or "").encode()).decode()
    with pytest.raises(urllib.error.HTTPError) as forged:
        urllib.request.urlopen(
            urllib.request.Request(
                f"http://127.0.0.1:{service.port}/api/flows/filter", data=b"{}",
                headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
            ),
            timeout=10,
        )  # fmt: skip
    assert forged.value.code == 403
    # A page of another origin is not let in by the browser.
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/api/health", headers={"Origin": "http://evil.example"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] is None


def test_schedules_make_runs(service: Service) -> None:
    """Prefect's scheduler fails silently with versions of SQLAlchemy that Prefect allows."""
    flow_runs = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    runs = eventually(lambda: service.api.post("/flow_runs/filter", flow_runs), 60, service)
    assert all(run["auto_scheduled"] for run in runs)


def test_a_taken_port_is_named(service: Service, tmp_path: Path) -> None:
    service.environment["CRBOOST_SERVICE__DIRECTORY"] = str(tmp_path / "another")
    try:
        refused = service.crboost("up")
    finally:
        del service.environment["CRBOOST_SERVICE__DIRECTORY"]
    assert refused.returncode == 2
    assert f"port {service.port} of 127.0.0.1 is in use" in refused.stderr
    assert "service.port in" in refused.stderr


def test_what_is_killed_comes_back(service: Service) -> None:
    before = {name: service.pid(name) for name in ("server", "worker", "watcher")}
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        now = {name: service.pid(name) for name in before}
        new = all(now[name] not in (None, before[name]) for name in before)
        return new and service.crboost("up", "--check").returncode == 0

    eventually(back, 120, service)


def test_a_run_does_not_stay_running_when_its_worker_stops(
    service: Service, project: Project
) -> None:
    where = {"project_dir": str(project.directory)}
    run = start_run(service, "process-project", {**where, "jobs": ["importmovies"]})
    job = project.directory / "External/job001"
    eventually(lambda: state_of(service, run) == "RUNNING" and job.exists(), 120, service)
    worker = service.pid("worker")
    assert worker is not None

    os.kill(worker, signal.SIGTERM)

    eventually(lambda: state_of(service, run) == "CRASHED", 120, service)
    limits = service.api.post("/v2/concurrency_limits/filter", {})
    assert {limit["active_slots"] for limit in limits} == {0}
    assert not (job / "RELION_JOB_EXIT_SUCCESS").exists()  # it is at work


def test_nothing_outlives_the_supervisor_and_nothing_is_lost(
    service: Service, project: Project
) -> None:
    runs = {run["id"] for run in service.api.post("/flow_runs/filter", {})}
    login = service.directory.login()
    supervisor = service.supervisor()

    os.kill(supervisor, signal.SIGKILL)

    eventually(lambda: not service.processes(), 30, service)
    service.up()
    assert {run["id"] for run in service.api.post("/flow_runs/filter", {})} >= runs
    assert service.directory.login() == login
    service.go.touch()  # the job that all this has not disturbed
    done = project.directory / "External/job001/RELION_JOB_EXIT_SUCCESS"
    eventually(done.exists, 120, service)


def test_down_ends_all_of_it(service: Service, project: Project) -> None:
    place = Turn(project.directory, Claim.of_this_process("the test"))
    place.enter()
    assert place.take() is None
    run = start_run(service, "process-project", {"project_dir": str(project.directory)})
    eventually(lambda: state_of(service, run) == "RUNNING", 120, service)

    said = service.crboost("down")

    place.release()
    with contextlib.closing(sqlite3.connect(service.directory.server / "prefect.db")) as database:
        state = "SELECT state_type, state_name FROM flow_run WHERE id = ?"
        (found,) = database.execute(state, [run])
    assert found == ("CRASHED", "Stopped")  # not Crashed, of which people are told
    assert (said.returncode, said.stdout.splitlines()[0]) == (0, "The service is down.")
    assert service.processes() == []
    assert service.crboost("up", "--check").returncode == 1
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{service.port}/", timeout=5)
    assert "was not running" in service.crboost("down").stdout
