"""`crboost status --live`: the table of tilt series, again and again, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from crboost.cli.terminal import is_terminal, plain_table, seconds, style_of
from crboost.errors import CrboostError
from crboost.overview import cells, read_overview

if TYPE_CHECKING:
    from rich.console import RenderableType

    from crboost.overview import Overview, Row
    from crboost.project import Project

REFRESH_SECONDS = 2.0
#: Lines of a terminal that are not for tilt series: heading, table head, notes.
OTHER_LINES = 9
SHOWN_FAILURES = 3


def live(project: Project, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Show the project until KeyboardInterrupt; a table on each change where no terminal is.

    Args:
        pause: waits for so many seconds.
    """
    last: Overview | None = None

    def look() -> Overview:
        nonlocal last
        try:
            last = read_overview(project)
        except (CrboostError, OSError):
            # Files that are being replaced may not fit together for an instant.
            if last is None:
                raise
        return last

    try:
        if is_terminal():
            _on_terminal(look, pause)
        else:
            _in_lines(look, pause)
    except KeyboardInterrupt:
        return


def _on_terminal(look: Callable[[], Overview], pause: Callable[[float], None]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=False) as display:
        while True:
            room = max(3, console.size.height - OTHER_LINES)
            display.update(_display(look(), datetime.now(UTC), room), refresh=True)
            pause(REFRESH_SECONDS)


def _in_lines(look: Callable[[], Overview], pause: Callable[[float], None]) -> None:
    before = ""
    while True:
        overview = look()
        headings, rows = cells(overview.stages, overview.rows)
        text = plain_table(headings, rows) if rows else "No tilt series yet."
        if text != before:
            typer.echo(f"{datetime.now():%H:%M:%S}  {headline(overview, None)}\n{text}\n")
            before = text
        pause(REFRESH_SECONDS)


def headline(overview: Overview, now: datetime | None) -> str:
    """What is going on, in a line.

    Args:
        now: to say how long ago something changed; None: not to say it.
    """
    parts = []
    if overview.session is not None:
        parts.append(f"session {overview.session.state}")
    parts.append(f"{overview.run} is at work" if overview.run else "nothing is at work")
    if now is not None and overview.seen_at is not None:
        ago = max(0.0, (now - overview.seen_at).total_seconds())
        parts.append(f"last news from the microscope {seconds(ago)} ago")
    return ", ".join(parts)


def chosen(rows: Sequence[Row], room: int) -> tuple[list[Row], int]:
    """The rows to show where not all have room, and how many are left out.

    Series that are through are left out first, then the first ones by name.
    """
    if len(rows) <= room:
        return list(rows), 0
    ranked = sorted(range(len(rows)), key=lambda index: (rows[index].is_through, -index))
    kept = sorted(ranked[:room])
    return [rows[index] for index in kept], len(rows) - room


def _display(overview: Overview, now: datetime, room: int) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows, left_out = chosen(overview.rows, room)
    headings, lines = cells(overview.stages, rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for text in headings:
        table.add_column(Text(text), no_wrap=True)
    for line in lines:
        table.add_row(Text(line[0]), *(Text(cell, style=style_of(cell)) for cell in line[1:]))
    parts: list[RenderableType] = [
        Text.assemble((overview.name, "bold"), f"  {overview.directory}"),
        Text(headline(overview, now), style="bright_black"),
        Text(""),
        table if lines else Text("No tilt series yet."),
    ]
    if left_out:
        parts.append(Text(f"and {left_out} more, {_through(overview)} through", "bright_black"))
    for text in overview.failures[:SHOWN_FAILURES]:
        parts.append(Text(text, style="red", no_wrap=True, overflow="ellipsis"))
    if len(overview.failures) > SHOWN_FAILURES:
        more = len(overview.failures) - SHOWN_FAILURES
        parts.append(Text(f"and {more} more that failed: crboost status", style="red"))
    return Group(*parts)


def _through(overview: Overview) -> int:
    return sum(1 for row in overview.rows if row.is_through)
