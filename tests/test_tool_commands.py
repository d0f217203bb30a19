"""A step on a machine: in a container, natively, with the site's own program."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crboost.builders.step import Step
from crboost.parameters import FsMotionAndCtf, ProjectParameters, TsAlignment, write_parameters
from crboost.settings import Settings
from crboost.tool_commands import ToolCommands, frozen_files

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
    tools = ToolCommands(tmp_path, settings(tmp_path), ())
    job = TsAlignment(tool="aretomo2")
    stack = Step("stack", ("newstack", "a.mrc", "x.st"), directory=DIRECTORY, tool="imod")
    argv = tools.command(job, stack)
    assert argv[:2] == ["apptainer", "exec"]
    assert argv[argv.index("--pwd") + 1] == str(tmp_path / DIRECTORY)
    assert argv[-4:] == [str(tmp_path / "imod.sif"), "newstack", "a.mrc", "x.st"]
    assert "--nv" in argv


def test_the_sites_own_program_is_called(tmp_path: Path) -> None:
    tools = ToolCommands(tmp_path, settings(tmp_path), ())
    job = TsAlignment(tool="aretomo2")
    step = Step("align", ("AreTomo2", "-InMrc", "x.st"))
    assert tools.command(job, step) == ["/opt/AreTomo2_1.1.2_Cuda112", "-InMrc", "x.st"]
    assert ToolCommands(tmp_path, None, ()).command(job, step) == ["AreTomo2", "-InMrc", "x.st"]


def test_a_job_without_gpus_gets_none(tmp_path: Path) -> None:
    tools = ToolCommands(tmp_path, settings(tmp_path), ())
    step = Step("align", ("batchruntomo",))
    assert "--nv" not in tools.command(TsAlignment(tool="imod"), step)


def with_gain(gain: Path) -> ProjectParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    return new.with_values({"data.gain_reference": str(gain)})


def test_a_runs_files_are_those_of_its_parameters(tmp_path: Path) -> None:
    write_parameters(tmp_path / "frozen.json", with_gain(Path("/refs/gain.mrc")))
    assert frozen_files(tmp_path / "frozen.json") == ("/refs/gain.mrc",)
    assert frozen_files(tmp_path / "none.json") == ()


@pytest.mark.relion
def test_a_gain_reference_elsewhere_is_seen_in_the_container(
    tmp_path: Path, relion_sif: Any
) -> None:
    """In the real one, without the directory for temporary files that it shows by itself."""
    for name in ("disk", "by_name", "project"):
        (tmp_path / name).mkdir()
    (tmp_path / "disk" / "gain.mrc").write_text("the gain")
    gain = tmp_path / "by_name" / "newest.mrc"
    gain.symlink_to(tmp_path / "disk" / "gain.mrc")
    site = Settings.model_validate(
        {
            "containers": {
                "executable": str(relion_sif.apptainer.command),
                "extra_args": ["--contain"],
            },
            "tools": {"cpu": {"image": str(relion_sif.image)}},
        }
    )
    effective = with_gain(gain).effective("fsMotionAndCtf")
    step = Step("read", ("cat", str(gain)))

    def read(files: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        argv = ToolCommands(tmp_path / "project", site, files).command(FsMotionAndCtf(), step)
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    assert read(()).returncode != 0
    assert read(effective.files()).stdout == "the gain"
