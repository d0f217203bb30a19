"""The exposure filter has the published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from crboost.cpu.dose import critical_exposure, exposure_weight, weight_image


def test_critical_exposure_of_the_paper() -> None:
    """0.24499 k^-1.6649 + 2.8141 at 1/10 and 1/3 1/A, and 0.8 of it at 200 kV."""
    at = critical_exposure(np.array([0.1, 1 / 3]))
    assert at == pytest.approx([14.139, 4.340], abs=0.01)
    assert critical_exposure(np.array([0.1]), 200)[0] == pytest.approx(0.8 * at[0])


def test_weight_is_one_without_dose_and_falls_with_it() -> None:
    frequency = np.array([0.0, 0.02, 0.05, 0.1, 0.3])
    assert exposure_weight(frequency, 0) == pytest.approx(np.ones(5))
    at_60 = exposure_weight(frequency, 60)
    assert at_60[0] == pytest.approx(1)
    assert (np.diff(at_60) < 0).all()
    at_critical = exposure_weight(frequency[3:4], float(critical_exposure(frequency[3:4])[0]))
    assert at_critical[0] == pytest.approx(np.exp(-0.5))


def test_weighting_an_image_keeps_its_mean_and_dims_its_detail() -> None:
    image = np.random.default_rng(1).normal(5, 1, (64, 64))
    weighted = weight_image(image, 2.0, 90.0)
    assert weighted.mean() == pytest.approx(image.mean())
    assert weighted.std() < 0.3 * image.std()
