"""Doctor asks an image for a tool's programs and version; the image is RELION's, real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from testbed.fixtures import RelionImage

from crboost.doctor.programs import (
    HELPERS,
    PACKAGES,
    PROGRAMS,
    is_known,
    known_versions,
    version_question,
)
from crboost.doctor.tools import ToolFacts, ask_tool, judge_helpers, judge_tool
from crboost.parameters import JOB_MODELS, field_facts
from crboost.scheduler.ask import NOT_FOUND, Answer
from crboost.settings import KNOWN_TOOLS, Settings

IMAGE = Path("/images/x.sif")
OK = Answer(0, "", "")


def there(tool: str, version: str, declared: str | None = None, **helpers: Answer) -> ToolFacts:
    """A tool whose programs are all there."""
    found = {program.name: Answer(0, f"/opt/{program.name}\n", "") for program in PROGRAMS[tool]}
    told = Answer(0, f"{version}\n", "")
    return ToolFacts(tool, IMAGE, "", OK, found, declared, told, helpers)


@pytest.mark.parametrize("tool", KNOWN_TOOLS)
def test_the_programs_of_every_tool_are_known(tool: str) -> None:
    assert PROGRAMS[tool]
    if tool in PACKAGES:
        assert version_question(tool, "p") is not None
        assert known_versions(tool)


def test_every_tool_of_a_job_is_one_that_doctor_knows() -> None:
    tools = {one for model in JOB_MODELS.values() for one in field_facts(model, "tool").choices}
    assert tools <= set(PROGRAMS)


@pytest.mark.parametrize(
    ("tool", "version", "fine"),
    [
        ("warp", "2.0.0dev29", True),
        ("warp", "2.0.0dev34", True),
        ("warp", "2.0.0dev39", True),
        ("warp", "2.0.0dev12", False),
        ("warp", "2.0.0dev77", False),
        ("warp", "1.0.9", False),
        ("pytom", "0.13.0", True),
        ("pytom", "0.9.0", False),
        ("pytom", "0.14.0", False),
        ("cryocare", "0.3.0", True),
        ("membrain", "0.0.8", False),
        ("aretomo2", "1.1.3", True),
        ("imod", "5.1.12", True),
    ],
)
def test_versions_that_the_commands_were_made_for(tool: str, version: str, fine: bool) -> None:
    assert is_known(tool, version) is fine
    finding = judge_tool(there(tool, version, declared=version))
    assert finding.status == ("ok" if fine else "warning"), finding
    assert version in finding.found


def test_warp_needs_its_version_in_the_settings() -> None:
    finding = judge_tool(there("warp", "2.0.0dev36"))
    assert (finding.status, finding.fix) == ("warning", 'tools.warp.version = "2.0.0dev36"')
    wrong = judge_tool(there("warp", "2.0.0dev36", declared="2.0.0dev29"))
    assert (wrong.status, "2.0.0dev29" in wrong.found) == ("warning", True)


def test_all_programs_that_are_absent_are_named() -> None:
    answers = {one.name: Answer(NOT_FOUND, "", "not found") for one in PROGRAMS["cryocare"]}
    finding = judge_tool(ToolFacts("cryocare", IMAGE, "", OK, answers))
    assert finding.status == "failed"
    assert all(one.name in finding.found for one in PROGRAMS["cryocare"])


def test_bug_16_what_warp_calls_is_looked_for_in_warps_image() -> None:
    """B16: an image with Warp and without IMOD let alignment with IMOD fail hours later."""
    answers = dict.fromkeys(HELPERS["warp"], OK) | {
        "batchruntomo": Answer(127, "", ""),
        "submfg": Answer(127, "", ""),
    }
    (finding,) = judge_helpers(there("warp", "2.0.0dev36", **answers))
    assert (finding.check, finding.status) == ("tools.warp.calls", "warning")
    assert "batchruntomo, submfg cannot be found" in finding.found
    assert finding.found.count("etomo_patches and etomo_fiducials") == 1
    (fine,) = judge_helpers(there("warp", "2.0.0dev36", **dict.fromkeys(HELPERS["warp"], OK)))
    assert fine.status == "ok"


def site(image: RelionImage, tool: str, **values: Any) -> Settings:
    return Settings.model_validate(
        {
            "containers": {"executable": str(image.apptainer.command)},
            "tools": {tool: {"image": str(image.image), **values}},
        }
    )


@pytest.mark.relion
def test_relion_answers(relion_sif: RelionImage) -> None:
    finding = judge_tool(ask_tool("relion", site(relion_sif, "relion"), {}))
    assert finding.status == "ok"
    assert finding.found.startswith("relion 5.")


@pytest.mark.relion
@pytest.mark.parametrize("tool", ["warp", "aretomo3", "imod", "cryocare", "pytom", "membrain"])
def test_an_image_without_the_tool(relion_sif: RelionImage, tool: str) -> None:
    facts = ask_tool(tool, site(relion_sif, tool), {})
    finding = judge_tool(facts)
    assert (finding.check, finding.status) == (f"tools.{tool}", "failed")
    assert f"{PROGRAMS[tool][0].name} cannot be found" in finding.found
    assert str(relion_sif.image) in finding.found
    assert "take an image that has it" in finding.fix
    assert judge_helpers(facts) == []


@pytest.mark.relion
@pytest.mark.parametrize(("version", "status"), [("0.13.0", "ok"), ("0.14.0", "warning")])
def test_a_python_tool_tells_the_version_of_its_package(
    relion_sif: RelionImage, tmp_path: Path, version: str, status: str
) -> None:
    """Programs that would not start: nothing but their package is asked."""
    for program in PROGRAMS["pytom"]:
        path = tmp_path / program.name
        path.write_text("#!/usr/bin/env python3\nraise SystemExit('no CUDA driver')\n")
        path.chmod(0o755)
    package = tmp_path / "packages" / "pytom_match_pick-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text(f"Name: pytom-match-pick\nVersion: {version}\n")
    settings = site(
        relion_sif,
        "pytom",
        binds=[{"source": str(tmp_path), "destination": "/usr/local/sbin"}],
        environment={"PYTHONPATH": "/usr/local/sbin/packages"},
    )
    finding = judge_tool(ask_tool("pytom", settings, {}))
    assert (finding.status, f"pytom {version}" in finding.found) == (status, True), finding


@pytest.mark.relion
def test_the_release_of_warp_is_that_of_its_conda_package(
    relion_sif: RelionImage, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("WarpTools", "AreTomo2"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta" / "warp-2.0.0dev36-py311_0.json").write_text("{}")
    settings = site(
        relion_sif,
        "warp",
        version="2.0.0dev36",
        binds=[{"source": str(tmp_path), "destination": "/usr/local"}],
    )
    facts = ask_tool("warp", settings, {})
    finding = judge_tool(facts)
    assert finding.status == "ok", finding
    assert finding.found.startswith("warp 2.0.0dev36 ")
    (helpers,) = judge_helpers(facts)
    assert helpers.found.startswith("AreTomo3, batchruntomo, submfg cannot be found")
