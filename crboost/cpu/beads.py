"""Fine alignment on gold beads: find them, follow them through the tilts, solve for everything.

The model is `geometry.project` with x_tilt 0 and one tilt axis for the series: with the tilt
angles given and the axis held, image positions are linear in bead coordinates and shifts, so the
bundle adjustment is one linear least-squares problem inside a one-dimensional search over the
axis' angle. Robust weights keep mistaken beads from pulling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndimage
from scipy.optimize import minimize_scalar

from crboost.cpu.arrays import Floats
from crboost.cpu.fourier import bin_image, resample
from crboost.cpu.projector import Projector, ramp_filter

MAX_BEADS = 25
#: Beads found in fewer tilts than this (or than a quarter of them) are dropped.
MIN_TILTS_PER_BEAD = 8
MIN_BEADS = 3
ROUNDS = 3
#: Beads of this radius and more are looked for in a volume of half the sampling.
COARSE_SEARCH_RADIUS_PX = 5.0
#: Beads whose images come closer than this many radii are not measured in that tilt.
CROWDED_RADII = 3.0
REWEIGHTINGS = 4
AXIS_SEARCH_DEG = 3.0


@dataclass(frozen=True)
class BeadAlignment:
    """What the beads say.

    Attributes:
        shifts: (tilts, 2) (x, y) in pixels of the images used.
        axis_deg: of the tilt axis.
        beads_xyz: (beads, 3) in pixels from the specimen's centre.
        residual_px: RMS distance of beads from their predicted positions, same pixels.
        tilts_without_beads: indices of tilts in which fewer than two beads were seen; they keep
            the shift that they came with.
    """

    shifts: Floats
    axis_deg: float
    beads_xyz: Floats
    residual_px: float
    tilts_without_beads: list[int]


@dataclass(frozen=True)
class _Sightings:
    """One row per bead and tilt: which, and where (x, y) from the image's centre."""

    tilt: npt.NDArray[np.int_]
    bead: npt.NDArray[np.int_]
    position: Floats


def align_on_beads(
    images: Sequence[Floats],
    tilts_deg: Sequence[float],
    shifts: Floats,
    axis_deg: float,
    *,
    bead_radius_px: float,
    thickness_px: int,
) -> BeadAlignment | None:
    """Refine shifts and tilt axis on beads.

    Args:
        images: prepared (dense things bright), equal in size.
        tilts_deg: tilt angles.
        shifts: (tilts, 2) coarse shifts (x, y).
        axis_deg: coarse tilt axis.
        bead_radius_px: of the beads.
        thickness_px: of the slab to look for beads in.

    Returns:
        the alignment, or None where fewer than three beads can be followed.
    """
    start = shifts
    tilts = np.asarray(tilts_deg, float)
    beads: Floats = np.zeros((0, 3))
    residuals: Floats = np.zeros(0)
    weights: Floats = np.zeros(0)
    seen: npt.NDArray[np.bool_] = np.zeros(len(tilts), bool)
    for round_number in range(ROUNDS):
        if round_number < ROUNDS - 1:
            # Places to start from need not be fine.
            coarse = 2 if bead_radius_px >= COARSE_SEARCH_RADIUS_PX else 1
            volume = _quick_volume(
                [bin_image(image, coarse) for image in images],
                tilts,
                shifts / coarse,
                axis_deg,
                thickness_px // coarse,
            )
            beads = coarse * find_beads(volume, bead_radius_px / coarse)
        reach = max(2, int(bead_radius_px * (1.2, 0.8, 0.6)[round_number]))
        sightings = track_beads(images, tilts, beads, shifts, axis_deg, bead_radius_px, reach)
        beads, sightings = _keep_followed(beads, sightings, len(tilts))
        if len(beads) < MIN_BEADS:
            return None
        axis_deg, beads, solved, residuals, weights = _bundle(
            sightings, len(beads), tilts, axis_deg
        )
        good = sightings.tilt[weights > 0.01].astype(int)
        seen = np.bincount(good, minlength=len(tilts)) >= 2
        shifts = np.where(seen[:, None], solved, shifts)
        shifts, beads = _to_origin_of(start, shifts, beads, tilts, axis_deg, seen)
    trusted = residuals[weights > 0.01]
    return BeadAlignment(
        shifts=shifts,
        axis_deg=axis_deg,
        beads_xyz=beads,
        residual_px=float(np.sqrt((trusted**2).mean())),
        tilts_without_beads=[int(index) for index in np.flatnonzero(~seen)],
    )


def _quick_volume(
    images: Sequence[Floats], tilts: Floats, shifts: Floats, axis_deg: float, thickness_px: int
) -> Floats:
    width = images[0].shape[1]
    aligned = np.array(
        [
            resample(image, axis_deg, (float(x), float(y)))
            for image, (x, y) in zip(images, shifts, strict=True)
        ],
        np.float32,
    )
    projector = Projector(
        np.arange(width, dtype=float) - width // 2,
        np.arange(thickness_px, dtype=float) - thickness_px // 2,
        [float(tilt) for tilt in tilts],
        width,
    )
    return projector.back_project(ramp_filter(aligned))


def find_beads(volume: Floats, radius_px: float) -> Floats:
    """Bright round things of about this radius in [z, y, x]; (n, 3) as x, y, z from the centre."""
    smooth = ndimage.gaussian_filter(volume, radius_px / 2)
    sigma = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth))))
    size = int(4 * radius_px) | 1
    is_peak = (smooth == ndimage.maximum_filter(smooth, size=size)) & (smooth > 15 * sigma)
    peaks = np.argwhere(is_peak)
    heights = smooth[is_peak]
    order = np.argsort(-heights)[:MAX_BEADS]
    peaks, heights = peaks[order], heights[order]
    if len(peaks) == 0:
        return np.zeros((0, 3))
    peaks = peaks[heights > 0.35 * np.median(heights[:8])]
    shape = np.array(volume.shape)
    inside = np.all((peaks > radius_px) & (peaks < shape - radius_px - 1), axis=1)
    centres: Floats = (peaks[inside] - shape // 2)[:, ::-1].astype(float)
    return centres


def track_beads(
    images: Sequence[Floats],
    tilts: Floats,
    beads: Floats,
    shifts: Floats,
    axis_deg: float,
    radius_px: float,
    reach_px: int,
) -> _Sightings:
    """Look for every bead near where it should be in every tilt; centre of mass of its density."""
    height, width = images[0].shape
    half = int(np.ceil(radius_px * 1.6))
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
    found: list[tuple[int, int, float, float]] = []
    for index, image in enumerate(images):
        smooth = ndimage.gaussian_filter(image, radius_px * 0.55)
        sigma = 1.4826 * float(np.median(np.abs(smooth)))
        predicted = _predict(beads, tilts[index], shifts[index], axis_deg)
        crowded = _crowded(predicted, CROWDED_RADII * radius_px)
        for bead, (x, y) in enumerate(predicted):
            if crowded[bead]:
                continue
            place = _centre_of_bead(
                smooth, x + width // 2, y + height // 2, half, reach_px, radius_px, rows, columns
            )
            if place is None:
                continue
            x_found, y_found = place
            if smooth[round(y_found), round(x_found)] > 4 * sigma:
                found.append((index, bead, x_found - width // 2, y_found - height // 2))
    table = np.array(found).reshape(-1, 4)
    return _Sightings(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


def _crowded(places: Floats, distance_px: float) -> npt.NDArray[np.bool_]:
    """Which places have another one within `distance_px`: two beads there look like one."""
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    crowded: npt.NDArray[np.bool_] = apart.min(axis=1, initial=np.inf) < distance_px
    return crowded


def _predict(beads: Floats, tilt_deg: float, shift: Floats, axis_deg: float) -> Floats:
    tilt, axis = np.deg2rad(tilt_deg), np.deg2rad(axis_deg)
    across = beads[:, 0] * np.cos(tilt) + beads[:, 2] * np.sin(tilt)
    along = beads[:, 1]
    return np.stack(
        [
            np.cos(axis) * across - np.sin(axis) * along + shift[0],
            np.sin(axis) * across + np.cos(axis) * along + shift[1],
        ],
        axis=1,
    )


def _centre_of_bead(
    image: Floats,
    x: float,
    y: float,
    half: int,
    reach: int,
    radius: float,
    rows: Floats,
    columns: Floats,
) -> tuple[float, float] | None:
    height, width = image.shape
    for step in range(4):
        column, row = round(x), round(y)
        margin = half + reach
        if min(column, row) < margin or column >= width - margin or row >= height - margin:
            return None
        if step == 0:
            area = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
            top, left = np.unravel_index(int(np.argmax(area)), area.shape)
            x, y = float(column - reach + int(left)), float(row - reach + int(top))
            continue
        area = image[row - half : row + half + 1, column - half : column + half + 1]
        near = np.exp(-((columns - (x - column)) ** 2 + (rows - (y - row)) ** 2) / (2 * radius**2))
        # Above half of the peak, or the specimen around the bead would pull at the centre.
        weight = np.clip(area - 0.5 * float(area.max()), 0, None) * near
        total = float(weight.sum())
        if total <= 0:
            return None
        x = column + float((weight * columns).sum()) / total
        y = row + float((weight * rows).sum()) / total
    if min(x, y) < 0 or round(x) >= width or round(y) >= height:
        return None
    return x, y


def _keep_followed(
    beads: Floats, sightings: _Sightings, tilt_count: int
) -> tuple[Floats, _Sightings]:
    needed = min(MIN_TILTS_PER_BEAD, max(3, tilt_count // 2))
    counts = np.bincount(sightings.bead, minlength=len(beads))
    kept = np.flatnonzero(counts >= needed)
    renumbered = np.full(len(beads), -1)
    renumbered[kept] = np.arange(len(kept))
    rows = np.isin(sightings.bead, kept)
    return beads[kept], _Sightings(
        sightings.tilt[rows], renumbered[sightings.bead[rows]], sightings.position[rows]
    )


def _bundle(
    sightings: _Sightings, bead_count: int, tilts: Floats, axis_deg: float
) -> tuple[float, Floats, Floats, Floats, Floats]:
    """Axis, beads, shifts, residuals and weights that explain the sightings best."""
    weights = np.ones(len(sightings.tilt))
    beads: Floats = np.zeros((bead_count, 3))
    shifts: Floats = np.zeros((len(tilts), 2))
    residuals: Floats = np.zeros(len(weights))
    for _ in range(REWEIGHTINGS):
        current = weights

        def misfit(angle: float, weights: Floats = current) -> float:
            left = _solve(sightings, bead_count, tilts, angle, weights)[2]
            return float((weights**2 * (left**2).sum(axis=1)).sum())

        axis_deg = float(
            minimize_scalar(
                misfit,
                bounds=(axis_deg - AXIS_SEARCH_DEG, axis_deg + AXIS_SEARCH_DEG),
                method="bounded",
                options={"xatol": 0.01},
            ).x
        )
        beads, shifts, left = _solve(sightings, bead_count, tilts, axis_deg, weights)
        residuals = np.hypot(left[:, 0], left[:, 1])
        sigma = 1.4826 * float(np.median(residuals)) / 1.2 + 1e-6
        weights = 1 / np.sqrt(1 + (residuals / (2 * sigma)) ** 2)
        weights[residuals > 6 * sigma] = 1e-4
    return axis_deg, beads, shifts, residuals, weights


def _solve(
    sightings: _Sightings, bead_count: int, tilts: Floats, axis_deg: float, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Weighted least squares for beads (n, 3) and shifts (tilts, 2); residual vectors (m, 2).

    Solved through the normal equations with the beads eliminated last; a tiny ridge holds the
    three directions that nothing determines (a common translation).
    """
    axis = np.deg2rad(axis_deg)
    tilt = np.deg2rad(tilts[sightings.tilt])
    count = len(tilt)
    unknowns = 3 * bead_count + 2 * len(tilts)
    design = np.zeros((count, 2, unknowns))
    row = np.arange(count)
    turn = np.array([[np.cos(axis), -np.sin(axis)], [np.sin(axis), np.cos(axis)]])
    for component in (0, 1):
        design[row, component, 3 * sightings.bead] = turn[component, 0] * np.cos(tilt)
        design[row, component, 3 * sightings.bead + 1] = turn[component, 1]
        design[row, component, 3 * sightings.bead + 2] = turn[component, 0] * np.sin(tilt)
        design[row, component, 3 * bead_count + 2 * sightings.tilt + component] = 1
    matrix = design.reshape(2 * count, unknowns)
    observed = sightings.position.reshape(-1)
    scale = np.repeat(weights**2, 2)
    weighted = matrix * scale[:, None]
    normal = matrix.T @ weighted + 1e-8 * np.eye(unknowns)
    solution = np.linalg.solve(normal, weighted.T @ observed)
    residuals = (observed - matrix @ solution).reshape(-1, 2)
    return (
        solution[: 3 * bead_count].reshape(-1, 3),
        solution[3 * bead_count :].reshape(-1, 2),
        residuals,
    )


def _to_origin_of(
    start: Floats,
    shifts: Floats,
    beads: Floats,
    tilts: Floats,
    axis_deg: float,
    seen: npt.NDArray[np.bool_],
) -> tuple[Floats, Floats]:
    """Move beads and shifts together so that the shifts stay as close as can be to the coarse ones.

    Beads alone do not say where the specimen's centre is: a translation (x, y, z) of all of them
    changes each shift by its projection. The coarse alignment followed the whole specimen.
    """
    rows = []
    axis = np.deg2rad(axis_deg)
    for tilt in np.deg2rad(tilts):
        for across, along in ((np.cos(axis), -np.sin(axis)), (np.sin(axis), np.cos(axis))):
            rows.append([across * np.cos(tilt), along, across * np.sin(tilt)])
    design = np.array(rows)
    used = np.repeat(seen, 2)
    translation = np.linalg.lstsq(design[used], (start - shifts).reshape(-1)[used], rcond=None)[0]
    moved = np.where(seen[:, None], shifts + (design @ translation).reshape(-1, 2), shifts)
    return moved, beads - translation
