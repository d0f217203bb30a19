"""A project's links to raw data: where they are, how one is made, what there is of each series."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from crboost.acquisition.tilt_series import series_name
from crboost.errors import ProjectError
from crboost.results import fingerprint_of
from crboost.tilt_name import plain_name

FRAMES = "frames"
MDOCS = "mdoc"


def make_link(
    folder: Path, target: Path, *, name: str | None = None, replace_broken: bool = False
) -> bool:
    """Link a file under its plain name; False when that link is there already.

    Args:
        folder: `frames/` or `mdoc/` of a project.
        target: the raw file.
        name: of the link, in place of the file's plain name.
        replace_broken: a link to something that is no longer there gives way.

    Raises:
        ProjectError: another file has that name.
    """
    link = folder / (name or plain_name(target.name))
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


@dataclass(frozen=True)
class RawSeries:
    """What lies on disk of a tilt series.

    Attributes:
        fingerprint: of its mdoc's content and of its movies' names and sizes.
        cleared: its mdoc, or a movie that is linked, has gone since it was linked.
    """

    fingerprint: str
    cleared: bool


def raw_series(project: Path, names: Container[str] | None = None) -> dict[str, RawSeries]:
    """The tilt series that are linked, by name.

    The plan asks this of hundreds of tilt series and must answer at once: nothing is parsed but
    the lines that name movies, and no file is opened but the mdocs.

    Args:
        project: the project directory.
        names: only these; None: all.
    """
    movies = _movie_sizes(project / FRAMES)
    found: dict[str, RawSeries] = {}
    for path in sorted((project / MDOCS).glob("*.mdoc")):
        name = plain_name(series_name(path))
        if names is not None and name not in names:
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            found[name] = RawSeries(fingerprint_of(["no mdoc"]), cleared=True)
            continue
        named = {_stem(match[1]) for match in _MOVIE_LINE.finditer(content)}
        present = sorted(one for stem in named for one in movies.get(stem, ()))
        digest = hashlib.sha256(content).hexdigest()
        cleared = any(size < 0 for _, size in present)
        found[name] = RawSeries(fingerprint_of([digest, present]), cleared)
    return found


_MOVIE_LINE = re.compile(rb"^\s*SubFramePath\s*=\s*(.*?)\s*$", re.MULTILINE)


def _stem(path: bytes) -> str:
    """A movie's name as it is matched: no directories, no extension, no case."""
    name = re.split(r"[\\/]", path.decode("utf-8", errors="replace"))[-1]
    return plain_name(name.rpartition(".")[0] or name).casefold()


def _movie_sizes(frames: Path) -> dict[str, list[tuple[str, int]]]:
    """Stem -> (name, size in bytes) of the movies with it; broken links have size -1."""
    sizes: dict[str, list[tuple[str, int]]] = {}
    if not frames.is_dir():
        return sizes
    with os.scandir(frames) as entries:
        for entry in entries:
            try:
                size = entry.stat().st_size
            except OSError:
                size = -1
            sizes.setdefault(_stem(entry.name.encode()), []).append((entry.name, size))
    return sizes
