"""The double of WarpTools has the real one's bad manners."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from doubles.warptools import main

from crboost.translate.alignment import TiltAlignment
from crboost.translate.imod import tlt_text, xf_text
from crboost.translate.tomostar import TomostarTilt, write_tomostar
from crboost.translate.warp_tilt_series import (
    read_warp_tilt_series,
    warp_alignments,
    warp_import_files,
)

BIN = Path(__file__).parent / "bin"


def warptools(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "WarpTools"), *words],
        cwd=directory,
        capture_output=True,
        text=True,
        env={**os.environ, "DOUBLES_PYTHON": sys.executable},
    )


@pytest.mark.parametrize(
    "words",
    [
        ["create_settings", "--folder_data", "frames", "--angpix", "4"],  # no --output
        ["create_settings", "--output", "x.settings", "--nonsense", "1"],
        ["no_such_command"],
    ],
)
def test_wrong_arguments_end_with_0_and_make_nothing(tmp_path: Path, words: list[str]) -> None:
    ended = warptools(tmp_path, *words)
    assert ended.returncode == 0
    assert "ERROR" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "exponent"),
    [([], 0), (["--bin", "1"], 1), (["--bin", "2"], 2), (["--bin_angpix", "8"], 2)],
)
def test_bin_is_an_exponent(tmp_path: Path, words: list[str], exponent: float) -> None:
    settings = tmp_path / "x.settings"
    argv = ["--folder_data", "frames", "--extension", "*.tif", "--angpix", "2"]
    ended = warptools(tmp_path, "create_settings", *argv, "--output", str(settings), *words)
    assert ended.returncode == 0, ended.stderr
    read = {one.get("Name"): one.get("Value") for one in ET.parse(settings).iter("Param")}
    assert float(read["BinTimes"] or "nan") == exponent
    assert read["PixelSize"] == "2"


def test_missing_files_end_with_an_error(tmp_path: Path) -> None:
    ended = warptools(tmp_path, "ts_ctf", "--settings", "absent.settings")
    assert ended.returncode != 0


PIXEL, IMAGE, TOMOGRAM = 4.0, (65, 48), (60, 52, 20)
GIVEN = [TiltAlignment(0.0, angle, 85.0, 40.0 * angle, -7.0) for angle in (-3.0, 0.0, 3.0)]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tilt series that Warp knows, and an alignment of it from elsewhere, as IMOD writes it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames" / "average").mkdir(parents=True)
    (tmp_path / "tomostar").mkdir()
    tilts = []
    for number, angle in enumerate((-3.0, 0.0, 3.0)):
        mrcfile.write(
            tmp_path / "frames" / "average" / f"{number}.mrc",
            np.zeros(IMAGE[::-1], np.float32),
        )
        tilts.append(TomostarTilt(f"../frames/{number}.tif", -angle, 85.0, 0.0, 1.0, 0.0))
    write_tomostar(tmp_path / "tomostar" / "TS_01.tomostar", tilts)
    assert main(
        ["create_settings", "--folder_data", "tomostar", "--extension", "*.tomostar", "--output",
         "s.settings", "--folder_processing", "p", "--angpix", str(PIXEL), "--tomo_dimensions",
         "x".join(map(str, TOMOGRAM))]
    ) == 0  # fmt: skip
    folder = tmp_path / "given" / "TS_01"
    folder.mkdir(parents=True)
    files = warp_import_files(GIVEN, IMAGE, TOMOGRAM, PIXEL, 8.0)
    (folder / "TS_01.xf").write_text(xf_text(files.transforms))
    (folder / "TS_01.tlt").write_text(tlt_text(files.angles_deg, decimals=4))
    return folder


def import_alignments(*more: str) -> int:
    return main(["ts_import_alignments", "--settings", "s.settings", "--alignments", "given",
                 "--alignment_angpix", "8", *more])  # fmt: skip


@pytest.mark.parametrize("place", ["TS_01.xf", "TS_01_Imod/TS_01_st.xf", "../TS_01.xf"])
def test_an_alignment_is_what_it_was_wherever_it_lies(imported: Path, place: str) -> None:
    (imported / place).parent.mkdir(exist_ok=True)
    (imported / "TS_01.xf").rename(imported / place)
    assert import_alignments() == 0
    series = read_warp_tilt_series(Path("p/TS_01.xml"))
    found = warp_alignments(series, IMAGE, TOMOGRAM, PIXEL)
    for number, given in enumerate(GIVEN):
        one = found[str(number)]
        assert isinstance(one, TiltAlignment)
        for name, value in vars(given).items():
            assert getattr(one, name) == pytest.approx(value, abs=0.02), name


def test_angles_that_do_not_fit_are_passed_over(imported: Path) -> None:
    (imported / "TS_01.tlt").write_text(tlt_text([0.0, 0.0, 0.0]))
    assert import_alignments() == 0
    assert [tilt.angle_deg for tilt in read_warp_tilt_series(Path("p/TS_01.xml")).used] == [
        3,
        0,
        -3,
    ]


def test_tilts_that_leave_the_field_of_view_are_not_used(imported: Path) -> None:
    assert import_alignments("--min_fov", "0.75") == 0
    series = read_warp_tilt_series(Path("p/TS_01.xml"))
    assert [tilt.name for tilt in series.used] == ["1"]


@pytest.mark.parametrize("lines", [None, 2])
def test_a_series_without_a_fitting_alignment_has_failed(imported: Path, lines: int | None) -> None:
    path = imported / "TS_01.xf"
    text = path.read_text().splitlines(keepends=True)
    path.unlink()
    if lines is not None:
        path.write_text("".join(text[:lines]))
    assert import_alignments() == 1  # all items failed; with one more it would be 0
    assert read_warp_tilt_series(Path("p/TS_01.xml")).deselected
