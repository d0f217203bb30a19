"""The real watcher on real directories, before a simulated microscope, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from crboost.acquisition.arrivals import Patience, SeriesState
from crboost.acquisition.facts import (
    FileRejected,
    Report,
    SeriesComplete,
    SeriesPartial,
    SeriesReopened,
)
from crboost.acquisition.microscope_simulation import Mishaps, Pace, run, schedule
from crboost.acquisition.watch import Method, Rhythm, Watcher
from crboost.cpu.example_data import ExampleData, make_example_data
from crboost.errors import CrboostError, ParameterError, ProjectError

QUICK = Patience(stable_seconds=0.2, mdoc_quiet_seconds=0.4, partial_after_seconds=1.0)
RHYTHM = Rhythm(batch_seconds=0, rescan_seconds=60, poll_seconds=0.1, tick_seconds=0.05)
PACE = Pace(tilt_seconds=10, series_seconds=20, write_seconds=8, pieces=3)
SPEED = 200.0
# All that the microscope does here is over after so long; the rest is patience.
ENOUGH_SECONDS = 15.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> ExampleData:
    """Four small tilt series of three tilts, nothing missing: one simulated one, four times."""
    directory = tmp_path_factory.mktemp("recorded")
    made = make_example_data(
        directory, series=1, size_px=128, frames=2, tilt_step_deg=60.0, defects=False, workers=1
    )
    (first,) = made.series
    series = [first]
    for name in ("TS_02", "TS_03", "TS_04"):
        mdoc = directory / f"{name}.mdoc"
        mdoc.write_text(first.mdoc.read_text().replace(first.name, name))
        movies = [path.with_name(path.name.replace(first.name, name)) for path in first.movies]
        for source, copy in zip(first.movies, movies, strict=True):
            copy.write_bytes(source.read_bytes())
        series.append(replace(first, name=name, mdoc=mdoc, movies=tuple(movies)))
    return replace(made, series=tuple(series))


def movie(recorded: ExampleData, series: int, tilt: int) -> str:
    return recorded.series[series].movies[tilt].name


def start_microscope(
    recorded: ExampleData, data: Path, mishaps: Mishaps | None = None, speed: float = SPEED
) -> Thread:
    actions = schedule(recorded.mdocs, recorded.frames_directory, PACE, mishaps)
    thread = Thread(target=run, args=(actions, data), kwargs={"speed": speed})
    thread.start()
    return thread


def watch_until(
    watcher: Watcher, enough: Callable[[list[Report]], bool], seconds: float = ENOUGH_SECONDS
) -> list[tuple[Report, ...]]:
    """Batches until there is enough; fails when there never is."""
    stop = Event()
    end = time.monotonic() + seconds
    batches: list[tuple[Report, ...]] = []

    def alarm() -> None:
        while not stop.wait(0.05) and time.monotonic() < end:
            pass
        stop.set()

    thread = Thread(target=alarm)
    thread.start()
    for batch in watcher.batches(stop):
        batches.append(batch)
        if enough([report for one in batches for report in one]):
            stop.set()
    stop.set()
    thread.join()
    reports = [report for one in batches for report in one]
    assert enough(reports), [report.fact for report in reports]
    return batches


def last(reports: list[Report]) -> dict[str, str]:
    """The last word on each series."""
    return {
        report.fact.name: type(report.fact).__name__
        for report in reports
        if not isinstance(report.fact, FileRejected)
    }


def mishaps_of(recorded: ExampleData) -> tuple[Mishaps, dict[str, str]]:
    """TS_01 has a late movie, TS_02 loses one, TS_03 breaks off; and how that must end."""
    names = [series.name for series in recorded.series]
    mishaps = Mishaps(
        {movie(recorded, 0, 2): 250.0}, frozenset({movie(recorded, 1, 2)}), {names[2]: 2}
    )
    ends = ["SeriesComplete", "SeriesPartial", "SeriesPartial", "SeriesComplete"]
    return mishaps, dict(zip(names, ends, strict=True))


def patience_of(recorded: ExampleData) -> Patience:
    tilts = len(recorded.series[0].movies)
    return Patience(0.2, 0.5, 1.0, expected_tilts=tilts)


@pytest.mark.parametrize("method", ["events", "polling"])
def test_a_session_with_mishaps(recorded: ExampleData, tmp_path: Path, method: Method) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mishaps, ends = mishaps_of(recorded)
    microscope = start_microscope(recorded, data, mishaps)
    with Watcher([data], patience_of(recorded), rhythm=RHYTHM, method=method) as watcher:
        assert watcher.polling == (method == "polling")
        batches = watch_until(watcher, lambda reports: last(reports) == ends)
        states = watcher.states()
    microscope.join()
    assert states["TS_01"] is SeriesState.COMPLETE
    assert states["TS_02"] is SeriesState.PARTIAL
    reports = [report for batch in batches for report in batch]
    # The late movie comes when its series has been given up.
    of_first = [r.fact for r in reports if getattr(r.fact, "name", None) == "TS_01"]
    assert [type(fact) for fact in of_first] == [SeriesPartial, SeriesReopened, SeriesComplete]
    assert isinstance(of_first[1], SeriesReopened)
    assert of_first[1].reason == f"{movie(recorded, 0, 2)} came"
    lost = next(r.fact for r in reports if getattr(r.fact, "name", None) == "TS_02")
    assert isinstance(lost, SeriesPartial)
    assert lost.missing == (movie(recorded, 1, 2),)
    broken_off = next(r.fact for r in reports if getattr(r.fact, "name", None) == "TS_03")
    assert isinstance(broken_off, SeriesPartial)
    assert (broken_off.tilts, broken_off.usable) == (2, 2)
    assert len({report.key for report in reports}) == len(reports)


WATCH = """
import json, sys
from pathlib import Path
from crboost.acquisition.arrivals import Patience
from crboost.acquisition.watch import Rhythm, Watcher
data, state, tilts = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rhythm = Rhythm(batch_seconds=0, rescan_seconds=60, poll_seconds=0.1, tick_seconds=0.05)
with Watcher([data], Patience(0.2, 0.5, 1.0, tilts), state_file=state, rhythm=rhythm) as watcher:
    for batch in watcher.batches():
        for report in batch:
            print(json.dumps(report.to_json()), flush=True)
"""


def test_killed_again_and_again_nothing_is_lost_or_told_twice(
    recorded: ExampleData, tmp_path: Path
) -> None:
    data, state = tmp_path / "data", tmp_path / "state.json"
    data.mkdir()
    mishaps, ends = mishaps_of(recorded)
    tilts = len(recorded.series[0].movies)
    microscope = start_microscope(recorded, data, mishaps, speed=SPEED / 2)
    told: dict[str, dict[str, object]] = {}
    latest: dict[str, str] = {}
    starts = 0
    end = time.monotonic() + 2 * ENOUGH_SECONDS
    # One start more than needed: the last one must tell nothing new.
    while time.monotonic() < end and (latest != ends or starts < 4):
        starts += 1
        printed = tmp_path / f"out{starts}"
        with printed.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", WATCH, str(data), str(state), str(tilts)], stdout=stream
            )
            # Other instants each time; long enough for something to happen.
            time.sleep(0.8 + 0.31 * (starts % 4))
            process.send_signal(signal.SIGKILL)
            process.wait()
        for text in printed.read_text().splitlines():
            value = json.loads(text)
            assert told.setdefault(value["key"], value) == value
        kinds = {"series-complete": "SeriesComplete", "series-partial": "SeriesPartial"}
        latest = {
            str(value["name"]): kinds.get(str(value["kind"]), "SeriesReopened")
            for value in told.values()
            if value["kind"] != "file-rejected"
        }
    microscope.join()
    assert latest == ends
    for name in ends:
        kinds_told = [value["kind"] for value in told.values() if value.get("name") == name]
        assert all(
            (kind == "series-reopened") == (at % 2 == 1) for at, kind in enumerate(kinds_told)
        ), kinds_told


def copy_session(recorded: ExampleData, data: Path) -> None:
    """All series at once."""
    actions = schedule(recorded.mdocs, recorded.frames_directory, PACE)
    run(actions, data, speed=1e9)


def test_a_burst_is_one_batch_that_comes_again_until_dealt_with(
    recorded: ExampleData, tmp_path: Path
) -> None:
    data, state = tmp_path / "data", tmp_path / "state.json"
    data.mkdir()
    copy_session(recorded, data)
    rhythm = Rhythm(batch_seconds=0.5, tick_seconds=0.05)
    with Watcher([data], QUICK, state_file=state, rhythm=rhythm) as watcher:
        batch = next(watcher.batches())
        assert len(batch) == 4
        assert all(isinstance(report.fact, SeriesComplete) for report in batch)
    # The consumer never asked for the next batch: it may not have dealt with this one.
    with Watcher([data], QUICK, state_file=state, rhythm=rhythm) as watcher:
        assert next(watcher.batches()) == batch
        assert watcher.look() == batch
        watcher.acknowledge(batch)
    with Watcher([data], QUICK, state_file=state, rhythm=rhythm) as watcher:
        assert watcher.look() == ()
        assert set(watcher.states().values()) == {SeriesState.COMPLETE}


def test_new_directories_are_watched_from_their_first_file_on(
    recorded: ExampleData, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    # The first scan finds nothing and the next one would be a minute later: events tell.
    with Watcher([data], QUICK, rhythm=RHYTHM, method="events") as watcher:
        writer = Thread(target=lambda: (time.sleep(0.5), copy_session(recorded, data / "a" / "b")))
        writer.start()
        batches = watch_until(watcher, lambda reports: len(reports) >= 4)
        writer.join()
    assert last([report for batch in batches for report in batch]) == {
        series.name: "SeriesComplete" for series in recorded.series
    }


def test_looks_now_and_then_need_no_events(recorded: ExampleData, tmp_path: Path) -> None:
    data, state = tmp_path / "data", tmp_path / "state.json"
    data.mkdir()
    copy_session(recorded, data)
    found: list[Report] = []
    for _ in range(4):
        with Watcher([data], QUICK, state_file=state) as watcher:
            reports = watcher.look()
            found += reports
            watcher.acknowledge(reports)
        time.sleep(0.3)
    assert last(found) == {series.name: "SeriesComplete" for series in recorded.series}
    assert len(found) == 4


def test_files_that_are_no_data_are_reported(recorded: ExampleData, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    copy_session(recorded, data)
    first = recorded.series[0]
    broken, empty = data / "frames" / first.movies[0].name, data / "frames" / first.movies[1].name
    broken.write_bytes(broken.read_bytes()[:-200])
    empty.write_bytes(b"")
    text = first.mdoc.read_text()
    (data / f"{first.name}_override.mdoc").write_text(text)
    (data / "map.mdoc").write_text("Montage = 1\n[MontSection = 0]\nDateTime = x\n[ZValue = 0]\n")
    frame_mdoc = data / "frames" / f"{first.movies[0].name}.mdoc"
    frame_mdoc.write_text("[FrameSet = 0]\nDateTime = 1\nTiltAngle = 0\n")
    (data / "empty.mdoc").write_bytes(b"")
    (data / "binary.mdoc").write_bytes(b"\0\1\2")
    (data / "later").mkdir()
    (data / "later" / recorded.series[1].mdoc.name).write_bytes(
        recorded.series[1].mdoc.read_bytes()
    )
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    with Watcher([data], QUICK, rhythm=RHYTHM) as watcher:
        batches = watch_until(watcher, lambda reports: len(reports) >= 12)
    reports = [report for batch in batches for report in batch]
    reasons = {
        Path(report.fact.path).relative_to(data).as_posix(): report.fact.reason
        for report in reports
        if isinstance(report.fact, FileRejected)
    }
    for path, reason in {
        f"frames/{broken.name}": "truncated",
        f"frames/{empty.name}": "the file is empty",
        f"{first.name}_override.mdoc": f"copy of {first.name}",
        "map.mdoc": "montage",
        f"frames/{frame_mdoc.name}": "one movie",
        "empty.mdoc": "the file is empty",
        "binary.mdoc": "binary data",
        f"later/{recorded.series[1].mdoc.name}": "a copy of",
    }.items():
        assert reason in reasons.pop(path)
    assert reasons == {}
    assert last(reports) == {
        series.name: "SeriesPartial" if series is first else "SeriesComplete"
        for series in recorded.series
    }
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_a_directory_that_is_away_for_a_moment_takes_nothing_back(
    recorded: ExampleData, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    copy_session(recorded, data)
    notices: list[str] = []
    state = tmp_path / "state.json"
    patience = Patience(0, 0, 3600)
    with Watcher([data], patience, state_file=state, notice=notices.append) as watcher:
        # Seen, but not yet told: the directory goes away between the scan and the next one.
        (data / recorded.series[0].mdoc.name).rename(tmp_path / "aside.mdoc")
        watcher.acknowledge(watcher.look())
        data.rename(tmp_path / "away")
        assert watcher.look() == ()
        assert any("cannot be read" in notice for notice in notices)
        (tmp_path / "away").rename(data)
        (tmp_path / "aside.mdoc").rename(data / recorded.series[0].mdoc.name)
        (report,) = watcher.look()
        assert isinstance(report.fact, SeriesComplete)
        assert report.fact.name == recorded.series[0].name


def test_wrong_roots_states_and_times_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with pytest.raises(ProjectError, match="not a directory"):
        Watcher([tmp_path / "nowhere"], QUICK)
    with pytest.raises(ProjectError, match="no directory"):
        Watcher([], QUICK)
    with pytest.raises(ParameterError, match="tick_seconds"):
        Rhythm(tick_seconds=0)
    with (
        Watcher([tmp_path], QUICK, state_file=state),
        pytest.raises(ProjectError, match="another watcher"),
    ):
        Watcher([tmp_path], QUICK, state_file=state)
    state.write_text('{"version": 99}')
    with pytest.raises(CrboostError, match=r"state\.json: .*version 99"):
        Watcher([tmp_path], QUICK, state_file=state)
    state.unlink()
    (tmp_path / "inside").mkdir()
    with Watcher([tmp_path / "inside", tmp_path], QUICK, state_file=state) as watcher:
        assert watcher.roots == (tmp_path.resolve(),)


@pytest.fixture
def reaped() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_the_command_prints_what_happens(
    recorded: ExampleData, tmp_path: Path, reaped: list[subprocess.Popen[str]]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    words = ["--stable", "0.2", "--quiet", "0.4", "--partial-after", "60", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "crboost", "watch", str(data), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
        # A shell's background jobs, and all that they start, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    reaped.append(process)
    copy_session(recorded, data)
    assert process.stdout is not None
    values = [json.loads(process.stdout.readline()) for _ in recorded.series]
    assert [(value["kind"], value["name"]) for value in values] == [
        ("series-complete", series.name) for series in recorded.series
    ]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "4 tilt series: TS_01 complete" in told


def test_a_pulse_while_nothing_is_told_and_when_something_last_changed(tmp_path: Path) -> None:
    stop = Event()
    beats: list[float] = []

    def pulse() -> None:
        beats.append(watcher.latest)
        if len(beats) == 2:
            (tmp_path / "TS_01.mdoc").write_text("begins")
        if beats[-1] > 0 and len(beats) > 2:
            stop.set()

    before = time.time()
    with Watcher([tmp_path], QUICK, rhythm=RHYTHM, method="polling", pulse=pulse) as watcher:
        assert list(watcher.batches(stop)) == []
    assert beats[:2] == [0.0, 0.0]
    assert before <= beats[-1] <= time.time()
