"""docs/jobs.md is what the models, the catalogue and the builders say; pictures are small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crboost.catalogue import CATALOGUE
from crboost.docs import jobs_page
from crboost.parameters import JOB_MODELS
from crboost.stages import STAGES

FILE = Path(__file__).parents[1] / "docs" / "jobs.md"
PAGE = jobs_page()


def section(job_type: str) -> str:
    found = re.search(rf"^## {job_type}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == PAGE, "python -m crboost.docs > docs/jobs.md"


def test_the_command_makes_it_whatever_the_locale() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "crboost.docs"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONHASHSEED": "7"},
        check=True,
    )
    assert made.stdout.decode() == PAGE


@pytest.mark.parametrize("job_type", CATALOGUE)
def test_every_parameter_is_there_with_its_default_and_bounds(job_type: str) -> None:
    text = section(job_type)
    for name in JOB_MODELS[job_type].model_fields:
        assert f"\n| `{name}` | " in text
    for node in CATALOGUE[job_type].outputs:
        assert f"`{node.file}`" in text


@pytest.mark.parametrize(("job_type", "tool"), STAGES)
def test_every_tool_of_a_job_has_its_commands(job_type: str, tool: str) -> None:
    assert re.search(rf"^(Commands with|With) {tool}\b", section(job_type), re.MULTILINE)


def test_it_names_no_path_of_this_machine() -> None:
    assert str(Path(sys.prefix)) not in PAGE
    assert "/project" not in PAGE
    assert sys.executable not in PAGE


def test_a_row() -> None:
    row = "| `angular_search` | ° | 0.5 to 90 | 12 |  | Largest step between orientations. |"
    assert row in section("templateMatching")


def test_pictures_are_shown_and_small() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in FILE.parent.glob("*.md"))
    pictures = list((FILE.parent / "pictures").iterdir())
    assert {"run-running.png", "run-done.png", "deployment-form.png"} <= {p.name for p in pictures}
    for picture in pictures:
        assert f"](pictures/{picture.name})" in pages
        assert picture.stat().st_size < 100_000
