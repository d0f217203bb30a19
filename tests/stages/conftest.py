"""Tools that need a GPU, stood in for by small programs with the same options and files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

STANDINS = Path(__file__).parent / "standins"

PROGRAMS = {
    "pytom_match_template.py": "pytom_standin.py",
    "pytom_extract_candidates.py": "pytom_standin.py",
    "cryoCARE_extract_train_data.py": "cryocare_standin.py",
    "cryoCARE_train.py": "cryocare_standin.py",
    "cryoCARE_predict.py": "cryocare_standin.py",
}


@pytest.fixture(scope="module")
def tools_on_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the stand-ins under the programs' names; put first on PATH."""
    directory = tmp_path_factory.mktemp("bin")
    for program, source in PROGRAMS.items():
        text = (STANDINS / source).read_text(encoding="utf-8").partition("\n")[2]
        path = directory / program
        path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
        path.chmod(0o755)
    return directory
