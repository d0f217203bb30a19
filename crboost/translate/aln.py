"""AreTomo's alignment file, `.aln`, of AreTomo2 1.2 and 1.3 and of AreTomo3.

The dialects (AreTomo2 `CSaveAlnFile.cpp`, `CAlignFile.cpp`; AreTomo3 `CSaveAlignFile.cpp`):

- 1.2: `# 41  0` (images, patches), then `# SEC ROT ...` and one line per image;
- 1.3 and later: `# RawSize = x y n`, `# NumPatches = p`, `# DarkFrame = order section angle`;
- AreTomo3: also `# AlphaOffset`, `# BetaOffset`, `# Thickness`; SEC counts from 1, not from 0.

SEC is the image's place in the stack that AreTomo read; in the file the images are sorted by
angle, without the dark ones. Below `# Local Alignment` stand the shifts of patches, which RELION's
columns cannot hold.
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
from crboost.translate.text_lines import number, read_lines, whole

_OLD_COUNTS = re.compile(r"#\s+(\d+)\s+(\d+)\s*")
_VALUE = re.compile(r"#\s*(\w+(?: \w+)?)\s*=\s*(.*)")
_DARK_NAMES = ("DarkFrame", "Dark frame")
_COLUMNS = ("SEC", "ROT", "GMAG", "TX", "TY", "SMEAN", "SFIT", "SCALE", "BASE", "TILT")


@dataclass(frozen=True)
class AlnTilt:
    """One aligned image.

    Attributes:
        section: its place in the stack, from 0.
        axis_deg: ROT, the tilt axis, counter-clockwise from +y.
        shift_px: TX and TY, where the specimen's centre lies, from the image's middle.
        tilt_deg: TILT, with the offset that AreTomo found.
    """

    section: int
    axis_deg: float
    shift_px: tuple[float, float]
    tilt_deg: float


@dataclass(frozen=True)
class DarkFrame:
    """One image that AreTomo left out.

    Attributes:
        order: its place among all images sorted by angle, from 0.
        section: its place in the stack, from 0.
    """

    order: int
    section: int
    tilt_deg: float


@dataclass(frozen=True)
class LocalShift:
    """The shift of one patch in one aligned image, in pixels from the middle; see AreTomo."""

    tilt: int
    patch: int
    position_px: tuple[float, float]
    shift_px: tuple[float, float]
    good: float


@dataclass(frozen=True)
class AlnFile:
    """An `.aln` file.

    Attributes:
        images: in the stack that AreTomo read, dark ones among them.
        stack_size_px: (x, y) of that stack; None in files of AreTomo2 1.2.
        tilts: the aligned images, as in the file: by angle.
        alpha_offset_deg: AreTomo3: the offset that is in every `tilt_deg` already.
        beta_offset_deg: AreTomo3: the specimen's slope along the tilt axis; its CTF fit knows it,
            its alignment does not.
        thickness_px: of the specimen, AreTomo3 only.
    """

    images: int
    stack_size_px: tuple[int, int] | None
    tilts: tuple[AlnTilt, ...]
    darks: tuple[DarkFrame, ...] = ()
    patches: int = 0
    local: tuple[LocalShift, ...] = ()
    alpha_offset_deg: float | None = None
    beta_offset_deg: float | None = None
    thickness_px: int | None = None


def read_aln(path: Path, *, images: int | None = None) -> AlnFile:
    """Read an `.aln` file of any dialect; sections count from 0 afterwards.

    Whether the file counts from 0 or 1 is not written in it. Aligned and dark images together
    are all images of the stack, so the sections tell.

    Args:
        images: in the stack, where the caller knows: checked, and needed for files of 1.2,
            which do not say whether dark images follow the last aligned one.

    Raises:
        FileFormatError: the file is not complete, or contradicts itself or `images`.
    """
    draft = _Draft(path)
    for index, line in enumerate(read_lines(path), start=1):
        draft.take(index, line)
    return draft.finished(images)


def aln_alignments(
    names: Sequence[str], aln: AlnFile, stack: ImageStack, *, angle_sign: int = 1
) -> dict[str, TiltAlignment | str]:
    """Alignments from an `.aln`: tilt image -> alignment, or why it has none.

    YTilt = TILT, ZRot = ROT, the shift is TX, TY: RELION reads the same
    (`AlignTiltseriesRunner::readAreTomoResults`), and AreTomo's own model says so: x' = x cos t +
    z sin t (`GBackProj.cu`), then the image is R(axis) p' + shift (`GCorrPatchShift.cu`).

    Args:
        names: the tilt images in the order of the stack that AreTomo read.
        stack: what a pixel of that stack is in the full-size image.
        angle_sign: -1 for a stack whose angles have Warp's sign.

    Raises:
        CrboostError: the stack does not have as many images.
    """
    if len(names) != aln.images:
        raise CrboostError(
            f"the stack has {len(names)} tilt images, the .aln is of a stack of {aln.images}",
            hint="list the tilt images that the stack was made from, in its order",
        )
    alignments: dict[str, TiltAlignment | str] = dict.fromkeys(names, "AreTomo left it out")
    for dark in aln.darks:
        alignments[names[dark.section]] = "AreTomo took it for a dark image"
    for tilt in aln.tilts:
        shift = stack.shift_angstrom(tilt.shift_px)
        alignments[names[tilt.section]] = TiltAlignment(
            0.0, angle_sign * tilt.tilt_deg, tilt.axis_deg, *shift
        )
    return alignments


def local_warnings(aln: AlnFile, stack: ImageStack) -> list[str]:
    """What of AreTomo's local alignment RELION's rows go without."""
    used = [math.hypot(*one.shift_px) for one in aln.local if one.good > 0.9]
    if not used:
        return []
    most = max(used) * stack.pixel_size_angstrom
    return [
        f"AreTomo moved patches by themselves, by up to {most:.3g} A; RELION's tables "
        "cannot say so and go without"
    ]


class _Draft:
    """The lines of an `.aln` file, taken one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_size: tuple[int, int, int] | None = None
        self.old_count: int | None = None
        self.patches = 0
        self.offsets: dict[str, float] = {}
        self.darks: list[tuple[int, int, float]] = []
        self.tilts: list[tuple[int, AlnTilt]] = []
        self.local: list[LocalShift] = []
        self.in_local = False
        self.titled = False

    def take(self, index: int, line: str) -> None:
        text = line.strip()
        if not text:
            return
        if text.startswith("#"):
            self._header(index, text)
        elif self.in_local:
            self._local(index, text.split())
        else:
            self._tilt(index, text.split())

    def _header(self, index: int, text: str) -> None:
        if "AreTomo Alignment" in text:
            self.titled = True
        if "Local Alignment" in text:
            self.in_local = True
            return
        old = _OLD_COUNTS.fullmatch(text)
        if old:
            self.old_count, self.patches = int(old[1]), int(old[2])
            return
        value = _VALUE.fullmatch(text)
        if not value:
            return
        name, words = value[1], value[2].split()
        if name == "RawSize":
            x, y, n = self._numbers(index, name, words, 3)
            self.raw_size = (int(x), int(y), int(n))
        elif name == "NumPatches":
            self.patches = int(self._numbers(index, name, words, 1)[0])
        elif name in _DARK_NAMES:
            order, section, angle = self._numbers(index, name, words, 3)
            self.darks.append((int(order), int(section), angle))
        elif name in ("AlphaOffset", "BetaOffset", "Thickness"):
            self.offsets[name] = self._numbers(index, name, words, 1)[0]

    def _numbers(self, index: int, name: str, words: list[str], count: int) -> list[float]:
        if len(words) != count:
            raise FileFormatError(
                self.path, f"{name}: {count} values expected, found {len(words)}", line=index
            )
        return [number(self.path, index, name, word) for word in words]

    def _tilt(self, index: int, words: list[str]) -> None:
        if len(words) != len(_COLUMNS):
            raise FileFormatError(
                self.path,
                f"{len(_COLUMNS)} columns expected ({' '.join(_COLUMNS)}), found {len(words)}",
                line=index,
            )
        section = whole(self.path, index, "SEC", words[0])
        values = {
            name: number(self.path, index, name, word)
            for name, word in zip(_COLUMNS[1:], words[1:], strict=True)
        }
        if any(section == tilt.section for _, tilt in self.tilts):
            raise FileFormatError(self.path, f"section {section} appears twice", line=index)
        self.tilts.append(
            (
                index,
                AlnTilt(section, values["ROT"], (values["TX"], values["TY"]), values["TILT"]),
            )
        )

    def _local(self, index: int, words: list[str]) -> None:
        # AreTomo2 up to 1.2 has no seventh column.
        if len(words) not in (6, 7):
            raise FileFormatError(
                self.path, f"local alignment: 7 columns expected, found {len(words)}", line=index
            )
        tilt, patch = (whole(self.path, index, "local alignment", word) for word in words[:2])
        x, y, dx, dy = (number(self.path, index, "local alignment", w) for w in words[2:6])
        good = number(self.path, index, "local alignment", words[6]) if len(words) == 7 else 1.0
        self.local.append(LocalShift(tilt, patch, (x, y), (dx, dy), good))

    def finished(self, expected: int | None) -> AlnFile:
        if not self.tilts:
            what = "holds no aligned image" if self.titled else "is no AreTomo alignment file"
            raise FileFormatError(self.path, what)
        images = self._images(expected)
        first = self._first_section(images)
        tilts = []
        for index, tilt in self.tilts:
            section = tilt.section - first
            if not 0 <= section < images:
                raise FileFormatError(
                    self.path, f"section {tilt.section} of a stack of {images} images", line=index
                )
            tilts.append(AlnTilt(section, tilt.axis_deg, tilt.shift_px, tilt.tilt_deg))
        thickness = self.offsets.get("Thickness")
        return AlnFile(
            images,
            self.raw_size[:2] if self.raw_size else None,
            tuple(tilts),
            self._dark_frames(images, first, {tilt.section for tilt in tilts}),
            self.patches,
            tuple(self.local),
            self.offsets.get("AlphaOffset"),
            self.offsets.get("BetaOffset"),
            None if thickness is None else int(thickness),
        )

    def _images(self, expected: int | None) -> int:
        if self.raw_size is not None:
            images = self.raw_size[2]
            if expected is not None and expected != images:
                raise FileFormatError(
                    self.path, f"is of a stack of {images} images, the stack has {expected}"
                )
        else:
            last = max(tilt.section for _, tilt in self.tilts)
            images = expected or max(self.old_count or 0, len(self.tilts), last + 1)
        found = len(self.tilts) + len(self.darks)
        # 1.2 does not say which images were dark.
        if found != images and (self.raw_size is not None or found > images):
            raise FileFormatError(
                self.path,
                f"{len(self.tilts)} aligned and {len(self.darks)} dark images of {images}: "
                "the file is not complete",
            )
        return images

    def _first_section(self, images: int) -> int:
        """What the file calls the stack's first image: 0 or 1.

        The aligned sections say it, unless both ends of the stack are dark; then the dark ones.
        """
        if self.raw_size is None:
            return 0  # AreTomo2 1.2 counts from 0
        aligned = {tilt.section for _, tilt in self.tilts}
        if 0 in aligned:
            return 0
        if images in aligned:
            return 1
        everything = aligned | {section for _, section, _ in self.darks}
        for first in (0, 1):
            if everything == set(range(first, first + images)):
                return first
        raise FileFormatError(
            self.path,
            "its sections do not tell whether they count from 0 or from 1",
            hint="first and last image of the stack must be aligned or listed as DarkFrame",
        )

    def _dark_frames(self, images: int, first: int, aligned: set[int]) -> tuple[DarkFrame, ...]:
        """The dark images. What is not aligned is dark.

        Some versions print the section of another image (AreTomo2 `CAlignFile::mSaveHeader`
        asks for the i-th of all, not the i-th dark one), and AreTomo3 reads them by their order
        (`CLoadAlignFile::mToOneBased`): a section that cannot be is replaced.
        """
        if not self.darks:
            return ()
        rest = [section for section in range(images) if section not in aligned]
        listed = [section - first for _, section, _ in self.darks]
        if sorted(listed) != rest:
            listed = self._sorted_like_stack(rest)
        return tuple(
            DarkFrame(order, section, angle)
            for (order, _, angle), section in zip(self.darks, listed, strict=True)
        )

    def _sorted_like_stack(self, rest: list[int]) -> list[int]:
        """`rest` dealt out to the dark images; stacks are sorted by angle, up or down."""
        ordered = [tilt for _, tilt in sorted(self.tilts, key=lambda pair: pair[1].section)]
        upwards = len(ordered) < 2 or ordered[0].tilt_deg <= ordered[-1].tilt_deg
        ranks = sorted(range(len(self.darks)), key=lambda i: self.darks[i][2])
        places = rest if upwards else rest[::-1]
        sections = [0] * len(rest)
        for rank, place in zip(ranks, places, strict=True):
            sections[rank] = place
        return sections
