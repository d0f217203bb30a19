"""One tilt series after a stage, in RELION's terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crboost.translate.tables import Row


@dataclass(frozen=True)
class SeriesOutput:
    """One tilt series after a stage.

    Attributes:
        global_columns: what the stage adds to the series' row in the global table.
        rows: the series' table, one row per tilt image that goes on.
        metrics: numbers for people; units in the keys.
        tilts: one record per tilt image: name, angle, status, reason.
        warnings: for people.
        outputs: project-relative files that belong to the result.
    """

    global_columns: Row
    rows: list[Row]
    metrics: dict[str, Any] = field(default_factory=dict)
    tilts: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
