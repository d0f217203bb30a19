"""What goes to the terminal, and its plain form when stdout is a file or a pipe."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

#: Words that say how something stands, and their colours.
COLOURS = {
    "succeeded": "green",
    "done": "green",
    "up to date": "green",
    "running": "cyan",
    "continue": "cyan",
    "run": "cyan",
    "failed": "red",
    "aborted": "red",
    "interrupted": "red",
    "skipped": "yellow",
    "waiting": "bright_black",
    "complete": "green",
    "partial": "yellow",
    "left out": "red",
    "growing": "cyan",
    "reopened": "cyan",
}


def is_terminal() -> bool:
    """Whether a person is watching stdout."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def heading(text: str) -> None:
    """A line that begins a part of the output."""
    typer.secho(f"\n{text}", bold=True)


def command(*words: str | Path) -> str:
    """A command line that a shell reads as these words."""
    return shlex.join(str(word) for word in words)


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded with blanks, two between them; nothing is cut or wrapped."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    status_columns: Sequence[int] = (),
    right: Sequence[int] = (),
) -> None:
    """A table, with colours and folded to the width of a terminal, or plain in a file.

    Args:
        status_columns: columns that hold words of `COLOURS`.
        right: columns to align right.
    """
    if not is_terminal():
        typer.echo(plain_table(headings, rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column, text in enumerate(headings):
        last = column == len(headings) - 1
        table.add_column(
            Text(text),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=not last,
        )
    for row in rows:
        table.add_row(
            *(
                Text(cell, style=style_of(cell) if column in status_columns else "")
                for column, cell in enumerate(row)
            )
        )
    Console(highlight=False).print(table)


def style_of(cell: str) -> str:
    """The colour of a cell that begins with a word of `COLOURS`; empty for others."""
    return next((COLOURS[word] for word in COLOURS if cell.lower().startswith(word)), "")


def seconds(value: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def relative(path: str | Path, to: Path) -> str:
    """The path as seen from a directory, or as it is where it lies elsewhere."""
    try:
        return str(Path(path).relative_to(to))
    except ValueError:
        return str(path)


def results_table(rows: Sequence[Mapping[str, Any]], project: Path) -> None:
    """The table of tilt series, tomogram paths as seen from the project.

    On a terminal that is too narrow the paths come below the table, whole: they are to be copied.
    """
    from shutil import get_terminal_size

    from crboost.quality.summary import table

    shown = [
        {**row, "tomogram": relative(row["tomogram"], project) if row["tomogram"] else None}
        for row in rows
    ]
    headings, cells = table(shown)
    numbers = range(1, len(headings) - 1)
    widest = max(len(line) for line in plain_table(headings, cells).splitlines()) + len(headings)
    if not is_terminal() or widest <= get_terminal_size().columns:
        print_table(headings, cells, right=numbers)
        return
    print_table(headings[:-1], [row[:-1] for row in cells], right=numbers)
    heading("Tomograms")
    for row in cells:
        typer.echo(f"  {row[0]}  {row[-1]}")
