"""The watching of one session: what stands in its way is told, and what it keeps across it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag

import httpx
import pytest

from crboost.acquisition import watch
from crboost.acquisition.arrivals import Patience, SeriesState, Standing
from crboost.acquisition.watch import Watcher
from crboost.cpu.example_data import make_example_data
from crboost.errors import CrboostError
from crboost.project import Project
from crboost.session import Session, end_session, read_session, session_file, start_session
from crboost.settings import Settings
from flows.events import ARRIVED, FINISHED, PARTIAL, QUIET, STARTED, STUCK, Event
from flows.session_watch import LULL, STATE_FILE, SessionWatch, Trouble, is_drained, look_once
from flows.watcher import Service, what_it_brought

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
QUICK = {"stable_seconds": 0, "mdoc_quiet_seconds": 0, "partial_after_seconds": 0}


class Server:
    """Takes events as Prefect's server does, or is away."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.away = False

    def __call__(self, events: Sequence[Event]) -> None:
        if self.away:
            raise httpx.ConnectError("no answer")
        self.events += events

    def told(self, name: str) -> list[Event]:
        return [one for one in self.events if one.name == name]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tilt series of three tilts."""
    directory = tmp_path_factory.mktemp("recorded")
    make_example_data(
        directory, series=2, size_px=128, frames=2, tilt_step_deg=60.0, defects=False, workers=1
    )
    return directory


@pytest.fixture
def raw(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "raw"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(service={"directory": tmp_path / "service"})  # type: ignore[arg-type]


@pytest.fixture
def begin(raw: Path, tmp_path: Path, settings: Settings) -> Callable[..., tuple[Project, Session]]:
    """Start a session."""

    def start(name: str = "P", **rules: object) -> tuple[Project, Session]:
        session = start_session(
            tmp_path / name, watch=[raw], preset=None, settings=settings, now=datetime.now(UTC),
            rules={"patience": QUICK, "batch_seconds": 0, "poll_seconds": 0.1, **rules},
        )  # fmt: skip
        return Project.open(tmp_path / name), session

    return start


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def serve(server: Server) -> Iterator[Callable[..., SessionWatch]]:
    """Serve a session in its thread; what lasts a moment is trouble."""
    threads: list[SessionWatch] = []

    def start(project: Project, session: Session) -> SessionWatch:
        threads.append(SessionWatch(project, session, server, timedelta(seconds=0.2)))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.stop.set()
        thread.join(10)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_another_watcher_is_no_trouble(
    begin: Callable[..., tuple[Project, Session]], raw: Path, server: Server
) -> None:
    project, session = begin()
    state = project.directory / STATE_FILE
    with Watcher([raw], session.watcher_patience, state_file=state):
        assert look_once(project, session, server) == []
    assert look_once(project, session, server) == ["TS_01", "TS_02"]

    saved = state.read_text()
    state.write_text("{}")
    with pytest.raises(CrboostError, match=r"arrivals\.json: this is no state of a watcher"):
        look_once(project, session, server)
    state.write_text(saved)
    raw.rename(raw.with_name("unmounted"))
    with pytest.raises(CrboostError, match="raw is not a directory"):
        look_once(project, session, server)


def test_a_directory_that_is_away_is_told_and_so_is_the_silence(
    begin: Callable[..., tuple[Project, Session]],
    serve: Callable[..., SessionWatch],
    raw: Path,
    server: Server,
) -> None:
    project, session = begin(quiet_minutes=0.01)
    look_once(project, session, server)
    raw.rename(raw.with_name("unmounted"))
    serve(project, session)

    until(lambda: server.told(STUCK) and server.told(QUIET))
    (stuck,) = server.told(STUCK)
    assert "raw is not a directory" in stuck.payload["reason"]
    assert stuck.payload["minutes"] >= 0
    time.sleep(2)
    assert len(server.told(STUCK)) == len(server.told(QUIET)) == 1

    # A watcher that goes on knows the silence for the same.
    raw.with_name("unmounted").rename(raw)
    until(lambda: is_watched(project))
    time.sleep(0.5)
    assert len(server.told(QUIET)) == 1


def is_watched(project: Project) -> bool:
    """Whether a watcher holds the state file."""
    with (project.directory / f"{STATE_FILE}.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_batch_that_cannot_be_dealt_with_is_told_and_dealt_with_after_all(
    begin: Callable[..., tuple[Project, Session]], serve: Callable[..., SessionWatch],
    server: Server,
) -> None:  # fmt: skip
    project, session = begin()
    record = project.directory / ".crboost" / "intake.json"
    record.write_text('{"TS_01": {}}')
    serve(project, session)

    until(lambda: server.told(STUCK))
    assert "intake.json: not a record" in server.told(STUCK)[0].payload["reason"]
    assert server.told(ARRIVED) == []
    record.unlink()
    until(lambda: server.told(ARRIVED))
    assert server.told(ARRIVED)[0].payload["names"] == ["TS_01", "TS_02"]


def test_a_root_that_goes_away_under_the_watcher_is_a_problem(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watcher([raw], Patience(0, 0, 0)) as watcher:
        watcher.look()
        assert watcher.problem is None
        raw.rename(raw.with_name("unmounted"))
        watcher.look()
        assert watcher.problem is not None and "raw cannot be read" in watcher.problem
        raw.with_name("unmounted").rename(raw)
        below = [f"{raw}/lost+found cannot be read: Permission denied"]
        monkeypatch.setattr(watch, "scan", lambda root: ({}, below))
        watcher.look()
        assert watcher.problem is None


def test_a_thread_that_hangs_is_told_by_another(
    begin: Callable[..., tuple[Project, Session]], server: Server
) -> None:
    project, session = begin()
    thread = SessionWatch(project, session, server)  # never started: it gives no sign
    now = datetime.now(UTC)
    thread.tell_hang(now + MINUTE)
    assert server.events == []
    server.away = True
    with pytest.raises(httpx.ConnectError):
        thread.tell_hang(now + 11 * MINUTE)
    server.away = False
    for minute in (12, 20):
        thread.tell_hang(now + minute * MINUTE)
    (stuck,) = server.told(STUCK)
    assert "no answer from the file system" in stuck.payload["reason"]


def test_the_last_series_of_a_session_is_taken_in_after_its_end(
    begin: Callable[..., tuple[Project, Session]], serve: Callable[..., SessionWatch],
    raw: Path, server: Server,
) -> None:  # fmt: skip
    project, _ = begin(patience={**QUICK, "mdoc_quiet_seconds": 1, "partial_after_seconds": 60})
    stopped = end_session(project, now=datetime.now(UTC))
    thread = serve(project, stopped)
    until(lambda: not thread.is_alive())
    assert server.told(ARRIVED)[0].payload["names"] == ["TS_01", "TS_02"]
    ended = read_session(project)
    assert ended is not None
    assert ended.state == "ended"


def test_what_is_not_whole_is_partial_when_its_time_is_over_and_what_grows_is_left_out(
    begin: Callable[..., tuple[Project, Session]], serve: Callable[..., SessionWatch],
    raw: Path, server: Server, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    patience = {"stable_seconds": 0.5, "mdoc_quiet_seconds": 0.5, "partial_after_seconds": 4}
    project, _ = begin(patience={**patience, "expected_tilts": 4})
    stopped = end_session(project, now=datetime.now(UTC))
    thread = serve(project, stopped)
    growing = raw / "TS_02.mdoc"
    while thread.is_alive():
        growing.write_text(growing.read_text() + " ")
        time.sleep(0.05)
    (partial,) = server.told(PARTIAL)
    assert partial.payload["tilt_series"] == "TS_01"
    assert partial.payload["reasons"] == ["3 tilts of 4"]
    assert server.told(ARRIVED)[0].payload["names"] == ["TS_01"]
    assert "not taken in, as it did not end: TS_02" in caplog.text
    assert what_it_brought(project) == {"complete": 0, "partial": 1, "left_out": ["TS_02"]}


def test_without_a_watcher_looks_now_and_then_drain_a_session(
    begin: Callable[..., tuple[Project, Session]], raw: Path, server: Server
) -> None:
    def state() -> str:
        session = read_session(project)
        assert session is not None
        return session.state

    patience = {"stable_seconds": 0, "mdoc_quiet_seconds": 0, "partial_after_seconds": 3600}
    project, _ = begin(patience={**patience, "expected_tilts": 4})
    hours_ago = datetime.now(UTC) - timedelta(hours=2)
    stopped = end_session(project, now=hours_ago)
    # The machine was off since: what is seen for the first time is not given up at once.
    assert look_once(project, stopped, server) == []
    assert state() == "draining"
    assert look_once(project, stopped, server) == ["TS_01", "TS_02"]
    assert state() == "ended"


@pytest.mark.parametrize(
    ("state", "latest_minutes", "drained"),
    [
        (None, 10, True),
        (None, 1, False),  # an mdoc may follow its movies
        (SeriesState.COMPLETE, 10, True),
        (SeriesState.GROWING, 10, False),
        (SeriesState.REOPENED, 10, False),
    ],
)
def test_when_nothing_more_is_to_come(
    state: SeriesState | None, latest_minutes: float, drained: bool
) -> None:
    session = Session(id="s", watch=[Path("/raw")], started=NOW, ended=NOW, draining=True)
    standing = {} if state is None else {"TS_01": Standing(state, 3, 3)}
    latest = (NOW - latest_minutes * MINUTE).timestamp()
    assert is_drained(session, standing, latest, NOW) is drained


def test_ends_are_told_once_and_of_those_that_have_ended_alone(
    begin: Callable[..., tuple[Project, Session]], settings: Settings, server: Server,
    tmp_path: Path,
) -> None:  # fmt: skip
    sessions = {name: begin(name) for name in ("P", "Q", "R", "S")}
    service = Service(settings.service.directory, server)

    def told(name: str) -> list[str]:
        return sorted(one.project for one in server.told(name))

    def damage(name: str) -> str:
        path = session_file(sessions[name][0])
        text = path.read_text()
        path.write_text("{")
        return text

    try:
        service.look()
        assert told(STARTED) == ["P", "Q", "R", "S"]
        until(lambda: told(ARRIVED) == ["P", "Q", "R", "S"])
        time.sleep(0.5)
        # A session that cannot be read has not ended, and holds up nobody's news.
        saved = damage("P")
        for name in ("Q", "R"):
            end_session(sessions[name][0], now=datetime.now(UTC), drain=False)
        (tmp_path / "S").rename(tmp_path / "unmounted")
        service.look()
        assert told(FINISHED) == ["Q", "R"]
        session_file(sessions["P"][0]).write_text(saved)
        (tmp_path / "unmounted").rename(tmp_path / "S")
        service.look()
        assert told(STARTED) == ["P", "Q", "R", "S"]
        assert told(FINISHED) == ["Q", "R"]
        # An end that cannot be told for its project's sake; the server is away; then all is told.
        end_session(sessions["P"][0], now=datetime.now(UTC), drain=False)
        saved = damage("P")
        begin("Q")  # another one of the same project
        end_session(sessions["S"][0], now=datetime.now(UTC), drain=False)
        server.away = True
        service.look()
        assert told(FINISHED) == ["Q", "R"]
        server.away = False
        service.look()
        assert told(FINISHED) == ["Q", "R", "S"]
        assert told(STARTED) == ["P", "Q", "Q", "R", "S"]
        session_file(sessions["P"][0]).write_text(saved)
        service.look()
        service.look()
        assert told(FINISHED) == ["P", "Q", "R", "S"]
    finally:
        stop = Flag()
        stop.set()
        service.serve(stop)


def test_trouble_is_told_once_while_it_lasts() -> None:
    trouble = Trouble(10 * MINUTE)
    trouble.note("a", NOW)
    trouble.note("b", NOW + 4 * MINUTE)
    assert not trouble.due(NOW + 9 * MINUTE)
    trouble.note("c", NOW + 9 * MINUTE)
    assert trouble.due(NOW + 10 * MINUTE)
    assert (trouble.reason, trouble.since) == ("c", NOW)
    trouble.told()
    trouble.note("c", NOW + 12 * MINUTE)
    assert not trouble.due(NOW + 60 * MINUTE)

    later = NOW + 12 * MINUTE + 2 * LULL
    trouble.note("again", later)
    assert trouble.since == later
    assert trouble.due(later + 10 * MINUTE)
    trouble.over()
    assert not trouble.due(later + 10 * MINUTE)
