"""`crboost plan`: what would run, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.commands import (
    AsJson,
    Changes,
    Jobs,
    Mode,
    ModeOption,
    ProjectPath,
    parse_changes,
    print_warnings,
)
from crboost.cli.terminal import COLOURS, command, counted, print_json

if TYPE_CHECKING:
    from crboost.plan import Plan, PlannedJob


def plan(
    project: ProjectPath,
    jobs: Jobs = None,
    changes: Changes = None,
    mode: ModeOption = Mode.new,
    commands: Annotated[
        bool, typer.Option("--commands", help="Also show the tools' commands for a tilt series.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what would run and why. Changes nothing; --set is tried, not kept."""
    from crboost.project import Project
    from crboost.settings import load_settings

    opened = Project.open(project)
    wanted = parse_changes(changes)
    parameters = opened.parameters()
    if wanted:
        parameters = parameters.with_values(wanted)
    made = opened.plan(jobs or None, parameters, mode.value, settings=load_settings())
    if as_json:
        print_json(made.to_dict())
        return
    print_plan(made, commands=commands)
    new = opened.new_data()
    if new:
        typer.echo(
            f"\n{counted(len(new), 'new file')} of raw data, such as {new[0].name}: "
            "not in this plan; a run links them first."
        )
    if not made.is_empty:
        again = [word for one in changes or () for word in ("--set", one)]
        if mode is not Mode.new:
            again += ["--mode", mode.value]
        typer.echo(f"\nRun it:  {command('crboost', 'run', project, *jobs or (), *again)}")


def print_plan(plan: Plan, *, commands: bool) -> None:
    """Every job of the plan with the reason for it, in the order in which they follow."""
    nodes = [job.node for job in plan.satisfied] + [job.node for job in plan.jobs]
    width = max((len(node) for node in nodes), default=0)
    for done in plan.satisfied:
        typer.echo(f"{done.node:{width}}  ", nl=False)
        typer.secho(f"{'up to date':10}", fg=COLOURS["up to date"], nl=False)
        typer.echo(f"  {done.job.rstrip('/')}: {done.reason}")
    for job in plan.jobs:
        word = "continue" if job.continue_of else "run"
        typer.secho(f"{job.node:{width}}  ", bold=True, nl=False)
        typer.secho(f"{word:10}", fg=COLOURS[word], nl=False)
        where = f"{job.continue_of.rstrip('/')}: " if job.continue_of else ""
        typer.echo(f"  {where}{job.reason}")
        for line in details(job, commands=commands):
            typer.secho(f"{'':{width}}  {line}", fg="bright_black")
    if plan.is_empty:
        typer.echo("everything is up to date")
    else:
        typer.echo(f"\n{counted(len(plan.jobs), 'job')} would run.")
    print_warnings(plan.warnings)


def details(job: PlannedJob, *, commands: bool) -> list[str]:
    """Where a planned job's input comes from, what it asks for, and what it calls."""
    lines = [
        f"input      {given.path or f'{given.file} of {given.node}'} ({given.reason})"
        for given in job.inputs
    ]
    if job.resources:
        lines.append(
            "resources  " + ", ".join(f"{name} {value}" for name, value in job.resources.items())
        )
    if commands:
        lines += [f"command    {command(*argv)}" for argv in job.command]
    return lines
