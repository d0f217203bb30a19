"""Parameters of the tilt filter."""

from __future__ import annotations

import shlex
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from crboost.parameters.base import SchemaKeywords, field
from crboost.parameters.job_base import JobParameters


def _command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"must be a command line: {error}") from None
    if not words:
        raise ValueError("must be a command line, or none")
    return text.strip()


CommandLine = Annotated[str, AfterValidator(_command), SchemaKeywords(pattern=r"\S")]


class TiltFilter(JobParameters):
    """Tilt images that would do harm are left out. A rule that is None is not applied."""

    job_type: ClassVar[str] = "tiltFilter"

    tool: Literal["cpu"] = field(
        "cpu", title="Tool", description="The program that does the work; cpu is built in."
    )
    input_tilt_series: str | None = field(
        None,
        title="Input",
        description="Tilt-series STAR file to work on, relative to the project; None: the newest "
        "one that fits.",
        file=True,
    )
    defocus_min_um: float | None = field(
        None,
        title="Least defocus",
        description="Leave out tilts with less defocus (mean of both axes; underfocus positive).",
        unit="µm",
        ge=-5,
        le=30,
    )
    defocus_max_um: float | None = field(
        None,
        title="Most defocus",
        description="Leave out tilts with more defocus (mean of both axes; underfocus positive).",
        unit="µm",
        ge=-5,
        le=30,
    )
    ctf_resolution_max_angstrom: float | None = field(
        None,
        title="CTF resolution",
        description="Leave out tilts whose CTF fits to a coarser resolution than this only.",
        unit="Å",
        ge=2,
        le=200,
    )
    motion_max_angstrom: float | None = field(
        None,
        title="Motion",
        description="Leave out tilts that moved further during the exposure.",
        unit="Å",
        ge=0,
        le=1000,
    )
    intensity_min_fraction: float | None = field(
        None,
        title="Relative intensity",
        description="Leave out tilts with less than this fraction of the counts that the series "
        "lets expect at their angle.",
        ge=0,
        le=1,
    )
    intensity_min_counts_per_px: float | None = field(
        None,
        title="Intensity",
        description="Leave out tilts with fewer mean counts.",
        unit="counts/px",
        ge=0,
    )
    dose_max_e_per_a2: float | None = field(
        None,
        title="Dose",
        description="Leave out tilts that had seen more dose before their exposure.",
        unit="e/Å²",
        ge=0,
        le=1000,
    )
    tilt_max_deg: float | None = field(
        None,
        title="Tilt angle",
        description="Leave out tilts with a larger nominal angle, to either side.",
        unit="°",
        ge=0,
        le=90,
    )
    min_tilts: int = field(
        5,
        title="Fewest tilts",
        description="A tilt series of which fewer tilts remain is given up.",
        ge=1,
        le=500,
    )
    classifier_command: CommandLine | None = field(
        None,
        title="Classifier",
        description="Command that judges tilt images: it is called with the names of a CSV table "
        "to read and of one to write (docs/tilt-filter.md).",
    )
    classifier_min_probability: float = field(
        0.1,
        title="Classifier's certainty",
        description="A verdict of the classifier that it holds less probable is no verdict.",
        ge=0,
        le=1,
    )
    classifier_unsure: Literal["keep", "reject"] = field(
        "keep",
        title="Without a verdict",
        description="What happens to tilt images on which the classifier has no verdict.",
    )
    array_throttle: int = field(
        20,
        title="Array limit",
        description="Tilt series that a scheduler may run at the same time.",
        ge=1,
        le=64,
        resource=True,
    )

    @property
    def classifier_argv(self) -> tuple[str, ...]:
        """`classifier_command` as words; empty without one."""
        return tuple(shlex.split(self.classifier_command)) if self.classifier_command else ()
