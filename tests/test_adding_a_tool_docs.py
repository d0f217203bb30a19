"""docs/adding-a-tool.md names files and things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "adding-a-tool.md").read_text(encoding="utf-8")
FILES = sorted(set(re.findall(r"`((?:crboost|tests|containers|docs)/[\w/.\-]+)`", TEXT)))
SHORT = sorted(set(re.findall(r"`((?:parameters|stages|builders)/[\w/.]+\.py)`", TEXT)))
NAMES = ["MembraneSegmentation", "MEMBRANE_SEGMENTATION", "MembrainSegment", "NO_GPU", "FromStar",
         "DatasetStage", "FinishingStage", "inputs_with", "other_inputs", "KNOWN_TOOLS",
         "crboostTomoMembraneSegmentation", "_MODELS", "_window"]  # fmt: skip


@pytest.mark.parametrize("name", [*FILES, *(f"crboost/{one}" for one in SHORT)])
def test_files_exist(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", NAMES)
def test_names_exist(name: str) -> None:
    assert name in TEXT
    source = "".join(path.read_text() for path in (ROOT / "crboost").rglob("*.py"))
    assert re.search(rf"\b{name}\b", source)


@pytest.mark.parametrize("link", re.findall(r"\]\((\w[\w.-]*\.md)\)", TEXT))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).is_file()
