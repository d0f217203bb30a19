"""What every tool asks of a tilt series: optics, dose, tilt axis, kind of movie. Pure.

A tilt series' own tables say it; the project's parameters do where they do not. So tilt series of
several optics groups can go through one job.
"""

from __future__ import annotations

import itertools
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import median
from typing import Any

from crboost.errors import ParameterError
from crboost.parameters import DEFAULT_EER_FRAMES_PER_FRACTION, EffectiveParameters

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TiltSeries:
    """One tilt series as a builder sees it.

    Attributes:
        name: its name; also that of its files.
        global_row: its row in the global table: optics group and pixel size.
        rows: its tilt images; none where a plan only wants an example.
    """

    name: str
    global_row: Row
    rows: Sequence[Row]


@dataclass(frozen=True)
class Optics:
    """The optics group of a tilt series.

    Attributes:
        movie_pixel_size_angstrom: of the movies as they were recorded.
        pixel_size_angstrom: of the motion-corrected images; larger where movies were binned.
    """

    movie_pixel_size_angstrom: float
    pixel_size_angstrom: float
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float


def optics_of(series: TiltSeries, parameters: EffectiveParameters) -> Optics:
    """The optics of a tilt series: RELION's columns of its global row, else the microscope's."""
    row, microscope = series.global_row, parameters.microscope
    movie = float(row.get("rlnMicrographOriginalPixelSize", microscope.pixel_size_angstrom))
    return Optics(
        movie_pixel_size_angstrom=movie,
        pixel_size_angstrom=float(
            row.get("rlnTomoTiltSeriesPixelSize", round(movie * parameters.image_binning, 6))
        ),
        voltage_kv=float(row.get("rlnVoltage", microscope.acceleration_voltage_kv)),
        spherical_aberration_mm=float(
            row.get("rlnSphericalAberration", microscope.spherical_aberration_mm)
        ),
        amplitude_contrast=float(row.get("rlnAmplitudeContrast", microscope.amplitude_contrast)),
    )


def check_not_finer(
    parameters: EffectiveParameters,
    field: str,
    angstrom: float,
    pixel_size_angstrom: float | None = None,
) -> None:
    """Nothing that is made of images has smaller pixels than they have.

    Args:
        field: the job's parameter.
        angstrom: its value.
        pixel_size_angstrom: of the images; None: as the project's parameters say.

    Raises:
        ParameterError: it would have.
    """
    pixel = pixel_size_angstrom or parameters.image_pixel_size_angstrom
    if angstrom < pixel * 0.9999:
        raise ParameterError(
            f"jobs.{parameters.node}.{field} = {angstrom:g} Å: the images have {pixel:g} Å per "
            "pixel, and are not enlarged",
            hint=f"set it to at least {pixel:g}",
        )


def tilt_dose_e_per_a2(series: TiltSeries, parameters: EffectiveParameters) -> float:
    """Dose of one tilt: the usual step of the pre-exposures, else the project's."""
    doses = sorted(float(row["rlnMicrographPreExposure"]) for row in series.rows)
    steps = [later - earlier for earlier, later in itertools.pairwise(doses) if later > earlier]
    if steps:
        return round(median(steps), 6)
    acquisition = parameters.acquisition
    return acquisition.dose_per_tilt_e_per_a2 * acquisition.dose_calibration_factor


def tilt_axis_deg(series: TiltSeries, parameters: EffectiveParameters) -> float:
    """Nominal tilt axis, degrees counter-clockwise from the image's y axis."""
    if series.rows:
        return float(series.rows[0]["rlnTomoNominalTiltAxisAngle"])
    return parameters.acquisition.tilt_axis_degrees


def movie_extension(series: TiltSeries, parameters: EffectiveParameters) -> str:
    """The ending of the movies' names, with its dot and as it is written.

    Raises:
        ParameterError: a tilt series has movies of several kinds.
    """
    names = [str(row["rlnMicrographMovieName"]) for row in series.rows]
    names = names or list(parameters.data.movies) or ["*.tif"]
    endings = sorted({PurePosixPath(name).suffix for name in names})
    if len(endings) > 1 and series.rows:
        raise ParameterError(
            f"{series.name} has movies of several kinds: {', '.join(endings)}",
            hint="a tilt series' movies must be of one kind; import the others by themselves",
        )
    return endings[0]


def eer_frames_per_fraction(series: TiltSeries, parameters: EffectiveParameters) -> int | None:
    """Raw frames in one fraction of an EER movie; None for other movies."""
    if movie_extension(series, parameters).lower() != ".eer":
        return None
    asked = parameters.acquisition.eer_frames_per_fraction
    return asked or DEFAULT_EER_FRAMES_PER_FRACTION


def image_name(row: Row) -> str:
    """The motion-corrected image of a row, project-relative.

    Raises:
        ParameterError: there is none.
    """
    name = row.get("rlnMicrographName")
    if not name:
        raise ParameterError(
            f"{row.get('rlnMicrographMovieName')} has no motion-corrected image",
            hint="give the job a table that fsMotionAndCtf, or RELION's motion correction, made",
        )
    return str(name)


def tomogram_size_px(
    detector_px: tuple[int, int],
    axis_deg: float,
    thickness_nm: float,
    pixel_size_angstrom: float,
) -> tuple[int, int, int]:
    """Size (x, y, z) of a tomogram with its y along the tilt axis, that holds all images.

    Args:
        detector_px: width and height of an image, unbinned.
        axis_deg: tilt axis, counter-clockwise from the image's y axis.
        pixel_size_angstrom: of those images.
    """
    width, height = detector_px
    lies_along_x = abs(math.sin(math.radians(axis_deg))) > math.cos(math.radians(45))
    across, along = (height, width) if lies_along_x else (width, height)
    z = math.ceil(round(thickness_nm * 10 / pixel_size_angstrom, 6))
    return across, along, z + z % 2


def seen_from(directory: str, path: str) -> str:
    """A project-relative path as a program sees it that runs in `directory` of the project."""
    return path if path.startswith("/") else posixpath.relpath(path, directory)
