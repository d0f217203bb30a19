"""Whose turn it is to run a project: one flow run at a time, the others wait in a queue.

Two kinds of files, both held with `flock`, which the kernel gives back however a process ends:
`.crboost/flow.lock` belongs to the one that works on the project, `.crboost/flow.queue/<ticket>`
to one that waits. They name their holder, for people. The schemer has a lock of its own
(`crboost.relion.schemer.holder`): jobs live on when the run that follows them is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

LOCK_FILE = ".crboost/flow.lock"
QUEUE_DIRECTORY = ".crboost/flow.queue"


@dataclass(frozen=True)
class Claim:
    """Who works on a project, or waits for it.

    Attributes:
        name: of the flow run, for people.
        id: of the flow run; empty where there is none.
        work: what it will do, if another one with the same text would do as well; "" if not.
        host, pid: the process.
    """

    name: str
    id: str = ""
    work: str = ""
    host: str = ""
    pid: int = 0

    @staticmethod
    def of_this_process(name: str, *, id: str = "", work: str = "") -> Claim:
        """The claim of the process that calls."""
        return Claim(name, id, work, socket.gethostname(), os.getpid())


class Turn:
    """A place in the queue of a project, then the project itself.

    `enter`, then `take` until it says that nobody is before us, `release` at the end. Of runs
    that would do the same work one waits, and the others need not: `enter` says so.

    Args:
        project: its directory.
        claim: who wants it.
    """

    def __init__(self, project: Path, claim: Claim) -> None:
        self._lock_path = project / LOCK_FILE
        self._queue = project / QUEUE_DIRECTORY
        self._claim = claim
        self._ticket: Path | None = None
        self._ticket_stream: IO[str] | None = None
        self._lock: IO[str] | None = None

    def enter(self) -> Claim | None:
        """Go to the end of the queue.

        Returns:
            One that waits there already and will do the same work, after this moment: then this
            one has left the queue again. None: we wait.
        """
        self._queue.mkdir(parents=True, exist_ok=True)
        handle, hidden = tempfile.mkstemp(prefix=".", dir=self._queue)
        stream = os.fdopen(handle, "w", encoding="utf-8")
        # Held before anybody can see it: a ticket that is not held is a dead one.
        fcntl.flock(stream, fcntl.LOCK_EX)
        json.dump(asdict(self._claim), stream)
        stream.flush()
        ticket = self._queue / f"{time.time_ns():020d}-{Path(hidden).name.lstrip('.')}"
        Path(hidden).rename(ticket)
        self._ticket, self._ticket_stream = ticket, stream
        if self._claim.work:
            for other in self._before_us():
                if other.work == self._claim.work:
                    self._leave_queue()
                    return other
        return None

    def take(self) -> Claim | None:
        """Take the project if nobody is before us.

        Returns:
            Who is before us; None: it is ours. What is looked at from then on is seen by us, and
            no longer promised to those who left the queue because of us.
        """
        if self._lock is not None:
            return None
        before = self._before_us()
        if before:
            return holder(self._lock_path.parent.parent) or before[0]
        stream = self._lock_path.open("a+", encoding="utf-8")
        if not _hold(stream):
            with stream:
                return _read_claim(stream)
        stream.truncate(0)
        json.dump(asdict(self._claim), stream)
        stream.flush()
        self._lock = stream
        self._leave_queue()
        return None

    def ahead(self) -> int:
        """How many wait before us; whoever works on the project does not count."""
        return len(self._before_us())

    def release(self) -> None:
        """Give the project, or the place in the queue, back."""
        self._leave_queue()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _before_us(self) -> list[Claim]:
        assert self._ticket is not None
        return [claim for ticket, claim in _tickets(self._queue) if ticket.name < self._ticket.name]

    def _leave_queue(self) -> None:
        if self._ticket is not None and self._ticket_stream is not None:
            self._ticket.unlink(missing_ok=True)
            self._ticket_stream.close()
        self._ticket = self._ticket_stream = None


def holder(project: Path) -> Claim | None:
    """The flow run that works on the project now; None: nobody does."""
    try:
        stream = (project / LOCK_FILE).open(encoding="utf-8")
    except FileNotFoundError:
        return None
    with stream:
        return None if _is_free(stream) else _read_claim(stream)


def waiting(project: Path) -> list[Claim]:
    """The flow runs that wait for the project, the next one first."""
    return [claim for _, claim in _tickets(project / QUEUE_DIRECTORY)]


def _tickets(queue: Path) -> list[tuple[Path, Claim]]:
    """Tickets whose holder lives, in order; those of the dead are thrown away."""
    found = []
    for ticket in sorted(queue.glob("[0-9]*-*")):
        try:
            with ticket.open(encoding="utf-8") as stream:
                if _is_free(stream):
                    ticket.unlink(missing_ok=True)
                else:
                    found.append((ticket, _read_claim(stream)))
        except FileNotFoundError:
            continue
    return found


def _hold(stream: IO[str]) -> bool:
    # Whoever only looks whether it is held holds it for an instant.
    for attempt in range(4):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02 * attempt)
    return False


def _is_free(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(stream, fcntl.LOCK_UN)
    return True


def _read_claim(stream: IO[str]) -> Claim:
    """The claim in a file that is held; whoever has just taken it has yet to write its name."""
    for _ in range(5):
        stream.seek(0)
        try:
            value: dict[str, Any] = json.loads(stream.read())
            return Claim(**value)
        except (ValueError, TypeError):
            time.sleep(0.02)
    return Claim("another run")
