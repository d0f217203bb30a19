"""`crboost status`: jobs, tilt series by stage, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.terminal import heading, print_json, print_table

if TYPE_CHECKING:
    from crboost.history import PastJob
    from crboost.run import JobState

NOT_YET = "-"


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


def latest(history: Sequence[PastJob]) -> dict[str, PastJob]:
    """The newest job of each node, however it ended, in the order of the work.

    Jobs that somebody ran from RELION's GUI stand under the name of their type; those of types
    that crboost never starts count where they made something that it works on.
    """
    newest: dict[str, PastJob] = {}
    for past in sorted(history, key=lambda one: one.number):
        if rank_of(past) is not None:
            newest[title_of(past)] = past
    return dict(sorted(newest.items(), key=lambda item: (rank_of(item[1]) or 0, item[0])))


def rank_of(past: PastJob) -> int | None:
    """A job's place in the catalogue's order; None where it has none."""
    from crboost.catalogue import CATALOGUE, label_matches

    for position, (name, job_type) in enumerate(CATALOGUE.items()):
        made = job_type.main_output.label
        if past.job_type == name or (
            past.job_type is None and any(label_matches(label, made) for _, label in past.outputs)
        ):
            return position
    return None


def title_of(past: PastJob) -> str:
    """What people call a job: its node, its type's name, or RELION's name of its type."""
    return past.node or past.job_type or past.relion_type


def run_of(past: PastJob) -> str | None:
    """The run that made a job; RELION's own jobs keep it in the path of their submit script."""
    parts = past.parameters.get("qsub", "").split("/")
    return past.run or (parts[2] if parts[:2] == [".crboost", "runs"] and len(parts) > 3 else None)


def state_of(job: PastJob) -> str:
    """The ledger's status in words; a job that is Running without a process is not."""
    if job.status in ("Running", "Scheduled") and not job.alive:
        return "waiting" if job.status == "Scheduled" else "interrupted"
    return job.status.lower()


def live_row(state: JobState) -> list[str]:
    """RELION job, state and progress of a job whose run is at work."""
    from crboost.cli.follow import progress

    done = progress(state) if state.total else NOT_YET
    return [(state.job or NOT_YET).rstrip("/"), state.phase, done]


def counts(job: PastJob) -> str:
    """`2 done, 1 failed`."""
    states = [record.status for record in job.series.values()]
    words = [f"{states.count(word)} {word}" for word in ("done", "failed", "skipped")]
    return ", ".join(word for word in words if not word.startswith("0 ")) or NOT_YET


def series_by_stage(stages: Mapping[str, PastJob]) -> dict[str, dict[str, str]]:
    """Tilt series -> stage -> done, failed, skipped or `-`.

    Of RELION's own jobs those are done that their output names; a job that tells nothing of tilt
    series has no column.
    """
    stages = {stage: job for stage, job in stages.items() if job.series}
    names = sorted({name for job in stages.values() for name in job.series})
    return {
        name: {
            stage: job.series[name].status if name in job.series else NOT_YET
            for stage, job in stages.items()
        }
        for name in names
    }


def failures(stages: Mapping[str, PastJob]) -> list[str]:
    """One line for each job and each tilt series that failed."""
    lines = []
    for stage, job in stages.items():
        if job.failure:
            lines.append(f"{stage} ({job.name}): {job.failure}")
        lines += [f"{name} in {stage}: {reason}" for name, reason in job.failed_series.items()]
    return lines


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
