"""Every dependency has its line, with its reason, in docs/dependencies.md."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {"test": "## For tests", "dev": "## For development"}


def names(requirements: list[str]) -> set[str]:
    """Package names of requirement strings, without extras and versions."""
    return {re.split(r"[^A-Za-z0-9_-]", requirement, maxsplit=1)[0] for requirement in requirements}


def documented(heading: str) -> set[str]:
    """First-column names of the table under `heading`."""
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    section = text.split(heading, 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return {row for row in rows if row != "package" and not row.startswith("---")}


@pytest.mark.parametrize("group", ["run", "test", "dev"])
def test_each_dependency_is_documented(group: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = names(
        project["dependencies"] if group == "run" else project["optional-dependencies"][group]
    )
    assert documented(SECTIONS.get(group, "## At run time")) == required
