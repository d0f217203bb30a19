"""What became of a Slurm job, in Slurm's own words, and what those mean for a run.

| Slurm's state | phase | kind of failure | why |
|---|---|---|---|
| PENDING, CONFIGURING, EXPEDITING, POWER_UP_NODE | pending | | waits, or its nodes boot |
| REQUEUED, REQUEUE_FED, REQUEUE_HOLD, RESV_DEL_HOLD, SPECIAL_EXIT | pending | | will start again |
| RUNNING, SUSPENDED, STOPPED, RESIZING, SIGNALING | running | | has its nodes |
| COMPLETING, STAGE_OUT, UPDATE_DB | running | | how it ended is not settled yet |
| COMPLETED | succeeded | | the batch script ended with 0 (the marker decides, not this) |
| FAILED | failed | tool_error | the script's exit code; killed if that, or a signal, says so |
| OUT_OF_MEMORY | failed | out_of_memory | also where only a step says so, or the code is 125 |
| TIMEOUT | failed | time_limit | more time may help |
| NODE_FAIL, BOOT_FAIL, LAUNCH_FAILED, RECONFIG_FAIL | failed | node_failure | others may do |
| PREEMPTED | failed | preempted | the same job may run later |
| CANCELLED | failed | aborted | somebody wanted it to stop: no retry |
| DEADLINE | failed | aborted | it can no longer end in time: no retry |
| REVOKED | unknown | | another cluster of a federation has it |
| (controller: no such job) | forgotten | killed | over, and nobody recorded how |
| (no answer, or none that fits) | unknown | | never taken for an end |
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from crboost.failure import Failure, FailureKind
from crboost.scheduler.ask import Answer, Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.slurm_text import (
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    Record,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)

Phase = Literal["pending", "running", "succeeded", "failed", "forgotten", "unknown"]

_PHASES: dict[str, tuple[Phase, FailureKind | None]] = {
    **dict.fromkeys(
        (
            "PENDING",
            "CONFIGURING",
            "EXPEDITING",
            "POWER_UP_NODE",
            "REQUEUED",
            "REQUEUE_FED",
            "REQUEUE_HOLD",
            "RESV_DEL_HOLD",
            "SPECIAL_EXIT",
        ),
        ("pending", None),
    ),
    **dict.fromkeys(
        (
            "RUNNING",
            "SUSPENDED",
            "STOPPED",
            "RESIZING",
            "SIGNALING",
            "COMPLETING",
            "STAGE_OUT",
            "UPDATE_DB",
        ),
        ("running", None),
    ),
    "COMPLETED": ("succeeded", None),
    "FAILED": ("failed", "tool_error"),
    "OUT_OF_MEMORY": ("failed", "out_of_memory"),
    "TIMEOUT": ("failed", "time_limit"),
    **dict.fromkeys(
        ("NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL"), ("failed", "node_failure")
    ),
    "PREEMPTED": ("failed", "preempted"),
    "CANCELLED": ("failed", "aborted"),
    "DEADLINE": ("failed", "aborted"),
    "REVOKED": ("unknown", None),
}

#: Slurm's exit code and signal for a step that the kernel killed for its memory.
_OOM = 125

#: Reasons for which a job will wait until somebody does something.
WAITS_FOR_SOMEBODY = frozenset(
    (
        "PartitionTimeLimit",
        "PartitionNodeLimit",
        "PartitionConfig",
        "PartitionDown",
        "PartitionInactive",
        "BadConstraints",
        "DependencyNeverSatisfied",
        "JobHeldUser",
        "JobHeldAdmin",
        "JobHoldMaxRequeue",
        "InvalidAccount",
        "InvalidQOS",
        "AccountNotAllowed",
        "QOSNotAllowed",
        "MaxMemPerLimit",
        "AssocMaxCpuPerJobLimit",
        "AssocMaxNodePerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "AssocMaxMemPerJob",
        "QOSMaxCpuPerJobLimit",
        "QOSMaxNodePerJobLimit",
        "QOSMaxWallDurationPerJobLimit",
        "QOSMaxMemoryPerJob",
        "ReservationDeleted",
        "ReservationInvalid",
    )
)


@dataclass(frozen=True)
class JobState:
    """Where a submitted job stands.

    Attributes:
        state: Slurm's word; empty if it has none.
        kind: of the failure, if it failed.
        message: one line for a person.
        source: which command said it.
    """

    job_id: str
    phase: Phase
    state: str = ""
    reason: str = ""
    kind: FailureKind | None = None
    message: str = ""
    source: str = ""
    record: Record | None = None

    @property
    def alive(self) -> bool | None:
        """Whether the scheduler still has the job; None if that is not known."""
        if self.phase == "unknown":
            return None
        return self.phase in ("pending", "running")

    @property
    def waits_for_somebody(self) -> bool:
        """Whether the job will not start until somebody changes something."""
        return self.phase == "pending" and self.reason in WAITS_FOR_SOMEBODY

    @property
    def failure(self) -> Failure | None:
        """Why it failed, if it did."""
        return Failure(self.kind, self.message) if self.kind is not None else None


# --- what records mean -----------------------------------------------------------------------


def interpret(records: Iterable[Record], source: str) -> JobState | None:
    """The state of one job (or one task of an array) from its record and those of its steps.

    Returns:
        None if there is no record of the job itself.
    """
    every = list(records)
    job = next((record for record in every if not record.step), None)
    if job is None:
        return None
    phase, kind = _PHASES.get(job.state, ("unknown", None))
    steps = [record for record in every if record.step]
    if phase == "failed":
        kind = _kind(job, steps, kind)
    message = _message(job, phase, kind)
    return JobState(job.job_id, phase, job.state, job.reason, kind, message, source, job)


def _kind(job: Record, steps: list[Record], kind: FailureKind | None) -> FailureKind | None:
    """A failed job's kind of failure: a step may know better than the job."""
    if job.state == "FAILED":
        oom = any(step.state == "OUT_OF_MEMORY" for step in steps)
        if oom or _OOM in (job.signal, job.derived_signal):
            return "out_of_memory"
        if job.signal or (job.exit_code or 0) in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
            return "killed"
    return kind


def _message(job: Record, phase: Phase, kind: FailureKind | None) -> str:
    name = f"Slurm job {job.job_id}"
    where = f" on {job.nodes}" if job.nodes else ""
    if phase == "pending":
        why = f": {job.reason}" if job.reason else ""
        return f"{name} waits ({job.state.lower()}){why}"
    if phase == "running":
        return f"{name} is {job.state.lower()}{where}"
    if phase == "succeeded":
        return f"{name} has completed{where}"
    if phase == "unknown":
        return f"{name} is in the state {job.state or '?'}"
    by = f" by user {job.by}" if job.by else ""
    ended = f"{name} ({job.state}) "
    words: dict[FailureKind, str] = {
        "out_of_memory": f"was killed{where}: it used more memory than the "
        f"{job.memory or 'share'} that it had asked for",
        "time_limit": f"was killed{where} at its time limit of {job.time_limit or '?'} "
        f"after {job.elapsed}",
        "node_failure": f"was lost: the node{where.replace(' on', '')} failed",
        "preempted": f"was preempted{where} by a job of higher priority",
        "aborted": f"was cancelled{by}{where} after {job.elapsed}"
        if job.state == "CANCELLED"
        else f"was ended: it could not meet its deadline ({job.reason})",
        "killed": f"was killed{where} ({_exit_words(job)})",
        "tool_error": f"failed{where} ({_exit_words(job)})",
    }
    return ended + words[kind or "tool_error"]


def _exit_words(job: Record) -> str:
    number = job.signal or max(0, (job.exit_code or 0) - 128)
    try:
        name = signal.Signals(number).name if number else ""
    except ValueError:
        name = f"signal {number}"
    if job.signal:
        return name
    code = f"exit code {job.exit_code}" if job.exit_code is not None else job.reason or "no reason"
    return f"{code}: {name}" if name else code


def interpret_all(records: Iterable[Record], source: str) -> dict[str, JobState]:
    """The state of every job and every task of an array, by the number that Slurm shows."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.job_id, []).append(record)
    found = {name: interpret(group, source) for name, group in groups.items()}
    return {name: state for name, state in found.items() if state is not None}


_ORDER: tuple[Phase, ...] = ("running", "pending", "unknown", "failed", "forgotten", "succeeded")


def combined(job_id: str, states: Iterable[JobState]) -> JobState | None:
    """An array as one job: alive while a task is, failed if one failed. None of nothing."""
    every = sorted(states, key=lambda state: _ORDER.index(state.phase))
    if not every:
        return None
    first = every[0]
    if len(every) == 1:
        return first
    count = sum(state.phase == first.phase for state in every)
    return JobState(
        job_id,
        first.phase,
        first.state,
        first.reason,
        first.kind,
        f"{count} of {len(every)} tasks {first.phase}; {first.message}",
        first.source,
        first.record,
    )


#: What slurmstepd writes into a job's error output, and what it means.
_IN_LOG: tuple[tuple[str, FailureKind], ...] = (
    (r"oom[-_ ]kill event|[Ee]xceeded (job |step )?memory limit|Out Of Memory", "out_of_memory"),
    (r"CANCELLED AT \S+ DUE TO TIME LIMIT", "time_limit"),
    (r"CANCELLED AT \S+ DUE TO NODE FAILURE", "node_failure"),
    (r"CANCELLED AT \S+ DUE TO PREEMPTION", "preempted"),
    (r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT ", "aborted"),
)


def said_in_log(log_tail: str) -> Failure | None:
    """What slurmstepd said of the job's end in its error output; the last word counts."""
    for line in reversed(log_tail.splitlines()):
        if "slurmstepd" not in line:
            continue
        for pattern, kind in _IN_LOG:
            if re.search(pattern, line):
                return Failure(kind, line.strip(), log_tail)
    return None


# --- asking ----------------------------------------------------------------------------------


def job_state(job_id: str, ask: Ask = ask_slurm) -> JobState:
    """Where a job stands: sacct's word if it has one, else the controller's.

    For an array's number: all of its tasks together.
    """
    states, problem = _ask(job_id, ask)
    state = combined(job_id, states.values())
    if state is not None:
        return state
    if problem is None:
        message = f"Slurm no longer knows job {job_id}, and nobody recorded how it ended"
        return JobState(job_id, "forgotten", kind="killed", message=message, source="scontrol")
    return JobState(job_id, "unknown", message=f"Slurm gives no answer on job {job_id}: {problem}")


def array_states(job_id: str, ask: Ask = ask_slurm) -> dict[str, JobState]:
    """The state of every task of an array, by task (`3`, or `5-7%2` for some that wait).

    Empty if Slurm does not answer.
    """
    states, _ = _ask(job_id, ask)
    return {
        state.record.task: state
        for state in states.values()
        if state.record is not None and state.record.task
    }


def _about(job_id: str, records: list[Record], source: str) -> dict[str, JobState]:
    """The states of this job: by the number shown, else by the array's, else by the raw one."""
    states = interpret_all(records, source)
    if job_id in states:
        return {job_id: states[job_id]}
    for attribute in ("array_id", "raw_id"):
        found = {
            name: state
            for name, state in states.items()
            if state.record is not None and getattr(state.record, attribute) == job_id
        }
        if found:
            return found
    return {}


def _ask(job_id: str, ask: Ask) -> tuple[dict[str, JobState], str | None]:
    """(what is known, why there is no answer); nothing and None: the job is certainly gone."""
    accounted = ask(["sacct", "--parsable2", f"--jobs={job_id}", f"--format={SACCT_FIELDS}"])
    known: dict[str, JobState] = {}
    if accounted.code == 0:
        known = _about(job_id, parse_sacct(accounted.out), "sacct")
    if known and not any(state.alive or state.alive is None for state in known.values()):
        return known, None
    controller = ask(["scontrol", "show", "job", job_id])
    if controller.code == 0:
        # Of a job that is not over the controller knows more: why it waits, that it is ending.
        current = _about(job_id, parse_scontrol(controller.out), "scontrol")
        if current:
            return {**known, **current}, None
    if _no_such_job(controller):
        # The database may never have heard of the end of a job that it still calls running.
        over = {name: one for name, one in known.items() if one.alive is False}
        return over, None
    if known:
        return known, None
    queue = ask(
        ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={SQUEUE_FORMAT}"]
    )
    if queue.code == 0:
        current = _about(job_id, parse_squeue(queue.out), "squeue")
        if current:
            return current, None
    said = next(
        (
            line.strip()
            for answer in (controller, queue, accounted)
            for line in answer.err.splitlines()
            if line.strip()
        ),
        "no error message",
    )
    return {}, said


def _no_such_job(answer: Answer) -> bool:
    return answer.code != 0 and "Invalid job id specified" in answer.err + answer.out


def submission_alive(job_id: str, ask: Ask = ask_slurm) -> bool | None:
    """Whether Slurm still has the job; None if it cannot say now. For `WalkerOptions`."""
    return job_state(job_id, ask).alive


def why_ended(
    job_id: str,
    *,
    log_tail: str = "",
    patience_s: float = 0.0,
    ask: Ask = ask_slurm,
    sleep: Callable[[float], None] = time.sleep,
) -> Failure | None:
    """Why a job failed, if Slurm or slurmstepd can say.

    Args:
        log_tail: the end of the job's run.err.
        patience_s: a job's marker appears before Slurm has settled the job's state: how long to
            ask again while Slurm still calls it running.

    Returns:
        None if Slurm does not know, or does not call it a failure.
    """
    waited = 0.0
    while True:
        state = job_state(job_id, ask)
        if not state.alive or waited >= patience_s:
            break
        sleep(min(1.0, patience_s - waited))
        waited += 1.0
    told = said_in_log(log_tail)
    failure = state.failure
    if failure is None:
        return told if state.phase == "unknown" else None
    # Slurm forgets; and where accounting polls memory, it cancels what used too much.
    if told is not None and state.kind in ("killed", "aborted", "tool_error"):
        return Failure(told.kind, f"{failure.message}: {told.message}", log_tail)
    return Failure(failure.kind, failure.message, log_tail)
