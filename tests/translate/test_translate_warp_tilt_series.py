"""Warp's tilt-series XML: its geometry and hand against warpylib's numbers and RELION's matrix."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crboost.cpu.geometry import TiltAlignment as RelionTilt
from crboost.cpu.geometry import projection_matrix
from crboost.errors import CrboostError, FileFormatError
from crboost.translate.alignment import TiltAlignment, aligned_output, alignment_of
from crboost.translate.defocus import Defocus
from crboost.translate.imod import tlt_text, xf_text
from crboost.translate.tables import Row
from crboost.translate.warp_tilt_series import (
    WarpTilt,
    WarpTiltSeries,
    deformation_warnings,
    read_warp_tilt_series,
    warp_alignments,
    warp_ctf_output,
    warp_import_files,
    write_warp_tilt_series,
)
from crboost.translate.warp_xml import WarpXml

REAL = os.environ.get("CRBOOST_REAL_FIXTURES")
real = pytest.mark.skipif(not REAL, reason="CRBOOST_REAL_FIXTURES is not set")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "warpylib_positions.json").read_text())


def relion_matrix(
    alignment: TiltAlignment | str,
    pixel: float,
    tomogram: tuple[int, int, int],
    image: tuple[int, int],
) -> np.ndarray:
    assert isinstance(alignment, TiltAlignment), alignment
    return projection_matrix(
        RelionTilt(
            alignment.x_tilt_deg,
            alignment.y_tilt_deg,
            alignment.z_rot_deg,
            alignment.x_shift_angstrom,
            alignment.y_shift_angstrom,
        ),
        pixel,
        tomogram,
        image,
    )


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["image_size_px"]))
def test_points_land_where_warpylib_says(case: dict[str, Any]) -> None:
    """Also for odd sizes, level angles, tilt movements; and every point has Warp's defocus."""
    pixel = GOLDEN["pixel_size_angstrom"]
    image, tomogram = tuple(case["image_size_px"]), tuple(case["tomogram_size_px"])
    series = WarpTiltSeries(
        "TS",
        tuple(
            WarpTilt(
                f"{tilt['index']}.tif",
                tilt["angle_deg"],
                0.0,
                axis_deg=tilt["axis_deg"],
                offset_angstrom=tuple(tilt["offset_angstrom"]),
                movement_angstrom=tuple(movement),
                defocus=Defocus(tilt["defocus_um"], 0.0, 0.0),
            )
            for tilt, movement in zip(GOLDEN["tilts"], case["movement_angstrom"], strict=True)
        ),
        are_angles_inverted=case["are_angles_inverted"],
        level_angle_x_deg=case["level_angle_x_deg"],
        level_angle_y_deg=case["level_angle_y_deg"],
    )
    alignments = warp_alignments(series, image, tomogram, pixel)
    centre = np.array([size // 2 for size in tomogram] + [1])
    middle = np.array([size / 2 for size in tomogram] + [1])
    for tilt, expected in zip(series.tilts, case["positions"], strict=True):
        matrix = relion_matrix(alignments[tilt.name], pixel, tomogram, image)
        for point, (x, y, defocus) in zip(GOLDEN["points_px"], expected, strict=True):
            voxel = np.append(point, 1.0)
            seen = matrix @ voxel
            assert seen[:2] == pytest.approx((x, y), abs=0.01)
            # Tomogram::getCtf: defocus + hand * pixel size * depth from the centre. Warp counts
            # depth from n / 2, which for odd sizes is half a voxel away: below 5 A.
            assert tilt.defocus is not None
            depth = (seen - matrix @ middle)[2]
            assert tilt.defocus.u_angstrom + series.hand * pixel * depth == pytest.approx(
                defocus, abs=0.5
            )
            depth = (seen - matrix @ centre)[2]
            assert tilt.defocus.u_angstrom + series.hand * pixel * depth == pytest.approx(
                defocus, abs=5
            )


def warp_matrix(angle_deg: float, axis_deg: float) -> np.ndarray:
    """Matrix3.Euler(0, angle, -axis) (WarpLib/Tools/Matrix3.cs), written out."""
    tilt, psi = np.deg2rad(angle_deg), -np.deg2rad(axis_deg)
    cb, sb, cg, sg = np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    return np.array([[cg * cb, sg, -cg * sb], [-sg * cb, cg, sg * sb], [sb, 0.0, cb]])


@settings(max_examples=150, deadline=None)
@given(
    angle=st.floats(-70, 70),
    axis=st.floats(-180, 180),
    offset=st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000)),
    image=st.tuples(st.integers(500, 6000), st.integers(500, 6000)),
    tomogram=st.tuples(st.integers(500, 6000), st.integers(500, 6000), st.integers(100, 3000)),
    pixel=st.floats(0.5, 5),
    binning=st.floats(1, 10),
    point=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_a_point_lands_on_the_same_pixel(
    angle: float,
    axis: float,
    offset: tuple[float, float],
    image: tuple[int, int],
    tomogram: tuple[int, int, int],
    pixel: float,
    binning: float,
    point: tuple[float, float, float],
) -> None:
    """Warp works on scaled images with rounded sizes (SizeRoundingFactors): it cancels."""
    series = WarpTiltSeries(
        "TS", (WarpTilt("a.tif", angle, 0.0, axis_deg=axis, offset_angstrom=offset),)
    )
    physical = np.array(point) * np.array(tomogram) * pixel
    at = (warp_matrix(angle, axis) @ (physical - np.array(tomogram) * pixel / 2))[:2]
    at = at + np.array(offset) + np.array(image) * pixel / 2
    scaled = np.round(np.array(image) / binning / 2) * 2
    rounding = scaled / (np.array(image) / binning)
    in_scaled_image = at * rounding / (pixel * binning)
    in_image = in_scaled_image * np.array(image) / scaled  # Fourier-cropped: pixel 0 stays

    (alignment,) = warp_alignments(series, image, tomogram, pixel).values()
    matrix = relion_matrix(alignment, pixel, tomogram, image)
    got = matrix @ np.append(physical / pixel, 1.0)
    assert got[:2] == pytest.approx(in_image, abs=1e-5)


def rows(count: int = 4) -> list[Row]:
    """In order of dose, as RELION's import writes them."""
    angles = [0.0, 3.0, -3.0, 6.0][:count]
    return [
        {
            "rlnMicrographMovieName": f"frames/TS_01_{i:03d}_{angle}.tif",
            "rlnTomoNominalStageTiltAngle": angle,
            "rlnTomoNominalTiltAxisAngle": 85.0,
            "rlnMicrographPreExposure": 3.0 * i,
        }
        for i, angle in enumerate(angles)
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_series_through_the_xml_into_rows(tmp_path: Path, encoding: str) -> None:
    """Rows keep their order and find their tilt by name; what Warp does not use leaves them."""
    path = tmp_path / "TS_01.xml"
    table = rows()
    names = [f"TS_01_{i:03d}_{row['rlnTomoNominalStageTiltAngle']}" for i, row in enumerate(table)]
    tilts = [
        WarpTilt(
            f"../frames/{names[i]}.tif",
            -table[i]["rlnTomoNominalStageTiltAngle"],
            3.0 * i,
            use=i != 3,
            axis_deg=85.0,
            offset_angstrom=(10.0 * i, -5.0),
            defocus=Defocus(3.0 + i / 10, 0.2, 40.0),
        )
        for i in (2, 0, 1, 3)  # by stage angle
    ]
    series = WarpTiltSeries(
        "TS_01", tuple(tilts), are_angles_inverted=True, ctf_resolution_angstrom=7.5
    )
    write_warp_tilt_series(path, series, encoding=encoding)
    again = read_warp_tilt_series(path)
    assert [tilt.name for tilt in again.used] == [names[2], names[0], names[1]]

    alignments = warp_alignments(again, (1001, 1000), (800, 900, 300), 1.35)
    assert alignments[names[3]] == "Warp does not use it (UseTilt is False)"
    output = aligned_output(table, alignments, "warp", hand=again.hand)
    assert output.global_columns["rlnTomoHand"] == -1.0
    assert [row["rlnMicrographMovieName"] for row in output.rows] == [
        row["rlnMicrographMovieName"] for row in table[:3]
    ]
    for i, row in enumerate(output.rows):
        found = alignment_of(row)
        assert found.y_tilt_deg == table[i]["rlnTomoNominalStageTiltAngle"]
        assert found.z_rot_deg == 85.0
        assert found.x_shift_angstrom == pytest.approx(10.0 * i + 0.675)  # an odd width
        assert found.y_shift_angstrom == pytest.approx(-5.0)

    ctf = warp_ctf_output(table, again)
    assert [row["rlnDefocusU"] for row in ctf.rows] == pytest.approx([31000, 32000, 33000])
    assert [row["rlnDefocusV"] for row in ctf.rows] == pytest.approx([29000, 30000, 31000])
    assert ctf.rows[0]["rlnCtfAstigmatism"] == pytest.approx(2000)
    assert ctf.rows[0]["rlnDefocusAngle"] == pytest.approx(40)
    assert ctf.rows[0]["rlnCtfMaxResolution"] == 7.5
    assert ctf.warnings == [
        "tilt image TS_01_003_6.0 (+6.0 deg): excluded: Warp does not use it (UseTilt is False)"
    ]
    assert ctf.tilts[3]["status"] == "excluded"


def imported_by_warp(xf: str, tlt: str, angpix: float) -> WarpTilt:
    """TiltSeries.ImportAlignments.cs, written out: the axis from Matrix3.EulerFromMatrix (no tilt:
    gamma = atan2(-M21, M11)), the offset from the transposed matrix."""
    a11, a12, a21, a22, dx, dy = (float(word) for word in xf.split())
    rotation = np.array([[a11, a12], [a21, a22]])
    offset = rotation.T @ np.array([-dx, -dy]) * angpix
    return WarpTilt(
        "a.tif",
        float(tlt),
        0.0,
        axis_deg=float(np.rad2deg(np.arctan2(-rotation[1, 0], rotation[0, 0]))),
        offset_angstrom=(float(offset[0]), float(offset[1])),
    )


def warp_pixel(
    tilt: WarpTilt,
    point_px: np.ndarray,
    pixel: float,
    image: tuple[int, int],
    tomogram: tuple[int, int, int],
) -> np.ndarray:
    """GetPositionsInOneTilt: where Warp sees a voxel."""
    centred = (point_px - np.array(tomogram) / 2) * pixel
    seen = (warp_matrix(tilt.angle_deg, tilt.axis_deg) @ centred)[:2]
    found: np.ndarray = (seen + np.array(tilt.offset_angstrom)) / pixel + np.array(image) / 2
    return found


CORNERS = [np.array([x, y, z]) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


@settings(max_examples=100, deadline=None)
@given(
    found=st.builds(
        TiltAlignment,
        st.just(0.0),
        st.floats(-70, 70),
        st.floats(-179, 179),
        st.floats(-3000, 3000),
        st.floats(-3000, 3000),
    ),
    image=st.tuples(st.integers(500, 11520), st.integers(500, 11520)),
    thickness=st.integers(100, 3001),
    pixel=st.floats(0.5, 5),
)
@example(TiltAlignment(0.0, 58.005, 85.0, 300.0, -300.0), (11520, 8184), 3000, 1.35)
@example(TiltAlignment(0.0, -60.004, -5.0, 300.0, -300.0), (5761, 4093), 2001, 1.35)
def test_warp_imports_what_we_write_for_it(
    found: TiltAlignment, image: tuple[int, int], thickness: int, pixel: float
) -> None:
    """Through the text of the files: at the tomogram's corners it is within 0.1 pixel."""
    tomogram = (image[1], image[0], thickness)
    files = warp_import_files([found], image, tomogram, pixel, pixel)
    tilt = imported_by_warp(
        xf_text(files.transforms), tlt_text(files.angles_deg, decimals=4), pixel
    )
    matrix = relion_matrix(found, pixel, tomogram, image)
    for corner in CORNERS:
        voxel = corner * np.array(tomogram)
        expected = (matrix @ np.append(voxel, 1.0))[:2]
        assert warp_pixel(tilt, voxel, pixel, image, tomogram) == pytest.approx(expected, abs=0.1)


def test_defocus_of_a_negative_delta_is_that_of_the_other_axis() -> None:
    columns = Defocus(3.0, -0.2, 120.0, 90.0).columns()
    assert columns == pytest.approx(
        {
            "rlnDefocusU": 31000,
            "rlnDefocusV": 29000,
            "rlnCtfAstigmatism": 2000,
            "rlnDefocusAngle": 30,
            "rlnPhaseShift": 90,
        }
    )


def series_file(path: Path, **changes: Any) -> Path:
    """A series of three tilts as `ts_ctf` leaves it."""
    tilts = tuple(
        WarpTilt(f"../frames/{name}.tif", angle, 3.0 * i, defocus=Defocus(3.0 + i, 0.1, 45.0))
        for i, (name, angle) in enumerate([("a", 3.0), ("b", 0.0), ("c", -3.0)])
    )
    write_warp_tilt_series(path, replace(WarpTiltSeries("TS", tilts), **changes))
    return path


def edited(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8-sig")
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_failed_series_is_recognised(tmp_path: Path) -> None:
    assert read_warp_tilt_series(series_file(tmp_path / "a.xml")).problem is None
    failed = read_warp_tilt_series(series_file(tmp_path / "a.xml", deselected=True))
    assert failed.problem == "WarpTools deselected it: its processing failed"
    assert not failed.aligned
    edited(tmp_path / "a.xml", 'UnselectManual="True"', 'UnselectManual="null"')
    edited(tmp_path / "a.xml", "True\nTrue\nTrue", "False\nFalse\nFalse")
    assert read_warp_tilt_series(tmp_path / "a.xml").problem == "Warp uses none of its tilt images"


def test_before_ts_ctf_there_is_no_defocus(tmp_path: Path) -> None:
    tilts = (WarpTilt("a.tif", 0.0, 0.0), WarpTilt("b.tif", 3.0, 3.0))
    write_warp_tilt_series(tmp_path / "TS.xml", WarpTiltSeries("TS", tilts))
    series = read_warp_tilt_series(tmp_path / "TS.xml")
    assert [tilt.defocus for tilt in series.tilts] == [None, None]
    table = [
        {"rlnMicrographMovieName": "a.tif", "rlnTomoNominalStageTiltAngle": 0.0},
        {"rlnMicrographMovieName": "z.tif", "rlnTomoNominalStageTiltAngle": 9.0},
    ]
    output = warp_ctf_output(table, series)
    assert [tilt["reason"] for tilt in output.tilts] == [
        "Warp fitted no CTF to it",
        "Warp's tilt series does not have it",
    ]


def grid_text(name: str, values: list[list[float]]) -> str:
    """A grid with a row of values for each tilt."""
    nodes = "".join(
        f'<Node X="{x}" Y="0" Z="{z}" Value="{value}"/>'
        for z, row in enumerate(values)
        for x, value in enumerate(row)
    )
    size = f'Width="{len(values[0])}" Height="1" Depth="{len(values)}"'
    return f"<{name} {size}>{nodes}</{name}>"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", grid_text("GridAngleX", [[0.0], [-0.5], [0.2]]), "GridAngleX, up to 0.5 deg"),
        ("", grid_text("GridVolumeWarpZ", [[0.0], [12.5]]), "GridVolumeWarpZ, up to 12.5 A"),
        (
            "GridMovementX",
            grid_text("GridMovementX", [[1.0, 3.0], [0.0, 0.0], [5.0, 5.5]]),
            "GridMovementX, up to 1 A from the image's mean",
        ),
        (
            "GridMovementY",
            grid_text("GridMovementY", [[1.0], [-3.0]]),
            "GridMovementY, up to 3 A (2 layers)",
        ),
        (
            'MagnificationCorrection="1, 0, 0, 1"',
            'MagnificationCorrection="1.02, 0, 0, 0.99"',
            "MagnificationCorrection (1.02, 0, 0, 0.99), up to 2.00%",
        ),
    ],
)
def test_what_relion_cannot_say_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = series_file(tmp_path / "TS.xml")
    assert deformation_warnings(read_warp_tilt_series(path)) == []
    text = path.read_text(encoding="utf-8-sig")
    if old.startswith("Grid"):
        start, end = text.index(f"<{old} "), text.index(f"</{old}>") + len(f"</{old}>")
        text = text[:start] + new + text[end:]
    elif old:
        text = text.replace(old, new)
    else:
        text = text.replace("</TiltSeries>", new + "</TiltSeries>")
    path.write_text(text)
    series = read_warp_tilt_series(path)
    assert deformation_warnings(series) == [
        f"RELION's tables cannot say all of Warp's model, and go without {told}"
    ]
    if old == "GridMovementX":  # the mean over the image is in the shifts
        assert [tilt.movement_angstrom for tilt in series.tilts] == [(2, 0), (0, 0), (5.25, 0)]


def test_a_share_of_the_field_that_is_no_number_harms_nobody(tmp_path: Path) -> None:
    path = series_file(tmp_path / "TS.xml")
    before = read_warp_tilt_series(path)
    assert read_warp_tilt_series(edited(path, "<FOVFraction>1", "<FOVFraction>NaN")) == before


def test_a_defocus_for_some_tilts_only_cannot_be_written(tmp_path: Path) -> None:
    tilts = (
        WarpTilt("a.tif", 0.0, 0.0, defocus=Defocus(3.0, 0.1, 45.0)),
        WarpTilt("b.tif", 3.0, 3),
    )
    with pytest.raises(CrboostError, match="tilt image b has no defocus"):
        write_warp_tilt_series(tmp_path / "TS.xml", WarpTiltSeries("TS", tilts))
    assert not (tmp_path / "TS.xml").exists()


def test_grid_of_field_and_tilts_takes_the_mean_of_the_field(tmp_path: Path) -> None:
    path = series_file(tmp_path / "TS.xml")
    text = path.read_text(encoding="utf-8-sig")
    start, end = text.index("<GridCTF "), text.index("</GridCTF>")
    nodes = "".join(
        f'<Node X="{x}" Y="0" Z="{z}" Value="{z + x * 0.2}"/>' for x in (0, 1) for z in (0, 1, 2)
    )
    path.write_text(text[:start] + f'<GridCTF Width="2" Height="1" Depth="3">{nodes}' + text[end:])
    series = read_warp_tilt_series(path)
    assert [t.defocus.defocus_um for t in series.tilts if t.defocus] == pytest.approx(
        [0.1, 1.1, 2.1]
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Angles>", "<Angel>", "not valid XML: mismatched tag"),
        ("<TiltSeries", "<Movie", "not valid XML|root element is Movie"),
        ("True\nTrue", "True", "UseTilt: 3 values expected, found 2"),
        ("True\nTrue", "True\nPerhaps", "UseTilt, value 2 is neither True nor False: 'Perhaps'"),
        ("<Dose>0\n3", "<Dose>0\nthree", "Dose, value 2 is not a number: 'three'"),
        ("<AxisAngle>0", "<AxisAngle>-4,29", "AxisAngle, value 1 .*'-4,29'\n  -> a decimal comma"),
        ("../frames/b.tif", "../frames/a.tif", "MoviePath names a twice"),
        ("../frames/b.tif\n", "", "MoviePath: 3 paths expected"),
        (
            '<GridCTF Width="1" Height="1" Depth="3"',
            '<GridCTF Width="1" Height="1" Depth="2"',
            "GridCTF: node X=0 Y=0 Z=2 lies outside",
        ),
        (
            '<GridCTF Width="1" Height="1" Depth="3"',
            '<GridCTF Width="1" Height="1" Depth="4"',
            "GridCTF: 4 nodes expected, found 3",
        ),
        ('AreAnglesInverted="False"', 'AreAnglesInverted="x"', "AreAnglesInverted is neither"),
        ('LevelAngleX="0"', 'LevelAngleX="?"', "attribute LevelAngleX is not a number"),
        ('ImageDimensionsAngstrom="0, 0"', 'ImageDimensionsAngstrom="0, 0, 0"', "2 numbers"),
    ],
)
def test_bad_files_name_the_element(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = edited(series_file(tmp_path / "TS.xml"), old, new)
    with pytest.raises(FileFormatError, match=r"TS\.xml(:\d+)?: .*(" + message + ")"):
        read_warp_tilt_series(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe<", b"\x80\x81", b"<a/>", b"TS_01 3.0\n"])
def test_what_is_no_warp_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "TS.xml").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"TS\.xml"):
        read_warp_tilt_series(tmp_path / "TS.xml")
    with pytest.raises(FileFormatError, match="no such file"):
        read_warp_tilt_series(tmp_path / "none.xml")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_warp_tilt_series(tmp_path)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("declared", ["utf-8", "utf-16"])
def test_every_encoding(tmp_path: Path, codec: str, declared: str) -> None:
    path = series_file(tmp_path / "TS.xml")
    text = path.read_text(encoding="utf-8-sig").replace("utf-8", declared, 1)
    expected = read_warp_tilt_series(path)
    path.write_bytes(text.encode(codec))
    assert read_warp_tilt_series(path) == expected


@pytest.mark.parametrize("value", [None, float("nan"), "x"])
def test_rows_without_an_alignment_are_refused(value: object) -> None:
    row = {**rows(1)[0], **TiltAlignment(0, 0, 0, 0, 0).columns()}
    assert alignment_of(row) == TiltAlignment(0, 0, 0, 0, 0)
    row["rlnTomoYTilt"] = value
    with pytest.raises(CrboostError, match=r"tilt image TS_01_000_0\.0: rlnTomoYTilt is"):
        alignment_of(row)
    del row["rlnTomoYTilt"]
    with pytest.raises(CrboostError, match="rlnTomoYTilt is missing"):
        alignment_of(row)


@real
def test_real_files() -> None:
    testdata = Path(str(REAL)) / "warpem__warpylib/testdata"
    series = read_warp_tilt_series(testdata / "00254.xml")
    assert len(series.tilts) == len(series.used) == 41
    assert series.tilts[0].name == "TS_01_041_-60.0"
    assert (series.hand, series.aligned, series.problem) == (-1.0, True, None)
    assert series.ctf_resolution_angstrom == 6.3
    defocus = series.tilts[0].defocus
    golden = GOLDEN["tilts"][0]
    assert defocus is not None
    assert defocus.defocus_um == pytest.approx(golden["defocus_um"])
    assert series.tilts[0].offset_angstrom == tuple(golden["offset_angstrom"])
    assert not series.deformations
    before = read_warp_tilt_series(testdata / "xf_import/00254.xml")
    assert before.aligned
    assert before.tilts[5].defocus is None


@real
def test_real_file_survives_the_writer(tmp_path: Path) -> None:
    series = read_warp_tilt_series(Path(str(REAL)) / "warpem__warpylib/testdata/00254.xml")
    for encoding in ("utf-8", "utf-16"):
        write_warp_tilt_series(tmp_path / "00254.xml", series, encoding=encoding)
        assert read_warp_tilt_series(tmp_path / "00254.xml") == series


@real
def test_points_land_where_warp_itself_put_them() -> None:
    """27 points in 41 tilts of a series with level angles, as the C# WarpLib wrote them.

    Its movement differs over the image: RELION's columns have the mean, the warning says how much
    is missing, and with that added back the positions are Warp's.
    """
    from scipy.interpolate import make_interp_spline

    testdata = Path(str(REAL)) / "warpem__warpylib/testdata"
    xml, star = testdata / "TS_1.xml", testdata / "TS_1.star"
    if not (xml.is_file() and star.is_file()):
        pytest.skip("TS_1.xml of warpylib is not among the fixtures")
    pixel, image, tomogram = 0.834, (5760, 4092), (4000, 5700, 1000)
    series = read_warp_tilt_series(xml)
    alignments = warp_alignments(series, image, tomogram, pixel)
    blocks = starfile.read(star)
    points = blocks["points"].to_numpy()
    grids = [WarpXml(xml, "TiltSeries").grid(f"GridMovement{axis}") for axis in "XY"]
    movement = []
    for grid in grids:
        assert grid is not None
        movement.append(np.reshape(grid.values, (grid.depth, grid.height, grid.width)))

    def spline(values: np.ndarray, at: float) -> np.ndarray:
        """Warp's interpolation: a cubic spline through the nodes, straight at its ends."""
        nodes = np.linspace(0, 1, len(values))
        found: np.ndarray = make_interp_spline(nodes, values, k=3, bc_type="natural")(at)
        return found

    assert (series.level_angle_x_deg, series.level_angle_y_deg) == (1.457031, -5.920115)
    bent, exact = [], []
    middle = np.array([size / 2 for size in tomogram] + [1.0])
    for row in blocks["mappings"].itertuples():
        index = int(row.tiltID) - 1
        tilt = series.tilts[index]
        matrix = relion_matrix(alignments[tilt.name], pixel, tomogram, image)
        voxel = np.append(points[int(row.pointID) - 1] / pixel, 0.0) + middle
        seen = matrix @ voxel
        expected = np.array([row.centeredCoordinateXAngst, row.centeredCoordinateYAngst])
        error = seen[:2] * pixel - np.array(image) * pixel / 2 - expected
        bent.append(error)
        x, y = expected / (np.array(image) * pixel) + 0.5
        local = [spline(spline(grid[index].T, x), y) for grid in movement]
        exact.append(error + np.array(tilt.movement_angstrom) - local)

        assert tilt.defocus is not None
        mean = (tilt.defocus.u_angstrom + tilt.defocus.v_angstrom) / 2
        depth = (seen - matrix @ middle)[2] * pixel
        assert mean + series.hand * depth == pytest.approx(
            (row.defocusU + row.defocusV) / 2, abs=0.05
        )
        assert tilt.defocus.u_angstrom - tilt.defocus.v_angstrom == pytest.approx(
            abs(row.defocusU - row.defocusV), abs=0.05
        )
    assert np.abs(exact).max() < 0.1
    (warning,) = deformation_warnings(series)
    assert "GridMovementX, up to 12.3 A" in warning
    assert "GridMovementY, up to 13.6 A" in warning
    assert (np.abs(bent).max(axis=0) < (12.3, 13.6)).all()
    assert np.abs(bent).max() > 10  # it is worth a warning
