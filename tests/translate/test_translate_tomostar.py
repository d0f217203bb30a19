"""`.tomostar`: the real tool's form, there and back, and what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.errors import CrboostError, FileFormatError
from crboost.translate.tomostar import TomostarTilt, read_tomostar, write_tomostar

#: As WarpTools' Star.Save writes it.
WRITTEN_BY_WARP = """
data_

loop_
_wrpMovieName #1
_wrpAngleTilt #2
_wrpAxisAngle #3
_wrpDose #4
_wrpAverageIntensity #5
_wrpMaskedFraction #6
  ../frames/TS_1_040_57.0.tif    -57.00  85.600  93  6.107  0.000
  ../frames/TS_1_001_0.0.tif       0.01  85.600   0  9.318  0.002
"""


def test_what_warp_writes(tmp_path: Path) -> None:
    path = tmp_path / "TS_1.tomostar"
    path.write_text(WRITTEN_BY_WARP)
    first, second = read_tomostar(path)
    assert first == TomostarTilt("../frames/TS_1_040_57.0.tif", -57.0, 85.6, 93.0, 6.107, 0.0)
    assert (second.name, second.masked_fraction) == ("TS_1_001_0.0", 0.002)


names = st.lists(
    st.from_regex(r"[A-Za-z0-9_.+-]{1,12}", fullmatch=True), min_size=1, max_size=6, unique=True
)


@settings(max_examples=25, deadline=None)
@given(
    names=names,
    values=st.lists(
        st.tuples(st.integers(-9000, 9000), st.integers(-180000, 180000), st.integers(0, 2000)),
        min_size=6,
        max_size=6,
    ),
    known=st.booleans(),
)
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    values: list[tuple[int, int, int]],
    known: bool,
) -> None:
    """Names that look like numbers stay names; one line is a table too."""
    path = tmp_path_factory.mktemp("tomostar") / "a.tomostar"
    tilts = [
        TomostarTilt(
            f"../frames/{name}.eer",
            angle / 100,
            axis / 1000,
            dose / 8,
            *((1.5, 0.25) if known else (None, None)),
        )
        for name, (angle, axis, dose) in zip(names, values, strict=False)
    ]
    write_tomostar(path, tilts)
    assert read_tomostar(path) == tilts


@pytest.mark.parametrize("movie", ["", "a b.tif", "_a.tif", "#1.tif", "'a'.tif", "data_1.tif"])
def test_names_that_nobody_could_read(tmp_path: Path, movie: str) -> None:
    with pytest.raises(CrboostError, match=r"movie path .* is empty, holds blanks"):
        write_tomostar(tmp_path / "a.tomostar", [TomostarTilt(movie, 0, 0, 0)])


@pytest.mark.parametrize("movie", ["../_a.tif", "./data_1.tif", "a+b-1.tif"])
def test_names_that_are_fine(tmp_path: Path, movie: str) -> None:
    tilts = [TomostarTilt(movie, 0, 0, 0)]
    write_tomostar(tmp_path / "a.tomostar", tilts)
    assert read_tomostar(tmp_path / "a.tomostar") == tilts


def test_series_without_tilt_images(tmp_path: Path) -> None:
    with pytest.raises(CrboostError, match="needs tilt images"):
        write_tomostar(tmp_path / "a.tomostar", [])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("_wrpDose", "_wrpDosis", "has no column wrpDose"),
        ("93  6.107", "many  6.107", "row 1: wrpDose is not a number: 'many'"),
        ("TS_1_001_0.0", "TS_1_040_57.0", "names the movie TS_1_040_57.0 twice"),
        (
            "  ../frames/TS_1_001_0.0.tif       0.01  85.600   0  9.318  0.002\n",
            "x\n",
            r"not a readable STAR file|is not a number",
        ),
    ],
)
def test_bad_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "a.tomostar"
    assert old in WRITTEN_BY_WARP
    path.write_text(WRITTEN_BY_WARP.replace(old, new))
    with pytest.raises(FileFormatError, match=r"a\.tomostar: .*(" + message + ")"):
        read_tomostar(path)


@pytest.mark.parametrize(
    "content", [b"", b"data_\n", b"\xff\xfe\x00", b"data_a\n_x 1\ndata_b\n_y 2\n"]
)
def test_what_is_no_tomostar(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tomostar").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.tomostar"):
        read_tomostar(tmp_path / "a.tomostar")
    with pytest.raises(FileFormatError, match="no such file"):
        read_tomostar(tmp_path / "b.tomostar")
