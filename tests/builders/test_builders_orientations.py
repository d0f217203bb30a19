"""Orientations of symmetric templates: one of each set, and none left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crboost.builders.orientations import cyclic_order, group, unique_orientations

ORDERS = {"C1": 1, "C6": 6, "D2": 4, "D6": 12, "T": 12, "O": 24, "I1": 60, "I2": 60}


@pytest.mark.parametrize(("symmetry", "order"), ORDERS.items())
def test_groups_have_their_order_and_are_closed(symmetry: str, order: int) -> None:
    elements = Rotation.from_quat(group(symmetry))
    assert len(elements) == order
    assert elements[0].magnitude() == pytest.approx(0)
    for one in elements:
        nearest = [
            min((one * each * other.inv()).magnitude() for other in elements)
            for each in elements[:3]
        ]
        assert max(nearest) < 0.01


@pytest.mark.parametrize("symmetry", ["C1", "D3", "T", "O", "I1", "I2"])
def test_every_orientation_is_near_one_of_the_list_up_to_symmetry(symmetry: str) -> None:
    step = 15.0
    angles = np.array(unique_orientations(symmetry, step))
    assert angles[:, 0].min() >= 0
    assert angles[:, 0].max() < 2 * np.pi
    listed = Rotation.from_euler("zxz", angles).as_quat()
    elements = Rotation.from_quat(group(symmetry))
    related = np.concatenate([(Rotation.from_quat(listed) * one).as_quat() for one in elements])
    asked = Rotation.random(300, random_state=1).as_quat()
    nearest = 2 * np.arccos(np.clip(np.abs(asked @ related.T).max(axis=1), 0, 1))
    assert np.rad2deg(nearest).max() < step
    assert len(angles) <= 1.3 * len(unique_orientations("C1", step)) / len(elements) + 60


def test_only_c_groups_have_an_order() -> None:
    assert cyclic_order("C5") == 5
    assert cyclic_order("D5") is None
    with pytest.raises(ValueError, match="no point group"):
        group("X3")
