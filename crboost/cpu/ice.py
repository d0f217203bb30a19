"""How strong the ice ring is: crystalline ice scatters at 0.25 to 0.28 1/Å."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crboost.cpu.arrays import Floats

Mask = NDArray[np.bool_]

#: The band that RELION sums (`CtffindRunner::getCtffind4Results`), and the bands beside it.
BAND_PER_ANGSTROM = (0.25, 0.28)
BESIDE_PER_ANGSTROM = ((0.22, 0.25), (0.28, 0.31))


def ice_ring_density(spectrum: Floats, pixel_size_angstrom: float) -> float:
    """Sum over the ice band of the rotational average's relative excess over its surroundings.

    RELION's `rlnCtfIceRingDensity` is the sum of |normalised amplitude| over the same band of
    ctffind's rotational average; the scales differ, the ranking does not. As there, images whose
    pixels are too large to hold the band have 0.

    Args:
        spectrum: mean periodogram as an `rfft2`, `[n, n // 2 + 1]`.
        pixel_size_angstrom: of the image.
    """
    size = spectrum.shape[0]
    step = 1 / (size * pixel_size_angstrom)
    if BESIDE_PER_ANGSTROM[1][1] >= size // 2 * step:
        return 0.0
    fy, fx = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None, :]
    radius = np.rint(np.hypot(fy, fx)).astype(int)
    counts = np.bincount(radius.ravel())
    amplitude = np.bincount(radius.ravel(), np.sqrt(spectrum).ravel()) / np.maximum(counts, 1)
    frequency = np.arange(len(amplitude)) * step

    def between(low: float, high: float) -> Mask:
        inside: Mask = (frequency >= low) & (frequency < high)
        return inside

    beside = between(*BESIDE_PER_ANGSTROM[0]) | between(*BESIDE_PER_ANGSTROM[1])
    band = between(*BAND_PER_ANGSTROM)
    if beside.sum() < 4 or not band.any():
        return 0.0
    slope, level = np.polyfit(frequency[beside], amplitude[beside], 1)
    background = np.maximum(slope * frequency[band] + level, 1e-12)
    return float(np.abs(amplitude[band] / background - 1).sum())
