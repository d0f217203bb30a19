"""Back-projection of one series of slices with one sparse matrix.

With the tilt axis along y every x-z slice sees the same geometry, so the matrix is built once for
one slice and applied to all slices at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.fft as sfft
from scipy import sparse

from crboost.cpu.arrays import Floats

#: Gaussian roll-off of the ramp filter, in cycles per pixel.
RAMP_ROLL_OFF = 0.35


class Projector:
    """Linear-interpolation back-projector from detector lines to an x-z slice.

    Args:
        x_px, z_px: where the slice's columns and layers lie, from the rotation centre, in pixels.
        tilts_deg: rlnTomoYTilt of each line.
        detector_px: number of pixels of a line; its centre is pixel n // 2.
    """

    def __init__(
        self, x_px: Floats, z_px: Floats, tilts_deg: Sequence[float], detector_px: int
    ) -> None:
        z, x = np.meshgrid(z_px, x_px, indexing="ij")
        voxel = np.arange(z.size, dtype=np.int32)
        rows: list[npt.NDArray[np.int32]] = []
        columns: list[npt.NDArray[np.int32]] = []
        values: list[npt.NDArray[np.float32]] = []
        for index, angle in enumerate(np.deg2rad(np.asarray(tilts_deg, float))):
            place = (x * np.cos(angle) + z * np.sin(angle)).ravel() + detector_px // 2
            left = np.floor(place).astype(np.int32)
            fraction = (place - left).astype(np.float32)
            for pixel, weight in ((left, 1 - fraction), (left + 1, fraction)):
                inside = (pixel >= 0) & (pixel < detector_px)
                rows.append(voxel[inside])
                columns.append(pixel[inside] + index * detector_px)
                values.append(weight[inside])
        self._shape = (len(z_px), len(x_px))
        self._back = sparse.csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(z.size, len(tilts_deg) * detector_px),
            dtype=np.float32,
        )

    def back_project(self, lines: Floats) -> Floats:
        """Smear lines [tilt, y, x'] back into slices [z, y, x]."""
        tilts, height, width = lines.shape
        flat = np.ascontiguousarray(lines.transpose(0, 2, 1)).reshape(tilts * width, height)
        slices = self._back @ flat
        volume: Floats = slices.reshape(self._shape[0], self._shape[1], height)
        return volume.transpose(0, 2, 1)


def ramp_filter(lines: Floats, roll_off: float = RAMP_ROLL_OFF) -> Floats:
    """Weight [tilt, y, x'] with |q| across the tilt axis (Radermacher 1992), Gaussian roll-off."""
    width = lines.shape[-1]
    padded = 2 * width
    frequency = sfft.rfftfreq(padded).astype(np.float32)
    weight = frequency * np.exp(-0.5 * (frequency / roll_off) ** 2)
    spectrum = sfft.rfft(lines.astype(np.float32), padded, axis=-1) * weight
    filtered: Floats = sfft.irfft(spectrum, padded, axis=-1)[..., :width]
    return filtered
