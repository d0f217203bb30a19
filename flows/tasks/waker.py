"""Waiting until something happens to a few files: by events, with a poll as the fallback."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType


class Waker:
    """Wakes a waiting thread soon after a file in the watched directories changes.

    Events do not cross network file systems, so a wait always ends after its timeout: what
    waits must look for itself, and must look once after `watch` and before the first `wait`.

    Args:
        settle_seconds: the shortest time between two wakes; a busy log wakes nobody sooner.
    """

    def __init__(self, settle_seconds: float = 0.2) -> None:
        self._settle_seconds = settle_seconds
        self._changed = threading.Event()
        self._stop: threading.Event | None = None
        self._paths: frozenset[Path] = frozenset()
        self._last_wake = 0.0

    def __enter__(self) -> Waker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def watch(self, paths: Sequence[Path]) -> None:
        """Watch these files and directories (not what lies below them) from now on."""
        wanted = frozenset(path for path in paths if path.exists())
        if wanted == self._paths:
            return
        self._end()
        self._paths = wanted
        if wanted:
            self._stop = threading.Event()
            threading.Thread(
                target=_pump,
                args=(sorted(wanted), self._stop, self._changed),
                name="crboost-file-events",
                daemon=True,
            ).start()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for a change; True when there was one, False after the timeout."""
        pause = self._last_wake + self._settle_seconds - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, timeout_seconds))
        woken = self._changed.wait(timeout_seconds)
        self._changed.clear()
        self._last_wake = time.monotonic()
        return woken

    def _end(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        self._paths = frozenset()


def _pump(paths: Sequence[Path], stop: threading.Event, changed: threading.Event) -> None:
    """Turn file events into one flag, until told to stop."""
    import watchfiles

    # No inotify watches left, or a directory that went away: the poll carries on alone.
    with contextlib.suppress(OSError, RuntimeError):
        changes = watchfiles.watch(
            *paths,
            watch_filter=None,
            recursive=False,
            debounce=100,
            step=20,
            rust_timeout=1000,
            stop_event=stop,
            raise_interrupt=False,
        )
        for _ in changes:
            changed.set()
