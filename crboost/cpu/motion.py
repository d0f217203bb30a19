"""Rigid frame motion: each frame against the sum of the others, until nothing moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft as sfft
import scipy.ndimage as ndimage

from crboost.cpu.arrays import Floats, Movie
from crboost.cpu.fourier import frequency_grid, shift_phases, sub_pixel_peak, within

MAX_ITERATIONS = 8
CONVERGED_PX = 0.02
MAX_SHIFT_ANGSTROM = 160.0
#: A pixel that is this many standard deviations too bright in the sum of all frames is defective.
HOT_PIXEL_SIGMA = 8.0
#: A correlation peak must stand out by this many standard deviations (noise reaches 5, frames of
#: an ordinary movie 15 and more); a frame without one is left where it is.
MIN_PEAK_SIGMA = 6.0
#: Motion up to this dose counts as early (RELION's rlnAccumMotionEarly).
EARLY_DOSE_E_PER_A2 = 4.0


@dataclass(frozen=True)
class Motion:
    """Frames brought onto each other.

    Attributes:
        shifts_px: (frames, 2) as (y, x): where each frame lies against the first one.
        average: sum of all frames, aligned to the mean position of the frames, [y, x].
        even: the same from frames 0, 2, 4, ... ; `odd` from frames 1, 3, 5, ...
    """

    shifts_px: Floats
    average: Floats
    even: Floats
    odd: Floats


def correct_motion(
    frames: Movie,
    pixel_size_angstrom: float,
    *,
    bfactor_a2: float = -500.0,
    resolution_angstrom: tuple[float, float] = (500.0, 10.0),
) -> Motion:
    """Measure and undo the drift of whole frames.

    Every frame is cross-correlated with the sum of all *others* (its own noise would pin it to
    where it is), the peak is taken to a fraction of a pixel, and the round is repeated on the
    moved frames. The sums lie on the *mean* frame position: a sum on the first frame's position
    would carry the drift into the tilt-series alignment.

    Args:
        frames: [frame, y, x], counts, gain applied.
        pixel_size_angstrom: of the frames.
        bfactor_a2: weight exp(B q^2 / 4) of the correlation, usually negative.
        resolution_angstrom: (low, high) resolution limits of the correlation.
    """
    count = frames.shape[0]
    shape = (int(frames.shape[1]), int(frames.shape[2]))
    images = repair_hot_pixels(frames.astype(np.float32))
    means = images.mean(axis=(1, 2))
    spectra = [sfft.rfft2(image - mean) for image, mean in zip(images, means, strict=True)]
    shifts: Floats = np.zeros((count, 2))
    if count > 1:
        weight = _weight(shape, pixel_size_angstrom, bfactor_a2, resolution_angstrom)
        shifts = _measure(spectra, shape, weight, MAX_SHIFT_ANGSTROM / pixel_size_angstrom)
    even = np.zeros_like(spectra[0])
    odd = np.zeros_like(spectra[0])
    for index, spectrum in enumerate(spectra):
        moved = spectrum * shift_phases(shape, (-shifts[index, 0], -shifts[index, 1]))
        if index % 2 == 0:
            even += moved
        else:
            odd += moved
    even_image = sfft.irfft2(even, s=shape) + means[::2].sum()
    odd_image = sfft.irfft2(odd, s=shape) + means[1::2].sum()
    return Motion(
        shifts_px=shifts - shifts[0],
        average=(even_image + odd_image).astype(np.float32),
        even=even_image.astype(np.float32),
        odd=odd_image.astype(np.float32),
    )


def _weight(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    bfactor_a2: float,
    resolution_angstrom: tuple[float, float],
) -> Floats:
    fy, fx = frequency_grid(shape, pixel_size_angstrom)
    squared = fy**2 + fx**2
    low, high = (1 / limit for limit in resolution_angstrom)
    weight: Floats = np.exp(bfactor_a2 * squared / 4).astype(np.float32)
    weight[(squared < low**2) | (squared > high**2)] = 0
    weight[0, 0] = 0
    return weight


def _measure(
    spectra: list[Floats], shape: tuple[int, int], weight: Floats, max_shift_px: float
) -> Floats:
    shifts = np.zeros((len(spectra), 2))
    allowed = within(shape, max_shift_px)
    for _ in range(MAX_ITERATIONS):
        moved = [
            spectrum * shift_phases(shape, (-y, -x))
            for spectrum, (y, x) in zip(spectra, shifts, strict=True)
        ]
        total = np.sum(moved, axis=0)
        correction = np.zeros_like(shifts)
        for index, one in enumerate(moved):
            correlation = sfft.irfft2(one * np.conj(total - one) * weight, s=shape)
            allowed_part = correlation * allowed
            if allowed_part.max() >= MIN_PEAK_SIGMA * correlation.std():
                correction[index] = sub_pixel_peak(allowed_part)
        correction -= correction.mean(axis=0)
        shifts += correction
        if np.abs(correction).max() < CONVERGED_PX:
            break
    return shifts


def repair_hot_pixels(frames: Floats) -> Floats:
    """Replace pixels that are far too bright in the sum of all frames by their neighbours' median.

    A fixed bright pixel correlates with itself at shift zero and hides the motion.
    """
    total = frames.sum(axis=0)
    limit = total.mean() + HOT_PIXEL_SIGMA * total.std()
    hot = np.argwhere(total > limit)
    if len(hot) == 0 or len(hot) > total.size // 100:
        return frames
    repaired = frames.copy()
    for image in repaired:
        smooth = ndimage.median_filter(image, size=5)
        image[hot[:, 0], hot[:, 1]] = smooth[hot[:, 0], hot[:, 1]]
    return repaired


@dataclass(frozen=True)
class MotionSummary:
    """Path length of the frames, in Angstrom: all of it, and its early and late part."""

    total_angstrom: float
    early_angstrom: float
    late_angstrom: float


def summarise_motion(
    shifts_px: Floats,
    pixel_size_angstrom: float,
    dose_per_frame_e_per_a2: float,
    dose_before_e_per_a2: float = 0.0,
) -> MotionSummary:
    """Sum the frame-to-frame steps, split at 4 e/A^2 as RELION does.

    `dose_before_e_per_a2` is what went by in skipped frames.
    """
    steps = np.hypot(*np.diff(shifts_px, axis=0).T) * pixel_size_angstrom
    doses = dose_before_e_per_a2 + dose_per_frame_e_per_a2 * np.arange(1, len(steps) + 1)
    early = float(steps[doses <= EARLY_DOSE_E_PER_A2].sum())
    total = float(steps.sum())
    return MotionSummary(total, early, total - early)
