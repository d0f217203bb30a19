"""AreTomo's `.aln`: its dialects, and its model (GBackProj.cu, GCorrPatchShift.cu) written here
anew, against RELION's matrix."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doubles.aln_writer import aln_file, write_aln
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crboost.cpu.geometry import TiltAlignment as RelionTilt
from crboost.cpu.geometry import projection_matrix
from crboost.errors import CrboostError, FileFormatError
from crboost.translate.alignment import TiltAlignment
from crboost.translate.aln import (
    AlnFile,
    AlnTilt,
    DarkFrame,
    LocalShift,
    aln_alignments,
    local_warnings,
    read_aln,
)
from crboost.translate.image_stack import ImageStack

REAL = os.environ.get("CRBOOST_REAL_FIXTURES")
real = pytest.mark.skipif(not REAL, reason="CRBOOST_REAL_FIXTURES is not set")

COLUMNS = (
    "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT"
)


def line(section: int, tilt: float, tx: float = 0.0, ty: float = 0.0, rot: float = 85.0) -> str:
    return (
        f"{section:5d}  {rot:9.4f}    1.00000  {tx:9.3f}  {ty:9.3f}     1.00     1.00     1.00"
        f"     0.00  {tilt:8.2f}"
    )


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def aretomo_pixel(point: np.ndarray, tilt: AlnTilt, size: np.ndarray) -> np.ndarray:
    """Pixel index, with fractions, of the stack's image that AreTomo takes a point from.

    The point is in stack pixels from the volume's middle. Projection matching, which finds the
    shifts, compares two images about their middle (GReproj.cu, in versions 2 and 3): a volume
    projected to fX cos + fZ sin, with fX = iX + 0.5 - n * 0.5, and the stack's image corrected by
    the shifts so far (GCorrPatchShift.cu, mGCorrect).
    """
    angle = math.radians(tilt.tilt_deg)
    aligned_index = (
        np.array([point[0] * math.cos(angle) + point[2] * math.sin(angle), point[1]])
        + size * 0.5
        - 0.5  # of a pixel whose middle is at index + 0.5
    )
    return mg_correct(aligned_index, tilt, size, size)


def mg_correct(
    output_index: np.ndarray, tilt: AlnTilt, output_size: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """mGCorrect, line by line, up to its rounding: the pixel it reads for one of its output.

    It ends with `x = (int)(afXY[0] + 0.5f)`: the pixel whose *index* is nearest to afXY.
    """
    axis = math.radians(tilt.axis_deg)
    x, y = output_index + 0.5 - output_size * 0.5
    turned = np.array(
        [x * math.cos(axis) - y * math.sin(axis), x * math.sin(axis) + y * math.cos(axis)]
    )
    return turned + np.array(tilt.shift_px) + size * 0.5


@settings(max_examples=150, deadline=None)
@given(
    axis=st.floats(-180, 180),
    tilt=st.floats(-70, 70),
    offset=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
    shrink=st.floats(1, 9),
    image=st.tuples(st.integers(1000, 6000), st.integers(1000, 6000)),
    pixel=st.floats(0.5, 5),
    point=st.tuples(*[st.floats(-400, 400)] * 3),
)
@example(85.0, 30.0, (60.0, -60.0), 6.0, (1023, 1440), 4.0, (100.0, 50.0, 30.0))
@example(85.0, 30.0, (60.0, -60.0), 7.407407, (4092, 5760), 1.35, (100.0, 50.0, 30.0))
def test_a_point_lands_on_the_same_pixel(
    axis: float,
    tilt: float,
    offset: tuple[float, float],
    shrink: float,
    image: tuple[int, int],
    pixel: float,
    point: tuple[float, float, float],
) -> None:
    """In the stack by AreTomo's kernels, from there to the image by newstack's arithmetic."""
    size = np.array([int(length / shrink) for length in image])
    aln_tilt = AlnTilt(0, axis, offset, tilt)
    stack = ImageStack.shrunk(image, pixel, shrink, centre="half")
    alignment = aln_alignments(["a"], AlnFile(1, None, (aln_tilt,)), stack)["a"]
    assert isinstance(alignment, TiltAlignment)
    seen = aretomo_pixel(np.array(point), aln_tilt, size)
    expected = (np.array(image) - size * shrink) / 2 + (seen + 0.5) * shrink - 0.5
    matrix = projection_matrix(
        RelionTilt(0, alignment.y_tilt_deg, alignment.z_rot_deg, *stack_shift(alignment)),
        pixel,
        (0, 0, 0),
        image,
    )
    got = (matrix @ np.append(np.array(point) * shrink, 1.0))[:2]
    assert got == pytest.approx(expected, abs=1e-6)


def test_the_centre_is_that_of_the_kernel_with_its_rounding() -> None:
    """A bead in the stack, brought to the middle by mGCorrect as it is: nearest pixels."""
    size, bead = np.array([200, 200]), np.array([120.0, 90.0])
    y, x = np.mgrid[:200, :200]
    image = np.exp(-((x - bead[0]) ** 2 + (y - bead[1]) ** 2) / (2 * 6.0**2))
    tilt = AlnTilt(0, 85.0, (float(bead[0] - 100.0), float(bead[1] - 100.0)), 0.0)
    corrected = np.zeros_like(image)
    for j in range(200):
        for i in range(200):
            at = mg_correct(np.array([i, j]), tilt, size, size)
            column, row = int(at[0] + 0.5), int(at[1] + 0.5)
            if 0 <= column < 200 and 0 <= row < 200 and at.min() > -0.5:
                corrected[j, i] = image[row, column]
    middle = [(corrected * index).sum() / corrected.sum() for index in (x, y)]
    assert middle == pytest.approx([99.5, 99.5], abs=0.05)


def stack_shift(alignment: TiltAlignment) -> tuple[float, float]:
    return alignment.x_shift_angstrom, alignment.y_shift_angstrom


def test_warp_s_angles_have_the_other_sign() -> None:
    aln = AlnFile(1, None, (AlnTilt(0, 85.0, (1.0, 2.0), 30.0),))
    (alignment,) = aln_alignments(["a"], aln, ImageStack.plain(10.0), angle_sign=-1).values()
    assert alignment == TiltAlignment(0.0, -30.0, 85.0, 10.0, 20.0)


def test_sections_from_0_and_from_1_name_the_same_images(tmp_path: Path) -> None:
    header = ("# AreTomo Alignment / Priims bprmMn", "# RawSize = 10 20 3", "# NumPatches = 0")
    tilts = ((0, -3.0), (1, 0.0), (2, 3.0))
    files = [
        written(
            tmp_path / f"{first}.aln",
            *header,
            COLUMNS,
            *(line(section + first, tilt) for section, tilt in tilts),
        )
        for first in (0, 1)
    ]
    assert read_aln(files[0]) == read_aln(files[1])
    assert [tilt.section for tilt in read_aln(files[1]).tilts] == [0, 1, 2]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("dark", [{0}, {3}, {0, 3}, {1, 2}, {0, 1, 3}])
def test_dark_images_keep_the_others_in_place(tmp_path: Path, first: int, dark: set[int]) -> None:
    angles = [-3.0, 0.0, 3.0, 6.0]
    path = written(
        tmp_path / "a.aln",
        "# AreTomo Alignment / Priims bprmMn",
        "# RawSize = 10 20 4",
        "# NumPatches = 0",
        *(f"# DarkFrame =  {i:4d} {i + first:4d} {angles[i]:8.2f}" for i in sorted(dark)),
        COLUMNS,
        *(line(i + first, angles[i], tx=i) for i in range(4) if i not in dark),
    )
    found = aln_alignments(list("abcd"), read_aln(path), ImageStack.plain(2.0))
    for i, name in enumerate("abcd"):
        alignment = found[name]
        if i in dark:
            assert alignment == "AreTomo took it for a dark image"
        else:
            assert isinstance(alignment, TiltAlignment)
            assert (alignment.y_tilt_deg, alignment.x_shift_angstrom) == (angles[i], 2.0 * i)


@pytest.mark.parametrize("upwards", [True, False])
def test_dark_images_with_a_wrong_section_are_found_by_angle(tmp_path: Path, upwards: bool) -> None:
    """AreTomo2's CAlignFile prints the section of the i-th of all images, not of the dark one."""
    angles = [-6.0, -3.0, 0.0, 3.0, 6.0] if upwards else [6.0, 3.0, 0.0, -3.0, -6.0]
    dark = sorted((angles[1], angles[4]))
    path = written(
        tmp_path / "a.aln",
        "# AreTomo Alignment / Priims bprmMn ",
        "# RawSize = 10 20 5",
        "# DarkFrames = 2",
        "# NumPatches = 0",
        *(f"# Dark frame =  {i:4d}    0 {angle:8.2f}" for i, angle in enumerate(dark)),
        COLUMNS,
        *(line(i, angles[i]) for i in (0, 2, 3)),
    )
    darks = {(dark.section, dark.tilt_deg) for dark in read_aln(path).darks}
    assert darks == {(1, angles[1]), (4, angles[4])}


def test_base_that_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.aln",
        "# AreTomo Alignment / Priims bprmMn ",
        "# RawSize = 10 20 3",
        "# DarkFrame =     0    0    -3.00",
        "# DarkFrame =     2    0     3.00",
        COLUMNS,
        line(1, 0.0),
    )
    with pytest.raises(FileFormatError, match="count from 0 or from 1"):
        read_aln(path)


def test_aretomo3_header(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.aln",
        "# AreTomo Alignment / Priims bprmMn",
        "# RawSize = 10 20 2",
        "# NumPatches = 1",
        "# AlphaOffset =     0.00",
        "# BetaOffset =    -2.50",
        "# Thickness = 412",
        COLUMNS,
        line(1, 0.0),
        line(2, 3.0),
        "# Local Alignment",
        "   0   0  -558.42   -802.00   -100.07     24.43   1.0",
        "   1   0  -558.42   -802.00   -100.07     24.43   0.0",
    )
    aln = read_aln(path)
    assert (aln.alpha_offset_deg, aln.beta_offset_deg, aln.thickness_px) == (0.0, -2.5, 412)
    assert local_warnings(aln, ImageStack.plain(2.0)) == [
        "AreTomo moved patches by themselves, by up to 206 A; RELION's tables cannot say so and "
        "go without"
    ]
    assert local_warnings(replace(aln, local=aln.local[1:]), ImageStack.plain(2.0)) == []
    assert aln.local[1] == LocalShift(1, 0, (-558.42, -802.0), (-100.07, 24.43), 0.0)


numbers = st.floats(-2000, 2000).map(lambda value: round(value, 3) + 0.0)


@st.composite
def aln_files(draw: st.DrawFn) -> AlnFile:
    images = draw(st.integers(2, 12))
    angles = sorted(
        draw(st.lists(st.integers(-7000, 7000), min_size=images, max_size=images, unique=True))
    )
    sections = draw(st.permutations(range(images)))
    dark = draw(st.sets(st.integers(0, images - 1), max_size=images - 1))
    # A file whose both ends are dark still lists them, so its base can be told.
    tilts = tuple(
        AlnTilt(
            sections[i],
            draw(st.integers(-1800000, 1800000)) / 1e4,
            (draw(numbers), draw(numbers)),
            angles[i] / 100,
        )
        for i in range(images)
        if i not in dark
    )
    darks = tuple(DarkFrame(i, sections[i], angles[i] / 100) for i in sorted(dark))
    return AlnFile(
        images,
        (1000, 1001),
        tilts,
        darks,
        0,
        (),
        *draw(st.sampled_from([(None, None, None), (0.5, -2.0, 300)])),
    )


@settings(max_examples=100, deadline=None)
@given(aln=aln_files(), first=st.sampled_from([0, 1]))
def test_there_and_back_through_the_file(
    tmp_path_factory: pytest.TempPathFactory, aln: AlnFile, first: int
) -> None:
    path = tmp_path_factory.mktemp("aln") / "a.aln"
    write_aln(path, aln, first_section=first)
    assert read_aln(path, images=aln.images) == aln


@settings(max_examples=50, deadline=None)
@given(
    found=st.lists(
        st.one_of(
            st.none(),
            st.builds(
                TiltAlignment,
                st.just(0.0),
                st.floats(-70, 70),
                st.floats(-179, 179),
                st.floats(-3000, 3000),
                st.floats(-3000, 3000),
            ),
        ),
        min_size=2,
        max_size=6,
    ).filter(lambda found: any(found)),
    sign=st.sampled_from([1, -1]),
)
def test_relion_rows_through_an_aln_and_back(
    tmp_path_factory: pytest.TempPathFactory, found: list[TiltAlignment | None], sign: int
) -> None:
    path = tmp_path_factory.mktemp("aln") / "a.aln"
    stack = ImageStack.shrunk((4093, 4096), 1.5, 8.0, centre="half")
    angles = [3.0 * i - 9.0 for i in range(len(found))]
    write_aln(path, aln_file(found, stack, (511, 512), angles, angle_sign=sign))
    names = [str(i) for i in range(len(found))]
    again = aln_alignments(names, read_aln(path), stack, angle_sign=sign)
    for name, before in zip(names, found, strict=True):
        after = again[name]
        if before is None:
            assert isinstance(after, str)
            continue
        assert isinstance(after, TiltAlignment)
        assert after.y_tilt_deg == pytest.approx(before.y_tilt_deg, abs=0.0051)
        assert after.z_rot_deg == pytest.approx(before.z_rot_deg, abs=1e-4)
        assert stack_shift(after) == pytest.approx(stack_shift(before), abs=0.01)


def test_x_tilt_cannot_be_said() -> None:
    with pytest.raises(CrboostError, match="rlnTomoXTilt"):
        aln_file([TiltAlignment(1, 0, 0, 0, 0)], ImageStack.plain(1), (8, 8), [0.0])


def test_another_stack_is_refused() -> None:
    aln = AlnFile(1, None, (AlnTilt(0, 85.0, (1.0, 2.0), 30.0),))
    with pytest.raises(CrboostError, match=r"2 tilt images, the \.aln is of a stack of 1"):
        aln_alignments(["a", "b"], aln, ImageStack.plain(1.0))


HEADER = ("# AreTomo Alignment / Priims bprmMn", "# RawSize = 10 20 3", "# NumPatches = 0", COLUMNS)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("hello",), "a.aln:1: 10 columns expected"),
        (("# nothing",), "is no AreTomo alignment file"),
        (HEADER, "holds no aligned image"),
        ((*HEADER, line(0, 0.0), line(1, 3.0)), "2 aligned and 0 dark images of 3"),
        ((*HEADER, line(0, 0.0), line(0, 3.0)), "a.aln:6: section 0 appears twice"),
        ((*HEADER, line(0, 0.0), line(1, 3.0), line(7, 3.0)), "a.aln:7: section 7 of a stack of 3"),
        ((*HEADER, line(0, 0.0).replace("85.0000", "eighty")), "a.aln:5: ROT is not a number"),
        (
            (*HEADER, line(0, 0.0).replace("    0 ", "  0.5 ", 1)),
            "SEC is not a whole number: '0.5'",
        ),
        ((HEADER[0], "# RawSize = 10 20", line(0, 0.0)), "a.aln:2: RawSize: 3 values expected"),
        ((*HEADER, line(0, 0.0), "# Local Alignment", "1 2 3"), "local alignment: 7 columns"),
    ],
)
def test_bad_files(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        read_aln(written(tmp_path / "a.aln", *lines))


def test_number_of_images_is_checked(tmp_path: Path) -> None:
    path = written(tmp_path / "a.aln", *HEADER, *(line(i, 3.0 * i) for i in range(3)))
    with pytest.raises(FileFormatError, match="of a stack of 3 images, the stack has 5"):
        read_aln(path, images=5)


def test_1_2_knows_only_the_aligned_images(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.aln",
        "# AreTomo Alignment / Priims bprmMn ",
        "# 3  0 ",
        COLUMNS,
        *(line(i, 3.0 * i) for i in (1, 2, 4)),
    )
    assert [tilt.section for tilt in read_aln(path).tilts] == [1, 2, 4]
    found = aln_alignments(list("abcde"), read_aln(path, images=5), ImageStack.plain(1.0))
    assert [name for name, a in found.items() if isinstance(a, TiltAlignment)] == ["b", "c", "e"]
    assert found["a"] == "AreTomo left it out"


@pytest.mark.parametrize("images", [None, 4, 5])
def test_1_2_with_a_dark_first_image_is_not_shifted(tmp_path: Path, images: int | None) -> None:
    """Three aligned images, sections 1 to 3: section 3 is not the third of three."""
    path = written(
        tmp_path / "a.aln",
        "# AreTomo Alignment / Priims bprmMn ",
        "# 3  0 ",
        COLUMNS,
        *(line(i, 3.0 * i) for i in (1, 2, 3)),
    )
    aln = read_aln(path, images=images)
    assert [tilt.section for tilt in aln.tilts] == [1, 2, 3]
    assert aln.images == (images or 4)


@real
def test_real_files() -> None:
    root = Path(str(REAL))
    old = read_aln(root / "teamtomo__lil-aretomo/tests/test_data/example_v1_2_0.aln")
    new = read_aln(root / "teamtomo__lil-aretomo/tests/test_data/example_v1_3_0.aln")
    assert (old.images, old.stack_size_px, len(old.tilts)) == (41, None, 41)
    assert (new.images, new.stack_size_px, len(new.tilts)) == (41, (5760, 4092), 41)
    assert old.tilts[0] == AlnTilt(0, -93.7196, (155.235, 708.750), -51.98)
    assert new.tilts[-1].section == 40
    with pytest.raises(FileFormatError, match="4 aligned and 4 dark images of 90"):
        read_aln(root / "uermel__cryoet-alignment/tests/data/test.aln")


@real
def test_aretomo_s_own_xf_agrees_with_its_aln() -> None:
    """CSaveXF writes the transforms of the same alignment, rounded to 0.001."""
    from crboost.translate.imod import imod_alignments, read_xf

    directory = next(Path(str(REAL)).glob("chanzuckerberg*/**/10001_input/alignments"))
    aln = read_aln(directory / "TS_run1.aln")
    transforms = read_xf(directory / "TS_run1.xf")
    stack = ImageStack.plain(1.0)
    names = list("abc")
    from_aln = aln_alignments(names, aln, stack)
    from_xf = imod_alignments(names, transforms, [t.tilt_deg for t in aln.tilts], stack)
    for name in names:
        a, b = from_aln[name], from_xf[name]
        assert isinstance(a, TiltAlignment)
        assert a.z_rot_deg == pytest.approx(b.z_rot_deg, abs=0.06)
        assert stack_shift(a) == pytest.approx(stack_shift(b), abs=0.1)
