"""What the stages after the tomogram share: which file, and how large."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError

DENOISED = "rlnTomoReconstructedTomogramDenoised"
TOMOGRAM = "rlnTomoReconstructedTomogram"
HALVES = ("rlnTomoReconstructedTomogramHalf1", "rlnTomoReconstructedTomogramHalf2")

#: RELION writes this where a tomogram was not denoised.
NOT_THERE = ("", "N/A", "nan", "None")


def file_in(row: Mapping[str, Any], column: str) -> str | None:
    """A file that a row names, if it names one."""
    value = str(row.get(column, ""))
    return None if value in NOT_THERE else value


def tomogram_of(row: Mapping[str, Any]) -> str | None:
    """The denoised tomogram, where there is one, else the plain one."""
    return file_in(row, DENOISED) or file_in(row, TOMOGRAM)


def halves_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The tomograms of even and of odd frames."""
    even, odd = (file_in(row, column) for column in HALVES)
    return (even, odd) if even and odd else None


def voxel_size_angstrom(row: Mapping[str, Any]) -> float:
    """Of a tomogram, from its row in the global table; 0 where that does not tell."""
    pixel_size = float(row.get("rlnTomoTiltSeriesPixelSize", 0))
    return pixel_size * float(row.get("rlnTomoTomogramBinning", 1))


def map_header(path: Path) -> tuple[tuple[int, int, int], float]:
    """(size in x, y, z; voxel size in Angstrom) of an MRC map; nothing but its header is read.

    Raises:
        FileFormatError: it is missing, or is no MRC map.
    """
    import mrcfile

    try:
        with mrcfile.open(path, header_only=True, permissive=True) as volume:
            header = volume.header
            size = (int(header.nx), int(header.ny), int(header.nz))
            return size, float(volume.voxel_size.x)
    except (OSError, ValueError, AttributeError) as error:
        raise FileFormatError(path, f"not a readable map (.mrc): {error}") from error
