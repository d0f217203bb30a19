from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crboost.errors import CrboostError
from crboost.relion.lock import ProcessId
from crboost.relion.schemer.holder import start_argv
from crboost.service import control
from crboost.service.control import AtWork, end_leftovers, supervisor_argv, wait_until_up
from crboost.service.directory import ServiceDirectory
from crboost.service.status import Part, ServiceStatus, State, write_status
from crboost.settings import ServiceSettings


@pytest.fixture
def directory(tmp_path: Path) -> ServiceDirectory:
    made = ServiceDirectory(tmp_path / "service")
    made.prepare()
    return made


def status(process: ProcessId, state: State, *parts: Part, message: str = "") -> ServiceStatus:
    return ServiceStatus(
        state, "http://127.0.0.1:1", process, "", "", {}, message=message, parts=parts
    )


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_a_schemer_is_known_by_its_command_line(tmp_path: Path) -> None:
    argv = start_argv(tmp_path, "run_1", "embedded")
    assert control._run_of(argv) == AtWork(tmp_path, "run_1")
    assert control._run_of(["vim", "crboost schemer run", str(tmp_path)]) is None
    assert control._run_of(supervisor_argv(None, 4201)) is None


def test_a_failure_to_start_is_told_in_the_supervisors_words(directory: ServiceDirectory) -> None:
    process = sleeper()
    try:
        write_status(directory, status(ProcessId.of(process.pid), "failed", message="no database"))
        with pytest.raises(CrboostError, match="no database") as told:
            wait_until_up(directory, process, 5)
        assert str(directory.logs) in str(told.value)
    finally:
        process.kill()
        process.wait()
    with pytest.raises(CrboostError, match="does not start"):  # it has gone without a word
        wait_until_up(directory, process, 5)


def test_what_is_not_ready_in_time_is_named(directory: ServiceDirectory) -> None:
    parts = (Part("server", "running"), Part("worker", "starting"))
    write_status(directory, status(ProcessId.of(os.getpid()), "starting", *parts))
    seen: list[str] = []
    with pytest.raises(CrboostError, match="not there yet: worker"):
        wait_until_up(directory, None, 0.5, lambda part: seen.append(part.name))
    assert seen == ["server", "worker"]


def test_leftovers_of_a_killed_supervisor_are_ended(directory: ServiceDirectory) -> None:
    left, stranger = sleeper(), sleeper()
    try:
        mine, other = ProcessId.of(left.pid), ProcessId.of(stranger.pid)
        reused = ProcessId(other.pid, other.start_ticks - 1, other.boot_id, other.host)
        parts = (Part("server", "running", mine), Part("worker", "running", reused))
        write_status(directory, status(ProcessId.of(os.getpid()), "up", *parts))
        began = time.monotonic()
        assert not directory.supervised()
        end_leftovers(directory, grace_s=0.2)
        assert left.wait(5) == -signal.SIGKILL and time.monotonic() - began < 30
        assert stranger.poll() is None  # its number was another process's once
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_sqlite_is_refused_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ServiceSettings(directory=tmp_path)
    control.check_disk(service)
    monkeypatch.setattr(control, "shared_file_system", lambda _: "nfs4")
    with pytest.raises(CrboostError, match=r"network file system \(nfs4\)"):
        control.check_disk(service)
    url = "postgresql+asyncpg://me@db/prefect"
    control.check_disk(ServiceSettings(directory=tmp_path, database_url=url))
