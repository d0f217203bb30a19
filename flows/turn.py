"""One flow run at a time for a project: the others wait, and Prefect's page says for whom.

A run that waits has a process and a slot of the queue's limit. So that a busy project does not
stop the others, only a few wait like that; further ones give both back and come again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, PrefectException
from prefect.runtime import deployment, flow_run
from prefect.states import Scheduled

from crboost.turn import Claim, Turn

POLL_SECONDS = 1.0
#: So many runs of one project may wait at the same time.
MOST_WAITING = 2
COME_BACK_S = 60.0


class WillBeDone(Exception):
    """Another run that waits for the same project will do the same work."""

    def __init__(self, other: Claim) -> None:
        super().__init__(
            f"{other.name} is waiting and will take it; if it is cancelled, ingest starts another"
        )
        self.other = other


@contextmanager
def turn(
    project: Path,
    work: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Wait for the project, then have it until the end of the block, or of the process.

    Only inside a flow run; cancelling the run ends the waiting. Where enough wait already, a run
    of a deployment ends its process here, and the worker starts it again in a minute.

    Args:
        project: its directory.
        work: see `Claim.work` and `work_of`.

    Raises:
        WillBeDone: it would do what one that waits already is going to do.
    """
    place = Turn(project, Claim.of_this_process(_name(), id=str(flow_run.id or ""), work=work))
    try:
        other = place.enter()
        if other is not None:
            raise WillBeDone(other)
        if place.ahead() >= MOST_WAITING and deployment.id is not None:
            _come_back(place.ahead())
        _wait(place, sleep)
        yield
    finally:
        place.release()


def work_of(
    mode: str,
    jobs: Sequence[str],
    parameters: Mapping[str, Any],
    *,
    retry_failed: bool,
    session_jobs: Sequence[str] | None,
) -> str:
    """What a run would do, if another one may do it in its place; "" if not.

    Only what a session's data ask for: should the other one be cancelled or die, `ingest` sees
    that it is left undone. Nobody would see that of another run, which is its user's own.

    Args:
        session_jobs: the jobs of the project's active session; None: there is none.
    """
    if mode != "continue" or parameters or retry_failed or session_jobs is None:
        return ""
    if sorted(jobs) != sorted(session_jobs):
        return ""
    return f"{mode}: {', '.join(sorted(jobs))}"


def _come_back(ahead: int) -> NoReturn:
    """Give slot and process back; the worker starts this flow run again later."""
    when = datetime.now(UTC) + timedelta(seconds=COME_BACK_S)
    message = (
        f"{ahead} runs wait for this project already; this one comes back at {when:%H:%M:%S} UTC"
    )
    get_run_logger().info("%s", message)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(
            UUID(flow_run.id), Scheduled(scheduled_time=when, name="Waiting", message=message)
        )
    raise Abort(message)  # Prefect's signal to end here and leave the state alone


def _wait(place: Turn, sleep: Callable[[float], None]) -> None:
    told: Claim | None = None
    while (before := place.take()) is not None:
        if before != told:
            told = before
            get_run_logger().info("Waiting for %s, which works on this project", before.name)
            _show("Waiting", f"for {before.name}")
        sleep(POLL_SECONDS)
    if told is not None:
        get_run_logger().info("It is our turn")
        _show("Running", None)


def _show(name: str, message: str | None) -> None:
    """Name the state of the flow run; a courtesy, which must not end the run."""
    if flow_run.id is None:
        return
    with suppress(httpx.HTTPError, PrefectException), get_client(sync_client=True) as client:
        before = client.read_flow_run(UUID(flow_run.id)).state
        if before is None or not before.is_running():
            return  # it is being cancelled
        # With its details: they name the slot of the deployment's limit that the run will free.
        state: State[Any] = State(
            type=StateType.RUNNING, name=name, message=message, state_details=before.state_details
        )
        client.set_flow_run_state(UUID(flow_run.id), state)


def _name() -> str:
    """The flow run's name with enough of its id to tell two of the same name apart."""
    short = str(flow_run.id or "")[:8]
    return f"{flow_run.name or 'a run'} ({short})" if short else str(flow_run.name or "a run")
