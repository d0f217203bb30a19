"""ingest: looks whether anything of the sessions is left undone, and starts it.

Of those that have ended, too, until all that they brought has been processed.

The safety net under watcher and events, and what goes on after worker, server or machine died. It
computes nothing: what is to be done is started as a run of `process-project`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException
from prefect.states import Completed, Failed

from crboost.errors import CrboostError
from flows.service import ProjectDirectory

if TYPE_CHECKING:
    from crboost.project import Project
    from crboost.session import Session
    from crboost.settings import Settings

DEPLOYMENT = "process-project/headnode"
#: How long a run may be called Pending, or Running without being in its project's queue, before
#: it is taken for dead.
PENDING_FOR, RUNNING_FOR = timedelta(minutes=3), timedelta(seconds=30)
#: A run that is due later than so says nothing about what is to be done now.
SOON = timedelta(minutes=5)


@dataclass(frozen=True)
class Sight:
    """What one look at a project showed.

    Attributes:
        series: how many tilt series it has.
        told: how many have just been told to the server, whose trigger starts a run.
        flow_run: the flow run that works on it, or waits for it.
        coming: a flow run of it has not begun yet.
        unfollowed: jobs that are at work without a flow run that follows them.
        todo: the jobs that are not up to date.
        problem: why nothing can be planned.
        left: why the last run left just this undone, if that should stay so.
        unseen: why it could not be looked for new data.
    """

    series: int = 0
    told: int = 0
    flow_run: str | None = None
    coming: bool = False
    unfollowed: str | None = None
    todo: tuple[str, ...] = ()
    problem: str | None = None
    left: str | None = None
    unseen: str | None = None


def decide(sight: Sight) -> tuple[bool, str]:
    """Whether to start a run, and why, in words."""
    if sight.flow_run is not None:
        return False, f"{sight.flow_run} is at work on it"
    if sight.coming:
        return False, "a run of it is about to begin"
    if sight.unfollowed is not None:
        return True, f"{sight.unfollowed} is at work, and nobody follows it"
    if sight.told:
        return False, f"{sight.told} tilt series have been told, which starts a run"
    if not sight.series:
        return False, "no tilt series yet"
    if sight.problem is not None:
        return False, sight.problem
    if not sight.todo:
        return False, "up to date"
    nodes = ", ".join(sight.todo)
    if sight.left is not None:
        return False, f"{nodes}: not tried again until something changes: {sight.left}"
    return True, f"to do: {nodes}"


def is_processed(sight: Sight) -> bool:
    """Whether nothing is left to do, or nothing that will be done by itself."""
    if sight.flow_run or sight.coming or sight.unfollowed or sight.told or sight.unseen:
        return False
    return sight.problem is None and (not sight.todo or sight.left is not None)


@flow(name="ingest", persist_result=False)
def ingest(project_dir: ProjectDirectory | None = None) -> State[Any]:
    """Look for new data, and start what is left undone, of one or all active sessions.

    What sessions brought that have ended is processed to the end.

    Args:
        project_dir: Absolute path of the project of an active session; empty: all of them.
    """
    from crboost.project import Project
    from crboost.session import forget_session, read_session, served_sessions
    from crboost.settings import load_settings

    log = get_run_logger()
    settings = load_settings()
    projects = [one.project for one in served_sessions(settings.service.directory, log.warning)]
    if project_dir is not None:
        if Path(project_dir) not in projects:
            text = f"{project_dir} has no active session\n  -> crboost session start"
            return Failed(message=text)
        projects = [Path(project_dir)]
    started, broken = [], []
    for directory in projects:
        # One project with a problem must not keep the others from going on.
        try:
            project = Project.open(directory)
            session = read_session(project)
            if session is None:
                continue
            sight = look(project, session, settings)
            start, words = decide(sight)
            log.info("%s: %s", project.directory, words)
            if sight.unseen is not None:
                log.error("%s: %s", project.directory, sight.unseen)
                broken.append(f"{directory}: {sight.unseen}")
            if start:
                started.append(f"{project.name} ({start_run(project, session).name})")
            elif not session.is_watched and is_processed(sight):
                log.info("%s: the session is over", project.directory)
                forget_session(project, session, settings=settings)
        except (CrboostError, OSError, httpx.HTTPError, PrefectException) as error:
            log.error("%s: %s: %s", directory, type(error).__name__, error)
            broken.append(f"{directory}: {error}")
    if broken:
        return Failed(message="\n".join(broken))
    what = f"started: {', '.join(started)}" if started else "nothing to start"
    return Completed(message=f"{len(projects)} sessions, {what}")


def look(project: Project, session: Session, settings: Settings) -> Sight:
    """Look for new data of a project, unless its watcher does, and see what is left to do.

    What is there already goes on, though the microscope's directories are away.
    """
    from flows.session_watch import look_once

    told, unseen = 0, None
    if session.is_watched:
        try:
            told = len(look_once(project, session))
        except (CrboostError, OSError) as error:
            unseen = str(error)
    return replace(_standing(project, session, settings, told), unseen=unseen)


def _standing(project: Project, session: Session, settings: Settings, told: int) -> Sight:
    """How the project stands, apart from what the microscope has written meanwhile."""
    from crboost import leftover
    from crboost.stages.import_movies import series_fingerprints
    from crboost.turn import holder, waiting
    from flows.process import run_at_work

    claim = holder(project.directory) or next(iter(waiting(project.directory)), None)
    if claim is not None:
        return Sight(told=told, flow_run=claim.name)
    if any(is_coming(run, datetime.now(UTC)) for run in open_runs(project)):
        return Sight(told=told, coming=True)
    run = run_at_work(project, settings)
    if run is not None:
        return Sight(told=told, unfollowed=run.name)
    series = len(series_fingerprints(project.directory))
    if told or not series:
        return Sight(series, told=told)
    try:
        project.reconcile()
        plan = project.plan(session.jobs, mode="continue", retry_failed=False, settings=settings)
    except CrboostError as error:
        return Sight(series, problem=str(error))
    left = leftover.read_leftover(project.directory)
    inputs = leftover.digest_of_inputs(project, session.jobs, settings)
    known = left is not None and left.digest == leftover.digest_of(inputs, plan)
    return Sight(
        series,
        todo=tuple(job.node for job in plan.jobs),
        left=left.reason if left is not None and known and left.leave_alone else None,
    )


def open_runs(project: Project) -> list[FlowRun]:
    """The runs of `process-project` for this project that have not ended, as Prefect has them."""
    types = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["process-project"])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types))
            ),
        )
    return [run for run in found if run.parameters.get("project_dir") == str(project.directory)]


def is_coming(run: FlowRun, now: datetime) -> bool:
    """Whether a run that neither waits for its project nor has it is about to.

    A dead one may be called Pending or Running for ever; one that is late waits for its worker.
    """
    if run.state is None:
        return False
    if run.state.is_scheduled():
        due = run.state.state_details.scheduled_time or run.expected_start_time
        return due is None or due - now < SOON
    longest = PENDING_FOR if run.state.is_pending() else RUNNING_FOR
    return now - run.state.timestamp < longest


def start_run(project: Project, session: Session) -> FlowRun:
    """A run of `process-project` that takes what is new; not waited for."""
    parameters = {
        "project_dir": str(project.directory),
        "jobs": session.jobs,
        "mode": "continue",
        "retry_failed": False,
    }
    run = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False)
    assert isinstance(run, FlowRun)
    return run
