"""All commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

from crboost.cli import (
    data,
    demo,
    doctor,
    history,
    init,
    job,
    log,
    notify,
    parameters,
    plan,
    run,
    schemer,
    session,
    status,
    tilts,
    up,
    watch,
)
from crboost.cli.commands import Commands

app = typer.Typer(
    name="crboost",
    cls=Commands,
    help="From a cryo-ET microscope session to RELION results.",
    epilog="Start with `crboost demo`, or with `crboost init --help` for your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from crboost import __version__

        typer.echo(f"crboost {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, for a bug report.")
    ] = False,
) -> None:
    """Options of every command; `Commands` reads `debug`."""


START, SERVICE, WORK, LOOK = "Start", "Service", "Work", "Look"

app.command("demo", rich_help_panel=START)(demo.demo)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.command("example-data", rich_help_panel=START)(data.example_data)
app.command("init", cls=init.InitCommand, rich_help_panel=START)(init.init)
app.command("up", rich_help_panel=SERVICE)(up.up)
app.command("down", rich_help_panel=SERVICE)(up.down)
app.command("notify", rich_help_panel=SERVICE)(notify.notify)
app.command("plan", rich_help_panel=WORK)(plan.plan)
app.command("run", rich_help_panel=WORK)(run.run)
app.command("set", rich_help_panel=WORK)(parameters.set_values)
app.command("parameters", rich_help_panel=WORK)(parameters.parameters)
app.command("schema", rich_help_panel=WORK)(parameters.schema)
app.command("status", rich_help_panel=LOOK)(status.status)
app.command("log", rich_help_panel=LOOK)(log.log)
app.command("history", rich_help_panel=LOOK)(history.history)
app.command("watch", rich_help_panel=LOOK)(watch.watch)
app.add_typer(session.app, name="session", rich_help_panel=START)
app.add_typer(tilts.app, name="tilts", rich_help_panel=WORK)
app.add_typer(schemer.app, name="schemer", rich_help_panel="Inside")
app.add_typer(job.app, name="job", rich_help_panel="Inside")
