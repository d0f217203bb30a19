"""What RELION's own jobs tell of each tilt series, read from the STAR tables that they wrote.

They leave no `results/*.json`; here their tables become the same `SeriesResult`s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crboost.catalogue import TOMO_ALIGN, TOMO_CTFFIND, TOMO_IMPORT, TOMO_MOTIONCORR
from crboost.errors import FileFormatError
from crboost.relion.star import read_star
from crboost.results import SeriesResult
from crboost.tilt_name import tilt_name

Row = Mapping[str, str]


def native_results(project: Path, output: Path, label: str) -> dict[str, SeriesResult]:
    """The tilt series in a native job's output, by name; none when the file is gone.

    Args:
        project: what the paths in the tables are relative to.
        output: the job's tilt-series STAR.
        label: its node label: only what this stage measures is taken, for the tables carry the
            numbers of their inputs along.

    Raises:
        FileFormatError: a table is no STAR file, or holds words where a number must stand.
    """
    if not output.is_file():
        return {}
    found = {}
    for row in read_star(output).records("global"):
        name = row.get("rlnTomoName")
        if not name:
            raise FileFormatError(output, "a tilt series without rlnTomoName")
        found[name] = _series(project, output, name, row, label)
    return found


def _series(project: Path, output: Path, name: str, row: Row, label: str) -> SeriesResult:
    given = row.get("rlnTomoTiltSeriesStarFile")
    table = project / given if given else output
    warnings: list[str] = []
    rows: list[dict[str, str]] = []
    if given and table.is_file():
        rows = [line for block in read_star(table).blocks for line in block.records()]
    else:
        warnings.append(f"{given or 'its table'} of tilt images is missing")
    tilts = tilt_records(rows, row, label, table)
    metrics = series_metrics(tilts, row, label, output)
    if rows:
        metrics["tilts"] = metrics["tilts_total"] = len(rows)
    return SeriesResult(
        name, "done", "", "", metrics=metrics, warnings=warnings, tilts=tilts, table=given
    )


def tilt_records(rows: Sequence[Row], series: Row, label: str, table: Path) -> list[dict[str, Any]]:
    """One record per tilt image, as our own jobs keep them, with the files that tell more.

    RELION's rlnAccumMotionTotal is a sum of frame shifts in unbinned pixels, whatever its
    description says (`MotioncorrRunner::generateLogFilePDFAndWriteStarFiles`): it is turned to A.
    """
    named = [row for row in rows if row.get("rlnMicrographMovieName")]
    exposures = [number(row, "rlnMicrographPreExposure", table) for row in named]
    ranked = sorted(exposure for exposure in exposures if exposure is not None)
    pixel = number(series, "rlnMicrographOriginalPixelSize", table)
    records = []
    for position, (row, exposure) in enumerate(zip(named, exposures, strict=True)):
        angle = number(row, "rlnTomoNominalStageTiltAngle", table)
        if angle is None:
            angle = number(row, "rlnTomoYTilt", table) or 0.0
        record: dict[str, Any] = {
            "name": tilt_name(row),
            "tilt_angle_deg": angle,
            "order": position if len(set(ranked)) < len(named) else ranked.index(exposure or 0.0),
            "status": "done",
            "reason": None,
            "pre_exposure_e_per_a2": exposure,
        }
        if label == TOMO_MOTIONCORR:
            motion = number(row, "rlnAccumMotionTotal", table)
            record["motion_total_angstrom"] = motion * pixel if motion and pixel else motion
            record["motion_file"] = row.get("rlnMicrographMetadata")
            record["pixel_size_angstrom"] = pixel
        elif label == TOMO_CTFFIND:
            u, v = number(row, "rlnDefocusU", table), number(row, "rlnDefocusV", table)
            record["defocus_um"] = None if u is None or v is None else (u + v) / 2e4
            record["ctf_max_resolution_angstrom"] = number(row, "rlnCtfMaxResolution", table)
            record["ctf_image"] = row.get("rlnCtfImage")
        records.append(record)
    return records


def series_metrics(
    tilts: Sequence[Mapping[str, Any]], row: Row, label: str, output: Path
) -> dict[str, Any]:
    """The numbers of a whole tilt series that this stage measures; only those that are known."""
    from statistics import fmean, median

    def values(key: str) -> list[float]:
        return [tilt[key] for tilt in tilts if tilt.get(key) is not None]

    metrics: dict[str, Any] = {}
    if label == TOMO_MOTIONCORR and values("motion_total_angstrom"):
        metrics["motion_angstrom"] = fmean(values("motion_total_angstrom"))
    if label == TOMO_CTFFIND and values("defocus_um"):
        metrics["defocus_um"] = median(values("defocus_um"))
    if label == TOMO_CTFFIND and values("ctf_max_resolution_angstrom"):
        metrics["ctf_resolution_angstrom"] = median(values("ctf_max_resolution_angstrom"))
    if label == TOMO_ALIGN:
        metrics["tilt_axis_deg"] = number(row, "rlnTomoZRot", output)
    if label not in (TOMO_IMPORT, TOMO_MOTIONCORR, TOMO_CTFFIND, TOMO_ALIGN):
        metrics |= tomogram_metrics(row, output)
    return {key: value for key, value in metrics.items() if value is not None}


def tomogram_metrics(row: Row, output: Path) -> dict[str, Any]:
    """Where the tomogram is and its pixel size; RELION may write its two halves alone."""
    halves = [row.get(f"rlnTomoReconstructedTomogramHalf{half}", "") for half in (1, 2)]
    halves = [half for half in halves if half and half != "None"]
    whole = row.get("rlnTomoReconstructedTomogram")
    pixel = number(row, "rlnTomoTiltSeriesPixelSize", output)
    binning = number(row, "rlnTomoTomogramBinning", output)
    return {
        "tomogram": whole or (halves[0] if halves else None),
        "tomogram_halves": halves if halves and not whole else None,
        "tomogram_pixel_size_angstrom": pixel * binning if pixel and binning else None,
    }


def number(row: Row, column: str, file: Path) -> float | None:
    """A number of a table; None where the column is missing or the value is not finite.

    Raises:
        FileFormatError: the value is no number.
    """
    text = row.get(column)
    if not text or text == "None":
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise FileFormatError(file, f"{column} is {text!r}, expected a number") from error
    return value if math.isfinite(value) else None
