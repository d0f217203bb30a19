"""Fourier helpers keep centres and signs where docs/conventions.md says they are."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft as sfft

from crboost.cpu.fourier import (
    band_pass,
    bin_image,
    displacement,
    edge_window,
    low_pass,
    resample,
    shift_phases,
)


def blob(shape: tuple[int, int], y: float, x: float, sigma: float = 3.0) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    weight = np.clip(image - 0.2 * image.max(), 0, None)
    rows, columns = np.indices(image.shape)
    return (
        float((weight * rows).sum() / weight.sum()),
        float((weight * columns).sum() / weight.sum()),
    )


def test_shift_phases_move_forward() -> None:
    image = blob((64, 96), 30, 40)
    moved = sfft.irfft2(sfft.rfft2(image) * shift_phases((64, 96), (2.5, -3.25)), s=(64, 96))
    assert centre_of_mass(moved) == pytest.approx((32.5, 36.75), abs=0.01)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.3, -2.7), (-8.6, 5.1)])
def test_displacement_finds_the_sub_pixel_shift(shift: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    reference = band_pass(rng.standard_normal((128, 128)), 0.02, 0.1)
    image = sfft.irfft2(sfft.rfft2(reference) * shift_phases((128, 128), shift), s=(128, 128))
    assert displacement(image, reference, 20) == pytest.approx(shift, abs=0.03)


@pytest.mark.parametrize("shape", [(64, 64), (65, 70), (96, 51), (130, 62)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_binning_keeps_the_centre_pixel_and_the_mean(shape: tuple[int, int], factor: int) -> None:
    middle = (shape[0] // 2, shape[1] // 2)
    image = blob(shape, *middle, sigma=4) + 5
    binned = bin_image(image, factor)
    assert binned.shape[0] % 2 == 0 and binned.shape[1] % 2 == 0
    found = centre_of_mass(binned - 5)
    assert found == pytest.approx((binned.shape[0] // 2, binned.shape[1] // 2), abs=0.02)
    assert binned[0, 0] == pytest.approx(5, abs=0.02)


def test_binning_refuses_to_make_nothing() -> None:
    with pytest.raises(ValueError, match="cannot be binned by 40"):
        bin_image(np.zeros((32, 32)), 40)


def test_band_pass_removes_the_mean_and_low_pass_keeps_it() -> None:
    image = blob((64, 64), 30, 30) + 3
    assert abs(band_pass(image, 0.01, 0.2).mean()) < 1e-9
    assert low_pass(image, 0.2).mean() == pytest.approx(image.mean())


def test_edge_window_falls_to_zero_at_every_edge() -> None:
    window = edge_window((60, 80))
    assert window[30, 40] == 1
    assert max(window[0].max(), window[-1].max(), window[:, 0].max(), window[:, -1].max()) < 0.1


def test_resample_takes_what_is_at_rotated_and_shifted_place() -> None:
    """A blob at Rz(a) (x', y') + shift in the image lands at (x', y') in the result."""
    angle, shift, place = 85.0, (4.0, -6.0), (10.0, -7.0)
    turn = np.deg2rad(angle)
    x = np.cos(turn) * place[0] - np.sin(turn) * place[1] + shift[0]
    y = np.sin(turn) * place[0] + np.cos(turn) * place[1] + shift[1]
    image = blob((80, 100), 40 + y, 50 + x)
    straight = resample(image, angle, shift)
    assert centre_of_mass(straight) == pytest.approx((40 + place[1], 50 + place[0]), abs=0.05)
    half = resample(image, angle, shift, shape=(41, 50), centre_yx=(20.0, 25.0), scale=2.0)
    expected = (20 + place[1] / 2, 25 + place[0] / 2)
    assert centre_of_mass(half) == pytest.approx(expected, abs=0.05)
