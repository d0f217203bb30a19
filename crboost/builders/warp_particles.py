"""WarpTools' export of particles: one tilt series and its candidates -> steps. Pure.

Conventions (WarpTools' source at the commit that `warptools_cli.json` names,
`ExportParticlesTiltseries.cs` and `TiltSeries.ReconstructParticleSeries.cs`):
- a particle belongs to the tilt series whose file has its rlnTomoName, ending included:
  `TS_01.tomostar`.
- rlnCoordinateX, Y, Z times `--coords_angpix` are Å from the volume's voxel 0. We give Å, and 1.
- a tilt series without a CTF of its own is passed over.
- `--box` is both the box that is cut and the one that is written.
- contrast is inverted, images are multiplied by CTF and dose weight: as RELION's own are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crboost.builders.contract import PROGRAM, number
from crboost.builders.series_values import TiltSeries, optics_of, seen_from
from crboost.builders.step import Step
from crboost.builders.warp import (
    ENVIRONMENT,
    SERIES_FOLDER,
    SERIES_SETTINGS,
    further_options,
    per_device,
    whole,
)
from crboost.errors import ParameterError
from crboost.parameters import EffectiveParameters, SubtomoExtraction

Row = Mapping[str, Any]

#: In the tilt series' directory: what WarpTools is given, and what it writes.
CANDIDATES = "candidates.star"
PARTICLES = "particles.star"

_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_SUBTOMOGRAM_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
#: Our own: which tilts WarpTools exports decides what its visibility list means.
_RESERVED = ("input_star", "input_directory", "input_pattern", "normalized_coords", "2d", "3d")


def export_particles(
    series: TiltSeries,
    parameters: EffectiveParameters,
    job: SubtomoExtraction,
    out: str,
    imported: str,
    aligned: str,
    candidates: Sequence[Row],
) -> list[Step]:
    """Cut the particles of one tilt series out of its images, or out of a tomogram of its own.

    Results: `<out>/particles.star`, and what it names below `<out>/warp_tiltseries/`.

    Args:
        series: its global row has the size of Warp's volume (rlnTomoSizeX, Y, Z).
        imported: the tilt series' directory in the tsImport job, project-relative.
        aligned: folder with its aligned `<series>.xml`, with its CTF.
        candidates: its rows of a RELION 5 table of particles.

    Raises:
        ParameterError: a candidate has no place, or a frame of its own.
    """
    pixel = particle_pixel_size_angstrom(series, parameters, job)
    diameter = job.particle_diameter or job.final_box_px * pixel
    for word in job.further_arguments:
        if word.partition("=")[0].removeprefix("--") in _RESERVED:
            raise ParameterError(
                f"jobs.{parameters.node}.warp_arguments: {word} is not for you to give",
                hint="leave it out: particles are those of the optimisation set, and do_stack2d "
                "says what is made of them",
            )
    argv = [
        *(PROGRAM, "ts_export_particles"),
        *("--settings", seen_from(out, f"{imported}/{SERIES_SETTINGS}")),
        *("--input_processing", seen_from(out, aligned), "--output_processing", SERIES_FOLDER),
        *("--input_star", CANDIDATES, "--coords_angpix", "1"),
        *("--output_star", PARTICLES, "--relative_output_paths"),
        *("--output_angpix", number(pixel), "--box", str(job.final_box_px)),
        *("--diameter", whole(diameter)),
        "--2d" if job.do_stack2d else "--3d",
        *(("--max_missing_tilts", str(job.max_missing_tilts)) if job.do_stack2d else ()),
        *per_device(job.perdevice),
        *further_options(parameters, job.further_arguments),
    ]
    return [
        Step(
            name="particle export",
            argv=tuple(argv),
            directory=out,
            clears=(f"{out}/{SERIES_FOLDER}",),
            files={f"{out}/{CANDIDATES}": candidates_text(series, parameters, candidates)},
            creates=(f"{out}/{PARTICLES}",),
            environment=ENVIRONMENT,
            tool="warp",
        )
    ]


def particle_pixel_size_angstrom(
    series: TiltSeries, parameters: EffectiveParameters, job: SubtomoExtraction
) -> float:
    """Of the particles' images."""
    return round(optics_of(series, parameters).pixel_size_angstrom * job.binning, 6)


def candidates_text(
    series: TiltSeries, parameters: EffectiveParameters, candidates: Sequence[Row]
) -> str:
    """The STAR file that WarpTools reads the particles of one tilt series from.

    Raises:
        ParameterError: see `warp_position_angstrom`.
    """
    columns = ["rlnTomoName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), *_ANGLES]
    lines = ["data_particles", "", "loop_"]
    lines += [f"_{column} #{place}" for place, column in enumerate(columns, start=1)]
    for one in candidates:
        place = warp_position_angstrom(one, series, parameters)
        angles = (float(one.get(angle, 0.0)) for angle in _ANGLES)
        words = (f"{value:.4f}" for value in (*place, *angles))
        lines.append(" ".join((f"{series.name}.tomostar", *words)))
    return "\n".join([*lines, ""])


def warp_position_angstrom(
    particle: Row, series: TiltSeries, parameters: EffectiveParameters
) -> tuple[float, float, float]:
    """Where a RELION 5 particle is in Warp's volume, in Å from its voxel 0.

    RELION's centred coordinate less its offset, from half of the volume's size: voxel i of Warp's
    volume lies at i pixels, as voxel i of RELION's.

    Raises:
        ParameterError: it has no centred coordinates, or is turned by rlnTomoSubtomogramRot and so
            on: WarpTools knows one orientation only.
    """
    name = particle.get("rlnTomoParticleName", series.name)
    if any(float(particle.get(angle, 0.0)) for angle in _SUBTOMOGRAM_ANGLES):
        raise ParameterError(
            f"particle {name} has an orientation of its box (rlnTomoSubtomogramRot, Tilt, Psi), "
            "which WarpTools does not know",
            hint=f"set jobs.{parameters.node}.tool=relion",
        )
    pixel = optics_of(series, parameters).pixel_size_angstrom
    place = []
    for axis in "XYZ":
        column = f"rlnCenteredCoordinate{axis}Angst"
        if column not in particle:
            raise ParameterError(
                f"particle {name} has no {column}", hint="take particles of RELION 5"
            )
        centred = float(particle[column]) - float(particle.get(f"rlnOrigin{axis}Angst", 0.0))
        place.append(centred + float(series.global_row[f"rlnTomoSize{axis}"]) / 2 * pixel)
    return place[0], place[1], place[2]
