"""Tilt series as tasks of a Slurm job array: which jobs do that, how many at once, what is alive.

One RELION job is then a *coordinator*, which asks for little and only waits, and *tasks*, each with
one tilt series (or a few that share a GPU), which ask for what the tool needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.cluster import limits
from crboost.scheduler.resources import Resources, per_gpu, request_layers
from crboost.scheduler.slurm_text import parse_squeue
from crboost.scheduler.state import JobState, array_states
from crboost.settings import ResourceRequest, SchedulerSettings

T = TypeVar("T")

#: Slurm's own default, where the controller does not tell its limit.
USUAL_MAX_ARRAY_SIZE = 1001

#: With `parse_squeue`'s eleven columns; jobs that are over are not shown.
_SQUEUE_FORMAT = "%i|%A|%F|%K|%T|%r|%M|%l|%P|%N|%j"
_ENDING = frozenset({"COMPLETING", "STAGE_OUT", "UPDATE_DB"})


@dataclass(frozen=True)
class ArraySpec:
    """How a job's tilt series become tasks.

    Attributes:
        throttle: tasks at the same time.
        per_task: tilt series side by side in one task.
        workers: processes that one task may use.
        resources: of one task.
        template: submission template of the tasks, project-relative.
    """

    throttle: int
    per_task: int
    workers: int
    resources: Resources
    template: str = ""

    @property
    def words(self) -> str:
        """For a plan: `20 tasks at once`."""
        several = f" of {self.per_task} tilt series" if self.per_task > 1 else ""
        return f"{self.throttle} tasks{several} at once"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "throttle": self.throttle,
            "per_task": self.per_task,
            "workers": self.workers,
            "resources": self.resources.to_dict(),
            "template": self.template,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ArraySpec:
        """The inverse of `to_dict`."""
        return cls(**{**values, "resources": Resources.from_dict(values["resources"])})


# --- deciding ------------------------------------------------------------------------------------


def uses_array(job_type: str, scheduler: SchedulerSettings, *, uses_gpu: bool, asked: bool) -> bool:
    """Whether a job's tilt series become tasks.

    Args:
        asked: the user has set the job's array limit.
    """
    if scheduler.kind != "slurm" or scheduler.array is False:
        return False
    said = [
        request.array
        for request in request_layers(job_type, scheduler, uses_gpu)
        if request.array is not None
    ]
    return said[-1] if said else scheduler.array is True or asked


def task_spec(
    job_type: str,
    scheduler: SchedulerSettings,
    resources: Resources,
    *,
    throttle: int,
    workers: int | None,
) -> ArraySpec:
    """What the tasks of a job are like.

    Args:
        resources: what the job would ask for if it worked by itself: that, with one GPU at most,
            is what a task asks for.
        workers: processes that the user wants; None: one for each CPU.
    """
    task = replace(resources, gpus=min(1, resources.gpus))
    per_task = per_gpu(job_type, scheduler) if task.gpus else 1
    return ArraySpec(throttle, per_task, workers or task.cpus, task)


def coordinator_resources(
    scheduler: SchedulerSettings, on_gpu: Resources | None = None
) -> Resources:
    """What the job asks for that submits an array and waits for it.

    One CPU and 2 GB, where and for as long as other jobs run, unless `scheduler.coordinator` says
    otherwise.

    Args:
        on_gpu: what a task asks for, if the coordinator has work of the same kind to do before:
            then it asks for that, where tasks run, for at least as long as the others.
    """
    base = ResourceRequest(
        partition=scheduler.defaults.partition,
        constraint=scheduler.defaults.constraint,
        time_limit_minutes=scheduler.defaults.time_limit_minutes,
        cpus=1,
        memory_gb=2,
    )
    values: dict[str, Any] = {}
    for request in (base, scheduler.coordinator):
        values |= request.model_dump(exclude_none=True, exclude={"site", "array", "per_gpu"})
    site = {**scheduler.defaults.site, **scheduler.coordinator.site}
    asked = Resources(**{**values, "gpus": values.get("gpus", 0) if on_gpu else 0}, extra=site)
    if on_gpu is None:
        return asked
    limits_ = (asked.time_limit_minutes, on_gpu.time_limit_minutes)
    return replace(
        on_gpu,
        cpus=max(asked.cpus, on_gpu.cpus),
        memory_gb=max(asked.memory_gb or 0, on_gpu.memory_gb or 0),
        gpus=max(asked.gpus, on_gpu.gpus),
        time_limit_minutes=max((one for one in limits_ if one is not None), default=None),
        extra={**on_gpu.extra, **scheduler.coordinator.site},
    )


def slices(tasks: Sequence[T], max_array_size: int) -> list[list[T]]:
    """The tasks in arrays that a site with this MaxArraySize takes: their numbers lie below it."""
    size = max(1, max_array_size)
    return [list(tasks[start : start + size]) for start in range(0, len(tasks), size)]


def array_directive(count: int, throttle: int) -> str:
    """The line of a submission script that makes it an array of `count` tasks."""
    return f"#SBATCH --array=0-{count - 1}%{throttle}"


def task_numbers(text: str) -> set[int]:
    """The tasks in what Slurm prints for some that wait: `5-7,9,11-15:2%4`.

    Slurm cuts long lists short (`1,3,5,...`); what is left then is every number that it names.
    """
    found: set[int] = set()
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if match:
            first, last, step = match.groups()
            found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


# --- asking --------------------------------------------------------------------------------------


def max_array_size(ask: Ask = ask_slurm) -> int:
    """How many tasks one array may have at this site."""
    found = limits(ask)
    return found.max_array_size if found is not None else USUAL_MAX_ARRAY_SIZE


@dataclass(frozen=True)
class Queue:
    """What of an array waits or runs.

    Attributes:
        waiting, running: numbers of tasks.
        reason: why the first of those that wait does.
    """

    waiting: frozenset[int]
    running: frozenset[int]
    reason: str = ""

    @property
    def alive(self) -> frozenset[int]:
        """Every task that is not over."""
        return self.waiting | self.running


def array_queue(job_id: str, ask: Ask = ask_slurm) -> Queue | None:
    """What of an array waits or runs; None if Slurm does not tell, which is no end of anything."""
    answer = ask(["squeue", "--noheader", f"--jobs={job_id}", f"--format={_SQUEUE_FORMAT}"])
    if answer.code != 0:
        gone = "Invalid job id specified" in answer.err + answer.out
        return Queue(frozenset(), frozenset()) if gone else None
    waiting: set[int] = set()
    running: set[int] = set()
    reason = ""
    for record in parse_squeue(answer.out):
        if job_id not in (record.array_id, record.raw_id) or record.state in _ENDING:
            continue
        if record.state == "PENDING":
            waiting |= task_numbers(record.task)
            reason = reason or record.reason
        else:
            running |= task_numbers(record.task)
    return Queue(frozenset(waiting), frozenset(running), reason)


def group_state(job_id: str, task: int, ask: Ask = ask_slurm) -> JobState | None:
    """Where a task stands that never started: Slurm has but one record for all of these.

    None if it has none of this task.
    """
    states = array_states(job_id, ask)
    return next((state for text, state in states.items() if task in task_numbers(text)), None)


def cancel_tasks(job_id: str, tasks: Iterable[int] | None = None, ask: Ask = ask_slurm) -> None:
    """Take an array, or some of its tasks, out of Slurm."""
    names = [job_id] if tasks is None else [f"{job_id}_{task}" for task in sorted(tasks)]
    if names:
        ask(["scancel", "--quiet", *names])
