"""What every job type's model has, and what the models share."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeVar

from crboost.parameters.acquisition import Acquisition
from crboost.parameters.base import ParameterModel, field

T = TypeVar("T")

PIXEL_SIZE = "microscope.pixel_size_angstrom"
BINNING = "acquisition.reconstruction_binning"


Tool = Literal[
    "cpu", "warp", "aretomo2", "aretomo3", "imod", "cryocare", "pytom", "membrain", "relion"
]
"""What can do a job; each job type says which of them can do it."""


class JobParameters(ParameterModel):
    """What every job type has.

    `uses` names the global parameters that its result depends on, apart from those that its
    fields follow. `yields_to_mdoc` names those among them whose value, unless the user set it,
    gives way to what each tilt series' own mdoc says: there the result depends on who set it.
    """

    job_type: ClassVar[str] = ""
    uses: ClassVar[frozenset[str]] = frozenset()
    yields_to_mdoc: ClassVar[frozenset[str]] = frozenset()

    tool: Tool = field(
        "cpu", title="Tool", description="The program that does the work; cpu is built in."
    )

    @property
    def method(self) -> str | None:
        """Which of its tool's methods the job uses, where the tool has several."""
        return None

    @property
    def image_binning(self) -> float | None:
        """How many times the movies' pixel size its images have; None: it makes no images."""
        return None

    def warnings(self, node: str, acquisition: Acquisition) -> list[str]:
        """What is allowed, but odd with these data; `node` is the job's name."""
        return []


def resolved(value: T | None, name: str) -> T:
    """`value` of a field that follows the project, which must have been filled in.

    Raises:
        ValueError: it has not.
    """
    if value is None:
        raise ValueError(f"{name} still follows the project: take the job from effective(node)")
    return value
