"""The alignment of a tilt image between the tools' files and RELION 5's five columns. Pure.

A tool's reader ends in a `TiltAlignment` per tilt image, a tool's writer starts from one. The model
behind the five numbers is `docs/conventions.md`, "From a point of the specimen to a pixel".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crboost.errors import CrboostError
from crboost.tilt_name import tilt_name
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row


@dataclass(frozen=True)
class TiltAlignment:
    """How one tilt image sees the specimen: RELION 5's columns of the same names.

    Angles in degrees; the shift is where the specimen's centre lies in the image, from the image's
    centre (pixel n // 2), in Angstrom.
    """

    x_tilt_deg: float
    y_tilt_deg: float
    z_rot_deg: float
    x_shift_angstrom: float
    y_shift_angstrom: float

    def columns(self) -> Row:
        return {
            "rlnTomoXTilt": self.x_tilt_deg,
            "rlnTomoYTilt": self.y_tilt_deg,
            "rlnTomoZRot": self.z_rot_deg,
            "rlnTomoXShiftAngst": self.x_shift_angstrom,
            "rlnTomoYShiftAngst": self.y_shift_angstrom,
        }

    def rotation(self) -> tuple[tuple[float, float, float], ...]:
        """Rz(z_rot) Ry(y_tilt) Rx(x_tilt), row by row: `Tomogram::setProjectionMatrix`."""
        cx, sx = _cos_sin(self.x_tilt_deg)
        cy, sy = _cos_sin(self.y_tilt_deg)
        cz, sz = _cos_sin(self.z_rot_deg)
        return (
            (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
            (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
            (-sy, cy * sx, cy * cx),
        )


def alignment_of(row: Mapping[str, Any]) -> TiltAlignment:
    """The alignment that a RELION row holds.

    Raises:
        CrboostError: a column is missing or holds no finite number.
    """
    values = []
    for column in (
        "rlnTomoXTilt",
        "rlnTomoYTilt",
        "rlnTomoZRot",
        "rlnTomoXShiftAngst",
        "rlnTomoYShiftAngst",
    ):
        try:
            value = float(row[column])
        except (KeyError, TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise CrboostError(
                f"tilt image {tilt_name(row)}: {column} is {row.get(column, 'missing')}",
                hint="the table must come from an alignment job",
            )
        values.append(value)
    return TiltAlignment(*values)


def aligned_output(
    rows: Sequence[Row],
    alignments: Mapping[str, TiltAlignment | str],
    method: str,
    *,
    residual_px: float | None = None,
    hand: float | None = None,
) -> SeriesOutput:
    """RELION rows with an alignment; tilt images without one leave the table, with their reason.

    Args:
        rows: the tilt images before the alignment.
        alignments: tilt image -> its alignment, or why it has none.
        method: for people: which tool aligned, and how.
        residual_px: of the full-size image, where the tool tells it.
        hand: rlnTomoHand, where the tool sets it.
    """
    output = SeriesOutput({}, [])
    problems: list[tuple[str, str]] = []
    found: list[TiltAlignment] = []
    for row in rows:
        name = tilt_name(row)
        angle = float(row["rlnTomoNominalStageTiltAngle"])
        alignment = alignments.get(name, "the tool left it out")
        aligned = isinstance(alignment, TiltAlignment)
        output.tilts.append(
            {
                "name": name,
                "tilt_angle_deg": angle,
                "status": "aligned" if aligned else "excluded",
                "reason": None if aligned else alignment,
            }
        )
        if not isinstance(alignment, TiltAlignment):
            problems.append((f"tilt image {name} ({angle:+.1f} deg)", f"excluded: {alignment}"))
            continue
        found.append(alignment)
        output.rows.append({**row, **alignment.columns()})
    output.warnings.extend(grouped(problems))
    axis = mean_axis_deg([alignment.z_rot_deg for alignment in found])
    if axis is not None:
        output.global_columns["rlnTomoZRot"] = axis
    if hand is not None:
        output.global_columns["rlnTomoHand"] = hand
    output.metrics.update(
        tilts=len(output.rows),
        tilts_total=len(rows),
        alignment_method=method,
        alignment_residual_px=residual_px,
        tilt_axis_deg=axis,
    )
    return output


def mean_axis_deg(angles: Sequence[float]) -> float | None:
    """The mean direction of tilt axes, in (-180, 180]; None of none."""
    if not angles:
        return None
    x = sum(math.cos(math.radians(angle)) for angle in angles)
    y = sum(math.sin(math.radians(angle)) for angle in angles)
    return math.degrees(math.atan2(y, x))


def _cos_sin(angle_deg: float) -> tuple[float, float]:
    return math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
