"""What the parameters ask for, as the planner wants it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crboost.catalogue import CATALOGUE, JobType, label_matches
from crboost.errors import CrboostError, PlanError
from crboost.history import PastJob
from crboost.parameters import EffectiveParameters, ProjectParameters, job_type_of
from crboost.plan import Mode, WantedJob, plan
from crboost.results import fingerprint_of

if TYPE_CHECKING:
    from crboost.builders.step import Step
    from crboost.scheduler.array import ArraySpec
    from crboost.scheduler.resources import Resources
    from crboost.settings import Settings


def wanted_job(
    project: Path,
    node: str,
    parameters: ProjectParameters,
    settings: Settings | None,
    *,
    binning: float | None = None,
) -> WantedJob:
    """A job as the parameters ask for it.

    Args:
        settings: the installation; None where it need not be able to run the job.
        binning: of the images that it works on; None: as the parameters say.

    Raises:
        PlanError: it is RELION's own job, and this installation has no RELION.
    """
    from crboost.stages import Context, SeriesInput, stage_for
    from crboost.stages.base import DatasetStage, ExtraInputStage
    from crboost.stages.import_movies import available_series

    effective = parameters.effective(node, binning=binning)
    job_type = CATALOGUE[job_type_of(node)].for_tool(effective.job.tool)
    if job_type.is_native:
        return _wanted_native(node, job_type, effective, settings)
    stage = stage_for(job_type.name, effective.job.tool)
    resources = _resource_words(effective, job_type, settings)
    workers = int(resources["workers"])
    gpus = _gpus(effective, job_type, settings)
    each = min(1, gpus) if job_type.gpus_per_series == "one" else gpus
    context = Context(project, "<job>", effective, None, "python", workers, gpus=each)
    example = SeriesInput("<tilt series>", "", {}, [])
    data: dict[str, str] = {}
    if not job_type.inputs:
        data = available_series(project, effective)
    commands: list[Step] = []
    problem = None
    try:
        if isinstance(stage, DatasetStage):
            commands += stage.dataset_steps(replace(context, gpus=gpus), {example.name: example})
        commands += stage.steps(context, example)
        if settings is not None:
            check_commands(node, commands, settings)
    except CrboostError as error:  # only a job that is to run must be able to
        problem = str(error)
    return WantedJob(
        node=node,
        job_type=job_type,
        fingerprint=parameters.fingerprint(node),
        parameters={key: str(value) for key, value in effective.decisive().items()},
        overrides=_overrides(effective, job_type),
        commands=tuple(step.argv for step in commands),
        resources=resources,
        data=data,
        extras=stage.extras(project) if isinstance(stage, ExtraInputStage) else {},
        problem=problem,
    )


def check_commands(node: str, steps: Sequence[Step], settings: Settings) -> None:
    """Hold commands against what their tools accept; WarpTools in the installed version.

    Raises:
        PlanError: lists everything that is wrong.
        ParameterError: the version in the settings is none.
    """
    from crboost.builders.contracts import WARP, problems_of

    warp = settings.tools.get("warp")
    problems: dict[str, list[str]] = {}
    for step in steps:
        tool, found = problems_of(step, warp.version if warp else None)
        if found:
            problems.setdefault(tool, []).extend(found)
    if not problems:
        return
    lines = []
    for tool, found in problems.items():
        lines.append(f"{tool} would not do what it is told:")
        lines += [f"  {problem}" for problem in dict.fromkeys(found)]
    hint = f"correct the parameters of jobs.{node}"
    if WARP in problems:
        hint = (
            f"correct jobs.{node}.warp_arguments, the job's other parameters, or "
            "tools.warp.version in the settings"
        )
    raise PlanError("\n".join(lines), hint=hint)


def _wanted_native(
    node: str, job_type: JobType, effective: EffectiveParameters, settings: Settings | None
) -> WantedJob:
    """A job that RELION turns into commands itself."""
    from crboost.builders.relion import relion_options

    if settings is not None and settings.engine == "embedded":
        raise PlanError(
            f"{node} is a job of RELION's own ({job_type.relion_type}), and no RELION is set up",
            hint="set up tools.relion (see `crboost doctor`), or take a job with embedded tools",
        )
    ctffind = settings.tools.get("ctffind") if settings is not None else None
    executable = ctffind.executable if ctffind is not None else None
    options: dict[str, str] = {}
    problem = None
    try:
        options = relion_options(
            job_type.name, effective, ctffind_executable=executable or "ctffind"
        )
    except CrboostError as error:  # only a job that is to run must be able to
        problem = str(error)
    return WantedJob(
        node=node,
        job_type=job_type,
        fingerprint=fingerprint_of(options),
        parameters=options,
        overrides=_overrides(effective, job_type),
        resources=_resource_words(effective, job_type, settings),
        problem=problem,
    )


def job_resources(
    effective: EffectiveParameters,
    job_type: JobType,
    settings: Settings,
    *,
    one_series: bool = False,
) -> Resources:
    """What a job asks the machine or the scheduler for.

    Args:
        one_series: what a task asks for that does one tilt series.
    """
    from crboost.scheduler.resources import resources_for

    computing = effective.computing
    set_by_user = {
        name
        for name in type(computing).model_fields
        if effective.origin(f"computing.{name}").is_chosen
    }
    return resources_for(
        job_type.name,
        computing,
        settings.scheduler,
        uses_gpu=bool(getattr(effective.job, "use_gpu", False)),
        tasks=job_type.mpi,
        explicit=set_by_user,
        one_series=one_series,
    )


def _gpus(effective: EffectiveParameters, job_type: JobType, settings: Settings | None) -> int:
    """GPUs of the job, or of one of the tasks that do its work."""
    if settings is None:
        uses_gpu = getattr(effective.job, "use_gpu", False)
        return effective.computing.gpu_count if uses_gpu else 0
    array = job_array(effective, job_type, settings)
    return (array.resources if array else job_resources(effective, job_type, settings)).gpus


def job_array(
    effective: EffectiveParameters, job_type: JobType, settings: Settings
) -> ArraySpec | None:
    """How the job's tilt series become tasks of a Slurm array; None where they do not."""
    throttle = getattr(effective.job, "array_throttle", None)
    if throttle is None or job_type.is_native or settings.scheduler.kind != "slurm":
        return None
    from crboost.scheduler.array import task_spec, uses_array

    wanted = uses_array(
        job_type.name,
        settings.scheduler,
        uses_gpu=bool(getattr(effective.job, "use_gpu", False)),
        asked=effective.origin("job.array_throttle").is_chosen,
    )
    if not wanted:
        return None
    return task_spec(
        job_type.name,
        settings.scheduler,
        job_resources(effective, job_type, settings, one_series=True),
        throttle=throttle,
        workers=effective.computing.workers,
    )


def _resource_words(
    effective: EffectiveParameters, job_type: JobType, settings: Settings | None
) -> dict[str, str]:
    """What a plan shows of the resources; `workers` is what the job gets as `--j`."""
    workers = effective.computing.workers
    if settings is None or settings.scheduler.kind == "local":
        return {"workers": str(workers or len(os.sched_getaffinity(0)))}
    asked = job_resources(effective, job_type, settings)
    array = job_array(effective, job_type, settings)
    if array is not None:
        asked = array.resources
    words = {
        "cpus": asked.cpus,
        "memory": f"{asked.memory_gb} GB" if asked.memory_gb else None,
        "time": f"{asked.time_limit_minutes} min" if asked.time_limit_minutes else None,
        "gpus": asked.gpus or None,
        "partition": asked.partition,
        "array": array.words if array is not None else None,
    }
    shown = {name: str(value) for name, value in words.items() if value is not None}
    return {"workers": str(workers or asked.cpus), **shown}


def _overrides(effective: EffectiveParameters, job_type: JobType) -> dict[str, str]:
    """Inputs that the user insists on: `input_<slot>` of the job."""
    given = {
        slot.name: getattr(effective.job, f"input_{slot.name}", None) for slot in job_type.inputs
    }
    return {slot: path for slot, path in given.items() if path}


def left_out(
    history: Sequence[PastJob], wanted: Mapping[str, WantedJob], nodes: Sequence[str], mode: Mode
) -> list[str]:
    """A word on earlier jobs that are out of date, but are not part of the run."""
    asked = [wanted[node].job_type for node in nodes]
    made = {output.label for job_type in asked for output in job_type.outputs}
    open_inputs = [
        slot
        for job_type in asked
        for slot in job_type.inputs
        if not any(label_matches(label, one) for label in made for one in slot.accepts)
    ]
    if not open_inputs:
        return []
    last = max(list(CATALOGUE).index(job_type.name) for job_type in asked)
    before = [
        job
        for node, job in wanted.items()
        if node in nodes or list(CATALOGUE).index(job.job_type.name) < last
    ]
    try:
        full = plan(history, before, mode=mode)
    except PlanError:
        return []
    return [
        f"{job.node} is not part of this run, although it is out of date: {job.reason}"
        for job in full.jobs
        if job.node not in nodes
    ]
