"""Weighted back-projection of an aligned tilt series.

Voxel (i, j, k) of the tomogram, counted x, y, z, stands for the point (i, j, k) * binning of
RELION's unbinned tomogram, whose centre is size // 2. The contrast is the images' own, as in
`relion_tomo_reconstruct_tomogram`: protein and gold are dark. Every image is taken relative to its
own mean, so that high tilts do not count less for being darker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crboost.cpu.arrays import Floats
from crboost.cpu.dose import weight_image
from crboost.cpu.fourier import bin_image, low_pass, resample
from crboost.cpu.geometry import TiltAlignment
from crboost.cpu.projector import Projector, ramp_filter

#: Slices reconstructed at a time; bounds the memory of the back-projection.
SLAB_PX = 64
#: An x-tilt up to this is a rounding error; more cannot be done slice by slice.
MAX_X_TILT_DEG = 0.01


@dataclass(frozen=True)
class TomogramGrid:
    """Size and sampling of a tomogram.

    Attributes:
        size_px: unbinned size (x, y, z).
        binning: voxel size over pixel size of the tilt images.
    """

    size_px: tuple[int, int, int]
    binning: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the array, [z, y, x], by RELION's rounding."""
        x, y, z = self.size_px
        return int(z / self.binning), int(y / self.binning + 0.5), int(x / self.binning + 0.5)

    def coordinates(self, axis: int) -> Floats:
        """Where the voxels along `axis` (0 x, 1 y, 2 z) lie from the centre, in voxels."""
        count = self.shape[2 - axis]
        return np.arange(count) - (self.size_px[axis] // 2) / self.binning


@dataclass(frozen=True)
class TiltImage:
    """One aligned tilt image; `exposure_e_per_a2` None means no dose weighting."""

    image: Floats
    alignment: TiltAlignment
    exposure_e_per_a2: float | None = None


def reconstruct(
    tilts: Sequence[TiltImage] | Iterator[TiltImage],
    grid: TomogramGrid,
    pixel_size_angstrom: float,
    voltage_kv: float = 300.0,
) -> Floats:
    """Reconstruct one tomogram [z, y, x], y along the tilt axis.

    Images are taken one at a time (an iterator may read them from disk), dose-weighted (Grant &
    Grigorieff 2015), binned by Fourier cropping, turned into the tilt axis' frame, ramp-filtered,
    and back-projected in slabs of slices.

    Args:
        tilts: images with their alignment.
        grid: of the tomogram.
        pixel_size_angstrom: of the images.
        voltage_kv: for the dose weighting.

    Raises:
        ValueError: an x-tilt, which slice-by-slice back-projection cannot do; no tilts.
    """
    lines: list[Floats] = []
    angles: list[float] = []
    for tilt in tilts:
        if abs(tilt.alignment.x_tilt_deg) > MAX_X_TILT_DEG:
            raise ValueError(
                f"x_tilt_deg is {tilt.alignment.x_tilt_deg:g}; this tool can only do 0"
            )
        lines.append(_line_image(tilt, grid, pixel_size_angstrom, voltage_kv))
        angles.append(tilt.alignment.y_tilt_deg)
    if not lines:
        raise ValueError("no tilt images to reconstruct from")
    stack = np.stack(lines)
    del lines
    projector = Projector(grid.coordinates(0), grid.coordinates(2), angles, stack.shape[2])
    volume = np.empty(grid.shape, np.float32)
    for start in range(0, grid.shape[1], SLAB_PX):
        slab = slice(start, start + SLAB_PX)
        volume[:, slab] = projector.back_project(ramp_filter(stack[:, slab]))
    volume *= np.pi / len(angles)
    return volume


def _line_image(
    tilt: TiltImage, grid: TomogramGrid, pixel_size_angstrom: float, voltage_kv: float
) -> Floats:
    """The image in the tilt axis' frame on the tomogram's sampling, [y, x'], zero mean."""
    image = np.asarray(tilt.image, np.float32)
    mean = float(image.mean())
    relative = image / mean - 1 if mean > 0 else image - mean
    if tilt.exposure_e_per_a2 is not None:
        relative = weight_image(relative, pixel_size_angstrom, tilt.exposure_e_per_a2, voltage_kv)
    whole = max(1, int(grid.binning + 1e-6))
    binned = bin_image(relative, whole)
    rest = grid.binning / whole
    if rest > 1.001:
        binned = low_pass(binned, 0.5 / rest)
    shift = tilt.alignment.shift_px(pixel_size_angstrom * whole)
    height = grid.shape[1]
    width = 2 * (int(np.ceil(np.hypot(*binned.shape) / rest)) // 2 + 1)
    line: Floats = resample(
        binned,
        tilt.alignment.z_rot_deg,
        shift,
        shape=(height, width),
        centre_yx=((grid.size_px[1] // 2) / grid.binning, width // 2),
        scale=rest,
        order=3,
    ).astype(np.float32)
    return line


def tomogram_grid(
    image_size_px: tuple[int, int],
    z_rot_deg: float,
    pixel_size_angstrom: float,
    tomogram_pixel_size_angstrom: float,
    thickness_nm: float,
    size_px: tuple[int, int, int] | None,
) -> TomogramGrid:
    """The grid for a tilt series: what is asked for, or the image's size and the thickness.

    A tilt axis that lies closer to the image's x than to its y swaps the sides of the image, so
    that the tomogram covers the field of view. Sizes are made even multiples of the binning.

    Args:
        image_size_px: (x, y).
        z_rot_deg: of the tilt axis.
        pixel_size_angstrom: of the images.
        tomogram_pixel_size_angstrom: wanted; a value below the images' gives binning 1.
        thickness_nm: of the tomogram, where no size is given.
        size_px: unbinned (x, y, z), or None.
    """
    binning = max(1.0, tomogram_pixel_size_angstrom / pixel_size_angstrom)
    if abs(binning - round(binning)) < 1e-3:
        binning = float(round(binning))
    if size_px is not None:
        return TomogramGrid(size_px, binning)
    sideways = abs(np.sin(np.deg2rad(z_rot_deg))) > np.sqrt(0.5)
    x, y = image_size_px[::-1] if sideways else image_size_px
    z = thickness_nm * 10 / pixel_size_angstrom
    step = 2 * int(np.ceil(binning))
    sizes = [max(step, step * round(side / step)) for side in (x, y, z)]
    return TomogramGrid((sizes[0], sizes[1], sizes[2]), binning)
