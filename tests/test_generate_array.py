"""What a run freezes for a job whose tilt series become tasks of an array. No Slurm is asked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from crboost.array_driver import array_of
from crboost.errors import CrboostError
from crboost.files import read_json
from crboost.project import PARAMETERS_FILE, Project
from crboost.relion.job import read_job
from crboost.run import Run
from crboost.settings import Settings

NODE = "tsAlignment"
NODES = ["importmovies", "fsMotionAndCtf", NODE]
SLURM = {
    "kind": "slurm",
    "defaults": {"partition": "cpu", "cpus": 6, "memory_gb": 40, "time_limit_minutes": 90},
    "coordinator": {"time_limit_minutes": 600},
}


@pytest.fixture
def project(tmp_path: Path, example_data: Path) -> Project:
    return Project.create(
        tmp_path / "P", movies=[str(example_data / "frames")], mdocs=[str(example_data / "*.mdoc")]
    ).project


def make_run(project: Project, scheduler: dict[str, object]) -> Run:
    settings = Settings.model_validate({"scheduler": scheduler, "schemer": "embedded"})
    plan = project.plan(NODES, settings=settings)
    now = datetime.now().astimezone()
    return Run.create(project, plan, project.parameters(), settings, now=now)


def test_the_job_is_small_and_its_tasks_are_what_the_job_was(project: Project) -> None:
    project.set_values({f"jobs.{NODE}.array_throttle": 7})
    run = make_run(project, SLURM)
    spec = array_of(run.directory / PARAMETERS_FILE, NODE)
    assert spec is not None
    assert (spec.throttle, spec.per_task, spec.workers) == (7, 1, 6)
    assert (spec.resources.memory_gb, spec.resources.time_limit_minutes) == (40, 90)
    asked = read_json(run.directory / NODE / "resources.json")
    assert (asked["cpus"], asked["memory_gb"], asked["time_limit_minutes"]) == (1, 2, 600)
    job = read_job(run.directory / NODE / "job.star")
    assert job.option("qsub_extra7") == "2G"
    template = (project.directory / spec.template).read_text()
    assert "#SBATCH --mem=XXXextra7XXX" in template
    # The others do their tilt series themselves.
    for node in NODES[:2]:
        assert array_of(run.directory / PARAMETERS_FILE, node) is None
        assert read_json(run.directory / node / "resources.json")["memory_gb"] == 40


@pytest.mark.parametrize(("rounds", "gpus"), [(2, 1), (0, 0)])
def test_the_job_has_a_gpu_where_it_computes_on_one_itself(
    project: Project, rounds: int, gpus: int
) -> None:
    """Warp's axis refinement runs in the coordinator, which never had a GPU."""
    project.set_values(
        {
            "jobs.fsMotionAndCtf.tool": "warp",
            f"jobs.{NODE}.tool": "warp",
            f"jobs.{NODE}.axis_iter": rounds,
        }
    )
    run = make_run(project, {**SLURM, "array": True, "gpu_defaults": {"partition": "gpu"}})
    asked = read_json(run.directory / NODE / "resources.json")
    assert (asked["gpus"], asked["partition"]) == (gpus, "gpu" if gpus else "cpu")
    assert asked["time_limit_minutes"] == 600
    job = read_job(run.directory / NODE / "job.star")
    assert job.option("qsub_extra6") == ("gpu:1" if gpus else "")


def test_the_plan_shows_it(project: Project) -> None:
    settings = Settings.model_validate({"scheduler": {**SLURM, "array": True}})
    planned = {job.node: job.resources for job in project.plan(NODES, settings=settings).jobs}
    assert planned[NODE]["array"] == "20 tasks at once"
    assert (planned[NODE]["memory"], planned[NODE]["workers"]) == ("40 GB", "6")
    assert "array" not in planned["importmovies"]


def test_the_plan_shows_what_the_job_types_need(project: Project) -> None:
    """A time limit only for tasks: nobody knows how many tilt series a whole job will have."""
    project.set_values({f"jobs.{NODE}.tool": "aretomo2"})
    for array, time in ((True, "15 min"), (False, None)):
        bare = Settings.model_validate({"scheduler": {"kind": "slurm", "array": array}})
        planned = {job.node: job.resources for job in project.plan(NODES, settings=bare).jobs}
        shown = planned[NODE]
        assert (shown["cpus"], shown["memory"], shown["gpus"]) == ("2", "16 GB", "1")
        assert shown.get("time") == time
        assert (planned["importmovies"]["cpus"], planned["importmovies"]["memory"]) == ("4", "8 GB")
        assert (planned[NODES[1]]["cpus"], planned[NODES[1]]["memory"]) == ("8", "32 GB")


def test_the_import_is_no_array(project: Project) -> None:
    run = make_run(project, {**SLURM, "array": True})
    made = [node for node in NODES if array_of(run.directory / PARAMETERS_FILE, node)]
    assert made == ["fsMotionAndCtf", NODE]


@pytest.mark.parametrize("scheduler", [{"kind": "local"}, {**SLURM, "array": False}])
def test_not_where_the_site_has_none(project: Project, scheduler: dict[str, object]) -> None:
    project.set_values({f"jobs.{NODE}.array_throttle": 7})
    run = make_run(project, scheduler)
    assert array_of(run.directory / PARAMETERS_FILE, NODE) is None


def test_a_bad_template_is_found_before_anything_starts(project: Project, tmp_path: Path) -> None:
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/bin/bash\nXXXcommandXXX and more\n")
    with pytest.raises(CrboostError, match="bad\\.sh: line 2"):
        make_run(project, {**SLURM, "array": True, "template": str(bad)})
