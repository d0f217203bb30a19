"""What a run of a project with a session remembers and tells at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from crboost.errors import CrboostError
from flows.events import FAILED_TOO_MANY, MOST_NAMES, Event, send
from flows.tasks.run_job import JobFailed

if TYPE_CHECKING:
    from crboost.project import Project
    from crboost.session import Session
    from crboost.settings import Settings

#: How many failed tilt series have been told.
TOLD_FILE = ".crboost/failures_told.json"


@contextmanager
def remembering(project: Project, jobs: Sequence[str], settings: Settings) -> Iterator[None]:
    """Remember what the block leaves undone, so that `ingest` does not start it again for nothing.

    The block plans and runs. A process that is killed in it remembers nothing, and is made up for.

    Args:
        jobs: those of the run; empty: all. What was no part of it was not tried.
    """
    from crboost.leftover import digest_of_inputs
    from crboost.session import read_session

    session = read_session(project)
    if session is None:
        yield
        return
    if not covers(jobs, session.jobs):
        yield
        tell_failures(project)
        return
    inputs = digest_of_inputs(project, session.jobs, settings)
    try:
        yield
    except JobFailed as error:
        _remember(project, session, settings, inputs, (error.kind, str(error)))
        raise
    except CrboostError as error:
        _remember(project, session, settings, inputs, ("bad_input", error.message))
        raise
    _remember(project, session, settings, inputs, None)


def covers(jobs: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a run of `jobs` tries all that are wanted; empty stands for all there are."""
    return not jobs or (bool(wanted) and set(wanted) <= set(jobs))


def _remember(
    project: Project,
    session: Session,
    settings: Settings,
    inputs: str,
    failure: tuple[str, str] | None,
) -> None:
    from crboost import leftover

    # What cannot be planned is not started by itself anyway.
    with suppress(CrboostError):
        plan = project.plan(session.jobs, mode="continue", retry_failed=False, settings=settings)
        before = leftover.read_leftover(project.directory)
        digest = leftover.digest_of(inputs, plan)
        after = leftover.after_run(before, digest, plan, failure=failure)
        leftover.write_leftover(project.directory, after)
    tell_failures(project)


def tell_failures(project: Project) -> None:
    """Tell that more tilt series of the session have failed than it puts up with.

    Once for each growth of their number; a courtesy, which must not end the run.
    """
    from crboost.files import read_json, write_json
    from crboost.session import failed_series, read_session

    session = read_session(project)
    if session is None or session.failed_series_threshold is None:
        return
    names = sorted(failed_series(project))
    path = project.directory / TOLD_FILE
    told = read_json(path) if path.is_file() else {}
    if told.get("session") != session.id:
        told = {"session": session.id, "count": 0}
    if len(names) < session.failed_series_threshold or len(names) <= told["count"]:
        return
    payload = {
        "failed": len(names),
        "threshold": session.failed_series_threshold,
        "names": names[:MOST_NAMES],
    }
    event = Event(
        f"{session.id} {len(names)}", FAILED_TOO_MANY, project.directory, project.name, payload
    )
    try:
        with get_client(sync_client=True) as client:
            send(client, [event])
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("%d failed tilt series could not be told: %s", len(names), error)
        return
    write_json(path, {"session": session.id, "count": len(names)})
