"""What a stage is: one job type done with one tool, as the driver sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from crboost.builders.series_values import TiltSeries
from crboost.builders.step import Step
from crboost.parameters import EffectiveParameters
from crboost.results import SeriesResult
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
        skip: why the job has nothing to do with it; its result is then `skipped`.
        source: what the stage itself wants to remember between `inputs` and `output`.
    """

    name: str
    fingerprint: str
    global_row: Row
    rows: list[Row]
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    skip: str | None = None
    source: Any = None

    @property
    def tilt_series(self) -> TiltSeries:
        """It, as builders take it."""
        return TiltSeries(self.name, self.global_row, self.rows)


@dataclass(frozen=True)
class Context:
    """What a stage may know of its job.

    Attributes:
        project: the project directory, absolute.
        job: the job's directory, project-relative, without trailing slash.
        input_star: the input's global table, project-relative; None for the import.
        python: interpreter for the embedded tools.
        workers: processes that one tilt series may use.
        gpus: GPUs that the commands are shown, numbered from 0 on.
        other_inputs: the job's further inputs: name of the input slot -> project-relative file.
    """

    project: Path
    job: str
    parameters: EffectiveParameters
    input_star: str | None
    python: str
    workers: int
    other_inputs: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0

    def tool_directory(self, series: str) -> str:
        """Where the tool works on one tilt series, project-relative."""
        return f"{self.job}/{self.parameters.job.tool}/{series}"


@dataclass(frozen=True)
class DatasetOutput:
    """What a job's commands on all tilt series together have left.

    Attributes:
        outputs: files, project-relative; when one of them is gone the commands run again.
        left_out: tilt series that had no part in it -> why.
    """

    outputs: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


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


@runtime_checkable
class DatasetStage(Protocol):
    """A stage that also does something once, with all tilt series, before any of them."""

    def dataset_steps(self, context: Context, series: Mapping[str, SeriesInput]) -> Sequence[Step]:
        """The commands, in order. Pure.

        They run again only when the job's parameters, the fingerprint of a tilt series that is
        neither skipped nor a problem, or what they made, have changed. Where one is about a single
        tilt series (`Step.tilt_series`), its failure leaves out that tilt series alone.
        """
        ...

    def dataset_output(self, context: Context, series: Mapping[str, SeriesInput]) -> DatasetOutput:
        """Read what the commands left, and settle what follows from it.

        Raises:
            ToolError: nothing does; the job fails then.
        """
        ...


@runtime_checkable
class FinishingStage(Protocol):
    """A stage that makes files out of the results of all its tilt series."""

    def finish(self, context: Context, done: Sequence[SeriesResult]) -> None:
        """Write the job's further outputs; its table of tilt series is written already."""
        ...


@runtime_checkable
class ExtraInputStage(Protocol):
    """A stage whose result depends on more than its parameters and another job's output."""

    def extras(self, project: Path) -> Mapping[str, str]:
        """Tilt series -> fingerprint of what else its result depends on.

        The stage's `inputs` put the same into `SeriesInput.fingerprint`, by
        `crboost.results.with_extra`.
        """
        ...
