"""`python -m flows.watcher`: watches the microscopes of all active sessions, and tells Prefect.

Of each batch of a session: what is whole is taken into the project, the server is told, and only
then the batch counts as dealt with. While the server is away, or the disk full, the batch waits
and is tried again; a process that is killed anywhere in between does it again after its start, and
again comes to the same end.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from types import FrameType

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from crboost.acquisition.arriving import write_arriving
from crboost.acquisition.facts import Report
from crboost.acquisition.intake import take_in
from crboost.acquisition.watch import Watcher
from crboost.errors import CrboostError, FileFormatError
from crboost.files import read_json, write_json
from crboost.project import Project
from crboost.session import ActiveSession, Session, active_sessions, read_session
from crboost.settings import load_settings
from flows.events import FINISHED, QUIET, STARTED, Event, events_of, send

#: What the watcher of a session remembers, in the project.
STATE_FILE = ".crboost/arrivals.json"
#: What has been told of a session, in the project.
TOLD_FILE = ".crboost/session_told.json"
#: The sessions that have been told as started, in the service directory.
WATCHED_FILE = "watched.json"
LOOK_SECONDS = 3.0
PULSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0

log = logging.getLogger("crboost.watcher")

Post = Callable[[Sequence[Event]], None]
#: What may go wrong for a while, and is tried again.
PASSING = (httpx.HTTPError, PrefectException, OSError, CrboostError)


def post(events: Sequence[Event]) -> None:
    """Send events to the server of `PREFECT_API_URL`."""
    with get_client(sync_client=True) as client:
        send(client, events)


class Stopped(Exception):
    """The watcher is to end before something could be dealt with."""


def again_and_again(what: Callable[[], object], stop: Flag, words: str) -> None:
    """Do something until it works, with growing pauses.

    Raises:
        Stopped: `stop` was set before it did.
    """
    pause, told = 0.5, ""
    while True:
        try:
            what()
        except PASSING as error:
            text = f"{words}: {type(error).__name__}: {error}"
            if text != told:
                log.warning("%s; trying again", text)
                told = text
        else:
            if told:
                log.info("%s: done after all", words)
            return
        if stop.wait(pause):
            raise Stopped
        pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)


def deal_with(
    reports: Sequence[Report], project: Project, session: Session, send: Post
) -> list[str]:
    """Take in what a batch tells of, then tell the server; may be repeated.

    Returns:
        The tilt series that there is work to do on.

    Raises:
        OSError, CrboostError, httpx.HTTPError, PrefectException: it is not done; do it again.
    """
    taken = take_in(project, session.watch, [report.fact for report in reports])
    for problem in taken.problems:
        log.warning("%s: %s", project.name, problem)
    names = [one.name for one in taken.series if one.state != "reopened"]
    send(events_of(reports, names, project.directory, project.name, session.jobs))
    states = [f"{one.name} {one.state} ({one.usable}/{one.tilts})" for one in taken.series]
    if states:
        log.info("%s: %s", project.name, ", ".join(states))
    return names


class SessionWatch(Thread):
    """Serves one session until it is stopped; begins anew after whatever goes wrong.

    Args:
        project: of the session.
        session: as it was read; another one is another thread's.
        send: gives events to the server.
    """

    def __init__(self, project: Project, session: Session, send: Post = post) -> None:
        super().__init__(name=f"session {session.id}", daemon=True)
        self.project = project
        self.session = session
        self.stop = Flag()
        self._send = send
        self._next_pulse = 0.0

    def run(self) -> None:
        """Watch; a directory that is away, or a bug, must not end the session."""
        pause = 1.0
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self._watch()
            except Stopped:
                return
            except (CrboostError, OSError) as error:
                log.warning("%s: %s", self.project.directory, error)
            except Exception:
                log.exception("%s: the watching broke off", self.project.directory)
            pause = 1.0 if time.monotonic() - began > 60 else min(LONGEST_PAUSE_SECONDS, 2 * pause)
            self.stop.wait(pause)

    def _watch(self) -> None:
        session = self.session
        with Watcher(
            session.watch,
            session.watcher_patience,
            state_file=self.project.directory / STATE_FILE,
            rhythm=session.rhythm,
            method="auto" if session.poll_seconds is None else "polling",
            notice=lambda text: log.warning("%s: %s", self.project.directory, text),
            pulse=lambda: self._pulse(watcher),
        ) as watcher:
            log.info("%s: watching %s", self.project.directory, ", ".join(map(str, watcher.roots)))
            # A batch that was not dealt with must not be asked past: see `Watcher.batches`.
            for batch in watcher.batches(self.stop):
                self._deal_with(batch)

    def _deal_with(self, batch: Sequence[Report]) -> None:
        again_and_again(
            lambda: deal_with(batch, self.project, self.session, self._send),
            self.stop,
            f"{self.project.directory}: {len(batch)} news could not be dealt with",
        )

    def _pulse(self, watcher: Watcher) -> None:
        """Show how the series stand, and tell of a silence."""
        began = time.monotonic()
        if began < self._next_pulse:
            return
        try:
            now = datetime.now(UTC)
            write_arriving(self.project.directory, watcher.standing(), now)
            self._tell_silence(watcher.latest, now)
        except PASSING as error:
            log.warning("%s: %s: %s", self.project.directory, type(error).__name__, error)
            self._next_pulse = time.monotonic() + LONGEST_PAUSE_SECONDS
        else:
            # At most a twentieth of the time: there may be tens of thousands of files.
            took = time.monotonic() - began
            self._next_pulse = time.monotonic() + max(PULSE_SECONDS, 20 * took)

    def _tell_silence(self, latest: float, now: datetime) -> None:
        path = self.project.directory / TOLD_FILE
        told = read_json(path).get("silence_since") if path.is_file() else None
        since = silence(self.session, latest, now, told)
        if since is None:
            return
        minutes = round((now.timestamp() - since) / 60, 1)
        event = Event(
            f"{self.session.id} {since}", QUIET, self.project.directory, self.project.name,
            {"minutes": minutes, "since": datetime.fromtimestamp(since, UTC).isoformat()},
        )  # fmt: skip
        self._send([event])
        write_json(path, {"silence_since": since})
        log.info("%s: no new data for %g minutes", self.project.name, minutes)


def silence(session: Session, latest: float, now: datetime, told: float | None) -> float | None:
    """Since when there have been no new data, if that is long enough and has not been told.

    Args:
        latest: when data last came, in seconds since 1970.
        told: beginning of the silence that was told last.
    """
    if session.quiet_minutes is None:
        return None
    since = max(latest, session.started.timestamp())
    long_enough = now.timestamp() - since >= 60 * session.quiet_minutes
    return since if long_enough and since != told else None


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
            if session is not None and session.active and session.id == active.id:
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
        self._tell_begin_and_end([Watched(one.id, one.project) for one, _ in wanted.values()])

    def _tell_begin_and_end(self, now: Sequence[Watched]) -> None:
        """Tell of sessions that have begun or ended; what cannot be told is told next time."""
        before = read_watched(self.directory)
        for one in now:
            if one not in before:
                self._send([session_event(one, STARTED)])
                before.append(one)
                write_watched(self.directory, before)
        for one in [one for one in before if one not in now]:
            if (one.project / ".crboost").is_dir():
                self._finish(one)
            before.remove(one)
            write_watched(self.directory, before)

    def _finish(self, one: Watched) -> None:
        """A last look at what has come, then the end is told."""
        project = Project(one.project)
        session = read_session(project)
        if session is not None and session.id == one.id:
            look_once(project, session, self._send)
        self._send([session_event(one, FINISHED)])
        log.info("%s: the session has ended", one.project)

    def _notice(self, text: str) -> None:
        if text not in self._noticed:
            self._noticed.add(text)
            log.warning("%s", text)


def look_once(project: Project, session: Session, send: Post = post) -> list[str]:
    """Look at the files of a session once, and deal with what there is to tell.

    Returns:
        The tilt series that there is work to do on, and that the server has been told of; none if
        a watcher is at work on the session.

    Raises:
        as `deal_with`; what was found is found again.
    """
    try:
        watcher = Watcher(
            session.watch, session.watcher_patience, state_file=project.directory / STATE_FILE
        )
    except CrboostError as error:
        log.info("%s: %s", project.directory, error.message)
        return []
    names = []
    with watcher:
        reports = watcher.look()
        if reports:
            names = deal_with(reports, project, session, send)
            watcher.acknowledge(reports)
        write_arriving(project.directory, watcher.standing(), datetime.now(UTC))
    return names


def session_event(one: Watched, name: str) -> Event:
    """That a session has begun or ended."""
    project = Project(one.project)
    return Event(one.id, name, one.project, project.name, {"session": one.id})


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
