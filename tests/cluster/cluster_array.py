"""A project of tiny tilt series whose jobs run as Slurm arrays, and the means to disturb them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster_site import Site, slurm_jobs_below

from crboost.array_directory import Batch, batch_job_id, batches_of, read_round
from crboost.files import write_text
from crboost.plan import Mode
from crboost.project import Project
from crboost.results import SeriesResult, read_results
from crboost.run import Run
from crboost.scheduler.submitted import scheduler_job_id
from crboost.settings import load_settings

NODE = "fsMotionAndCtf"
JOB = "External/job002"

#: Does what a test wants in a task before its tilt series, and notes when that began and ended.
INTERPRETER = """\
#!/bin/bash
arguments=("$@")
if [ "$4" = job ] && [ "$5" = series ]; then  # -P -m crboost job series
  while [ $# -gt 0 ]; do case "$1" in --batch) batch=${{2##*/}} ;; esac; shift; done
  task=$SLURM_ARRAY_TASK_ID
  echo "start $batch $task $SLURM_ARRAY_JOB_ID $(date +%s.%N)" >> tasks.txt
  if [ -f behaviour.sh ]; then . ./behaviour.sh; fi
  {python} "${{arguments[@]}}"
  code=$?
  echo "end $batch $task $SLURM_ARRAY_JOB_ID $(date +%s.%N)" >> tasks.txt
  exit $code
fi
exec {python} "${{arguments[@]}}"
"""


@dataclass
class ArrayBench:
    """A project on a site.

    Attributes:
        schemers: processes that were started.
    """

    project: Project
    site: Site
    schemers: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """Of the project."""
        return self.project.directory

    @property
    def job(self) -> Path:
        """Of the job with the array."""
        return self.directory / JOB

    def behave(self, script: str) -> None:
        """Let tasks run shell lines (with $batch, $task) before their tilt series."""
        write_text(self.directory / "behaviour.sh", script)

    def make_run(self, mode: Mode = "new") -> Run:
        """A run of import and array; not started."""
        settings = load_settings()
        plan = self.project.plan(("importmovies", NODE), settings=settings, mode=mode)
        now = datetime.now().astimezone()
        return Run.create(self.project, plan, self.project.parameters(), settings, now=now)

    def start(self, run: Run) -> subprocess.Popen[str]:
        """Start the run's schemer, the embedded one."""
        argv = [sys.executable, "-P", "-m", "crboost", "schemer", "run"]
        process = subprocess.Popen(
            [*argv, str(self.directory), run.name],
            env=self.site.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.schemers.append(process)
        return process

    def run(self, mode: Mode = "new", timeout_s: float = 180) -> Run:
        """Run import and array to their end."""
        made = self.make_run(mode)
        said, _ = self.start(made).communicate(timeout=timeout_s)
        assert said is not None
        return made

    @property
    def log(self) -> str:
        """What the coordinator said."""
        path = self.job / "run.out"
        return path.read_text() if path.is_file() else ""

    @property
    def results(self) -> dict[str, SeriesResult]:
        """What became of the tilt series."""
        return read_results(self.job)

    @property
    def batches(self) -> list[Batch]:
        """The arrays of the job's last round."""
        now = read_round(self.job)
        return batches_of(self.job, now.number) if now is not None else []

    @property
    def arrays(self) -> list[str]:
        """Slurm's numbers of these."""
        return [batch_job_id(self.job, batch) or "" for batch in self.batches]

    @property
    def coordinator(self) -> str:
        """Slurm's number of the job that submitted them."""
        return scheduler_job_id(self.job) or ""

    def tasks(self, what: str = "start") -> list[tuple[str, int, float]]:
        """(batch, task, time) of what tasks noted."""
        path = self.directory / "tasks.txt"
        lines = path.read_text().splitlines() if path.is_file() else []
        words = [line.split() for line in lines]
        return [(one[1], int(one[2]), float(one[4])) for one in words if one[0] == what]

    def most_at_once(self) -> int:
        """How many tasks were at work at the same time."""
        steps = [(time, 1) for _, _, time in self.tasks("start")]
        steps += [(time, -1) for _, _, time in self.tasks("end")]
        most = now = 0
        for _, step in sorted(steps):
            now += step
            most = max(most, now)
        return most

    def clean_up(self) -> None:
        """End what is left of schemers and jobs; nothing that others started."""
        for process in self.schemers:
            if process.poll() is None:
                process.kill()
                process.communicate()
        for number in slurm_jobs_below(self.directory):
            subprocess.run(["scancel", "--quiet", number.split("_")[0]], check=False, timeout=30)


def directives(batch_directory: Path) -> dict[str, str]:
    """The directives of an array's script."""
    text = (batch_directory / "run_submit.script").read_text()
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH --" in line]
    return dict(line.partition("=")[::2] for line in lines)


def job_file(bench: ArrayBench) -> dict[str, Any]:
    """The coordinator's `crboost_job.json`."""
    value: dict[str, Any] = json.loads((bench.job / "crboost_job.json").read_text())
    return value
