"""What a job may use of the machine. Nothing here changes a result."""

from __future__ import annotations

from crboost.parameters.base import ParameterModel, field


class Computing(ParameterModel):
    """Resources of one job, where nothing more special is said."""

    workers: int | None = field(
        None,
        title="Worker processes",
        description="Processes that a CPU tool starts on one node; None: one for each CPU.",
        ge=1,
        le=1024,
        resource=True,
    )
    threads: int = field(
        8,
        title="Threads",
        description="CPU threads to ask the scheduler for. Counts once it is set: until then the "
        "site decides, else the job type.",
        ge=1,
        le=128,
        resource=True,
    )
    memory_gb: int = field(
        32,
        title="Memory",
        description="Memory to ask the scheduler for. Counts once it is set: until then the site "
        "decides, else the job type.",
        unit="GB",
        ge=4,
        le=512,
        resource=True,
    )
    gpu_count: int = field(
        1,
        title="GPUs",
        description="GPUs to ask the scheduler for, for tools that use any.",
        ge=0,
        le=8,
        resource=True,
    )
    partition: str | None = field(
        None,
        title="Partition",
        description="Partition or queue to submit to; None: the scheduler's own default.",
        resource=True,
    )
