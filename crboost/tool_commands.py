"""How the tools' commands are run where a job runs: natively, or in their containers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from crboost.builders.step import Step
from crboost.containers import (
    allowed_environment,
    check_image,
    image_digest,
    real_locations,
    wrap,
)
from crboost.files import read_json
from crboost.parameters import JobParameters, read_parameters
from crboost.settings import Settings

#: The installation as a run froze it, beside the run's parameters.
SETTINGS_FILE = "settings.json"

#: The program of each tool that a site may have under another name or path.
MAIN_PROGRAMS = {"warp": "WarpTools", "aretomo2": "AreTomo2", "aretomo3": "AreTomo3"}


class ToolCommands:
    """The commands of one job's tools on this machine.

    Args:
        project: project directory, absolute.
        settings: the installation; None runs everything natively.
        files: what the job's parameters name (`EffectiveParameters.files`): its containers see it,
            wherever it is.
    """

    def __init__(self, project: Path, settings: Settings | None, files: Iterable[str]) -> None:
        self._project = project
        self._settings = settings
        self._files = tuple(Path(file) for file in files)
        self._binds: list[Path] | None = None

    def _in_container(self, tool: str) -> Settings | None:
        """The settings, if this tool comes as an image."""
        settings = self._settings
        if settings is None or tool not in settings.tools:
            return None
        if settings.tools[tool].image is None or settings.containers.engine == "none":
            return None
        return settings

    def image_of(self, tool: str) -> dict[str, str] | None:
        """Path and digest of the tool's image; None if it runs natively.

        Raises:
            CrboostError: there is no such image, or nothing that runs it.
        """
        settings = self._in_container(tool)
        if settings is None:
            return None
        image = check_image(tool, settings)
        assert image is not None
        digest = image_digest(image, self._project / ".crboost" / "images.json")
        return {"path": str(image), "digest": digest}

    def command(self, job: JobParameters, step: Step) -> list[str]:
        """The argv that runs a step of a job."""
        tool = step.tool or job.tool
        argv = self._with_executable(tool, step.argv)
        settings = self._in_container(tool)
        if settings is None:
            return argv
        if self._binds is None:
            self._binds = real_locations(self._project, others=self._files)
        inside = {**allowed_environment(os.environ, settings.containers), **step.environment}
        return wrap(
            argv,
            tool,
            settings,
            cwd=self._project / step.directory,
            binds=self._binds,
            gpus=bool(getattr(job, "use_gpu", False)),
            environment=inside,
        )

    def _with_executable(self, tool: str, argv: tuple[str, ...]) -> list[str]:
        """`argv` with the program that the settings name, where it is the tool's main one."""
        where = self._settings.tools.get(tool) if self._settings is not None else None
        if where is None or not where.executable or argv[0] != MAIN_PROGRAMS.get(tool):
            return list(argv)
        return [where.executable, *argv[1:]]


def frozen_files(snapshot: Path) -> tuple[str, ...]:
    """The files that the parameters of a run name; none for a scheme that is no run."""
    return read_parameters(snapshot).files() if snapshot.is_file() else ()


def frozen_settings(snapshot: Path) -> Settings | None:
    """The installation as the run froze it beside the parameters."""
    path = snapshot.parent / SETTINGS_FILE
    return Settings.model_validate(read_json(path)) if path.is_file() else None
