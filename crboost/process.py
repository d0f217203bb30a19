"""Running one tool command: live output, its last words kept, no orphans.

Also, for whoever starts a process that must not outlive it: `dying_with_us`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: How much of a command's error output is kept for the message of its failure.
TAIL_LINES = 30

#: How long the last words of an ended command are waited for.
READER_S = 5.0

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


@dataclass(frozen=True)
class Finished:
    """How a command ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        tail: the last lines of its error output.
    """

    code: int
    tail: tuple[str, ...]

    def describe(self) -> str:
        """`exit code 3: the last line`, or which signal ended it."""
        if self.code < 0:
            how = f"ended by {signal.Signals(-self.code).name}"
        else:
            how = f"exit code {self.code}"
        last = next((line for line in reversed(self.tail) if line.strip()), "")
        return f"{how}: {last.strip()}" if last else how


class Runner:
    """Runs commands and can stop them all.

    One runner belongs to one driver; commands run in several of its threads at once.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        on_error_line: Callable[[str], object] = sys.stderr.write,
        output: BinaryIO | None = None,
    ) -> Finished:
        """Run `argv` in `directory` and wait for it.

        Its standard output goes to `output`, or where ours goes; its error output where ours
        goes, line by line, and the last lines are kept. It dies with us, even if we are killed.

        Raises:
            FileNotFoundError: there is no such program.
            InterruptedError: `stop` was called.
        """
        with self._lock:
            if self._stopped:
                raise InterruptedError("stopped")
            process = subprocess.Popen(
                list(argv),
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=dying_with_us(),
            )
            self._running.add(process)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        stderr = process.stderr
        assert stderr is not None

        def read() -> None:
            for line in stderr:
                on_error_line(line)
                tail.append(line.rstrip("\n"))

        # Children that outlive the command hold the pipe open: its end is not the command's end.
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        # Not reaped yet, so that the group's number cannot belong to anybody else.
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        # A grandchild in a session of its own may still hold the pipe: its words can be missed.
        reader.join(timeout=READER_S)
        with self._lock:
            self._running.discard(process)
            if self._stopped:
                raise InterruptedError("stopped")
        return Finished(code, tuple(tail))

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End every running command, with its children, and refuse new ones."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue


def dying_with_us(number: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends the child a signal when we are gone, however we go.

    To be called by the thread that starts the child, and that thread must live as long as the
    child may: Linux takes the end of the thread for the end of the parent.
    """
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork, where no other thread holds a lock
    parent = os.getpid()
    return lambda: _end_with(parent, number, prctl)


def end_with(parent: int, number: signal.Signals) -> None:
    """In a child: have the kernel send us a signal when process `parent` is gone."""
    _end_with(parent, number, ctypes.CDLL(None).prctl)


def _end_with(parent: int, number: signal.Signals, prctl: Callable[..., int]) -> None:
    prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)
