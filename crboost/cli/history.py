"""`crboost history`: every job in RELION's ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.status import counts, job_values, state_of
from crboost.cli.terminal import print_json, print_table, seconds

if TYPE_CHECKING:
    from pathlib import Path

    from crboost.history import PastJob


def history(project: ProjectPath, as_json: AsJson = False) -> None:
    """List every job in RELION's ledger, oldest first, those from RELION's GUI included."""
    from crboost.project import Project

    opened = Project.open(project)
    jobs = sorted(opened.history(), key=lambda job: job.number)
    if as_json:
        print_json(
            [{**job_values(job), "started": times(opened.directory, job)[0]} for job in jobs]
        )
        return
    if not jobs:
        typer.echo("Nothing has run yet.")
        return
    print_table(
        ["RELION job", "job", "status", "tilt series", "started", "took", "run"],
        [
            [
                job.name,
                job.node or job.relion_type,
                state_of(job),
                counts(job),
                *times(opened.directory, job),
                job.run or "-",
            ]
            for job in jobs
        ],
        status_columns=[2],
    )


def times(project: Path, job: PastJob) -> tuple[str, str]:
    """When a job started (local time) and how long it took, as its driver recorded it."""
    from datetime import datetime

    from crboost.job_directory import read_job_file

    record = read_job_file(project / job.name)
    started = record.get("started")
    took = record.get("resources", {}).get("wall_seconds")
    return (
        f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M}" if started else "-",
        seconds(took) if took is not None else "-",
    )
