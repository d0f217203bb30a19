"""The job types: what each takes, makes and needs. Data, not code paths.

A job type is described once, here; planner, scheme generator, driver and documentation read it.
Node labels are RELION 5's own (`pipeliner.cpp`, the `LABEL_TOMO_*` family), so that a job which
somebody ran from RELION's GUI counts as a producer, and RELION's jobs can consume ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TOMO_IMPORT = "TomogramGroupMetadata.star.relion.tomo.import"
TOMO_MOTIONCORR = "TomogramGroupMetadata.star.relion.tomo.motioncorr"
TOMO_CTFFIND = "TomogramGroupMetadata.star.relion.tomo.ctffind"
TOMO_ALIGN = "TomogramGroupMetadata.star.relion.tomo.aligntiltseries"
TOMO_RECONSTRUCT = "TomogramGroupMetadata.star.relion.tomo.reconstruct"


@dataclass(frozen=True)
class InputSlot:
    """What one input of a job accepts.

    Attributes:
        name: the slot's name in plans and messages.
        accepts: node labels, the preferred one first.
        relion_field: the option of a `relion.external` job that carries the path.
        relion_argument: what RELION calls it on the job's command line.
    """

    name: str
    accepts: tuple[str, ...]
    relion_field: str = "in_mic"
    relion_argument: str = "--in_mics"


@dataclass(frozen=True)
class OutputNode:
    """A file that a successful job leaves in its directory, and its node label."""

    file: str
    label: str


@dataclass(frozen=True)
class JobType:
    """One kind of job.

    Attributes:
        name: the key in the parameters and the default node name in schemes.
        title: for people.
        summary: one sentence on what it does.
        inputs, outputs: see there.
        parallel_over: whether the driver gives its workers to one tilt series after another
            ("tilts": the tool itself uses them) or runs several tilt series at once ("series").
        retries: how often a run tries the job again after a failure that a retry can mend.
    """

    name: str
    title: str
    summary: str
    inputs: tuple[InputSlot, ...]
    outputs: tuple[OutputNode, ...]
    parallel_over: Literal["tilts", "series"] = "series"
    retries: int = 1

    @property
    def main_output(self) -> OutputNode:
        """The tilt-series STAR that later jobs read."""
        return self.outputs[0]


IMPORT_MOVIES = JobType(
    name="importmovies",
    title="Import movies",
    summary="Reads the mdocs and matches them with the movies.",
    inputs=(),
    outputs=(OutputNode("tilt_series.star", TOMO_IMPORT),),
)
FS_MOTION_AND_CTF = JobType(
    name="fsMotionAndCtf",
    title="Frame motion and CTF",
    summary="Corrects beam-induced motion, sums the frames, fits the CTF of every tilt image.",
    inputs=(InputSlot("tilt_series", (TOMO_IMPORT,)),),
    outputs=(OutputNode("tilt_series_ctf.star", TOMO_CTFFIND),),
    parallel_over="tilts",
)
TS_ALIGNMENT = JobType(
    name="tsAlignment",
    title="Tilt-series alignment",
    summary="Finds the shift of every tilt image and the tilt axis.",
    inputs=(InputSlot("tilt_series", (TOMO_CTFFIND,)),),
    outputs=(OutputNode("aligned_tilt_series.star", TOMO_ALIGN),),
)
TS_RECONSTRUCT = JobType(
    name="tsReconstruct",
    title="Tomogram reconstruction",
    summary="Reconstructs a tomogram, and its two halves, from every aligned tilt series.",
    inputs=(InputSlot("tilt_series", (TOMO_ALIGN,)),),
    outputs=(OutputNode("tomograms.star", TOMO_RECONSTRUCT),),
)

#: Every job type by name, in the order in which they follow each other.
CATALOGUE: dict[str, JobType] = {
    job_type.name: job_type
    for job_type in (IMPORT_MOVIES, FS_MOTION_AND_CTF, TS_ALIGNMENT, TS_RECONSTRUCT)
}


def producers_of(label: str) -> list[str]:
    """Names of the job types that make a node with this label."""
    return [
        name
        for name, job_type in CATALOGUE.items()
        if any(output.label == label for output in job_type.outputs)
    ]
