"""What only a picture shows of a tilt image: its CTF curve and its frame shifts.

The embedded tool keeps both in its `result.json`; RELION keeps the shifts in a STAR file beside
each micrograph, and ctffind its curve in `*_avrot.txt`. A file that is not there or not readable
costs its part of the picture, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import read_json
from crboost.quality.stages import StageResults, tool_result
from crboost.relion.star import read_star


@dataclass(frozen=True)
class CtfCurve:
    """A radial power spectrum and its fit, both without background.

    Attributes:
        frequency_per_angstrom, power, fit: same length.
    """

    frequency_per_angstrom: tuple[float, ...]
    power: tuple[float, ...]
    fit: tuple[float, ...]


@dataclass(frozen=True)
class TiltDetail:
    """One tilt image; None where nobody says.

    Attributes:
        defocus_um: mean of both axes; positive is underfocus.
        shifts_angstrom: (x, y) by which each frame was moved, relative to the first one, as in
            RELION: the drift with its sign changed.
    """

    pre_exposure_e_per_a2: float | None = None
    defocus_um: float | None = None
    ctf_curve: CtfCurve | None = None
    shifts_angstrom: tuple[tuple[float, float], ...] | None = None


def read_details(
    project: Path, stages: Mapping[str, StageResults], name: str
) -> dict[str, TiltDetail]:
    """The details of a tilt series' images, by name; of native CTF curves only the one shown."""
    details: dict[str, TiltDetail] = {}
    for stage in stages.values():
        found = tool_result(project, stage.job, name) if stage.has_frames else None
        if found is not None:
            path, result = found
            specification = path.with_name("frames.json")
            given = read_json(specification) if specification.is_file() else {}
            details |= dict(frame_details(given, result, motion=stage.has_motion))
        result_of_series = stage.results.get(name)
        if result_of_series is None:
            continue
        for record in result_of_series.tilts:
            if record.get("motion_file"):
                known = details.get(record["name"], TiltDetail())
                shifts = read_shifts(project / record["motion_file"], record["pixel_size_angstrom"])
                details[record["name"]] = replace(known, shifts_angstrom=shifts)
        # ctffind's texts are long: only the one nearest to zero degrees is shown.
        for record in sorted(result_of_series.tilts, key=lambda one: abs(one["tilt_angle_deg"])):
            if not record.get("ctf_image"):
                continue
            path = avrot_file(project / record["ctf_image"])
            curve = read_avrot(path, record.get("ctf_max_resolution_angstrom"))
            if curve is not None:
                known = details.get(record["name"], TiltDetail())
                details[record["name"]] = replace(known, ctf_curve=curve)
                break
    return details


def frame_details(
    specification: Mapping[str, Any], result: Mapping[str, Any], *, motion: bool = True
) -> Iterator[tuple[str, TiltDetail]]:
    """The details in specification and result of `crboost.cpu frames`. Pure."""
    exposures = {
        tilt["name"]: tilt.get("pre_exposure_e_per_a2") for tilt in specification.get("tilts", ())
    }
    pixel = specification.get("pixel_size_angstrom")
    for tilt in result.get("tilts", ()):
        exposure = exposures.get(tilt["name"])
        if tilt.get("status") != "done":
            yield tilt["name"], TiltDetail(exposure)
            continue
        shifts = tilt.get("shifts_px") if pixel and motion else None
        yield (
            tilt["name"],
            TiltDetail(
                exposure,
                (tilt["defocus_u_angstrom"] + tilt["defocus_v_angstrom"]) / 2e4,
                _curve(tilt.get("ctf_curve")),
                _track([(-x * pixel, -y * pixel) for y, x in shifts]) if shifts else None,
            ),
        )


def _curve(curve: Mapping[str, Any] | None) -> CtfCurve | None:
    if not curve or not curve.get("frequency_per_angstrom"):
        return None
    return CtfCurve(
        tuple(curve["frequency_per_angstrom"]), tuple(curve["power"]), tuple(curve["fit"])
    )


def _track(points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Points relative to the first one."""
    first_x, first_y = points[0]
    return tuple((x - first_x, y - first_y) for x, y in points)


def read_shifts(
    path: Path, pixel_size_angstrom: float | None
) -> tuple[tuple[float, float], ...] | None:
    """The shift of each frame in A, from the STAR file that RELION keeps of a movie.

    Args:
        pixel_size_angstrom: of the unbinned movie, in whose pixels RELION counts; where the file
            itself says, that counts.
    """
    try:
        document = read_star(path)
        general = document.get("general")
        said = (general.pairs() if general else {}).get("rlnMicrographOriginalPixelSize")
        pixel = float(said) if said else pixel_size_angstrom
        points = [
            (float(row["rlnMicrographShiftX"]), float(row["rlnMicrographShiftY"]))
            for row in document.records("global_shift")
        ]
    except (OSError, FileFormatError, KeyError, ValueError):
        return None
    if not points or not pixel:
        return None
    return _track([(x * pixel, y * pixel) for x, y in points])


def avrot_file(ctf_image: Path) -> Path:
    """ctffind's table of radial averages that belongs to an rlnCtfImage (`x.ctf:mrc`)."""
    plain = ctf_image.with_name(ctf_image.name.partition(":")[0])
    return plain.with_name(f"{plain.stem}_avrot.txt")


def read_avrot(path: Path, resolution_angstrom: float | None = None) -> CtfCurve | None:
    """The curve in ctffind's `*_avrot.txt`, over the resolutions that were fitted.

    The fit there runs from 0 to 1; it is scaled to the spectrum by least squares, as far as
    `resolution_angstrom`, where the fit is said to end.

    Six lines: spatial frequency (1/A), two radial averages of the spectrum (the second one along
    the astigmatism), the fit, its correlation, its noise.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        frequency, _, power, fit = ([float(value) for value in line] for line in lines[:4])
    except (OSError, ValueError):
        return None
    limits = re.search(r"min\. res\.: *([\d.]+).*max\. res\.: *([\d.]+)", text)
    low, high = (1 / float(one) for one in limits.groups()) if limits else (1 / 50, float("inf"))
    points = [
        point for point in zip(frequency, power, fit, strict=False) if low <= point[0] <= high
    ]
    if len(points) < 2:
        return None
    frequency, power, fit = (list(values) for values in zip(*points, strict=True))
    end = 1 / resolution_angstrom if resolution_angstrom else float("inf")
    trusted = sum(one <= end for one in frequency)
    return CtfCurve(tuple(frequency), tuple(power), tuple(_scaled(fit, power, trusted)))


def _scaled(fit: list[float], power: list[float], trusted: int) -> list[float]:
    """The fit on the scale of the spectrum; as it is where the two have nothing in common."""
    from statistics import StatisticsError, linear_regression

    try:
        slope, intercept = linear_regression(fit[:trusted], power[:trusted])
    except StatisticsError:  # a flat fit, or a single point
        return fit
    return [slope * value + intercept for value in fit] if slope > 0 else fit
