"""A few small jobs, run as a run's jobs are: schemer, container, template, scheduler, compute node.

They run in a project of their own, a directory below the one that is looked at, which is removed
again unless something failed.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from crboost.doctor.node import LOCK, REPORT, SETTINGS
from crboost.doctor.requests import requests
from crboost.errors import CrboostError
from crboost.files import read_json, write_json, write_text
from crboost.job_directory import tail
from crboost.parameters import ProjectParameters, write_parameters
from crboost.relion.job import Submission, external_job, write_job
from crboost.relion.markers import Marker, read_marker, write_marker
from crboost.relion.scheme import JobMode, make_linear_scheme, read_scheme, scheme_dir, write_scheme
from crboost.scheduler.outcome import cancel, state_of_job
from crboost.scheduler.resources import Resources
from crboost.scheduler.submission import write_submission
from crboost.settings import Settings

PREFIX = "crboost-doctor-"
SCHEME = "doctor"
SCRIPTS = ".crboost/doctor"
LOG = "schemer.log"
DRIVER, NATIVE, GPU = "driver", "relion", "gpu"
#: What a job asks for at most.
MOST = Resources(cpus=1, memory_gb=1, time_limit_minutes=5)
#: A file made elsewhere may take so long to be seen here.
APPEARS_S = 15.0

#: The second job's command runs in RELION's container, where there may be no Python.
_NATIVE_SCRIPT = """\
#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --o) job=$2; shift ;; esac; shift; done
{ uname -n; relion_refine --version; } >"${job}answer" 2>&1 || exit 1
: >"${job}RELION_JOB_EXIT_SUCCESS"
"""
#: The third asks for a GPU.
_GPU_SCRIPT = """\
#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --o) job=$2; shift ;; esac; shift; done
{
  uname -n
  echo "${CUDA_VISIBLE_DEVICES-}${ROCR_VISIBLE_DEVICES-}${GPU_DEVICE_ORDINAL-}"
  nvidia-smi -L || rocm-smi --showproductname
} >"${job}answer" 2>&1
: >"${job}RELION_JOB_EXIT_SUCCESS"
"""


@dataclass(frozen=True)
class TrialJob:
    """What became of one of the jobs.

    Attributes:
        marker: how it says that it ended; None: it did not.
        report: of the first job, what it saw on its node; of the second, its answer.
        said: the end of run.err and, where the scheduler has a word, that.
        waits: why it has not started, where the scheduler says so.
        for_somebody: it will never start unless somebody does something.
    """

    node: str
    marker: Marker | None
    report: Mapping[str, Any] | None = None
    said: str = ""
    waits: str = ""
    for_somebody: bool = False


@dataclass(frozen=True)
class TrialFacts:
    """What became of the trial.

    Attributes:
        directory: where it ran.
        problem: why it could not be started.
        schemer: the end of what the schemer wrote.
        earliest, latest: when the first job was started here, and when its report was read.
        user: who runs doctor.
    """

    directory: Path
    jobs: Sequence[TrialJob] = ()
    problem: str = ""
    schemer: str = ""
    earliest: float = 0.0
    latest: float = 0.0
    user: int = 0


def run_trial(settings: Settings, parent: Path, *, timeout_s: float) -> TrialFacts:
    """Run the jobs in a new directory below `parent`, and remove it when all went well."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        return TrialFacts(parent, problem=f"{parent}: {error.strerror}")
    directory.chmod(0o755)
    started = time.time()
    try:
        nodes = prepare(settings, directory)
        with (directory / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waits = _run_schemer(directory, settings, timeout_s)
        jobs = [_look_at(directory, node, waits) for node in nodes]
    except (CrboostError, OSError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        return TrialFacts(parent, problem=str(error))
    facts = TrialFacts(
        directory,
        jobs,
        schemer=_schemer_said(directory),
        earliest=started,
        latest=time.time(),
        user=os.getuid(),
    )
    cancelled = any(job.waits for job in jobs)
    # Otherwise it is kept, for its logs.
    if cancelled or all(job.marker is Marker.SUCCESS for job in jobs):
        shutil.rmtree(directory, ignore_errors=True)
    return facts


def prepare(settings: Settings, directory: Path) -> list[str]:
    """Write the project and its scheme; the names of the jobs in it."""
    write_parameters(
        directory / "project_params.json",
        ProjectParameters(project_name="crboost doctor", created=datetime.now().astimezone()),
    )
    write_json(directory / SETTINGS, settings.model_dump(mode="json"))
    probe = shlex.join([settings.python, "-P", "-m", "crboost.doctor.node"])
    scripts = {DRIVER: f'#!/bin/sh\nexec {probe} "$@"\n'}
    if settings.scheduler.kind != "local" and "relion" in settings.tools:
        scripts[NATIVE] = _NATIVE_SCRIPT
    every = [request.resources for request in requests(settings.scheduler)]
    resources = dict.fromkeys(scripts, small(every[0]))
    with_gpus = [one for one in every if one.gpus]
    if settings.scheduler.kind != "local" and with_gpus:
        scripts[GPU] = _GPU_SCRIPT
        resources[GPU] = replace(small(with_gpus[0]), gpus=1)
    for node, script in scripts.items():
        path = f"{SCRIPTS}/{node}"
        write_text(directory / path, script)
        (directory / path).chmod(0o755)
        submission: Submission | None = write_submission(
            directory, SCRIPTS, node, resources[node], settings, native=node == NATIVE
        )
        job = external_job(path, submission=submission)
        write_job(scheme_dir(directory, SCHEME) / node / "job.star", job)
    write_scheme(directory, make_linear_scheme(SCHEME, list(scripts), JobMode.CONTINUE))
    return list(scripts)


def small(resources: Resources) -> Resources:
    """The same place in the cluster, as little of it as will do."""
    return replace(
        resources,
        cpus=MOST.cpus,
        tasks=1,
        nodes=1,
        memory_gb=MOST.memory_gb,
        time_limit_minutes=MOST.time_limit_minutes,
        gpus=0,
    )


def _run_schemer(directory: Path, settings: Settings, timeout_s: float) -> str:
    """Run the scheme to its end; what a job that did not start in time waits for."""
    argv = [sys.executable, "-P", "-m", "crboost", "schemer", "run", str(directory), SCHEME]
    with (directory / LOG).open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        process.wait(timeout_s)
        return ""
    except subprocess.TimeoutExpired:
        return _give_up(directory, settings)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _give_up(directory: Path, settings: Settings) -> str:
    """Take the current job out of the scheduler; what it was waiting for."""
    scheme = read_scheme(directory, SCHEME)
    entry = scheme.jobs.get(scheme.current_node)
    if entry is None or not entry.has_started or settings.scheduler.kind != "slurm":
        return "it did not end in time"
    job_dir = directory / entry.current_name
    state = state_of_job(job_dir)
    cancel(job_dir)
    if job_dir.is_dir() and read_marker(job_dir) is None:
        write_marker(job_dir, Marker.ABORTED)
    if state is None:
        return "it did not end in time"
    for_somebody = "!" if state.waits_for_somebody else ""
    return f"{for_somebody}{state.message or state.state}"


def _look_at(directory: Path, node: str, waits: str) -> TrialJob:
    entry = read_scheme(directory, SCHEME).jobs[node]
    job_dir = directory / entry.current_name
    if not entry.has_started or not job_dir.is_dir() or entry.current_name == node:
        return TrialJob(node, None)
    marker = read_marker(job_dir)
    if marker is Marker.SUCCESS:
        return TrialJob(node, marker, _report(job_dir / REPORT, job_dir / "answer"))
    said = tail(job_dir / "run.err", lines=3).strip()
    if marker is Marker.ABORTED and waits:
        return TrialJob(node, marker, None, said, waits.lstrip("!"), waits.startswith("!"))
    return TrialJob(node, marker, None, said)


def _report(report: Path, answer: Path) -> dict[str, Any]:
    """What the job wrote, once this machine sees it."""
    deadline = time.monotonic() + APPEARS_S
    while time.monotonic() < deadline:
        if report.is_file():
            found: dict[str, Any] = read_json(report)
            return found
        if answer.is_file():
            return {"answer": answer.read_text(errors="replace")}
        time.sleep(0.2)
    return {}


def _schemer_said(directory: Path) -> str:
    """Its own errors, or why it did not even begin."""
    own = tail(scheme_dir(directory, SCHEME) / "schemer.err", lines=3).strip()
    return own or tail(directory / LOG, lines=3).strip()
