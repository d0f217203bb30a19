"""What a stage is: one job type done with one tool, as the driver sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crboost.builders.step import Step
from crboost.parameters import EffectiveParameters
from crboost.translate.output import SeriesOutput
from crboost.translate.tables import Row


@dataclass(frozen=True)
class SeriesInput:
    """One tilt series as a job finds it.

    Attributes:
        fingerprint: of what the series' result will depend on, parameters aside.
        global_row: its row in the input's global table.
        rows: its tilt images.
        problem: why it cannot be used at all; its result is then `failed`.
        source: what the stage itself wants to remember between `inputs` and `output`.
    """

    name: str
    fingerprint: str
    global_row: Row
    rows: list[Row]
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    source: Any = None


@dataclass(frozen=True)
class Context:
    """What a stage may know of its job.

    Attributes:
        project: the project directory, absolute.
        job: the job's directory, project-relative, without trailing slash.
        input_star: the input's global table, project-relative; None for the import.
        python: interpreter for the embedded tools.
        workers: processes that one tilt series may use.
    """

    project: Path
    job: str
    parameters: EffectiveParameters
    input_star: str | None
    python: str
    workers: int

    def tool_directory(self, series: str) -> str:
        """Where the tool works on one tilt series, project-relative."""
        return f"{self.job}/{self.parameters.job.tool}/{series}"


class Stage(Protocol):
    """One job type done with one tool."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """All tilt series that the job finds, in order."""
        ...

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """The commands for one tilt series, in order. Pure."""
        ...

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Read what the commands left and turn it into RELION rows."""
        ...
