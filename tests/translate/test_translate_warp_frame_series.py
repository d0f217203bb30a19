"""Warp's movie XML -> RELION's rows after motion correction and CTF."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.errors import FileFormatError
from crboost.translate.defocus import Defocus
from crboost.translate.tables import Row
from crboost.translate.warp_frame_series import (
    FrameSeries,
    frame_series_output,
    read_frame_series,
    read_frame_series_of,
    read_motion_angstrom,
    write_frame_series,
)
from crboost.translate.warp_xml import Grid

GOOD = FrameSeries(
    name="TS_01_001_0.0",
    defocus=Defocus(3.0, 0.1, 45.0),
    ctf_resolution_angstrom=5.5,
    mean_frame_movement_angstrom=1.25,
    grid_ctf_defocus_um=Grid(2, 2, 1, (2.9, 3.0, 3.0, 3.1)),
    voltage_kv=300.0,
    spherical_aberration_mm=2.7,
    amplitude_contrast=0.1,
    pixel_size_angstrom=1.35,
)


def row(name: str, angle: float = 0.0) -> Row:
    return {
        "rlnMicrographMovieName": f"frames/{name}.eer",
        "rlnTomoNominalStageTiltAngle": angle,
        "rlnMicrographPreExposure": 0.0,
    }


@settings(max_examples=60, deadline=None)
@given(
    defocus=st.one_of(
        st.none(),
        st.builds(
            Defocus,
            st.integers(1, 80000).map(lambda v: v / 1e4),
            st.integers(-5000, 5000).map(lambda v: v / 1e4),
            st.integers(0, 179).map(float),
            st.sampled_from([0.0, 90.0]),
        ),
    ),
    deselected=st.sampled_from([None, True, False]),
    corrected=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    defocus: Defocus | None,
    deselected: bool | None,
    corrected: bool,
    encoding: str,
) -> None:
    series = replace(
        GOOD,
        defocus=defocus,
        deselected=deselected,
        motion_corrected=corrected,
        mean_frame_movement_angstrom=1.25 if corrected else None,
    )
    path = tmp_path_factory.mktemp("frames") / "TS_01_001_0.0.xml"
    write_frame_series(path, series, encoding=encoding)
    assert read_frame_series(path) == series


def test_both_defocus_values_and_the_angle() -> None:
    """U and V are half the delta to either side: Warp's own export (ExportParticlesTiltseries)."""
    output = frame_series_output(
        [row("a")], {"a": replace(GOOD, name="a")}, "External/job002/warp", 1.35, halves=True
    )
    assert output.global_columns == {"rlnTomoTiltSeriesPixelSize": 1.35}
    (found,) = output.rows
    assert found["rlnDefocusU"] == pytest.approx(30500)
    assert found["rlnDefocusV"] == pytest.approx(29500)
    assert found["rlnCtfAstigmatism"] == pytest.approx(1000)
    assert found["rlnDefocusAngle"] == 45.0
    assert found["rlnCtfMaxResolution"] == 5.5
    assert "rlnPhaseShift" not in found
    assert found["rlnMicrographName"] == "External/job002/warp/average/a.mrc"
    assert found["rlnMicrographNameEven"] == "External/job002/warp/average/even/a.mrc"
    assert found["rlnMicrographNameOdd"] == "External/job002/warp/average/odd/a.mrc"
    assert found["rlnCtfImage"] == "External/job002/warp/powerspectrum/a.mrc:mrc"
    assert output.outputs == [
        "External/job002/warp/powerspectrum/a.mrc",
        "External/job002/warp/average/even/a.mrc",
        "External/job002/warp/average/odd/a.mrc",
        "External/job002/warp/average/a.mrc",
    ]


def test_failed_movies_leave_the_table_with_their_reason(tmp_path: Path) -> None:
    """WarpTools leaves an XML for what failed, and exits 0."""
    write_frame_series(tmp_path / "good.xml", GOOD)
    write_frame_series(tmp_path / "failed.xml", replace(GOOD, deselected=True))
    write_frame_series(tmp_path / "moved.xml", replace(GOOD, motion_corrected=False))
    write_frame_series(tmp_path / "blank.xml", replace(GOOD, defocus=None))
    write_frame_series(tmp_path / "zero.xml", replace(GOOD, defocus=Defocus(0.0, 0.0, 0.0)))
    (tmp_path / "torn.xml").write_text("<Movie><CTF>")
    names = ["failed", "moved", "blank", "zero", "torn", "none", "good"]
    table = [row(name, 3.0 * i) for i, name in enumerate(names)]
    output = frame_series_output(
        table,
        read_frame_series_of(table, tmp_path),
        "warp",
        1.35,
        halves=False,
        motion_angstrom={"good": 2.7},
    )
    reasons = {tilt["name"]: tilt["reason"] for tilt in output.tilts}
    assert reasons["failed"] == "WarpTools deselected it: its processing failed"
    assert reasons["moved"] == "WarpTools did not correct its motion"
    assert reasons["blank"] == "WarpTools fitted no CTF"
    assert reasons["zero"] == "WarpTools found a defocus of 0 um"
    assert "torn.xml:1: not valid XML" in reasons["torn"]
    assert reasons["none"] == "WarpTools wrote no XML for it"
    assert reasons["good"] is None
    (found,) = output.rows
    assert found["rlnMicrographMovieName"] == "frames/good.eer"
    assert found["rlnAccumMotionTotal"] == pytest.approx(2.0)
    assert "rlnMicrographNameEven" not in found
    assert output.metrics == {
        "tilts": 1,
        "tilts_total": 7,
        "motion_angstrom": 2.7,
        "defocus_um": 3.0,
        "ctf_resolution_angstrom": 5.5,
    }
    assert len(output.warnings) == 6


def test_nothing_done_is_no_crash() -> None:
    output = frame_series_output([row("a")], {}, "warp", 1.35, halves=True)
    assert output.rows == []
    assert output.metrics["defocus_um"] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('Name="Defocus" Value="3"', 'Name="Defocus" Value="three"', "CTF/Defocus is not a number"),
        ('Name="DefocusDelta"', 'Name="Delta"', "CTF has no Param DefocusDelta"),
        ("Movie", "TiltSeries", "root element is TiltSeries, Movie is expected"),
        ('UnselectManual="null"', 'UnselectManual="maybe"', "UnselectManual is neither"),
        ('Width="2" Height="2"', 'Width="x" Height="2"', "GridCTF, Width is not a number: 'x'"),
    ],
)
def test_bad_files_name_the_element(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.xml"
    write_frame_series(path, GOOD)
    text = path.read_text(encoding="utf-8-sig")
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(FileFormatError, match=r"a\.xml: .*" + message):
        read_frame_series(path)


def test_motion_is_the_length_of_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a_motion.json"
    path.write_text(
        json.dumps(
            {
                "0_0": {"x": [0.0, 3.0, 3.0], "y": [0.0, 4.0, 5.0]},
                "1_0": {"x": [0.0, 0.0, 0.0], "y": [0.0, 1.0, 2.0]},
            }
        )
    )
    assert read_motion_angstrom(path) == pytest.approx((6 + 2) / 2)


@pytest.mark.parametrize("text", ["{}", "[]", '{"0_0": {"x": [1]}}', '{"0_0": {"x": 1, "y": 2}}'])
def test_bad_motion(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileFormatError, match="tracks"):
        read_motion_angstrom(tmp_path / "a.json")
    with pytest.raises(FileFormatError, match="no such file"):
        read_motion_angstrom(tmp_path / "b.json")
