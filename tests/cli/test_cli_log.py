"""Which job a user means, and its last lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.cli.log import find_job, last_lines
from crboost.cli.status import latest, series_by_stage, state_of
from crboost.errors import ProjectError
from crboost.history import PastJob, SeriesRecord

HISTORY = [
    PastJob("Import/job001/", "Succeeded", relion_type="relion.importtomo"),
    PastJob("External/job002/", "Succeeded", job_type="tsAlignment", node="tsAlignment"),
    PastJob("External/job003/", "Failed", job_type="tsAlignment", node="tsAlignment"),
    PastJob("External/job012/", "Running", job_type="tsAlignment", node="tsAlignment__2"),
]


@pytest.mark.parametrize(
    ("wanted", "job"),
    [
        ("External/job002", 2), ("External/job002/", 2), ("job003", 3), ("12", 12),
        ("tsAlignment", 12), ("tsAlignment__2", 12), ("Import/job001", 1),
    ],
)  # fmt: skip
def test_jobs_by_name_number_and_node(wanted: str, job: int) -> None:
    assert find_job(HISTORY, wanted).number == job


def test_a_job_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ProjectError) as caught:
        find_job(HISTORY, "job01")
    assert "'job01'" in caught.value.message
    assert "External/job012 (tsAlignment__2)" in str(caught.value.hint)
    with pytest.raises(ProjectError, match="nothing has run yet"):
        find_job([], "tsAlignment")


def test_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "run.out"
    log.write_text("".join(f"line {number}\n" for number in range(200_000)))
    assert last_lines(log, 2) == "line 199998\nline 199999"
    assert last_lines(log, 0) == ""
    assert last_lines(tmp_path / "absent", 5) == ""
    assert len(last_lines(log, 1000).splitlines()) == 1000


def test_a_running_job_without_a_process_was_interrupted() -> None:
    assert state_of(HISTORY[3]) == "interrupted"
    assert state_of(PastJob("External/job001/", "Running", alive=True)) == "running"
    assert state_of(HISTORY[2]) == "failed"


def test_the_newest_job_of_each_node_stands_for_it() -> None:
    assert {node: job.number for node, job in latest(HISTORY).items()} == {
        "tsAlignment": 3,
        "tsAlignment__2": 12,
    }


def test_jobs_of_relions_gui_stand_under_their_types_name_and_have_no_series() -> None:
    native = PastJob(
        "Tomograms/job013/", "Succeeded", "relion.reconstructtomograms",
        job_type="reconstructTomograms",
    )  # fmt: skip
    record = SeriesRecord("done", "f", "i")
    ours = PastJob(
        "External/job001/", "Succeeded", job_type="tsAlignment", node="tsAlignment",
        series={"TS_01": record},
    )  # fmt: skip
    stages = latest([native, ours])
    assert list(stages) == ["tsAlignment", "reconstructTomograms"]
    assert series_by_stage(stages) == {"TS_01": {"tsAlignment": "done"}}


def test_series_that_a_stage_has_not_seen_are_marked() -> None:
    record = SeriesRecord("done", "f", "i")
    first = PastJob("External/job001/", "Succeeded", series={"TS_01": record, "TS_02": record})
    second = PastJob("External/job002/", "Succeeded", series={"TS_01": record})
    assert series_by_stage({"a": first, "b": second}) == {
        "TS_01": {"a": "done", "b": "done"},
        "TS_02": {"a": "done", "b": "-"},
    }
