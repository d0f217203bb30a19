"""The driver with GPUs: how many tilt series at once, which GPU each of their commands is shown."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.builders.step import Step
from crboost.driver import OpenJob, Request, open_job, run_series
from crboost.files import write_json
from crboost.parameters import ProjectParameters, write_parameters
from crboost.process import Runner
from crboost.results import read_results
from crboost.scheduler.resources import Resources
from crboost.settings import Settings
from crboost.stages import Context, SeriesInput
from crboost.translate.output import SeriesOutput

NODE = "tsAlignment"
SERIES = [f"TS_{number:02}" for number in range(1, 7)]


class Noting:
    """A tool that notes when it was at work, and on which GPU."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        return {name: SeriesInput(name, "", {}, [{"rlnMicrographName": "x"}]) for name in SERIES}

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        script = (
            'a=$(date +%s%N); sleep 0.2; b=$(date +%s%N); echo "$CUDA_VISIBLE_DEVICES $a $b" >note'
        )
        directory = context.tool_directory(series.name)
        return [Step("noting", ("sh", "-c", script), directory, creates=(f"{directory}/note",))]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        return SeriesOutput({}, series.rows)


def opened(
    project: Path, gpus: int, scheduler: Mapping[str, object] | None = None, tool: str = "aretomo2"
) -> tuple[Request, OpenJob]:
    """A job as the driver finds it, of a run that asked for so many GPUs."""
    parameters = ProjectParameters.new("P", datetime(2026, 5, 1, tzinfo=UTC)).with_job(NODE)
    snapshot = project / "Schemes" / "run_test" / "project_params.json"
    write_parameters(snapshot, parameters.with_values({f"jobs.{NODE}.tool": tool}))
    settings = Settings.model_validate({"scheduler": scheduler or {}})
    write_json(snapshot.with_name("settings.json"), settings.model_dump(mode="json"))
    write_json(snapshot.parent / NODE / "resources.json", Resources(gpus=gpus).to_dict())
    request = Request(project, "External/job004", snapshot, NODE, "", None, 8, sys.executable)
    return request, open_job(request)


def notes(request: Request) -> dict[str, list[tuple[int, int]]]:
    """GPU -> when each tilt series on it began and ended."""
    found: dict[str, list[tuple[int, int]]] = {}
    for path in request.directory.glob("*/*/note"):
        device, begin, end = path.read_text().rsplit(maxsplit=2)
        found.setdefault(device, []).append((int(begin), int(end)))
    return found


def most_at_once(times: Sequence[tuple[int, int]]) -> int:
    return max(sum(begin <= at < end for begin, end in times) for at, _ in times)


@pytest.mark.parametrize(("asked", "per_gpu"), [(1, None), (2, None), (2, 2)])
def test_tilt_series_at_once_are_those_that_the_gpus_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, per_gpu: int | None
) -> None:
    """Eight CPUs made eight AreTomos on one GPU, and left the others of the job idle."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7"[: 2 * asked - 1])
    request, job = opened(tmp_path, asked, {"gpu_defaults": {"per_gpu": per_gpu}})
    todo = list(Noting().inputs(job.context).values())
    run_series(request, replace(job, stage=Noting()), todo, Runner(), print)
    assert {one.status for one in read_results(request.directory).values()} == {"done"}
    found = notes(request)
    assert set(found) == set("57"[:asked])
    assert sum(map(len, found.values())) == len(SERIES)
    assert {most_at_once(times) for times in found.values()} == {per_gpu or 1}


def test_a_job_has_the_gpus_that_it_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Site settings and array tasks say how many; computing.gpu_count is only what was asked."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    request, job = opened(tmp_path, 4)
    assert job.devices == ("0", "1", "2", "3")
    assert (job.share.at_once, job.context.gpus, job.context.workers) == (4, 1, 2)
    task = open_job(request, 2, Resources(gpus=1))
    assert (task.devices, task.share.at_once, task.share.devices) == (("0",), 2, (("0",), ("0",)))
    _, without = opened(tmp_path, 0, tool="imod")
    assert (without.devices, without.share.at_once, without.context.gpus) == ((), 8, 0)


def test_nothing_is_shown_where_no_gpu_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    request, job = opened(tmp_path, 0, tool="imod")
    todo = list(Noting().inputs(job.context).values())[:2]
    run_series(request, replace(job, stage=Noting()), todo, Runner(), print)
    assert set(notes(request)) == {"1"}  # as the job itself was shown
