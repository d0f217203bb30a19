"""Warp's `.tomostar`: which movies make a tilt series, with angles and dose."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import CrboostError, FileFormatError
from crboost.files import write_text
from crboost.translate.warp_xml import movie_stem

#: A path that every reader takes as one value of a STAR loop: no blanks, quotes or comments, no
#: start that means a column or a block.
_PLAIN = re.compile(r"(?!_|;|data_|loop_|save_)[^\s#'\"]+", re.IGNORECASE)


@dataclass(frozen=True)
class TomostarTilt:
    """One line of a `.tomostar`.

    Attributes:
        movie: its path, relative to the `.tomostar`; Warp finds its average by it.
        angle_deg: Warp's tilt angle: the stage's with the other sign, unless `ts_import` was run
            with `--dont_invert`.
        axis_deg: the tilt axis, counter-clockwise from +y.
        dose_e_per_a2: before this tilt image.
        average_intensity, masked_fraction: of the average; for people.
    """

    movie: str
    angle_deg: float
    axis_deg: float
    dose_e_per_a2: float
    average_intensity: float | None = None
    masked_fraction: float | None = None

    @property
    def name(self) -> str:
        return movie_stem(self.movie)


def read_tomostar(path: Path) -> list[TomostarTilt]:
    """Read a `.tomostar`.

    Raises:
        FileFormatError: the file is missing, has no such table, lacks a column or a value.
    """
    import pandas as pd
    import starfile

    if not path.is_file():
        raise FileFormatError(path, "no such file")
    try:
        table = starfile.read(path, parse_as_string=["wrpMovieName"])
    except Exception as error:  # starfile raises whatever its parser stumbles over
        raise FileFormatError(path, f"not a readable STAR file: {error}") from error
    if isinstance(table, dict) and all(
        not isinstance(v, (dict, pd.DataFrame)) for v in table.values()
    ):
        table = pd.DataFrame([table])
    if not isinstance(table, pd.DataFrame) or table.empty:
        raise FileFormatError(path, "one table with one row per tilt image is expected")
    for column in ("wrpMovieName", "wrpAngleTilt", "wrpDose"):
        if column not in table.columns:
            raise FileFormatError(path, f"has no column {column}")
    tilts = []
    for index, row in enumerate(table.to_dict(orient="records"), start=1):
        values = {}
        for column in (
            "wrpAngleTilt",
            "wrpAxisAngle",
            "wrpDose",
            "wrpAverageIntensity",
            "wrpMaskedFraction",
        ):
            if column not in table.columns:
                continue
            try:
                values[column] = float(row[column])
            except (TypeError, ValueError):
                values[column] = math.nan
            if not math.isfinite(values[column]):
                raise FileFormatError(
                    path, f"row {index}: {column} is not a number: {row[column]!r}"
                )
        tilts.append(
            TomostarTilt(
                str(row["wrpMovieName"]),
                values["wrpAngleTilt"],
                values.get("wrpAxisAngle", 0.0),
                values["wrpDose"],
                values.get("wrpAverageIntensity"),
                values.get("wrpMaskedFraction"),
            )
        )
    names = [tilt.name for tilt in tilts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileFormatError(path, f"names the movie {twice} twice")
    return tilts


def write_tomostar(path: Path, tilts: Sequence[TomostarTilt]) -> None:
    """Write a `.tomostar` as `ts_import` does.

    Raises:
        CrboostError: no tilt images, or a movie's path that would not be read as one value.
    """
    if not tilts:
        raise CrboostError(f"{path}: a tilt series needs tilt images")
    columns = ["wrpMovieName", "wrpAngleTilt", "wrpAxisAngle", "wrpDose"]
    known = all(t.average_intensity is not None and t.masked_fraction is not None for t in tilts)
    if known:
        columns += ["wrpAverageIntensity", "wrpMaskedFraction"]
    lines = ["", "data_", "", "loop_"]
    lines += [f"_{column} #{index}" for index, column in enumerate(columns, start=1)]
    for tilt in tilts:
        if not _PLAIN.fullmatch(tilt.movie):
            raise CrboostError(
                f"{path}: movie path {tilt.movie!r} is empty, holds blanks, quotes or #, or starts "
                "like a column or block of a STAR file",
                hint="link the movie under a plain name, or write its path from ../ or ./",
            )
        values = [
            tilt.movie,
            f"{tilt.angle_deg + 0.0:.2f}",
            f"{tilt.axis_deg + 0.0:.3f}",
            f"{tilt.dose_e_per_a2 + 0.0:.7g}",
        ]
        if known:
            values += [f"{tilt.average_intensity:.3f}", f"{tilt.masked_fraction:.3f}"]
        lines.append("  " + "  ".join(values))
    write_text(path, "\n".join(lines) + "\n")
