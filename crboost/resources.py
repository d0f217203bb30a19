"""Files that come with crboost: templates, deployments, examples, container recipes."""

from __future__ import annotations

from pathlib import Path

from crboost.errors import CrboostError


def resource_directory(name: str) -> Path:
    """The directory `qsub`, `deployments`, `presets`, `containers` or `examples`, wherever it is.

    Raises:
        CrboostError: the installation lacks it.
    """
    package = Path(__file__).parent
    for candidate in (package / "resource_files" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise CrboostError(f"the installation lacks its {name} directory", hint="install crboost again")
