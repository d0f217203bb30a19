"""RELION's model of a tilt, by hand and by its own matrix."""

from __future__ import annotations

import numpy as np
import pytest

from crboost.cpu.geometry import (
    TiltAlignment,
    project,
    projection_matrix,
    rotation,
    specimen_rotation,
)


@pytest.mark.parametrize(
    ("axis", "before", "after"),
    [("x", (0, 1, 0), (0, 0, 1)), ("y", (0, 0, 1), (1, 0, 0)), ("z", (1, 0, 0), (0, 1, 0))],
)
def test_rotations_are_right_handed(
    axis: str, before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    assert rotation(axis, 90) @ np.array(before) == pytest.approx(np.array(after), abs=1e-12)


def test_unknown_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="'w'"):
        rotation("w", 10)


def test_positive_tilt_moves_what_is_high_towards_positive_x() -> None:
    """At tilt t, a point on the beam axis at depth z appears at x' = z sin t (RELION's sign)."""
    seen = project(np.array([[0.0, 0.0, 100.0]]), TiltAlignment(0, 30, 0, 0, 0), 1.0)
    assert seen[0] == pytest.approx((50.0, 0.0, 100 * np.cos(np.pi / 6)))


def test_tilt_axis_turns_counter_clockwise_from_y() -> None:
    along_axis = np.array([[0.0, 100.0, 0.0]])
    seen = project(along_axis, TiltAlignment(0, 42.0, 85.0, 0, 0), 1.0)[0]
    direction = np.rad2deg(np.arctan2(-seen[0], seen[1]))
    assert direction == pytest.approx(85.0)


def test_shift_is_in_the_image_and_in_angstrom() -> None:
    alignment = TiltAlignment(0, 60, 85, 40.0, -20.0)
    assert project(np.zeros((1, 3)), alignment, 4.0)[0, :2] == pytest.approx((10.0, -5.0))


def test_x_tilt_is_applied_first() -> None:
    turned = specimen_rotation(TiltAlignment(90, 90, 0, 0, 0))
    assert turned @ np.array([0, 1, 0]) == pytest.approx((1, 0, 0), abs=1e-12)


def test_matrix_is_relion_s_product_of_six() -> None:
    """S(image centre) S(shift) Rz Ry Rx S(-centre), as in Tomogram::setProjectionMatrix."""
    alignment = TiltAlignment(1.5, -33.0, 84.2, 31.0, -17.0)

    def translation(x: float, y: float, z: float) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, 3] = x, y, z
        return matrix

    def embedded(axis: str, angle: float) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = rotation(axis, angle)
        return matrix

    size, image, pixel = (401, 300, 201), (512, 385), 2.5
    expected = (
        translation(31.0 / pixel, -17.0 / pixel, 0)
        @ translation(256, 192, 0)
        @ embedded("z", 84.2)
        @ embedded("y", -33.0)
        @ embedded("x", 1.5)
        @ translation(-200, -150, -100)
    )
    assert projection_matrix(alignment, pixel, size, image) == pytest.approx(expected)


def test_matrix_and_points_from_the_centre_agree() -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(-100, 100, (20, 3))
    alignment = TiltAlignment(0, 47.0, 85.6, 12.0, 60.0)
    size, image = (400, 301, 200), (512, 512)
    voxels = np.c_[points + np.array([200, 150, 100]), np.ones(20)]
    pixels = voxels @ projection_matrix(alignment, 4.0, size, image).T
    seen = project(points, alignment, 4.0)
    assert pixels[:, :2] - 256 == pytest.approx(seen[:, :2])
    assert pixels[:, 2] == pytest.approx(seen[:, 2])
