"""One process that the supervisor keeps running."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from crboost.job_directory import tail
from crboost.process import dying_with_us
from crboost.relion.lock import ProcessId
from crboost.service.status import Part, PartState

#: Who lives so long did not die of its start.
LIVED_S = 60.0
LONGEST_PAUSE_S = 60.0


def pause_before_restart(previous_s: float | None, lived_s: float, first_s: float) -> float:
    """How long to wait before a process that died is started again, in seconds.

    Args:
        previous_s: the last pause; None: it died for the first time.
        lived_s: how long it had been running.
        first_s: the shortest pause.
    """
    if previous_s is None or lived_s >= LIVED_S:
        return first_s
    return min(2 * previous_s, max(LONGEST_PAUSE_S, first_s))


@dataclass
class Child:
    """A process, started again when it dies, gone when we are gone.

    Attributes:
        argv, environment, directory: what to run, and where.
        log: gets its output.
        first_pause_s: pause before the first restart.
        once: it has done its work when it ends with exit code 0.
        pass_fds: file descriptors that it inherits.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    first_pause_s: float = 1.0
    once: bool = False
    pass_fds: Sequence[int] = ()
    state: PartState = "stopped"
    message: str = ""
    starts: int = 0
    since: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _id: ProcessId | None = None
    _started_at: float = 0.0
    _pause_s: float | None = None
    _restart_at: float = 0.0

    @property
    def part(self) -> Part:
        """What is told of it."""
        return Part(self.name, self.state, self._id, self.since, self.starts, self.message)

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def lived_s(self) -> float:
        """How long ago it was started, in seconds."""
        return time.monotonic() - self._started_at

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                env=dict(self.environment),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
                start_new_session=True,
                preexec_fn=dying_with_us(),
            )
        with contextlib.suppress(ProcessLookupError):
            self._id = ProcessId.of(self._process.pid)
        self._started_at = time.monotonic()
        self.starts += 1
        self._enter("starting")

    def ready(self) -> None:
        """It has been seen at work."""
        if self.state == "starting":
            self.message = ""
            self._enter("running")

    def look(self) -> str | None:
        """See whether it lives, and start it again when it is time.

        Returns:
            What happened, if anything did.
        """
        if self.state == "waiting" and time.monotonic() >= self._restart_at:
            self.start()
            return "started again"
        if self._process is None or self._process.poll() is None:
            return None
        code, self._process, self._id = self._process.returncode, None, None
        if self.once and code == 0:
            self.message = ""
            self._enter("running")
            return "done"
        lived_s = self.lived_s
        self._pause_s = pause_before_restart(self._pause_s, lived_s, self.first_pause_s)
        self._restart_at = time.monotonic() + self._pause_s
        self.message = f"{how_it_ended(code)} after {lived_s:.0f} s; see {self.log}"
        self._enter("waiting")
        return f"{self.message}; starting it again in {self._pause_s:g} s"

    def kill(self) -> None:
        """End it without asking; it is started again."""
        if self._process is not None:
            self._process.kill()

    def stop(self, grace_s: float) -> None:
        """End it for good; returns when it is gone."""
        process, self._process, self._id = self._process, None, None
        self._enter("stopped")
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def last_words(self, lines: int = 8) -> str:
        """The end of its log."""
        return tail(self.log, lines=lines)

    def _enter(self, state: PartState) -> None:
        self.state = state
        self.since = datetime.now(UTC).isoformat(timespec="seconds")


def how_it_ended(code: int) -> str:
    """`exit code 3`, or `ended by SIGKILL`."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
