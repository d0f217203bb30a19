"""Events as Prefect's server takes them, and what is told when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Late, Pending, Running, Scheduled

from crboost.acquisition.arriving import LeftOut
from crboost.acquisition.facts import FileRejected, Report, SeriesComplete, SeriesPartial
from crboost.acquisition.facts import SeriesReopened as Reopened
from crboost.acquisition.intake import Intake
from crboost.acquisition.taken import SeriesIntake
from crboost.session import Session
from flows.afterwards import covers
from flows.events import ARRIVED, MOST_NAMES, Event, events_of, resource_id
from flows.ingest import Sight, decide, is_coming, is_processed
from flows.session_watch import silence
from flows.turn import work_of
from flows.watcher import Watched, main, read_watched, write_watched

PROJECT = Path("/data/projects/one")
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
REPORTS = [
    Report("a-1", 1.0, SeriesComplete("TS 1", "/raw/TS 1.mdoc", 41, "x")),
    Report("a-2", 1.0, SeriesPartial("TS_2", "/raw/TS_2.mdoc", 41, 40, ("m.eer",), ("why",), "y")),
    Report("a-3", 1.0, Reopened("TS_3", "/raw/TS_3.mdoc", "m.eer came", "z")),
    Report("a-4", 1.0, FileRejected("/raw/x.mdoc", "a montage")),
]


def taken(*series: SeriesIntake, left_out: Sequence[LeftOut] = ()) -> Intake:
    return Intake([], list(series), list(left_out), [])


TAKEN = taken(
    SeriesIntake("TS_1", "complete", 41, 41),
    SeriesIntake("TS_2", "partial", 41, 40, ("m.eer",), ("why",)),
    SeriesIntake("TS_3", "reopened", 41, 41),
)


def made(taken: Intake = TAKEN, reports: Sequence[Report] = REPORTS) -> list[Event]:
    return events_of(reports, taken, PROJECT, "One", ["importmovies"])


def words(events: Sequence[Event]) -> list[str]:
    return [one.name.removeprefix("crboost.") for one in events]


def test_a_batch_is_an_event_for_each_fact_and_one_that_starts_a_run() -> None:
    events = made()
    assert words(events) == [
        "tilt-series.complete", "tilt-series.partial", "tilt-series.reopened", "file.rejected",
        "tilt-series.arrived",
    ]  # fmt: skip
    assert events[1].payload["missing"] == ["m.eer"]
    assert (events[1].payload["usable"], events[1].payload["tilts"]) == (40, 41)
    assert events[4].payload == {
        "names": ["TS_1", "TS_2"], "count": 2, "mode": "continue", "jobs": ["importmovies"],
    }  # fmt: skip


def test_only_what_was_taken_in_is_told_complete_and_as_it_was_taken_in() -> None:
    clash = LeftOut("TS_1", "/raw/TS 1.mdoc", "there is another one")
    events = made(
        taken(SeriesIntake("TS_2", "partial", 41, 39, ("a", "b")), left_out=[clash]), REPORTS[:2]
    )
    assert words(events) == ["tilt-series.left-out", "tilt-series.partial", "tilt-series.arrived"]
    assert events[0].payload == {
        "tilt_series": "TS_1", "mdoc": "/raw/TS 1.mdoc", "reason": "there is another one",
    }  # fmt: skip
    # A movie has gone since it was told.
    assert (events[1].payload["usable"], events[1].payload["missing"]) == (39, ["a", "b"])
    gone = taken(SeriesIntake("TS_1", "partial", 41, 40, ("m",), ("movie m has gone",)))
    assert words(made(gone, REPORTS[:1])) == ["tilt-series.partial", "tilt-series.arrived"]
    # One that changed again before it was taken in.
    again = [REPORTS[0], Report("a-5", 2.0, Reopened("TS 1", "/raw/TS 1.mdoc", "m came", "x"))]
    assert words(made(taken(), again)) == ["tilt-series.reopened"]


def test_nothing_to_work_on_starts_no_run() -> None:
    assert ARRIVED not in [one.name for one in made(taken())]


def test_what_is_told_again_is_the_same_event() -> None:
    first, again = made(), made()
    assert [one.id for one in first] == [one.id for one in again]
    assert len({one.id for one in first}) == len(first)
    elsewhere = events_of(REPORTS, TAKEN, Path("/data/projects/two"), "One", [])
    assert not {one.id for one in first} & {one.id for one in elsewhere}


def test_an_event_names_its_project() -> None:
    value = made()[0].to_json(NOW)
    assert value["resource"] == {
        "prefect.resource.id": resource_id(PROJECT), "prefect.resource.name": "One",
    }  # fmt: skip
    assert value["payload"]["project_dir"] == "/data/projects/one"
    assert value["payload"]["tilt_series"] == "TS_1"
    assert value["occurred"] == "2026-05-01T12:00:00+00:00"


def test_a_long_list_is_cut_but_counted() -> None:
    every = [SeriesIntake(f"TS_{number:04d}", "complete", 41, 41) for number in range(1000)]
    (payload,) = (one.payload for one in made(taken(*every)) if one.name == ARRIVED)
    assert (payload["count"], len(payload["names"])) == (1000, MOST_NAMES)


def session(quiet_minutes: float | None) -> Session:
    return Session(id="s", watch=[Path("/raw")], started=NOW, quiet_minutes=quiet_minutes)


@pytest.mark.parametrize(
    ("minutes", "latest_minutes", "now_minutes", "told", "expected"),
    [
        (60, None, 59, None, None),
        (60, None, 60, None, 0),
        (60, None, 90, 0, None),  # once for each silence
        (60, 30, 89, None, None),
        (60, 30, 90, 0, 30),
        (None, None, 9999, None, None),
    ],
)
def test_a_silence_is_told_once(
    minutes: float | None,
    latest_minutes: float | None,
    now_minutes: float,
    told: float | None,
    expected: float | None,
) -> None:
    def stamp(after: float | None) -> float | None:
        return None if after is None else (NOW + timedelta(minutes=after)).timestamp()

    since = silence(
        session(minutes), stamp(latest_minutes) or 0.0, NOW + timedelta(minutes=now_minutes),
        stamp(told),
    )  # fmt: skip
    assert since == stamp(expected)


@pytest.mark.parametrize(
    ("sight", "start", "words"),
    [
        (Sight(2, todo=("tsAlignment",)), True, "to do: tsAlignment"),
        (Sight(2), False, "up to date"),
        (Sight(0, todo=("importmovies",)), False, "no tilt series"),
        (Sight(2, flow_run="one (1234)", todo=("x",)), False, "one (1234) is at work"),
        (Sight(2, coming=True, todo=("x",)), False, "about to begin"),
        (Sight(2, told=1, todo=("x",)), False, "starts a run"),
        (Sight(2, unfollowed="run_x"), True, "nobody follows"),
        (Sight(2, told=1, unfollowed="run_x"), True, "nobody follows"),
        (Sight(2, problem="no RELION"), False, "no RELION"),
        (Sight(2, todo=("x",), left="every tilt is dark"), False, "every tilt is dark"),
    ],
)
def test_what_ingest_starts(sight: Sight, start: bool, words: str) -> None:
    decision, said = decide(sight)
    assert decision is start
    assert words in said


@pytest.mark.parametrize(
    ("sight", "processed"),
    [
        (Sight(2), True),
        (Sight(0), True),
        (Sight(2, todo=("x",)), False),
        (Sight(2, todo=("x",), left="every tilt is dark"), True),
        (Sight(2, problem="no RELION"), False),
        (Sight(flow_run="one (1234)"), False),
        (Sight(coming=True), False),
        (Sight(unfollowed="run_x"), False),
        (Sight(2, told=1), False),
        (Sight(2, unseen="the share is away"), False),
    ],
)
def test_until_when_an_ended_session_is_served(sight: Sight, processed: bool) -> None:
    assert is_processed(sight) is processed


@pytest.mark.parametrize(
    ("name", "state", "coming"),
    [
        ("due now", Scheduled(scheduled_time=NOW), True),
        ("in a moment", Scheduled(scheduled_time=NOW + timedelta(minutes=2)), True),
        ("next week", Scheduled(scheduled_time=NOW + timedelta(days=7)), False),
        ("late", Late(scheduled_time=NOW - timedelta(hours=5)), True),
        ("retried next week", AwaitingRetry(scheduled_time=NOW + timedelta(days=7)), False),
        ("claimed", Pending(timestamp=NOW - timedelta(minutes=1)), True),
        ("claimed by a dead worker", Pending(timestamp=NOW - timedelta(hours=1)), False),
        ("dead", Running(timestamp=NOW - timedelta(hours=1)), False),
    ],
)
def test_which_runs_are_about_to_begin(name: str, state: State[None], coming: bool) -> None:
    run = FlowRun(flow_id=uuid4(), name=name, state=state)
    assert is_coming(run, NOW) is coming


def test_only_runs_that_nobody_shaped_stand_for_each_other() -> None:
    def work(
        jobs: list[str],
        session_jobs: list[str] | None,
        *,
        mode: str = "continue",
        parameters: dict[str, int] | None = None,
        retry_failed: bool = False,
    ) -> str:
        return work_of(
            mode, jobs, parameters or {}, retry_failed=retry_failed, session_jobs=session_jobs
        )

    assert work([], []) != work(["b", "a"], ["a", "b"]) == work(["a", "b"], ["a", "b"]) != ""
    assert work([], [], mode="new") == work([], [], parameters={"x": 1}) == ""
    # Nothing would start these again, if the one that waits were cancelled.
    assert work([], [], retry_failed=True) == work([], None) == work(["a"], ["a", "b"]) == ""


def test_a_run_of_some_jobs_does_not_stand_for_all() -> None:
    assert covers([], []) and covers([], ["a"]) and covers(["a", "b"], ["a"])
    assert not covers(["a"], []) and not covers(["a"], ["a", "b"])


def test_a_watcher_without_a_server_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert main([]) == 2
    assert "PREFECT_API_URL" in capsys.readouterr().err


def test_what_was_told_as_begun_is_remembered(tmp_path: Path) -> None:
    assert read_watched(tmp_path) == []
    watched = [Watched("s1", PROJECT), Watched("s2", tmp_path)]
    write_watched(tmp_path, watched)
    assert read_watched(tmp_path) == watched
