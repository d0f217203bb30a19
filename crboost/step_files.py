"""The files around a step: what must be gone, and what must be there, before it runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from crboost.builders.step import Step
from crboost.errors import ProjectError
from crboost.files import write_text


def prepare(project: Path, step: Step) -> None:
    """Make a step's surroundings: nothing old, its directory, its links, its input files.

    Links that are removed leave alone what they lead to: raw data are only ever linked.

    Raises:
        ProjectError: a path leads out of the project, or a link's place is taken by a file.
    """
    for name in (*step.clears, *step.creates):
        _remove(_inside(project, name))
    _inside(project, step.directory).mkdir(parents=True, exist_ok=True)
    for name, target in step.links.items():
        _link(_inside(project, name), _inside(project, target))
    for name, text in step.files.items():
        write_text(_inside(project, name), text)


def _inside(project: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ProjectError(f"{name}: a step's files must be inside the project")
    return project / path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    """A relative link, so that the project can be moved."""
    link.parent.mkdir(parents=True, exist_ok=True)
    wanted = os.path.relpath(target, link.parent)
    if link.is_symlink():
        if str(link.readlink()) == wanted:
            return
        link.unlink()
    elif link.exists():
        raise ProjectError(f"{link} is a file, where a link to {target} must be")
    link.symlink_to(wanted)
