"""The driver of a job whose tilt series are tasks of a Slurm array: it submits them, and waits.

It computes nothing, so that it may be killed at any time: the tasks go on, and the next driver of
the same job finds them by the files in `<job>/tasks/` and waits for them. How a tilt series ended
is read from its result file; Slurm is asked only for the word on a task that left none.
"""

from __future__ import annotations

import re
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from crboost.array_directory import (
    TASKS,
    Batch,
    Round,
    batch_job_id,
    batches_of,
    new_batch,
    new_round,
    read_round,
    result_times,
    submit_batch,
    void_batch,
    write_round,
)
from crboost.driver import Aborted, Request
from crboost.errors import CrboostError
from crboost.failure import RETRYABLE, Failure, FailureKind
from crboost.files import read_json
from crboost.generate import ARRAY_FILE
from crboost.job_directory import FAILURE_FILE, read_failure, tail
from crboost.relion.markers import ABORT_NOW
from crboost.results import ResultReader, SeriesResult, result_file, write_result
from crboost.scheduler.array import (
    ArraySpec,
    Queue,
    array_queue,
    cancel_tasks,
    group_state,
    max_array_size,
    slices,
)
from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.resources import Resources, with_more
from crboost.scheduler.state import WAITS_FOR_SOMEBODY, job_state, why_ended
from crboost.settings import SchedulerSettings, Settings

Log = Callable[[str], None]

#: How long a result file may take to be seen here after its task has gone.
GRACE_S = 15.0
#: How often result files are looked for, at most.
LOOK_S = 5.0
#: How long cancelled tasks are waited for.
CANCEL_S = 60.0
#: sbatch's words where a user may not have so many jobs.
_TOO_MANY = r"MaxSubmit|violates accounting/QOS policy|Job array size"


def array_of(snapshot: Path, node: str) -> ArraySpec | None:
    """How a job's tilt series become tasks; None where the job works on them itself.

    Args:
        snapshot: the run's frozen parameters.
    """
    path = snapshot.parent / node / ARRAY_FILE
    return ArraySpec.from_dict(read_json(path)) if path.is_file() else None


# --- deciding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What follows from the end of a task that left no result of a tilt series.

    Attributes:
        again: what another try asks for; None: the tilt series has failed.
        words: for the log, and for the result of a tilt series that has failed.
        redo: it failed for a reason outside it.
    """

    again: Resources | None
    words: str
    redo: bool = False


def judge(
    failure: Failure,
    resources: Resources,
    *,
    tries: int,
    retries: int,
    scheduler: SchedulerSettings,
) -> Verdict:
    """Whether a task is tried again, and with what.

    Args:
        tries: how often the tilt series has been tried so far, this time included.
        retries: how often it may be tried again.
    """
    words = failure.message.splitlines()[0] if failure.message else failure.kind
    limit = failure.kind in ("out_of_memory", "time_limit")
    # Asking for more than the site gives would not help the next time either.
    redo = (failure.kind in RETRYABLE or failure.kind == "aborted") and not limit
    if failure.kind not in RETRYABLE or tries > retries:
        return Verdict(None, words, redo)
    if not limit:
        return Verdict(resources, words)
    more = with_more(resources, failure.kind, scheduler)
    if more is None:
        return Verdict(None, f"{words}; the site allows no more", redo)
    return Verdict(more[0], f"{words}; {more[1]}")


def tasks_to_cancel(batch: Batch, wanted: Mapping[str, str]) -> set[int]:
    """Tasks whose tilt series are no longer wanted as they were when it was submitted."""
    return {
        number
        for number, task in enumerate(batch.tasks)
        if any(wanted.get(name, batch.series[name]) != batch.series[name] for name in task)
    }


def grouped(names: Sequence[str], per_task: int) -> list[list[str]]:
    """The tilt series of each task."""
    return [list(names[start : start + per_task]) for start in range(0, len(names), per_task)]


def task_command(request: Request, python: str, directory: str, workers: int) -> str:
    """The shell line of a task: what RELION's line was for the job, and where the task finds which.

    Args:
        directory: of the batch, project-relative.
    """
    argv = [python, "-P", "-m", "crboost", "job", "series"]
    argv += ["--snapshot", str(request.snapshot.relative_to(request.project))]
    argv += ["--o", f"{request.job}/", "--node", request.node]
    if request.fingerprint:
        argv += ["--fingerprint", request.fingerprint]
    if request.input_star is not None:
        argv += ["--in_mics", request.input_star]
    for name, path in request.other_inputs.items():
        argv += [f"--{name}", path]
    return shlex.join([*argv, "--j", str(workers), "--batch", directory])


# --- doing ---------------------------------------------------------------------------------------


@dataclass
class Coordinator:
    """One job's array, from its first submission to the last result.

    Attributes:
        series: tilt series to do -> fingerprint of what its result will depend on.
        inputs: tilt series -> fingerprint of its input alone.
        retries: how often a tilt series may be tried again.
        stopped: whether the job was told to end.
        own_job: Slurm's number of the coordinator itself.
    """

    request: Request
    spec: ArraySpec
    settings: Settings
    series: Mapping[str, str]
    inputs: Mapping[str, str]
    retries: int
    log: Log
    stopped: Callable[[], bool] = lambda: False
    ask: Ask = ask_slurm
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    max_size: int | None = None
    own_job: str | None = None
    _round: Round = field(init=False)
    _batches: list[Batch] = field(default_factory=list, init=False)
    _again: dict[str, Resources] = field(default_factory=dict, init=False)
    _results: ResultReader = field(default_factory=ResultReader, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    @property
    def _job(self) -> Path:
        return self.request.directory

    def begin(self) -> str:
        """Find out whether an array of this job is still at work; else begin anew.

        Returns:
            When this was begun, ISO 8601.

        Raises:
            Aborted: RELION asked for an end; tasks that were at work are cancelled.
        """
        before = read_round(self._job)
        if before is not None and before.closed is None:
            self._round = before
            try:
                alive = self._outdated_cancelled(before)
            except Aborted:
                self._cancel_all()
                self._close("aborted")
                raise
            if alive or before.run == self.request.run:
                self._round = self._taken_over(before)
                return self._round.opened
        self._round = new_round(self._job, self.request.run, self.series, before)
        write_round(self._job, self._round)
        return self._round.opened

    def work(self) -> None:
        """Submit, wait, and submit again, until every tilt series has a result.

        Raises:
            CrboostError: Slurm refused the tasks.
            Aborted: RELION asked for an end; the tasks were cancelled.
            InterruptedError: this process was told to end; the tasks go on, unless the reason is
                that somebody cancelled the job.
        """
        try:
            self._batches = self._submitted()
            for batch in list(self._batches):
                self._follow(batch)
            while left := self._left():
                self._check()
                batch = self._submit(left)
                self._batches.append(batch)
                self._follow(batch)
        except Aborted:
            self._cancel_all()
            self._close("aborted")
            raise
        except InterruptedError:
            if self._is_cancelled():
                self.log("cancelled by scancel: so are the tasks")
                for number in self._numbers():
                    cancel_tasks(number, ask=self.ask)
                self._close("cancelled")
            raise
        except CrboostError:
            self._close("failed")
            raise
        self._close("done")

    # --- beginning ---------------------------------------------------------------------------

    def _outdated_cancelled(self, before: Round) -> bool:
        """Cancel tasks that work on what has changed since; whether others are at work."""
        others = False
        self._wait_for_slurm()
        for batch in batches_of(self._job, before.number):
            number = batch_job_id(self._job, batch, self.ask)
            if number is None:
                continue
            alive = self._queue(number).alive
            outdated = tasks_to_cancel(batch, self.series) & alive
            others = others or bool(alive - outdated)
            if outdated:
                self.log(f"Slurm job {number}: {len(outdated)} tasks are out of date; cancelled")
                cancel_tasks(number, outdated, self.ask)
                self._wait_until_gone(number, outdated)
        return others

    def _taken_over(self, before: Round) -> Round:
        """The open round, with what is to be done now."""
        # A round knows a tilt series that is done already; nothing is left to do of that.
        changed = {
            name: value for name, value in self.series.items() if before.series.get(name) != value
        }
        stale = {**before.stale, **result_times(self._job, changed)}
        taken = replace(before, series={**before.series, **changed}, stale=stale)
        write_round(self._job, taken)
        return taken

    def _submitted(self) -> list[Batch]:
        """The round's arrays so far; what was killed before it was submitted is none of them."""
        every = batches_of(self._job, self._round.number)
        if every:
            self._wait_for_slurm()
        found = [one for one in every if batch_job_id(self._job, one, self.ask) is not None]
        for one in every:
            if one not in found:
                void_batch(self._job, one)
        return found

    # --- submitting --------------------------------------------------------------------------

    def _left(self) -> list[str]:
        """Tilt series without a result that wait for a task, those that ask for the same."""
        results = self._new_results()
        left = [name for name in self.series if name not in results]
        first = next(iter(left), None)
        if first is None:
            return []
        asked = self._again.get(first, self.spec.resources)
        return [name for name in left if self._again.get(name, self.spec.resources) == asked]

    def _submit(self, names: Sequence[str]) -> Batch:
        """Submit as many of these tilt series as one array may hold."""
        if self.max_size is None:
            self.max_size = max_array_size(self.ask)
        resources = self._again.get(names[0], self.spec.resources)
        while True:
            tasks = slices(grouped(names, self.spec.per_task), self.max_size)[0]
            batch = new_batch(self._job, self._round.number, tasks, self.series, resources)
            directory = f"{self.request.job}/{TASKS}/{batch.name}"
            command = task_command(self.request, self.settings.python, directory, self.spec.workers)
            try:
                number = submit_batch(
                    self.request.project, self.request.job, batch, self.spec, self.settings, command
                )
            except CrboostError as error:
                void_batch(self._job, batch)
                if len(tasks) == 1 or not re.search(_TOO_MANY, error.message):
                    raise
                self.max_size = len(tasks) // 2
                self.log(f"{error.message}; trying {self.max_size} tasks at a time")
                continue
            break
        count = sum(map(len, tasks))
        rest = f", {len(names) - count} to follow" if count < len(names) else ""
        self.log(
            f"Slurm job {number}: {count} tilt series in {len(tasks)} tasks, "
            f"{self.spec.throttle} at once{rest} ({directory})"
        )
        return batch

    # --- waiting -----------------------------------------------------------------------------

    def _follow(self, batch: Batch) -> None:
        """Wait until each task has left its results, or is over without them and judged."""
        number = batch_job_id(self._job, batch, self.ask)
        mine = self._mine(batch)
        open_tasks = dict(enumerate(batch.tasks))
        gone_since: dict[int, float] = {}
        asked = looked = -1e9
        poll_s = self.settings.scheduler.poll_s
        while True:
            self._check()
            now = self.clock()
            if now - looked >= min(poll_s, LOOK_S):
                looked = now
                results = self._new_results()
                open_tasks = {
                    task: names
                    for task, names in open_tasks.items()
                    if any(name in mine and name not in results for name in names)
                }
                if not open_tasks:
                    return
            if number is not None and now - asked >= poll_s:
                asked = now
                queue = self._queue(number)
                self._say_why_it_waits(number, queue)
                for task in open_tasks:
                    if task in queue.alive:
                        gone_since.pop(task, None)
                    else:
                        gone_since.setdefault(task, now)
            over = [
                task
                for task in open_tasks
                if task in gone_since and self._may_be_judged(batch, task, now - gone_since[task])
            ]
            results = self._new_results() if over else {}
            for task in over:
                self._check()
                self._judge_task(number, batch, task, mine - results.keys())
                del open_tasks[task]
            self.sleep(0.5)

    def _mine(self, batch: Batch) -> set[str]:
        """Tilt series of a batch that wait for it: as it has them, and in no later one."""
        after = [one for one in self._batches if int(one.name) > int(batch.name)]
        later = {name for one in after for name in one.series}
        return {
            name
            for name, value in batch.series.items()
            if self.series.get(name) == value and name not in later
        }

    def _may_be_judged(self, batch: Batch, task: int, gone_s: float) -> bool:
        """A task that is over: results may be slow to be seen, unless it said why it has none."""
        said = (batch.task_directory(self._job, task) / FAILURE_FILE).exists()
        return said or gone_s >= GRACE_S

    def _judge_task(self, number: str | None, batch: Batch, task: int, mine: set[str]) -> None:
        """Decide on the tilt series of a task that ended without their results."""
        lost = [name for name in batch.tasks[task] if name in mine]
        if not lost:
            return
        failure = self._failure(number, batch, task)
        for name in lost:
            verdict = judge(
                failure,
                batch.resources,
                tries=self._tries(name),
                retries=self.retries,
                scheduler=self.settings.scheduler,
            )
            if verdict.again is not None:
                self._again[name] = verdict.again
                self.log(f"{name}: {verdict.words}; will be tried again")
                continue
            log = f"{self.request.job}/{TASKS}/{batch.name}/{task}/run.err"
            self._write_failure(name, f"{verdict.words} (log: {log})", verdict.redo)

    def _failure(self, number: str | None, batch: Batch, task: int) -> Failure:
        """Why a task ended: its own words, or Slurm's where it was killed."""
        directory = batch.task_directory(self._job, task)
        log_tail = tail(directory / "run.err")
        said = read_failure(directory)
        own = _own_words(said, log_tail)
        if own is not None and own.kind != "killed":
            return own
        if number is None:
            return Failure("killed", "the task was never submitted", log_tail)
        name = f"{number}_{task}"
        told = why_ended(name, log_tail=log_tail, patience_s=10.0, ask=self.ask, sleep=self.sleep)
        if told is None or told.kind == "killed":
            group = group_state(number, task, self.ask)
            told = group.failure if group is not None and group.failure is not None else told
        known = told if told is not None else own
        if known is not None:
            return known
        state = job_state(name, self.ask)
        if state.phase == "succeeded":
            return Failure("tool_error", f"Slurm job {name} left no result", log_tail)
        return Failure("killed", state.message or f"Slurm job {name} is gone", log_tail)

    def _tries(self, name: str) -> int:
        """How often a tilt series has been tried as it is."""
        return sum(one.series.get(name) == self.series[name] for one in self._batches)

    def _write_failure(self, name: str, reason: str, redo: bool) -> None:
        write_result(
            self._job,
            SeriesResult(
                tilt_series=name,
                status="failed",
                reason=reason,
                redo=redo,
                fingerprint=self.series[name],
                input_fingerprint=self.inputs[name],
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                host=socket.gethostname(),
            ),
        )

    def _new_results(self) -> dict[str, SeriesResult]:
        """Results that were made in this round, of what is to be done; told in the log once."""
        read = self._results.read(self._job)
        found = {
            name: result
            for name, result in read.items()
            if self.series.get(name) == result.fingerprint and self._is_new(name)
        }
        for name, result in found.items():
            if name not in self._said:
                self._said.add(name)
                end = f": {result.reason}" if result.reason else ""
                self.log(
                    f"[{len(self._said)}/{len(self.series)}] {name} {result.status}{end} "
                    f"({result.seconds:.1f} s on {result.host})"
                )
        return found

    def _is_new(self, name: str) -> bool:
        try:
            time_ns = result_file(self._job, name).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        return self._round.stale.get(name) != time_ns

    # --- Slurm -------------------------------------------------------------------------------

    def _wait_for_slurm(self) -> None:
        while self.ask(["squeue", "--noheader", "--me", "--format=%i"]).code != 0:
            self._say_once("Slurm does not answer; asking again")
            self._check()
            self.sleep(min(self.settings.scheduler.poll_s, GRACE_S))

    def _queue(self, number: str) -> Queue:
        """What of an array is alive; waits until Slurm tells."""
        while True:
            queue = array_queue(number, self.ask)
            if queue is not None:
                return queue
            self._say_once(f"Slurm does not answer on job {number}; asking again")
            self._check()
            self.sleep(min(self.settings.scheduler.poll_s, GRACE_S))

    def _say_why_it_waits(self, number: str | None, queue: Queue) -> None:
        if queue.waiting and queue.reason in WAITS_FOR_SOMEBODY:
            self._say_once(
                f"Slurm job {number} waits ({queue.reason}): it will not start until somebody "
                "changes something"
            )

    def _say_once(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            self.log(words)

    def _check(self) -> None:
        if (self._job / ABORT_NOW).exists():
            raise Aborted
        if self.stopped():
            raise InterruptedError("stopped")

    def _is_cancelled(self) -> bool:
        """Whether somebody took this job out of Slurm, rather than a limit or a lost node."""
        if self.own_job is None:
            return False
        return job_state(self.own_job, self.ask).state == "CANCELLED"

    def _numbers(self) -> list[str]:
        """Slurm's numbers of the round's arrays."""
        every = batches_of(self._job, self._round.number)
        numbers = [batch_job_id(self._job, one, self.ask) for one in every]
        return [number for number in numbers if number is not None]

    def _cancel_all(self) -> None:
        for number in self._numbers():
            queue = array_queue(number, self.ask)
            if queue is not None and queue.alive:
                cancel_tasks(number, ask=self.ask)
                self._wait_until_gone(number, queue.alive, within_s=CANCEL_S)

    def _wait_until_gone(
        self, number: str, tasks: frozenset[int] | set[int], within_s: float | None = None
    ) -> None:
        """Wait until none of these tasks is alive."""
        started = self.clock()
        while within_s is None or self.clock() - started < within_s:
            if within_s is None:
                self._check()
            queue = array_queue(number, self.ask)
            if queue is not None and not queue.alive & tasks:
                return
            self.sleep(1.0)

    def _close(self, how: str) -> None:
        self._round = replace(self._round, closed=how)
        write_round(self._job, self._round)


def _own_words(said: tuple[str, str] | None, log_tail: str) -> Failure | None:
    """The failure that a task could still tell."""
    if said is None:
        return None
    kinds: Mapping[str, FailureKind] = {
        "out_of_memory": "out_of_memory",
        "killed": "killed",
        "bad_input": "bad_input",
        "bug": "bug",
        "aborted": "aborted",
    }
    return Failure(kinds.get(said[0], "tool_error"), said[1], log_tail)


def run_array(
    request: Request,
    spec: ArraySpec,
    settings: Settings,
    *,
    series: Mapping[str, str],
    inputs: Mapping[str, str],
    retries: int,
    stopped: Callable[[], bool],
    begun: Callable[[str], None],
    log: Log,
    own_job: str | None = None,
) -> None:
    """Do these tilt series as tasks; returns when each of them has a result.

    Args:
        begun: is told when what is being done was begun, perhaps by another driver.

    See `Coordinator` for the other arguments, and `Coordinator.work` for what it raises.
    """
    coordinator = Coordinator(
        request, spec, settings, series, inputs, retries, log, stopped, own_job=own_job
    )
    begun(coordinator.begin())
    coordinator.work()


def end_leftover_tasks(request: Request, log: Log, ask: Ask = ask_slurm) -> None:
    """Cancel tasks of a job that now does its tilt series itself; nothing is done twice."""
    before = read_round(request.directory)
    if before is None or before.closed is not None:
        return
    for batch in batches_of(request.directory, before.number):
        number = batch_job_id(request.directory, batch, ask)
        while number is not None:
            queue = array_queue(number, ask)
            if queue is not None and not queue.alive:
                break
            log(f"Slurm job {number}: tasks of an earlier start are cancelled")
            cancel_tasks(number, ask=ask)
            time.sleep(2.0)
    write_round(request.directory, replace(before, closed="cancelled"))
