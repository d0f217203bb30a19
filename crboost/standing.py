"""How a project stands: the newest job of each stage, tilt series by stage, what failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crboost.catalogue import CATALOGUE, label_matches
from crboost.history import PastJob

NOT_YET = "-"


def latest(history: Sequence[PastJob]) -> dict[str, PastJob]:
    """The newest job of each node, however it ended, in the order of the work.

    Jobs that somebody ran from RELION's GUI stand under the name of their type; those of types
    that crboost never starts count where they made something that it works on.
    """
    newest: dict[str, PastJob] = {}
    for past in sorted(history, key=lambda one: one.number):
        if rank_of(past) is not None:
            newest[title_of(past)] = past
    return dict(sorted(newest.items(), key=lambda item: (rank_of(item[1]) or 0, item[0])))


def rank_of(past: PastJob) -> int | None:
    """A job's place in the catalogue's order; None where it has none."""
    for position, (name, job_type) in enumerate(CATALOGUE.items()):
        made = job_type.main_output.label
        if past.job_type == name or (
            past.job_type is None and any(label_matches(label, made) for _, label in past.outputs)
        ):
            return position
    return None


def title_of(past: PastJob) -> str:
    """What people call a job: its node, its type's name, or RELION's name of its type."""
    return past.node or past.job_type or past.relion_type


def state_of(job: PastJob) -> str:
    """The ledger's status in words; a job that is Running without a process is not."""
    if job.status in ("Running", "Scheduled") and not job.alive:
        return "waiting" if job.status == "Scheduled" else "interrupted"
    return job.status.lower()


def counts(job: PastJob) -> str:
    """`2 done, 1 failed`."""
    states = [record.status for record in job.series.values()]
    words = [f"{states.count(word)} {word}" for word in ("done", "failed", "skipped")]
    return ", ".join(word for word in words if not word.startswith("0 ")) or NOT_YET


def series_by_stage(stages: Mapping[str, PastJob]) -> dict[str, dict[str, str]]:
    """Tilt series -> stage -> done, failed, skipped or `-`.

    Of RELION's own jobs those are done that their output names; a job that tells nothing of tilt
    series has no column.
    """
    stages = {stage: job for stage, job in stages.items() if job.series}
    names = sorted({name for job in stages.values() for name in job.series})
    return {
        name: {
            stage: job.series[name].status if name in job.series else NOT_YET
            for stage, job in stages.items()
        }
        for name in names
    }


def failures(stages: Mapping[str, PastJob]) -> list[str]:
    """One line for each job and each tilt series that failed."""
    lines = []
    for stage, job in stages.items():
        if job.failure:
            lines.append(f"{stage} ({job.name}): {job.failure}")
        lines += [f"{name} in {stage}: {reason}" for name, reason in job.failed_series.items()]
    return lines


def failed_series(stages: Mapping[str, PastJob]) -> dict[str, str]:
    """Tilt series that failed in the newest job of a stage -> stage and reason of the last one."""
    return {
        name: f"{stage}: {reason}"
        for stage, job in stages.items()
        for name, reason in job.failed_series.items()
    }
