"""What the models of jobs share that work on one tilt series after another."""

from __future__ import annotations

import shlex

from pydantic import field_validator

from crboost.parameters.base import field
from crboost.parameters.job_base import JobParameters

#: Tools whose programs compute on a GPU.
GPU_TOOLS = frozenset({"warp", "aretomo2", "aretomo3"})


class PerTiltSeries(JobParameters):
    """A job that works on each tilt series by itself, as another job left it."""

    input_tilt_series: str | None = field(
        None,
        title="Input",
        description="Tilt-series STAR file to work on, relative to the project; None: the newest "
        "one that fits.",
        file=True,
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
    def use_gpu(self) -> bool:
        """Whether the job asks for a GPU."""
        return self.tool in GPU_TOOLS


class WarpArguments(PerTiltSeries):
    """A job that WarpTools can do, with whatever its command takes besides our parameters."""

    warp_arguments: str = field(
        "",
        title="Further WarpTools options",
        description='Options of the WarpTools command as on a command line, "--max_tilt 60"; '
        "checked before anything runs.",
        tools=["warp"],
    )

    @field_validator("warp_arguments")
    @classmethod
    def _can_be_split(cls, value: str) -> str:
        try:
            return shlex.join(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"cannot be split: {error}") from None

    @property
    def further_arguments(self) -> tuple[str, ...]:
        """`warp_arguments` as words; no shell ever sees them."""
        return tuple(shlex.split(self.warp_arguments))
