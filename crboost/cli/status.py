"""`crboost status`: jobs, tilt series by stage, and what went wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.terminal import counted, heading, print_json, print_table
from crboost.errors import CrboostError
from crboost.standing import (
    NOT_YET,
    counts,
    failures,
    latest,
    series_by_stage,
    state_of,
)

if TYPE_CHECKING:
    from crboost.acquisition.arriving import Arriving
    from crboost.history import PastJob
    from crboost.run import JobState, Run

#: Lines on what is not used; a backup among the data makes thousands.
SHOWN_NOT_USED = 10


def status(
    project: ProjectPath,
    live: Annotated[
        bool, typer.Option("--live", help="Tilt series as they arrive and go on, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how the project stands: jobs, tilt series by stage, what runs, what failed."""
    from crboost.acquisition.arriving import read_arriving
    from crboost.acquisition.taken import read_intake
    from crboost.overview import arrivals, cells
    from crboost.overview import table as series_table
    from crboost.project import Project
    from crboost.run import active_run
    from crboost.session import read_session

    opened = Project.open(project)
    if live:
        from crboost.cli.live import live as show_live

        if as_json:
            raise CrboostError("--live and --json exclude each other")
        show_live(opened)
        return
    stages = latest(opened.history())
    running = active_run(opened)
    arriving, taken = read_arriving(opened.directory), read_intake(opened.directory)
    session = read_session(opened)
    expected = session.patience.expected_tilts if session else None
    if as_json:
        print_json(
            {
                "project": opened.name,
                "directory": str(opened.directory),
                "active_run": running.name if running else None,
                "jobs": [
                    job_values(job) | at_work_values(running, stage)
                    for stage, job in stages.items()
                ],
                "tilt_series": series_by_stage(stages),
                "session": session.model_dump(mode="json") if session else None,
                "microscope": arrivals(arriving, taken, expected),
                **not_used_values(arriving),
                "failures": failures(stages),
            }
        )
        return
    typer.secho(opened.name, bold=True, nl=False)
    typer.echo(f"  {opened.directory}")
    if session is not None:
        typer.echo(f"Session {session.id} is {session.state}: {', '.join(map(str, session.watch))}")
    if running is not None:
        typer.echo(f"{running.name} is at work.")
    rows = {stage: [job.name, state_of(job), counts(job)] for stage, job in stages.items()}
    if running is not None:
        rows |= {node: live_row(running.job_state(node)) for node in running.nodes}
    if rows:
        heading("Jobs")
        print_table(
            ["job", "RELION job", "status", "tilt series"],
            [[stage, *row] for stage, row in rows.items()],
            status_columns=[2],
        )
    else:
        typer.echo("Nothing has run yet.")
    told = tuple(stage for stage, job in stages.items() if job.series)
    table = series_table(told, series_by_stage(stages), {}, arriving, taken, expected)
    if table:
        columns, lines = cells(told, table)
        heading("Tilt series")
        print_table(columns, lines, status_columns=range(1, len(columns)))
    print_not_used(arriving)
    wrong = failures(stages)
    if wrong:
        heading("What went wrong")
        for line in wrong:
            typer.echo(f"  {line}")


def print_not_used(arriving: Arriving | None) -> None:
    """What came from the microscope and is not used, with reasons; of many the first ones."""
    from crboost.overview import not_used

    lines = not_used(arriving)
    if arriving is None or not lines:
        return
    counts = [(len(arriving.left_out), "tilt series", "tilt series")]
    counts.append((arriving.rejected_count, "file", "files"))
    heading(f"Not used: {', '.join(counted(*one) for one in counts if one[0])}")
    for line in lines[:SHOWN_NOT_USED]:
        typer.echo(f"  {line}")
    more = len(arriving.left_out) + arriving.rejected_count - SHOWN_NOT_USED
    if more > 0:
        typer.echo(f"  and {more} more: --json shows them")


def not_used_values(arriving: Arriving | None) -> dict[str, object]:
    """The same for programs."""
    if arriving is None:
        return {"left_out": [], "rejected": {}, "rejected_count": 0}
    return {
        "left_out": [asdict(one) for one in arriving.left_out],
        "rejected": arriving.rejected,
        "rejected_count": arriving.rejected_count,
    }


def run_of(past: PastJob) -> str | None:
    """The run that made a job; RELION's own jobs keep it in the path of their submit script."""
    parts = past.parameters.get("qsub", "").split("/")
    return past.run or (parts[2] if parts[:2] == [".crboost", "runs"] and len(parts) > 3 else None)


def at_work_values(running: Run | None, node: str) -> dict[str, object]:
    """How a job stands in the run at work: it may wait there, though the ledger has it running."""
    if running is None or node not in running.nodes:
        return {}
    return {"status": running.job_state(node).phase}


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
