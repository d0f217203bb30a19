"""Exposure filter: how much of the signal is left after a given dose."""

from __future__ import annotations

import numpy as np
import scipy.fft as sfft

from crboost.cpu.arrays import Floats
from crboost.cpu.fourier import frequency_grid

#: Grant & Grigorieff (2015), eLife 4:e06980: critical exposure a * k^b + c at 300 kV.
CRITICAL_EXPOSURE = (0.24499, -1.6649, 2.8141)
#: Damage per dose is higher at 200 kV by 1 / 0.8 (same paper).
SCALE_200_KV = 0.8


def critical_exposure(frequency_per_angstrom: Floats, voltage_kv: float = 300.0) -> Floats:
    """Exposure (e/A^2) at which the signal at a spatial frequency has fallen to exp(-1/2)."""
    a, b, c = CRITICAL_EXPOSURE
    frequency = np.maximum(frequency_per_angstrom, 1e-6)
    scale = SCALE_200_KV if voltage_kv < 250 else 1.0
    exposure: Floats = (a * frequency**b + c) * scale
    return exposure


def exposure_weight(
    frequency_per_angstrom: Floats, exposure_e_per_a2: float, voltage_kv: float = 300.0
) -> Floats:
    """exp(-N / (2 Ne(k))) (Grant & Grigorieff 2015, equation 5)."""
    weight: Floats = np.exp(
        -0.5 * exposure_e_per_a2 / critical_exposure(frequency_per_angstrom, voltage_kv)
    )
    return weight


def weight_image(
    image: Floats,
    pixel_size_angstrom: float,
    exposure_e_per_a2: float,
    voltage_kv: float = 300.0,
) -> Floats:
    """Filter an image [y, x] for the exposure that the specimen has had; the mean is kept."""
    fy, fx = frequency_grid((image.shape[0], image.shape[1]), pixel_size_angstrom)
    weight = exposure_weight(np.sqrt(fy**2 + fx**2), exposure_e_per_a2, voltage_kv)
    filtered: Floats = sfft.irfft2(sfft.rfft2(image) * weight, s=image.shape)
    return filtered
