"""By how much the images are binned that a job works on. Pure.

The movies' pixel size and frame size are parameters; those of the images follow from the job that
made them. Which one that is, the plan knows (`crboost.images`); parameters alone must go by rank.
"""

from __future__ import annotations

from collections.abc import Mapping

from crboost.catalogue import CATALOGUE
from crboost.parameters.job_base import JobParameters


def image_binning(jobs: Mapping[str, JobParameters], node: str, job: JobParameters) -> float:
    """How many times the movies' pixel size the images have that a node takes, by rank.

    As in a plan, a job of the same instance counts (`motionCorr__2` for `ctfFind__2`), and of
    several the later one in the catalogue.

    Args:
        jobs: the parameters of a project's jobs.
        node: the job that asks.
        job: its parameters.

    Returns:
        1 for what takes movies.
    """
    order = {name: rank for rank, name in enumerate(CATALOGUE)}
    own_type, _, instance = node.partition("__")
    if job.image_binning is not None:
        return 1.0
    makers = [
        (name, binning)
        for name, other in jobs.items()
        if (binning := other.image_binning) is not None
        and order[name.partition("__")[0]] < order[own_type]
    ]

    def rank(maker: tuple[str, float]) -> tuple[bool, int]:
        name, _, number = maker[0].partition("__")
        return number != instance, -order[name]

    return min(makers, key=rank)[1] if makers else 1.0
