"""What the planner is told of a job: the commands that it will run; wrong ones stop the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.builders.step import Step
from crboost.errors import PlanError
from crboost.parameters import ProjectParameters
from crboost.project import Project
from crboost.settings import Settings
from crboost.stages import STAGES, Context, SeriesInput
from crboost.stages.base import DatasetStage
from crboost.stages.cpu import FromStar
from crboost.wanted import wanted_job

TO_TOMOGRAMS = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
AFTER = ["denoiseTrain", "denoisePredict", "membraneSegmentation", "templateMatching",
         "extractCandidates"]  # fmt: skip


class OneOptionMore(FromStar):
    """A stage whose last command has an option that there never was."""

    def __init__(self, stage: FromStar) -> None:
        self._stage = stage

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        return self._stage.inputs(context)

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        (*before, last) = self._real_steps(context, series)
        return [*before, replace(last, argv=(*last.argv, "--nonsense", "1"))]

    def _real_steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        if isinstance(self._stage, DatasetStage):
            return self._stage.dataset_steps(context, {series.name: series})
        return self._stage.steps(context, series)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, example_data: Path) -> Project:
    made = Project.create(
        tmp_path_factory.mktemp("wanted") / "P",
        movies=[str(example_data / "frames")],
        mdocs=[str(example_data / "*.mdoc")],
    ).project
    made.set_values(
        {
            "jobs.templateMatching.template_path": "t.mrc",
            "jobs.templateMatching.mask_path": "m.mrc",
            "jobs.membraneSegmentation.model_path": "m.ckpt",
            "jobs.tsAlignment__2.tool": "aretomo2",
            "jobs.tsAlignment__3.tool": "aretomo3",
            "jobs.tsAlignment__4.tool": "imod",
        }
    )
    return made


ALIGNMENTS = ["tsAlignment__2", "tsAlignment__3", "tsAlignment__4"]


def test_right_commands_stop_nothing(project: Project) -> None:
    nodes = [*TO_TOMOGRAMS, *AFTER, *ALIGNMENTS]
    planned = project.plan(nodes, settings=Settings())
    assert {job.node for job in planned.jobs} == set(nodes)


@pytest.mark.parametrize(
    ("node", "tool", "message"),
    [
        ("tsAlignment__2", "aretomo2", "AreTomo2 would not do what it is told"),
        ("tsAlignment__3", "aretomo3", "AreTomo3 would not do what it is told"),
        ("tsAlignment__4", "imod", "IMOD would not do what it is told"),
        ("denoiseTrain", "cryocare", "cryoCARE would not do what it is told"),
        ("denoisePredict", "cryocare", "cryoCARE would not do what it is told"),
        ("templateMatching", "pytom", "pytom-match-pick would not do what it is told"),
        ("extractCandidates", "pytom", "pytom-match-pick would not do what it is told"),
        ("membraneSegmentation", "membrain", "membrain-seg would not do what it is told"),
    ],
)
def test_bug_b37_an_option_that_there_never_was_stops_the_plan(
    project: Project, monkeypatch: pytest.MonkeyPatch, node: str, tool: str, message: str
) -> None:
    """B37: WarpTools is not alone in it: an AreTomo, too, passes over what it does not know."""
    job_type = node.partition("__")[0]
    stage = OneOptionMore(STAGES[job_type, tool])  # type: ignore[arg-type]
    monkeypatch.setitem(STAGES, (job_type, tool), stage)  # type: ignore[arg-type]
    nodes = [*TO_TOMOGRAMS, *AFTER, *ALIGNMENTS]
    with pytest.raises(PlanError) as told:
        project.plan(nodes, settings=Settings())
    assert f"{node}: {message}" in str(told.value)
    assert "--nonsense" in str(told.value)
    assert f"correct the parameters of jobs.{node}" in str(told.value)
    # A job that is not part of the run may wait with its mistakes.
    project.plan(TO_TOMOGRAMS, settings=Settings())


def test_what_a_user_writes_can_make_a_command_wrong(project: Project) -> None:
    """A value that its program would take for an option."""
    parameters = project.parameters().with_values({"jobs.templateMatching.template_path": "-t.mrc"})
    nodes = [*TO_TOMOGRAMS, "templateMatching"]
    with pytest.raises(PlanError, match=r"--template takes a value, not 0"):
        project.plan(nodes, parameters, settings=Settings())


NODE = "templateMatching"


def gpu_ids(project: Path, scheduler: dict[str, object] | None, **values: object) -> list[str]:
    """The GPUs that pytom is told to use."""
    parameters = ProjectParameters.new("P", datetime(2026, 5, 1, tzinfo=UTC)).with_job(NODE)
    parameters = parameters.with_values(
        {
            f"jobs.{NODE}.template_path": "template.mrc",
            f"jobs.{NODE}.mask_path": "mask.mrc",
            **{name.replace("__", "."): value for name, value in values.items()},
        }
    )
    settings = Settings.model_validate({"scheduler": scheduler}) if scheduler is not None else None
    wanted = wanted_job(project, NODE, parameters, settings)
    assert wanted.problem is None
    (argv,) = wanted.commands
    return list(argv[argv.index("--gpu-ids") + 1 :])


@pytest.mark.parametrize("array", [False, True])
def test_pytom_is_told_of_the_gpus_that_it_gets(tmp_path: Path, array: bool) -> None:
    """A task of an array has one GPU, however many the job would have had by itself."""
    site = {"kind": "slurm", "array": array}
    given = gpu_ids(tmp_path, site, computing__gpu_count=4)
    assert given == (["0"] if array else ["0", "1", "2", "3"])


def test_so_it_is_of_those_that_the_site_gives(tmp_path: Path) -> None:
    site: dict[str, object] = {"kind": "slurm", "gpu_defaults": {"gpus": 2}}
    assert gpu_ids(tmp_path, site) == ["0", "1"]
    assert gpu_ids(tmp_path, None) == ["0"]
