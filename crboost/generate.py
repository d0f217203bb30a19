"""Generating a run: the ephemeral scheme, and all that its jobs need. Nothing is started.

`Schemes/<run>/` gets scheme.star (the queue, ending in EXIT), one job.star per job, the frozen
parameters and settings, the plan and the record. What RELION starts (the driver, what submits) lies
in `.crboost/runs/<run>/`: RELION takes every option with `Schemes/` in it for a job of the scheme.
"""

from __future__ import annotations

import getpass
import platform
import secrets
import shlex
import socket
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from crboost import __version__
from crboost.catalogue import CATALOGUE
from crboost.errors import ProjectError
from crboost.files import write_json, write_text
from crboost.job_directory import SCRIPTS
from crboost.parameters import ProjectParameters, write_parameters
from crboost.plan import PLAN_FILE, Plan, PlannedJob
from crboost.prerequisites import type_as_done
from crboost.project import PARAMETERS_FILE
from crboost.relion.job import Job, Submission, external_job, read_job, write_job
from crboost.relion.markers import Marker
from crboost.relion.scheme import (
    SCHEMES_DIR,
    JobMode,
    SchemeJob,
    make_linear_scheme,
    scheme_dir,
    write_scheme,
)
from crboost.stale_outputs import remove_stale_outputs
from crboost.tool_commands import SETTINGS_FILE
from crboost.wanted import job_array, job_resources

if TYPE_CHECKING:
    from crboost.scheduler.array import ArraySpec
    from crboost.scheduler.resources import Resources
    from crboost.settings import Settings

RESOURCES_FILE = "resources.json"
RECORD_FILE = "record.json"
#: How a job's tilt series become tasks of a Slurm array, where they do.
ARRAY_FILE = "array.json"
LOG_SIZES_FILE = "log_sizes_before.json"


def scripts_directory(run: str) -> str:
    """Where what RELION starts for a run is kept, project-relative."""
    return f"{SCRIPTS}/{run}"


def driver_path(run: str) -> str:
    """The `fn_exe` of the run's External jobs, project-relative."""
    return f"{scripts_directory(run)}/driver"


def generate(
    project: Path,
    plan: Plan,
    parameters: ProjectParameters,
    settings: Settings,
    *,
    now: datetime,
) -> str:
    """Write the run of a plan; its name.

    Args:
        project: project directory, absolute.
        settings: the installation; frozen beside the parameters.
        now: names the run.

    Raises:
        ProjectError: the plan is empty.
        CrboostError: a submission template is missing, or would not work.
    """
    if plan.is_empty:
        raise ProjectError("there is nothing to run", hint="everything is up to date")
    name = f"run_{now:%Y%m%d_%H%M%S}_{secrets.token_hex(2)}"
    directory = scheme_dir(project, name)
    scheme = make_linear_scheme(name, [job.node for job in plan.jobs], JobMode.CONTINUE)
    for job in plan.jobs:
        _write_job(project, name, job, parameters, settings)
        if job.continue_of:
            scheme.jobs[job.node] = SchemeJob(job.continue_of, JobMode.CONTINUE, True)
        elif not CATALOGUE[job.job_type].can_continue:
            scheme.jobs[job.node].mode = JobMode.NEW
    write_parameters(directory / PARAMETERS_FILE, parameters)
    write_json(directory / SETTINGS_FILE, settings.model_dump(mode="json"))
    write_json(directory / PLAN_FILE, plan.to_dict())
    _write_driver(project, name, settings.python)
    write_json(
        directory / RECORD_FILE,
        {
            "run": name,
            "created": now.isoformat(timespec="seconds"),
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "versions": {"crboost": __version__, "python": platform.python_version()},
            "engine": settings.engine,
            "scheduler": settings.scheduler.kind,
            "images": _images(project, settings),
            "mode": plan.mode,
            "jobs": [job.node for job in plan.jobs],
            "events": [],
        },
    )
    # Last: a directory with a scheme.star is a run, anything else is debris.
    write_scheme(project, scheme)
    for job in plan.jobs:
        if job.continue_of:
            _reopen(project, name, job, type_as_done(job.node, parameters).relion_type)
    return name


def _write_driver(project: Path, run: str, python: str) -> None:
    snapshot = f"{SCHEMES_DIR}/{run}/{PARAMETERS_FILE}"
    # -P: what lies in the project directory must not pass for a Python package.
    argv = [python, "-P", "-m", "crboost", "job", "run", "--snapshot", snapshot]
    path = project / driver_path(run)
    write_text(path, f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
    path.chmod(0o755)


def _write_job(
    project: Path, run: str, job: PlannedJob, parameters: ProjectParameters, settings: Settings
) -> None:
    inputs = {
        given.relion_field: given.path or f"{SCHEMES_DIR}/{run}/{given.node}/{given.file}"
        for given in job.inputs
    }
    job_type = type_as_done(job.node, parameters)
    directory = scheme_dir(project, run) / job.node
    resources = job_resources(parameters.effective(job.node), job_type, settings)
    array = job_array(parameters.effective(job.node), job_type, settings)
    if array is not None:
        on_gpu = bool(getattr(parameters.effective(job.node).job, "dataset_uses_gpu", False))
        resources = _write_array(project, run, job.node, array, settings, on_gpu=on_gpu)
    write_json(directory / RESOURCES_FILE, resources.to_dict())
    submission = submission_for(
        project,
        run,
        job.node,
        resources,
        settings,
        native=job_type.is_native,
        files=parameters.effective(job.node).files(),
    )
    workers = int(job.resources.get("workers", 1))
    if job_type.is_native:
        options = {**job.options, **inputs}
        if job_type.has_threads:
            options["nr_threads"] = str(workers)
        if job_type.mpi > 1:
            options["nr_mpi"] = str(job_type.mpi)
        made = Job(job_type.relion_type, options | queue_options(submission), is_tomo=True)
    else:
        made = external_job(
            driver_path(run),
            inputs=inputs,
            parameters={"node": job.node, "fingerprint": job.fingerprint},
            nr_threads=workers,
            submission=submission,
        )
    write_job(directory / "job.star", made)


def _write_array(
    project: Path, run: str, node: str, array: ArraySpec, settings: Settings, *, on_gpu: bool
) -> Resources:
    """Write how a job's tilt series become tasks; what the job itself asks for then.

    Args:
        on_gpu: the job itself has work for a GPU, with all tilt series, before the tasks.

    Raises:
        CrboostError: the tasks' template is missing, or would not work.
    """
    from crboost.scheduler.array import coordinator_resources

    tasks = submission_for(project, run, f"{node}.tasks", array.resources, settings, native=False)
    assert tasks is not None
    spec = replace(array, template=tasks.template)
    write_json(scheme_dir(project, run) / node / ARRAY_FILE, spec.to_dict())
    return coordinator_resources(settings.scheduler, array.resources if on_gpu else None)


def submission_for(
    project: Path,
    run: str,
    node: str,
    resources: Resources,
    settings: Settings,
    *,
    native: bool,
    files: Iterable[str] = (),
) -> Submission | None:
    """Write what a job is submitted by; None where jobs run on this machine.

    Args:
        native: RELION's own job, in whose container the whole command runs.
        files: what its parameters name.
    """
    if settings.scheduler.kind == "local":
        return None
    from crboost.scheduler.submission import write_submission

    return write_submission(
        project, scripts_directory(run), node, resources, settings, native=native, files=files
    )


def _reopen(project: Path, run: str, job: PlannedJob, relion_type: str) -> None:
    """Make an existing job run again in place: this run's job.star, no old marker."""
    assert job.continue_of is not None
    directory = project / job.continue_of
    renewed = read_job(scheme_dir(project, run) / job.node / "job.star")
    write_job(directory / "job.star", replace(renewed, is_continue=True))
    for marker in Marker:
        (directory / marker).unlink(missing_ok=True)
    logs = [path for name in ("run.out", "run.err") if (path := directory / name).is_file()]
    write_json(
        scheme_dir(project, run) / job.node / LOG_SIZES_FILE,
        {path.name: path.stat().st_size for path in logs},
    )
    remove_stale_outputs(project, job.continue_of, relion_type)


def queue_options(submission: Submission | None) -> dict[str, str]:
    """The options of a `job.star` by which RELION submits."""
    if submission is None:
        return {"do_queue": "No"}
    return {
        "do_queue": "Yes",
        "qsub": submission.command,
        "qsubscript": submission.template,
        "queuename": submission.queue,
        "min_dedicated": str(submission.min_dedicated),
        **{f"qsub_extra{n}": value for n, value in enumerate(submission.extras, start=1)},
    }


def _images(project: Path, settings: Settings) -> dict[str, str]:
    """The digest of every container image that the run may use."""
    from crboost.containers import image_digest

    cache = project / ".crboost" / "images.json"
    return {
        name: image_digest(tool.image, cache)
        for name, tool in settings.tools.items()
        if tool.image is not None and tool.image.exists()
    }
