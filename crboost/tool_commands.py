"""How the tools' commands are run where a job runs: natively, or in their containers."""

from __future__ import annotations

import os
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
from crboost.settings import Settings

#: The installation as a run froze it, beside the run's parameters.
SETTINGS_FILE = "settings.json"


class ToolCommands:
    """The commands of one job's tools on this machine.

    Args:
        project: project directory, absolute.
        settings: the installation; None runs everything natively.
    """

    def __init__(self, project: Path, settings: Settings | None) -> None:
        self._project = project
        self._settings = settings
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

    def command(self, tool: str, step: Step) -> list[str]:
        """The argv that runs a step."""
        settings = self._in_container(tool)
        if settings is None:
            return list(step.argv)
        if self._binds is None:
            self._binds = real_locations(self._project)
        inside = {**allowed_environment(os.environ, settings.containers), **step.environment}
        return wrap(
            step.argv,
            tool,
            settings,
            cwd=self._project,
            binds=self._binds,
            environment=inside,
        )


def frozen_settings(snapshot: Path) -> Settings | None:
    """The installation as the run froze it beside the parameters."""
    path = snapshot.parent / SETTINGS_FILE
    return Settings.model_validate(read_json(path)) if path.is_file() else None
