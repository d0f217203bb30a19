"""Warp's tilt-series XML: its geometry and hand against warpylib's numbers and RELION's matrix."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.cpu.geometry import TiltAlignment as RelionTilt
from crboost.cpu.geometry import projection_matrix
from crboost.errors import CrboostError, FileFormatError
from crboost.translate.alignment import TiltAlignment, aligned_output, alignment_of
from crboost.translate.defocus import Defocus
from crboost.translate.tables import Row
from crboost.translate.warp_tilt_series import (
    WarpTilt,
    WarpTiltSeries,
    deformation_warnings,
    keep_tilts,
    read_warp_tilt_series,
    warp_alignments,
    warp_ctf_output,
    warp_import_files,
    warp_tilts,
    write_warp_tilt_series,
)

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


@settings(max_examples=50, deadline=None)
@given(
    found=st.lists(
        st.builds(
            TiltAlignment,
            st.just(0.0),
            st.floats(-70, 70),
            st.floats(-179, 179),
            st.floats(-3000, 3000),
            st.floats(-3000, 3000),
        ),
        min_size=4,
        max_size=4,
    ),
    image=st.tuples(st.integers(500, 6000), st.integers(500, 6000)),
    tomogram=st.tuples(st.integers(500, 6000), st.integers(500, 6000), st.integers(100, 3000)),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_relion_rows_through_the_xml_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[TiltAlignment],
    image: tuple[int, int],
    tomogram: tuple[int, int, int],
    encoding: str,
) -> None:
    path = tmp_path_factory.mktemp("warp") / "TS_01.xml"
    table = [
        {**row, "rlnDefocusU": 31000.0 + i, "rlnDefocusV": 29000.0, "rlnDefocusAngle": 40.0}
        for i, row in enumerate(rows())
    ]
    names = [f"TS_01_{i:03d}_{row['rlnTomoNominalStageTiltAngle']}" for i, row in enumerate(table)]
    movies = {name: f"../frames/{name}.tif" for name in names}
    kept = dict(zip(names[:3], found, strict=False))
    tilts = warp_tilts(table, kept, movies, image, tomogram, 1.35)
    assert [tilt.angle_deg for tilt in tilts if not tilt.use] == [-6.0]
    series = WarpTiltSeries("TS_01", tilts, are_angles_inverted=True, ctf_resolution_angstrom=7.5)
    write_warp_tilt_series(path, series, encoding=encoding)
    again = read_warp_tilt_series(path)
    assert again.are_angles_inverted
    assert [tilt.name for tilt in again.used] == [names[2], names[0], names[1]]  # by stage angle

    alignments = warp_alignments(again, image, tomogram, 1.35)
    assert alignments[names[3]] == "Warp does not use it (UseTilt is False)"
    output = aligned_output(table, alignments, "warp", hand=again.hand)
    assert output.global_columns["rlnTomoHand"] == -1.0
    assert [row["rlnMicrographMovieName"] for row in output.rows] == [
        row["rlnMicrographMovieName"] for row in table[:3]
    ]
    for row, before in zip(output.rows, found[:3], strict=True):
        after = alignment_of(row)
        assert after.y_tilt_deg == pytest.approx(before.y_tilt_deg, abs=1e-6)
        assert after.z_rot_deg == pytest.approx(before.z_rot_deg, abs=1e-6)
        assert after.x_shift_angstrom == pytest.approx(before.x_shift_angstrom, abs=1e-4)
        assert after.y_shift_angstrom == pytest.approx(before.y_shift_angstrom, abs=1e-4)

    ctf = warp_ctf_output(table, again)
    assert [row["rlnDefocusU"] for row in ctf.rows] == pytest.approx([31000, 31001, 31002])
    assert [row["rlnDefocusV"] for row in ctf.rows] == pytest.approx([29000] * 3)
    assert ctf.rows[0]["rlnCtfAstigmatism"] == pytest.approx(2000)
    assert ctf.rows[0]["rlnDefocusAngle"] == pytest.approx(40)
    assert ctf.rows[0]["rlnCtfMaxResolution"] == 7.5
    assert ctf.warnings == [
        "tilt image TS_01_003_6.0 (+6.0 deg): excluded: Warp does not use it (UseTilt is False)"
    ]
    assert ctf.tilts[3]["status"] == "excluded"


@settings(max_examples=60, deadline=None)
@given(
    found=st.builds(
        TiltAlignment,
        st.just(0.0),
        st.floats(-70, 70),
        st.floats(-179, 179),
        st.floats(-3000, 3000),
        st.floats(-3000, 3000),
    ),
    image=st.tuples(st.integers(500, 6000), st.integers(500, 6000)),
    tomogram=st.tuples(st.integers(500, 6000), st.integers(500, 6000), st.integers(100, 3000)),
)
def test_warp_imports_what_we_write_for_it(
    found: TiltAlignment, image: tuple[int, int], tomogram: tuple[int, int, int]
) -> None:
    """TiltSeries.ImportAlignments.cs, written out: the axis from Matrix3.EulerFromMatrix (no tilt:
    gamma = atan2(-M21, M11)), the offset from the transposed matrix; then the XML is read back."""
    pixel, stack_pixel = 1.35, 10.0
    files = warp_import_files([found], image, tomogram, pixel, stack_pixel)
    (transform,), (angle,) = files.transforms, files.angles_deg
    rotation = np.array([[transform.a11, transform.a12], [transform.a21, transform.a22]])
    offset = rotation.T @ np.array([-transform.dx, -transform.dy]) * stack_pixel
    tilt = WarpTilt(
        "a.tif",
        angle,
        0.0,
        axis_deg=float(np.rad2deg(np.arctan2(-rotation[1, 0], rotation[0, 0]))),
        offset_angstrom=(float(offset[0]), float(offset[1])),
    )
    (again,) = warp_alignments(WarpTiltSeries("TS", (tilt,)), image, tomogram, pixel).values()
    assert isinstance(again, TiltAlignment)
    assert list(again.columns().values()) == pytest.approx(list(found.columns().values()), abs=1e-6)


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
    assert Defocus.of_row(columns) == Defocus(3.0, pytest.approx(0.2), 30.0, 90.0)


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


def test_excluded_tilt_keeps_the_others_in_place(tmp_path: Path) -> None:
    path = series_file(tmp_path / "TS.xml")
    keep_tilts(path, tmp_path / "kept.xml", {"a", "c"})
    series = read_warp_tilt_series(tmp_path / "kept.xml")
    assert [(tilt.name, tilt.use) for tilt in series.tilts] == [
        ("a", True),
        ("b", False),
        ("c", True),
    ]
    assert [tilt.name for tilt in series.used] == ["a", "c"]
    table = [
        {"rlnMicrographMovieName": f"frames/{name}.tif", "rlnTomoNominalStageTiltAngle": 0.0}
        for name in "cba"
    ]
    output = warp_ctf_output(table, series)
    assert [row["rlnDefocusU"] for row in output.rows] == pytest.approx([50500, 30500])
    with pytest.raises(FileFormatError, match="has no tilt image z"):
        keep_tilts(path, tmp_path / "kept.xml", {"z"})


def test_rejecting_a_tilt_changes_nothing_else(tmp_path: Path) -> None:
    import xml.etree.ElementTree as ET

    path = series_file(tmp_path / "TS.xml")
    edited(path, "<CTF>", '<Unheard Of="1"><Param Name="x" Value="ä" /></Unheard><CTF>')
    keep_tilts(path, tmp_path / "kept.xml", {"a", "b"})

    def flat(file: Path) -> list[tuple[str, dict[str, str], str]]:
        return [
            (node.tag, dict(node.attrib), (node.text or "").strip())
            for node in ET.parse(file).getroot().iter()
            if node.tag != "UseTilt"
        ]

    assert flat(tmp_path / "kept.xml") == flat(path)


def test_failed_series_is_recognised(tmp_path: Path) -> None:
    assert read_warp_tilt_series(series_file(tmp_path / "a.xml")).problem is None
    failed = read_warp_tilt_series(series_file(tmp_path / "a.xml", deselected=True))
    assert failed.problem == "WarpTools deselected it: its processing failed"
    assert not failed.aligned
    keep_tilts(tmp_path / "a.xml", tmp_path / "b.xml", set())
    edited(tmp_path / "b.xml", 'UnselectManual="True"', 'UnselectManual="null"')
    assert read_warp_tilt_series(tmp_path / "b.xml").problem == "Warp uses none of its tilt images"


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


def test_what_relion_cannot_say_is_told(tmp_path: Path) -> None:
    path = series_file(tmp_path / "TS.xml")
    grid = '<GridAngleX Width="1" Height="1" Depth="2"><Node X="0" Y="0" Z="0" Value="0"/>'
    edited(
        path,
        "</TiltSeries>",
        f'{grid}<Node X="0" Y="0" Z="1" Value="0.5"/></GridAngleX></TiltSeries>',
    )
    assert deformation_warnings(read_warp_tilt_series(path)) == [
        "Warp's model bends the specimen (GridAngleX); RELION's tables cannot say so and go without"
    ]


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


def test_x_tilt_per_image_is_refused() -> None:
    table = rows(1)
    with pytest.raises(CrboostError, match="rlnTomoXTilt is 1"):
        warp_tilts(
            table,
            {"TS_01_000_0.0": TiltAlignment(1, 0, 0, 0, 0)},
            {"TS_01_000_0.0": "a.tif"},
            (8, 8),
            (8, 8, 8),
            1.0,
        )


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
