"""The CTF model, and fits to images with known defocus."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft as sfft

from crboost.cpu.ctf import (
    Optics,
    display_spectrum,
    fit_ctf,
    phase,
    power_spectrum,
    search_range_angstrom,
    window_size,
)
from crboost.cpu.fourier import frequency_grid

KRIOS = Optics(300, 2.7, 0.1)


def thon_rings(
    defocus: float, noise: float, half_astigmatism: float = 0.0, angle_deg: float = 0.0
) -> np.ndarray:
    rng = np.random.default_rng(3)
    fy, fx = frequency_grid((512, 512), 4.0)
    angle = np.arctan2(np.broadcast_to(fy, (512, 257)), np.broadcast_to(fx, (512, 257)))
    local = defocus + half_astigmatism * np.cos(2 * (angle - np.deg2rad(angle_deg)))
    squared = fx**2 + fy**2
    transfer = np.sin(phase(squared, local, KRIOS)) * np.exp(-150 * squared / 4)
    image = sfft.irfft2(sfft.rfft2(rng.standard_normal((512, 512))) * transfer, s=(512, 512))
    return image / image.std() + noise * rng.standard_normal((512, 512))


@pytest.mark.parametrize(("voltage", "expected"), [(300, 0.019687), (200, 0.025079)])
def test_wavelength(voltage: float, expected: float) -> None:
    assert Optics(voltage, 2.7, 0.1).wavelength_angstrom == pytest.approx(expected, abs=2e-6)


def test_phase_at_zero_frequency_is_the_amplitude_contrast() -> None:
    assert np.sin(phase(np.array([0.0]), 20000.0, KRIOS))[0] == pytest.approx(0.1)


@pytest.mark.parametrize("defocus", [15000.0, 30000.0, 52000.0])
def test_defocus_within_one_percent(defocus: float) -> None:
    spectrum = power_spectrum(thon_rings(defocus, noise=4.0), 256)
    fit = fit_ctf(
        spectrum,
        4.0,
        KRIOS,
        resolution_angstrom=(30, 6),
        defocus_range_angstrom=(defocus - 12000, defocus + 12000),
    )
    assert fit.defocus_angstrom == pytest.approx(defocus, rel=0.01)
    assert fit.defocus_u_angstrom >= fit.defocus_v_angstrom
    assert fit.figure_of_merit > 0.4
    assert 8.8 <= fit.max_resolution_angstrom < 16
    assert len(fit.frequency_per_angstrom) == len(fit.power) == len(fit.fit)
    assert np.corrcoef(fit.power, fit.fit)[0, 1] > 0.4


def test_strong_astigmatism_and_its_angle_on_a_clean_image() -> None:
    spectrum = power_spectrum(thon_rings(30000, 0.3, half_astigmatism=1000, angle_deg=40), 256)
    fit = fit_ctf(
        spectrum, 4.0, KRIOS, resolution_angstrom=(30, 9), defocus_range_angstrom=(2e4, 4e4)
    )
    assert fit.astigmatism_angstrom == pytest.approx(2000, rel=0.25)
    assert fit.defocus_angle_deg == pytest.approx(40, abs=8)


def test_noise_has_a_poor_figure_of_merit_and_no_resolution() -> None:
    noise = np.random.default_rng(1).standard_normal((512, 512))
    fit = fit_ctf(
        power_spectrum(noise, 256),
        4.0,
        KRIOS,
        resolution_angstrom=(30, 6),
        defocus_range_angstrom=(18000, 42000),
    )
    good = fit_ctf(
        power_spectrum(thon_rings(30000, 2.0), 256),
        4.0,
        KRIOS,
        resolution_angstrom=(30, 6),
        defocus_range_angstrom=(18000, 42000),
    )
    assert fit.figure_of_merit < 0.7 * good.figure_of_merit
    assert fit.max_resolution_angstrom > good.max_resolution_angstrom


def test_too_few_pixels_between_the_limits_say_so() -> None:
    with pytest.raises(ValueError, match="radial bins between 30 and 22 A"):
        fit_ctf(
            np.ones((64, 33)),
            10.0,
            KRIOS,
            resolution_angstrom=(30, 6),
            defocus_range_angstrom=(1e4, 4e4),
        )


def test_search_range() -> None:
    assert search_range_angstrom(None, (1.1, 8.0)) == pytest.approx((11000, 80000))
    assert search_range_angstrom(3.0, (1.1, 8.0)) == pytest.approx((18000, 42000))
    assert search_range_angstrom(2.0, (1.1, 8.0)) == pytest.approx((11000, 32000))
    assert search_range_angstrom(0.0, (1.5, 8.0)) == pytest.approx((15000, 80000))


def test_window_leaves_room_for_nine_tiles() -> None:
    assert window_size((512, 512), 512) == 256
    assert window_size((4096, 3000), 512) == 512
    assert window_size((251, 400), 512) == 124


def test_display_spectrum_is_the_whole_centred_transform() -> None:
    image = np.random.default_rng(1).standard_normal((32, 32))
    spectrum = np.abs(sfft.rfft2(image)) ** 2
    full = np.abs(sfft.fftshift(sfft.fft2(image)))
    assert display_spectrum(spectrum) == pytest.approx(full, rel=1e-4, abs=1e-4)
