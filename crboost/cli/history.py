"""`crboost history`: every job in RELION's ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.status import job_values, run_of
from crboost.cli.terminal import print_json, print_table, seconds
from crboost.standing import counts, state_of, title_of

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
            [
                {
                    **job_values(job),
                    "relion_type": job.relion_type,
                    "started": times(opened.directory, job)[0],
                }
                for job in jobs
            ]
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
                title_of(job),
                state_of(job),
                counts(job),
                *times(opened.directory, job),
                run_of(job) or "-",
            ]
            for job in jobs
        ],
        status_columns=[2],
    )


def times(project: Path, job: PastJob) -> tuple[str, str]:
    """When a job started (local time) and how long it took.

    Our driver records both; of RELION's own jobs the submission and the exit marker tell.
    """
    from datetime import datetime

    from crboost.job_directory import read_job_file

    record = read_job_file(project / job.name)
    given = record.get("started")
    started = datetime.fromisoformat(given).timestamp() if given else None
    took = record.get("resources", {}).get("wall_seconds")
    if not record:
        started, took = native_times(project / job.name)
    return (
        f"{datetime.fromtimestamp(started):%Y-%m-%d %H:%M}" if started is not None else "-",
        seconds(took) if took is not None else "-",
    )


def native_times(directory: Path) -> tuple[float | None, float | None]:
    """Start (seconds since 1970) and duration of a job that RELION itself ran.

    The start is the batch script's word where the job was queued, else RELION's last entry in
    `note.txt`; the end is when the exit marker was made.
    """
    from crboost.relion.markers import read_marker

    started = _batch_start(directory) or _noted_start(directory)
    marker = read_marker(directory)
    if started is None or marker is None:
        return started, None
    ended = (directory / marker).stat().st_mtime
    return started, ended - started if ended >= started else None


def _batch_start(directory: Path) -> float | None:
    from crboost.errors import FileFormatError
    from crboost.files import read_json

    path = directory / "submission_started.json"
    try:
        return float(read_json(path)["started_unix"]) if path.is_file() else None
    except (FileFormatError, KeyError, TypeError, ValueError):
        return None


def _noted_start(directory: Path) -> float | None:
    """The time in the last `++++ Executing new job on Sun Nov 22 21:26:09 2026`."""
    import re
    from datetime import datetime

    path = directory / "note.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.findall(r"^ \+{4} Executing .* on \w{3} (\w{3} +\d+ [\d:]{8} \d{4})", text, re.M)
    try:
        return datetime.strptime(found[-1], "%b %d %H:%M:%S %Y").timestamp() if found else None
    except ValueError:
        return None
