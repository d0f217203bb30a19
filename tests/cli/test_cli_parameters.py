"""crboost set, parameters, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crboost.cli.parameters import text_of

if TYPE_CHECKING:
    from conftest import Crboost


def test_set_shows_what_was_and_what_is(crboost: Crboost, project: Path) -> None:
    done = crboost(
        "set", project, "microscope.pixel_size_angstrom=1.35", "jobs.tsAlignment.patch_x=4"
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["microscope.pixel_size_angstrom", "4", "1.35", "Å"] in lines
    stored = json.loads((project / "project_params.json").read_text())
    assert stored["microscope"]["pixel_size_angstrom"] == 1.35
    assert stored["jobs"]["tsAlignment"]["patch_x"] == 4
    assert stored["origins"]["microscope.pixel_size_angstrom"]["source"] == "user"


def test_all_changes_are_made_or_none(crboost: Crboost, project: Path) -> None:
    before = (project / "project_params.json").read_bytes()
    done = crboost(
        "set", project, "microscope.amplitude_contrast=0.07", "microscope.pixel_size_angstrom=-3"
    )
    assert done.returncode == 2
    assert "microscope.pixel_size_angstrom = -3 Å: must be at least 0.5 Å" in done.stderr
    assert (project / "project_params.json").read_bytes() == before


def test_a_misspelt_name_gets_a_suggestion(crboost: Crboost, project: Path) -> None:
    done = crboost("set", project, "microscope.pixelsize_angstrom=1")
    assert done.returncode == 2
    assert "did you mean pixel_size_angstrom?" in done.stderr


def test_a_file_edited_by_hand_is_checked(crboost: Crboost, project: Path) -> None:
    file = project / "project_params.json"
    stored = json.loads(file.read_text())
    stored["microscope"]["acceleration_voltage_kv"] = "many"
    file.write_text(json.dumps(stored))
    done = crboost("plan", project)
    assert done.returncode == 2
    assert "microscope.acceleration_voltage_kv" in done.stderr
    assert "Traceback" not in done.stderr


def test_parameters_tell_where_each_value_came_from(crboost: Crboost, project: Path) -> None:
    crboost("set", project, "acquisition.sample_thickness_nm=150")
    done = crboost("parameters", project)
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if "." in line}
    assert "mdoc (TS_01.mdoc" in lines["microscope.pixel_size_angstrom"]
    assert "user (crboost set)" in lines["acquisition.sample_thickness_nm"]
    assert lines["microscope.spherical_aberration_mm"].split()[1:] == ["2.7", "mm", "default"]
    assert "\x1b" not in done.stdout


def test_parameters_of_one_part_and_all(crboost: Crboost, project: Path) -> None:
    part = crboost("parameters", project, "tsalignment").stdout.splitlines()[1:]
    assert part
    assert all(line.startswith("jobs.tsAlignment.") for line in part)
    everything = crboost("parameters", project, "--all").stdout.splitlines()
    as_json = json.loads(crboost("parameters", project, "--json").stdout)
    assert len(as_json) == len(everything) - 1
    assert {"path", "value", "effective", "unit", "origin"} <= set(as_json[0])


def test_the_schema_is_json_schema(crboost: Crboost) -> None:
    schema = json.loads(crboost("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "microscope" in schema["properties"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"), (True, "true"), (4.0, "4"), (1.35, "1.35"), ((512, 512), "512 512"),
        ("cpu", "cpu"), (["x" * 50, "y" * 50], "2 values"),
    ],
)  # fmt: skip
def test_values_are_shown_as_they_are_typed(value: object, text: str) -> None:
    assert text_of(value) == text
