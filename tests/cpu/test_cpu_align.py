"""Dead tilts, coarse shifts and the tilt axis."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crboost.cpu.align import coarse_alignment, coarse_shifts, dead_tilts, prepare
from crboost.cpu.fourier import band_pass
from crboost.cpu.geometry import TiltAlignment, project

ANGLES = [float(angle) for angle in range(-60, 61, 3)]


def brightness(angles: list[float], thickness_over_path: float) -> np.ndarray:
    """Beer-Lambert: what a slab lets through."""
    return 50 * np.exp(-thickness_over_path / np.cos(np.deg2rad(angles)))


@pytest.mark.parametrize("thickness_over_path", [0.0, 0.3, 1.0, 1.7])
def test_high_tilts_are_darker_and_not_dead(thickness_over_path: float) -> None:
    ratios = dead_tilts(brightness(ANGLES, thickness_over_path), ANGLES, 0.3)
    assert all(math.isnan(ratio) for ratio in ratios)


@pytest.mark.parametrize("dead", [[0], [20], [40], [39, 40], [5, 6, 7, 8], [0, 1, 2, 3, 38]])
def test_dead_tilts_are_found_alone_and_in_blocks(dead: list[int]) -> None:
    means = brightness(ANGLES, 0.5)
    means[dead] *= 0.02
    ratios = dead_tilts(means, ANGLES, 0.3)
    assert [index for index, ratio in enumerate(ratios) if not math.isnan(ratio)] == dead
    assert all(0.01 < ratios[index] < 0.05 for index in dead)


def test_the_threshold_decides() -> None:
    means = brightness(ANGLES, 0.5)
    means[20] *= 0.5
    assert math.isnan(dead_tilts(means, ANGLES, 0.3)[20])
    assert dead_tilts(means, ANGLES, 0.7)[20] == pytest.approx(0.5, abs=0.05)


def test_a_very_short_series_is_left_alone() -> None:
    assert all(math.isnan(ratio) for ratio in dead_tilts([50.0, 1.0], [0.0, 3.0], 0.3))


def test_prepared_images_show_dense_things_bright() -> None:
    image = np.full((128, 128), 40.0)
    image[60:68, 60:68] = 20
    prepared = prepare(image + np.random.default_rng(1).normal(0, 1, image.shape), 2)
    assert prepared.shape == (64, 64)
    assert prepared[32, 32] == prepared.max()


def flat_specimen_series(
    axis_deg: float, shifts: np.ndarray, tilts: list[float], size: int = 192
) -> list[np.ndarray]:
    """Point-like features in the plane z = 0 that stay in view, projected."""
    rng = np.random.default_rng(6)
    points = np.zeros((300, 3))
    points[:, :2] = rng.uniform(-0.35 * size, 0.35 * size, (300, 2))
    strengths = rng.uniform(0.5, 1.5, len(points))
    images = []
    for tilt, shift in zip(tilts, shifts, strict=True):
        seen = project(points, TiltAlignment(0, tilt, axis_deg, *shift), 1.0)[:, :2] + size // 2
        image = np.zeros((size, size))
        corner = np.floor(seen).astype(int)
        inside = ((corner >= 0) & (corner < size)).all(axis=1)
        np.add.at(image, (corner[inside, 1], corner[inside, 0]), strengths[inside])
        images.append(band_pass(image, 0.01, 0.08))
    return images


def test_coarse_shifts_of_a_flat_specimen() -> None:
    rng = np.random.default_rng(1)
    tilts = [float(angle) for angle in range(-48, 49, 6)]
    shifts = rng.normal(0, 6, (len(tilts), 2))
    shifts[tilts.index(0.0)] = 0
    images = flat_specimen_series(85.0, shifts, tilts)
    found = coarse_shifts(images, tilts, 85.0)
    assert found[tilts.index(0.0)].tolist() == [0, 0]
    assert np.abs(found - shifts).max() < 1.0


def test_the_axis_is_found_to_a_degree() -> None:
    rng = np.random.default_rng(2)
    tilts = [float(angle) for angle in range(-48, 49, 6)]
    shifts = rng.normal(0, 4, (len(tilts), 2))
    shifts[tilts.index(0.0)] = 0
    images = flat_specimen_series(85.0, shifts, tilts)
    assert coarse_alignment(images, tilts, 87.0)[1] == pytest.approx(85.0, abs=1.0)
