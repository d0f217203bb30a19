"""The empty files by which a RELION job says how it ended, and by which it is asked to stop."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

ABORT_NOW = "RELION_JOB_ABORT_NOW"


class Marker(StrEnum):
    """How a job ended; the value is the file's name."""

    SUCCESS = "RELION_JOB_EXIT_SUCCESS"
    FAILURE = "RELION_JOB_EXIT_FAILURE"
    ABORTED = "RELION_JOB_EXIT_ABORTED"


def read_marker(job_dir: Path) -> Marker | None:
    """How the job in `job_dir` ended; None while it has not said so.

    Of several markers the first of success, failure, aborted counts, as in RELION.
    """
    return next((marker for marker in Marker if (job_dir / marker).exists()), None)


def write_marker(job_dir: Path, marker: Marker) -> None:
    """Say how the job ended. Write it last: RELION acts on it at once."""
    (job_dir / marker).touch()


def clear_markers(job_dir: Path) -> None:
    """Remove every marker and the abort request, as RELION does before a job starts."""
    for name in (ABORT_NOW, *Marker):
        (job_dir / name).unlink(missing_ok=True)


def request_abort(directory: Path) -> None:
    """Ask the job (or the scheme) in `directory` to stop."""
    (directory / ABORT_NOW).touch()


def abort_requested(directory: Path) -> bool:
    """Whether the job (or the scheme) in `directory` was asked to stop."""
    return (directory / ABORT_NOW).exists()
