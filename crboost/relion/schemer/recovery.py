"""What to do with a scheme whose schemer is gone.

`relion_schemer` would run the current job again even if it has succeeded meanwhile. What works
with both engines: remove the stale lock, and put the current node behind a job that has ended
well; a job that still runs is waited for, one that died without a word has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from crboost.errors import SchemerError
from crboost.relion.job import JOB_FILE
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import UNDEFINED, Scheme, read_scheme, scheme_dir, write_scheme
from crboost.relion.schemer.holder import (
    active_scheme,
    clear_scheme_lock,
    end_engine,
    project_lock,
)
from crboost.relion.schemer.launch import end_without_marker, has_processes
from crboost.relion.schemer.walker import settle


class Action(StrEnum):
    """What recovery found to do."""

    HELD = "held"  # a schemer is at work: follow it
    START = "start"  # the current node has not started: start the schemer
    WAIT = "wait"  # the current job runs on by itself: wait, then recover again
    ADVANCE = "advance"  # the current job succeeded: go on behind it
    FAIL = "fail"  # the current job died without a word
    RERUN = "rerun"  # the current job failed or was aborted: a start runs it again in place


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found and done.

    Attributes:
        action: what was done; after HELD and WAIT the caller has to wait.
        node: the scheme's current node when recovery began.
        job_name: the job's directory (`External/job003/`), if the node has one.
        next_node: the scheme's current node now.
        at_end: nothing is left to run: starting a schemer would be an error.
        messages: each thing that was done, for the run's record.
    """

    action: Action
    node: str
    job_name: str | None = None
    next_node: str = UNDEFINED
    at_end: bool = False
    messages: tuple[str, ...] = ()


def decide(*, has_started: bool, marker: Marker | None, alive: bool) -> Action:
    """What to do about a scheme's current node when no schemer runs; pure.

    Args:
        has_started: the node is a job that the scheme says has started.
        marker: how that job says it ended.
        alive: whether a process of it, or a submission, still exists.
    """
    if not has_started:
        return Action.START
    if marker is Marker.SUCCESS:
        return Action.ADVANCE
    if marker is not None:
        return Action.RERUN
    return Action.WAIT if alive else Action.FAIL


def recover(project_dir: Path, scheme_name: str, is_job_alive: Callable[[Path], bool]) -> Recovery:
    """Bring a scheme whose schemer is gone into a state from which any engine goes on rightly.

    Safe to call at any time and from several processes: while a schemer or another recovery
    holds the project nothing is touched.

    Args:
        is_job_alive: whether the job in this directory still runs somewhere (its driver's lock,
            the scheduler). Processes that the embedded schemer started on this machine are
            known without it.

    Raises:
        SchemerError: another program has locked the scheme.
    """
    scheme = read_scheme(project_dir, scheme_name)
    if active_scheme(project_dir) is not None:
        return Recovery(Action.HELD, scheme.current_node, next_node=scheme.current_node)
    try:
        with project_lock(project_dir, scheme_name, "recover"):
            return _recover(project_dir, scheme_name, is_job_alive)
    except SchemerError:
        if active_scheme(project_dir) is not None:
            return Recovery(Action.HELD, scheme.current_node, next_node=scheme.current_node)
        raise


def _recover(project_dir: Path, scheme_name: str, is_job_alive: Callable[[Path], bool]) -> Recovery:
    messages = []
    if end_engine(project_dir, scheme_name):
        messages.append(f"ended the relion_schemer of {scheme_name}, whose holder is gone")
    if clear_scheme_lock(project_dir, scheme_name):
        messages.append(f"removed the lock that a dead schemer left on {scheme_name}")
    scheme = read_scheme(project_dir, scheme_name)
    node = scheme.current_node
    job = scheme.jobs.get(node)
    if job is None or not job.has_started:
        action = decide(has_started=False, marker=None, alive=False)
        return Recovery(
            action, node, next_node=node, at_end=_is_end(scheme, node), messages=tuple(messages)
        )
    job_dir = project_dir / job.current_name
    marker = read_marker(job_dir)
    alive = marker is None and (has_processes(job_dir) or is_job_alive(job_dir))
    # The job may have ended between the two looks.
    marker = marker or read_marker(job_dir)
    started = _started_in_this_run(project_dir, scheme_name, node, job.current_name, marker)
    action = decide(has_started=started, marker=marker, alive=alive)
    if action is Action.FAIL:
        job_dir.mkdir(parents=True, exist_ok=True)
        ended = end_without_marker(job_dir, "the job's process is gone (so is the schemer)")
        messages.append(f"{job.current_name} ended without a word: wrote {ended}")
    if action is not Action.WAIT:
        messages += _settle(project_dir, job.current_name)
    if action is Action.ADVANCE:
        messages.append(_advance(project_dir, scheme, job.current_name))
    now = scheme.current_node
    end = _is_end(scheme, now)
    return Recovery(action, node, job.current_name, now, end, tuple(messages))


def _started_in_this_run(
    project_dir: Path, scheme_name: str, node: str, job_name: str, marker: Marker | None
) -> bool:
    """Whether the job was started by this scheme, as it stands now.

    A job that a run is to continue in its old directory counts as started in scheme.star from
    the beginning. Until the schemer reaches it, the ledger still has its former end, and its
    marker is older than the job file that the scheme has for it.
    """
    process = read_ledger(project_dir).process(job_name)
    if process is None or process.status in (Status.RUNNING, Status.SCHEDULED):
        return True
    if marker is None:
        return False
    order = scheme_dir(project_dir, scheme_name) / node / JOB_FILE
    ended = project_dir / job_name / marker
    try:
        return ended.stat().st_mtime_ns >= order.stat().st_mtime_ns
    except FileNotFoundError:
        return True


def _is_end(scheme: Scheme, node: str) -> bool:
    operator = scheme.operators.get(node)
    return node == UNDEFINED or (operator is not None and operator.type == "exit")


def _settle(project_dir: Path, job_name: str) -> list[str]:
    before = read_ledger(project_dir).process(job_name)
    after = settle(project_dir).process(job_name)
    if before is None or after is None or before.status is after.status:
        return []
    was: Status = before.status
    return [f"{job_name} is {after.status} in the ledger (was {was})"]


def _advance(project_dir: Path, scheme: Scheme, job_name: str) -> str:
    scheme.current_node = scheme.next_node()
    write_scheme(project_dir, scheme)
    return f"{job_name} had succeeded: the scheme goes on at {scheme.current_node}"
