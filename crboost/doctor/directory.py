"""The directory of a project: writable, locks that hold, room for data."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from crboost.doctor.findings import Finding, failed, ok, warning

#: GB free: less is told, and so little that nothing will fit is a failure.
LITTLE_SPACE_GB, NO_SPACE_GB = 20, 1


@dataclass(frozen=True)
class DirectoryFacts:
    """What this machine sees of the directory.

    Attributes:
        problem: why nothing can be written there; empty: it can.
        lock_problem: why file locks do not hold there; empty: they do; None: not tried.
        file_system: type, as Linux calls it.
    """

    directory: Path
    exists: bool
    is_project: bool = False
    problem: str = ""
    lock_problem: str | None = None
    file_system: str = ""
    free_gb: float = 0.0


def directory_facts(directory: Path) -> DirectoryFacts:
    """Look at a directory; a file is made there and removed again."""
    try:
        if not directory.is_dir():
            return DirectoryFacts(directory, exists=False)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".crboost-doctor-") as stream:
            stream.write(b"written by crboost doctor\n")
            stream.flush()
            os.fsync(stream.fileno())
            lock_problem = _lock_problem(Path(stream.name))
    except OSError as error:
        return DirectoryFacts(directory, exists=True, problem=error.strerror or str(error))
    return DirectoryFacts(
        directory,
        exists=True,
        is_project=(directory / "project_params.json").is_file(),
        lock_problem=lock_problem,
        file_system=file_system_of(
            Path(os.path.realpath(directory)), Path("/proc/self/mounts").read_text()
        ),
        free_gb=shutil.disk_usage(directory).free / 1e9,
    )


def _lock_problem(path: Path) -> str:
    """Why a second lock on a file is not refused while there is a first one."""
    with path.open("a") as first, path.open("a") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"flock: {error.strerror}"
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        except OSError as error:
            return f"flock: {error.strerror}"
    return "two processes can lock the same file at once"


def file_system_of(directory: Path, mounts: str) -> str:
    """The type of the file system that holds an absolute path, from the text of /proc/mounts."""
    best, kind = Path("/"), ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), words[1]))
        if directory.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, words[2]
    return kind


def judge_directory(facts: DirectoryFacts) -> list[Finding]:
    """Findings on the directory."""
    where = facts.directory
    if not facts.exists:
        return [
            failed(
                "project.writable", f"{where}: no such directory", "make it, or correct the path"
            )
        ]
    if facts.problem:
        return [
            failed(
                "project.writable",
                f"{where}: {facts.problem}",
                "make it writable for the user who runs crboost (chown, chmod, mount -o rw)",
            )
        ]
    what = "a project" if facts.is_project else "no project yet"
    kind = f", {facts.file_system}" if facts.file_system else ""
    return [
        ok("project.writable", f"{where}: writable from here ({what}{kind})"),
        _judge_locks(facts),
        _judge_space(facts),
    ]


def _judge_locks(facts: DirectoryFacts) -> Finding:
    if facts.lock_problem:
        return failed(
            "project.locks",
            f"{facts.lock_problem}: two schemers could write to one project",
            "Lustre: mount with -o flock; NFS: version 4, or 3 with lockd and without nolock",
        )
    return ok("project.locks", "file locks hold")


def _judge_space(facts: DirectoryFacts) -> Finding:
    said = f"{facts.free_gb:.0f} GB free"
    fix = "free some, or put projects elsewhere"
    if facts.free_gb < NO_SPACE_GB:
        return failed("project.space", said, fix)
    if facts.free_gb < LITTLE_SPACE_GB:
        return warning("project.space", f"{said}; one tilt series takes some GB", fix)
    return ok("project.space", said)
