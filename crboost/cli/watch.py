"""`crboost watch`: what would be picked up from a microscope, as it happens."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.terminal import counted

if TYPE_CHECKING:
    from crboost.acquisition.facts import Report

COLOURS = {
    "series-complete": "green",
    "series-partial": "yellow",
    "series-reopened": "cyan",
    "file-rejected": "red",
}


def watch(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Where mdocs and movies arrive.", show_default=False),
    ],
    json_lines: Annotated[bool, typer.Option("--json", help="Print a line of JSON each.")] = False,
    stable: Annotated[
        float, typer.Option(help="Seconds without a change after which a movie is finished.")
    ] = 30.0,
    quiet: Annotated[
        float, typer.Option(help="Seconds without a change after which an mdoc is finished.")
    ] = 180.0,
    partial_after: Annotated[
        float, typer.Option(help="Seconds without news before a series is taken as it is.")
    ] = 3600.0,
    tilts: Annotated[
        int | None, typer.Option(help="Tilts of a whole series; without it the mdoc decides.")
    ] = None,
    poll: Annotated[
        float | None,
        typer.Option(help="Look every so many seconds instead of waiting for file events."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="File that keeps what was told, for the next start.")
    ] = None,
) -> None:
    """Print which tilt series are complete, partial or changed, until Ctrl-C."""
    from crboost.acquisition.arrivals import Patience
    from crboost.acquisition.watch import Rhythm, Watcher

    patience = Patience(stable, quiet, partial_after, tilts)
    # A person who watches wants no batches.
    rhythm = Rhythm(batch_seconds=0, poll_seconds=10 if poll is None else poll)
    with Watcher(
        directories,
        patience,
        state_file=state,
        rhythm=rhythm,
        method="auto" if poll is None else "polling",
        notice=lambda text: typer.echo(text, err=True),
    ) as watcher:
        try:
            for batch in watcher.batches():
                for report in batch:
                    _print(report, json_lines)
        except KeyboardInterrupt:
            standing = [f"{name} {state}" for name, state in watcher.states().items()]
            typer.echo(
                f"\n{counted(len(standing), 'tilt series', 'tilt series')}: {', '.join(standing)}",
                err=True,
            )


def _print(report: Report, json_lines: bool) -> None:
    value = report.to_json()
    if json_lines:
        typer.echo(json.dumps(value, ensure_ascii=False))
        return
    kind = value["kind"]
    at = datetime.fromtimestamp(report.at).strftime("%H:%M:%S")
    typer.echo(f"{at}  ", nl=False)
    typer.secho(kind.replace("-", " "), fg=COLOURS[kind], nl=False)
    typer.echo(f"  {line(report)}")


def line(report: Report) -> str:
    """A report in a line."""
    from crboost.acquisition.facts import SeriesComplete, SeriesPartial, SeriesReopened

    fact = report.fact
    if isinstance(fact, SeriesComplete):
        return f"{fact.name}: {counted(fact.tilts, 'tilt')}"
    if isinstance(fact, SeriesPartial):
        few = "; ".join(fact.reasons[:3])
        more = f" and {len(fact.reasons) - 3} more" if len(fact.reasons) > 3 else ""
        return f"{fact.name}: {fact.usable} of {counted(fact.tilts, 'tilt')}: {few}{more}"
    if isinstance(fact, SeriesReopened):
        return f"{fact.name}: {fact.reason}"
    return f"{fact.path}: {fact.reason}"
