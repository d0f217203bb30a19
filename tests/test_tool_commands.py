"""The argv of a step on a machine: in a container, natively, with the site's own program."""

from __future__ import annotations

from pathlib import Path

from crboost.builders.step import Step
from crboost.parameters import TsAlignment
from crboost.settings import Settings
from crboost.tool_commands import ToolCommands

DIRECTORY = "External/job004/aretomo2/TS_01"


def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "tools": {
                "aretomo2": {"executable": "/opt/AreTomo2_1.1.2_Cuda112"},
                "imod": {"image": str(tmp_path / "imod.sif")},
            }
        }
    )


def test_a_step_runs_in_its_own_directory_and_tool(tmp_path: Path) -> None:
    tools = ToolCommands(tmp_path, settings(tmp_path))
    job = TsAlignment(tool="aretomo2")
    stack = Step("stack", ("newstack", "a.mrc", "x.st"), directory=DIRECTORY, tool="imod")
    argv = tools.command(job, stack)
    assert argv[:2] == ["apptainer", "exec"]
    assert argv[argv.index("--pwd") + 1] == str(tmp_path / DIRECTORY)
    assert argv[-4:] == [str(tmp_path / "imod.sif"), "newstack", "a.mrc", "x.st"]
    assert "--nv" in argv


def test_the_sites_own_program_is_called(tmp_path: Path) -> None:
    tools = ToolCommands(tmp_path, settings(tmp_path))
    job = TsAlignment(tool="aretomo2")
    step = Step("align", ("AreTomo2", "-InMrc", "x.st"))
    assert tools.command(job, step) == ["/opt/AreTomo2_1.1.2_Cuda112", "-InMrc", "x.st"]
    assert ToolCommands(tmp_path, None).command(job, step) == ["AreTomo2", "-InMrc", "x.st"]


def test_a_job_without_gpus_gets_none(tmp_path: Path) -> None:
    tools = ToolCommands(tmp_path, settings(tmp_path))
    step = Step("align", ("batchruntomo",))
    assert "--nv" not in tools.command(TsAlignment(tool="imod"), step)
