"""The embedded CPU tools: job parameters and one tilt series -> steps. Pure.

The tools' contract (specs and results) is in `docs/architecture.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from crboost.builders.series_values import (
    Row,
    TiltSeries,
    check_not_finer,
    optics_of,
    tilt_axis_deg,
    tilt_dose_e_per_a2,
)
from crboost.builders.step import Step
from crboost.parameters import (
    DEFAULT_EER_FRAMES_PER_FRACTION,
    EffectiveParameters,
    FsMotionAndCtf,
    TsAlignment,
    TsReconstruct,
)
from crboost.tilt_name import tilt_name

#: More BLAS threads than one only make the worker processes fight for the cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def frames(
    python: str,
    series: TiltSeries,
    parameters: EffectiveParameters,
    job_type_parameters: FsMotionAndCtf,
    out: str,
    workers: int,
) -> Step:
    """Motion correction and CTF fit of one tilt series.

    Args:
        python: the interpreter that has crboost installed.
        series: the tilt series, as RELION's import table has it.
        parameters: what the job sees of microscope and acquisition.
        job_type_parameters: the job's own.
        out: project-relative directory for the results.
        workers: processes that the tool may use.
    """
    job, acquisition = job_type_parameters, parameters.acquisition
    optics = optics_of(series, parameters)
    spec = {
        "tilt_series": series.name,
        "pixel_size_angstrom": optics.movie_pixel_size_angstrom,
        "voltage_kv": optics.voltage_kv,
        "spherical_aberration_mm": optics.spherical_aberration_mm,
        "amplitude_contrast": optics.amplitude_contrast,
        "dose_per_tilt_e_per_a2": tilt_dose_e_per_a2(series, parameters),
        "gain_reference": acquisition.gain_reference_path,
        "gain_flip_x": acquisition.gain_flip_x,
        "gain_flip_y": acquisition.gain_flip_y,
        "gain_transpose": acquisition.gain_transpose,
        "eer_frames_per_fraction": _eer_grouping(series.rows, acquisition.eer_frames_per_fraction),
        "motion_bfactor_a2": job.m_bfac,
        "motion_resolution_angstrom": list(job.motion_resolution_angstrom),
        "ctf_window_px": job.c_window,
        "ctf_resolution_angstrom": list(job.ctf_resolution_angstrom),
        "ctf_defocus_um": list(job.ctf_defocus_um),
        "skip_first_frames": job.out_skip_first,
        "skip_last_frames": job.out_skip_last,
        "write_halves": job.out_average_halves,
        "tilts": [
            {
                "name": tilt_name(row),
                "movie": row["rlnMicrographMovieName"],
                "tilt_angle_deg": float(row["rlnTomoNominalStageTiltAngle"]),
                "pre_exposure_e_per_a2": float(row["rlnMicrographPreExposure"]),
                "nominal_defocus_um": _positive_defocus_um(row),
            }
            for row in series.rows
        ],
    }
    return _step("frames", python, spec, out, ["--workers", str(workers)])


def align(
    python: str,
    series: TiltSeries,
    parameters: EffectiveParameters,
    job_type_parameters: TsAlignment,
    out: str,
) -> Step:
    """Alignment of one tilt series, whose rows name the motion-corrected images.

    Raises:
        ParameterError: it would be aligned at smaller pixels than the images have.
    """
    job = job_type_parameters
    pixel = optics_of(series, parameters).pixel_size_angstrom
    check_not_finer(parameters, "rescale_angpixs", job.alignment_pixel_size_angstrom, pixel)
    spec = {
        "tilt_series": series.name,
        "pixel_size_angstrom": pixel,
        "alignment_pixel_size_angstrom": job.alignment_pixel_size_angstrom,
        "tilt_axis_deg": tilt_axis_deg(series, parameters),
        "sample_thickness_nm": job.thickness_nm,
        "method": job.alignment_mode,
        "fiducial_diameter_nm": job.fiducial_diameter_nm,
        "dark_threshold": job.dark_threshold,
        "tilts": [
            {
                "name": tilt_name(row),
                "image": row["rlnMicrographName"],
                "tilt_angle_deg": float(row["rlnTomoNominalStageTiltAngle"]),
            }
            for row in series.rows
        ],
    }
    return _step("align", python, spec, out, [])


def reconstruct(
    python: str,
    series: TiltSeries,
    parameters: EffectiveParameters,
    job_type_parameters: TsReconstruct,
    out: str,
) -> Step:
    """Reconstruction of one aligned tilt series.

    Raises:
        ParameterError: the tomogram would have smaller pixels than the images.
    """
    job = job_type_parameters
    rows = series.rows
    pixel = optics_of(series, parameters).pixel_size_angstrom
    check_not_finer(parameters, "rescale_angpixs", job.tomogram_pixel_size_angstrom, pixel)
    dose = tilt_dose_e_per_a2(series, parameters)
    size = job.tomo_dimensions_px
    halves = job.halfmap_frames and all(row.get("rlnMicrographNameEven") for row in rows)
    spec = {
        "tilt_series": series.name,
        "pixel_size_angstrom": pixel,
        "tomogram_pixel_size_angstrom": job.tomogram_pixel_size_angstrom,
        "sample_thickness_nm": job.thickness_nm,
        "tomogram_size_px": list(size) if size else None,
        "halves": halves,
        "dose_weight": job.dose_weight,
        "tilts": [
            {
                "name": tilt_name(row),
                "image": row["rlnMicrographName"],
                "even": row.get("rlnMicrographNameEven") if halves else None,
                "odd": row.get("rlnMicrographNameOdd") if halves else None,
                "pre_exposure_e_per_a2": float(row["rlnMicrographPreExposure"]),
                "dose_e_per_a2": dose,
                "x_tilt_deg": float(row["rlnTomoXTilt"]),
                "y_tilt_deg": float(row["rlnTomoYTilt"]),
                "z_rot_deg": float(row["rlnTomoZRot"]),
                "x_shift_angstrom": float(row["rlnTomoXShiftAngst"]),
                "y_shift_angstrom": float(row["rlnTomoYShiftAngst"]),
            }
            for row in rows
        ],
    }
    return _step("reconstruct", python, spec, out, [])


def _eer_grouping(rows: Sequence[Row], asked: int | None) -> int | None:
    """Frames per fraction for EER movies; None for movies whose frames are what they are."""
    movies = (str(row["rlnMicrographMovieName"]).lower() for row in rows)
    if not any(movie.endswith(".eer") for movie in movies):
        return None
    return asked or DEFAULT_EER_FRAMES_PER_FRACTION


def _positive_defocus_um(row: Row) -> float | None:
    """RELION's import keeps the mdoc's sign (underfocus negative); tools want a distance."""
    value = row.get("rlnTomoNominalDefocus")
    return abs(float(value)) if value is not None and float(value) != 0 else None


def _step(
    command: str, python: str, spec: Mapping[str, Any], out: str, options: Sequence[str]
) -> Step:
    spec_file = f"{out}/{command}.json"
    return Step(
        name=command,
        argv=(
            python,
            "-P",
            "-m",
            "crboost.cpu",
            command,
            "--spec",
            spec_file,
            "--out",
            out,
            *options,
        ),
        files={spec_file: json.dumps(spec, indent=1, ensure_ascii=False) + "\n"},
        creates=(f"{out}/result.json",),
        environment=ENVIRONMENT,
    )
