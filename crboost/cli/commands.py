"""How every command fails: an error made on purpose is a message, a hint and exit code 2."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crboost.errors import CrboostError

REFUSED = 2


class Commands(TyperGroup):
    """The top-level command; turns `CrboostError` into a message on stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; `--debug` lets the error through, with its traceback."""
        try:
            return super().invoke(ctx)
        except CrboostError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error.message, error.hint)
            raise typer.Exit(REFUSED) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            if ctx.params.get("debug") or error.filename is None:
                raise
            print_error(f"{error.filename}: {error.strerror}")
            raise typer.Exit(REFUSED) from None


def print_error(message: str, hint: str | None = None) -> None:
    """`Error: ...` on stderr, and what to do about it on a line of its own."""
    typer.secho("Error: ", err=True, fg="red", bold=True, nl=False)
    typer.echo(message, err=True)
    if hint:
        typer.echo(f"  -> {hint}", err=True)


def print_warnings(warnings: list[str] | tuple[str, ...]) -> None:
    """Each warning on a line of its own, on stderr."""
    for warning in warnings:
        typer.secho("Warning: ", err=True, fg="yellow", nl=False)
        typer.echo(warning, err=True)


class Mode(StrEnum):
    """What happens to jobs whose input has grown."""

    new = "new"
    continue_ = "continue"


ProjectPath = Annotated[
    Path, typer.Argument(metavar="PROJECT", help="The project directory.", show_default=False)
]
Jobs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[JOB]...", help="Job names; all when none is given."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a parameter; may be repeated."),
]
ModeOption = Annotated[
    Mode,
    typer.Option(
        help="new: a job whose input changed gets a new number. "
        "continue: the existing job takes what is new."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def parse_changes(texts: list[str] | None) -> dict[str, str]:
    """`["microscope.pixel_size_angstrom=1.35"]` as a mapping.

    Raises:
        CrboostError: an item is not NAME=VALUE, or a name comes twice.
    """
    changes: dict[str, str] = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise CrboostError(
                f"{text!r} is not NAME=VALUE",
                hint="for example microscope.pixel_size_angstrom=1.35",
            )
        if name in changes:
            raise CrboostError(f"{name} is given twice: {changes[name]!r} and {value!r}")
        changes[name] = value.strip()
    return changes
