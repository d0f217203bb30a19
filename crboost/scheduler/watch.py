"""Nobody waits for a job that is gone: whether a job lives, and a watch over a whole scheme.

`relion_schemer` waits for ever for a job that ended without a marker. The process that holds the
schemer looks at the current job now and then, and ends it where it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crboost.errors import CrboostError
from crboost.job_directory import SCRIPTS, is_driver_alive
from crboost.relion.job import read_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import read_scheme
from crboost.relion.schemer.launch import end_without_marker
from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.outcome import GoneWatch, state_of_job
from crboost.scheduler.submitted import scheduler_job_id
from crboost.settings import SchedulerSettings

#: How long a driver on this machine may take from its start to its lock.
DRIVER_START_S = 20.0


def job_alive(scheduler: SchedulerSettings, ask: Ask = ask_slurm) -> Callable[[Path], bool]:
    """Whether the job in a directory still runs, here or under the scheduler.

    A scheduler that cannot be asked, or does not know yet, counts as alive: to wait too long is
    better than to start a job twice.
    """

    def alive(job_dir: Path) -> bool:
        if is_driver_alive(job_dir):
            return True
        if scheduler.kind != "slurm":
            return False
        state = state_of_job(job_dir, ask)
        return state is not None and state.alive is not False

    return alive


@dataclass
class SchemeWatch:
    """Looks at the current job of a scheme; call it every second or so while a schemer works.

    Attributes:
        scheduler: whom to ask for a job that was submitted.
        say: gets a line when a job was ended.
    """

    scheduler: SchedulerSettings
    say: Callable[[str], None] = print
    ask: Ask = ask_slurm
    clock: Callable[[], float] = time.monotonic
    _job: str | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)
    _gone: GoneWatch | None = field(default=None, init=False)

    def __call__(self, project_dir: Path, scheme_name: str) -> None:
        """Look once; what cannot be read now is looked at the next time."""
        try:
            self._look(project_dir, scheme_name)
        except (CrboostError, OSError):
            return  # a file in the middle of being written

    def _look(self, project_dir: Path, scheme_name: str) -> None:
        scheme = read_scheme(project_dir, scheme_name)
        entry = scheme.jobs.get(scheme.current_node)
        name = entry.current_name if entry is not None and entry.has_started else None
        process = read_ledger(project_dir).process(name) if name else None
        if name is None or process is None or process.status is not Status.RUNNING:
            self._job = None
            return
        job_dir = project_dir / name
        if name != self._job:
            self._job, self._since, self._gone = name, self.clock(), None
        if read_marker(job_dir) is not None:
            return
        ended = self._submitted(job_dir) if self._is_queued(job_dir) else self._local(job_dir)
        if ended is not None:
            self.say(f"crboost: {name} is gone and left no marker; wrote {ended}")

    def _is_queued(self, job_dir: Path) -> bool:
        return self.scheduler.kind != "local" and read_job(job_dir / "job.star").do_queue

    def _submitted(self, job_dir: Path) -> Marker | None:
        if self.scheduler.kind != "slurm" or scheduler_job_id(job_dir) is None:
            return None
        if self._gone is None:
            self._gone = GoneWatch(
                job_dir, poll_s=self.scheduler.poll_s, ask=self.ask, clock=self.clock
            )
        return self._gone.look()

    def _local(self, job_dir: Path) -> Marker | None:
        """A driver of ours on this machine shows that it lives by its lock."""
        is_ours = read_job(job_dir / "job.star").option("fn_exe").startswith(SCRIPTS)
        if not is_ours or is_driver_alive(job_dir):
            self._since = self.clock()
            return None
        if self.clock() - self._since < DRIVER_START_S or read_marker(job_dir) is not None:
            return None
        return end_without_marker(job_dir, "the job's process is gone")
