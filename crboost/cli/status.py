"""`crboost status`: jobs, tilt series by stage, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.terminal import heading, print_json, print_table
from crboost.standing import (
    NOT_YET,
    counts,
    failures,
    latest,
    series_by_stage,
    state_of,
)

if TYPE_CHECKING:
    from crboost.history import PastJob
    from crboost.run import JobState


def status(project: ProjectPath, as_json: AsJson = False) -> None:
    """Show how the project stands: jobs, tilt series by stage, what runs, what failed."""
    from crboost.project import Project
    from crboost.run import active_run

    opened = Project.open(project)
    history = opened.history()
    stages = latest(history)
    running = active_run(opened)
    if as_json:
        print_json(
            {
                "project": opened.name,
                "directory": str(opened.directory),
                "active_run": running.name if running else None,
                "jobs": [job_values(job) for job in stages.values()],
                "tilt_series": series_by_stage(stages),
                "failures": failures(stages),
            }
        )
        return
    typer.secho(opened.name, bold=True, nl=False)
    typer.echo(f"  {opened.directory}")
    if running is not None:
        typer.echo(f"{running.name} is at work.")
    if not stages and running is None:
        typer.echo("Nothing has run yet.")
        return
    heading("Jobs")
    rows = {stage: [job.name, state_of(job), counts(job)] for stage, job in stages.items()}
    if running is not None:
        rows |= {node: live_row(running.job_state(node)) for node in running.nodes}
    print_table(
        ["job", "RELION job", "status", "tilt series"],
        [[stage, *row] for stage, row in rows.items()],
        status_columns=[2],
    )
    table = series_by_stage(stages)
    if table:
        columns = list(next(iter(table.values())))
        heading("Tilt series")
        print_table(
            ["tilt series", *columns],
            [[name, *states.values()] for name, states in table.items()],
            status_columns=range(1, len(columns) + 1),
        )
    wrong = failures(stages)
    if wrong:
        heading("What went wrong")
        for line in wrong:
            typer.echo(f"  {line}")


def run_of(past: PastJob) -> str | None:
    """The run that made a job; RELION's own jobs keep it in the path of their submit script."""
    parts = past.parameters.get("qsub", "").split("/")
    return past.run or (parts[2] if parts[:2] == [".crboost", "runs"] and len(parts) > 3 else None)


def live_row(state: JobState) -> list[str]:
    """RELION job, state and progress of a job whose run is at work."""
    from crboost.cli.follow import progress

    done = progress(state) if state.total else NOT_YET
    return [(state.job or NOT_YET).rstrip("/"), state.phase, done]


def job_values(job: PastJob) -> dict[str, object]:
    """A job for programs."""
    return {
        "job": job.name,
        "node": job.node,
        "job_type": job.job_type,
        "status": state_of(job),
        "run": run_of(job),
        "failure": job.failure,
        "tilt_series": {name: record.status for name, record in job.series.items()},
    }
