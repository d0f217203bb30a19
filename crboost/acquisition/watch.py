"""Watching directories for tilt series: file events or polling, looks into files, batches of facts.

What follows from what is seen is decided in `crboost.acquisition.arrivals`; here it is seen.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Event
from typing import IO, Literal

from crboost.acquisition.arrivals import (
    Arrivals,
    MdocLook,
    MovieLook,
    Patience,
    SeriesState,
    Standing,
    is_mdoc,
    is_of_interest,
)
from crboost.acquisition.facts import Report
from crboost.acquisition.mdoc import LARGEST_MDOC_BYTES, parse_mdoc
from crboost.acquisition.movies import inspect_movie
from crboost.acquisition.tilt_series import tilt_series_from_mdoc
from crboost.errors import CrboostError, FileFormatError, ParameterError, ProjectError
from crboost.file_systems import shared_file_system
from crboost.files import read_json, write_json

Method = Literal["auto", "events", "polling"]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often to do what, in seconds.

    Args:
        batch_seconds: facts found within so long after the first one are told together.
        rescan_seconds: look at all files so often, whatever events tell.
        poll_seconds: look at all files so often where there are no events.
        tick_seconds: see so often whether the time for something has come.

    Raises:
        ParameterError: a time is not positive (`batch_seconds` may be 0).
    """

    batch_seconds: float = 60.0
    rescan_seconds: float = 300.0
    poll_seconds: float = 10.0
    tick_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rescan_seconds", "poll_seconds", "tick_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ParameterError(f"{name} is {getattr(self, name)}; it must be more than 0 s")
        if not 0 <= self.batch_seconds < float("inf"):
            raise ParameterError(f"batch_seconds is {self.batch_seconds}; it must be 0 s or more")


class AlreadyWatched(ProjectError):
    """Another watcher uses the state file, and does what this one would."""


class Watcher:
    """Watches directories and everything below them; a context manager.

    `batches` is for a service. `look` is for a schedule that looks now and then: it needs the
    state file, which also remembers since when each file has not changed.

    Args:
        roots: directories.
        patience: how long to wait before a series is complete or partial.
        state_file: what has been seen and told; with it nothing is lost or told twice across a
            restart, however the process ended. None: all is forgotten at the end.
        rhythm: how often to do what.
        method: `auto` polls the roots if one of them is on a network filesystem.
        notice: takes a line about the watching itself, such as a directory that has gone.
        pulse: called again and again while `batches` waits, in its thread.

    Raises:
        ProjectError: a root is no directory.
        AlreadyWatched: another watcher uses the state file.
        CrboostError: the state file is something else.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        patience: Patience,
        *,
        state_file: Path | None = None,
        rhythm: Rhythm | None = None,
        method: Method = "auto",
        notice: Callable[[str], None] = lambda _: None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self._pulse = pulse
        #: Why a root cannot be looked at, as of the last look at all files.
        self.problem: str | None = None
        self.roots = _outermost(roots)
        self.rhythm = rhythm or Rhythm()
        self._notice = notice
        self._noticed: set[str] = set()
        self._state_file = state_file
        self._unsaved = True
        self._lock = None if state_file is None else _lock(state_file)
        try:
            self._arrivals = _load(state_file, patience)
        except BaseException:
            self.close()
            raise
        self.polling = method == "polling"
        if method == "auto":
            for root in self.roots:
                kind = shared_file_system(root)
                if kind is not None:
                    self.polling = True
                    self._tell(f"{root} is on {kind}: looking every {self._poll} s")

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another watcher use the state file."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def states(self) -> dict[str, SeriesState]:
        """Every tilt series known, and how it stands."""
        return self._arrivals.states()

    def standing(self) -> dict[str, Standing]:
        """Every tilt series known, how it stands, and how much of it is there."""
        return self._arrivals.standing()

    def rejected(self) -> dict[str, str]:
        """Files that are there and will not be used as they are: path -> why."""
        return self._arrivals.rejected()

    @property
    def latest(self) -> float:
        """When a file was last new, or seen to have changed, in seconds since 1970; 0 for never."""
        return self._arrivals.latest

    @property
    def pending(self) -> int:
        """How many reports have not been acknowledged."""
        return len(self._arrivals.pending)

    def take_as_it_is(self) -> None:
        """From now on a series without news counts as partial as soon as its files are finished."""
        self._arrivals.take_as_it_is()

    def look(self) -> tuple[Report, ...]:
        """Look at all files once; the reports that have not been acknowledged, saved before."""
        self._rescan()
        self._settle(anyway=True)
        self._save()
        return tuple(self._arrivals.pending)

    def acknowledge(self, reports: Iterable[Report]) -> None:
        """Forget reports: they have been dealt with."""
        self._arrivals.acknowledge(reports)
        self._save()

    def batches(self, stop: Event | None = None) -> Iterator[tuple[Report, ...]]:
        """Reports as they come, until `stop` is set; KeyboardInterrupt comes through.

        A batch counts as dealt with when the next one is asked for. One that was not, because
        the process was killed, comes again after the restart, with the same keys.
        """
        stop = stop or Event()
        turns = self._turns_by_clock(stop) if self.polling else self._turns_by_events(stop)
        try:
            for rescanned in turns:
                self._settle(anyway=rescanned)
                self._pulse()
                pending = tuple(self._arrivals.pending)
                # A report from the future: the clock has been set back.
                if pending and not 0 <= time.time() - pending[0].at < self.rhythm.batch_seconds:
                    self._save()
                    yield pending
                    self.acknowledge(pending)
                elif rescanned and self._unsaved:
                    self._save()
        finally:
            with suppress(FileNotFoundError):  # the project is away; a look makes up for it
                self._save()

    # -- seeing ------------------------------------------------------------------------------

    def _turns_by_clock(self, stop: Event) -> Iterator[bool]:
        """Rescan every `poll_seconds`; a turn (True: after a rescan) at every tick."""
        due = 0.0
        while not stop.is_set():
            rescan = time.monotonic() >= due
            if rescan:
                self._rescan()
                # Counted from the end: a slow disk is left alone between two scans.
                due = time.monotonic() + self.rhythm.poll_seconds
            yield rescan
            stop.wait(self.rhythm.tick_seconds)

    def _turns_by_events(self, stop: Event) -> Iterator[bool]:
        """As events come and at every tick; goes over to polling where the kernel refuses."""
        from watchfiles import watch

        tick_ms = max(20, round(1000 * self.rhythm.tick_seconds))
        events = watch(
            *self.roots,
            watch_filter=None,
            stop_event=stop,
            debounce=tick_ms,
            step=min(50, tick_ms),
            rust_timeout=tick_ms,
            yield_on_timeout=True,
        )
        due = 0.0
        while True:
            try:
                changes = next(events, None)
            except (OSError, RuntimeError) as error:
                self._tell(f"no file events ({error}): looking every {self._poll} s")
                self.polling = True
                yield from self._turns_by_clock(stop)
                return
            if changes is None:
                return
            # The first turn comes when events are on: nothing falls between scan and events.
            rescan = time.monotonic() >= due
            if rescan:
                self._rescan()
                due = time.monotonic() + self.rhythm.rescan_seconds
            else:
                for path in sorted({path for _, path in changes}):
                    self._event(path)
            yield rescan

    @property
    def _poll(self) -> str:
        return f"{self.rhythm.poll_seconds:g}"

    def _event(self, path: str) -> None:
        """Something has happened to a path."""
        try:
            status = Path(path).stat()
        except OSError:
            self._arrivals.gone(path)
            return
        if S_ISDIR(status.st_mode):
            # What was written into a new directory before it was watched has made no event.
            found, _ = scan(Path(path))
            for file, (size, mtime_ns) in found.items():
                self._arrivals.seen(file, size, mtime_ns, time.time())
        elif S_ISREG(status.st_mode):
            self._arrivals.seen(path, status.st_size, status.st_mtime_ns, time.time())

    def _rescan(self) -> None:
        self.problem = None
        for root in self.roots:
            found, problems = scan(root)
            now = time.time()
            # A directory below it, such as lost+found, may always be somebody else's.
            self.problem = next((p for p in problems if p.startswith(f"{root} ")), self.problem)
            if problems:
                # Not seen is not gone: a disk may be away for a moment.
                for problem in problems[:3]:
                    self._tell(problem)
                for file, (size, mtime_ns) in found.items():
                    self._arrivals.seen(file, size, mtime_ns, now)
            else:
                self._arrivals.scanned(str(root), found, now)

    def _settle(self, anyway: bool) -> None:
        """Look into files and draw conclusions; `anyway`: try what could not be read again."""
        if not (anyway or self._arrivals.due(time.time())):
            return
        self._unsaved = self._unsaved or self._arrivals.due(time.time())
        # Twice: which movies matter is known when the mdocs have been read.
        for _ in range(2):
            for path in self._arrivals.to_look_at(time.time()):
                self._look_into(Path(path))
        self._arrivals.settle(time.time())

    def _look_into(self, path: Path) -> None:
        look: MdocLook | MovieLook
        try:
            before = path.stat()
            look = look_into_mdoc(path) if is_mdoc(path.name) else look_into_movie(path)
            after = path.stat()
        except FileNotFoundError:
            self._arrivals.gone(str(path))
            return
        except OSError as error:
            self._tell(f"{path} cannot be read: {error.strerror or error}")
            return
        size_and_time = before.st_size, before.st_mtime_ns
        if size_and_time == (after.st_size, after.st_mtime_ns):
            self._arrivals.seen(str(path), *size_and_time, time.time())
            self._arrivals.looked(str(path), *size_and_time, look)
        else:
            self._arrivals.seen(str(path), after.st_size, after.st_mtime_ns, time.time())

    def _save(self) -> None:
        # Without the lock the file may be another watcher's by now.
        if self._state_file is not None and self._lock is not None:
            # The directory has been there: where it is away, another one must not take its place.
            self._state_file.parent.stat()
            write_json(self._state_file, self._arrivals.to_json())
            self._unsaved = False

    def _tell(self, text: str) -> None:
        """A notice, once."""
        if text not in self._noticed:
            self._noticed.add(text)
            self._notice(text)


def scan(root: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Mdocs and possible movies in a directory and below: path -> size and time in ns.

    Also says which directories could not be read. Links to directories are not followed.
    """
    found: dict[str, tuple[int, int]] = {}
    problems: list[str] = []

    def failed(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be read: {error.strerror}")

    for directory, _, names in os.walk(root, onerror=failed):
        for name in names:
            if not is_of_interest(name):
                continue
            path = Path(directory) / name
            try:
                status = path.stat()
            except OSError:  # it has just gone, or is a link to nowhere
                continue
            if S_ISREG(status.st_mode):
                found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found, problems


def look_into_mdoc(path: Path) -> MdocLook:
    """Read an mdoc; one that is no tilt series has a problem.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST_MDOC_BYTES:
        return MdocLook("", problem=f"{size} bytes are too many for an mdoc")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:16]
    try:
        series = tilt_series_from_mdoc(parse_mdoc(data, path))
    except FileFormatError as error:
        where = "" if error.line is None else f"line {error.line}: "
        return MdocLook(digest, problem=where + error.problem)
    movies = tuple(tilt.movie_name for tilt in series.tilts)
    return MdocLook(digest, series.name, movies, series.incomplete)


def look_into_movie(path: Path) -> MovieLook:
    """Read a movie's headers, to its last frame.

    Raises:
        OSError: it cannot be read.
    """
    return MovieLook(inspect_movie(path).problem)


def _outermost(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Absolute directories; those that lie in others are left out."""
    if not roots:
        raise ProjectError("no directory to watch")
    for root in roots:
        if not root.is_dir():
            raise ProjectError(
                f"{root} is not a directory", hint="it must exist before it can be watched"
            )
    absolute = sorted({root.resolve() for root in roots})
    return tuple(one for one in absolute if not any(o in one.parents for o in absolute))


def _load(state_file: Path | None, patience: Patience) -> Arrivals:
    if state_file is None or not state_file.exists():
        return Arrivals(uuid.uuid4().hex[:12], patience)
    try:
        return Arrivals.from_json(read_json(state_file), patience, time.time())
    except FileFormatError:
        raise
    except CrboostError as error:
        raise CrboostError(f"{state_file}: {error.message}", hint=error.hint) from error


def remembered_latest(state_file: Path) -> float:
    """`Watcher.latest` as the state file has it, without watching.

    Of a damaged file, when it was written; 0 where there is none, or it cannot be seen.
    """
    try:
        return Arrivals.from_json(read_json(state_file), Patience(), time.time()).latest
    except (CrboostError, OSError):
        try:
            return state_file.stat().st_mtime
        except OSError:
            return 0.0


def _lock(state_file: Path) -> IO[str]:
    """Hold the state file; the kernel lets go of it however the process ends."""
    state_file.parent.mkdir(parents=True, exist_ok=True)
    stream = state_file.with_name(f"{state_file.name}.lock").open("a")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise AlreadyWatched(
            f"another watcher uses {state_file}", hint="stop it, or give this one another file"
        ) from None
    return stream
