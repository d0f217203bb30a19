"""One tilt series after a stage, in RELION's terms."""

from __future__ import annotations

from collections.abc import Sequence
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


#: More lines than this about the tilt images of one series only bury the cause.
MOST_LINES = 6


def grouped(problems: Sequence[tuple[str, str]]) -> list[str]:
    """Warnings about tilt images: one line for those with the same reason, and not too many.

    Args:
        problems: (tilt image, reason), in order.
    """
    by_reason: dict[str, list[str]] = {}
    for image, reason in problems:
        by_reason.setdefault(reason, []).append(image)
    lines = []
    for reason, images in by_reason.items():
        if len(images) <= 2:
            lines += [f"{image}: {reason}" for image in images]
        else:
            lines.append(f"{len(images)} tilt images ({images[0]} to {images[-1]}): {reason}")
    if len(lines) > MOST_LINES:
        left = len(lines) - (MOST_LINES - 1)
        lines[MOST_LINES - 1 :] = [f"and {left} more tilt images"]
    return lines
