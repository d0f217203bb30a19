"""The JSON schema and the table of parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

from crboost.parameters import JOB_MODELS, ProjectParameters, describe, json_schema

PROJECT = ProjectParameters.new("demo", datetime(2026, 5, 1, tzinfo=UTC))


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    return set()


def test_the_schema_has_bounds_units_and_every_job_type() -> None:
    schema = json_schema()
    pixel = schema["$defs"]["Microscope"]["properties"]["pixel_size_angstrom"]
    assert (pixel["minimum"], pixel["maximum"], pixel["unit"]) == (0.5, 10, "Å")
    jobs = schema["properties"]["jobs"]
    assert list(jobs["properties"]) == list(JOB_MODELS)
    alignment = schema["$defs"]["TsAlignment"]["properties"]
    assert alignment["patch_x"]["tools"] == ["warp", "aretomo2", "aretomo3"]
    assert alignment["patch_x"]["methods"] == ["aretomo2", "aretomo3"]
    assert alignment["sample_thickness_nm"]["follows"] == ["acquisition.sample_thickness_nm"]
    json.dumps(schema)


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    targets = {f"#/$defs/{name}" for name in schema["$defs"]}
    assert references(schema) <= targets
    assert targets <= references(schema)


def test_the_table_has_every_parameter_once() -> None:
    rows = describe(PROJECT)
    assert [row.path for row in rows] == PROJECT.paths()


def test_a_row_tells_value_unit_bounds_origin_and_what_is_followed() -> None:
    changed = PROJECT.with_values({"microscope.pixel_size_angstrom": 1.7}, source="mdoc")
    rows = {row.path: row for row in describe(changed)}
    pixel = rows["microscope.pixel_size_angstrom"]
    assert (pixel.value, pixel.default, pixel.unit) == (1.7, 1.35, "Å")
    assert (pixel.bounds, pixel.origin.source) == ("0.5 to 10 Å", "mdoc")
    tomogram = rows["jobs.tsReconstruct.rescale_angpixs"]
    assert (tomogram.value, tomogram.effective, tomogram.origin.source) == (None, 6.8, "mdoc")
    mode = rows["jobs.tsAlignment.alignment_mode"]
    assert mode.choices == ("auto", "coarse", "beads")
    assert not rows["jobs.tsAlignment.patch_x"].used
    assert rows["jobs.tsAlignment.perdevice"].resource


def test_importing_the_parameters_loads_nothing_heavy() -> None:
    heavy = "numpy pandas scipy matplotlib starfile prefect difflib"
    code = (
        "import sys, crboost.parameters;"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
