"""`crboost init`: a project from what the microscope wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from crboost.cli.commands import print_warnings
from crboost.cli.terminal import command, print_table

if TYPE_CHECKING:
    from crboost.parameters import ProjectParameters

LISTS = ("--movies", "--mdocs")
WITH_VALUE = ("--gain", "--name")


class InitCommand(TyperCommand):
    """Takes `--movies *.eer` as the shell has expanded it: several values after one option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give each value its own option before the parser sees them."""
        return super().parse_args(ctx, spread(args))


def spread(args: Sequence[str]) -> list[str]:
    """`--movies a b` as `--movies a --movies b`.

    Where no project came before the lists, the last of several values is the project:
    `--movies *.eer --mdocs *.mdoc PROJECT`.
    """
    result: list[str] = []
    has_project = False
    current, values = "", 0
    words = iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if word == "--":
            return [*result, word, *words]
        if option in LISTS:
            current, values = option, 0
            if equals:
                result += [option, value]
                values = 1
        elif word.startswith("-") and word != "-":
            current = ""
            result.append(word)
            if word in WITH_VALUE:
                result += [following for following in [next(words, None)] if following is not None]
        elif current:
            result += [current, word]
            values += 1
        else:
            result.append(word)
            has_project = True
    if current and values > 1 and not has_project:
        result[-2:] = result[-1:]
    return result


def init(
    project: Annotated[
        Path, typer.Argument(metavar="PROJECT", help="The new directory.", show_default=False)
    ],
    movies: Annotated[
        list[str],
        typer.Option(metavar="GLOB...", help="Movies: quoted patterns, or files."),
    ],
    mdocs: Annotated[
        list[str], typer.Option(metavar="GLOB...", help="mdoc files of the tilt series.")
    ],
    gain: Annotated[Path | None, typer.Option(help="The camera's gain reference.")] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the project; else as its directory.")
    ] = None,
) -> None:
    """Create a project: link the raw data, take the parameters from the mdocs.

    Raw data are linked, never copied and never written to.
    """
    from crboost.project import Project

    created = Project.create(project, movies=movies, mdocs=mdocs, gain=gain, name=name)
    names = created.tilt_series
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    typer.echo(f"Created {created.project.directory} with {len(names)} tilt series: {listed}\n")
    print_found(created.project.parameters())
    print_warnings(created.warnings)
    typer.echo("\nNext:")
    typer.echo(f"  {command('crboost', 'parameters', project)}")
    typer.echo(f"  {command('crboost', 'plan', project)}")
    typer.echo(f"  {command('crboost', 'run', project)}")


def print_found(parameters: ProjectParameters) -> None:
    """The values that somebody or something has set, and who."""
    from crboost.cli.parameters import cells
    from crboost.parameters import describe

    rows = [
        cells(row)
        for row in describe(parameters)
        if row.origin.source != "default" and row.path.partition(".")[0] not in ("data", "jobs")
    ]
    if rows:
        print_table(["parameter", "value", "unit", "from"], rows)
