"""One task of an array, with the real CPU tools, in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from crboost.array_directory import Batch, new_batch, new_round, write_round
from crboost.array_task import run_task
from crboost.driver import Request, open_job, run_job, series_fingerprint
from crboost.errors import CrboostError
from crboost.job_directory import read_failure
from crboost.parameters import write_parameters
from crboost.project import Project
from crboost.relion.markers import Marker, read_marker, request_abort
from crboost.results import read_results, result_file
from crboost.scheduler.resources import Resources
from crboost.translate.tables import read_tilt_series

JOB = "External/job002"


@pytest.fixture(scope="module")
def three_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("three")
    make_example_data(directory, series=3, size_px=128, frames=2, tilt_range_deg=10,
                      tilt_step_deg=10, defects=False)  # fmt: skip
    return directory


@pytest.fixture
def request_(tmp_path: Path, three_series: Path) -> Iterator[Request]:
    """What RELION asked of the coordinator of a job whose input is there."""
    project = Project.create(
        tmp_path / "P", movies=[str(three_series / "frames")], mdocs=[str(three_series / "*.mdoc")]
    ).project
    parameters = project.parameters()
    snapshot = project.directory / "Schemes" / "run_test" / "project_params.json"
    write_parameters(snapshot, parameters)
    asked = Request(project.directory, "External/job001", snapshot, "importmovies",
                    parameters.fingerprint("importmovies"), None, 2, sys.executable)  # fmt: skip
    with chdir(project.directory):
        assert run_job(asked) == 0
        node = "fsMotionAndCtf"
        yield replace(
            asked,
            job=JOB,
            node=node,
            fingerprint=parameters.fingerprint(node),
            input_star="External/job001/tilt_series.star",
        )


def batch_in(request: Request, tasks: list[list[str]]) -> Batch:
    job = open_job(request)
    series = {
        name: series_fingerprint(request, one)
        for name, one in job.stage.inputs(job.context).items()
    }
    write_round(request.directory, new_round(request.directory, "run_test", series, None))
    return new_batch(request.directory, 1, tasks, series, Resources())


def test_a_task_does_its_tilt_series_and_nothing_else(request_: Request) -> None:
    batch = batch_in(request_, [["TS_01"], ["TS_03", "TS_02"]])
    log: list[str] = []
    assert run_task(request_, f"{JOB}/tasks/1", 1, log=log.append) == 0
    results = read_results(request_.directory)
    assert {name: one.status for name, one in results.items()} == {"TS_02": "done", "TS_03": "done"}
    assert all(results[name].fingerprint == batch.series[name] for name in results)
    for name, one in results.items():
        assert (request_.project / str(one.table)).is_file()
        assert one.commands
        assert len(one.outputs) > 3, name
    # How the job ended is the coordinator's to say.
    assert read_marker(request_.directory) is None
    assert read_marker(batch.task_directory(request_.directory, 1)) is Marker.SUCCESS
    assert not (request_.directory / "tilt_series_ctf.star").exists()
    # The workers are shared: two series at once, each with one.
    assert [argv[argv.index("--workers") + 1] for one in results.values() for argv in one.commands
            ] == ["1", "1"]  # fmt: skip


def test_what_another_task_has_done_is_left_alone(request_: Request) -> None:
    batch_in(request_, [["TS_01"]])
    assert run_task(request_, f"{JOB}/tasks/1", 0) == 0
    before = result_file(request_.directory, "TS_01").stat().st_mtime_ns
    log: list[str] = []
    assert run_task(request_, f"{JOB}/tasks/1", 0, log=log.append) == 0
    assert "TS_01: another task has done it" in log
    assert result_file(request_.directory, "TS_01").stat().st_mtime_ns == before


def test_a_result_of_an_earlier_round_is_done_again(request_: Request) -> None:
    batch_in(request_, [["TS_01"]])
    assert run_task(request_, f"{JOB}/tasks/1", 0) == 0
    before = result_file(request_.directory, "TS_01").stat().st_mtime_ns
    batch_in(request_, [["TS_01"]])
    assert run_task(request_, f"{JOB}/tasks/2", 0) == 0
    assert result_file(request_.directory, "TS_01").stat().st_mtime_ns > before


def test_a_bad_tilt_series_is_a_result(request_: Request) -> None:
    _, rows = read_tilt_series(
        request_.project / "External/job001/tilt_series.star", request_.project
    )["TS_01"]
    for row in rows:
        link = request_.project / str(row["rlnMicrographMovieName"])
        link.unlink()
        link.write_bytes(b"no movie")
    batch_in(request_, [["TS_01"]])
    assert run_task(request_, f"{JOB}/tasks/1", 0) == 0
    result = read_results(request_.directory)["TS_01"]
    assert result.status == "failed"
    assert result.reason


def test_an_abort_ends_a_task(request_: Request) -> None:
    batch = batch_in(request_, [["TS_01"]])
    request_abort(request_.directory)
    assert run_task(request_, f"{JOB}/tasks/1", 0) == 2
    assert read_results(request_.directory) == {}
    own = batch.task_directory(request_.directory, 0)
    assert read_marker(own) is Marker.ABORTED


def test_a_task_that_cannot_begin_says_why_where_the_coordinator_looks(request_: Request) -> None:
    batch = batch_in(request_, [["TS_01"]])
    other = replace(request_, input_star="External/job001/nothing.star")
    assert run_task(other, f"{JOB}/tasks/1", 0) == 1
    own = batch.task_directory(request_.directory, 0)
    failure = read_failure(own)
    assert failure is not None
    assert "nothing.star" in failure[1]
    assert read_failure(request_.directory) is None
    with pytest.raises(CrboostError, match="has 1 tasks: there is no number 1"):
        run_task(request_, f"{JOB}/tasks/1", 1)
