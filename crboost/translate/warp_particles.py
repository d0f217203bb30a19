"""What `ts_export_particles` wrote of one tilt series -> particles of RELION 5.

WarpTools writes tables of RELION 4 with a tilt series of its own: matrices without shifts, and a
dummy for the images. RELION could refine against those, but average nothing. So only what is in
the images is taken from it, and everything else from the tables that RELION knows already.

RELION pairs the images of a particle with the tilts that it sees, in the order of the tilt series'
table (`Experiment::read`): the table must then have Warp's order, and the stack no other images.
WarpTools up to 2.0.0dev36 writes all of them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import write_bytes
from crboost.tilt_name import tilt_name
from crboost.translate.tables import Row, read_blocks
from crboost.translate.warp_tilt_series import WarpTiltSeries

_AXES = "XYZ"
#: Of an MRC file: bytes of its header, and where in it are the number of sections, of intervals in
#: z and their length, and the bytes of the extended header.
_HEADER, _NZ, _MZ, _CELL_Z, _NSYMBT = 1024, 8, 36, 48, 92
#: Of a particle, what is said anew: by the export, or by the table of optics groups.
_SAID_ANEW = frozenset(
    {
        *("rlnTomoName", "rlnImageName", "rlnCtfImage", "rlnTomoVisibleFrames", "rlnOpticsGroup"),
        *("rlnOpticsGroupName", "rlnTomoTiltSeriesPixelSize"),
        *(f"rlnCenteredCoordinate{axis}Angst" for axis in _AXES),
        *(f"rlnOrigin{axis}Angst" for axis in _AXES),
    }
)


@dataclass(frozen=True)
class ExportedParticle:
    """One particle that WarpTools exported.

    Attributes:
        candidate: its place among what WarpTools was given, from 0.
        image: relative to the export's STAR file.
        ctf: likewise, of a subtomogram.
        position_angstrom: from voxel 0 of Warp's volume.
        visible: by exported tilt, in Warp's order; None for a subtomogram.
    """

    candidate: int
    image: str
    ctf: str | None
    position_angstrom: tuple[float, float, float]
    visible: tuple[bool, ...] | None


@dataclass(frozen=True)
class Export:
    """What is in the STAR file of an export."""

    particles: tuple[ExportedParticle, ...]
    premultiplied: bool
    box_px: int | None


def read_export(path: Path, pixel_size_angstrom: float) -> Export:
    """Read what `ts_export_particles --output_star` wrote for one tilt series; may be empty.

    Args:
        pixel_size_angstrom: `--output_angpix`, the unit of its coordinates.

    Raises:
        FileFormatError: a column or a table is missing, or a value is not what it should be.
    """
    blocks = read_blocks(path)
    stacks = "particles" in blocks
    rows = blocks["particles"] if stacks else next(iter(blocks.values()), [])
    optics = blocks.get("optics", [])
    particles = []
    try:
        for number, row in enumerate(rows):
            ctf = row.get("rlnCtfImage")
            x, y, z = (float(row[f"rlnCoordinate{axis}"]) * pixel_size_angstrom for axis in _AXES)
            particles.append(
                ExportedParticle(
                    int(row["rlnTomoParticleId"]) - 1 if stacks else number,
                    str(row["rlnImageName"]),
                    str(ctf) if ctf else None,
                    (x, y, z),
                    _flags(str(row["rlnTomoVisibleFrames"])) if stacks else None,
                )
            )
        premultiplied = any(int(row["rlnCtfDataAreCtfPremultiplied"]) for row in optics)
        box = int(optics[0]["rlnImageSize"]) if optics else None
    except KeyError as error:
        raise FileFormatError(path, f"has no column {error.args[0]}") from None
    except ValueError as error:
        raise FileFormatError(path, f"holds something else than numbers: {error}") from None
    return Export(tuple(particles), premultiplied, box)


def rows_in_warps_order(rows: Sequence[Row], series: WarpTiltSeries) -> list[Row]:
    """The tilt images that Warp uses, in its order."""
    by_name = {tilt_name(row): row for row in rows}
    return [dict(by_name[tilt.name]) for tilt in series.used if tilt.name in by_name]


def visible_by_tilt(visible: Sequence[bool], series: WarpTiltSeries) -> dict[str, bool]:
    """Tilt image -> whether a particle is seen in it.

    `--n_tilts` exports the tilts of the lowest dose, in Warp's order.

    Raises:
        ValueError: there are more values than tilts.
    """
    tilts = series.tilts
    if len(visible) > len(tilts):
        raise ValueError(f"{len(visible)} tilt images exported, there are {len(tilts)}")
    by_dose = sorted(range(len(tilts)), key=lambda i: tilts[i].dose_e_per_a2)
    exported = sorted(by_dose[: len(visible)])
    seen = {tilts[i].name: flag for i, flag in zip(exported, visible, strict=True)}
    return {tilt.name: seen.get(tilt.name, False) for tilt in tilts}


def relion_particle(
    candidate: Mapping[str, Any],
    exported: ExportedParticle,
    tilt_series: str,
    directory: str,
    visible: Sequence[bool] | None,
) -> Row:
    """RELION 5's row of an exported particle, its optics group aside.

    Args:
        candidate: the row that it was exported for; its offset is part of the position now.
        directory: of the export's STAR file, project-relative.
        visible: by row of the tilt series' table; None for a subtomogram.
    """
    row: Row = {"rlnTomoName": tilt_series}
    row |= {name: value for name, value in candidate.items() if name not in _SAID_ANEW}
    for axis in _AXES:
        centred = float(candidate[f"rlnCenteredCoordinate{axis}Angst"])
        offset = float(candidate.get(f"rlnOrigin{axis}Angst", 0.0))
        row[f"rlnCenteredCoordinate{axis}Angst"] = centred - offset
    row |= {f"rlnOrigin{axis}Angst": 0.0 for axis in _AXES}
    row["rlnImageName"] = f"{directory}/{exported.image}"
    if exported.ctf is not None:
        row["rlnCtfImage"] = f"{directory}/{exported.ctf}"
    if visible is not None:
        row["rlnTomoVisibleFrames"] = f"[{','.join(str(int(flag)) for flag in visible)}]"
    return row


def optics_row(
    global_row: Mapping[str, Any], *, binning: float, box_px: int, stacks: bool, premultiplied: bool
) -> Row:
    """RELION 5's row of the optics group of a tilt series' particles, its number aside."""
    pixel = float(global_row["rlnTomoTiltSeriesPixelSize"])
    names = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    return {
        **{name: float(global_row[name]) for name in names},
        "rlnTomoTiltSeriesPixelSize": pixel,
        "rlnOpticsGroupName": str(global_row.get("rlnOpticsGroupName", "opticsGroup1")),
        "rlnCtfDataAreCtfPremultiplied": int(premultiplied),
        "rlnImageDimensionality": 2 if stacks else 3,
        "rlnTomoSubtomogramBinning": binning,
        "rlnImagePixelSize": round(pixel * binning, 6),
        "rlnImageSize": box_px,
    }


def merged(parts: Sequence[tuple[Row, Sequence[Row]]]) -> tuple[list[Row], list[Row]]:
    """Optics groups and particles of all tilt series: what is alike is one group."""
    groups: list[Row] = []
    particles: list[Row] = []
    for optics, rows in parts:
        if optics not in groups:
            groups.append(optics)
        number = groups.index(optics) + 1
        particles += [{**row, "rlnOpticsGroup": number} for row in rows]
    return [{**row, "rlnOpticsGroup": n} for n, row in enumerate(groups, start=1)], particles


def keep_visible(stack: Path, visible: Sequence[bool]) -> None:
    """Leave only the visible images in a particle's stack; a stack of no other stays as it is.

    Raises:
        FileFormatError: it is no stack, or of another length.
    """
    count = sum(visible)
    if not stack.is_file():
        raise FileFormatError(stack, "was not written")
    with stack.open("rb") as stream:
        header = bytearray(stream.read(_HEADER))
        if len(header) < _HEADER:
            raise FileFormatError(stack, "is no MRC stack")
        images = _word(header, _NZ)
        if images == count:
            return
        if images != len(visible):
            raise FileFormatError(
                stack, f"holds {images} images; {len(visible)} tilts, {count} visible"
            )
        extended = stream.read(_word(header, _NSYMBT))
        data = stream.read()
    size, rest = divmod(len(data), images)
    if rest:
        raise FileFormatError(stack, f"{len(data)} bytes are not {images} images")
    kept = [data[i * size : (i + 1) * size] for i, flag in enumerate(visible) if flag]
    depth = _word(header, _MZ)
    header[_NZ : _NZ + 4] = count.to_bytes(4, "little")
    if depth == images:
        length = struct.unpack_from("<f", header, _CELL_Z)[0]
        header[_MZ : _MZ + 4] = count.to_bytes(4, "little")
        struct.pack_into("<f", header, _CELL_Z, length * count / images)
    write_bytes(stack, b"".join((bytes(header), extended, *kept)))


def _word(header: bytearray, place: int) -> int:
    return int.from_bytes(header[place : place + 4], "little")


def _flags(text: str) -> tuple[bool, ...]:
    return tuple(int(word) != 0 for word in text.strip("[] ").split(","))
