"""One run: an ephemeral RELION scheme in `Schemes/<run>/`, and the state of its jobs.

A run's directory holds all that is needed to repeat or continue it: `scheme.star` (the queue in
order, ending in EXIT), one `job.star` per job, the frozen parameters, the plan, the driver that
the jobs call, the schemer's logs, and `record.json` with what happened. Nothing in here is kept
in memory: every question is answered from files, so any process may be killed at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crboost.catalogue import JobType, label_matches
from crboost.errors import ProjectError
from crboost.failure import RETRYABLE, Failure, FailureKind, classify
from crboost.files import locked, read_json, write_json
from crboost.generate import (
    LOG_SIZES_FILE,
    RECORD_FILE,
    RESOURCES_FILE,
    driver_path,
    generate,
    queue_options,
    submission_for,
)
from crboost.job_directory import (
    FAILURE_FILE,
    disk_full,
    is_driver_alive,
    read_failure,
    read_job_file,
    tail,
)
from crboost.parameters import ProjectParameters, read_parameters
from crboost.past_jobs import written_outputs
from crboost.plan import PLAN_FILE, Plan
from crboost.prerequisites import type_as_done
from crboost.project import PARAMETERS_FILE, Project
from crboost.relion.job import read_job, write_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.nodes import read_output_nodes
from crboost.relion.scheme import (
    SCHEMES_DIR,
    read_scheme,
    scheme_dir,
    write_scheme,
)
from crboost.relion.schemer.holder import (
    PID_FILE,
    active_scheme,
    detached_shell_line,
    holder_state,
    start_argv,
)
from crboost.results import ResultReader, SeriesResult
from crboost.settings import EngineName

if TYPE_CHECKING:
    from crboost.relion.schemer.recovery import Recovery
    from crboost.settings import Settings


Phase = Literal["waiting", "running", "succeeded", "failed", "aborted"]


@dataclass(frozen=True)
class JobState:
    """Where one job of a run stands.

    Attributes:
        job: its RELION directory (`External/job003/`), once it has one.
        done, failed, skipped, total: tilt series.
    """

    node: str
    job: str | None
    phase: Phase
    failure: Failure | None = None
    done: int = 0
    failed: int = 0
    skipped: int = 0
    total: int = 0


class Run:
    """A run of a project, new or old."""

    def __init__(self, project: Project, name: str) -> None:
        self.project = project
        self.name = name
        self._results = ResultReader()

    # --- making one ------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        project: Project,
        plan: Plan,
        parameters: ProjectParameters,
        settings: Settings,
        *,
        now: datetime,
    ) -> Run:
        """Generate the scheme of `plan`: see `crboost.generate`. Nothing is started.

        Raises:
            ProjectError: the plan is empty.
            CrboostError: a submission template is missing, or would not work.
        """
        return cls(project, generate(project.directory, plan, parameters, settings, now=now))

    @property
    def driver(self) -> str:
        """The External jobs' `fn_exe`, project-relative."""
        return driver_path(self.name)

    # --- finding one -----------------------------------------------------------------------

    @classmethod
    def open(cls, project: Project, name: str) -> Run:
        """The run called `name`.

        Raises:
            ProjectError: there is none.
        """
        run = cls(project, name)
        if not (run.directory / "scheme.star").is_file():
            raise ProjectError(f"{project.directory} has no run {name}")
        return run

    @property
    def directory(self) -> Path:
        """`Schemes/<run>`, absolute."""
        return scheme_dir(self.project.directory, self.name)

    @property
    def nodes(self) -> list[str]:
        """The queue, in order. The table of jobs is in alphabetical order; the edges tell."""
        scheme = read_scheme(self.project.directory, self.name)
        return [edge.input for edge in scheme.edges if edge.input in scheme.jobs]

    @property
    def record(self) -> dict[str, Any]:
        """`record.json`."""
        path = self.directory / RECORD_FILE
        value: dict[str, Any] = read_json(path) if path.is_file() else {}
        return value

    def retries(self, node: str) -> int:
        """How often the job may be tried again, as planned."""
        path = self.directory / PLAN_FILE
        if path.is_file():
            for job in read_json(path)["jobs"]:
                if job["node"] == node:
                    return int(job["retries"])
        return 0

    def log_sizes_before(self, node: str) -> dict[str, int]:
        """Log file to bytes in it when the run was made: those are of earlier runs of the job."""
        path = self.directory / node / LOG_SIZES_FILE
        return dict(read_json(path)) if path.is_file() else {}

    def note(self, event: str, **details: Any) -> None:
        """Append to the run's record what happened."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with locked(self.directory / ".record.lock"):
            record = self.record
            record.setdefault("events", []).append({"time": now, "event": event, **details})
            write_json(self.directory / RECORD_FILE, record)

    # --- its state -------------------------------------------------------------------------

    def job_state(self, node: str) -> JobState:
        """Where one job stands, from scheme, ledger, marker and results."""
        scheme = read_scheme(self.project.directory, self.name)
        if node not in scheme.jobs:
            raise ProjectError(f"the run {self.name} has no job {node}")
        entry = scheme.jobs[node]
        if not entry.has_started or entry.current_name == node:
            return JobState(node, None, "waiting")
        name = entry.current_name if entry.current_name.endswith("/") else f"{entry.current_name}/"
        directory = self.project.directory / name
        marker = read_marker(directory)
        phase, failure = self._phase(node, name, marker)
        state = JobState(node, name, phase, failure)
        record = read_job_file(directory)
        if record.get("run") != self.name:
            return state
        return _counted(state, self._results.read(directory), record)

    def _phase(self, node: str, name: str, marker: Marker | None) -> tuple[Phase, Failure | None]:
        """Where a job that has a directory stands."""
        directory = self.project.directory / name
        if marker is None:
            process = read_ledger(self.project.directory).process(name)
            started = process is not None and process.status == Status.RUNNING
            return ("running" if started or is_driver_alive(directory) else "waiting"), None
        if marker is Marker.ABORTED:
            return "aborted", Failure("aborted", f"{name.rstrip('/')} was aborted")
        if marker is Marker.FAILURE:
            return "failed", _failure(directory, name)
        absent = self._absent_outputs(directory, node)
        if absent:
            text = f"{absent[0]} is missing, although the job ended with success"
            return "failed", Failure("tool_error", text)
        return "succeeded", None

    def _absent_outputs(self, directory: Path, node: str) -> list[str]:
        """Files that a successful job must have made, and that are not there."""
        relative = f"{directory.relative_to(self.project.directory)}/"
        job_type = self._type_of(node)
        labels = [output.label for output in job_type.outputs]
        if job_type.is_native:
            # RELION declares more than it makes (logfile.pdf); what others read must be there.
            names = [
                made.name
                for made in written_outputs(
                    read_ledger(self.project.directory).outputs_of(relative), job_type.name
                )
                if any(label_matches(made.label, label) for label in labels)
            ]
        else:
            names = [one.name for one in read_output_nodes(directory)]
            names += [f"{relative}{output.file}" for output in job_type.outputs]
        return [
            name for name in dict.fromkeys(names) if not (self.project.directory / name).exists()
        ]

    def _type_of(self, node: str) -> JobType:
        """The job type of a node, as the tool of the run's parameters does it."""
        return type_as_done(node, self._parameters)

    @cached_property
    def _parameters(self) -> ProjectParameters:
        """As they were when the run was made."""
        return read_parameters(self.directory / PARAMETERS_FILE)

    # --- its schemer -----------------------------------------------------------------------

    def schemer_alive(self) -> bool:
        """Whether the run's schemer works now."""
        return holder_state(self.project.directory, self.name).alive

    def start_shell_line(self, engine: EngineName) -> str:
        """One bash line that starts the schemer detached; it outlives whoever runs the line."""
        argv = start_argv(self.project.directory, self.name, engine)
        return detached_shell_line(argv, self.directory / "schemer.out")

    @property
    def settings(self) -> Settings:
        """The installation as it was when the run was made."""
        from crboost.settings import Settings
        from crboost.tool_commands import frozen_settings

        return frozen_settings(self.directory / PARAMETERS_FILE) or Settings()

    def is_job_alive(self, directory: Path) -> bool:
        """Whether the job in this directory still runs, here or under the scheduler."""
        from crboost.scheduler.watch import job_alive

        return job_alive(self.settings.scheduler)(directory)

    def recover(self) -> Recovery | None:
        """Repair what a dead schemer left, before it is started again; recorded.

        Returns:
            What was found; None if no schemer has ever been started for this run.
        """
        from crboost.relion.schemer.recovery import recover

        if not (self.directory / PID_FILE).exists():
            return None
        recovery = recover(self.project.directory, self.name, self.is_job_alive)
        for message in recovery.messages:
            self.note("recovered", message=message)
        return recovery

    def queue_words(self, state: JobState) -> str | None:
        """Why a submitted job has not started yet, in words; None if it has, or is not queued."""
        if state.job is None or self.settings.scheduler.kind != "slurm":
            return None
        from crboost.scheduler.outcome import state_of_job
        from crboost.scheduler.submitted import read_started

        directory = self.project.directory / state.job
        if read_started(directory) is not None or read_marker(directory) is not None:
            return None
        queued = state_of_job(directory)
        if queued is None or queued.phase != "pending":
            return None
        words = f"{state.node} waits in the queue ({queued.reason or 'no reason given'})"
        if queued.waits_for_somebody:
            words += ": it will not start until somebody changes something"
        return words

    def explain(self, state: JobState) -> Failure | None:
        """Why a job failed, with the scheduler's word where the job could not say it itself.

        May take some seconds: a scheduler's accounting comes late.
        """
        failure = state.failure
        if failure is not None and (full := disk_full(self.project.directory)):
            return Failure("no_space", f"{full}\n{failure.message}", failure.log_tail)
        if failure is None or state.job is None or self.settings.scheduler.kind != "slurm":
            return failure
        if failure.kind not in ("killed", "tool_error"):
            return failure
        directory = self.project.directory / state.job
        if read_failure(directory) is not None and failure.kind != "killed":
            return failure
        from crboost.scheduler.outcome import scheduler_failure

        told = scheduler_failure(directory)
        if told is None:
            return failure
        write_json(directory / FAILURE_FILE, {"kind": told.kind, "message": told.message})
        return told

    def abort(self, say: Callable[[str], None]) -> None:
        """Ask the current job, and then the schemer, to stop.

        A job that still waits in the scheduler's queue cannot hear it, and is taken out.
        """
        from crboost.relion.schemer import verbs

        verbs.abort(self.project.directory, self.name, say=say)
        if self.settings.scheduler.kind != "slurm":
            return
        from crboost.scheduler.outcome import cancel
        from crboost.scheduler.submitted import read_started

        scheme = read_scheme(self.project.directory, self.name)
        entry = scheme.jobs.get(scheme.current_node)
        if entry is None or not entry.has_started:
            return
        directory = self.project.directory / entry.current_name
        if read_started(directory) is None and read_marker(directory) is None:
            problem = cancel(directory)
            say(problem or f"{entry.current_name.rstrip('/')} was taken out of the queue")

    def prepare_retry(self, node: str, failure: Failure, attempt: int) -> str | None:
        """Change what the policy says and set the scheme back to this job.

        Args:
            attempt: the number of the coming attempt; the first retry is 2.

        Returns:
            What was changed, or None if trying again would not help.
        """
        if failure.kind not in RETRYABLE or attempt > self.retries(node) + 1:
            return None
        settings = self.settings
        if settings.scheduler.kind == "local":
            changed = self._fewer_workers(node)
        elif failure.kind in ("out_of_memory", "time_limit"):
            more = self._more_resources(node, failure, settings)
            if more is None:
                return None
            changed = more
        else:
            changed = "nothing to change; the job was stopped from outside"
        scheme = read_scheme(self.project.directory, self.name)
        scheme.current_node = node
        write_scheme(self.project.directory, scheme)
        self.note("retry", node=node, attempt=attempt, failure=failure.kind, changed=changed)
        return changed

    def _job_stars(self, node: str) -> list[Path]:
        """The job's `job.star` in the scheme, and in its directory once it has one."""
        paths = [self.directory / node / "job.star"]
        state = self.job_state(node)
        if state.job and (self.project.directory / state.job / "job.star").is_file():
            paths.append(self.project.directory / state.job / "job.star")
        return paths

    def _fewer_workers(self, node: str) -> str:
        paths = self._job_stars(node)
        workers = int(read_job(paths[0]).option("nr_threads") or 1)
        fewer = max(1, workers // 2)
        if fewer == workers:
            return "nothing to change; the job was stopped from outside"
        for path in paths:
            write_job(path, read_job(path).with_options(nr_threads=str(fewer)))
        return f"{workers} -> {fewer} worker processes, to use less memory"

    def _more_resources(self, node: str, failure: Failure, settings: Settings) -> str | None:
        from crboost.scheduler.resources import Resources, with_more

        path = self.directory / node / RESOURCES_FILE
        more = with_more(Resources.from_dict(read_json(path)), failure.kind, settings.scheduler)
        if more is None:
            return None
        resources, changed = more
        write_json(path, resources.to_dict())
        native = self._type_of(node).is_native
        options = queue_options(
            submission_for(
                self.project.directory,
                self.name,
                node,
                resources,
                settings,
                native=native,
                files=self._parameters.effective(node).files(),
            )
        )
        for star in self._job_stars(node):
            write_job(star, read_job(star).with_options(**options))
        return changed

    def watch_paths(self, node: str) -> list[Path]:
        """Directories in which something happens when the job moves."""
        paths = [self.project.directory, self.directory]
        scheme = read_scheme(self.project.directory, self.name)
        job = self.project.directory / scheme.jobs[node].current_name
        if scheme.jobs[node].has_started and job.is_dir():
            paths += [job, job / "results"]
        return [path for path in paths if path.is_dir()]


def active_run(project: Project) -> Run | None:
    """The run whose schemer works on the project now."""
    name = active_scheme(project.directory)
    return Run(project, name) if name else None


def runs(project: Project) -> list[Run]:
    """All runs of a project, oldest first."""
    found = sorted((project.directory / SCHEMES_DIR).glob("run_*/scheme.star"))
    return [Run(project, path.parent.name) for path in found]


def _counted(
    state: JobState, results: Mapping[str, SeriesResult], record: dict[str, Any]
) -> JobState:
    """The state with its tilt series counted."""
    series = set(record.get("tilt_series", []))
    started = str(record.get("started", ""))
    kept = {name for name, result in results.items() if result.status == "done"}
    kept |= set(record.get("kept_failed", []))
    # Another failure from before this start is being tried again.
    current = [
        result.status
        for name, result in results.items()
        if name in series and (name in kept or result.started >= started)
    ]
    return replace(
        state,
        done=current.count("done"),
        failed=current.count("failed"),
        skipped=current.count("skipped"),
        total=len(series),
    )


def _failure(directory: Path, name: str) -> Failure:
    """Why a job with a failure marker failed."""
    return classify(read_failure(directory), tail(directory / "run.err"), name.rstrip("/"))


__all__ = [
    "RETRYABLE",
    "Failure",
    "FailureKind",
    "JobState",
    "Run",
    "active_run",
    "runs",
]
