"""Which job a user means, and its last lines."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from crboost.catalogue import TOMO_ALIGN
from crboost.cli.history import native_times
from crboost.cli.log import find_job, last_lines
from crboost.cli.status import run_of
from crboost.errors import ProjectError
from crboost.history import PastJob, SeriesRecord
from crboost.standing import latest, series_by_stage, state_of, title_of

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


def test_a_log_looks_as_on_a_terminal(tmp_path: Path) -> None:
    """RELION's progress bars draw over themselves with carriage returns."""
    log = tmp_path / "run.out"
    log.write_bytes(
        b' Correcting motion ...\n000/??? sec ~~(,_,">\r   1/  45 sec .~~(,_,">'
        b'\r  45/  45 sec ....~~(,_,"> yum!\n Written: MotionCorr/job002/x.star\r\n'
    )
    assert last_lines(log, 40).split("\n") == [
        " Correcting motion ...",
        '  45/  45 sec ....~~(,_,"> yum!',
        " Written: MotionCorr/job002/x.star",
    ]
    assert last_lines(log, 1) == " Written: MotionCorr/job002/x.star"


NATIVE = PastJob(
    "MotionCorr/job002/",
    "Succeeded",
    "relion.motioncorr.own",
    job_type="motionCorr",
    parameters={"qsub": ".crboost/runs/run_20261122_212605_7533/submit"},
)


def test_native_jobs_have_the_names_and_runs_that_people_know() -> None:
    assert find_job([*HISTORY, NATIVE], "MotionCorr/job002").relion_type == "relion.motioncorr.own"
    assert find_job([*HISTORY, NATIVE], "motionCorr") is NATIVE
    assert title_of(NATIVE) == "motionCorr"
    assert title_of(HISTORY[0]) == "relion.importtomo"
    assert run_of(NATIVE) == "run_20261122_212605_7533"
    assert run_of(HISTORY[0]) is None
    assert run_of(PastJob("MotionCorr/job003/", "Succeeded", parameters={"qsub": "sbatch"})) is None


def test_a_type_that_crboost_never_starts_counts_where_it_made_a_tilt_series_table() -> None:
    outputs = (("AlignTiltSeries/job004/aligned_tilt_series.star", TOMO_ALIGN),)
    gui = PastJob("AlignTiltSeries/job004/", "Succeeded", "relion.aligntiltseries", outputs=outputs)
    assert list(latest([*HISTORY, gui, NATIVE])) == [
        "motionCorr",
        "relion.aligntiltseries",
        "tsAlignment",
        "tsAlignment__2",
    ]


def test_times_of_a_job_that_relion_ran(tmp_path: Path) -> None:
    assert native_times(tmp_path) == (None, None)
    noted = datetime(2026, 11, 22, 21, 26, 9).timestamp()
    (tmp_path / "note.txt").write_text(
        " ++++ Executing new job on Sun Nov  1 08:00:00 2026\n"
        " ++++ Executing new job on Sun Nov 22 21:26:09 2026\n"
        " ++++ with the following command(s):\n"
    )
    assert native_times(tmp_path) == (noted, None)
    (tmp_path / "submission_started.json").write_text(
        f'{{"id": "30", "started_unix": {noted + 5}}}'
    )
    marker = tmp_path / "RELION_JOB_EXIT_SUCCESS"
    marker.touch()
    os.utime(marker, (noted + 65, noted + 65))
    assert native_times(tmp_path) == (noted + 5, 60.0)
    (tmp_path / "submission_started.json").write_text("{")
    assert native_times(tmp_path) == (noted, 65.0)
