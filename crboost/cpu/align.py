"""Tilt-series alignment: dead tilts, coarse shifts by cross-correlation, the tilt axis' angle.

Shifts here are (x, y) in pixels of the images at hand, as in `geometry.TiltAlignment`: where the
specimen's centre lies in the image, counted from the image's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.fft as sfft

from crboost.cpu.arrays import Floats
from crboost.cpu.fourier import band_pass, bin_image, displacement, edge_window, resample

#: Neighbours (in tilt angle) that say how bright a tilt should be.
BRIGHTNESS_NEIGHBOURS = 8
COARSE_ITERATIONS = 3
#: (half width, step) in degrees of the searches for the tilt axis.
AXIS_SEARCHES = ((4.0, 0.5), (1.5, 0.5))


def dead_tilts(means: Sequence[float], tilts_deg: Sequence[float], threshold: float) -> list[float]:
    """How bright each tilt is against what it should be, where that is too dark to be used.

    The expectation is the median of the eight nearest tilts' mean, each scaled by the ratio of the
    cosines: a tilted slab is longer for the beam, so high tilts really are darker. Tilts found
    dark are left out of the next round, so that a whole dark block does not vouch for itself.

    Args:
        means: mean intensity of each tilt.
        tilts_deg: tilt angles.
        threshold: fraction of the expectation below which a tilt is dead.

    Returns:
        per tilt the ratio to the expectation if it is dead, else NaN.
    """
    mean = np.asarray(means, float)
    angle = np.asarray(tilts_deg, float)
    cos = np.cos(np.deg2rad(angle))
    ratios = np.full(len(mean), np.nan)
    while True:
        alive = np.isnan(ratios)
        found = False
        for index in np.flatnonzero(alive):
            others = np.flatnonzero(alive & (np.arange(len(mean)) != index))
            nearest = others[np.argsort(np.abs(angle[others] - angle[index]), kind="stable")]
            nearest = nearest[:BRIGHTNESS_NEIGHBOURS]
            if len(nearest) < 2:
                continue
            expected = float(np.median(mean[nearest] * cos[index] / cos[nearest]))
            if expected > 0 and mean[index] < threshold * expected:
                ratios[index] = mean[index] / expected
                found = True
        if not found:
            return [float(ratio) for ratio in ratios]


def prepare(image: Floats, binning: int) -> Floats:
    """Bin, flatten and band-pass one tilt image for alignment; dense things come out *bright*."""
    relative = bin_image(image.astype(np.float32), binning)
    relative = relative / max(float(np.median(relative)), 1e-6) - 1
    low, high = np.percentile(relative, [0.05, 99.95])
    return (-band_pass(np.clip(relative, low, high), 0.01, 0.2)).astype(np.float32)


def coarse_shifts(images: Sequence[Floats], tilts_deg: Sequence[float], axis_deg: float) -> Floats:
    """Shifts by cosine-stretched cross-correlation of neighbours, from the lowest tilt outwards.

    Each image is stretched across the tilt axis by the ratio of the cosines, so that a flat
    specimen looks the same as in its neighbour (the method of IMOD's tiltxcorr, Guckenberger 1982).

    Args:
        images: prepared, equal in size.
        tilts_deg: in any order.
        axis_deg: of the tilt axis.

    Returns:
        (tilts, 2) shifts (x, y) in pixels; the lowest tilt's is 0.
    """
    tilts = np.asarray(tilts_deg, float)
    order = np.argsort(tilts)
    start = int(np.argmin(np.abs(tilts[order])))
    shape = (images[0].shape[0], images[0].shape[1])
    window = edge_window(shape)
    limit = min(shape) / 3
    angle = np.deg2rad(axis_deg)
    shifts = np.zeros((len(tilts), 2))
    for branch in (order[start:], order[: start + 1][::-1]):
        for previous, current in pairwise(branch):
            stretch = float(
                np.cos(np.deg2rad(tilts[current])) / np.cos(np.deg2rad(tilts[previous]))
            )
            reference = resample(images[previous], axis_deg, _pair(shifts[previous])) * window
            shifts[current] = shifts[previous]
            for _ in range(COARSE_ITERATIONS):
                moved = resample(images[current], axis_deg, _pair(shifts[current]), stretch=stretch)
                along, across = displacement(moved * window, reference, limit)
                across *= stretch
                step = (
                    np.cos(angle) * across - np.sin(angle) * along,
                    np.sin(angle) * across + np.cos(angle) * along,
                )
                shifts[current] += step
                if np.abs(step).max() < 0.1:
                    break
    return shifts


def refine_axis(
    images: Sequence[Floats], axis_deg: float, shifts: Floats, half_width: float, step: float
) -> float:
    """Angle of the tilt axis at which the tilts agree best on their common line.

    Summed across the tilt axis, every tilt shows the same profile; the search looks for the angle
    at which the profiles' Fourier coefficients add up best. Good to about a degree.
    """
    # Nothing finer than 0.2 cycles per pixel is compared, so half the pixels do.
    images = [bin_image(image, 2) for image in images]
    shifts = shifts / 2
    window = edge_window((images[0].shape[0], images[0].shape[1]), 0.12)
    frequency = sfft.rfftfreq(images[0].shape[0])
    band = (frequency > 0.03) & (frequency < 0.4)

    def agreement(angle: float) -> float:
        profiles = np.array(
            [
                (resample(image, angle, _pair(shift)) * window).sum(axis=1)
                for image, shift in zip(images, shifts, strict=True)
            ]
        )
        spectra = sfft.rfft(profiles - profiles.mean(axis=1, keepdims=True), axis=1)[:, band]
        spectra /= np.sqrt((np.abs(spectra) ** 2).mean(axis=1, keepdims=True)) + 1e-12
        return float((np.abs(spectra.sum(axis=0)) ** 2).sum() / (np.abs(spectra) ** 2).sum())

    angles = np.arange(axis_deg - half_width, axis_deg + half_width + step / 2, step)
    scores = np.array([agreement(float(angle)) for angle in angles])
    best = int(np.argmax(scores))
    if not 0 < best < len(angles) - 1:
        return float(angles[best])
    before, at, after = scores[best - 1 : best + 2]
    return float(angles[best] + 0.5 * (before - after) / (before - 2 * at + after) * step)


def coarse_alignment(
    images: Sequence[Floats], tilts_deg: Sequence[float], axis_deg: float
) -> tuple[Floats, float]:
    """Shifts and tilt axis without beads: both in turn, twice."""
    shifts: Floats = np.zeros((len(images), 2))
    for half_width, step in AXIS_SEARCHES:
        shifts = coarse_shifts(images, tilts_deg, axis_deg)
        axis_deg = refine_axis(images, axis_deg, shifts, half_width, step)
    return shifts, axis_deg


def _pair(shift: Floats) -> tuple[float, float]:
    return float(shift[0]), float(shift[1])
