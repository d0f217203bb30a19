"""A RELION job and its submission: is it still there, why did it end; end it if it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crboost.failure import Failure
from crboost.files import write_json
from crboost.job_directory import FAILURE_FILE, tail
from crboost.relion.markers import Marker, read_marker
from crboost.relion.schemer.launch import end_without_marker
from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.state import JobState, job_state, submission_alive, why_ended
from crboost.scheduler.submitted import find_in_queue, scheduler_job_id
from crboost.settings import SchedulerSettings


def alive_check(
    scheduler: SchedulerSettings, ask: Ask = ask_slurm
) -> Callable[[str], bool | None] | None:
    """`WalkerOptions.submission_alive` for this scheduler; None where it cannot be asked."""
    if scheduler.kind != "slurm":
        return None
    return lambda job_id: submission_alive(job_id, ask)


def state_of_job(job_dir: Path, ask: Ask = ask_slurm) -> JobState | None:
    """Where the job's submission stands; None if it has none that can be found."""
    job_id = scheduler_job_id(job_dir) or find_in_queue(job_dir, ask)
    return job_state(job_id, ask) if job_id is not None else None


def scheduler_failure(
    job_dir: Path, *, patience_s: float = 10.0, ask: Ask = ask_slurm
) -> Failure | None:
    """What Slurm says of the end of a job that failed or was killed.

    Ask this where the job itself could not say why: it left no failure.json, or only that it was
    killed. None if Slurm knows nothing better.
    """
    job_id = scheduler_job_id(job_dir)
    if job_id is None:
        return None
    return why_ended(job_id, log_tail=tail(job_dir / "run.err"), patience_s=patience_s, ask=ask)


def cancel(job_dir: Path, ask: Ask = ask_slurm) -> str | None:
    """Take the job's submission out of Slurm, whether it waits or runs.

    A job that has not started cannot see an abort request. Its marker is `GoneWatch`'s business.

    Returns:
        None if that worked or there is nothing to cancel, else Slurm's message.
    """
    job_id = scheduler_job_id(job_dir) or find_in_queue(job_dir, ask)
    if job_id is None:
        return None
    answer = ask(["scancel", job_id])
    return None if answer.code == 0 else answer.err.strip() or f"exit code {answer.code}"


@dataclass
class GoneWatch:
    """Ends a job that the scheduler no longer has and that left no marker.

    `relion_schemer` would wait for it for ever. One watch belongs to one job; call `look` now and
    then from the loop that follows the job.

    Attributes:
        grace_s: how long a marker may take to appear on this file system after the end.
        poll_s: how often the scheduler is asked.
    """

    job_dir: Path
    grace_s: float = 15.0
    poll_s: float = 30.0
    ask: Ask = ask_slurm
    clock: Callable[[], float] = time.monotonic
    _asked: float | None = field(default=None, init=False)
    _gone_since: float | None = field(default=None, init=False)

    def look(self) -> Marker | None:
        """The job's marker; written here, with the reason in run.err, if the job is gone."""
        marker = read_marker(self.job_dir)
        now = self.clock()
        interval = self.poll_s if self._gone_since is None else min(self.poll_s, self.grace_s)
        if marker is not None or (self._asked is not None and now - self._asked < interval):
            return marker
        self._asked = now
        state = state_of_job(self.job_dir, self.ask)
        if state is None or state.alive is not False:
            self._gone_since = None
            return None
        if self._gone_since is None:
            self._gone_since = now
        if now - self._gone_since < self.grace_s:
            return None
        marker = read_marker(self.job_dir)
        if marker is not None:
            return marker
        if state.kind is not None and not (self.job_dir / FAILURE_FILE).exists():
            failure = {"kind": state.kind, "message": state.message}
            write_json(self.job_dir / FAILURE_FILE, failure)
        return end_without_marker(self.job_dir, state.message)
