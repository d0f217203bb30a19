"""The embedded schemer: walks a scheme as `relion_schemer --run` does, for `relion.external` jobs.

Same files in, same files out: the ledger, scheme.star, job.star, job_pipeline.star, note.txt,
run_submit.script and the lines printed are RELION 5.1's. It differs where RELION loses jobs:

- it learns of a job's end at once, and fails a job that dies without saying how it ended;
- a submission that the scheduler refuses fails the job;
- scheme.star says that a job has started before it starts, so that a kill at any instant
  never leads to a second start of a running job;
- an abort also stops the scheme between two jobs, and an error leaves no lock behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from crboost.errors import FileFormatError, SchemerError
from crboost.files import write_bytes, write_text
from crboost.relion.job import (
    EXTERNAL,
    EXTERNAL_DIRECTORY,
    JOB_FILE,
    SUBMIT_SCRIPT,
    Job,
    complete_external,
    external_command,
    external_inputs,
    fill_submission_script,
    read_job,
    write_job,
)
from crboost.relion.ledger import (
    LEDGER_FILE,
    Ledger,
    Node,
    Process,
    Status,
    read_ledger,
    update_ledger,
    write_ledger,
)
from crboost.relion.lock import scheme_lock
from crboost.relion.markers import ABORT_NOW, Marker, abort_requested, clear_markers, read_marker
from crboost.relion.nodes import index_node, read_output_nodes
from crboost.relion.scheme import (
    UNDEFINED,
    JobMode,
    Scheme,
    SchemeJob,
    read_scheme,
    scheme_dir,
    write_scheme,
)
from crboost.relion.schemer.launch import Running, start_local, submit, wait_for_end
from crboost.relion.schemer.operators import OperatorRunner, check_operator
from crboost.relion.schemer.substitute import (
    substitute_job_names,
    substitute_variables,
    unstarted_job,
)

RULE = "+" * 49
NOTE_FILE = "note.txt"
MINI_LEDGER_FILE = "job_pipeline.star"

STATUS_OF = {
    Marker.SUCCESS: Status.SUCCEEDED,
    Marker.FAILURE: Status.FAILED,
    Marker.ABORTED: Status.ABORTED,
}


class Outcome(StrEnum):
    """Why the walk ended."""

    FINISHED = "finished"
    JOB_FAILED = "job failed"
    JOB_ABORTED = "job aborted"
    ABORTED = "aborted"


def _say(line: str) -> None:
    print(line, flush=True)


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class WalkerOptions:
    """What a walker gets from outside.

    Attributes:
        environ: the jobs' environment, and RELION's site defaults (RELION_QSUB_...).
        verbosity: as `--verb`: 0 silent, 1 jobs, 2 also nodes.
        poll_s: how often to look at a running job when no event comes.
        input_wait_s: pause between looks for an input that is not there yet.
        input_looks: how often to look for it before giving up.
        submission_alive: whether a scheduler still has a submitted job, by its number.
        submission_poll_s: how often to ask it.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    verbosity: int = 2
    poll_s: float = 5.0
    input_wait_s: float = 10.0
    input_looks: int = 5
    submission_alive: Callable[[str], bool | None] | None = None
    submission_poll_s: float = 30.0
    say: Callable[[str], None] = _say
    warn: Callable[[str], None] = _warn
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class Walker:
    """One run of one scheme. Not for two threads, and not to be used twice."""

    def __init__(
        self, project_dir: Path, scheme_name: str, options: WalkerOptions | None = None
    ) -> None:
        self._project = project_dir
        self._name = scheme_name
        self._options = options or WalkerOptions()
        self._scheme = Scheme(scheme_name)
        self._children: list[subprocess.Popen[bytes]] = []
        self._operators = OperatorRunner(
            project_dir,
            say=self._say,
            abort_requested=self._abort_requested,
            jobs_of=self._jobs_of,
            clock=self._options.clock,
            sleep=self._options.sleep,
        )

    def run(self) -> Outcome:
        """Walk from the current node until the exit, a job that fails, or an abort.

        Raises:
            SchemerError: the scheme cannot be run.
            FileFormatError: a file of the scheme or the ledger is damaged.
        """
        directory = scheme_dir(self._project, self._name)
        (directory / ABORT_NOW).unlink(missing_ok=True)
        read_scheme(self._project, self._name)  # complain before taking the lock
        update_ledger(self._project, lambda ledger: ledger, message="crboost schemer")
        with scheme_lock(self._project, self._name):
            self._scheme = read_scheme(self._project, self._name)
            if self._scheme.name != self._name:
                raise SchemerError(
                    f"{directory}/scheme.star calls itself {self._scheme.name}",
                    hint="copy schemes with 'crboost schemer copy'",
                )
            for name, operator in self._scheme.operators.items():
                check_operator(name, operator, self._scheme)
            outcome = self._walk()
            write_scheme(self._project, self._scheme)
        if abort_requested(directory):
            self._say(" + Found an ABORT signal... ")
        self._say(f" + Schemer {self._scheme.directory} stops now... ")
        self._say(f"{RULE}\n")
        return outcome

    # --- the walk --------------------------------------------------------------------------

    def _walk(self) -> Outcome:
        scheme = self._scheme
        if scheme.current_node == UNDEFINED:
            raise SchemerError(f"{scheme.directory}scheme.star has no edges: nothing to run")
        self._say(RULE)
        self._say(f" + Starting execution of scheme at: {scheme.current_node}")
        if scheme.is_operator(scheme.current_node):
            if not self._operators.perform(scheme.current_node, scheme):
                raise SchemerError(
                    f"{scheme.directory}: the scheme is already at its end ({scheme.current_node})",
                    hint="reset it to run everything again, or set the current node",
                )
            if not self._go_to_next_job():
                return self._end_of_walk()
        while True:
            if self._abort_requested():
                return Outcome.ABORTED
            marker = self._run_job(scheme.current_node)
            name = scheme.jobs[scheme.current_node].current_name
            if marker is Marker.FAILURE:
                self._say(f" + Stopping scheme due to job {name} failing with an error ...")
                return Outcome.JOB_FAILED
            if marker is Marker.ABORTED:
                self._say(f" + Stopping scheme due to user abort of job {name} ...")
                return Outcome.JOB_ABORTED
            if not self._go_to_next_job():
                return self._end_of_walk()

    def _end_of_walk(self) -> Outcome:
        return Outcome.ABORTED if self._abort_requested() else Outcome.FINISHED

    def _go_to_next_job(self) -> bool:
        """Perform operators until the next job; False at the end of the scheme."""
        scheme = self._scheme
        while True:
            scheme.current_node = scheme.next_node()
            if self._options.verbosity > 1:
                self._say(f" ++ Setting current node to: {scheme.current_node}")
            write_scheme(self._project, scheme)
            if scheme.current_node == UNDEFINED or self._abort_requested():
                return False
            if scheme.is_job(scheme.current_node):
                return True
            if not scheme.is_operator(scheme.current_node):
                raise SchemerError(
                    f"{scheme.directory}scheme.star: an edge leads to {scheme.current_node},"
                    " which is neither a job nor an operator"
                )
            if not self._operators.perform(scheme.current_node, scheme):
                return False

    # --- one job ---------------------------------------------------------------------------

    def _run_job(self, node: str) -> Marker:
        job = self._prepare_job(node)
        entry = self._scheme.jobs[node]
        is_continue = entry.has_started and entry.mode == JobMode.CONTINUE
        if entry.mode not in set(JobMode):
            raise SchemerError(
                f"{self._scheme.directory}scheme.star: job {node} has mode {entry.mode!r};"
                f" RELION knows {' and '.join(JobMode)}"
            )
        if is_continue:
            if read_ledger(self._project).process(entry.current_name) is None:
                raise SchemerError(
                    f"{node} is to continue {entry.current_name}, which the ledger does not have",
                    hint="reset the scheme, or set has-started of this job to false",
                )
        elif entry.has_started or not self._is_scheduled(entry.current_name, job):
            self._schedule(job, entry)
            self._say(f" + Creating new Job: {entry.current_name} from Node: {node}")
        self._wait_for_inputs(entry.current_name)
        when = time.ctime(self._options.clock())
        self._say(f" + Executing Job: {entry.current_name} at {when}")
        entry.has_started = True
        write_scheme(self._project, self._scheme)
        running = self._start(job, entry.current_name, is_continue=is_continue)
        marker = wait_for_end(
            running,
            poll_s=self._options.poll_s,
            submission_alive=self._options.submission_alive,
            submission_poll_s=self._options.submission_poll_s,
        )
        if running.process is not None:
            self._children.append(running.process)
        self._children = [child for child in self._children if child.poll() is None]
        settle(self._project, self._options.warn)
        return marker

    def _prepare_job(self, node: str) -> Job:
        """The node's job.star with everything replaced that RELION replaces."""
        scheme = self._scheme
        path = scheme_dir(self._project, scheme.name) / node / JOB_FILE
        try:
            raw = read_job(path)
        except FileNotFoundError:
            raise SchemerError(f"{path}: the scheme's job {node} has no job file") from None
        if raw.type_label != EXTERNAL and not raw.type_label.startswith(f"{EXTERNAL}."):
            raise SchemerError(
                f"{path}: a job of type {raw.type_label} needs RELION",
                hint="the embedded schemer runs relion.external jobs; set the schemer to relion",
            )
        job = complete_external(raw, self._options.environ)
        for name in sorted(set(raw.options) - set(job.options)):
            self._options.warn(
                f"WARNING: cannot find {name} in the defined joboptions. Ignoring it ..."
            )
        changed = {}
        for name, value in job.options.items():
            filled = substitute_variables(value, scheme, name)
            if (missing := unstarted_job(filled, scheme)) is not None:
                raise SchemerError(
                    f"{path}: {name} is {filled}, but the job {missing} has not run yet",
                    hint=f"start the scheme at {missing}, or name a finished job's file",
                )
            replaced = substitute_job_names(filled, scheme, self._jobs_of)
            if replaced != filled:
                self._say(f" + {node}: {filled} -> {replaced}")
            changed[name] = replaced
        return Job(EXTERNAL, changed, is_continue=False, is_tomo=raw.is_tomo)

    def _is_scheduled(self, job_name: str, job: Job) -> bool:
        """Whether an earlier walk numbered this very job but was killed before it started."""
        known = read_ledger(self._project).process(job_name)
        if known is None or known.status is not Status.SCHEDULED:
            return False
        path = self._project / job_name / JOB_FILE
        return path.exists() and read_job(path).options == job.options

    def _schedule(self, job: Job, entry: SchemeJob) -> None:
        """Enter a new job into the ledger and make its directory."""

        def change(ledger: Ledger) -> Ledger:
            # A ledger that lost jobs must not lead into the directories of old ones.
            while _has_run(self._project / ledger.next_job_name(EXTERNAL_DIRECTORY)):
                ledger = replace(ledger, counter=ledger.counter + 1)
            entry.current_name = name = ledger.next_job_name(EXTERNAL_DIRECTORY)
            self._write_job_files(job, name, Status.SCHEDULED)
            # Before the ledger: a kill in between wastes no number. The other way round it
            # would leave a job in the ledger that no scheme knows.
            write_scheme(self._project, self._scheme)
            return _enter(ledger, name, Status.SCHEDULED, external_inputs(job))

        update_ledger(self._project, change, message="lock from addScheduledJob")
        self._copy_ledger(entry.current_name)

    def _start(self, job: Job, name: str, *, is_continue: bool) -> Running:
        options = self._options
        job = Job(EXTERNAL, job.options, is_continue=is_continue, is_tomo=job.is_tomo)
        command = external_command(job, name)

        def change(ledger: Ledger) -> Ledger:
            self._write_job_files(job, name, Status.RUNNING)
            return _enter(ledger, name, Status.RUNNING, external_inputs(job))

        update_ledger(self._project, change, message=f"runJob: {name}")
        if job.do_queue:
            running = submit(self._project, name, job, options.environ, self._say)
        else:
            running = start_local(self._project, name, command, options.environ)
        with (self._project / name / NOTE_FILE).open("a") as note:
            note.write(
                f"\n ++++ Executing new job on {time.ctime(options.clock())}\n"
                f" ++++ with the following command(s): \n{command}\n ++++ \n"
            )
        self._copy_ledger(name)
        return running

    def _write_job_files(self, job: Job, name: str, status: Status) -> None:
        job_dir = self._project / name
        command = external_command(job, name)
        script = self._submission_script(job, name, command) if job.do_queue else None
        job_dir.mkdir(parents=True, exist_ok=True)
        if script is not None:
            write_text(job_dir / SUBMIT_SCRIPT, script)
        write_job(job_dir / JOB_FILE, job)
        clear_markers(job_dir)
        write_ledger(
            job_dir / MINI_LEDGER_FILE, _enter(Ledger(), name, status, external_inputs(job))
        )

    def _submission_script(self, job: Job, name: str, command: str) -> str:
        template = self._project / job.option("qsubscript")
        try:
            text = template.read_text()
        except OSError as error:
            raise SchemerError(
                f"{name}: cannot read the submission template {template}: {error.strerror}",
                hint="set qsubscript in the scheme's job.star to a template's path",
            ) from error
        return fill_submission_script(text, job, name, command, self._options.environ)

    def _wait_for_inputs(self, job_name: str) -> None:
        """Wait a while for input files that another schemer's job may be about to write."""
        options = self._options
        for node in read_ledger(self._project).inputs_of(job_name):
            for look in range(options.input_looks + 1):
                if (self._project / node.name).exists():
                    break
                if look == options.input_looks or self._abort_requested():
                    raise SchemerError(
                        f"{job_name}: its input {node.name} does not exist",
                        hint="run the job that makes it, or correct the scheme's job.star",
                    )
                options.warn(
                    f" + Warning {node.name} does not exist."
                    f" Waiting {options.input_wait_s:g} seconds ... "
                )
                options.sleep(options.input_wait_s)

    # --- small things ----------------------------------------------------------------------

    def _copy_ledger(self, job_name: str) -> None:
        """A backup of the ledger in the job's directory."""
        data = (self._project / LEDGER_FILE).read_bytes()
        write_bytes(self._project / job_name / LEDGER_FILE, data)

    def _jobs_of(self, scheme_name: str) -> dict[str, str]:
        other = read_scheme(self._project, scheme_name)
        return {name: job.current_name for name, job in other.jobs.items()}

    def _abort_requested(self) -> bool:
        return abort_requested(scheme_dir(self._project, self._name))

    def _say(self, line: str) -> None:
        if self._options.verbosity > 0:
            self._options.say(line)


def _has_run(job_dir: Path) -> bool:
    """Whether a job has worked in this directory; one that was only numbered has not."""
    return any((job_dir / name).exists() for name in ("run.out", "run.err", *Marker))


def _enter(ledger: Ledger, name: str, status: Status, inputs: list[Node]) -> Ledger:
    """The ledger with a job and its inputs."""
    ledger = ledger.add_process(Process(name, EXTERNAL, status))
    for node in inputs:
        ledger = ledger.add_input(name, node)
    return ledger


def settle(project_dir: Path, warn: Callable[[str], None] = _warn) -> Ledger:
    """Bring the ledger up to date with the markers of every job that it calls Running.

    A job that succeeded gets the output nodes that it declares.
    """
    succeeded: list[str] = []

    def change(ledger: Ledger) -> Ledger:
        for process in ledger.processes:
            if process.status is not Status.RUNNING:
                continue
            marker = read_marker(project_dir / process.name)
            if marker is None:
                continue
            ledger = ledger.set_status(process.name, STATUS_OF[marker])
            if marker is Marker.SUCCESS:
                succeeded.append(process.name)
                try:
                    nodes = read_output_nodes(project_dir / process.name)
                except FileFormatError as error:
                    warn(f"WARNING: {error}")
                    nodes = []
                ledger = ledger.add_outputs(process.name, nodes)
        return ledger

    ledger = update_ledger(project_dir, change, message="checkProcessCompletion")
    for name in succeeded:
        for node in ledger.outputs_of(name):
            if not index_node(project_dir, node):
                warn(
                    f"WARNING: output node {node.name} does not exist, while job {name}"
                    " should have finished successfully."
                )
    return ledger
