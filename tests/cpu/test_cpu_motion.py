"""Motion correction finds a known drift in noisy frames."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft as sfft

from crboost.cpu.fourier import band_pass, displacement, shift_phases
from crboost.cpu.motion import correct_motion, repair_hot_pixels, summarise_motion

DRIFT = np.array([[0, 0], [2.3, -1.1], [3.9, -2.4], [4.6, -3.6], [5.1, -4.0]])


def noisy_frames(drift: np.ndarray, electrons_per_px: float = 9.6) -> np.ndarray:
    rng = np.random.default_rng(2)
    scene = band_pass(rng.standard_normal((256, 256)), 0.01, 0.08)
    scene *= 0.12 / scene.std()
    frames = []
    for y, x in drift:
        phases = shift_phases((256, 256), (float(y), float(x)))
        moved = sfft.irfft2(sfft.rfft2(scene) * phases, s=scene.shape)
        frames.append(rng.poisson(np.clip(1 + moved, 0.05, None) * electrons_per_px))
    return np.array(frames)


def test_drift_is_found_and_undone() -> None:
    frames = noisy_frames(DRIFT)
    motion = correct_motion(frames, 4.0)
    assert motion.shifts_px[0] == pytest.approx((0, 0))
    error = motion.shifts_px - DRIFT
    error -= error.mean(axis=0)
    assert np.sqrt((error**2).sum(axis=1).mean()) < 0.15
    assert motion.average == pytest.approx(motion.even + motion.odd, abs=0.01)
    assert motion.average.mean() == pytest.approx(frames.sum(axis=0).mean(), rel=1e-5)
    # What adds up is beyond what shot noise gives; drift smears it out of a plain sum.
    signal = motion.average.var() - motion.average.mean()
    smeared = frames.sum(axis=0).var() - frames.sum(axis=0).mean()
    assert signal > 1.3 * smeared


def test_the_sum_lies_on_the_mean_frame_position() -> None:
    """Otherwise the drift would end up in the tilt-series alignment."""
    electrons = 200.0
    still = correct_motion(noisy_frames(np.zeros((5, 2)), electrons), 4.0).average
    moved = correct_motion(noisy_frames(DRIFT - DRIFT.mean(axis=0), electrons), 4.0).average
    first, second = (band_pass(image, 0.01, 0.1) for image in (still, moved))
    assert displacement(second, first, 10) == pytest.approx((0, 0), abs=0.05)


def test_a_hot_pixel_does_not_hide_the_motion() -> None:
    frames = noisy_frames(DRIFT)
    frames[:, 100, 120] = 4000
    frames[:, 30, 31] = 2500
    error = correct_motion(frames, 4.0).shifts_px - DRIFT
    error -= error.mean(axis=0)
    assert np.sqrt((error**2).sum(axis=1).mean()) < 0.15


def test_hot_pixels_are_replaced_and_nothing_else() -> None:
    frames = np.random.default_rng(1).poisson(10, (3, 64, 64)).astype(np.float32)
    hot = frames.copy()
    hot[:, 5, 6] = 500
    repaired = repair_hot_pixels(hot)
    assert repaired[:, 5, 6].max() < 20
    changed = np.argwhere((repaired != hot).any(axis=0))
    assert changed.tolist() == [[5, 6]]
    assert repair_hot_pixels(frames) is frames


def test_a_single_frame_does_not_move() -> None:
    frames = noisy_frames(DRIFT[:1])
    motion = correct_motion(frames, 4.0)
    assert motion.shifts_px.tolist() == [[0, 0]]
    assert motion.average == pytest.approx(frames[0], abs=0.01)
    assert motion.odd == pytest.approx(np.zeros_like(motion.odd))


def test_path_length_is_split_at_four_electrons() -> None:
    shifts = np.array([[0, 0], [3, 4], [3, 4], [3, 5], [3, 7]], float)
    summary = summarise_motion(shifts, 2.0, dose_per_frame_e_per_a2=2.0)
    assert summary.total_angstrom == pytest.approx(16)
    assert summary.early_angstrom == pytest.approx(10)
    assert summary.late_angstrom == pytest.approx(6)
    late = summarise_motion(shifts, 2.0, 2.0, dose_before_e_per_a2=4.0)
    assert (late.early_angstrom, late.late_angstrom) == (0, pytest.approx(16))


def test_frames_without_signal_are_left_where_they_are() -> None:
    """Noise always has a highest peak somewhere; following it would invent motion."""
    empty = np.random.default_rng(1).poisson(0.02, (5, 256, 256))
    assert correct_motion(empty, 4.0).shifts_px.tolist() == [[0, 0]] * 5
