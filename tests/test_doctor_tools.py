"""What doctor makes of tools and containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crboost.doctor.tools import (
    ToolFacts,
    ask_ctffind,
    ask_tool,
    engine_version,
    judge_binds,
    judge_container_engine,
    judge_ctffind,
    judge_tool,
    missing_binds,
    programs_of,
)
from crboost.scheduler.ask import NOT_FOUND, TIMED_OUT, Answer
from crboost.settings import KNOWN_TOOLS, Settings

IMAGE = Path("/images/relion.sif")
RELION = Answer(0, "RELION version: 5.1.0 \nPrecision: BASE=double\n", "")
OK = Answer(0, "", "")


def site(**values: Any) -> Settings:
    """Settings."""
    return Settings.model_validate(values)


def program(directory: Path, name: str, text: str) -> str:
    """An executable shell script."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_every_tool_of_the_settings_is_known() -> None:
    for name in KNOWN_TOOLS:
        assert programs_of(name, "/x/y")[0].name == "/x/y"


def test_a_tool_that_answers() -> None:
    facts = ToolFacts("relion", IMAGE, "", OK, {"relion_schemer": RELION})
    finding = judge_tool(facts)
    assert (finding.status, finding.found) == ("ok", f"relion 5.1.0 ({IMAGE})")


@pytest.mark.parametrize(
    ("starts", "answer", "found", "fix"),
    [
        (Answer(255, "", "FATAL: mount /x: no such file"), None, "FATAL: mount /x", "bind"),
        (OK, Answer(NOT_FOUND, "", "not found"), "relion_schemer cannot be found", "executable"),
        (OK, Answer(TIMED_OUT, "", ""), "no answer within 60 s", "executable"),
        (OK, Answer(-11, "", ""), "signal 11", "executable"),
        (OK, Answer(0, "RELION version: 4.0.1", ""), "relion 4.0.1", "RELION 5"),
    ],
)
def test_a_tool_that_does_not(starts: Answer, answer: Answer | None, found: str, fix: str) -> None:
    answers = {"relion_schemer": answer} if answer is not None else {}
    finding = judge_tool(ToolFacts("relion", IMAGE, "", starts, answers))
    assert (finding.check, finding.status) == ("tools.relion", "failed")
    assert found in finding.found
    assert fix in finding.fix


def test_another_version_than_the_settings_say() -> None:
    facts = ToolFacts("relion", IMAGE, "", OK, {"relion_schemer": RELION}, declared="5.0")
    assert judge_tool(facts).status == "warning"


@pytest.mark.parametrize(
    ("version", "status"),
    [
        *(("5.0", "ok"), ("5.0.1-commit-d476e6", "ok"), ("5.1.0", "ok")),
        *(("5.10.0", "warning"), ("5.2.0", "warning"), ("6.0", "warning")),
    ],
)
def test_relions_whose_job_options_are_known(version: str, status: str) -> None:
    said = Answer(0, f"RELION version: {version}", "")
    finding = judge_tool(ToolFacts("relion", IMAGE, "", OK, {"relion_schemer": said}))
    assert finding.status == status
    assert status == "ok" or "made for 5.0, 5.1" in finding.found


def test_native_tools(tmp_path: Path) -> None:
    schemer = program(tmp_path, "relion_schemer", 'echo "RELION version: 5.1.0"')
    settings = site(tools={"relion": {"executable": schemer}, "imod": {"executable": "/no/imod"}})
    imod = judge_tool(ask_tool("imod", settings, {}))
    assert (imod.status, "/no/imod cannot be found" in imod.found) == ("failed", True)
    # Its relion_refine is nowhere: jobs might find it through a module, or not at all.
    facts = ask_tool("relion", settings, {})
    assert judge_tool(facts, modules=True).status == "warning"
    assert judge_tool(facts).status == "failed"


def test_an_image_that_is_not_there() -> None:
    settings = site(tools={"relion": {"image": "/no/relion.sif"}})
    finding = judge_tool(ask_tool("relion", settings, {}))
    assert (finding.status, "no such image" in finding.found) == ("failed", True)
    assert "tools.relion.image" in finding.fix


def test_container_engine(tmp_path: Path) -> None:
    fine = program(tmp_path, "apptainer", 'echo "apptainer version 1.4.5"')
    settings = site(containers={"executable": fine})
    assert "version 1.4.5" in judge_container_engine(settings, engine_version(settings)).found
    absent = site(containers={"executable": "/no/apptainer"})
    finding = judge_container_engine(absent, engine_version(absent))
    assert (finding.status, "containers.executable" in finding.fix) == ("failed", True)


def test_binds(tmp_path: Path) -> None:
    settings = site(
        containers={"binds": [str(tmp_path), "/no/scratch"]},
        tools={"imod": {"executable": "x", "binds": [{"source": "/no/imod", "read_only": True}]}},
    )
    missing = missing_binds(settings)
    assert missing == [
        ("containers.binds", Path("/no/scratch")),
        ("tools.imod.binds", Path("/no/imod")),
    ]
    (finding,) = judge_binds(missing, True)
    assert (finding.status, "tools.imod.binds: /no/imod" in finding.found) == ("failed", True)
    assert judge_binds([], False) == []


def test_ctffind(tmp_path: Path) -> None:
    native = {"executable": "relion_schemer"}
    there = site(tools={"relion": native, "ctffind": {"executable": program(tmp_path, "c", "")}})
    assert judge_ctffind(there, ask_ctffind(there, {})).status == "ok"
    absent = site(tools={"relion": native, "ctffind": {"executable": "/no/ctffind"}})
    assert judge_ctffind(absent, ask_ctffind(absent, {})).status == "failed"
    unnamed = judge_ctffind(site(tools={"relion": native}), Answer(NOT_FOUND, "", "not found"))
    assert (unnamed.status, "ctfFind" in unnamed.found) == ("warning", True)
