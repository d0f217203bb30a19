"""The watching of one session: what stands in its way is told, and what it keeps across it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from crboost.acquisition import watch
from crboost.acquisition.arrivals import Patience
from crboost.acquisition.watch import Watcher
from crboost.cpu.example_data import make_example_data
from crboost.errors import CrboostError
from crboost.project import Project
from crboost.session import Session, start_session
from crboost.settings import Settings
from flows.events import ARRIVED, QUIET, STUCK, Event
from flows.session_watch import LULL, STATE_FILE, SessionWatch, Trouble, look_once

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
