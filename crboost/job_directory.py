"""What crboost leaves in a RELION job's directory besides RELION's own files."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import read_json

JOB_FILE = "crboost_job.json"
FAILURE_FILE = "failure.json"
LOCK_FILE = ".driver.lock"

#: Below it, one directory per run with what RELION starts: the driver, and what submits.
SCRIPTS = ".crboost/runs"


def read_job_file(directory: Path) -> dict[str, Any]:
    """The driver's record of what it does here; empty where no driver has been.

    Raises:
        FileFormatError: the file is damaged.
    """
    path = directory / JOB_FILE
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise FileFormatError(path, "not a JSON object")
    return value


def read_failure(directory: Path) -> tuple[str, str] | None:
    """(kind, message) of the job's failure, where the driver could still say it."""
    path = directory / FAILURE_FILE
    if not path.is_file():
        return None
    value = read_json(path)
    return str(value.get("kind", "tool_error")), str(value.get("message", ""))


def disk_full(directory: Path, least_mb: int = 20) -> str | None:
    """A message if the disk of this directory has no room left; else None."""
    free_mb = shutil.disk_usage(directory).free // 2**20
    if free_mb >= least_mb:
        return None
    return f"No space left on the disk of {directory}: {free_mb} MB are free."


def tail(path: Path, lines: int = 20, most_bytes: int = 16_384) -> str:
    """The last lines of a log, as a terminal would show them; "" where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - most_bytes))
            text = stream.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    # A progress bar is one line, written over and over.
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return "\n".join(shown[-lines:])


def is_driver_alive(directory: Path) -> bool:
    """Whether a driver works in this job directory now, on this host.

    The lock is the kernel's: it is gone with its holder, however that ended.
    """
    path = directory / LOCK_FILE
    try:
        with path.open("r") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def driver_lock(directory: Path, log: Callable[[str], None]) -> Iterator[bool]:
    """Hold the job directory; yields whether another driver had to be waited for."""
    waited = False
    with (directory / LOCK_FILE).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            log(f"{directory.name}: another driver is at work here; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write(f"{os.getpid()} {socket.gethostname()}\n")
        stream.flush()
        yield waited
