"""The double of WarpTools has the real one's bad manners."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_missing_files_end_with_an_error(tmp_path: Path) -> None:
    ended = warptools(tmp_path, "ts_ctf", "--settings", "absent.settings")
    assert ended.returncode != 0
