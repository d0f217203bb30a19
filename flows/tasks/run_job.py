"""One RELION job as one Prefect task: start it or join it, follow it, judge it, retry it.

The job itself runs under the detached schemer and needs nothing of this process. The task
reads files: the ledger and the job's marker say how it stands, its logs what it prints. So
the task may be killed and started again at any moment, in this flow run or in another one,
and finds the job where it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import httpx
from prefect import Task, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectException
from prefect.runtime import task_run
from prefect_shell import ShellOperation  # type: ignore[import-untyped]

from crboost.relion.schemer.recovery import Action
from flows.tasks.follow import FileTail, pause_seconds
from flows.tasks.keys import artifact_key
from flows.tasks.waker import Waker

if TYPE_CHECKING:
    from crboost.run import Failure, JobState, Run
    from crboost.settings import EngineName

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

POLL_SECONDS = 1.0
START_TIMEOUT_SECONDS = 60.0
END_TIMEOUT_SECONDS = 60.0
SCHEMER_RESTARTS = 3
PROGRESS_SECONDS = 5.0
QUEUE_SECONDS = 60.0

Step = Literal["done", "failed", "start", "lost", "wait"]


class JobFailed(Exception):
    """A RELION job failed; the message begins with the job's own error text.

    Attributes:
        node: the job's name in the run.
        run_name: the run that it belongs to.
        job: RELION's job directory, project-relative; None if it never got one.
        kind: the class of the failure.
        changed: what the retry policy changed for the next attempt; None: no next attempt.
    """

    def __init__(
        self,
        failure: Failure,
        *,
        node: str,
        run_name: str,
        job: str | None,
        changed: str | None = None,
    ) -> None:
        super().__init__(failure_text(failure.message, failure.kind, node, job))
        self.failure = failure
        self.node = node
        self.run_name = run_name
        self.job = job
        self.kind = failure.kind
        self.changed = changed


def failure_text(message: str, kind: str, node: str, job: str | None) -> str:
    """The job's own words first, then which job it was and what kind of failure."""
    own = message.strip() or "The job gave no reason."
    where = f"{node} ({job.rstrip('/')})" if job else node
    return f"{own}\n{where} failed: {kind.replace('_', ' ')}"


@dataclass(frozen=True)
class Sight:
    """What one look at the files showed.

    Attributes:
        phase: of the job.
        alive: whether the run's schemer is alive.
        started: whether this attempt has started a schemer, or found one alive.
        attempt: 1, or more on a retry.
        restarts: how often this task has started a schemer in this attempt.
        waited_seconds: how long the job has been failed while its schemer lives on.
    """

    phase: str
    alive: bool
    started: bool = False
    attempt: int = 1
    restarts: int = 0
    waited_seconds: float = 0.0


def next_step(sight: Sight) -> Step:
    """Decide what to do next about a job, from one look at it.

    A job is done when its files say so, whatever became of the schemer. A failed one is
    failed only once its schemer has gone (a retry must not find two of them), and on a retry
    only after a new schemer has had its turn: until then the failure is the old one.
    """
    if sight.phase == "succeeded":
        return "done"
    if sight.phase in ("failed", "aborted") and (sight.attempt == 1 or sight.started):
        ended = not sight.alive or sight.waited_seconds >= END_TIMEOUT_SECONDS
        return "failed" if ended else "wait"
    if sight.alive:
        return "wait"
    return "lost" if sight.restarts > SCHEMER_RESTARTS else "start"


def worth_retrying(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: only when the retry policy has changed something."""
    error = state.data
    return isinstance(error, JobFailed) and error.changed is not None


@task(
    name="run_job",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=worth_retrying,
    description="Start or join one RELION job, follow it to its end, decide by its files.",
)
def run_job(run: Run, node: str, engine: EngineName, after: JobState | None = None) -> JobState:
    """Bring one job of a run to its end and return its final state.

    Args:
        run: the run, generated or joined.
        node: which of its jobs.
        engine: who walks the scheme when no schemer is at work.
        after: the job before it in the queue; Prefect draws the order from it.

    Raises:
        JobFailed: the job failed, was aborted, or no schemer could be kept alive for it.
    """
    log = get_run_logger()
    attempt = max(1, int(task_run.run_count or 1))
    progress = Progress(run, node)
    state = follow_job(run, node, engine, attempt=attempt, log=log, progress=progress)
    if state.phase == "succeeded":
        return state
    failure = run.explain(state) or _unexplained(state)
    changed = run.prepare_retry(node, failure, attempt + 1)
    if changed is not None:
        log.warning("%s: attempt %d follows: %s", node, attempt + 1, changed)
    raise JobFailed(failure, node=node, run_name=run.name, job=state.job, changed=changed)


def follow_job(
    run: Run,
    node: str,
    engine: EngineName,
    *,
    attempt: int,
    log: Log,
    progress: Callable[[JobState], None],
) -> JobState:
    """Follow one job to its end, keeping a schemer alive for it; returns the final state."""
    began = time.monotonic()
    logs = _JobLogs(run, node, log, skip_present=attempt > 1)
    started, restarts = False, 0
    failed_since: float | None = None
    announced: str | None = None
    queue = _QueueWords()
    with Waker() as waker:
        while True:
            waker.watch(run.watch_paths(node))
            # The schemer first: one that ends in between has written the state before.
            alive = run.schemer_alive()
            state = run.job_state(node)
            started = started or alive
            if state.phase not in ("failed", "aborted") or not started:
                failed_since = None
            elif failed_since is None:
                failed_since = time.monotonic()
            logs.at(state.job)
            if state.job and state.phase == "running" and announced != state.job:
                announced = state.job
                log.info("%s is RELION job %s", node, state.job.rstrip("/"))
            progress(state)
            waited = 0.0 if failed_since is None else time.monotonic() - failed_since
            step = next_step(
                Sight(state.phase, alive, started, attempt, restarts, waited),
            )
            if step in ("done", "failed"):
                logs.send(final=True)
                log.info(
                    "%s %s in %s after %.0f s (%d done, %d failed, %d skipped)",
                    node, state.phase, (state.job or "no job").rstrip("/"),
                    time.monotonic() - began, state.done, state.failed, state.skipped,
                )  # fmt: skip
                return state
            if step == "lost":
                logs.send(final=True)
                return _without_schemer(run, state, restarts)
            if step == "start":
                recovery = recover(run, log)
                if recovery in (Action.FAIL, Action.ADVANCE):
                    continue  # the job has an end now: look again
                if recovery not in (Action.HELD, Action.WAIT):
                    if restarts:
                        log.warning("The schemer of %s is gone: starting it again", run.name)
                        time.sleep(min(10.0, restarts))
                    started = start_schemer(run, engine, log) or started
                    restarts += 1
                    continue
            if logs.due(time.monotonic() - began):
                logs.send()
            if state.phase == "running" and queue.due():
                queue.tell(run.queue_words(state), log)
            waker.wait(POLL_SECONDS)


def start_schemer(run: Run, engine: EngineName, log: Log) -> bool:
    """Start the run's detached holder through prefect-shell and wait until it holds the project.

    The shell ends at once; the holder is in a session of its own, so that neither closing
    the operation nor killing this process reaches it.

    Returns:
        Whether it got to work (it may have ended already). If not, the schemer's log says why.
    """
    operation = ShellOperation(
        commands=["exec 2>&1", "set -euo pipefail", run.start_shell_line(engine)],
        working_dir=run.project.directory,
        stream_output=False,
    )
    with operation:
        process = operation.trigger()
        process.wait_for_completion()
        code, printed = process.return_code, process.fetch_result()
        if code or not printed or not printed[-1].strip().isdigit():
            log.warning("The schemer was not started (%s): %s", code, " ".join(printed))
            return False
        # Closing the operation ends the shell's process group, in which the holder still is
        # until it has made its own session: stay until it has the lock.
        return _wait_for_holder(run, int(printed[-1]), log)


def _wait_for_holder(run: Run, pid: int, log: Log) -> bool:
    """Wait until the process holds the project, or has gone; whether it ever did."""
    from crboost.relion.schemer.holder import holder_state

    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        gone = not Path(f"/proc/{pid}").exists()
        state = holder_state(run.project.directory, run.name)
        if state.pid == pid and (state.alive or gone):
            return True
        if gone:
            # Refused: another flow's schemer for this run was quicker, or it could not start.
            return run.schemer_alive()
        time.sleep(0.05)
    log.warning("The schemer did not take the project's lock in %g s", START_TIMEOUT_SECONDS)
    return False


def recover(run: Run, log: Log) -> Action | None:
    """Repair what a dead schemer left; what was found, None when none has ever been started."""
    recovery = run.recover()
    if recovery is None:
        return None
    for message in recovery.messages:
        log.warning("%s", message)
    return recovery.action


class Progress:
    """Tilt series done of all, as one Prefect progress artifact that is updated sparingly."""

    def __init__(self, run: Run, node: str) -> None:
        self._key = artifact_key(run.project.directory, node)
        self._node = node
        self._artifact: UUID | None = None
        self._sent: tuple[int, int, int] | None = None
        self._sent_at = 0.0
        self._broken = False

    def __call__(self, state: JobState) -> None:
        """Tell Prefect when something changed and the last telling is some seconds ago."""
        now = (state.done, state.failed, state.skipped)
        ended = state.phase in ("succeeded", "failed", "aborted")
        early = time.monotonic() - self._sent_at < PROGRESS_SECONDS
        if not state.total or now == self._sent or (early and not ended) or self._broken:
            return
        percent, text = progress_text(self._node, state)
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, key=self._key, description=text)
                self._artifact = created  # type: ignore[assignment]
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except (httpx.HTTPError, PrefectException) as error:
            # Progress is a courtesy: an unreachable server must not end the task.
            self._broken = True
            get_run_logger().warning("No more progress reports for this job: %s", error)
        self._sent, self._sent_at = now, time.monotonic()


def progress_text(node: str, state: JobState) -> tuple[float, str]:
    """Percent and the sentence beside it."""
    finished = state.done + state.failed + state.skipped
    extra = [
        f"{count} {word}"
        for count, word in ((state.failed, "failed"), (state.skipped, "already there"))
        if count
    ]
    text = f"{node}: {finished} of {state.total} tilt series"
    if extra:
        text += f" ({', '.join(extra)})"
    return 100.0 * min(1.0, finished / state.total), text


class _QueueWords:
    """Says why a submitted job has not started, when that changes; asks once in a while."""

    def __init__(self) -> None:
        self._asked_at = time.monotonic()
        self._said: str | None = None

    def due(self) -> bool:
        """Whether to ask the scheduler again."""
        return time.monotonic() - self._asked_at >= QUEUE_SECONDS

    def tell(self, words: str | None, log: Log) -> None:
        """Log the words if they are news."""
        self._asked_at = time.monotonic()
        if words is not None and words != self._said:
            log.warning("%s", words)
        self._said = words


class _JobLogs:
    """The job's run.out and run.err, sent as bounded records."""

    def __init__(self, run: Run, node: str, log: Log, *, skip_present: bool) -> None:
        self._project = run.project.directory
        # A job that is continued appends to what it has written before.
        self._before = run.log_sizes_before(node)
        self._log = log
        self._skip_present = skip_present
        self._job: str | None = None
        self._tails: list[tuple[int, FileTail]] = []
        self._sent_at = time.monotonic()

    def at(self, job: str | None) -> None:
        """Follow the logs of this job directory from now on."""
        if job is None or job == self._job:
            return
        self.send(final=True)
        self._job = job
        self._tails = [
            (
                level,
                FileTail(
                    self._project / job / name,
                    source=f"{job}{name}",
                    begin=self._before.get(name, 0),
                    skip_present=self._skip_present,
                ),
            )
            for level, name in ((logging.INFO, "run.out"), (logging.WARNING, "run.err"))
        ]

    def due(self, running_seconds: float) -> bool:
        """Whether it is time for the next record."""
        return time.monotonic() - self._sent_at >= pause_seconds(running_seconds)

    def send(self, *, final: bool = False) -> None:
        """Send what is new, one record per file."""
        self._sent_at = time.monotonic()
        for level, tail in self._tails:
            text = tail.read(final=final)
            if text:
                self._log.log(level, "%s", text)


def _unexplained(state: JobState) -> Failure:
    from crboost.run import Failure

    aborted = state.phase == "aborted"
    return Failure(
        kind="aborted" if aborted else "tool_error",
        message="The job was aborted." if aborted else "The job failed and left no reason.",
        log_tail="",
    )


def _without_schemer(run: Run, state: JobState, restarts: int) -> JobState:
    """The state of a job for which no schemer could be kept alive."""
    from crboost.run import Failure

    words = schemer_words(run)
    message = words or "The schemer ended before the job did and left no message."
    failure = Failure(
        kind="schemer",
        message=f"{message}\nStarted {restarts} times; its log: {run.directory}/schemer.err",
        log_tail=words,
    )
    return replace(state, phase="failed", failure=failure)


def schemer_words(run: Run) -> str:
    """The message that the run's schemer ended with; else the last one in its logs."""
    from crboost.job_directory import tail
    from crboost.relion.schemer.holder import ERR_FILE, OUT_FILE, holder_state

    error = holder_state(run.project.directory, run.name).error
    if error:
        return error.strip()
    logs = (last_message(tail(run.directory / name, lines=8)) for name in (ERR_FILE, OUT_FILE))
    return next((text for text in logs if text), "")


def last_message(log: str) -> str:
    """The last message of a log: its last line, with the hint or detail lines that follow it."""
    lines = [line for line in log.splitlines() if line.strip()]
    start = len(lines) - 1
    while start > 0 and (lines[start][0].isspace() or lines[start].startswith("->")):
        start -= 1
    return "\n".join(lines[max(0, start) :]).strip()
