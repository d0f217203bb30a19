"""IMOD's files against IMOD's own model, written here anew from its sources (`cubinterp.c`,
`tilt.f90`), and against RELION's matrix: a point of the specimen lands on the same pixel."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crboost.cpu.geometry import TiltAlignment as RelionTilt
from crboost.cpu.geometry import projection_matrix
from crboost.errors import CrboostError, FileFormatError
from crboost.translate.alignment import TiltAlignment
from crboost.translate.image_stack import ImageStack
from crboost.translate.imod import (
    AlignLog,
    Transform,
    distortion_warnings,
    imod_alignments,
    imod_files,
    read_align_log,
    read_angles,
    read_x_tilts,
    read_xf,
    tlt_text,
    xf_text,
)

REAL = os.environ.get("CRBOOST_REAL_FIXTURES")
real = pytest.mark.skipif(not REAL, reason="CRBOOST_REAL_FIXTURES is not set")


def imod_pixel(
    point: np.ndarray, transform: Transform, tilt_deg: float, x_tilt_deg: float, size: np.ndarray
) -> np.ndarray:
    """Where IMOD sees a point: pixel index in the stack.

    `tilt` (tilt.f90, BPROJ part) takes voxel (xx, yy, zz) from the middle to
    xproj = xx cosBeta + yy sinAlpha sinBeta + zz cosAlpha sinBeta, yproj = yy cosAlpha - zz
    sinAlpha, with sinBeta = -sin(tilt), sinAlpha = -sin(xtilt), zz downwards; xcenIn and
    centerSlice are n / 2 + 0.5 from 1. `newstack` (cubinterp) goes from the aligned stack to the
    stack with coordinates that run from 0 at the left edge to n at the right.
    """
    xx, yy, zz = point[0], point[1], -point[2]
    sin_beta, cos_beta = -math.sin(math.radians(tilt_deg)), math.cos(math.radians(tilt_deg))
    sin_alpha, cos_alpha = -math.sin(math.radians(x_tilt_deg)), math.cos(math.radians(x_tilt_deg))
    aligned_from_1 = np.array(
        [
            xx * cos_beta + yy * sin_alpha * sin_beta + zz * cos_alpha * sin_beta,
            yy * cos_alpha - zz * sin_alpha,
        ]
    ) + (size / 2 + 0.5)
    edge = aligned_from_1 - 0.5  # pixel i from 1 has its middle at i - 0.5 from the edge
    matrix = np.array([[transform.a11, transform.a12], [transform.a21, transform.a22]])
    inside = np.linalg.inv(matrix) @ (edge - size / 2 - np.array([transform.dx, transform.dy])) + (
        size / 2
    )
    return inside - 0.5


def relion_pixel(
    point_px: np.ndarray, alignment: TiltAlignment, pixel: float, image: tuple[int, int]
) -> np.ndarray:
    """Where RELION sees a point (full-size pixels from the tomogram's centre)."""
    matrix = projection_matrix(
        RelionTilt(
            alignment.x_tilt_deg,
            alignment.y_tilt_deg,
            alignment.z_rot_deg,
            alignment.x_shift_angstrom,
            alignment.y_shift_angstrom,
        ),
        pixel,
        (0, 0, 0),
        image,
    )
    return (matrix @ np.append(point_px, 1.0))[:2]


@settings(max_examples=150, deadline=None)
@given(
    axis=st.floats(-180, 180),
    tilt=st.floats(-70, 70),
    x_tilt=st.floats(-10, 10),
    offset=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
    shrink=st.floats(1, 9),
    image=st.tuples(st.integers(1000, 6000), st.integers(1000, 6000)),
    pixel=st.floats(0.5, 5),
    point=st.tuples(*[st.floats(-400, 400)] * 3),
)
@example(85.0, 30.0, 0.0, (60.0, -60.0), 6.0, (1023, 1440), 4.0, (100.0, 50.0, 30.0))
@example(85.0, 30.0, 0.0, (60.0, -60.0), 7.407407, (4092, 5760), 1.35, (100.0, 50.0, 30.0))
def test_a_point_lands_on_the_same_pixel(
    axis: float,
    tilt: float,
    x_tilt: float,
    offset: tuple[float, float],
    shrink: float,
    image: tuple[int, int],
    pixel: float,
    point: tuple[float, float, float],
) -> None:
    """In the stack by IMOD's model, from there to the image by newstack's arithmetic."""
    cos, sin = math.cos(math.radians(axis)), math.sin(math.radians(axis))
    transform = Transform(cos, sin, -sin, cos, *offset)
    stack = ImageStack.shrunk(image, pixel, shrink, centre="middle")
    alignment = imod_alignments(["a"], [transform], [tilt], stack, x_tilts_deg=[x_tilt])["a"]

    size = np.array([int(length / shrink) for length in image])
    seen = imod_pixel(np.array(point), transform, tilt, x_tilt, size)
    expected = (np.array(image) - size * shrink) / 2 + (seen + 0.5) * shrink - 0.5
    got = relion_pixel(np.array(point) * shrink, alignment, pixel, image)
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("image", [(1000, 800), (1001, 801), (1000, 801)])
def test_relion_s_own_import_is_the_plain_stack(image: tuple[int, int]) -> None:
    """readIMODResults: the shifts are -(A^-1 d) times the pixel size, nothing else."""
    transform = Transform(0.0872, 0.9962, -0.9962, 0.0872, 12.0, -30.0)
    alignment = imod_alignments(["a"], [transform], [30.0], ImageStack.plain(10.0))["a"]
    matrix = np.array([[0.0872, 0.9962], [-0.9962, 0.0872]])
    expected = -np.linalg.inv(matrix) @ np.array([12.0, -30.0]) * 10.0
    assert (alignment.x_shift_angstrom, alignment.y_shift_angstrom) == pytest.approx(expected)
    assert alignment.z_rot_deg == pytest.approx(85.0, abs=0.01)


alignments = st.builds(
    TiltAlignment,
    st.just(0.0),
    st.floats(-70, 70),
    st.floats(-179, 179),
    st.floats(-3000, 3000),
    st.floats(-3000, 3000),
)


@settings(max_examples=50, deadline=None)
@given(
    found=st.lists(alignments, min_size=2, max_size=5),
    sign=st.sampled_from([1, -1]),
)
def test_there_and_back_through_the_files(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[TiltAlignment],
    sign: int,
) -> None:
    directory = tmp_path_factory.mktemp("imod")
    stack = ImageStack.shrunk((4093, 4096), 1.5, 8.0, centre="middle")
    files = imod_files(found, stack, angle_sign=sign)
    (directory / "a.xf").write_text(xf_text(files.transforms))
    (directory / "a.tlt").write_text(tlt_text(files.angles_deg))
    names = [str(i) for i in range(len(found))]
    again = imod_alignments(
        names,
        read_xf(directory / "a.xf", count=len(found)),
        read_angles(directory / "a.tlt", count=len(found)),
        stack,
        angle_sign=sign,
    )
    for before, after in zip(found, again.values(), strict=True):
        assert after.y_tilt_deg == pytest.approx(before.y_tilt_deg, abs=0.0051)
        assert after.z_rot_deg == pytest.approx(before.z_rot_deg, abs=1e-4)
        # %12.3f: half a thousandth of a stack pixel of 12 A, turned
        assert after.x_shift_angstrom == pytest.approx(before.x_shift_angstrom, abs=0.02)
        assert after.y_shift_angstrom == pytest.approx(before.y_shift_angstrom, abs=0.02)


def test_x_tilts_come_back() -> None:
    found = TiltAlignment(2.5, 30.0, 85.0, 0.0, 0.0)
    files = imod_files([found, found], ImageStack.plain(1.0), x_tilts=True)
    again = imod_alignments(
        ["a", "b"],
        files.transforms,
        files.angles_deg,
        ImageStack.plain(1.0),
        x_tilts_deg=files.x_tilts_deg,
    )
    assert again["a"].x_tilt_deg == 2.5


def test_x_tilt_that_nobody_would_read_is_refused() -> None:
    with pytest.raises(CrboostError, match=r"rlnTomoXTilt is 2\.5"):
        imod_files([TiltAlignment(2.5, 30.0, 85.0, 0.0, 0.0)], ImageStack.plain(1.0))


def test_stack_that_is_aligned_already_is_refused() -> None:
    """AreTomo -OutImod 3 (CSaveXF::mSaveForAligned) writes identities."""
    identity = Transform(1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    with pytest.raises(CrboostError, match="aligned already"):
        imod_alignments(["a", "b"], [identity] * 2, [0.0, 3.0], ImageStack.plain(1.0))


@pytest.mark.parametrize(
    ("stretch", "image"),
    [((1.009, 1.009), (4000, 4000)), ((1.003, 0.999), (5760, 4092)), ((1.0, 1.02), (512, 512))],
)
def test_scale_and_stretch_are_told_in_pixels(
    stretch: tuple[float, float], image: tuple[int, int]
) -> None:
    """The number is the distance between IMOD's place and RELION's, at the worst corner."""
    cos, sin = math.cos(1.4), math.sin(1.4)
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.diag(stretch)
    bent = Transform(*matrix.ravel(), 0.0, 0.0)
    stack = ImageStack.shrunk(image, 1.0, 1.0, centre="middle")
    alignment = imod_alignments(["a"], [bent], [0.0], stack)["a"]
    size = np.array(image)
    errors = []
    for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        in_stack = np.array(corner) * size / 2 + (size - 1) / 2
        aligned = matrix @ (np.array(corner) * size / 2)
        assert imod_pixel(np.append(aligned, 0.0), bent, 0.0, 0.0, size) == pytest.approx(in_stack)
        relion = relion_pixel(np.append(aligned, 0.0), alignment, 1.0, image)
        errors.append(np.hypot(*(relion - in_stack)))
    assert bent.error_px(image) == pytest.approx(max(errors))
    plain = Transform(cos, sin, -sin, cos, 5.0, 6.0)
    (warning,) = distortion_warnings(["a", "b"], [plain, bent], image)
    assert warning.startswith("tilt image b: IMOD scaled")
    assert f"off by up to {max(errors):.1f} pixels (b)" in warning


def test_a_stretch_below_a_pixel_is_not_worth_a_word() -> None:
    """What the seven decimals and robust fits leave: 0.0002 of 4000 pixels is half a pixel."""
    small = Transform(1.0002, 0.0, 0.0, 1.0, 0.0, 0.0)
    assert distortion_warnings(["a"], [small], (4000, 4000)) == []


def test_files_of_another_stack_are_refused() -> None:
    with pytest.raises(CrboostError, match=r"3 images, the \.xf 1 transforms, the \.tlt 2 angles"):
        imod_alignments(
            ["a", "b", "c"], [Transform(1, 0, 0, 1, 5, 0)], [1.0, 2.0], ImageStack.plain(1.0)
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 1 0\n", r"a\.xf:1: six numbers expected, found 5"),
        ("1 0 0 1 0 0\n1 0 0 one 0 0\n", r"a\.xf:2: A22 is not a number: 'one'"),
        ("1 0 0 nan 0 0\n", r"a\.xf:1: A22 is not a number"),
        ("1 0 0 -1 0 0\n", r"a\.xf:1: the matrix .* mirrors"),
        ("", r"a\.xf: holds no transforms"),
        ("\n\n", r"a\.xf: holds no transforms"),
    ],
)
def test_bad_xf(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xf").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_xf(tmp_path / "a.xf")


def test_bad_angles(tmp_path: Path) -> None:
    path = tmp_path / "a.tlt"
    with pytest.raises(FileFormatError, match="no such file"):
        read_angles(path)
    path.write_text("1.0\n2.0 3.0\n")
    with pytest.raises(FileFormatError, match=r"a\.tlt:2: one angle expected, found 2"):
        read_angles(path)
    path.write_bytes(b"1.0\n\xff\xfe\n")
    with pytest.raises(FileFormatError, match="not a text file"):
        read_angles(path)
    path.write_text("1.0\n\n2.0\n")
    with pytest.raises(FileFormatError, match="3 angles expected, found 2"):
        read_angles(path, count=3)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_angles(path)


def test_align_log(tmp_path: Path) -> None:
    path = tmp_path / "align.log"
    path.write_text(
        "  Residual error mean and sd:    0.950    0.300\n"
        " AngleOffset = -1.5\n"
        " Global leave-out error mean and sd:    0.61   0.3\n"
        "  Residual error mean and sd:    0.479    0.263 \n"
    )
    assert read_align_log(path) == AlignLog(0.479, 0.263, 0.61, -1.5)
    path.write_text("nothing here\n")
    assert read_align_log(path) == AlignLog(None, None, None, None)
    path.write_text("Residual error mean and sd:  ***** 0.2\n")
    with pytest.raises(FileFormatError, match=r"align\.log:1: residual is not a number: '\*"):
        read_align_log(path)


def test_aretomo2_forgets_the_last_x_tilt(tmp_path: Path) -> None:
    path = tmp_path / "a.xtilt"
    path.write_text("0\n" * 4)
    assert read_x_tilts(path, 5) == [0.0] * 5
    path.write_text("0\n1.5\n0\n0\n")
    with pytest.raises(FileFormatError, match="5 angles expected, found 4"):
        read_x_tilts(path, 5)


def test_dos_line_ends_and_the_empty_line_of_aretomo(tmp_path: Path) -> None:
    path = tmp_path / "a.xf"
    path.write_bytes(b"    0.998     0.062    -0.062     0.998     12.50     -3.00\r\n\r\n")
    (transform,) = read_xf(path)
    assert transform.dx == 12.5
    assert transform.axis_deg == pytest.approx(3.555, abs=1e-3)


@real
def test_real_files() -> None:
    root = Path(str(REAL))
    convert = root / "uermel__cryoet-alignment/tests/data/convert/imod_1"
    transforms, angles = read_xf(convert / "tilt_1.xf"), read_angles(convert / "tilt_1.tlt")
    assert len(transforms) == len(angles) > 40
    names = [str(i) for i in range(len(angles))]
    found = imod_alignments(names, transforms, angles, ImageStack.plain(1.0))
    assert all(abs(a.y_tilt_deg) < 75 for a in found.values())
    # tiltalign with one rotation for all and magnifications near one
    assert np.ptp([a.z_rot_deg for a in found.values()]) < 1.0


@real
def test_relion_and_warp_read_a_real_xf_alike() -> None:
    """WarpTools' own import of this .xf (stack of 10 A) is in the XML beside it."""
    import xml.etree.ElementTree as ET

    directory = Path(str(REAL)) / "warpem__warpylib/testdata/xf_import"
    root = ET.parse(directory / "00254.xml").getroot()
    offsets = [
        [float(text) for text in (root.findtext(name) or "").split()]
        for name in ("AxisOffsetX", "AxisOffsetY", "AxisAngle")
    ]
    transforms, angles = read_xf(directory / "00254.xf"), read_angles(directory / "00254.tlt")
    names = [str(i) for i in range(len(angles))]
    found = imod_alignments(names, transforms, angles, ImageStack.plain(10.0)).values()
    for i, alignment in enumerate(found):
        assert alignment.x_shift_angstrom == pytest.approx(offsets[0][i], abs=0.01)
        assert alignment.y_shift_angstrom == pytest.approx(offsets[1][i], abs=0.01)
        assert alignment.z_rot_deg == pytest.approx(offsets[2][i], abs=0.001)
