"""Starting and stopping the service, and waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import CrboostError, FileFormatError
from crboost.file_systems import shared_file_system
from crboost.relion.lock import ProcessId
from crboost.service.directory import ServiceDirectory
from crboost.service.status import Part, ServiceStatus, read_status
from crboost.settings import ServiceSettings, settings_file

POLL_S = 0.2


@dataclass(frozen=True)
class AtWork:
    """A run whose schemer works on this machine, under this user."""

    project: Path
    run: str


def check_disk(service: ServiceSettings) -> None:
    """SQLite's database and the supervisor's lock need a disk that no other host shares.

    Raises:
        CrboostError: `service.directory` is not on one.
    """
    kind = shared_file_system(service.directory)
    if kind is not None and service.database_url is None:
        raise CrboostError(
            f"service.directory = {service.directory}: it is on a network file system ({kind}), "
            "where SQLite loses data",
            hint=f"name a directory on a local disk in {settings_file()}, or a PostgreSQL "
            "database in service.database_url",
        )


def supervisor_argv(host: str | None, port: int | None, *, foreground: bool = False) -> list[str]:
    """The supervisor's command. `-P`: a `flows/` in the working directory is not ours."""
    argv = [sys.executable, "-P", "-m", "flows.supervisor"]
    argv += ["--host", host] if host is not None else []
    argv += ["--port", str(port)] if port is not None else []
    return [*argv, "--foreground"] if foreground else argv


def start(directory: ServiceDirectory, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the supervisor in a session of its own."""
    with (directory.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            argv,
            cwd=directory.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_until_up(
    directory: ServiceDirectory,
    supervisor: subprocess.Popen[bytes] | None,
    timeout_s: float,
    news: Callable[[Part], object] = lambda _: None,
) -> ServiceStatus:
    """Wait for a service that is being started.

    Args:
        supervisor: its process, if we started it.
        news: called with each part whose state has changed.

    Raises:
        CrboostError: it failed, or took too long; says why and where to look.
    """
    deadline = time.monotonic() + timeout_s
    known: dict[str, str] = {}
    status: ServiceStatus | None = None
    while time.monotonic() < deadline:
        ended = supervisor is not None and supervisor.poll() is not None
        status = _status(directory)
        if status is not None and supervisor is not None and status.process.pid != supervisor.pid:
            status = None  # of the one before
        if status is not None:
            for part in status.parts:
                if part.state != "stopped" and known.get(part.name) != part.state:
                    known[part.name] = part.state
                    news(part)
            if status.state == "up":
                return status
        if ended or (status is not None and status.state == "failed"):
            why = (
                status.message if status is not None and status.message else "its supervisor ended"
            )
            raise CrboostError(
                f"the service does not start: {why}", hint=f"its logs are in {directory.logs}"
            )
        time.sleep(POLL_S)
    waiting = [part.name for part in status.parts if part.state != "running"] if status else []
    raise CrboostError(
        f"the service was not ready within {timeout_s:g} s; not there yet: "
        f"{', '.join(waiting) or 'its supervisor'}",
        hint=f"it goes on trying: crboost up --check; its logs are in {directory.logs}",
    )


def stop(directory: ServiceDirectory, timeout_s: float) -> bool:
    """Stop the service; returns when all of it is gone.

    Returns:
        False if there was none.

    Raises:
        CrboostError: it does not stop.
    """
    if not directory.supervised():
        end_leftovers(directory)
        return False
    status = _status(directory)
    if status is None or not status.process.alive():
        host = status.process.host if status is not None else "another host"
        raise CrboostError(
            f"{directory.path}: a supervisor holds the lock, but not as a process of this machine",
            hint=f"crboost down on {host}",
        )
    with suppress(ProcessLookupError):
        os.kill(status.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while directory.supervised():
        if time.monotonic() > deadline:
            raise CrboostError(
                f"the supervisor, process {status.process.pid}, did not stop in {timeout_s:g} s",
                hint=f"its log is {directory.logs / 'supervisor.log'}; kill -9 "
                f"{status.process.pid} ends it and what it started",
            )
        time.sleep(POLL_S)
    end_leftovers(directory)
    return True


def end_leftovers(directory: ServiceDirectory, grace_s: float = 15.0) -> None:
    """End what a supervisor that was killed has started.

    The kernel has told these processes already; they are waited for, and killed at last.
    """
    status = _status(directory)
    if status is None:
        return
    left = [part.process for part in status.parts if part.process is not None]
    deadline = time.monotonic() + grace_s
    while any(process.alive() for process in left) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for process in left:
        if process.alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    while any(process.alive() for process in left):
        time.sleep(POLL_S)


def at_work() -> list[AtWork]:
    """The runs of this user whose schemers work on this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ProcessLookupError):
            if entry.stat().st_uid != os.getuid():
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            run = _run_of(words)
            if run is not None and ProcessId.of(int(entry.name)).alive():
                found.append(run)
    return sorted(set(found), key=lambda one: (str(one.project), one.run))


def _run_of(words: Sequence[str]) -> AtWork | None:
    """The run that a schemer's command line names; None if it is none."""
    marks = ["crboost", "schemer", "run"]
    for index in range(min(len(words) - 4, 6)):
        if words[index : index + 3] == marks:
            return AtWork(Path(words[index + 3]), words[index + 4])
    return None


def _status(directory: ServiceDirectory) -> ServiceStatus | None:
    """The status; None too if it is another version's."""
    with suppress(FileFormatError):
        return read_status(directory)
    return None
