"""Where a point of the specimen lands in a tilt image: RELION 5's model and its columns.

RELION (`Tomogram::setProjectionMatrix`) moves the specimen's centre to the origin, turns it about
x by rlnTomoXTilt, about y by rlnTomoYTilt, about z by rlnTomoZRot (right-handed, degrees), adds
(rlnTomoXShiftAngst, rlnTomoYShiftAngst) divided by the pixel size of the tilt series, and moves the
origin to the image's centre. Centres are n // 2 in pixels. `docs/conventions.md` has the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crboost.cpu.arrays import Floats


@dataclass(frozen=True)
class TiltAlignment:
    """How one tilt image sees the specimen; RELION 5's five alignment columns."""

    x_tilt_deg: float
    y_tilt_deg: float
    z_rot_deg: float
    x_shift_angstrom: float
    y_shift_angstrom: float

    def shift_px(self, pixel_size_angstrom: float) -> tuple[float, float]:
        """The shift (x, y) in pixels of `pixel_size_angstrom`."""
        return (
            self.x_shift_angstrom / pixel_size_angstrom,
            self.y_shift_angstrom / pixel_size_angstrom,
        )


def rotation(axis: str, angle_deg: float) -> Floats:
    """Right-handed 3 x 3 rotation about `axis` ('x', 'y' or 'z'), acting on (x, y, z) columns."""
    angle = np.deg2rad(angle_deg)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    if axis == "x":
        return np.array([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]])
    if axis == "y":
        return np.array([[cos, 0, sin], [0, 1.0, 0], [-sin, 0, cos]])
    if axis == "z":
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    raise ValueError(f"axis must be x, y or z, not {axis!r}")


def specimen_rotation(alignment: TiltAlignment) -> Floats:
    """The 3 x 3 rotation of the specimen: Rz(z_rot) Ry(y_tilt) Rx(x_tilt)."""
    turned: Floats = (
        rotation("z", alignment.z_rot_deg)
        @ rotation("y", alignment.y_tilt_deg)
        @ rotation("x", alignment.x_tilt_deg)
    )
    return turned


def project(points_xyz: Floats, alignment: TiltAlignment, pixel_size_angstrom: float) -> Floats:
    """Image positions of specimen points.

    Args:
        points_xyz: (n, 3), pixels from the specimen's centre.
        alignment: of the tilt image.
        pixel_size_angstrom: of the tilt image.

    Returns:
        (n, 3): x and y in pixels from the image's centre, and the depth z, which grows towards
        the positive z of the untilted specimen.
    """
    moved = np.asarray(points_xyz, float) @ specimen_rotation(alignment).T
    moved[:, :2] += alignment.shift_px(pixel_size_angstrom)
    return moved


def projection_matrix(
    alignment: TiltAlignment,
    pixel_size_angstrom: float,
    tomogram_size_px: tuple[int, int, int],
    image_size_px: tuple[int, int],
) -> Floats:
    """RELION's 4 x 4 matrix from tomogram voxel (x, y, z, 1) to image pixel (x, y, depth, 1).

    Args:
        alignment: of the tilt image.
        pixel_size_angstrom: rlnTomoTiltSeriesPixelSize.
        tomogram_size_px: rlnTomoSizeX, Y, Z: unbinned.
        image_size_px: (x, y) of the tilt image.
    """
    matrix = np.eye(4)
    turned = specimen_rotation(alignment)
    centre = np.array([size // 2 for size in tomogram_size_px], float)
    matrix[:3, :3] = turned
    matrix[:3, 3] = -turned @ centre
    shift = alignment.shift_px(pixel_size_angstrom)
    matrix[0, 3] += image_size_px[0] // 2 + shift[0]
    matrix[1, 3] += image_size_px[1] // 2 + shift[1]
    return matrix
