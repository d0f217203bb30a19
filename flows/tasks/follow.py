"""Following a job's growing log files without drowning whoever listens.

A tool may print a million lines; a log record costs the Prefect server a row. Of everything
that came since the last record only the first and the last lines are passed on, with the
number of those left out and the file in which they all are. Memory stays bounded whatever
a tool prints, and the longer a job runs the rarer the records become.
"""

from __future__ import annotations

import codecs
from collections import deque
from dataclasses import dataclass
from pathlib import Path

HEAD_LINES = 8
TAIL_LINES = 16
LINE_LENGTH = 400
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Batch:
    """What becomes one log record: the first lines, how many were left out, the last lines."""

    head: tuple[str, ...]
    left_out: int
    tail: tuple[str, ...]

    def text(self, source: str) -> str:
        """The record's text; `source` is the file that holds every line."""
        if not self.left_out:
            return "\n".join([*self.head, *self.tail])
        lines = "line" if self.left_out == 1 else "lines"
        gap = f"... {self.left_out:,} {lines} left out, see {source}"
        return "\n".join([*self.head, gap, *self.tail])


class Backlog:
    """Bytes in, bounded batches of lines out.

    Args:
        head: lines kept from the start of each batch.
        tail: lines kept from its end; these are never lost.
    """

    def __init__(self, head: int = HEAD_LINES, tail: int = TAIL_LINES) -> None:
        self._limit = head
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head: list[str] = []
        self._tail: deque[str] = deque(maxlen=tail)
        self._left_out = 0
        self._partial = ""

    def feed(self, data: bytes) -> None:
        """Take what the file has grown by."""
        *lines, rest = (self._partial + self._decoder.decode(data)).split("\n")
        for line in lines:
            self._add(line)
        # A progress bar rewrites its line for ever; only what is on screen now counts.
        shown = rest.removesuffix("\r").rsplit("\r", 1)[-1][-4 * LINE_LENGTH :]
        self._partial = f"{shown}\r" if rest.endswith("\r") else shown

    def take(self, *, final: bool = False) -> Batch | None:
        """The batch since the last call, or None when no line was completed.

        Args:
            final: the file will not grow any more: an unfinished last line counts.
        """
        if final and self._partial:
            self._add(self._partial)
            self._partial = ""
        if not self._head:
            return None
        batch = Batch(tuple(self._head), self._left_out, tuple(self._tail))
        self._head, self._left_out = [], 0
        self._tail.clear()
        return batch

    def _add(self, line: str) -> None:
        text = line.rstrip("\r").rsplit("\r", 1)[-1].rstrip()
        if not text:
            return
        if len(text) > LINE_LENGTH:
            text = f"{text[:LINE_LENGTH]}... ({len(text):,} characters)"
        if len(self._head) < self._limit:
            self._head.append(text)
            return
        if len(self._tail) == self._tail.maxlen:
            self._left_out += 1
        self._tail.append(text)


def pause_seconds(running_seconds: float) -> float:
    """How long to wait between two log records of a job that has been running for so long.

    Two seconds at first, half a minute after an hour: a night's job makes a thousand records,
    not fifteen thousand.
    """
    return min(30.0, max(2.0, running_seconds / 120.0))


class FileTail:
    """Reads what a file has grown by, through a `Backlog`.

    The file may not exist yet. One that has become shorter was started anew and is read from
    its start.

    Args:
        path: the file.
        source: how the file is called in "left out" lines; its path by default.
        begin: how many bytes of it are older than what is followed.
        skip_present: begin at its present end (a retry appends to the first attempt's log).
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str | None = None,
        begin: int = 0,
        skip_present: bool = False,
    ) -> None:
        self.path = path
        self.source = source or str(path)
        self._backlog = Backlog()
        self._offset = self._size() if skip_present else begin

    def read(self, *, final: bool = False) -> str | None:
        """The text of the next log record, or None when there is nothing new."""
        size = self._size()
        if size < self._offset:
            self._backlog = Backlog()
            self._offset = 0
        if size > self._offset:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                while self._offset < size:
                    data = stream.read(min(_CHUNK_BYTES, size - self._offset))
                    if not data:
                        break
                    self._backlog.feed(data)
                    self._offset += len(data)
        batch = self._backlog.take(final=final)
        return batch.text(self.source) if batch else None

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0
