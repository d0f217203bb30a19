"""`crboost notify`: who is told what, and whether a message arrives."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from crboost.cli.commands import AsJson
from crboost.cli.terminal import print_json


def notify(
    test: Annotated[bool, typer.Option("--test", help="Send a message to each channel.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show who is told of failures, silence and ends of sessions; try it with --test."""
    from crboost.settings import load_settings, settings_file

    channels = load_settings().service.notify
    if as_json:
        print_json([{"name": one.name, "news": one.news} for one in channels])
    elif not channels:
        typer.echo(f"Nobody is told anything: {settings_file()} has no [[service.notify]].")
    elif not test:
        for one in channels:
            typer.echo(f"{one.name}: {', '.join(one.news)}")
    if test and channels:
        # `-P`: a `flows/` in the working directory is not ours.
        argv = [sys.executable, "-P", "-m", "flows.notifications", "--test"]
        raise typer.Exit(min(1, subprocess.run(argv, check=False).returncode))
