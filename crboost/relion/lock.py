"""RELION's locks: a directory that only one program can make.

`.relion_lock/` guards the ledger for the moment of one update, `.relion_lock_scheme_NAME/` a
scheme for as long as a schemer runs it. RELION puts a text file inside and gives up when the
directory stays; a crash leaves it behind for ever. Locks taken here also say in that file which
process took them, so that the lock of a process that is gone is known to be stale and removed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import SchemerError

LEDGER_LOCK = ".relion_lock"
LEDGER_LOCK_FILE = "lock_default_pipeline.star"
SCHEME_LOCK_PREFIX = ".relion_lock_scheme_"
SCHEME_LOCK_FILE = "lock_scheme"

_AT_FDCWD = -100  # <fcntl.h>
_RENAME_NOREPLACE = 1  # <linux/fs.h>
_EMPTY_IS_STALE_S = 30.0
_ASIDE_PREFIX = ".crboost_lock_"

_OWNER = re.compile(
    r"^crboost pid=(?P<pid>\d+) start=(?P<start>\d+) boot=(?P<boot>\S+) host=(?P<host>\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for good: a pid alone is given to another process later.

    Attributes:
        start_ticks: the kernel's start time of the process (clock ticks after boot).
        boot_id: the kernel's id of this boot.
    """

    pid: int
    start_ticks: int
    boot_id: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of a process that runs here now.

        Raises:
            ProcessLookupError: no such process.
        """
        ticks = _start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(pid)
        return cls(pid, ticks, _boot_id(), socket.gethostname())

    @property
    def on_this_host(self) -> bool:
        """Whether this machine can tell if the process lives."""
        return self.host == socket.gethostname()

    def alive(self) -> bool | None:
        """Whether the process still runs; None if it is another machine's to say."""
        if not self.on_this_host:
            return None
        return self.boot_id == _boot_id() and _start_ticks(self.pid) == self.start_ticks


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None for no such process and for a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def ledger_lock(
    project_dir: Path, message: str, *, timeout_s: float = 60.0, poll_s: float = 0.02
) -> Iterator[None]:
    """Hold RELION's ledger lock. Hold it for one read and one write, never longer.

    Args:
        message: what for; RELION users find it in the lock file.
        timeout_s: how long to wait for another program (RELION: 60 s).

    Raises:
        SchemerError: the lock stayed; says how old it is and what to remove.
    """
    directory = project_dir / LEDGER_LOCK
    take(directory, LEDGER_LOCK_FILE, message, timeout_s=timeout_s, poll_s=poll_s)
    try:
        yield
    finally:
        release(directory)


def scheme_lock_dir(project_dir: Path, scheme_name: str) -> Path:
    """The lock directory of a scheme."""
    return project_dir / f"{SCHEME_LOCK_PREFIX}{scheme_name}"


@contextmanager
def scheme_lock(
    project_dir: Path, scheme_name: str, *, timeout_s: float = 120.0, poll_s: float = 0.2
) -> Iterator[None]:
    """Hold a scheme's lock for as long as it runs or is changed.

    Raises:
        SchemerError: the lock stayed; says how old it is and what to remove.
    """
    directory = scheme_lock_dir(project_dir, scheme_name)
    take(
        directory,
        SCHEME_LOCK_FILE,
        "lock mechanism from Schemer",
        timeout_s=timeout_s,
        poll_s=poll_s,
    )
    try:
        yield
    finally:
        release(directory)


def take(
    directory: Path,
    file_name: str,
    message: str,
    *,
    timeout_s: float,
    poll_s: float,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Make the lock directory, waiting while another program has it.

    A lock whose owner is known to be gone is removed. One without a known owner is RELION's:
    it may be in use, and only a person can tell.

    Raises:
        SchemerError: the lock stayed for `timeout_s`, or cannot be made here.
    """
    me = ProcessId.of(os.getpid())
    owner = f"crboost pid={me.pid} start={me.start_ticks} boot={me.boot_id} host={me.host}"
    text = f"{message}\n{owner}\n"
    deadline = monotonic() + timeout_s
    while True:
        try:
            _make(directory, file_name, text)
            return
        except FileExistsError:
            if remove_stale(directory):
                continue
            if monotonic() >= deadline:
                raise SchemerError(
                    f"{directory}: another program has held this lock for {_age(directory)}"
                    f" ({describe(directory)}); waited {timeout_s:g} s",
                    hint="if no RELION or crboost runs in this project, remove that directory",
                ) from None
            sleep(poll_s)
        except OSError as error:
            raise SchemerError(
                f"{directory}: cannot make the lock directory: {error.strerror}",
                hint="the project directory must exist, be writable, and have free space",
            ) from error


def _make(directory: Path, file_name: str, text: str) -> None:
    """Make the lock directory with its file in one step, so that no kill leaves it unnamed.

    Raises:
        FileExistsError: somebody has the lock.
    """
    if directory.exists():
        raise FileExistsError(directory)
    prepared = _aside(directory)
    prepared.mkdir(mode=0o700)
    try:
        (prepared / file_name).write_text(text)
        if _rename_new(prepared, directory):
            return
        # This file system cannot do that (NFS): in two steps, as RELION does.
        directory.mkdir(mode=0o700)
        (directory / file_name).write_text(text)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)


def _aside(directory: Path) -> Path:
    """A name beside the lock directory that only this process and thread uses."""
    return directory.with_name(f"{_ASIDE_PREFIX}{os.getpid()}_{threading.get_native_id()}")


def sweep(project_dir: Path) -> None:
    """Remove what processes that were killed while making or giving back a lock have left."""
    for path in project_dir.glob(f"{_ASIDE_PREFIX}*"):
        try:
            is_old = time.time() - path.stat().st_mtime > _EMPTY_IS_STALE_S
        except FileNotFoundError:
            continue
        if is_old:
            shutil.rmtree(path, ignore_errors=True)


def _rename_new(source: Path, target: Path) -> bool:
    """Rename unless the target exists; False where the file system cannot promise that.

    A plain rename would replace an empty directory, which is a lock that RELION is just taking.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    here, there = os.fsencode(source), os.fsencode(target)
    if libc.renameat2(_AT_FDCWD, here, _AT_FDCWD, there, _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EEXIST, errno.ENOTEMPTY):
        raise FileExistsError(target)
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(target))


def release(directory: Path) -> None:
    """Give a lock back; a lock that somebody removed meanwhile is no error."""
    aside = _aside(directory)
    try:
        # In one step: a kill between the file's and the directory's end would leave it unnamed.
        directory.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def lock_owner(directory: Path) -> ProcessId | None:
    """Who holds the lock; None for RELION's own locks, which do not say."""
    match = _OWNER.search(_content(directory))
    if match is None:
        return None
    return ProcessId(int(match["pid"]), int(match["start"]), match["boot"], match["host"])


def remove_stale(directory: Path) -> bool:
    """Remove the lock if the process that took it is known to be gone; True if it was."""
    if not _owner_is_gone(directory):
        return False
    # Two waiters may see the same stale lock: only one at a time may look again and remove it,
    # or the second would remove the lock that the first has taken meanwhile.
    guard = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not _owner_is_gone(directory):
            return False
        release(directory)
        return True
    finally:
        os.close(guard)


def describe(directory: Path) -> str:
    """Who holds the lock, for messages."""
    owner = lock_owner(directory)
    if owner is not None:
        state = {True: "running", False: "gone", None: "on another machine"}[owner.alive()]
        return f"process {owner.pid} on {owner.host}, {state}"
    return _content(directory).strip().splitlines()[0] if _content(directory).strip() else "unnamed"


def _owner_is_gone(directory: Path) -> bool:
    owner = lock_owner(directory)
    if owner is not None:
        return owner.alive() is False
    # Whoever makes a lock in two steps writes its file at once, or was killed in between.
    try:
        is_empty = not any(directory.iterdir())
        return is_empty and time.time() - directory.stat().st_mtime > _EMPTY_IS_STALE_S
    except (FileNotFoundError, NotADirectoryError):
        return False


def _content(directory: Path) -> str:
    try:
        return "".join(file.read_text(errors="replace") for file in sorted(directory.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _age(directory: Path) -> str:
    try:
        seconds = max(0.0, time.time() - directory.stat().st_mtime)
    except FileNotFoundError:
        return "a moment"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
