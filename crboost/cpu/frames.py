"""One tilt: movie in; average, halves, power spectrum, motion and CTF out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crboost.cpu.arrays import Floats, Movie
from crboost.cpu.ctf import (
    Optics,
    display_spectrum,
    fit_ctf,
    power_spectrum,
    search_range_angstrom,
    window_size,
)
from crboost.cpu.ice import ice_ring_density
from crboost.cpu.io import apply_gain, eer_gain, read_gain, read_movie, write_mrc
from crboost.cpu.motion import correct_motion, summarise_motion
from crboost.errors import CrboostError, FileFormatError


@dataclass(frozen=True)
class FrameSettings:
    """The parameters of `frames` that all tilts of a series share; see docs/architecture.md."""

    pixel_size_angstrom: float
    optics: Optics
    dose_per_tilt_e_per_a2: float
    gain_reference: Path | None
    gain_flip_x: bool
    gain_flip_y: bool
    gain_transpose: bool
    eer_fractions_per_frame: int | None
    motion_bfactor_a2: float
    motion_resolution_angstrom: tuple[float, float]
    ctf_window_px: int
    ctf_resolution_angstrom: tuple[float, float]
    ctf_defocus_um: tuple[float, float]
    skip_first_frames: int
    skip_last_frames: int
    write_halves: bool


@dataclass(frozen=True)
class TiltMovie:
    """One tilt of the spec of `frames`."""

    name: str
    movie: Path
    tilt_angle_deg: float
    nominal_defocus_um: float | None


def process_tilt(tilt: TiltMovie, settings: FrameSettings, directory: Path) -> dict[str, Any]:
    """Process one tilt, write its images into `directory`, and return its entry of `result.json`.

    A movie that cannot be used makes a `failed` entry, with a reason that names the file; the
    same goes for an image that no CTF can be fitted to for lack of pixels.
    """
    try:
        return _process(tilt, settings, directory)
    except CrboostError as error:
        return {**_EMPTY, "name": tilt.name, "status": "failed", "reason": str(error)}
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        reason = f"{tilt.movie}: {error}"
        return {**_EMPTY, "name": tilt.name, "status": "failed", "reason": reason}


_EMPTY: dict[str, Any] = dict.fromkeys(
    (
        "name",
        "status",
        "reason",
        "frame_count",
        "size_px",
        "shifts_px",
        "motion_total_angstrom",
        "motion_early_angstrom",
        "motion_late_angstrom",
        "mean_counts_per_px",
        "defocus_u_angstrom",
        "defocus_v_angstrom",
        "astigmatism_angstrom",
        "defocus_angle_deg",
        "ctf_figure_of_merit",
        "ctf_max_resolution_angstrom",
        "ice_ring_density",
        "ctf_curve",
        "average",
        "even",
        "odd",
        "power_spectrum",
    )
)


def _process(tilt: TiltMovie, settings: FrameSettings, directory: Path) -> dict[str, Any]:
    recorded = read_movie(tilt.movie, eer_fractions_per_frame=settings.eer_fractions_per_frame)
    frames = used_frames(
        recorded, settings.skip_first_frames, settings.skip_last_frames, tilt.movie
    )
    if frames.min() == frames.max():
        raise FileFormatError(
            tilt.movie, f"every pixel of every frame is {frames.max()}: nothing was recorded"
        )
    frames = _with_gain(frames, settings, tilt.movie)
    pixel_size = settings.pixel_size_angstrom
    motion = correct_motion(
        frames,
        pixel_size,
        bfactor_a2=settings.motion_bfactor_a2,
        resolution_angstrom=settings.motion_resolution_angstrom,
    )
    dose_per_frame = settings.dose_per_tilt_e_per_a2 / len(recorded)
    summary = summarise_motion(
        motion.shifts_px, pixel_size, dose_per_frame, settings.skip_first_frames * dose_per_frame
    )
    window = window_size((motion.average.shape[0], motion.average.shape[1]), settings.ctf_window_px)
    spectrum = power_spectrum(motion.average, window)
    entry: dict[str, Any] = {
        **_EMPTY,
        "name": tilt.name,
        "status": "done",
        "frame_count": len(recorded),
        "size_px": [recorded.shape[2], recorded.shape[1]],
        "shifts_px": np.round(motion.shifts_px, 3).tolist(),
        "motion_total_angstrom": round(summary.total_angstrom, 3),
        "motion_early_angstrom": round(summary.early_angstrom, 3),
        "motion_late_angstrom": round(summary.late_angstrom, 3),
        "mean_counts_per_px": float(f"{motion.average.mean():.6g}"),
    }
    entry |= _ctf_entry(spectrum, tilt, settings)
    write_mrc(
        directory / f"{tilt.name}_PS.mrc",
        display_spectrum(spectrum),
        pixel_size,
        half_precision=True,
    )
    entry["power_spectrum"] = f"{tilt.name}_PS.mrc"
    if settings.write_halves:
        for half, image in (("even", motion.even), ("odd", motion.odd)):
            name = f"{tilt.name}_{'EVN' if half == 'even' else 'ODD'}.mrc"
            write_mrc(directory / name, image, pixel_size, half_precision=True)
            entry[half] = name
    write_mrc(directory / f"{tilt.name}.mrc", motion.average, pixel_size, half_precision=True)
    entry["average"] = f"{tilt.name}.mrc"
    return entry


def _ctf_entry(spectrum: Floats, tilt: TiltMovie, settings: FrameSettings) -> dict[str, Any]:
    fit = fit_ctf(
        spectrum,
        settings.pixel_size_angstrom,
        settings.optics,
        resolution_angstrom=settings.ctf_resolution_angstrom,
        defocus_range_angstrom=search_range_angstrom(
            tilt.nominal_defocus_um, settings.ctf_defocus_um
        ),
    )
    return {
        "defocus_u_angstrom": round(fit.defocus_u_angstrom, 2),
        "defocus_v_angstrom": round(fit.defocus_v_angstrom, 2),
        "astigmatism_angstrom": round(fit.astigmatism_angstrom, 2),
        "defocus_angle_deg": round(fit.defocus_angle_deg, 2),
        "ctf_figure_of_merit": round(fit.figure_of_merit, 4),
        "ctf_max_resolution_angstrom": round(fit.max_resolution_angstrom, 2),
        "ice_ring_density": round(ice_ring_density(spectrum, settings.pixel_size_angstrom), 4),
        "ctf_curve": {
            "frequency_per_angstrom": np.round(fit.frequency_per_angstrom, 6).tolist(),
            "power": np.round(fit.power, 5).tolist(),
            "fit": np.round(fit.fit, 5).tolist(),
        },
    }


def used_frames(frames: Movie, skip_first: int, skip_last: int, movie: Path) -> Movie:
    """The frames between those to skip.

    Raises:
        FileFormatError: none would be left.
    """
    kept = frames[skip_first : max(0, len(frames) - skip_last)]
    if len(kept) == 0:
        raise FileFormatError(
            movie,
            f"has {len(frames)} frames; skip_first_frames {skip_first} and skip_last_frames "
            f"{skip_last} leave none",
        )
    return kept


def _with_gain(frames: Movie, settings: FrameSettings, movie: Path) -> Movie:
    if settings.gain_reference is None:
        return frames
    gain = read_gain(
        settings.gain_reference,
        flip_x=settings.gain_flip_x,
        flip_y=settings.gain_flip_y,
        transpose=settings.gain_transpose,
    )
    if movie.suffix.lower() == ".eer":
        gain = eer_gain(gain, settings.gain_reference)
    return apply_gain(frames, gain, movie)
