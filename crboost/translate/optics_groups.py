"""Which optics group a tilt series belongs to, and what RELION's import table says of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from crboost.acquisition.collect import movie_pixel_size
from crboost.acquisition.movies import MovieFile, common_size
from crboost.acquisition.tilt_series import TiltSeriesAcquisition
from crboost.found_values import SAME_VALUE
from crboost.parameters import EffectiveParameters, ImportMovies
from crboost.parameters.optics_groups import OPTICS_VALUES, group_of, is_allowed
from crboost.translate.tables import Row

PIXEL, VOLTAGE = "pixel_size_angstrom", "acceleration_voltage_kv"

#: RELION's column of each value.
COLUMNS = {
    VOLTAGE: "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    PIXEL: "rlnMicrographOriginalPixelSize",
}
_UNITS = {PIXEL: "A", VOLTAGE: "kV"}


@dataclass(frozen=True)
class SeriesOptics:
    """The optics of a tilt series.

    Attributes:
        columns: of the global table.
        warnings: where it differs from the project, and why.
    """

    columns: Row
    warnings: list[str]


def optics_of_series(
    name: str,
    series: TiltSeriesAcquisition,
    movies: Mapping[str, MovieFile],
    parameters: EffectiveParameters,
) -> SeriesOptics:
    """The optics group of a tilt series, as its import tells it.

    What the user says of its group wins, then the project's values that a user or a preset chose,
    then pixel size and voltage of the series' own mdoc, then the project's.

    RELION takes two tilt series of one group name to have the same values. So a series whose mdoc
    has others gets a name made of the group's and of them.

    Args:
        name: the tilt series.
        movies: movie name in the mdoc -> what its header says.
    """
    job = parameters.job_as(ImportMovies)
    group = group_of(name, job.groups)
    values = {field: float(getattr(parameters.microscope, field)) for field in OPTICS_VALUES}
    given = group.values if group is not None else {}
    values |= given
    base = group.name if group is not None else job.optics_group_name
    warnings: list[str] = []
    suffixes: list[str] = []
    for field, own in _told(series, movies).items():
        chosen = parameters.origin(f"microscope.{field}").is_chosen
        if field in given or chosen or math.isclose(own, values[field], rel_tol=SAME_VALUE):
            continue
        said = f"{series.mdoc_path.name}: {field} {own:g} {_UNITS[field]}"
        usual = f"{values[field]:g} {_UNITS[field]}"
        if not is_allowed(field, own):
            warnings.append(f"{said} is not possible; taken as {usual}")
            continue
        values[field] = own
        suffixes.append(f"{own:g}{_UNITS[field]}")
        warnings.append(f"{said} instead of {usual}: it gets an optics group of its own")
    columns: Row = {column: values[field] for field, column in COLUMNS.items()}
    return SeriesOptics({**columns, "rlnOpticsGroupName": "_".join([base, *suffixes])}, warnings)


def _told(series: TiltSeriesAcquisition, movies: Mapping[str, MovieFile]) -> dict[str, float]:
    """What the mdoc says: the movies' pixel size and the voltage.

    Rounded, so that the group's name tells them whole.
    """
    pixel = series.pixel_size_angstrom
    scaled, _ = movie_pixel_size(series, common_size(list(movies.values())))
    told = {PIXEL: scaled or pixel, VOLTAGE: series.voltage_kv}
    return {field: float(f"{value:g}") for field, value in told.items() if value}
