"""What the microscope wrote -> RELION's import tables. Pure.

Columns and signs are those of `relion_python_tomo_import SerialEM` (RELION 5.1), except that the
pre-exposure of the first tilt is 0, as it is in truth.
"""

from __future__ import annotations

from collections.abc import Mapping

from crboost.acquisition.movies import MovieFile
from crboost.acquisition.tilt_series import TiltAcquisition, TiltSeriesAcquisition
from crboost.parameters import EffectiveParameters
from crboost.translate.optics_groups import optics_of_series
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row


def import_output(
    name: str,
    series: TiltSeriesAcquisition,
    movies: Mapping[str, MovieFile],
    paths: Mapping[str, str],
    parameters: EffectiveParameters,
) -> SeriesOutput:
    """The import tables of one tilt series.

    A value that the user or a preset set wins over the mdoc; a value that came from the mdocs, or
    that nobody set, is taken from this series' own mdoc where it has one.

    Args:
        name: the tilt series.
        movies: movie name in the mdoc -> what its header says.
        paths: movie name in the mdoc -> project-relative path.
    """
    acquisition = parameters.acquisition
    optics = optics_of_series(name, series, movies, parameters)
    output = SeriesOutput(
        {
            "rlnTomoName": name,
            "rlnTomoTiltSeriesStarFile": "",
            **optics.columns,
            **({"rlnMtfFileName": acquisition.mtf_file} if acquisition.mtf_file else {}),
            "rlnTomoHand": -1.0 if acquisition.invert_defocus_hand else 1.0,
        },
        [],
    )
    output.warnings.extend([*series.warnings, *optics.warnings])
    if series.incomplete:
        output.warnings.append(f"the mdoc is incomplete: {series.incomplete}")
    problems: list[tuple[str, str]] = []
    axis = _tilt_axis(series, parameters)
    sign = -1.0 if acquisition.invert_tilt_angles else 1.0
    for order, tilt in enumerate(series.tilts):
        angle = sign * tilt.tilt_angle_deg
        problem = _problem(tilt, movies)
        record = {
            "name": tilt.movie_name.rpartition(".")[0] or tilt.movie_name,
            "tilt_angle_deg": angle,
            "order": order,
            "status": "missing" if tilt.movie_name not in movies else "done",
            "reason": problem,
        }
        if problem is not None:
            if record["status"] == "done":
                record["status"] = "failed"
            output.tilts.append(record)
            problems.append((f"tilt {order + 1} ({angle:+.1f} deg)", problem))
            continue
        output.tilts.append(record)
        row: Row = {
            "rlnMicrographMovieName": paths[tilt.movie_name],
            "rlnTomoTiltMovieFrameCount": movies[tilt.movie_name].frame_count,
            "rlnTomoNominalStageTiltAngle": angle,
            "rlnTomoNominalTiltAxisAngle": axis,
            "rlnMicrographPreExposure": _pre_exposure(tilt, order, parameters),
            "rlnTomoNominalDefocus": -(tilt.nominal_defocus_um or 0.0),
        }
        output.rows.append(row)
    output.warnings.extend(grouped(problems))
    output.metrics.update(tilts=len(output.rows), tilts_total=len(series.tilts))
    return output


def _problem(tilt: TiltAcquisition, movies: Mapping[str, MovieFile]) -> str | None:
    movie = movies.get(tilt.movie_name)
    if movie is None:
        return f"movie {tilt.movie_name} is missing"
    if movie.problem is not None:
        return f"movie {tilt.movie_name} cannot be used: {movie.problem}"
    return None


def _tilt_axis(series: TiltSeriesAcquisition, parameters: EffectiveParameters) -> float:
    chosen = parameters.origin("acquisition.tilt_axis_degrees").is_chosen
    if chosen or series.tilt_axis_deg is None:
        return parameters.acquisition.tilt_axis_degrees
    return series.tilt_axis_deg


def _pre_exposure(tilt: TiltAcquisition, order: int, parameters: EffectiveParameters) -> float:
    """Dose before this tilt in e/Å²; the first one has seen none."""
    acquisition = parameters.acquisition
    chosen = parameters.origin("acquisition.dose_per_tilt_e_per_a2").is_chosen
    if chosen or tilt.pre_exposure_e_per_a2 is None:
        dose = order * acquisition.dose_per_tilt_e_per_a2
    else:
        dose = tilt.pre_exposure_e_per_a2
    return dose * acquisition.dose_calibration_factor
