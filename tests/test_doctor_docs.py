"""docs/cluster.md says nothing that is not so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from crboost.doctor.site import sort_variables
from crboost.settings import DEFAULT_EXTRA, Settings

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SUBJECTS = "python|prefect|settings|containers|tools|project|scheduler|trial"


@pytest.mark.parametrize("block", TOML)
def test_settings_are_allowed(block: str) -> None:
    Settings.model_validate(tomllib.loads(block))


def test_the_whole_file_uses_all_that_was_shown() -> None:
    whole = tomllib.loads(TOML[-1])
    assert whole["scheduler"]["extra"] == [*DEFAULT_EXTRA["slurm"], "account"]
    assert whole["scheduler"]["jobs"] == tomllib.loads(TOML[1])["scheduler"]["jobs"]


def test_points_of_doctor_exist() -> None:
    """A name such as `trial.locks` is one that doctor prints, or a setting."""
    source = "".join(path.read_text() for path in (ROOT / "crboost" / "doctor").glob("*.py"))
    prefixes = ('f"tools.', 'f"scheduler.', 'f"trial.')
    assert all(prefix in source for prefix in prefixes)
    made = {"tools.relion", "scheduler.template", "trial.driver", "trial.relion"}
    settings = {"containers.environment", "containers.executable", "containers.binds",
                "scheduler.coordinator.gpus", "scheduler.defaults", "scheduler.extra",
                "tools.ctffind.executable"}  # fmt: skip
    named = set(re.findall(rf"`((?:{SUBJECTS})\.[a-z_.]+)`", TEXT))
    assert {"trial.locks", "scheduler.from_container"} <= named
    absent = {name for name in named - made - settings if f'"{name}"' not in source}
    assert absent == set()


def test_variables_are_settings() -> None:
    named = set(re.findall(r"CRBOOST_[A-Z_]+", TEXT)) - {"CRBOOST_SETTINGS"}
    ours, _ = sort_variables(dict.fromkeys(named, ""))
    assert set(ours) == named


@pytest.mark.parametrize("kind", ["Slurm", "PBS", "Grid Engine", "LSF"])
def test_fields_of_templates(kind: str) -> None:
    (row,) = re.findall(rf"^\| {kind} \| (.*) \|$", TEXT, re.MULTILINE)
    fields = [cell.strip().removesuffix(" (queue)") for cell in row.split("|") if cell.strip()]
    name = {"Grid Engine": "sge"}.get(kind, kind.lower())
    assert tuple(fields) == DEFAULT_EXTRA[name]  # type: ignore[index]
