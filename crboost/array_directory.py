"""`<job>/tasks/`: what a job that runs its tilt series as tasks of a Slurm array keeps on disk.

```
tasks/round.json        what is to be done now: tilt series, their fingerprints; open until it is
tasks/<n>/batch.json    one array: the tilt series of each of its tasks, and what a task asks for
tasks/<n>/run_submit.script, submission.txt     as in any job's directory
tasks/<n>/<task>/       run.out, run.err, and failure.json where the task could say why it failed
tasks/locks/            one lock file for each tilt series
```

All that a coordinator knows is in these files: another one can go on at any time.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from crboost.containers import schemer_environment
from crboost.errors import CrboostError, FileFormatError
from crboost.files import read_json, write_json, write_text
from crboost.job_directory import tail
from crboost.relion.job import SUBMIT_SCRIPT, Submission, external_job, fill_submission_script
from crboost.results import result_file
from crboost.scheduler.array import ArraySpec, array_directive
from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.resources import Resources, extra_values
from crboost.scheduler.submission import submit_script
from crboost.scheduler.submitted import find_in_queue, read_submitted
from crboost.settings import Settings

TASKS = "tasks"
ROUND_FILE = "round.json"
BATCH_FILE = "batch.json"
TASK_VARIABLE = "SLURM_ARRAY_TASK_ID"


@dataclass(frozen=True)
class Round:
    """What a job has to do since it was last started anew.

    Attributes:
        run: the run that started it.
        opened: when, ISO 8601.
        series: tilt series -> fingerprint of what its result will depend on.
        stale: results that were there before: tilt series -> time of the file, ns.
        closed: how it ended; None while it is at work.
    """

    number: int
    run: str
    opened: str
    series: Mapping[str, str]
    stale: Mapping[str, int] = field(default_factory=dict)
    closed: str | None = None


@dataclass(frozen=True)
class Batch:
    """One array that was submitted.

    Attributes:
        name: of its directory below `tasks/`.
        round: of which it is a part.
        tasks: the tilt series of each task.
        series: tilt series -> fingerprint.
        resources: what each task asks for.
    """

    name: str
    round: int
    tasks: Sequence[Sequence[str]]
    series: Mapping[str, str]
    resources: Resources

    def directory(self, job: Path) -> Path:
        """Where its files are."""
        return job / TASKS / self.name

    def task_directory(self, job: Path, task: int) -> Path:
        """Where the files of one of its tasks are."""
        return self.directory(job) / str(task)


# --- rounds --------------------------------------------------------------------------------------


def read_round(job: Path) -> Round | None:
    """The job's last round; None if it never had one.

    Raises:
        FileFormatError: the file is damaged.
    """
    path = job / TASKS / ROUND_FILE
    if not path.is_file():
        return None
    try:
        return Round(**read_json(path))
    except TypeError as error:
        raise FileFormatError(path, f"not a round of tasks: {error}") from error


def write_round(job: Path, one: Round) -> None:
    """Write a round, whole or not at all."""
    write_json(job / TASKS / ROUND_FILE, asdict(one))


def new_round(job: Path, run: str, series: Mapping[str, str], before: Round | None) -> Round:
    """A round that begins now; not written yet."""
    number = before.number + 1 if before is not None else 1
    opened = datetime.now(UTC).isoformat(timespec="seconds")
    return Round(number, run, opened, dict(series), result_times(job, series))


def result_times(job: Path, series: Iterable[str]) -> dict[str, int]:
    """The times of the result files that are there, ns."""
    found: dict[str, int] = {}
    for name in series:
        try:
            found[name] = result_file(job, name).stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return found


# --- batches -------------------------------------------------------------------------------------


def read_batch(directory: Path) -> Batch:
    """The array that was submitted from a directory.

    Raises:
        FileFormatError: the file is damaged.
    """
    path = directory / BATCH_FILE
    value = read_json(path)
    try:
        return Batch(**{**value, "resources": Resources.from_dict(value["resources"])})
    except (KeyError, TypeError) as error:
        raise FileFormatError(path, f"not a batch of tasks: {error}") from error


def batches_of(job: Path, number: int) -> list[Batch]:
    """The arrays of a round, in the order in which they were submitted."""
    found = [read_batch(path.parent) for path in (job / TASKS).glob(f"*/{BATCH_FILE}")]
    return sorted((one for one in found if one.round == number), key=lambda one: int(one.name))


def new_batch(
    job: Path, number: int, tasks: Sequence[Sequence[str]], series: Mapping[str, str],
    resources: Resources,
) -> Batch:  # fmt: skip
    """A further array of a round, with a directory for itself and each task."""
    names = [int(path.name) for path in (job / TASKS).glob("[0-9]*") if path.name.isdigit()]
    mine = {name: series[name] for task in tasks for name in task}
    batch = Batch(str(max(names, default=0) + 1), number, tasks, mine, resources)
    for task in range(len(tasks)):  # Slurm makes no directories for its output files
        batch.task_directory(job, task).mkdir(parents=True)
    value = {**asdict(batch), "resources": resources.to_dict()}
    write_json(batch.directory(job) / BATCH_FILE, value)
    return batch


def void_batch(job: Path, batch: Batch) -> None:
    """Let a batch that was never submitted be none; what it was is kept beside it."""
    directory = batch.directory(job)
    (directory / BATCH_FILE).replace(directory / f"refused_{BATCH_FILE}")


def batch_job_id(job: Path, batch: Batch, ask: Ask = ask_slurm) -> str | None:
    """The array's number in Slurm; None if it was refused, or never submitted."""
    submitted = read_submitted(batch.directory(job))
    if submitted is not None:
        return submitted.job_id
    # Whoever submitted it was killed before the answer could be kept.
    return find_in_queue(batch.directory(job), ask)


# --- submitting ----------------------------------------------------------------------------------


def task_script(
    template: str, directory: str, batch: Batch, spec: ArraySpec, settings: Settings, command: str
) -> str:
    """The script of an array, made of the template by which the site's jobs are submitted.

    Args:
        directory: of the batch, project-relative. What a template takes for the job's directory
            is the task's own below it.
        command: what a task does, as a shell line.
    """
    scheduler = settings.scheduler
    resources = batch.resources
    own = f"{directory}/${{{TASK_VARIABLE}}}/"
    job = external_job(
        "true",
        nr_threads=spec.workers,
        submission=Submission(
            command=scheduler.submit,
            template=spec.template,
            queue=resources.partition or "",
            min_dedicated=max(1, resources.cpus * resources.tasks // resources.nodes),
            extras=extra_values(resources, scheduler),
        ),
    )
    filled = fill_submission_script(template, job, own, command, schemer_environment(settings))
    # In directives nothing is a shell's; Slurm has a name of its own for the task.
    lines = [
        line.replace(f"${{{TASK_VARIABLE}}}", "%a") if line.startswith("#SBATCH") else line
        for line in filled.split("\n")
    ]
    return "\n".join([lines[0], array_directive(len(batch.tasks), spec.throttle), *lines[1:]])


def submit_batch(
    project: Path, job: str, batch: Batch, spec: ArraySpec, settings: Settings, command: str
) -> str:
    """Submit an array from this machine; its number.

    Args:
        job: the job's directory, project-relative.

    Raises:
        CrboostError: it was refused; with sbatch's own words.
    """
    directory = f"{job}/{TASKS}/{batch.name}"
    script = f"{directory}/{SUBMIT_SCRIPT}"
    template = (project / spec.template).read_text(encoding="utf-8")
    text = task_script(template, directory, batch, spec, settings, command)
    write_text(project / script, text)
    submit = submit_script(shlex.split(settings.scheduler.submit), "slurm")
    done = subprocess.run(
        ["sh", "-c", submit, "submit", script],
        cwd=project,
        env=submission_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    submitted = read_submitted(project / directory)
    if submitted is None or submitted.job_id is None:
        said = submitted.answer if submitted is not None else done.stderr or done.stdout
        said = said.strip() or tail(project / directory / "run.err", lines=2)
        raise CrboostError(
            f"the tasks of {job} could not be submitted from {os.uname().nodename}: {said}",
            hint="compute nodes must be able to submit jobs: `crboost doctor PROJECT --submit`, "
            "trial.array; or set scheduler.array = false",
        )
    return submitted.job_id


def submission_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What sbatch may see of a job's own environment, which would else become the tasks'."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("SLURM_", "SLURMD_", "SBATCH_"))
    }
    if "SLURM_CONF" in environ:
        kept["SLURM_CONF"] = environ["SLURM_CONF"]
    return {**kept, "SBATCH_EXPORT": "NONE"}


# --- locks ---------------------------------------------------------------------------------------


@contextmanager
def series_lock(job: Path, name: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold one tilt series of a job; the kernel gives it back, however its holder ends."""
    path = job / TASKS / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"{name}: another task is at work on it; waiting")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
