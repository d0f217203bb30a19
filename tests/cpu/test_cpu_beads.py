"""Beads: found in a volume, followed through tilts, solved for; with noise and with mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from crboost.cpu.beads import align_on_beads, find_beads
from crboost.cpu.geometry import TiltAlignment, project

AXIS_DEG = 85.3
TILTS = [float(angle) for angle in range(-60, 61, 6)]
SIZE = 160


def bead_series(
    beads: np.ndarray, shifts: np.ndarray, noise: float, radius: float = 5.0
) -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = []
    for tilt, shift in zip(TILTS, shifts, strict=True):
        seen = project(beads, TiltAlignment(0, tilt, AXIS_DEG, *shift), 1.0)[:, :2] + SIZE // 2
        image = rng.normal(0, noise, (SIZE, SIZE))
        for x, y in seen:
            image += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (radius / 1.8) ** 2))
        images.append(image - image.mean())
    return images


@pytest.fixture
def truth() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    # Three by three in the untilted view, so that each can be told from the others.
    places = [(x, y) for x in (-38, 2, 41) for y in (-45, 1, 42)]
    beads = np.c_[np.array(places) + rng.uniform(-5, 5, (9, 2)), rng.uniform(-18, 18, 9)]
    return beads, rng.normal(0, 4, (len(TILTS), 2))


def test_beads_in_a_volume() -> None:
    z, y, x = np.mgrid[:40, :60, :80]
    places = [(20, 30, 40), (12, 15, 20), (30, 45, 66)]
    volume = np.random.default_rng(1).normal(0, 0.02, (40, 60, 80))
    for place in places:
        squared = (z - place[0]) ** 2 + (y - place[1]) ** 2 + (x - place[2]) ** 2
        volume += np.exp(-squared / (2 * 3.0**2))
    found = {tuple(bead) for bead in find_beads(volume, 4.0).astype(int)}
    assert found == {(0, 0, 0), (-20, -15, -8), (26, 15, 10)}


def test_no_beads_in_noise() -> None:
    volume = np.random.default_rng(1).normal(0, 1, (30, 60, 60))
    assert len(find_beads(volume, 4.0)) == 0


def test_geometry_is_recovered_to_a_tenth_of_a_pixel(
    truth: tuple[np.ndarray, np.ndarray],
) -> None:
    """Known points, seen through RELION's model from what was found, land where they are."""
    beads, shifts = truth
    rng = np.random.default_rng(5)
    coarse = shifts + rng.normal(0, 1.0, shifts.shape)
    aligned = align_on_beads(
        bead_series(beads, shifts, noise=0.05),
        TILTS,
        coarse,
        AXIS_DEG + 0.8,
        bead_radius_px=5.0,
        thickness_px=56,
    )
    assert aligned is not None
    assert aligned.axis_deg == pytest.approx(AXIS_DEG, abs=0.1)
    assert aligned.residual_px < 0.25
    assert aligned.tilts_without_beads == []
    # Pair what was found with what is there through the untilted view.
    untilted = TILTS.index(0.0)

    def view(points: np.ndarray, index: int, axis: float, shift: np.ndarray) -> np.ndarray:
        return project(points, TiltAlignment(0, TILTS[index], axis, *shift), 1.0)[:, :2]

    there = view(beads, untilted, AXIS_DEG, shifts[untilted])
    here = view(aligned.beads_xyz, untilted, aligned.axis_deg, aligned.shifts[untilted])
    pairs = [int(np.hypot(*(there - place).T).argmin()) for place in here]
    assert len(set(pairs)) == len(pairs) >= 7
    errors = np.array(
        [
            view(aligned.beads_xyz, index, aligned.axis_deg, aligned.shifts[index])
            - view(beads[pairs], index, AXIS_DEG, shifts[index])
            for index in range(len(TILTS))
        ]
    )
    assert np.sqrt((errors**2).sum(axis=-1).mean()) < 0.1


def test_without_beads_there_is_no_result() -> None:
    rng = np.random.default_rng(2)
    images = [rng.normal(0, 1, (SIZE, SIZE)) for _ in TILTS]
    shifts = np.zeros((len(TILTS), 2))
    nothing = align_on_beads(images, TILTS, shifts, 85.0, bead_radius_px=5, thickness_px=56)
    assert nothing is None


def test_an_image_without_beads_keeps_its_shift(truth: tuple[np.ndarray, np.ndarray]) -> None:
    beads, shifts = truth
    images = bead_series(beads, shifts, noise=0.05)
    images[3] = np.random.default_rng(7).normal(0, 0.05, (SIZE, SIZE))
    aligned = align_on_beads(
        images, TILTS, shifts + 0.5, AXIS_DEG, bead_radius_px=5.0, thickness_px=56
    )
    assert aligned is not None
    assert aligned.tilts_without_beads == [3]
    assert aligned.shifts[3] == pytest.approx(shifts[3] + 0.5)
