"""Start a job's command and learn how it ends.

A command started here runs in a session of its own and outlives the schemer. It inherits a
locked file in the job's directory: whoever can lock that file knows that no process of the job
runs any more, whatever became of the schemer (the kernel releases the lock, and a process id
cannot lie in it).
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import SchemerError
from crboost.relion.job import SUBMIT_SCRIPT, Job, local_shell_line
from crboost.relion.markers import Marker, abort_requested, read_marker, write_marker
from crboost.relion.schemer.events import Wakeup

RUNNING_LOCK = ".running.lock"
_SUBMITTED = re.compile(r"\b(\d+)\b")


@dataclass(slots=True)
class Running:
    """A job that was started.

    Attributes:
        process: the command's process; None for a job that a scheduler has.
        submission: what the scheduler called the job, for instance `25`; None for a local job.
    """

    job_dir: Path
    process: subprocess.Popen[bytes] | None = None
    submission: str | None = None


def start_local(
    project_dir: Path,
    job_name: str,
    command: str,
    environ: Mapping[str, str],
    *,
    grace_s: float = 10.0,
) -> Running:
    """Run the command by the shell in the project directory, detached from this process.

    Args:
        grace_s: how long processes of the job's last start may take to end.

    Raises:
        SchemerError: they did not end.
    """
    job_dir = project_dir / job_name
    lock = os.open(job_dir / RUNNING_LOCK, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _lock_within(lock, grace_s, job_name)
        os.write(lock, b"held by the processes of this job while they run\n")
        process = subprocess.Popen(
            ["/bin/sh", "-c", local_shell_line(command, job_name)],
            cwd=project_dir,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),
        )
    finally:
        os.close(lock)
    return Running(job_dir, process=process)


def _lock_within(lock: int, grace_s: float, job_name: str) -> None:
    deadline = time.monotonic() + grace_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SchemerError(
                    f"{job_name}: a process of this job's last start still runs",
                    hint="wait for it, or abort the job",
                ) from None
            time.sleep(0.05)


def submit(
    project_dir: Path,
    job_name: str,
    job: Job,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> Running:
    """Hand the job's script to the scheduler; a refusal fails the job.

    RELION submits in the background and waits for ever when that fails.
    """
    job_dir = project_dir / job_name
    line = f"{job.option('qsub')} {job_name}{SUBMIT_SCRIPT}"
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=project_dir,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )
    answer = done.stdout.strip()
    if answer:
        say(answer)
    if done.returncode != 0:
        end_with(
            job_dir, Marker.FAILURE, f"'{line}' {describe_exit(done.returncode)}: {answer or '-'}"
        )
        return Running(job_dir)
    numbers = _SUBMITTED.findall(answer)
    return Running(job_dir, submission=numbers[-1] if numbers else None)


def wait_for_end(
    running: Running,
    *,
    poll_s: float,
    submission_alive: Callable[[str], bool | None] | None = None,
    submission_poll_s: float = 30.0,
) -> Marker:
    """Wait until the job says how it ended.

    A local command that ends without saying so has failed (aborted, if that was asked for):
    the marker is written here, and the reason into run.err. RELION waits for ever.

    Args:
        poll_s: how often to look without an event (network file systems).
        submission_alive: whether the scheduler still has the job; None if it cannot say now.
    """
    job_dir = running.job_dir
    pid = running.process.pid if running.process is not None else None
    since_asked = 0.0
    with Wakeup(job_dir, pid) as wakeup:
        while (marker := read_marker(job_dir)) is None:
            if running.process is not None:
                code = running.process.poll()
                if code is not None and read_marker(job_dir) is None:
                    end_without_marker(job_dir, f"the job's command {describe_exit(code)}")
                    continue
            elif submission_alive is not None and running.submission is not None:
                since_asked += poll_s
                if since_asked >= submission_poll_s:
                    since_asked = 0.0
                    gone = submission_alive(running.submission) is False
                    if gone and read_marker(job_dir) is None:
                        reason = f"the scheduler no longer has job {running.submission}"
                        end_without_marker(job_dir, reason)
                        continue
            wakeup.wait(poll_s)
    return marker


def end_without_marker(job_dir: Path, reason: str) -> Marker:
    """Write the marker that a job did not write itself: aborted if asked for, else failed."""
    marker = Marker.ABORTED if abort_requested(job_dir) else Marker.FAILURE
    end_with(job_dir, marker, f"{reason} and left no RELION_JOB_EXIT_ file")
    return marker


def end_with(job_dir: Path, marker: Marker, reason: str) -> None:
    """Say in run.err why, then write the marker."""
    with (job_dir / "run.err").open("a") as stream:
        stream.write(f"crboost schemer: {reason}\n")
    write_marker(job_dir, marker)


def describe_exit(code: int) -> str:
    """How a process ended, in words; shells report a signal n as 128 + n."""
    number = -code if code < 0 else code - 128 if code > 128 else 0
    try:
        name = signal.Signals(number).name if number else ""
    except ValueError:
        name = ""
    if code < 0:
        return f"was killed by signal {number} ({name or 'unknown'})"
    return f"ended with exit code {code}" + (f" (killed by {name})" if name else "")


def has_processes(job_dir: Path) -> bool:
    """Whether a process that `start_local` started for this job still runs."""
    try:
        lock = os.open(job_dir / RUNNING_LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
