"""Gain references: recognising one, and whether it fits the camera's images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crboost.acquisition.movies import inspect_movie
from crboost.errors import FileFormatError

GainFormat = Literal["MRC", "TIFF"]


@dataclass(frozen=True, slots=True)
class GainReference:
    """A gain reference file: one image. Falcon's `.gain` files are TIFFs."""

    path: Path
    format: GainFormat
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class GainFit:
    """Whether a gain reference fits images of a given size.

    Args:
        fits: it can be used, transposed if `transpose` says so.
        transpose: width and height are swapped.
        message: what was found, or None where the sizes are equal and not square.
    """

    fits: bool
    transpose: bool
    message: str | None


def read_gain(path: Path) -> GainReference:
    """Read the header of a gain reference.

    Raises:
        FileFormatError: it is missing, no MRC or TIFF image, cut off, or a stack of images.
    """
    if not path.is_file():
        raise FileFormatError(path, "there is no such gain reference")
    if path.suffix.lower() in (".dm3", ".dm4"):
        raise FileFormatError(
            path,
            "gain references in DigitalMicrograph's format cannot be read",
            hint="convert it with IMOD's dm2mrc, or e2proc2d.py, to MRC",
        )
    image = inspect_movie(path)
    if image.problem is not None or image.width_px is None or image.height_px is None:
        raise FileFormatError(path, f"not a gain reference: {image.problem or 'it has no size'}")
    if image.frame_count != 1:
        raise FileFormatError(
            path, f"a gain reference is one image, and this has {image.frame_count}"
        )
    kind: GainFormat = "MRC" if image.format == "MRC" else "TIFF"
    return GainReference(path, kind, image.width_px, image.height_px)


def fit_gain(gain: GainReference, images_px: tuple[int, int]) -> GainFit:
    """Compare a gain reference with images of `images_px` (width, height) pixels.

    Nothing but sizes is compared: flips, and transposition of a square one, cannot be seen.
    """
    size = (gain.width_px, gain.height_px)
    told = f"gain reference {gain.path.name} is {size[0]} x {size[1]} px"
    wanted = f"the movies are {images_px[0]} x {images_px[1]} px"
    if size == images_px:
        return GainFit(True, False, None)
    if size == images_px[::-1]:
        return GainFit(
            True, True, f"{told}, {wanted}: transpose it (acquisition gain transposition)"
        )
    for large, small, hint in (
        (size, images_px, "it was taken in super resolution and must be binned by 2"),
        (images_px, size, "the movies are in super resolution and the gain reference is not"),
    ):
        if sorted(large) == sorted(2 * side for side in small):
            return GainFit(
                False, large != (2 * small[0], 2 * small[1]), f"{told}, {wanted}: {hint}"
            )
    return GainFit(False, False, f"{told}, {wanted}: it does not belong to these movies")
