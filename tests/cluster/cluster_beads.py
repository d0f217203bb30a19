"""Where the gold beads are in a tomogram, against where they truly are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

BEAD_RADIUS_ANGSTROM = 50.0

Points = NDArray[np.float64]


def bead_positions(tomogram: Path) -> Points:
    """Dark round things of a bead's size in a tomogram: (x, y, z) from its centre, in Angstrom."""
    with mrcfile.open(tomogram) as opened:
        volume = np.asarray(opened.data, dtype=np.float64)
        pixel_size = float(opened.voxel_size.x)
    smooth = scipy.ndimage.gaussian_filter(-volume, BEAD_RADIUS_ANGSTROM / pixel_size / 2)
    noise = 1.48 * np.median(np.abs(smooth - np.median(smooth)))
    side = int(4 * BEAD_RADIUS_ANGSTROM / pixel_size) | 1
    is_peak = (smooth == scipy.ndimage.maximum_filter(smooth, size=side)) & (smooth > 6 * noise)
    from_centre = np.argwhere(is_peak) - np.array(volume.shape) // 2
    return from_centre[:, ::-1] * pixel_size


def matched_beads(found: Points, truth: Points, *, within: float, shift: float) -> int:
    """How many true positions have a found one `within` reach after the best translation.

    A tilt-series alignment leaves the specimen's place in the tomogram open: one translation,
    of at most `shift`, is allowed for all beads together.
    """
    best = 0
    for one in truth:
        for other in found[np.linalg.norm(found - one, axis=1) <= shift]:
            moved = truth + (other - one)
            distances = np.linalg.norm(moved[:, None] - found[None], axis=2).min(axis=1)
            best = max(best, int((distances < within).sum()))
    return best


def true_beads(series: dict[str, Any]) -> Points:
    """The beads of one series of a `truth.json`, in Angstrom from the specimen's centre."""
    positions: Points = np.array(series["beads_xyz_px"], dtype=np.float64)
    return positions * float(series["pixel_size_angstrom"])
