"""What a project has done before, as the planner sees it. Plain data: nothing here reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from crboost.catalogue import label_matches

SeriesStatus = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class SeriesRecord:
    """What became of one tilt series in one job.

    Attributes:
        status: done, failed (see reason) or skipped.
        reason: why it failed or was skipped.
        redo: it failed for a reason that lies outside it (a killed tool, a full disk), so that the
            next run tries it again.
        fingerprint: identifies parameters and inputs that the result came from.
        input_fingerprint: the fingerprint that its input had; "" where nobody recorded it.
    """

    status: SeriesStatus
    fingerprint: str
    input_fingerprint: str
    reason: str | None = None
    redo: bool = False


@dataclass(frozen=True)
class PastJob:
    """A process in RELION's ledger, together with what its directory tells.

    Attributes:
        job: process name, such as `External/job003/`.
        status: RELION's status label; `Running` is believed only together with `alive`.
        relion_type: RELION's process type label.
        outputs: (file, node label) of each output node.
        missing: files that the job made and that are gone.
        job_type, node, fingerprint, run: what crboost wrote into its `job.star`; None for jobs
            that somebody ran from RELION's own GUI.
        parameters: what its result depends on, name to text: for our jobs the parameters that
            it ran with, for native RELION jobs the options of its `job.star`.
        series: per tilt series, for jobs that crboost ran.
        failure: the first line of what went wrong, for a failed job.
        alive: whether its process still runs.
    """

    job: str
    status: str
    relion_type: str = "relion.external"
    inputs: tuple[str, ...] = ()
    outputs: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    job_type: str | None = None
    node: str | None = None
    fingerprint: str | None = None
    run: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, SeriesRecord] = field(default_factory=dict)
    failure: str | None = None
    alive: bool = False

    @property
    def number(self) -> int:
        """The job's number: later jobs have higher ones."""
        digits = self.job.rstrip("/").rpartition("job")[2]
        return int(digits) if digits.isdigit() else 0

    @property
    def name(self) -> str:
        """The job's name without the trailing slash, as people write it."""
        return self.job.rstrip("/")

    @property
    def failed_series(self) -> dict[str, str]:
        """Tilt series that failed, and why."""
        return {
            name: record.reason or "no reason recorded"
            for name, record in self.series.items()
            if record.status == "failed"
        }

    def output_with_label(self, labels: tuple[str, ...]) -> str | None:
        """The first of its output nodes that one of `labels` fits."""
        for label in labels:
            for file, output_label in self.outputs:
                if label_matches(output_label, label):
                    return file
        return None
