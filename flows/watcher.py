"""`python -m flows.watcher`: watches the microscopes of all active sessions, and tells Prefect.

Each session has a thread of its own, `flows.session_watch`; here they come and go, and their
beginnings and ends are told.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag
from types import FrameType

from prefect.settings import PREFECT_API_URL

from crboost.acquisition.arrivals import open_series
from crboost.acquisition.arriving import read_arriving
from crboost.acquisition.taken import read_intake
from crboost.errors import CrboostError, FileFormatError
from crboost.files import read_json, write_json
from crboost.project import Project
from crboost.session import (
    ActiveSession,
    Session,
    active_sessions,
    read_session,
    session_entry,
)
from crboost.settings import load_settings
from flows.events import FINISHED, MOST_NAMES, STARTED, Event
from flows.session_watch import PASSING, Post, SessionWatch, look_once, post

#: The sessions that have been told as started, in the service directory.
WATCHED_FILE = "watched.json"
LOOK_SECONDS = 3.0

log = logging.getLogger("crboost.watcher")


@dataclass(frozen=True)
class Watched:
    """A session that the server was told of."""

    id: str
    project: Path


class Service:
    """All active sessions, each with its thread.

    Args:
        directory: the service directory.
        send: gives events to the server.
    """

    def __init__(self, directory: Path, send: Post = post) -> None:
        self.directory = directory
        self._send = send
        self._threads: dict[str, SessionWatch] = {}
        self._noticed: set[str] = set()

    def serve(self, stop: Flag) -> None:
        """Serve the sessions that there are, as they come and go, until `stop` is set."""
        while not stop.is_set():
            try:
                self.look()
            except PASSING as error:
                self._notice(f"{type(error).__name__}: {error}")
            stop.wait(LOOK_SECONDS)
        for thread in self._threads.values():
            thread.stop.set()
        for thread in self._threads.values():
            thread.join(timeout=5)

    def look(self) -> None:
        """Start threads for sessions that are new or have changed, end those of the others."""
        wanted: dict[str, tuple[ActiveSession, Session]] = {}
        for active in active_sessions(self.directory, self._notice):
            session = read_session(Project(active.project))
            if session is not None and session.is_watched and session.id == active.id:
                wanted[active.id] = active, session
        for id, thread in list(self._threads.items()):
            if not thread.is_alive():
                del self._threads[id]
            elif id not in wanted or thread.session != wanted[id][1]:
                thread.stop.set()
                thread.join(timeout=30)
                if not thread.is_alive():
                    del self._threads[id]
        for id, (active, session) in wanted.items():
            if id not in self._threads:
                thread = SessionWatch(Project(active.project), session, self._send)
                self._threads[id] = thread
                thread.start()
        for watch in self._threads.values():
            try:
                watch.tell_hang(datetime.now(UTC))
            except PASSING as error:
                self._notice(f"{watch.project.directory}: {type(error).__name__}: {error}")
        self._tell_begin_and_end([Watched(one.id, one.project) for one, _ in wanted.values()])

    def _tell_begin_and_end(self, now: Sequence[Watched]) -> None:
        """Tell of sessions that have begun or ended; what cannot be told is told next time.

        One that cannot be told must not keep the others from it.
        """
        before = read_watched(self.directory)
        for one in [one for one in now if one not in before]:
            with self._noticing(one):
                self._send([session_event(one, STARTED, {})])
                before.append(one)
                write_watched(self.directory, before)
        for one in [one for one in before if one not in now]:
            with self._noticing(one):
                if self._is_over(one):
                    before.remove(one)
                    write_watched(self.directory, before)

    def _is_over(self, one: Watched) -> bool:
        """Whether a session that is not to be watched has ended, and its end has been told."""
        if not Project.exists(one.project):
            # Its file system may be away for a moment; what nobody knows any more is gone.
            return not session_entry(self.directory, one.id).exists()
        project = Project(one.project)
        session = read_session(project)
        if session is not None and session.id == one.id:
            if session.is_watched:  # it could not be read a moment ago
                return False
            try:
                look_once(project, session, self._send)
            except (CrboostError, OSError) as error:
                log.warning("%s: no last look at what has come: %s", one.project, error)
        self._send([session_event(one, FINISHED, what_it_brought(project))])
        log.info("%s: the session has ended", one.project)
        return True

    @contextmanager
    def _noticing(self, one: Watched) -> Iterator[None]:
        try:
            yield
        except PASSING as error:
            self._notice(f"{one.project}: {type(error).__name__}: {error}")

    def _notice(self, text: str) -> None:
        if text not in self._noticed:
            self._noticed.add(text)
            log.warning("%s", text)


def session_event(one: Watched, name: str, payload: Mapping[str, object]) -> Event:
    """That a session has begun or ended."""
    project = Project(one.project)
    return Event(one.id, name, one.project, project.name, {"session": one.id, **payload})


def what_it_brought(project: Project) -> dict[str, object]:
    """How many tilt series have been taken in, and which have not as they did not end."""
    try:
        states = [one.state for one in read_intake(project.directory).values()]
    except (FileFormatError, OSError):
        states = []
    arriving = read_arriving(project.directory)
    left = open_series(arriving.series) if arriving is not None else []
    return {
        "complete": states.count("complete"),
        "partial": states.count("partial"),
        "left_out": left[:MOST_NAMES],
    }


def read_watched(directory: Path) -> list[Watched]:
    """The sessions whose beginning was told, and whose end was not."""
    try:
        value = read_json(directory / WATCHED_FILE)
        return [Watched(id, Path(project)) for id, project in value.items()]
    except (FileNotFoundError, FileFormatError, AttributeError):
        return []


def write_watched(directory: Path, watched: Sequence[Watched]) -> None:
    """Remember them."""
    write_json(directory / WATCHED_FILE, {one.id: str(one.project) for one in watched})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.watcher", description=__doc__)
    parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("httpx", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not PREFECT_API_URL.value():
        print(
            "Error: there is no Prefect server to tell\n  -> set PREFECT_API_URL", file=sys.stderr
        )
        return 2
    stop = Flag()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    Service(load_settings().service.directory).serve(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
