"""Which number the scheduler gave a RELION job.

RELION prints the scheduler's answer and forgets it. So the run's `submit` script keeps it in the
job's directory (`submission.txt`), and the job's own script writes its number there when it starts
(`submission_started.json`). A job that was submitted by other means is looked for in the queue, by
the script that was submitted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import FileFormatError
from crboost.files import read_json
from crboost.relion.job import SUBMIT_SCRIPT
from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.slurm_text import SQUEUE_FORMAT, parse_squeue
from crboost.settings import SchedulerKind

SUBMITTED_FILE = "submission.txt"
STARTED_FILE = "submission_started.json"

_ID_IN_ANSWER: dict[str, str] = {
    "slurm": r"^Submitted batch job (\d+)|^(\d+)(?:;\S+)?$",  # the second is --parsable
    "pbs": r"^(\d+(?:\[\])?\S*)$",
    "sge": r"^Your job(?:-array)? (\d+)",
    "lsf": r"^Job <(\d+)> is submitted",
}


@dataclass(frozen=True)
class Submitted:
    """What the scheduler answered.

    Attributes:
        job_id: None: it refused.
        unix_time: when.
        answer: its words.
    """

    job_id: str | None
    unix_time: float
    answer: str


@dataclass(frozen=True)
class Started:
    """What the job's script wrote when it started."""

    job_id: str
    unix_time: float
    host: str


def submission_id(answer: str, kind: SchedulerKind = "slurm") -> str | None:
    """The job's number in what `sbatch`, `qsub` or `bsub` printed."""
    pattern = _ID_IN_ANSWER.get(kind)
    match = re.search(pattern, answer, re.MULTILINE) if pattern else None
    return next((group for group in match.groups() if group), None) if match else None


def parse_submitted(text: str) -> Submitted | None:
    """The content of a `submission.txt`; None if it is not one."""
    head, found, answer = text.partition("answer:\n")
    values = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if not found or not values.get("time", "").isdigit():
        return None
    refused = values.get("exit code") != "0"
    kind = values.get("scheduler", "slurm")
    job_id = None if refused else submission_id(answer, kind)  # type: ignore[arg-type]
    return Submitted(job_id, float(values["time"]), answer.strip())


def read_submitted(job_dir: Path) -> Submitted | None:
    """What the scheduler answered when the job was last submitted; None if nobody kept it."""
    try:
        text = (job_dir / SUBMITTED_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    return parse_submitted(text)


def read_started(job_dir: Path) -> Started | None:
    """What the job's script wrote when it last started; None while it has not.

    Raises:
        FileFormatError: the file is damaged.
    """
    path = job_dir / STARTED_FILE
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        return Started(str(value["id"]), float(value["started_unix"]), str(value["host"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(path, f"not what a job's script writes: {error}") from error


def scheduler_job_id(job_dir: Path) -> str | None:
    """The number of the job's last submission, from the files in its directory."""
    submitted = read_submitted(job_dir)
    started = read_started(job_dir)
    if started is not None and (submitted is None or started.unix_time >= submitted.unix_time):
        return started.job_id
    return submitted.job_id if submitted is not None else None


def find_in_queue(job_dir: Path, ask: Ask = ask_slurm) -> str | None:
    """The number of a job whose directory does not tell it: Slurm knows the submitted script.

    Args:
        job_dir: absolute.
    """
    script = os.path.realpath(job_dir / SUBMIT_SCRIPT)
    answer = ask(["squeue", "--noheader", "--states=all", "--me", f"--format={SQUEUE_FORMAT}"])
    if answer.code != 0:
        return None
    found = [
        record
        for record in parse_squeue(answer.out)
        if record.script and os.path.realpath(record.script) == script
    ]
    # The same script is submitted again by a retry: the last one counts.
    newest = max(found, key=lambda record: (record.submitted, int(record.raw_id)), default=None)
    return (newest.array_id or newest.raw_id) if newest is not None else None
