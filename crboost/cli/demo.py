"""`crboost demo`: example data through the real flow, in a few minutes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from crboost.cli.commands import Mode, print_warnings
from crboost.cli.terminal import command, heading, seconds
from crboost.errors import CrboostError


def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to put data and project; else a new temporary directory."
        ),
    ] = None,
) -> None:
    """Simulate three tilt series and process them: motion, CTF, alignment, tomograms.

    Takes a few minutes on two cores. One series lacks a movie, one has a dead tilt.
    """
    from crboost.cli import data
    from crboost.cli.run import report, run_flow
    from crboost.project import Project

    began = time.monotonic()
    directory = _directory(keep)
    typer.echo(f"Everything is in {directory}")
    with _font_cache_elsewhere():
        made = data.make(directory / "data")
        created = Project.create(
            directory / "project",
            movies=[str(made.frames_directory / "*")],
            mdocs=[str(path) for path in made.mdocs],
            name="demo",
        )
        print_warnings(created.warnings)
        project = created.project
        outcome = run_flow(project, (), (), Mode.new)
        report(project, outcome, shown_as=project.directory)
    typer.echo(f"\nTotal time: {seconds(time.monotonic() - began)}")
    if outcome.code:
        raise typer.Exit(outcome.code)
    heading("Next: change a parameter, and run what depends on it")
    typer.echo(f"  {command('crboost', 'set', project.directory, NEXT_CHANGE)}")
    typer.echo(f"  {command('crboost', 'run', project.directory)}")


#: A change that is worth looking at and redoes one job only.
NEXT_CHANGE = "jobs.tsReconstruct.rescale_angpixs=12"


def _directory(keep: Path | None) -> Path:
    """The demo's directory, which is new or empty.

    Raises:
        CrboostError: it holds something.
    """
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="crboost-demo-"))
    directory = keep.expanduser().absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CrboostError(
            f"{directory} exists and is not empty", hint="choose a new directory for --keep"
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def _font_cache_elsewhere() -> Iterator[None]:
    """matplotlib would leave its font cache in the user's home."""
    if "MPLCONFIGDIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="crboost-fonts-") as cache:
        os.environ["MPLCONFIGDIR"] = cache
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]
