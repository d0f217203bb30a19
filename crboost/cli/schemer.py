"""`crboost schemer`: run a scheme, and do to it what `relion_schemer` can do."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.terminal import command, print_json, print_table
from crboost.errors import ProjectError

if TYPE_CHECKING:
    from pathlib import Path

    from crboost.project import Project
    from crboost.relion.schemer.engine import Engine

app = typer.Typer(
    help="Run and steer the schemes in Schemes/ (each run of the project is one).",
    no_args_is_help=True,
)


class EngineChoice(StrEnum):
    """Who walks the scheme."""

    embedded = "embedded"
    relion = "relion"


Scheme = Annotated[str, typer.Argument(metavar="RUN", help="The scheme's name: run_...")]
ActiveScheme = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="The scheme's name; else the one at work.")
]


@app.command("run")
def run(
    project: ProjectPath,
    scheme: Scheme,
    engine: Annotated[
        EngineChoice | None, typer.Option(help="Default: as the settings say.")
    ] = None,
) -> None:
    """Run a scheme from its current node to its end, holding the project meanwhile."""
    from crboost.relion.schemer.holder import hold

    opened = _open(project)
    raise typer.Exit(hold(opened.directory, scheme, make_engine(engine, opened.directory, scheme)))


@app.command("status")
def status(project: ProjectPath, scheme: ActiveScheme = None, as_json: AsJson = False) -> None:
    """Show each scheme: whether its schemer runs, how it ended, where it stands."""
    from dataclasses import asdict

    from crboost.relion.scheme import read_scheme
    from crboost.relion.schemer.holder import holder_state
    from crboost.run import runs

    opened = _open(project)
    names = [scheme] if scheme else [run.name for run in runs(opened)]
    states = [
        {
            **asdict(holder_state(opened.directory, name)),
            "current_node": read_scheme(opened.directory, name).current_node,
        }
        for name in names
    ]
    if as_json:
        print_json(states)
        return
    if not states:
        typer.echo("There are no runs yet.")
        return
    print_table(
        ["run", "schemer", "at", "engine", "host", "process", "error"],
        [
            [
                str(state["scheme"]),
                _words(alive=bool(state["alive"]), code=state["exit_code"], pid=state["pid"]),
                str(state["current_node"]),
                *(str(state[key] or "-") for key in ("engine", "host", "pid", "error")),
            ]
            for state in states
        ],
        status_columns=[1],
    )


@app.command("abort")
def abort(project: ProjectPath, scheme: ActiveScheme = None) -> None:
    """Ask the running job, and then the schemer, to stop."""
    from crboost.relion.schemer.holder import active_scheme
    from crboost.run import Run

    opened = _open(project)
    name = scheme or active_scheme(opened.directory)
    if name is None:
        raise ProjectError(
            f"nothing is running in {opened.directory}",
            hint=command("crboost", "status", project),
        )
    Run.open(opened, name).abort(typer.echo)


@app.command("reset")
def reset(project: ProjectPath, scheme: Scheme) -> None:
    """Back to the start: the next run of the scheme makes new jobs."""
    from crboost.relion.schemer import verbs

    verbs.reset(_open(project).directory, scheme)
    typer.echo(f"{scheme} is back at its start.")


@app.command("set-current-node")
def set_current_node(
    project: ProjectPath, scheme: Scheme, node: Annotated[str, typer.Argument()]
) -> None:
    """Say where the next run of the scheme starts."""
    from crboost.relion.schemer import verbs

    verbs.set_current_node(_open(project).directory, scheme, node)
    typer.echo(f"{scheme} starts at {node} next.")


@app.command("set-has-started")
def set_has_started(
    project: ProjectPath,
    scheme: Scheme,
    node: Annotated[str, typer.Argument(metavar="JOB")],
    has_started: Annotated[bool, typer.Argument(metavar="true|false")],
) -> None:
    """Say whether a job goes on in its directory, or gets a new number."""
    from crboost.relion.schemer import verbs

    verbs.set_has_started(_open(project).directory, scheme, node, has_started)
    typer.echo(f"{node} of {scheme}: has started {str(has_started).lower()}")


@app.command("set-job-mode")
def set_job_mode(
    project: ProjectPath,
    scheme: Scheme,
    node: Annotated[str, typer.Argument(metavar="JOB")],
    mode: Annotated[str, typer.Argument(metavar="new|continue")],
) -> None:
    """Set a job's mode: new directory each time, or go on in the same."""
    from crboost.relion.schemer import verbs

    verbs.set_job_mode(_open(project).directory, scheme, node, mode)
    typer.echo(f"{node} of {scheme}: mode {mode}")


@app.command("set-var")
def set_var(
    project: ProjectPath,
    scheme: Scheme,
    name: Annotated[str, typer.Argument()],
    value: Annotated[str, typer.Argument()],
    original: Annotated[
        str | None, typer.Option(help="Also the value that a reset gives back.")
    ] = None,
) -> None:
    """Give a variable of the scheme a value."""
    from crboost.relion.schemer import verbs

    verbs.set_var(_open(project).directory, scheme, name, value, original)
    typer.echo(f"{scheme}: {name} = {value}")


@app.command("copy")
def copy(project: ProjectPath, scheme: Scheme, new_name: Annotated[str, typer.Argument()]) -> None:
    """Copy a scheme with its jobs under a new name."""
    from crboost.relion.schemer import verbs

    verbs.copy(_open(project).directory, scheme, new_name)
    typer.echo(f"Schemes/{new_name} is a copy of Schemes/{scheme}.")


def make_engine(choice: EngineChoice | None, project: Path, scheme: str) -> Engine:
    """The engine that was asked for, else the one that the settings name."""
    from crboost.containers import relion_launch, schemer_environment
    from crboost.project import PARAMETERS_FILE
    from crboost.relion.scheme import scheme_dir
    from crboost.relion.schemer.engine import EmbeddedEngine, RelionEngine
    from crboost.relion.schemer.walker import WalkerOptions
    from crboost.scheduler.outcome import alive_check
    from crboost.scheduler.watch import SchemeWatch
    from crboost.settings import load_settings
    from crboost.tool_commands import frozen_files

    settings = load_settings()
    name = choice.value if choice else settings.engine
    if name == "relion":
        launch = relion_launch(
            settings,
            project,
            environ=os.environ,
            files=frozen_files(scheme_dir(project, scheme) / PARAMETERS_FILE),
        )
        return RelionEngine(
            launch.argv_prefix,
            environ=launch.environ,
            program=launch.program,
            watch=SchemeWatch(settings.scheduler, say=_say),
        )
    options = WalkerOptions(
        environ={**os.environ, **schemer_environment(settings)},
        submission_alive=alive_check(settings.scheduler),
    )
    return EmbeddedEngine(options)


def _say(line: str) -> None:
    print(line, flush=True)


def _open(project: ProjectPath) -> Project:
    from crboost.project import Project

    return Project.open(project)


def _words(*, alive: bool, code: object, pid: object) -> str:
    """How the schemer of a scheme stands."""
    if alive:
        return "running"
    if pid is None:
        return "never started"
    if code is None:
        return "interrupted"
    return "done" if code == 0 else f"failed ({code})"
