"""What one job asks the scheduler for: from the site's settings, its type and its parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crboost.catalogue import CATALOGUE, Needs
from crboost.errors import ParameterError
from crboost.failure import FailureKind
from crboost.settings import ResourceRequest, SchedulerKind, SchedulerSettings

if TYPE_CHECKING:
    from crboost.parameters.computing import Computing

#: The fields that crboost fills itself; any other comes from `site` in the settings.
FIELDS = (
    "partition",
    "constraint",
    "nodes",
    "ntasks",
    "cpus",
    "gpus",
    "gres",
    "mem",
    "mem_per_cpu",
    "time",
)

#: What RELION asks for in its GUI.
LABELS: Mapping[str, str] = {
    "partition": "Partition",
    "constraint": "Constraint",
    "nodes": "Number of nodes",
    "ntasks": "Number of tasks",
    "cpus": "CPUs per task",
    "gpus": "GPUs per node",
    "gres": "Generic resources",
    "mem": "Memory per node",
    "mem_per_cpu": "Memory per CPU",
    "time": "Time limit",
}

# How the schedulers write a size in gigabytes.
_GIGABYTES: Mapping[SchedulerKind, str] = {
    "local": "G",
    "slurm": "G",
    "pbs": "gb",
    "sge": "G",
    "lsf": "GB",
}

# The field of the computing parameters behind each resource.
_FROM_COMPUTING = {
    "cpus": "threads",
    "memory_gb": "memory_gb",
    "gpus": "gpu_count",
    "partition": "partition",
}


@dataclass(frozen=True)
class Resources:
    """What one job asks for.

    Attributes:
        cpus: of each task.
        memory_gb: of each node, GB.
        time_limit_minutes: None: the partition's own limit.
        gpus: of each node.
        partition: None: the scheduler's own default.
        tasks: MPI processes.
        extra: the site's own fields.
    """

    cpus: int = 1
    memory_gb: int | None = None
    time_limit_minutes: int | None = None
    gpus: int = 0
    partition: str | None = None
    nodes: int = 1
    tasks: int = 1
    constraint: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a plan or a record."""
        return {
            "cpus": self.cpus,
            "memory_gb": self.memory_gb,
            "time_limit_minutes": self.time_limit_minutes,
            "gpus": self.gpus,
            "partition": self.partition,
            "nodes": self.nodes,
            "tasks": self.tasks,
            "constraint": self.constraint,
            "extra": dict(self.extra),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Resources:
        """The inverse of `to_dict`."""
        return cls(**values)


def resources_for(
    job_type: str,
    computing: Computing,
    scheduler: SchedulerSettings,
    *,
    uses_gpu: bool = False,
    tasks: int = 1,
    explicit: Collection[str] | None = None,
    one_series: bool = False,
) -> Resources:
    """What a job of this type asks for.

    What the job type needs comes first, then the site's defaults, its defaults for jobs with GPUs,
    its values for the job type, and last what the user has set.

    Args:
        computing: the job's computing parameters.
        uses_gpu: whether its tool can use a GPU; others get none.
        tasks: MPI processes.
        explicit: names of computing parameters that were set by the user; default: those that
            differ from their default.
        one_series: what a task asks for that does one tilt series.
    """
    given = {name: getattr(computing, name) for name in _FROM_COMPUTING.values()}
    if explicit is None:
        facts = type(computing).model_fields
        explicit = {name for name, value in given.items() if value != facts[name].default}
    needs = Needs()
    if job_type in CATALOGUE:
        needs = CATALOGUE[job_type].needs_of(uses_gpu=uses_gpu and computing.gpu_count > 0)
    values: dict[str, Any] = {
        "cpus": needs.cpus,
        "memory_gb": needs.memory_gb,
        "time_limit_minutes": needs.time_limit_minutes(one_series=one_series),
        "gpus": computing.gpu_count,
        "partition": computing.partition,
        "tasks": tasks,
    }
    site: dict[str, str] = {}
    users = {to: given[name] for to, name in _FROM_COMPUTING.items() if name in explicit}
    for request in request_layers(job_type, scheduler, uses_gpu):
        said = request.model_dump(exclude_none=True, exclude={"site", "array", "per_gpu"})
        values |= said
        site |= request.site
    values |= {name: value for name, value in users.items() if value is not None}
    if not uses_gpu:
        values["gpus"] = 0
    return Resources(**values, extra=site)


def request_layers(
    job_type: str, scheduler: SchedulerSettings, uses_gpu: bool
) -> list[ResourceRequest]:
    """What the site says of a job type, the most special last."""
    layers = [scheduler.defaults]
    if uses_gpu:
        layers.append(scheduler.gpu_defaults)
    # Environment variables have no upper and lower case in their names.
    layers += [said for name, said in scheduler.jobs.items() if name.lower() == job_type.lower()]
    return layers


def per_gpu(job_type: str, scheduler: SchedulerSettings) -> int:
    """How many tilt series the site lets share one GPU in a job of this type."""
    said = [
        request.per_gpu
        for request in request_layers(job_type, scheduler, uses_gpu=True)
        if request.per_gpu is not None
    ]
    return said[-1] if said else 1


def field_value(name: str, resources: Resources, scheduler: SchedulerSettings) -> str:
    """What a field of a submission template becomes; empty: the job does not ask for it.

    Raises:
        ParameterError: the field is neither crboost's nor the site's.
    """
    unit = _GIGABYTES[scheduler.kind]
    memory = resources.memory_gb
    minutes = resources.time_limit_minutes
    all_cpus = resources.cpus * resources.tasks
    values = {
        "partition": resources.partition or "",
        "constraint": resources.constraint or "",
        "nodes": str(resources.nodes),
        "ntasks": str(resources.tasks),
        "cpus": str(resources.cpus),
        # PBS counts GPUs inside a longer expression, where none is 0.
        "gpus": str(resources.gpus or ("0" if scheduler.kind == "pbs" else "")),
        "gres": scheduler.gpu_resource.format(gpus=resources.gpus) if resources.gpus else "",
        "mem": f"{memory}{unit}" if memory else "",
        "mem_per_cpu": f"{_megabytes(memory, all_cpus, resources.nodes)}M" if memory else "",
        "time": _clock(minutes, scheduler.kind) if minutes else "",
    }
    if name in values:
        return values[name]
    if name in resources.extra:
        return resources.extra[name]
    if name in _site_fields(scheduler):
        return ""
    raise ParameterError(
        f"scheduler.extra names {name!r}, which is no field of a job",
        hint=f"use {', '.join(FIELDS)}, or give it a value in scheduler.defaults.site",
    )


def _megabytes(memory_gb: int, cpus: int, nodes: int) -> int:
    return -(-memory_gb * nodes * 1024 // cpus)


def _clock(minutes: int, kind: SchedulerKind) -> str:
    hours, rest = divmod(minutes, 60)
    return f"{hours}:{rest:02d}" if kind == "lsf" else f"{hours:02d}:{rest:02d}:00"


def _site_fields(scheduler: SchedulerSettings) -> set[str]:
    requests = [scheduler.defaults, scheduler.gpu_defaults, *scheduler.jobs.values()]
    return {name for request in requests for name in request.site}


def extra_values(resources: Resources, scheduler: SchedulerSettings) -> list[str]:
    """The values of XXXextra1XXX, XXXextra2XXX, ... of a job, in the order of the settings."""
    return [field_value(name, resources, scheduler) for name in scheduler.fields]


def extra_labels(scheduler: SchedulerSettings) -> list[str]:
    """What RELION's GUI calls XXXextra1XXX, XXXextra2XXX, ...; for RELION_QSUB_EXTRAn."""
    return [LABELS.get(name, name) for name in scheduler.fields]


def with_more(
    resources: Resources, failure: FailureKind, scheduler: SchedulerSettings
) -> tuple[Resources, str] | None:
    """Resources for another try after a failure, and what was changed.

    Returns:
        None where more would not help, or the site allows no more.
    """
    if failure == "out_of_memory" and resources.memory_gb:
        memory = min(2 * resources.memory_gb, scheduler.max_memory_gb)
        if memory > resources.memory_gb:
            return (
                replace(resources, memory_gb=memory),
                f"memory {resources.memory_gb} -> {memory} GB",
            )
    if failure == "time_limit" and resources.time_limit_minutes:
        minutes = min(2 * resources.time_limit_minutes, scheduler.max_time_limit_minutes)
        if minutes > resources.time_limit_minutes:
            return (
                replace(resources, time_limit_minutes=minutes),
                f"time limit {resources.time_limit_minutes} -> {minutes} minutes",
            )
    return None
