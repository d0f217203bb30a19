"""The watching of one session: what has come is taken into the project, and Prefect is told.

Of each batch: what is whole is taken in, the server is told, and only then the batch counts as
dealt with. While the server is away, or the disk full, the batch waits and is tried again; a
process that is killed anywhere in between does it again after its start, and again comes to the
same end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from threading import Thread

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from crboost.acquisition.arrivals import Standing, open_series
from crboost.acquisition.arriving import note_left_out, write_arriving
from crboost.acquisition.facts import Report, SeriesComplete, SeriesPartial
from crboost.acquisition.intake import take_in
from crboost.acquisition.watch import AlreadyWatched, Watcher, remembered_latest
from crboost.errors import CrboostError, ProjectError
from crboost.files import read_json, write_json
from crboost.project import Project
from crboost.session import Session, end_draining
from flows.events import QUIET, STUCK, Event, events_of, send

#: What the watcher of a session remembers, in the project.
STATE_FILE = ".crboost/arrivals.json"
#: What has been told of a session, in the project.
TOLD_FILE = ".crboost/session_told.json"
PULSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0
#: What goes wrong for so long is told to people.
STUCK_AFTER = timedelta(minutes=10)
#: Without an error for so long, trouble is over; more than the longest pause between two tries.
LULL = timedelta(minutes=5)

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


def again_and_again(
    what: Callable[[], object],
    stop: Flag,
    words: str,
    troubled: Callable[[str], None] = lambda _: None,
) -> None:
    """Do something until it works, with growing pauses.

    Args:
        troubled: is given what went wrong, each time.

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
            troubled(text)
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
    for problem in [*map(str, taken.left_out), *taken.problems]:
        log.warning("%s: %s", project.name, problem)
    facts = [report.fact for report in reports]
    judged = {one.mdoc for one in facts if isinstance(one, SeriesComplete | SeriesPartial)}
    note_left_out(project.directory, taken.left_out, judged, datetime.now(UTC))
    names = taken.names
    send(events_of(reports, taken, project.directory, project.name, session.jobs))
    states = [f"{one.name} {one.state} ({one.usable}/{one.tilts})" for one in taken.series]
    if states:
        log.info("%s: %s", project.name, ", ".join(states))
    return names


class Trouble:
    """Whether data cannot be taken in, and since when. No clock is read here.

    Args:
        after: trouble of so long is told, once.
    """

    def __init__(self, after: timedelta = STUCK_AFTER) -> None:
        self.reason = ""
        self.since: datetime | None = None
        self._after = after
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._told = False

    def note(self, reason: str, now: datetime) -> None:
        """Something went wrong."""
        if self.since is None or now - self._latest > LULL:
            self.since, self._told = now, False
        self.reason, self._latest = reason, now

    def over(self) -> None:
        """What went wrong has been done."""
        self.since = None

    def due(self, now: datetime) -> bool:
        """Whether it is to be told."""
        return self.since is not None and not self._told and now - self.since >= self._after

    def told(self) -> None:
        """It has been."""
        self._told = True


class SessionWatch(Thread):
    """Serves one session until it is stopped; begins anew after whatever goes wrong.

    Args:
        project: of the session.
        session: as it was read; another one is another thread's.
        send: gives events to the server.
        stuck_after: how long something goes wrong before people are told.
    """

    def __init__(
        self,
        project: Project,
        session: Session,
        send: Post = post,
        stuck_after: timedelta = STUCK_AFTER,
    ) -> None:
        super().__init__(name=f"session {session.id}", daemon=True)
        self.project = project
        self.session = session
        self.stop = Flag()
        self._send = send
        self._next_pulse = 0.0
        self._trouble = Trouble(stuck_after)
        self._latest: float | None = None
        self._untold = ""
        # When the thread last showed that it lives; a dead file system holds it for ever.
        self._sign = datetime.now(UTC)
        self._hang = Trouble(stuck_after)
        self._began = datetime.now(UTC)
        self._hurried = False

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
                self._troubled(str(error))
            except Exception as error:
                log.exception("%s: the watching broke off", self.project.directory)
                self._troubled(f"{type(error).__name__}: {error}")
            pause = 1.0 if time.monotonic() - began > 60 else min(LONGEST_PAUSE_SECONDS, 2 * pause)
            self.stop.wait(pause)

    def _watch(self) -> None:
        session = self.session
        self._hurried = False
        self._check_project()
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
        def deal() -> None:
            self._check_project()
            deal_with(batch, self.project, self.session, self._send)

        again_and_again(
            deal,
            self.stop,
            f"{self.project.directory}: {len(batch)} news could not be dealt with",
            self._troubled,
        )
        self._trouble.over()
        self._sign = datetime.now(UTC)

    def _pulse(self, watcher: Watcher) -> None:
        """Show how the series stand, and tell of a silence."""
        began = time.monotonic()
        self._sign = datetime.now(UTC)
        self._check_project()
        if began < self._next_pulse:
            return
        self._latest = watcher.latest
        if watcher.problem is not None:
            self._troubled(watcher.problem)
        try:
            now = datetime.now(UTC)
            write_arriving(self.project.directory, watcher.standing(), now, watcher.rejected())
            self._tell_silence(watcher.latest, now)
            if self.session.draining:
                self._drain(watcher, now)
        except PASSING as error:
            log.warning("%s: %s: %s", self.project.directory, type(error).__name__, error)
            self._next_pulse = time.monotonic() + LONGEST_PAUSE_SECONDS
        else:
            # At most a twentieth of the time: there may be tens of thousands of files.
            took = time.monotonic() - began
            self._next_pulse = time.monotonic() + max(PULSE_SECONDS, 20 * took)

    def _check_project(self) -> None:
        """See that nothing is written where the project's file system is to be mounted.

        Raises:
            ProjectError: the project is away.
        """
        if not Project.exists(self.project.directory):
            raise ProjectError(f"{self.project.directory} is away")

    def _drain(self, watcher: Watcher, now: datetime) -> None:
        """End, when the series that had begun have come to their end, or in time as they are."""
        if watcher.pending:
            return
        standing = watcher.standing()
        if self._hurried or is_drained(self.session, standing, watcher.latest, now):
            finish_draining(self.project, self.session, standing)
            self.stop.set()
        # Seen from the start of this watcher on: what came while none was there has its time too.
        elif now >= drain_until(self.session, self._began):
            watcher.take_as_it_is()
            self._hurried = True

    def _troubled(self, reason: str) -> None:
        """Something keeps data from being taken in: tell it when it has lasted, and a silence.

        No data can be seen meanwhile, and the pulse does not beat.
        """
        now = datetime.now(UTC)
        self._sign = now
        self._trouble.note(reason, now)
        if self._latest is None:
            self._latest = remembered_latest(self.project.directory / STATE_FILE)
        latest = self._latest
        for tell in (
            lambda: self._tell_stuck(self._trouble, now),
            lambda: self._tell_silence(latest, now),
        ):
            try:
                tell()
            except PASSING as error:
                text = f"{type(error).__name__}: {error}"
                if text != self._untold:
                    log.warning("%s: could not be told: %s", self.project.directory, text)
                    self._untold = text

    def tell_hang(self, now: datetime) -> None:
        """Tell if the thread gives no sign of life; called by another one.

        Raises:
            httpx.HTTPError, PrefectException: it could not be told.
        """
        if now - self._sign > LULL:
            if self._hang.since is None:
                self._hang.note(f"no answer from the file system since {self._sign:%H:%M} UTC",
                                self._sign)  # fmt: skip
            self._tell_stuck(self._hang, now)
        else:
            self._hang.over()

    def _tell_stuck(self, trouble: Trouble, now: datetime) -> None:
        since = trouble.since
        if since is None or not trouble.due(now):
            return
        minutes = round((now - since).total_seconds() / 60, 1)
        event = Event(
            f"{self.session.id} {since.isoformat()}", STUCK, self.project.directory,
            self.project.name,
            {"reason": trouble.reason, "minutes": minutes, "since": since.isoformat()},
        )  # fmt: skip
        self._send([event])
        trouble.told()
        log.warning(
            "%s: no data taken in for %g minutes: %s", self.project.name, minutes, trouble.reason
        )

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
    if session.quiet_minutes is None or not session.active:
        return None
    since = max(latest, session.started.timestamp())
    long_enough = now.timestamp() - since >= 60 * session.quiet_minutes
    return since if long_enough and since != told else None


def is_drained(
    session: Session, standing: Mapping[str, Standing], latest: float, now: datetime
) -> bool:
    """Whether nothing more is to come of a session that has been stopped.

    Movies may come before their mdoc: it is waited for as long as for an mdoc that grows.

    Args:
        latest: when data last came, in seconds since 1970.
    """
    quiet = now.timestamp() - latest >= session.patience.mdoc_quiet_seconds
    return quiet and not open_series(standing)


def drain_until(session: Session, began: datetime) -> datetime:
    """When a session that has been stopped no longer waits for what is not whole.

    Args:
        began: when it began to be watched.
    """
    start = max(began, session.ended or began)
    return start + timedelta(seconds=session.patience.partial_after_seconds)


def finish_draining(project: Project, session: Session, standing: Mapping[str, Standing]) -> None:
    """The session's data are all taken in, but for what is still being written."""
    left = open_series(standing)
    if left:
        log.warning("%s: not taken in, as it did not end: %s", project.directory, ", ".join(left))
    end_draining(project, session)
    log.info("%s: nothing more is taken in", project.directory)


def look_once(project: Project, session: Session, send: Post = post) -> list[str]:
    """Look at the files of a session once, and deal with what there is to tell.

    Returns:
        The tilt series that there is work to do on, and that the server has been told of; none if
        a watcher is at work on the session.

    Raises:
        CrboostError: a watched directory is away, or what the watcher remembers is damaged.
        OSError, httpx.HTTPError, PrefectException: as `deal_with`; what was found is found again.
    """
    state = project.directory / STATE_FILE
    before = datetime.fromtimestamp(state.stat().st_mtime if state.exists() else 0, UTC)
    try:
        watcher = Watcher(session.watch, session.watcher_patience, state_file=state)
    except AlreadyWatched:
        return []
    now = datetime.now(UTC)
    # What is seen for the first time after the end has its time too.
    overdue = (
        session.ended is not None
        and before >= session.ended
        and session.draining
        and now >= drain_until(session, session.ended)
    )
    names = []
    with watcher:
        reports = watcher.look()
        if overdue:
            watcher.take_as_it_is()
            reports = watcher.look()
        if reports:
            names = deal_with(reports, project, session, send)
            watcher.acknowledge(reports)
        standing = watcher.standing()
        write_arriving(project.directory, standing, now, watcher.rejected())
        if session.draining and (overdue or is_drained(session, standing, watcher.latest, now)):
            finish_draining(project, session, standing)
    return names
