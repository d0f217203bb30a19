"""Where a project keeps its links to raw data, and how such a link is made."""

from __future__ import annotations

from pathlib import Path

from crboost.errors import ProjectError
from crboost.tilt_name import plain_name

FRAMES = "frames"
MDOCS = "mdoc"


def make_link(folder: Path, target: Path, *, replace_broken: bool = False) -> bool:
    """Link a file under its plain name; False when that link is there already.

    Args:
        folder: `frames/` or `mdoc/` of a project.
        target: the raw file.
        replace_broken: a link to something that is no longer there gives way.

    Raises:
        ProjectError: another file has that name.
    """
    link = folder / plain_name(target.name)
    target = target.absolute()
    if not link.is_symlink() and not link.exists():
        link.symlink_to(target)
        return True
    if link.exists():
        if link.samefile(target):
            return False
    elif replace_broken:
        replace_link(link, target)
        return True
    raise ProjectError(
        f"{link} is {link.readlink() if link.is_symlink() else 'a file'}, "
        f"and {target} would get the same name",
        hint="rename one of them, or make two projects",
    )


def replace_link(link: Path, target: Path) -> None:
    """Make a link lead elsewhere; there is never a moment without it."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.absolute())
    fresh.replace(link)
