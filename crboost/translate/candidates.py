"""pytom-match-pick's candidates -> RELION 5 particles.

pytom writes the voxel of the tomogram, counted from 0, and RELION's Euler angles. RELION 5 wants
Angstrom from the tomogram's centre. pytom can write those too (`--relion5-compat`), but not in the
same way in all versions, and without the unbinned size by half a voxel off: so it is done here.
The conventions, with their sources, are in `docs/conventions.md`, template matching.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.translate.tables import Row, read_table, write_blocks

_NEEDED = (
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnCoordinateZ",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnLCCmax",
)

#: pytom's own columns that are kept: score, cut-off, and the score map's standard deviation.
SCORES = ("rlnLCCmax", "rlnCutOff", "rlnSearchStd")


def read_candidates(path: Path) -> list[Row]:
    """What `pytom_extract_candidates.py` wrote without `--relion5-compat`; may be empty.

    Raises:
        FileFormatError: no such table, or a value that is no number.
    """
    rows = read_table(path)
    for number, row in enumerate(rows, start=1):
        scores = [column for column in SCORES if column in row]
        for column in dict.fromkeys((*_NEEDED, *scores)):
            if column not in row:
                raise FileFormatError(path, f"has no column {column}")
            try:
                value = float(row[column])
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value):
                raise FileFormatError(
                    path, f"row {number}: {column} is not a number: {row[column]!r}"
                )
    return rows


def particle_rows(
    candidates: Sequence[Mapping[str, Any]], tilt_series: str, global_row: Mapping[str, Any]
) -> list[Row]:
    """RELION 5's rows of the particles of one tomogram.

    Voxel i of a tomogram binned b times is unbinned coordinate i b (RELION:
    `reconstruct_tomogram.cpp`); the centre is half the unbinned size (`TomogramSet::loadTomogram`;
    `ParticleSet::getParticleCoordDecenteredPixel`).

    Particles go to the two half sets in turn, and stay there when tilt series are added: without
    half sets `relion_tomo_reconstruct_particle` puts all into the first and writes no half maps.
    Which half comes first depends on the tilt series' name, so that tomograms with one particle
    each fill both.

    Args:
        global_row: the tilt series' row in the tomograms' table.
    """
    pixel_size = float(global_row["rlnTomoTiltSeriesPixelSize"])
    binning = float(global_row["rlnTomoTomogramBinning"])
    first = zlib.crc32(tilt_series.encode()) % 2
    rows: list[Row] = []
    for number, candidate in enumerate(candidates, start=1):
        row: Row = {"rlnTomoName": tilt_series, "rlnTomoParticleName": f"{tilt_series}/{number}"}
        for axis in "XYZ":
            unbinned = float(candidate[f"rlnCoordinate{axis}"]) * binning
            centre = float(global_row[f"rlnTomoSize{axis}"]) / 2
            row[f"rlnCenteredCoordinate{axis}Angst"] = (unbinned - centre) * pixel_size
        for angle in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
            row[angle] = float(candidate[angle])
        row["rlnRandomSubset"] = 1 + (first + number) % 2
        row |= {column: float(candidate[column]) for column in SCORES if column in candidate}
        row["rlnTomoTiltSeriesPixelSize"] = pixel_size
        rows.append(row)
    return rows


def write_particles(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The particles' STAR: one loop; RELION makes optics groups of the tomograms' table."""
    write_blocks(path, {"particles": rows})


def write_optimisation_set(path: Path, particles: str, tomograms: str) -> None:
    """RELION 5's optimisation set: which particles in which tomograms; project-relative files."""
    write_blocks(path, {"": {"rlnTomoParticlesFile": particles, "rlnTomoTomogramsFile": tomograms}})
