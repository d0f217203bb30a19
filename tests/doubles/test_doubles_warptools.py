"""The double of WarpTools has the real one's bad manners."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

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
