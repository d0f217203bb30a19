"""Results of the CPU tools -> RELION rows, with RELION's units and signs."""

from __future__ import annotations

from typing import Any

import pytest

from crboost.translate.cpu import align_output, frames_output, micrograph_metadata

ROWS: list[dict[str, Any]] = [
    {
        "rlnMicrographMovieName": f"frames/TS_01_{number:03d}.tif",
        "rlnTomoNominalStageTiltAngle": float(angle),
        "rlnMicrographPreExposure": 3.0 * number,
    }
    for number, angle in enumerate((0, 3, -3))
]


def measured(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "status": "done",
        "reason": None,
        "frame_count": 3,
        "size_px": [512, 256],
        "shifts_px": [[0.5, -0.5], [1.5, 0.5], [2.5, 1.5]],
        "motion_total_angstrom": 8.0,
        "motion_early_angstrom": 4.0,
        "motion_late_angstrom": 4.0,
        "mean_counts_per_px": 30.0,
        "defocus_u_angstrom": 30100.0,
        "defocus_v_angstrom": 29900.0,
        "astigmatism_angstrom": 200.0,
        "defocus_angle_deg": 40.0,
        "ctf_figure_of_merit": 0.9,
        "ctf_max_resolution_angstrom": 9.0,
        "ice_ring_density": 0.0,
        "average": f"{name}.mrc",
        "even": f"{name}_EVN.mrc",
        "odd": None,
        "power_spectrum": f"{name}_PS.mrc",
        **changes,
    }


def test_frames() -> None:
    broken = {"name": "TS_01_001", "status": "failed", "reason": "the movie is empty"}
    result = {"tilts": [measured("TS_01_000"), broken, measured("TS_01_002")]}
    output = frames_output(ROWS, result, "External/job002/cpu/TS_01", 4.0)
    assert [row["rlnMicrographMovieName"][-7:] for row in output.rows] == ["000.tif", "002.tif"]
    row = output.rows[0]
    assert row["rlnMicrographName"] == "External/job002/cpu/TS_01/TS_01_000.mrc"
    assert "rlnMicrographNameOdd" not in row
    assert row["rlnAccumMotionTotal"] == 2.0, "pixels, as RELION writes it"
    assert (row["rlnDefocusU"], row["rlnDefocusV"]) == (30100.0, 29900.0)
    assert output.metrics["motion_angstrom"] == 8.0
    assert output.metrics["defocus_um"] == pytest.approx(3.0)
    assert (output.metrics["tilts"], output.metrics["tilts_total"]) == (2, 3)
    assert output.warnings == ["tilt image TS_01_001 (+3.0 deg): the movie is empty"]


def test_the_motion_file_brings_frames_back() -> None:
    general, shifts = micrograph_metadata(ROWS[0], measured("TS_01_000"), 300.0, 4.0)
    assert (general["rlnImageSizeX"], general["rlnImageSizeY"]) == (512, 256)
    assert general["rlnImageSizeZ"] == 3
    assert shifts[0] == {
        "rlnMicrographFrameNumber": 1,
        "rlnMicrographShiftX": 0.0,
        "rlnMicrographShiftY": 0.0,
    }
    assert (shifts[2]["rlnMicrographShiftX"], shifts[2]["rlnMicrographShiftY"]) == (-2.0, -2.0)


def test_excluded_tilts_leave_the_alignment() -> None:
    aligned = {
        "status": "aligned",
        "x_tilt_deg": 0.0,
        "y_tilt_deg": 0.1,
        "z_rot_deg": 85.4,
        "x_shift_angstrom": 4.0,
        "y_shift_angstrom": -8.0,
    }
    result = {
        "method": "coarse",
        "tilt_axis_deg": 85.4,
        "residual_px": 1.2,
        "note": "no beads were found",
        "tilts": [
            {"name": "TS_01_000", **aligned},
            {"name": "TS_01_001", "status": "excluded", "reason": "dark"},
        ],
    }
    output = align_output(ROWS, result)
    assert [row["rlnTomoYShiftAngst"] for row in output.rows] == [-8.0]
    assert output.global_columns["rlnTomoZRot"] == 85.4
    assert output.metrics["tilts"] == 1
    assert "no beads were found" in output.warnings
    assert [tilt["status"] for tilt in output.tilts] == ["aligned", "excluded", "excluded"]
    assert any("the tool left it out" in warning for warning in output.warnings)
