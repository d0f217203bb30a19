"""A run: the scheme that it generates, and the state of its jobs through the real schemer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.cli.status import at_work_values
from crboost.errors import ProjectError
from crboost.failure import Failure
from crboost.plan import Plan
from crboost.project import Project
from crboost.relion.job import read_job
from crboost.relion.ledger import Status
from crboost.relion.markers import Marker, write_marker
from crboost.relion.scheme import read_scheme, write_scheme
from crboost.relion.schemer.engine import EmbeddedEngine
from crboost.relion.schemer.holder import hold
from crboost.run import Run, active_run, runs
from crboost.settings import Settings

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, example_data: Path) -> Project:
    made = Project.create(
        tmp_path / "P", movies=[str(example_data / "frames")], mdocs=[str(example_data / "*.mdoc")]
    ).project
    made.set_values({"acquisition.sample_thickness_nm": "80", "computing.workers": "2"})
    return made


def generate(project: Project, jobs: list[str] | None = None, **options: object) -> Run:
    plan = project.plan(jobs, **options)  # type: ignore[arg-type]
    return Run.create(project, plan, project.parameters(), Settings(), now=NOW)


def do(run: Run) -> None:
    """Run the scheme in this process's place, as the holder does."""
    code = "import sys; from crboost.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "schemer", "run", str(run.project.directory), run.name],
        check=True,
        capture_output=True,
    )


def test_the_scheme_holds_only_the_queue_and_the_snapshot(project: Project) -> None:
    run = generate(project, ["importmovies", "fsMotionAndCtf"])
    assert run.name.startswith("run_20260501_100000_")
    assert run.nodes == ["importmovies", "fsMotionAndCtf"]
    scheme = read_scheme(project.directory, run.name)
    assert scheme.next_node("fsMotionAndCtf") == "EXIT"
    assert {job.mode for job in scheme.jobs.values()} == {"continue"}
    job = read_job(run.directory / "fsMotionAndCtf" / "job.star")
    assert job.option("fn_exe") == f".crboost/runs/{run.name}/driver"
    assert job.option("in_mic") == f"Schemes/{run.name}/importmovies/tilt_series.star"
    assert job.option("param1_label") == "node"
    assert job.option("param2_value") == project.parameters().fingerprint("fsMotionAndCtf")
    snapshot = json.loads((run.directory / "project_params.json").read_text())
    assert snapshot == json.loads((project.directory / "project_params.json").read_text())
    assert (project.directory / run.driver).stat().st_mode & 0o111
    assert run.retries("fsMotionAndCtf") == 1
    assert run.job_state("importmovies").phase == "waiting"


def test_an_empty_plan_makes_no_run(project: Project) -> None:
    with pytest.raises(ProjectError, match="nothing to run"):
        Run.create(project, Plan((), ()), project.parameters(), Settings(), now=NOW)
    assert runs(project) == []


def test_a_run_through_the_schemer_is_all_in_relions_files(project: Project) -> None:
    run = generate(project)
    do(run)
    assert [run.job_state(node).phase for node in run.nodes] == ["succeeded"] * 4
    state = run.job_state("tsReconstruct")
    assert (state.job, state.done, state.total) == ("External/job004/", 3, 3)
    ledger = project.ledger()
    assert [process.status for process in ledger.processes] == [Status.SUCCEEDED] * 4
    assert [node.name for node in ledger.inputs_of("External/job004/")] == [
        "External/job003/aligned_tilt_series.star"
    ]
    assert project.plan().is_empty
    assert active_run(project) is None
    assert [one.name for one in runs(project)] == [run.name]

    # A changed parameter: new numbers, upstream from the ledger.
    project.set_values({"jobs.tsAlignment.patch_x": "4"})
    again = generate(project)
    assert again.nodes == ["tsAlignment", "tsReconstruct"]
    job = read_job(again.directory / "tsAlignment" / "job.star")
    assert job.option("in_mic") == "External/job002/tilt_series_ctf.star"
    do(again)
    assert again.job_state("tsReconstruct").job == "External/job006/"

    # A lost tomogram: the same job, only that series.
    tomogram = next((project.directory / "External/job006/cpu/TS_02").glob("TS_02.mrc"))
    kept = next((project.directory / "External/job006/cpu/TS_01").glob("TS_01.mrc"))
    before = kept.stat().st_mtime_ns
    tomogram.unlink()
    third = generate(project)
    assert third.nodes == ["tsReconstruct"]
    assert third.job_state("tsReconstruct").phase == "waiting"
    do(third)
    assert third.job_state("tsReconstruct").job == "External/job006/"
    assert tomogram.exists()
    assert kept.stat().st_mtime_ns == before
    assert project.ledger().counter == 7
    assert project.plan().is_empty


def test_relion_repeats_the_run_alone(project: Project) -> None:
    """Contract 4: `--reset`, then `--run`, with nothing but the scheme."""
    from crboost.relion.schemer.verbs import reset

    run = generate(project, ["importmovies"])
    do(run)
    reset(project.directory, run.name)
    assert hold(project.directory, run.name, EmbeddedEngine()) == 0
    assert run.job_state("importmovies").job == "External/job002/"
    assert run.job_state("importmovies").phase == "succeeded"


def test_new_data_continue_in_the_same_jobs(project: Project, example_data: Path) -> None:
    link = project.directory / "mdoc" / "TS_03.mdoc"
    link.unlink()
    first = generate(project, ["importmovies", "fsMotionAndCtf"])
    do(first)
    link.symlink_to(example_data / "TS_03.mdoc")
    assert project.plan(["importmovies"]).jobs[0].continue_of is None
    run = generate(project, ["importmovies", "fsMotionAndCtf"], mode="continue")
    assert [
        job["continue_of"] for job in json.loads((run.directory / "plan.json").read_text())["jobs"]
    ] == [
        "External/job001/",
        "External/job002/",
    ]
    # The ledger may have it running already: in the run it waits for its turn.
    assert at_work_values(run, "fsMotionAndCtf") == {"status": "waiting"}
    assert at_work_values(run, "tsAlignment") == at_work_values(None, "importmovies") == {}
    before = (project.directory / "External/job002/results/TS_01.json").read_text()
    do(run)
    state = run.job_state("fsMotionAndCtf")
    assert (state.job, state.phase, state.done, state.total) == (
        "External/job002/",
        "succeeded",
        3,
        3,
    )
    assert (project.directory / "External/job002/results/TS_01.json").read_text() == before
    assert project.ledger().counter == 3


def test_a_failed_job_says_why_and_goes_on_in_its_folder(project: Project) -> None:
    broken = project.directory / "frames"
    run = generate(project, ["importmovies"])
    do(run)
    hidden = project.directory / "elsewhere"
    shutil.move(broken, hidden)
    next_run = generate(project, ["fsMotionAndCtf"])
    do(next_run)
    state = next_run.job_state("fsMotionAndCtf")
    assert state.phase == "failed"
    assert state.failure is not None
    assert state.failure.kind == "tool_error"
    assert "none of 3 tilt series could be done" in state.failure.message
    assert next_run.prepare_retry("fsMotionAndCtf", state.failure, 2) is None
    shutil.move(hidden, broken)
    planned = project.plan(["fsMotionAndCtf"]).jobs[0]
    assert planned.continue_of == "External/job002/"


def test_a_retry_changes_something_and_is_recorded(project: Project) -> None:
    run = generate(project, ["importmovies"])
    killed = Failure("killed", "killed by signal 9")
    changed = run.prepare_retry("importmovies", killed, 2)
    assert changed == "2 -> 1 worker processes, to use less memory"
    assert read_job(run.directory / "importmovies/job.star").option("nr_threads") == "1"
    assert run.record["events"][0]["event"] == "retry"
    assert run.prepare_retry("importmovies", killed, 3) is None
    assert run.prepare_retry("importmovies", Failure("bad_input", "no"), 2) is None


def test_success_needs_the_declared_outputs(project: Project) -> None:
    run = generate(project, ["importmovies"])
    scheme = read_scheme(project.directory, run.name)
    scheme.jobs["importmovies"] = replace(
        scheme.jobs["importmovies"], current_name="External/job001/", has_started=True
    )
    write_scheme(project.directory, scheme)
    directory = project.directory / "External/job001"
    directory.mkdir(parents=True)
    write_marker(directory, Marker.SUCCESS)
    state = run.job_state("importmovies")
    assert state.phase == "failed"
    assert state.failure is not None
    assert "External/job001/tilt_series.star is missing" in state.failure.message
