"""`crboost log`: what a job printed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.commands import ProjectPath
from crboost.errors import ProjectError
from crboost.standing import title_of

if TYPE_CHECKING:
    from crboost.history import PastJob

OUT, ERR = "run.out", "run.err"
POLL_SECONDS = 0.3


def log(
    project: ProjectPath,
    job: Annotated[
        str, typer.Argument(help="tsAlignment (its newest job), MotionCorr/job002, or job002.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends or Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")
    ] = 40,
) -> None:
    """Print the end of a job's output, then of its error output."""
    from crboost.project import Project

    opened = Project.open(project)
    found = find_job(opened.history(), job)
    directory = opened.directory / found.name
    typer.secho(f"{found.name} ({title_of(found)})", bold=True, err=True)
    if follow:
        follow_files([directory / OUT, directory / ERR], directory, lines)
        return
    texts = {name: last_lines(directory / name, lines) for name in (OUT, ERR)}
    if not any(texts.values()):
        typer.echo(f"It has printed nothing yet; its files are in {directory}", err=True)
        return
    for name, text in texts.items():
        if text:
            if name == ERR:
                typer.secho(f"\n{found.name}/{ERR}", bold=True, err=True)
            typer.echo(text)


def find_job(history: Sequence[PastJob], wanted: str) -> PastJob:
    """The job that a user means: a RELION job name, its number, or the newest of a node.

    Raises:
        ProjectError: there is none; lists those that there are.
    """
    text = wanted.strip().strip("/")
    newest_first = sorted(history, key=lambda job: job.number, reverse=True)
    for job in newest_first:
        if text in (job.name, job.name.rpartition("/")[2], str(job.number)):
            return job
    for job in newest_first:
        if text in (job.node, job.job_type):
            return job
    names = ", ".join(f"{job.name} ({title_of(job)})" for job in newest_first[:8])
    raise ProjectError(
        f"no job {wanted!r} has run in this project",
        hint=f"there are {names}" if names else "nothing has run yet",
    )


def last_lines(file: Path, lines: int) -> str:
    """The end of a log as a terminal shows it, without reading all of it.

    RELION's progress bars draw over themselves: of each the last state is left.
    """
    if not lines or not file.is_file():
        return ""
    most_bytes = max(65_536, 400 * lines)
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - most_bytes))
        text = stream.read().decode("utf-8", errors="replace")
    shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join("\n".join(shown).rstrip().split("\n")[-lines:])


def follow_files(files: Sequence[Path], directory: Path, lines: int) -> None:
    """Print what the files grow by until the job's driver has ended; from their last lines on."""
    from crboost.job_directory import is_driver_alive
    from crboost.relion.markers import read_marker

    offsets = {}
    for file in files:
        text = last_lines(file, lines)
        offsets[file] = file.stat().st_size if file.exists() else 0
        if text:
            typer.echo(text)
    try:
        while True:
            ended = read_marker(directory) is not None and not is_driver_alive(directory)
            for file in files:
                offsets[file] = _print_from(file, offsets[file])
            if ended:
                return
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        typer.echo("\nThe job goes on.", err=True)


def _print_from(file: Path, offset: int) -> int:
    """Print whole lines that came after `offset`; the new offset."""
    try:
        size = file.stat().st_size
        if size <= offset:
            return min(size, offset)
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size - offset)
    except FileNotFoundError:
        return offset
    typer.echo(data.decode("utf-8", errors="replace"), nl=False)
    return offset + len(data)
