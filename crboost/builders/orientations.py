"""Orientations to search for a template of some symmetry. Pure.

An orientation is (z1, x, z2) in radians: it takes the point t of the template to
Rz(z2) Rx(x) Rz(z1) t, right-handed (see `docs/conventions.md`, template matching). With a template
that its point group leaves as it is, R and R g look the same for every g of the group: of each such
set the rotation by the smallest angle is taken.
"""

from __future__ import annotations

import math
from typing import Any

#: Generators by point group: (order, axis). RELION's axes (`src/symmetries.cpp`).
_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, 0.816496, 0.577350))),
    "O": ((3, (0.5773502, 0.5773502, 0.5773502)), (4, (0, 0, 1))),
    "I1": (
        (2, (1, 0, 0)),
        (5, (0.85065080702670, 0, -0.5257311142635)),
        (3, (0.9341723640, 0.3568220765, 0)),
    ),
    "I2": (
        (2, (0, 0, 1)),
        (5, (0.525731114, 0, 0.850650807)),
        (3, (0, 0.356822076, 0.934172364)),
    ),
}


def cyclic_order(symmetry: str) -> int | None:
    """n of Cn, whose axis is z; None for other groups."""
    return int(symmetry[1:]) if symmetry.startswith("C") else None


def group(symmetry: str) -> Any:
    """The rotations of a point group as (n, 4) unit quaternions (x, y, z, w), unity first.

    Raises:
        ValueError: no such point group.
    """
    import numpy as np
    from scipy.spatial.transform import Rotation

    generators = _generators(symmetry)
    elements = [Rotation.identity()]
    steps = [
        Rotation.from_rotvec(2 * math.pi / order * np.array(axis) / np.linalg.norm(axis))
        for order, axis in generators
    ]
    position = 0
    while position < len(elements):
        for step in steps:
            new = step * elements[position]
            if all((new * known.inv()).magnitude() > 0.01 for known in elements):
                elements.append(new)
        position += 1
        if len(elements) > 60:
            raise ValueError(f"{symmetry}: its generators make no point group")
    return np.array([one.as_quat() for one in elements])


def unique_orientations(symmetry: str, step_deg: float) -> list[tuple[float, float, float]]:
    """Orientations no further than about `step_deg` apart, one of each symmetry-related set.

    Returns:
        (z1, x, z2) in radians, z1 from 0 to 2 pi.
    """
    import numpy as np
    from scipy.spatial.transform import Rotation

    step = math.radians(step_deg)
    tilts = math.ceil(math.pi / step)
    grid = []
    for index in range(tilts):
        x = (index + 0.5) * math.pi / tilts
        around = max(1, math.ceil(2 * math.pi * math.sin(x) / step))
        spins = math.ceil(2 * math.pi / step)
        z2 = 2 * math.pi * np.arange(around) / around
        z1 = 2 * math.pi * np.arange(spins) / spins
        grid.append(
            np.stack(
                [np.repeat(z1, around), np.full(around * spins, x), np.tile(z2, spins)], axis=1
            )
        )
    angles = np.concatenate(grid)
    # R as a quaternion: turned about fixed axes, z by z1 first.
    quaternions = Rotation.from_euler("zxz", angles).as_quat()
    elements = group(symmetry)
    # cos(half angle) of R g is linear in R: w = w_R w_g - v_R . v_g
    signs = np.array([-1.0, -1.0, -1.0, 1.0])
    cosines = np.abs(quaternions @ (elements * signs).T)
    kept = cosines[:, 0] >= cosines.max(axis=1) - 1e-9
    return [(float(z1), float(x), float(z2)) for z1, x, z2 in angles[kept]]


def _generators(symmetry: str) -> tuple[tuple[int, tuple[float, float, float]], ...]:
    if symmetry in _GENERATORS:
        return _GENERATORS[symmetry]
    letter, number = symmetry[:1], symmetry[1:]
    if letter in ("C", "D") and number.isdigit() and int(number) >= 1:
        around_z = (int(number), (0.0, 0.0, 1.0))
        return (around_z,) if letter == "C" else (around_z, (2, (1.0, 0.0, 0.0)))
    raise ValueError(f"{symmetry} is no point group that is known here")
