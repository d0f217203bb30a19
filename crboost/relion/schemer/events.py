"""Wake up at once when a file appears in a directory or a process ends (Linux)."""

from __future__ import annotations

import ctypes
import os
import select
from pathlib import Path
from types import TracebackType

# <sys/inotify.h>
_IN_CREATE = 0x00000100
_IN_MOVED_TO = 0x00000080
_IN_CLOSE_WRITE = 0x00000008
_IN_ATTRIB = 0x00000004
_IN_DELETE_SELF = 0x00000400


class Wakeup:
    """Waits for a change in a directory, the end of a process, or a time-out.

    Where the kernel offers no notification (other systems, some network file systems when
    another machine writes) only the time-out wakes; callers look at the files again each time.
    """

    def __init__(self, directory: Path, pid: int | None = None) -> None:
        self._notify = _watch(directory)
        self._process = _pid_descriptor(pid) if pid is not None else None

    def wait(self, timeout_s: float) -> None:
        """Return at the next event, at the latest after `timeout_s` seconds."""
        watched = [fd for fd in (self._notify, self._process) if fd is not None]
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if self._notify in ready and self._notify is not None:
            os.read(self._notify, 65536)
        if self._process in ready and self._process is not None:
            # An ended process stays readable for ever: one wake-up is enough.
            os.close(self._process)
            self._process = None

    def __enter__(self) -> Wakeup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in (self._notify, self._process):
            if descriptor is not None:
                os.close(descriptor)
        self._notify = self._process = None


def _watch(directory: Path) -> int | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    except (AttributeError, OSError):
        return None
    if descriptor < 0:
        return None
    mask = _IN_CREATE | _IN_MOVED_TO | _IN_CLOSE_WRITE | _IN_ATTRIB | _IN_DELETE_SELF
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), mask) < 0:
        os.close(descriptor)
        return None
    return descriptor


def _pid_descriptor(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
