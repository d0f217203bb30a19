"""The table of a project: what is at the microscope, and how far each tilt series is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from crboost.acquisition.arrivals import SeriesState, Standing
from crboost.acquisition.arriving import Arriving
from crboost.acquisition.taken import SeriesIntake
from crboost.cli.live import chosen, headline
from crboost.files import write_json
from crboost.history import PastJob, SeriesRecord
from crboost.overview import Overview, Row, arrival, arrivals, at_work, cells, table
from crboost.results import SeriesResult, write_result
from crboost.standing import failed_series, series_by_stage

NOW = datetime(2026, 5, 1, 10, 0, 30, tzinfo=UTC)
STAGES = ("importmovies", "tsReconstruct")


def record(status: str, reason: str | None = None) -> SeriesRecord:
    return SeriesRecord(status, "f", "i", reason)  # type: ignore[arg-type]


def job(number: int, node: str, *, alive: bool = False, **series: SeriesRecord) -> PastJob:
    return PastJob(
        f"External/job{number:03d}/", "Succeeded", job_type=node, node=node, series=series,
        alive=alive,
    )  # fmt: skip


def test_arrival_in_words() -> None:
    growing = Standing(SeriesState.GROWING, 12, 11)
    assert arrival(growing, None) == "growing 11/12"
    assert arrival(growing, None, expected_tilts=41) == "growing 11/41"
    assert arrival(None, None) == ""
    taken = SeriesIntake("TS_01", "partial", 41, 40, ("a.tif",))
    assert arrival(None, taken) == "partial 40/41"
    # A movie that cannot be used is there, and does not count.
    told = Standing(SeriesState.PARTIAL, 41, 41)
    assert arrival(told, taken) == "partial 40/41"
    # The watcher knows first.
    assert arrival(Standing(SeriesState.REOPENED, 41, 41), taken) == "reopened 41/41"


def test_every_series_has_a_row_wherever_it_is_known_from() -> None:
    stages = {
        "importmovies": job(1, "importmovies", TS_01=record("done"), TS_02=record("done")),
        "tsReconstruct": job(4, "tsReconstruct", TS_01=record("done"), TS_03=record("failed")),
    }
    standing = {
        "TS_01": Standing(SeriesState.COMPLETE, 3, 3),
        "TS_04": Standing(SeriesState.GROWING, 2, 1),
        "TS_05": Standing(SeriesState.REOPENED, 3, 3),
    }
    taken = {"TS_01": SeriesIntake("TS_01", "complete", 3, 3)}
    rows = table(
        STAGES,
        series_by_stage(stages),
        {"tsReconstruct": frozenset({"TS_02", "TS_05"})},
        Arriving(NOW, standing),
        taken,
    )
    assert cells(STAGES, rows) == (
        ["tilt series", "microscope", *STAGES],
        [
            ["TS_01", "complete 3/3", "done", "done"],
            ["TS_02", "-", "done", "running"],
            ["TS_03", "-", "-", "failed"],
            ["TS_04", "growing 1/2", "-", "-"],
            ["TS_05", "reopened 3/3", "-", "running"],
        ],
    )
    assert [row.name for row in rows if row.is_through] == ["TS_01", "TS_03"]
    assert arrivals(Arriving(NOW, standing), taken) == {
        "TS_01": "complete 3/3",
        "TS_04": "growing 1/2",
        "TS_05": "reopened 3/3",
    }


def test_a_project_without_a_session_has_no_column_of_arrivals() -> None:
    rows = table(("importmovies",), {"TS_01": {"importmovies": "done"}}, {}, None, {})
    assert cells(("importmovies",), rows) == (["tilt series", "importmovies"], [["TS_01", "done"]])


def test_at_work_are_those_that_a_living_job_still_has_before_it(tmp_path: Path) -> None:
    directory = tmp_path / "External/job002"
    began = "2026-05-01T10:00:00+00:00"
    write_json(
        directory / "crboost_job.json",
        {"tilt_series": ["A", "B", "C", "D", "E"], "started": began, "kept_failed": ["D"]},
    )
    for name, at in (("B", "2026-05-01T09:00:00+00:00"), ("C", "2026-05-01T10:00:05+00:00")):
        write_result(directory, SeriesResult(name, "failed", "f", "i", "why", started=at))
    series = {
        "A": record("done"),
        "B": record("failed"),  # before this start: it is tried again
        "C": record("failed"),
        "D": record("failed"),
    }
    alive = {"x": job(2, "fsMotionAndCtf", alive=True, **series)}
    assert at_work(tmp_path, alive) == {"x": frozenset({"B", "E"})}
    assert at_work(tmp_path, {"x": job(2, "fsMotionAndCtf", **series)}) == {}


def test_failed_series_are_counted_once_each() -> None:
    stages = {
        "importmovies": job(1, "importmovies", A=record("done"), B=record("failed", "no mdoc")),
        "tsAlignment": job(3, "tsAlignment", A=record("failed", "no beads"), C=record("done")),
    }
    assert failed_series(stages) == {"A": "tsAlignment: no beads", "B": "importmovies: no mdoc"}


def test_a_small_terminal_shows_what_is_not_through() -> None:
    rows = [Row(f"TS_{n:02d}", "", {}, is_through=n != 3) for n in range(1, 9)]
    kept, left_out = chosen(rows, 3)
    assert [row.name for row in kept] == ["TS_03", "TS_07", "TS_08"]
    assert left_out == 5
    assert chosen(rows, 8) == (rows, 0)


def test_the_headline_tells_what_is_going_on() -> None:
    quiet = Overview("demo", Path("/p"), None, None, (), (), (), None)
    assert headline(quiet, NOW) == "nothing is at work"
    seen = NOW.replace(second=0)
    busy = Overview("demo", Path("/p"), None, "run_1", (), (), (), seen)
    assert headline(busy, NOW) == "run_1 is at work, last news from the microscope 30 s ago"
    assert headline(busy, None) == "run_1 is at work"
