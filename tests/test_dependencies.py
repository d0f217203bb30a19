"""Every dependency has its line, with its reason, in docs/dependencies.md."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {"test": "## For tests", "dev": "## For development"}


#: Import name -> package name, where they differ.
PACKAGES = {"PIL": "pillow", "pydantic_core": "pydantic"}
#: Declared, but never imported: fastapi and sqlalchemy for their bounds (Prefect's server breaks
#: with others), imagecodecs because tifffile reads LZW and EER with it.
NOT_IMPORTED = {"fastapi", "sqlalchemy", "imagecodecs"}


def names(requirements: list[str]) -> set[str]:
    """Package names of requirement strings, without extras and versions."""
    return {re.split(r"[^A-Za-z0-9_-]", requirement, maxsplit=1)[0] for requirement in requirements}


def declared(group: str) -> set[str]:
    """What `pyproject.toml` requires at run time, for tests or for development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return names(
        project["dependencies"] if group == "run" else project["optional-dependencies"][group]
    )


def imports(source: Path) -> set[str]:
    """Top-level names of every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def documented(heading: str) -> set[str]:
    """First-column names of the table under `heading`."""
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    section = text.split(heading, 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return {row for row in rows if row != "package" and not row.startswith("---")}


@pytest.mark.parametrize("group", ["run", "test", "dev"])
def test_each_dependency_is_documented(group: str) -> None:
    assert documented(SECTIONS.get(group, "## At run time")) == declared(group)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    imported = {
        PACKAGES.get(name, name.replace("_", "-"))
        for source in [*(ROOT / "crboost").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]
        for name in imports(source) - sys.stdlib_module_names - {"crboost", "flows"}
    }
    assert imported == declared("run") - NOT_IMPORTED
