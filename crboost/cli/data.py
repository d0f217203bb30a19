"""`crboost example-data`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.terminal import command, is_terminal, seconds
from crboost.errors import CrboostError

if TYPE_CHECKING:
    from crboost.cpu.example_data import ExampleData


def example_data(
    directory: Annotated[Path, typer.Argument(help="Where to write; new or empty.")],
    series: Annotated[int, typer.Option(help="How many tilt series.")] = 3,
    size_px: Annotated[int, typer.Option("--size", help="Side of the images in pixels.")] = 512,
    frames: Annotated[int, typer.Option(help="Frames per movie.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed makes other data.")] = 2026,
) -> None:
    """Simulate tilt series as a microscope writes them: movies, mdocs, and the truth."""
    made = make(directory, series=series, size_px=size_px, frames=frames, seed=seed)
    typer.echo(f"{len(made.series)} tilt series in {directory}; the truth is in {made.truth}")
    typer.echo("\nNext:")
    typer.echo("  " + init_command(made, directory.parent / f"{directory.name}-project"))


def init_command(made: ExampleData, project: Path) -> str:
    """The command that makes a project of example data."""
    return command(
        "crboost", "init", project,
        "--movies", f"{made.frames_directory}/*", "--mdocs", f"{made.directory}/*.mdoc",
    )  # fmt: skip


def make(
    directory: Path, *, series: int = 3, size_px: int = 512, frames: int = 5, seed: int = 2026
) -> ExampleData:
    """Write example data, with a progress display.

    Raises:
        CrboostError: the directory is not empty; data would be mixed or overwritten.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CrboostError(
            f"{directory} exists and is not empty", hint="choose a new directory for the data"
        )
    import os

    from crboost.cpu.example_data import make_example_data

    with progress("Simulating tilt series") as advance:
        return make_example_data(
            directory,
            seed=seed,
            series=series,
            size_px=size_px,
            frames=frames,
            workers=len(os.sched_getaffinity(0)),
            progress=advance,
        )


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal, ten lines in a file."""
    began = time.monotonic()
    if not is_terminal():
        told = 0

        def tell(text: str, done: int, total: int) -> None:
            nonlocal told
            if done * 10 // total > told:
                told = done * 10 // total
                typer.echo(f"{title}: {done} of {total} movies")

        yield tell
        typer.echo(f"{title}: done in {seconds(time.monotonic() - began)}")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TextColumn("[bright_black]{task.fields[text]}")) as bar:
        task = bar.add_task(title, total=None, text="")
        yield lambda text, done, total: bar.update(task, completed=done, total=total, text=text)
        bar.update(task, text=seconds(time.monotonic() - began))
