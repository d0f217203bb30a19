"""process_project: snapshot, plan, generate the scheme, run its jobs one by one, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from crboost.errors import CrboostError
from flows.afterwards import remembering
from flows.tasks.generate import generate
from flows.tasks.report import report
from flows.tasks.resolve import resolve
from flows.tasks.run_job import JobFailed, run_job
from flows.tasks.snapshot import snapshot
from flows.turn import WillBeDone, turn, work_of

if TYPE_CHECKING:
    from crboost.project import Project
    from crboost.run import JobState, Run
    from crboost.settings import EngineName, Settings

UP_TO_DATE = "everything is up to date"
RETRY_DELAY_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a flow run did.

    Attributes:
        run: the run that was made; None when everything was up to date.
        joined: a run of this project that was still at work and has been followed first.
        jobs: node to RELION job directory, of all jobs that ran or were followed.
        pictures: the summary pictures.
    """

    run: str | None
    joined: str | None
    jobs: Mapping[str, str]
    pictures: Sequence[str]


def _run_name() -> str:
    parameters: Mapping[str, Any] = flow_run.parameters or {}
    project = Path(str(parameters.get("project_dir", "project"))).resolve().name
    jobs = parameters.get("jobs")
    return f"{project}: {', '.join(jobs)}" if jobs else project


@flow(
    name="process-project",
    flow_run_name=_run_name,
    persist_result=False,
    description="Run the jobs of a project that are not up to date, one task per RELION job.",
)
def process_project(
    project_dir: Path,
    jobs: list[str] | None = None,
    parameters: dict[str, Any] | None = None,
    mode: Literal["new", "continue"] = "new",
    retry_failed: bool = True,
) -> State[Any]:
    """Process a project: what is up to date stays, what is not runs.

    One flow run of a project at a time: others wait. One that data of a session have started,
    and that would only do what another one that waits is going to do, ends at once.

    A run that is still at work, though nobody follows it, is joined first: its jobs become tasks
    of this flow run too, and only then the rest is planned. The jobs run under a detached
    schemer: ending this flow does not end them.

    Args:
        project_dir: an initialised project directory.
        jobs: which jobs, by name; all when not given.
        parameters: dotted names to values, set in the project before the run.
        mode: `new` gives a job whose input changed a new number, `continue` lets the existing
            RELION job take what is new.
        retry_failed: in mode `continue`, try tilt series again that failed with the same
            parameters and input.
    """
    directory = Path(project_dir).absolute()
    try:
        project = open_project(directory)  # nothing is written where there is no project
        work = work_of(
            mode,
            jobs or [],
            parameters or {},
            retry_failed=retry_failed,
            session_jobs=_session_jobs(project),
        )
        with turn(directory, work):
            outcome = _process(directory, jobs or [], parameters or {}, mode, retry_failed)
    except WillBeDone as error:
        get_run_logger().info("%s", error)
        return Completed(message=str(error), data=Outcome(None, None, {}, []))
    except JobFailed as error:
        return Failed(message=str(error), data=error)
    except CrboostError as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)
    if outcome.run is None and outcome.joined is None:
        return Completed(message=UP_TO_DATE, data=outcome)
    names = [name.rstrip("/") for name in outcome.jobs.values()]
    return Completed(message=f"{len(names)} jobs succeeded: {', '.join(names)}", data=outcome)


def open_project(project_dir: Path) -> Project:
    """The project; imported only now, for it is slow to import."""
    from crboost.project import Project

    return Project.open(project_dir)


def _session_jobs(project: Project) -> Sequence[str] | None:
    from crboost.session import read_session

    session = read_session(project)
    return session.jobs if session is not None and session.active else None


def _process(
    project_dir: Path,
    jobs: Sequence[str],
    parameters: Mapping[str, Any],
    mode: Literal["new", "continue"],
    retry_failed: bool,
) -> Outcome:
    from crboost.settings import load_settings

    project = open_project(project_dir)
    settings = load_settings()
    finished: dict[str, str] = {}
    joined = run_at_work(project, settings)
    if joined is not None:
        get_run_logger().info("%s is still at work: following it first", joined.name)
        _run_jobs(project, joined, settings.engine, finished)
    frozen = snapshot(project, parameters)
    run = None
    with remembering(project, jobs, settings):
        plan = resolve(project, jobs, frozen, mode, settings, retry_failed)
        if plan.is_empty:
            get_run_logger().info(UP_TO_DATE)
        else:
            run = generate(project, plan, frozen, settings)
            _run_jobs(project, run, settings.engine, finished)
    pictures = report(project)
    return Outcome(
        run=run.name if run else None,
        joined=joined.name if joined else None,
        jobs=finished,
        pictures=[str(picture) for picture in pictures],
    )


def run_at_work(project: Project, settings: Settings) -> Run | None:
    """The run of this project that must be followed to its end before anything is planned.

    Its schemer is alive; or the schemer was killed, but a job that it started works on.
    """
    from crboost.run import Run, active_run

    active = active_run(project)
    if active is not None:
        return active
    names = [past.run for past in project.history(settings) if past.alive and past.run]
    return Run.open(project, names[-1]) if names else None


def _run_jobs(project: Project, run: Run, engine: EngineName, finished: dict[str, str]) -> None:
    """One task per job, in the scheme's order; the first failure ends it.

    What the jobs before the failure made is reported all the same.
    """
    state: JobState | None = None
    for node in run.nodes:
        retries = run.retries(node)
        job_task = run_job.with_options(
            name=node,
            task_run_name=node,
            retries=retries,
            retry_delay_seconds=RETRY_DELAY_SECONDS if retries else 0,
        )
        try:
            state = job_task(run, node, engine, after=state)
        except JobFailed:
            report(project, return_state=True)
            raise
        finished[node] = state.job or node
