"""The driver, with the real CPU tools on small example data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import IO

import pytest

from crboost.catalogue import CATALOGUE
from crboost.driver import Request, run_job
from crboost.job_directory import driver_lock, is_driver_alive, read_failure, read_job_file
from crboost.parameters import write_parameters
from crboost.project import Project
from crboost.relion.markers import Marker, read_marker
from crboost.relion.nodes import read_output_nodes
from crboost.results import read_results
from crboost.translate.tables import read_tilt_series

CHAIN = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]


def request_for(project: Project, node: str, number: int, input_star: str | None) -> Request:
    """What RELION would ask of the driver for this job."""
    parameters = project.parameters()
    snapshot = project.directory / "Schemes" / "run_test" / "project_params.json"
    write_parameters(snapshot, parameters)
    return Request(
        project=project.directory,
        job=f"External/job{number:03d}",
        snapshot=snapshot,
        node=node,
        fingerprint=parameters.fingerprint(node),
        input_star=input_star,
        workers=2,
        python=sys.executable,
    )


def output(number: int, node: str) -> str:
    return f"External/job{number:03d}/{CATALOGUE[node].main_output.file}"


def new_project(directory: Path, data: Path) -> Project:
    project = Project.create(
        directory, movies=[str(data / "frames")], mdocs=[str(data / "*.mdoc")]
    ).project
    project.set_values({"acquisition.sample_thickness_nm": "80"})
    return project


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory, example_data: Path) -> Project:
    """A project whose four jobs the driver has done. Read only."""
    project = new_project(tmp_path_factory.mktemp("processed") / "P", example_data)
    with chdir(project.directory):
        for number, node in enumerate(CHAIN, start=1):
            source = output(number - 1, CHAIN[number - 2]) if number > 1 else None
            assert run_job(request_for(project, node, number, source)) == 0
    return project


@pytest.fixture
def copy(processed: Project, tmp_path: Path) -> Iterator[Project]:
    """The processed project to change, as working directory."""
    shutil.copytree(processed.directory, tmp_path / "P", symlinks=True)
    with chdir(tmp_path / "P"):
        yield Project(tmp_path / "P")


def test_every_job_leaves_relion_tables_nodes_and_one_marker(processed: Project) -> None:
    for number, node in enumerate(CHAIN, start=1):
        directory = processed.directory / f"External/job{number:03d}"
        assert read_marker(directory) is Marker.SUCCESS
        (made,) = read_output_nodes(directory)
        assert made.name == output(number, node)
        assert made.label == CATALOGUE[node].main_output.label
        tables = read_tilt_series(processed.directory / made.name, processed.directory)
        assert list(tables) == ["TS_01", "TS_02", "TS_03"]


def test_tables_have_the_columns_of_relion(processed: Project, golden: Path) -> None:
    relion = {
        1: "Import/job001/tilt_series.star",
        2: "CtfFind/job003/tilt_series_ctf.star",
        3: "AlignTiltSeries/job004/aligned_tilt_series.star",
    }
    for number, theirs in relion.items():
        ours = output(number, CHAIN[number - 1])
        our_row, our_tilts = read_tilt_series(processed.directory / ours, processed.directory)[
            "TS_01"
        ]
        their_row, their_tilts = read_tilt_series(golden / theirs, golden)["TS_01"]
        assert set(their_row) - set(our_row) <= {"rlnAreTomoTiltAxisScore"}
        assert set(their_tilts[0]) - set(our_tilts[0]) == set()
        for column, value in their_tilts[0].items():
            assert isinstance(our_tilts[0][column], (int, float)) == isinstance(
                value, (int, float)
            ), column


def test_the_first_tilt_has_seen_no_dose(processed: Project) -> None:
    tilts = read_tilt_series(processed.directory / output(1, "importmovies"), processed.directory)
    doses = [row["rlnMicrographPreExposure"] for row in tilts["TS_01"][1]]
    assert doses[0] == 0.0
    assert doses[1] == pytest.approx(3.0)
    assert doses == sorted(doses)


def test_a_missing_movie_and_a_dead_tilt_cost_one_tilt_each(processed: Project) -> None:
    imported = read_results(processed.directory / "External/job001")["TS_02"]
    assert imported.status == "done"
    assert (imported.metrics["tilts"], imported.metrics["tilts_total"]) == (20, 21)
    assert any("is missing" in warning for warning in imported.warnings)
    aligned = read_results(processed.directory / "External/job003")["TS_03"]
    excluded = [tilt for tilt in aligned.tilts if tilt["status"] == "excluded"]
    assert len(excluded) == 1
    assert "dark" in excluded[0]["reason"]


def test_nothing_is_done_twice(copy: Project) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in copy.directory.glob("External/job002/cpu/*/*.mrc")
    }
    assert len(before) > 100
    request = request_for(copy, "fsMotionAndCtf", 2, output(1, "importmovies"))
    log: list[str] = []
    assert run_job(request, log=log.append) == 0
    assert "3 done before, 0 to do" in log[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_the_series_with_a_lost_file_is_redone(copy: Project) -> None:
    lost = next((copy.directory / "External/job002/cpu/TS_02").glob("*_EVN.mrc"))
    lost.unlink()
    log: list[str] = []
    request = request_for(copy, "fsMotionAndCtf", 2, output(1, "importmovies"))
    assert run_job(request, log=log.append) == 0
    assert lost.exists()
    assert "2 done before, 1 to do" in log[0]


def test_one_bad_series_does_not_fail_the_job_and_the_next_run_redoes_only_it(
    copy: Project,
) -> None:
    good = (copy.directory / "mdoc/TS_01.mdoc").read_text()
    link = copy.directory / "mdoc/TS_01.mdoc"
    link.unlink()
    link.write_text(good.replace("TiltAngle = 6\n", "TiltAngle = up\n", 1))
    request = request_for(copy, "importmovies", 1, None)
    assert run_job(request) == 0
    results = read_results(copy.directory / "External/job001")
    assert results["TS_01"].status == "failed"
    assert re.search(r"TS_01\.mdoc:\d+: TiltAngle = up", str(results["TS_01"].reason))
    assert results["TS_02"].status == "done"
    tables = read_tilt_series(copy.directory / output(1, "importmovies"), copy.directory)
    assert list(tables) == ["TS_02", "TS_03"]
    plan_file = request.snapshot.parent / "plan.json"
    try:
        # Data have arrived: nobody asked for another try of what failed as it is.
        plan_file.write_text('{"keep_failed": true}')
        kept: list[str] = []
        assert run_job(request, log=kept.append) == 0
        assert "2 done before, 1 failed before, 0 to do" in kept[0]
        link.write_text(good)
        log: list[str] = []
        assert run_job(request, log=log.append) == 0
    finally:
        plan_file.unlink()
    assert "2 done before, 1 to do" in log[0]


def test_a_job_without_any_good_series_fails_with_the_reasons(copy: Project) -> None:
    for path in (copy.directory / "External/job002").glob("cpu/*/*.mrc"):
        if path.stem.endswith("0.0") or path.stem[-3].isdigit():
            path.write_bytes(b"not an image")
    shutil.rmtree(copy.directory / "External/job003/results")
    request = request_for(copy, "tsAlignment", 3, output(2, "fsMotionAndCtf"))
    assert run_job(request) == 1
    directory = copy.directory / "External/job003"
    assert read_marker(directory) is Marker.FAILURE
    failure = read_failure(directory)
    assert failure is not None
    assert failure[0] == "tool_error"
    assert "none of 3 tilt series could be done" in failure[1]
    assert "TS_01" in failure[1]


def test_bad_parameters_are_bad_input(copy: Project) -> None:
    request = request_for(copy, "tsAlignment", 3, output(2, "fsMotionAndCtf"))
    text = request.snapshot.read_text()
    request.snapshot.write_text(text.replace('"patch_x": 0', '"patch_x": -5'))
    assert run_job(request) == 1
    failure = read_failure(copy.directory / "External/job003")
    assert failure is not None
    assert failure[0] == "bad_input"
    assert "patch_x" in failure[1]


def test_the_record_tells_what_ran_with_what(processed: Project) -> None:
    record = read_job_file(processed.directory / "External/job003")
    assert record["node"] == "tsAlignment"
    assert record["parameters"]["rescale_angpixs"] == 16.0
    assert record["tilt_series"] == ["TS_01", "TS_02", "TS_03"]
    assert record["resources"]["cpu_seconds"] > 0
    commands = read_results(processed.directory / "External/job003")["TS_01"].commands
    assert commands[0][1:5] == ["-P", "-m", "crboost.cpu", "align"]


START = """
import sys
from pathlib import Path
from crboost.driver import Request, run_job
project = Path.cwd()
sys.exit(run_job(Request(project, sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4],
                         sys.argv[5], 2, sys.executable)))
"""


def start(request: Request, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """The driver as a process of its own, as on a compute node."""
    arguments = [request.job, str(request.snapshot), request.node, request.fingerprint]
    return subprocess.Popen(
        [sys.executable, "-u", "-c", START, *arguments, str(request.input_star)],
        cwd=request.project,
        stdout=output,
    )


def wait_for(condition: object, seconds: float = 30.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_abort_and_sigterm_end_the_job_with_its_marker(copy: Project) -> None:
    request = request_for(copy, "fsMotionAndCtf", 12, output(1, "importmovies"))
    process = start(request)
    wait_for(lambda: (request.directory / "cpu/TS_01/frames.json").exists())
    assert is_driver_alive(request.directory)
    (request.directory / "RELION_JOB_ABORT_NOW").touch()
    assert process.wait(timeout=60) == 2
    assert read_marker(request.directory) is Marker.ABORTED
    assert not is_driver_alive(request.directory)

    request = request_for(copy, "fsMotionAndCtf", 13, output(1, "importmovies"))
    process = start(request)
    wait_for(lambda: (request.directory / "cpu/TS_01/frames.json").exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    failure = read_failure(request.directory)
    assert failure is not None
    assert failure == ("killed", "stopped by SIGTERM")


def test_kill_leaves_no_marker_and_the_next_start_goes_on(copy: Project) -> None:
    request = request_for(copy, "fsMotionAndCtf", 12, output(1, "importmovies"))
    process = start(request)
    wait_for(lambda: (request.directory / "results/TS_01.json").exists())
    process.kill()
    process.wait()
    assert read_marker(request.directory) is None
    assert not is_driver_alive(request.directory)
    finished = json.loads((request.directory / "results/TS_01.json").read_text())["started"]
    assert run_job(request) == 0
    again = json.loads((request.directory / "results/TS_01.json").read_text())["started"]
    assert again == finished


def test_a_second_driver_waits_and_does_nothing(copy: Project, tmp_path: Path) -> None:
    request = request_for(copy, "tsAlignment", 3, output(2, "fsMotionAndCtf"))
    (request.directory / "RELION_JOB_EXIT_SUCCESS").unlink()
    before = (request.directory / "crboost_job.json").read_text()
    with driver_lock(request.directory, print) as waited:
        assert not waited
        said = tmp_path / "said"
        with said.open("wb") as stream:
            process = start(request, stream)
        wait_for(lambda: "another driver is at work" in said.read_text(), 60)
        assert process.poll() is None
        (request.directory / "RELION_JOB_EXIT_SUCCESS").touch()
    assert process.wait(timeout=60) == 0
    assert (request.directory / "crboost_job.json").read_text() == before


def kill_first(argument: str) -> bool:
    """SIGKILL the oldest process with this argument; False if there is none."""
    for directory in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        try:
            words = (directory / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if argument in words:
            os.kill(int(directory.name), signal.SIGKILL)
            return True
    return False


def test_a_killed_tool_fails_its_series_until_the_next_run(copy: Project) -> None:
    request = request_for(copy, "fsMotionAndCtf", 12, output(1, "importmovies"))
    process = start(request)
    wait_for(lambda: (request.directory / "cpu/TS_01/frames.json").exists())
    wait_for(lambda: kill_first(f"{request.job}/cpu/TS_01/frames.json"))
    assert process.wait(timeout=60) == 0
    result = read_results(request.directory)["TS_01"]
    assert (result.status, result.redo) == ("failed", True)
    assert "SIGKILL" in str(result.reason)
    assert run_job(request) == 0
    assert read_results(request.directory)["TS_01"].status == "done"


def test_a_damaged_result_is_made_again(copy: Project) -> None:
    directory = copy.directory / "External/job003"
    (directory / "results/TS_02.json").write_text('{"tilt_series": "TS')
    assert "TS_02" not in read_results(directory)
    request = request_for(copy, "tsAlignment", 3, output(2, "fsMotionAndCtf"))
    log: list[str] = []
    assert run_job(request, log=log.append) == 0
    assert "2 done before, 1 to do" in log[0]
    assert read_results(directory)["TS_02"].status == "done"
