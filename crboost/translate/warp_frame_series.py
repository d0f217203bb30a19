"""Warp's XML of one movie (`<processing>/<movie>.xml`) and RELION's rows of its tilt series."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import read_json
from crboost.tilt_name import tilt_name
from crboost.translate.defocus import DEGREES_PER_PHASE_UNIT, Defocus
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row
from crboost.translate.warp_xml import (
    Grid,
    WarpXml,
    add_grid,
    add_params,
    movie_stem,
    number_text,
    write_xml,
)


@dataclass(frozen=True)
class FrameSeries:
    """What Warp found out about one movie.

    Attributes:
        name: the movie's file name without extension.
        deselected: Warp's `UnselectManual`. WarpTools sets it when the movie's processing failed
            (`DistributedOptions.cs`); a person may set it too.
        filtered_out: Warp's `UnselectFilter`.
        motion_corrected: the motion was fitted (`OptionsMovement` is there).
        defocus: None when the CTF was not fitted (`OptionsCTF` is not there).
        ctf_resolution_angstrom: up to where the fit holds; None when Warp has not told.
        mean_frame_movement_angstrom: mean step between frames, over the first third of the movie.
        masked_percent: of the average; None when no mask was made.
        grid_ctf_defocus_um: the defocus over the field, as fitted.
    """

    name: str
    deselected: bool | None = None
    filtered_out: bool = False
    motion_corrected: bool = True
    defocus: Defocus | None = None
    ctf_resolution_angstrom: float | None = None
    mean_frame_movement_angstrom: float | None = None
    masked_percent: float | None = None
    grid_ctf_defocus_um: Grid | None = None
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None
    pixel_size_angstrom: float | None = None

    @property
    def problem(self) -> str | None:
        """Why this movie cannot go on; None when it can."""
        if self.deselected:
            return "WarpTools deselected it: its processing failed"
        if not self.motion_corrected:
            return "WarpTools did not correct its motion"
        if self.defocus is None:
            return "WarpTools fitted no CTF"
        if not self.defocus.defocus_um > 0:
            return f"WarpTools found a defocus of {self.defocus.defocus_um:g} um"
        return None


def read_frame_series(path: Path) -> FrameSeries:
    """Read `<movie>.xml`; the movie's name is the file's.

    A file exists for a movie that failed too: see `FrameSeries.problem`.

    Raises:
        FileFormatError: the file is missing or not such a file; names the element.
    """
    xml = WarpXml(path, "Movie")
    resolution = xml.attribute("CTFResolutionEstimate", 0.0)
    movement = xml.attribute("MeanFrameMovement", 0.0)
    masked = xml.attribute("MaskPercentage", -1.0)
    corrected = xml.has("OptionsMovement")
    defocus = None
    if xml.has("OptionsCTF"):
        values = {}
        for name in ("Defocus", "DefocusDelta", "DefocusAngle", "PhaseShift"):
            value = xml.param("CTF", name)
            if value is None and name != "PhaseShift":
                raise FileFormatError(path, f"CTF has no Param {name}")
            values[name] = value or 0.0
        defocus = Defocus(
            values["Defocus"],
            values["DefocusDelta"],
            values["DefocusAngle"],
            values["PhaseShift"] * DEGREES_PER_PHASE_UNIT,
        )
    return FrameSeries(
        name=path.stem,
        deselected=xml.flag("UnselectManual"),
        filtered_out=bool(xml.flag("UnselectFilter")),
        motion_corrected=corrected,
        defocus=defocus,
        ctf_resolution_angstrom=resolution if resolution > 0 else None,
        mean_frame_movement_angstrom=movement if corrected else None,
        masked_percent=masked if masked >= 0 else None,
        grid_ctf_defocus_um=xml.grid("GridCTF"),
        voltage_kv=xml.param("CTF", "Voltage"),
        spherical_aberration_mm=xml.param("CTF", "Cs"),
        amplitude_contrast=xml.param("CTF", "Amplitude"),
        pixel_size_angstrom=xml.param("CTF", "PixelSize"),
    )


def write_frame_series(path: Path, series: FrameSeries, *, encoding: str = "utf-8") -> None:
    """Write the XML of one movie in Warp's form, with what `FrameSeries` knows."""
    deselected = "null" if series.deselected is None else str(series.deselected)
    root = ET.Element(
        "Movie",
        {
            "DataDirectory": "",
            "UnselectFilter": str(series.filtered_out),
            "UnselectManual": deselected,
            "CTFResolutionEstimate": number_text(series.ctf_resolution_angstrom or 0.0),
            "MeanFrameMovement": number_text(series.mean_frame_movement_angstrom or 0.0),
            "MaskPercentage": number_text(
                -1.0 if series.masked_percent is None else series.masked_percent
            ),
            "Bfactor": "0",
            "Weight": "1",
            "MagnificationCorrection": "1, 0, 0, 1",
        },
    )
    defocus = series.defocus or Defocus(0.0, 0.0, 0.0)
    if series.defocus is not None:
        add_params(root, "OptionsCTF", {"Window": "512"})
    add_params(
        root,
        "CTF",
        {
            "PixelSize": number_text(series.pixel_size_angstrom or 1.0),
            "PhaseShift": number_text(defocus.phase_shift_deg / DEGREES_PER_PHASE_UNIT),
            "Amplitude": number_text(_or(series.amplitude_contrast, 0.07)),
            "DefocusDelta": number_text(defocus.delta_um),
            "Defocus": number_text(defocus.defocus_um),
            "Voltage": number_text(_or(series.voltage_kv, 300.0)),
            "Cs": number_text(_or(series.spherical_aberration_mm, 2.7)),
            "DefocusAngle": number_text(defocus.angle_deg),
        },
    )
    add_grid(root, "GridCTF", series.grid_ctf_defocus_um or Grid(1, 1, 1, (defocus.defocus_um,)))
    if series.motion_corrected:
        add_params(root, "OptionsMovement", {"Bfactor": "-500"})
    write_xml(path, root, encoding=encoding)


def read_motion_angstrom(path: Path) -> float:
    """The length of the path of a movie's frames in Angstrom, from `average/<movie>_motion.json`.

    The file holds a track per cell of the local grid; the mean over the cells is taken.

    Raises:
        FileFormatError: the file is missing or holds no tracks.
    """
    if not path.is_file():
        raise FileFormatError(path, "no such file")
    tracks = read_json(path)
    try:
        lengths = [
            math.fsum(
                math.hypot(x1 - x0, y1 - y0)
                for x0, x1, y0, y1 in zip(
                    track["x"], track["x"][1:], track["y"], track["y"][1:], strict=False
                )
            )
            for track in tracks.values()
        ]
        return math.fsum(lengths) / len(lengths)
    except (AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        raise FileFormatError(path, 'tracks {"x": [...], "y": [...]} are expected') from error


def average_files(directory: str, name: str, *, halves: bool) -> Row:
    """RELION's columns for the images that WarpTools writes of one movie.

    Warp's `even` half holds frames 0, 2, ..., as RELION's `_EVN`.

    Args:
        directory: Warp's processing directory, project-relative.
        name: of the tilt image.
    """
    files: Row = {"rlnCtfPowerSpectrum": f"{directory}/powerspectrum/{name}.mrc"}
    if halves:
        files["rlnMicrographNameEven"] = f"{directory}/average/even/{name}.mrc"
        files["rlnMicrographNameOdd"] = f"{directory}/average/odd/{name}.mrc"
    files["rlnMicrographName"] = f"{directory}/average/{name}.mrc"
    return files


def frame_series_output(
    rows: Sequence[Row],
    series: Mapping[str, FrameSeries | str],
    directory: str,
    pixel_size_angstrom: float,
    *,
    halves: bool,
    motion_angstrom: Mapping[str, float] | None = None,
) -> SeriesOutput:
    """RELION rows of one tilt series after motion correction and CTF with WarpTools.

    Args:
        rows: the import table of the tilt series.
        series: tilt image -> what Warp's XML says, or why there is none.
        directory: Warp's processing directory, project-relative.
        pixel_size_angstrom: of the averages.
        halves: half-averages were asked for.
        motion_angstrom: tilt image -> `read_motion_angstrom`.
    """
    output = SeriesOutput({"rlnTomoTiltSeriesPixelSize": pixel_size_angstrom}, [])
    problems: list[tuple[str, str]] = []
    done: list[FrameSeries] = []
    motions: list[float] = []
    for row in rows:
        name = tilt_name(row)
        angle = float(row["rlnTomoNominalStageTiltAngle"])
        found = series.get(name, "WarpTools wrote no XML for it")
        problem = found if isinstance(found, str) else found.problem
        record: dict[str, Any] = {
            "name": name,
            "tilt_angle_deg": angle,
            "status": "done" if problem is None else "failed",
            "reason": problem,
        }
        output.tilts.append(record)
        if isinstance(found, str) or found.defocus is None or problem is not None:
            problems.append((f"tilt image {name} ({angle:+.1f} deg)", str(problem)))
            continue
        images = average_files(directory, name, halves=halves)
        output.outputs.extend(images.values())
        columns = {
            **row,
            **images,
            "rlnCtfImage": f"{images['rlnCtfPowerSpectrum']}:mrc",
            **found.defocus.columns(),
        }
        if found.ctf_resolution_angstrom is not None:
            columns["rlnCtfMaxResolution"] = found.ctf_resolution_angstrom
            record["ctf_max_resolution_angstrom"] = found.ctf_resolution_angstrom
        motion = (motion_angstrom or {}).get(name)
        if motion is not None:
            # RELION documents A, but writes pixels (`crboost.translate.cpu`).
            columns["rlnAccumMotionTotal"] = motion / pixel_size_angstrom
            record["motion_total_angstrom"] = motion
            motions.append(motion)
        output.rows.append(columns)
        done.append(found)
    output.warnings.extend(grouped(problems))
    resolutions = [s.ctf_resolution_angstrom for s in done if s.ctf_resolution_angstrom]
    output.metrics.update(
        tilts=len(done),
        tilts_total=len(rows),
        motion_angstrom=sum(motions) / len(motions) if motions else None,
        defocus_um=median([s.defocus.defocus_um for s in done if s.defocus]) if done else None,
        ctf_resolution_angstrom=median(resolutions) if resolutions else None,
    )
    return output


def read_frame_series_of(rows: Sequence[Row], directory: Path) -> dict[str, FrameSeries | str]:
    """The XML of every tilt image of a series in Warp's processing directory.

    A file that cannot be read counts against its tilt image, not against the series.
    """
    found: dict[str, FrameSeries | str] = {}
    for row in rows:
        name = tilt_name(row)
        path = directory / f"{movie_stem(str(row['rlnMicrographMovieName']))}.xml"
        try:
            found[name] = read_frame_series(path)
        except FileFormatError as error:
            found[name] = "WarpTools wrote no XML for it" if not path.exists() else error.message
    return found


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
