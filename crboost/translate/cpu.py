"""Results of the CPU tools -> RELION 5 rows. Pure: results in, rows out.

Columns are those that RELION 5.1 writes at the same stage (motioncorr, ctffind,
aligntiltseries, reconstructtomograms).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crboost.tilt_name import tilt_name
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row


def frames_output(
    rows: Sequence[Row], result: Mapping[str, Any], directory: str, pixel_size_angstrom: float
) -> SeriesOutput:
    """Motion-corrected images with their CTF.

    Args:
        rows: the import table of the tilt series.
        result: `result.json` of `crboost.cpu frames`; its paths are relative to `directory`.
        directory: project-relative.
        pixel_size_angstrom: of the averages.
    """
    by_name = {tilt["name"]: tilt for tilt in result["tilts"]}
    output = SeriesOutput({"rlnTomoTiltSeriesPixelSize": pixel_size_angstrom}, [])
    problems: list[tuple[str, str]] = []
    for row in rows:
        name = tilt_name(row)
        tilt = by_name.get(name, {"status": "failed", "reason": "the tool left it out"})
        output.tilts.append(_tilt_record(row, tilt))
        if tilt["status"] != "done":
            problems.append((_describe(row), str(tilt["reason"])))
            continue
        images = {
            column: f"{directory}/{tilt[key]}"
            for column, key in (
                ("rlnCtfPowerSpectrum", "power_spectrum"),
                ("rlnMicrographNameEven", "even"),
                ("rlnMicrographNameOdd", "odd"),
                ("rlnMicrographName", "average"),
            )
            if tilt.get(key)
        }
        output.outputs.extend(images.values())
        output.rows.append(
            {
                **row,
                **images,
                "rlnMicrographMetadata": f"{directory}/{name}.star",
                # RELION documents Å, but writes pixels: the length of the path of its shifts.
                "rlnAccumMotionTotal": tilt["motion_total_angstrom"] / pixel_size_angstrom,
                "rlnAccumMotionEarly": tilt["motion_early_angstrom"] / pixel_size_angstrom,
                "rlnAccumMotionLate": tilt["motion_late_angstrom"] / pixel_size_angstrom,
                "rlnCtfImage": f"{images['rlnCtfPowerSpectrum']}:mrc",
                "rlnDefocusU": tilt["defocus_u_angstrom"],
                "rlnDefocusV": tilt["defocus_v_angstrom"],
                "rlnCtfAstigmatism": tilt["astigmatism_angstrom"],
                "rlnDefocusAngle": tilt["defocus_angle_deg"],
                "rlnCtfFigureOfMerit": tilt["ctf_figure_of_merit"],
                "rlnCtfMaxResolution": tilt["ctf_max_resolution_angstrom"],
                "rlnCtfIceRingDensity": tilt["ice_ring_density"],
            }
        )
    output.warnings.extend(grouped(problems))
    done = [by_name[tilt_name(row)] for row in output.rows]
    output.metrics.update(
        tilts=len(done),
        tilts_total=len(rows),
        motion_angstrom=_mean([tilt["motion_total_angstrom"] for tilt in done]),
        defocus_um=_median(
            [(tilt["defocus_u_angstrom"] + tilt["defocus_v_angstrom"]) / 2e4 for tilt in done]
        ),
        ctf_resolution_angstrom=_median([tilt["ctf_max_resolution_angstrom"] for tilt in done]),
    )
    return output


def micrograph_metadata(
    row: Row, tilt: Mapping[str, Any], voltage_kv: float, pixel_size_angstrom: float
) -> tuple[dict[str, Any], list[Row]]:
    """RELION's per-micrograph motion file: (`data_general`, rows of `data_global_shift`).

    Shifts are relative to the first frame, in unbinned pixels, and point against the drift: what
    brings a frame back, as in the files of `relion_run_motioncorr`.
    """
    first_y, first_x = tilt["shifts_px"][0]
    general = {
        "rlnImageSizeX": tilt["size_px"][0],
        "rlnImageSizeY": tilt["size_px"][1],
        "rlnImageSizeZ": tilt["frame_count"],
        "rlnMicrographMovieName": row["rlnMicrographMovieName"],
        "rlnMicrographBinning": 1.0,
        "rlnMicrographOriginalPixelSize": pixel_size_angstrom,
        "rlnMicrographPreExposure": float(row["rlnMicrographPreExposure"]),
        "rlnVoltage": voltage_kv,
        "rlnMicrographStartFrame": 1,
        "rlnMotionModelVersion": 0,
    }
    shifts = [
        {
            "rlnMicrographFrameNumber": number,
            "rlnMicrographShiftX": first_x - x,
            "rlnMicrographShiftY": first_y - y,
        }
        for number, (y, x) in enumerate(tilt["shifts_px"], start=1)
    ]
    return general, shifts


def align_output(rows: Sequence[Row], result: Mapping[str, Any]) -> SeriesOutput:
    """Alignment columns for the tilt images that were aligned; excluded ones leave the table."""
    by_name = {tilt["name"]: tilt for tilt in result["tilts"]}
    output = SeriesOutput({"rlnTomoZRot": result["tilt_axis_deg"]}, [])
    problems: list[tuple[str, str]] = []
    for row in rows:
        tilt = by_name.get(tilt_name(row), {"status": "excluded", "reason": "the tool left it out"})
        output.tilts.append(_tilt_record(row, tilt))
        if tilt["status"] != "aligned":
            problems.append((_describe(row), f"excluded: {tilt['reason']}"))
            continue
        output.rows.append(
            {
                **row,
                "rlnTomoXTilt": tilt["x_tilt_deg"],
                "rlnTomoYTilt": tilt["y_tilt_deg"],
                "rlnTomoZRot": tilt["z_rot_deg"],
                "rlnTomoXShiftAngst": tilt["x_shift_angstrom"],
                "rlnTomoYShiftAngst": tilt["y_shift_angstrom"],
            }
        )
    output.warnings.extend(grouped(problems))
    if result.get("note"):
        output.warnings.append(str(result["note"]))
    output.metrics.update(
        tilts=len(output.rows),
        tilts_total=len(rows),
        alignment_method=result["method"],
        alignment_residual_px=result["residual_px"],
        tilt_axis_deg=result["tilt_axis_deg"],
        beads=result.get("beads", 0),
    )
    return output


def reconstruct_output(
    rows: Sequence[Row], result: Mapping[str, Any], directory: str
) -> SeriesOutput:
    """The tomogram and its halves."""
    x, y, z = result["size_px"]
    columns: Row = {
        "rlnTomoTomogramBinning": float(result["binning"]),
        "rlnTomoSizeX": int(x),
        "rlnTomoSizeY": int(y),
        "rlnTomoSizeZ": int(z),
    }
    for column, key in (
        ("rlnTomoReconstructedTomogram", "tomogram"),
        ("rlnTomoReconstructedTomogramHalf1", "half1"),
        ("rlnTomoReconstructedTomogramHalf2", "half2"),
    ):
        if result.get(key):
            columns[column] = f"{directory}/{result[key]}"
    return SeriesOutput(
        columns,
        [dict(row) for row in rows],
        metrics={
            "tilts": len(rows),
            "tomogram": columns["rlnTomoReconstructedTomogram"],
            "tomogram_pixel_size_angstrom": result["tomogram_pixel_size_angstrom"],
        },
        tilts=[_tilt_record(row, {"status": "done"}) for row in rows],
        outputs=[value for value in columns.values() if isinstance(value, str)],
    )


def _tilt_record(row: Row, tilt: Mapping[str, Any]) -> dict[str, Any]:
    record = {
        "name": tilt_name(row),
        "tilt_angle_deg": float(row["rlnTomoNominalStageTiltAngle"]),
        "status": tilt["status"],
        "reason": tilt.get("reason"),
    }
    for key in ("motion_total_angstrom", "ctf_max_resolution_angstrom", "mean_counts_per_px"):
        if key in tilt:
            record[key] = tilt[key]
    return record


def _describe(row: Row) -> str:
    angle = float(row["rlnTomoNominalStageTiltAngle"])
    return f"tilt image {tilt_name(row)} ({angle:+.1f} deg)"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
