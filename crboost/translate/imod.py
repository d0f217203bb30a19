"""IMOD's alignment files: `.xf` (2-D transforms), `.tlt`, `.rawtlt`, `.xtilt` (angles).

A transform takes a pixel p of the stack to its place q in the aligned stack, both from the middle
of their images, (n - 1) / 2: q = A p + d (IMOD, `libcfshr/cubinterp.c`). The aligned stack has its
tilt axis along y and the specimen's centre in the middle (`flib/tilt/tilt.f90`, `xcenIn`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import CrboostError, FileFormatError
from crboost.translate.alignment import TiltAlignment
from crboost.translate.image_stack import ImageStack
from crboost.translate.output import grouped
from crboost.translate.text_lines import number, read_lines

#: A scale or stretch that moves the image's corners by more full-size pixels is worth a word.
TOLERATED_ERROR_PX = 1.0


@dataclass(frozen=True)
class ImodFiles:
    """What IMOD's files say of a stack: one entry per image in each."""

    transforms: tuple[Transform, ...]
    angles_deg: tuple[float, ...]
    x_tilts_deg: tuple[float, ...]


@dataclass(frozen=True)
class Transform:
    """One line of an `.xf` file: q = A p + d, in pixels of the stack."""

    a11: float
    a12: float
    a21: float
    a22: float
    dx: float
    dy: float

    @property
    def axis_deg(self) -> float:
        """The tilt axis, counter-clockwise from +y: the rotation nearest to A, backwards."""
        return math.degrees(math.atan2(self.a12 - self.a21, self.a11 + self.a22))

    def error_px(self, image_size_px: tuple[int, int]) -> float:
        """How far off a corner of the full-size image is without the scale and stretch in A.

        RELION puts what IMOD sees at r where the rotation alone would: at R⁻¹ A r.

        Returns:
            pixels of the full-size image.
        """
        cos, sin = math.cos(math.radians(self.axis_deg)), math.sin(math.radians(self.axis_deg))
        e11 = cos * self.a11 - sin * self.a21 - 1
        e12 = cos * self.a12 - sin * self.a22
        e21 = sin * self.a11 + cos * self.a21
        e22 = sin * self.a12 + cos * self.a22 - 1
        x, y = image_size_px[0] / 2, image_size_px[1] / 2
        return max(math.hypot(e11 * x + e12 * side, e21 * x + e22 * side) for side in (y, -y))

    @property
    def specimen_px(self) -> tuple[float, float]:
        """Where the specimen's centre (q = 0) lies in the stack's image, from its middle: -A⁻¹ d.

        RELION takes the same (`AlignTiltseriesRunner::readIMODResults`), and so does Warp
        (`TiltSeries.ImportAlignments`).
        """
        determinant = self.a11 * self.a22 - self.a12 * self.a21
        return (
            -(self.a22 * self.dx - self.a12 * self.dy) / determinant,
            -(self.a11 * self.dy - self.a21 * self.dx) / determinant,
        )


def read_xf(path: Path, *, count: int | None = None) -> list[Transform]:
    """The transforms of an `.xf` file, one per image of the stack; empty lines are skipped.

    Args:
        count: images in the stack, where known.

    Raises:
        FileFormatError: a line does not hold six numbers, a matrix cannot be inverted or mirrors,
            or the file does not have `count` transforms.
    """
    transforms = []
    for index, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 6:
            raise FileFormatError(path, f"six numbers expected, found {len(words)}", line=index)
        names = ("A11", "A12", "A21", "A22", "DX", "DY")
        values = [number(path, index, name, word) for name, word in zip(names, words, strict=True)]
        if values[0] * values[3] - values[1] * values[2] <= 1e-6:
            raise FileFormatError(
                path, "the matrix A11 A12 A21 A22 is singular or mirrors the image", line=index
            )
        transforms.append(Transform(*values))
    _expect(path, "transforms", len(transforms), count)
    return transforms


def xf_text(transforms: Sequence[Transform]) -> str:
    """An `.xf` file in IMOD's columns (`%12.7f` matrix, `%12.3f` shifts)."""
    return "".join(
        f"{t.a11:12.7f}{t.a12:12.7f}{t.a21:12.7f}{t.a22:12.7f}{t.dx:12.3f}{t.dy:12.3f}\n"
        for t in transforms
    )


@dataclass(frozen=True)
class AlignLog:
    """What `align.log` says of the whole alignment; None for what it does not say.

    Attributes:
        residual_px: mean residual of the fiducials or patches, in pixels of the stack.
        leave_out_px: mean error of points that were left out of the fit.
        angle_offset_deg: what IMOD added to all tilt angles to level the specimen.
    """

    residual_px: float | None
    residual_sd_px: float | None
    leave_out_px: float | None
    angle_offset_deg: float | None


_LOG_VALUES = {
    "residual": re.compile(r"Residual error mean and sd:\s+(\S+)\s+(\S+)"),
    "leave_out": re.compile(r"Global leave-out error\D*?(-?\d\S*)"),
    "angle_offset": re.compile(r"AngleOffset\s*=\s*(\S+)"),
}


def read_align_log(path: Path) -> AlignLog:
    """Read tiltalign's `align.log`; where a value appears several times, the last one counts.

    RELION reads the same lines (`AlignTiltseriesRunner::readIMODResults`).

    Raises:
        FileFormatError: the file is missing, is no text, or a value is no number.
    """
    found: dict[str, tuple[float, ...]] = {}
    for index, line in enumerate(read_lines(path), start=1):
        for name, pattern in _LOG_VALUES.items():
            match = pattern.search(line)
            if match:
                found[name] = tuple(number(path, index, name, word) for word in match.groups())
    residual = found.get("residual", (None, None))
    return AlignLog(
        residual[0],
        residual[1],
        found.get("leave_out", (None,))[0],
        found.get("angle_offset", (None,))[0],
    )


def read_angles(path: Path, *, count: int | None = None) -> list[float]:
    """The angles of a `.tlt`, `.rawtlt` or `.xtilt` file in degrees; empty lines are skipped.

    Raises:
        FileFormatError: a line is not one number, or the file does not have `count` angles.
    """
    angles = []
    for index, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 1:
            raise FileFormatError(path, f"one angle expected, found {len(words)}", line=index)
        angles.append(number(path, index, "the angle", words[0]))
    _expect(path, "angles", len(angles), count)
    return angles


def read_x_tilts(path: Path, count: int) -> list[float]:
    """The angles of an `.xtilt` file.

    AreTomo2 writes zeros and forgets the last one (`CSaveXtilts::DoIt`); it is added.

    Raises:
        FileFormatError: as `read_angles`.
    """
    angles = read_angles(path)
    if len(angles) == count - 1 and not any(angles):
        angles.append(0.0)
    _expect(path, "angles", len(angles), count)
    return angles


def tlt_text(angles_deg: Sequence[float], *, decimals: int = 2) -> str:
    """A `.tlt`, `.rawtlt` or `.xtilt` file, one angle a line.

    Two decimals are IMOD's; half of the last one is 0.3 pixels at the edge of 11520.
    """
    return "".join(f"{angle + 0.0:8.{decimals}f}\n" for angle in angles_deg)


def imod_alignments(
    names: Sequence[str],
    transforms: Sequence[Transform],
    angles_deg: Sequence[float],
    stack: ImageStack,
    *,
    x_tilts_deg: Sequence[float] | None = None,
    angle_sign: int = 1,
) -> dict[str, TiltAlignment]:
    """Alignments from IMOD's files: tilt image -> alignment.

    `tilt` projects x' = x cos b + (y sin a + z cos a) sin b, y' = y cos a - z sin a, a the x-tilt,
    b the tilt (`tilt.f90`, "if x-axis tilting"; its z runs downwards until `trimvol -rx`):
    RELION's model with XTilt = a, YTilt = b.

    The `.tlt`'s angles are taken as they are, with IMOD's angle offset in them: the specimen is
    level in the tomogram, as in IMOD's. (RELION takes the offset away again; that turns the
    specimen, not the geometry.) A scale or stretch in A has no place in RELION's columns.

    Args:
        names: the tilt images, in the order of the stack.
        transforms: of the `.xf`.
        angles_deg: of the `.tlt`.
        x_tilts_deg: of the `.xtilt`, for tomograms that IMOD made with it (XTILTFILE).
        stack: what a pixel of the stack is in the full-size image.
        angle_sign: -1 for a stack whose angles have Warp's sign.

    Raises:
        CrboostError: the three do not have the same number of images, or the transforms belong to
            a stack that is aligned already.
    """
    x_tilts = [0.0] * len(names) if x_tilts_deg is None else x_tilts_deg
    if not len(names) == len(transforms) == len(angles_deg) == len(x_tilts):
        raise CrboostError(
            f"the stack has {len(names)} images, the .xf {len(transforms)} transforms, "
            f"the .tlt {len(angles_deg)} angles, the .xtilt {len(x_tilts)}",
            hint="the files must belong to the same stack",
        )
    _refuse_identity(transforms)
    alignments = {}
    for name, transform, angle, x_tilt in zip(names, transforms, angles_deg, x_tilts, strict=True):
        shift = stack.shift_angstrom(transform.specimen_px)
        alignments[name] = TiltAlignment(
            angle_sign * x_tilt, angle_sign * angle, transform.axis_deg, *shift
        )
    return alignments


def distortion_warnings(
    names: Sequence[str], transforms: Sequence[Transform], image_size_px: tuple[int, int]
) -> list[str]:
    """Tilt images whose transform is so much more than a rotation and a shift that it matters.

    Args:
        names: the tilt images, in the order of the stack.
        transforms: of the `.xf`.
        image_size_px: of the full-size tilt image, (x, y).
    """
    errors = {
        name: transform.error_px(image_size_px)
        for name, transform in zip(names, transforms, strict=True)
    }
    off = {name: error for name, error in errors.items() if error > TOLERATED_ERROR_PX}
    if not off:
        return []
    worst = max(off, key=lambda name: off[name])
    reason = (
        "IMOD scaled or stretched it, which RELION's tables cannot say: the corners are off "
        f"by up to {off[worst]:.1f} pixels ({worst})"
    )
    return grouped([(f"tilt image {name}", reason) for name in off])


def imod_files(
    alignments: Sequence[TiltAlignment],
    stack: ImageStack,
    *,
    angle_sign: int = 1,
    x_tilts: bool = False,
) -> ImodFiles:
    """The way back, in stack order: for `xf_text` and `tlt_text`.

    Args:
        angle_sign: -1 for files that Warp is to import (`ts_import_alignments`).
        x_tilts: the reader takes an `.xtilt` too; Warp does not.

    Raises:
        CrboostError: an alignment has an x-tilt, and nobody would read it.
    """
    transforms = []
    for alignment in alignments:
        if abs(alignment.x_tilt_deg) > 1e-6 and not x_tilts:
            raise CrboostError(
                f"rlnTomoXTilt is {alignment.x_tilt_deg}: an .xf and a .tlt cannot say that",
                hint="align without x-tilt, or reconstruct with RELION",
            )
        angle = math.radians(alignment.z_rot_deg)
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = stack.offset_px((alignment.x_shift_angstrom, alignment.y_shift_angstrom))
        transforms.append(Transform(cos, sin, -sin, cos, -(cos * x + sin * y), sin * x - cos * y))
    return ImodFiles(
        tuple(transforms),
        tuple(angle_sign * alignment.y_tilt_deg for alignment in alignments),
        tuple(angle_sign * alignment.x_tilt_deg for alignment in alignments),
    )


def _refuse_identity(transforms: Sequence[Transform]) -> None:
    if len(transforms) > 1 and all(
        t == Transform(1.0, 0.0, 0.0, 1.0, 0.0, 0.0) for t in transforms
    ):
        raise CrboostError(
            "every transform of the .xf is the identity: it belongs to a stack that is aligned "
            "already",
            hint="AreTomo writes such files with -OutImod 3; use -OutImod 1 or 2, or the .aln",
        )


def _expect(path: Path, what: str, found: int, count: int | None) -> None:
    if count is not None and found != count:
        raise FileFormatError(path, f"{count} {what} expected, found {found}")
    if found == 0:
        raise FileFormatError(path, f"holds no {what}")
