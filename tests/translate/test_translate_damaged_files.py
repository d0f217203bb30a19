"""A damaged file is an error that names the file, whatever the damage; never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles.aln_writer import write_aln
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.errors import FileFormatError
from crboost.translate.aln import AlnFile, AlnTilt, DarkFrame, LocalShift, read_aln
from crboost.translate.candidates import read_candidates
from crboost.translate.defocus import Defocus
from crboost.translate.imod import (
    Transform,
    read_align_log,
    read_angles,
    read_x_tilts,
    read_xf,
    tlt_text,
    xf_text,
)
from crboost.translate.tables import read_table, read_tilt_series, write_table
from crboost.translate.tilt_filter import read_classified
from crboost.translate.tomostar import TomostarTilt, read_tomostar, write_tomostar
from crboost.translate.warp_frame_series import (
    FrameSeries,
    read_frame_series,
    read_motion_angstrom,
    write_frame_series,
)
from crboost.translate.warp_tilt_series import (
    WarpTilt,
    WarpTiltSeries,
    read_warp_tilt_series,
    write_warp_tilt_series,
)

READERS: dict[str, Callable[[Path], Any]] = {
    "xml": read_warp_tilt_series,
    "movie": read_frame_series,
    "aln": read_aln,
    "xf": read_xf,
    "tlt": read_angles,
    "xtilt": lambda path: read_x_tilts(path, 3),
    "log": read_align_log,
    "tomostar": read_tomostar,
    "json": read_motion_angstrom,
    "candidates": read_candidates,
    "classified": read_classified,
    "table": read_table,
    "series": lambda path: read_tilt_series(path, path.parent),
}


def whole_files(directory: Path) -> None:
    defocus = Defocus(3.0, 0.1, 45.0)
    write_warp_tilt_series(
        directory / "xml",
        WarpTiltSeries(
            "TS", tuple(WarpTilt(f"{i}.tif", 3.0 * i, i, defocus=defocus) for i in range(3))
        ),
    )
    write_frame_series(directory / "movie", FrameSeries("movie", defocus=defocus))
    write_aln(
        directory / "aln",
        AlnFile(
            3,
            (10, 20),
            (AlnTilt(0, 85.0, (1.0, 2.0), -3.0), AlnTilt(2, 85.0, (1.0, 2.0), 3.0)),
            (DarkFrame(1, 1, 0.0),),
            1,
            (LocalShift(0, 0, (1.0, 2.0), (3.0, 4.0), 1.0),),
        ),
        first_section=1,
    )
    (directory / "xf").write_text(xf_text([Transform(1.0, 0.1, -0.1, 1.0, 5.0, 6.0)] * 3))
    (directory / "tlt").write_text(tlt_text([-3.0, 0.0, 3.0]))
    (directory / "xtilt").write_text(tlt_text([0.0, 0.0, 0.0]))
    (directory / "log").write_text("Residual error mean and sd:  0.4 0.2\nAngleOffset = 1.0\n")
    write_tomostar(
        directory / "tomostar", [TomostarTilt(f"{i}.tif", 3.0 * i, 85.0, i) for i in range(3)]
    )
    columns = ("CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt", "AnglePsi")
    row = {f"rln{column}": 1.0 + i for i, column in enumerate((*columns, "LCCmax", "CutOff"))}
    write_table(directory / "candidates", "", [row, row])
    (directory / "classified").write_text(
        "tilt,verdict,probability,reason\na,keep,0.5,\n'b c',reject,0.1,\"dark, or bent\"\n"
    )
    tilts = [{"rlnMicrographMovieName": "a.tif", "rlnTomoYTilt": 3.0}] * 2
    write_table(directory / "table", "TS", tilts)
    names = {"rlnTomoName": "TS", "rlnTomoTiltSeriesStarFile": "table"}
    write_table(directory / "series", "global", [names])
    (directory / "json").write_text('{"0_0": {"x": [0.0, 1.0], "y": [0.0, 1.0]}}')


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    whole_files(directory)
    return directory


@pytest.mark.parametrize("kind", READERS)
def test_whole_files_are_read(whole: Path, kind: str) -> None:
    assert READERS[kind](whole / kind)


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage(whole: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray((whole / kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, max(len(content) - 1, 0)))
        end = data.draw(st.integers(start, min(start + 30, len(content))))
        content[start:end] = data.draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from(
                    [b"-1", b"1e300", b"99999999999999999999", b"nan", b" ", b"\n", b'"']
                ),
            )
        )
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = whole / f"damaged_{kind}"
    path.write_bytes(bytes(content))
    try:
        READERS[kind](path)
    except FileFormatError as error:
        # The global table names other files: their absence is told with their names.
        assert kind == "series" or f"damaged_{kind}" in str(error)
        assert str(whole) in str(error)
