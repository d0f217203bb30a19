"""The ice ring: seen where it is, zero where the pixels cannot hold it."""

from __future__ import annotations

import numpy as np
import pytest

from crboost.cpu.ctf import power_spectrum
from crboost.cpu.ice import ice_ring_density


def noise_with_ring(strength: float, pixel_size_angstrom: float = 1.35) -> np.ndarray:
    rng = np.random.default_rng(3)
    image = rng.standard_normal((512, 512))
    spectrum = np.fft.rfft2(image)
    fy = np.fft.fftfreq(512, pixel_size_angstrom)[:, None]
    fx = np.fft.rfftfreq(512, pixel_size_angstrom)[None, :]
    ring = np.abs(np.hypot(fy, fx) - 1 / 3.75) < 0.004
    return np.fft.irfft2(spectrum * (1 + strength * ring), s=(512, 512))


def test_a_stronger_ring_has_a_higher_density() -> None:
    densities = [
        ice_ring_density(power_spectrum(noise_with_ring(strength), 256), 1.35)
        for strength in (0.0, 0.5, 2.0)
    ]
    assert densities[0] < 0.4
    assert densities[0] < densities[1] < densities[2]
    assert densities[2] > 3 * densities[0]


@pytest.mark.parametrize("pixel_size_angstrom", [1.7, 4.0])
def test_large_pixels_cannot_see_ice(pixel_size_angstrom: float) -> None:
    spectrum = power_spectrum(noise_with_ring(2.0), 256)
    assert ice_ring_density(spectrum, pixel_size_angstrom) == 0.0
