"""Fourier and resampling helpers shared by the CPU tools; images are [y, x], centre at n // 2."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.fft as sfft
import scipy.ndimage as ndimage

from crboost.cpu.arrays import Complexes, Floats


def frequency_grid(shape: tuple[int, int], pixel_size: float = 1.0) -> tuple[Floats, Floats]:
    """Frequencies (fy, fx) of an `rfft2`, in 1/unit of `pixel_size`, ready to broadcast."""
    fy = sfft.fftfreq(shape[0], pixel_size).astype(np.float32)[:, None]
    fx = sfft.rfftfreq(shape[1], pixel_size).astype(np.float32)[None, :]
    return fy, fx


def shift_phases(shape: tuple[int, int], shift_yx_px: tuple[float, float]) -> Complexes:
    """Phase factors that move an image by +`shift_yx_px` when multiplied with its `rfft2`."""
    fy, fx = frequency_grid(shape)
    along_y = np.exp(-2j * np.pi * fy * shift_yx_px[0])
    along_x = np.exp(-2j * np.pi * fx * shift_yx_px[1])
    phases: Complexes = (along_y * along_x).astype(np.complex64)
    return phases


def sub_pixel_peak(correlation: Floats) -> tuple[float, float]:
    """Position (y, x) of the maximum of a wrapped correlation map, parabola through its neighbours.

    Positions beyond half the map count as negative.
    """
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    position = []
    for axis, size in enumerate(correlation.shape):
        index = list(peak)
        values = []
        for step in (-1, 0, 1):
            index[axis] = (int(peak[axis]) + step) % size
            values.append(float(correlation[tuple(index)]))
        curvature = values[0] - 2 * values[1] + values[2]
        fraction = 0.5 * (values[0] - values[2]) / curvature if curvature < 0 else 0.0
        place = float(peak[axis]) + fraction
        position.append(place - size if place > size / 2 else place)
    return position[0], position[1]


def within(shape: tuple[int, int], max_shift_px: float) -> Floats:
    """1 where a wrapped correlation map stands for a shift up to `max_shift_px`, else 0."""
    y = np.abs(sfft.fftfreq(shape[0], 1 / shape[0])) <= max_shift_px
    x = np.abs(sfft.fftfreq(shape[1], 1 / shape[1])) <= max_shift_px
    return (y[:, None] & x[None, :]).astype(np.float32)


def displacement(image: Floats, reference: Floats, max_shift_px: float) -> tuple[float, float]:
    """By how much (y, x) `image` is displaced against `reference`, by cross-correlation."""
    product = sfft.rfft2(image) * np.conj(sfft.rfft2(reference))
    correlation = sfft.irfft2(product, s=image.shape)
    allowed = within((image.shape[0], image.shape[1]), max_shift_px)
    return sub_pixel_peak((correlation - correlation.min()) * allowed)


def band_pass(image: Floats, low: float, high: float) -> Floats:
    """Gaussian band-pass between `low` and `high`, in cycles per pixel; removes the mean."""
    fy, fx = frequency_grid((image.shape[0], image.shape[1]))
    squared = fy**2 + fx**2
    weight = (1 - np.exp(-squared / low**2)) * np.exp(-squared / (2 * high**2))
    filtered: Floats = sfft.irfft2(sfft.rfft2(image) * weight, s=image.shape)
    return filtered


def low_pass(image: Floats, cutoff: float) -> Floats:
    """Keep frequencies up to `cutoff` (cycles per pixel) along each axis, with a sharp edge."""
    fy, fx = frequency_grid((image.shape[0], image.shape[1]))
    weight = (np.abs(fy) <= cutoff) & (fx <= cutoff)
    filtered: Floats = sfft.irfft2(sfft.rfft2(image) * weight, s=image.shape)
    return filtered


def bin_image(image: Floats, factor: int) -> Floats:
    """Bin by an integer factor by cropping the Fourier transform; the mean is kept.

    The result's sides are even and its pixel (n // 2, m // 2) lies exactly on that of the input:
    the input is cropped around its centre to a multiple first.
    """
    if factor == 1:
        return image
    target = [2 * (side // (2 * factor)) for side in image.shape]
    if min(target) == 0:
        raise ValueError(f"an image of {image.shape} cannot be binned by {factor}")
    starts = [s // 2 - t * factor // 2 for s, t in zip(image.shape, target, strict=True)]
    cropped = image[
        starts[0] : starts[0] + target[0] * factor, starts[1] : starts[1] + target[1] * factor
    ]
    spectrum = sfft.rfft2(cropped)
    half = target[0] // 2
    kept = np.concatenate([spectrum[:half], spectrum[-half:]])[:, : target[1] // 2 + 1]
    binned: Floats = sfft.irfft2(kept, s=target) / factor**2
    return binned


def edge_window(shape: tuple[int, int], fraction: float = 0.1) -> Floats:
    """1 inside, falling to 0 by a cosine over `fraction` of the sides at each edge."""
    sides = []
    for size in shape:
        width = max(2, int(size * fraction))
        ramp = 0.5 * (1 - np.cos(np.pi * (np.arange(width) + 0.5) / width))
        side = np.ones(size, np.float32)
        side[:width] = ramp
        side[-width:] = ramp[::-1]
        sides.append(side)
    window: Floats = sides[0][:, None] * sides[1][None, :]
    return window


def resample(
    image: Floats,
    z_rot_deg: float,
    shift_xy_px: tuple[float, float],
    *,
    shape: tuple[int, int] | None = None,
    centre_yx: tuple[float, float] | None = None,
    scale: float = 1.0,
    stretch: float = 1.0,
    order: Literal[1, 3] = 1,
    fill: float = 0.0,
) -> Floats:
    """Take a tilt image into the frame of the tilt axis: x' across the axis, y' along it.

    `out(x', y') = image(Rz(z_rot) (x' * stretch, y') * scale + shift)`, coordinates counted from
    the centres.

    Args:
        image: [y, x].
        z_rot_deg: RELION's rlnTomoZRot.
        shift_xy_px: where the tilt axis' centre lies in the image, in pixels of the image.
        shape: of the result, [y, x]; the image's by default.
        centre_yx: of the result, in its pixels; n // 2 by default.
        scale: pixels of the image per pixel of the result.
        stretch: extra scale across the axis, for cosine stretching.
        order: of the spline; 1 is bilinear, 3 keeps more of the fine detail.
        fill: value outside the image.
    """
    rows, columns = shape or (image.shape[0], image.shape[1])
    centre = centre_yx or (rows // 2, columns // 2)
    angle = np.deg2rad(z_rot_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix: npt.NDArray[np.float64] = scale * np.array(
        [[cos, sin * stretch], [-sin, cos * stretch]]
    )
    origin = np.array([image.shape[0] // 2 + shift_xy_px[1], image.shape[1] // 2 + shift_xy_px[0]])
    offset: npt.NDArray[np.float64] = origin - matrix @ np.array(centre, float)
    resampled: Floats = ndimage.affine_transform(
        image,
        matrix,
        offset=offset,
        output_shape=(rows, columns),
        order=order,
        mode="constant",
        cval=fill,
    )
    return resampled
