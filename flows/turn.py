"""One flow run at a time for a project: the others wait, and Prefect's page says for whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from crboost.turn import Claim, Turn

POLL_SECONDS = 1.0


class WillBeDone(Exception):
    """Another run that waits for the same project will do the same work."""

    def __init__(self, other: Claim) -> None:
        super().__init__(f"{other.name} is waiting and will take it")
        self.other = other


@contextmanager
def turn(
    project: Path,
    work: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Wait for the project, then have it until the end of the block, or of the process.

    Only inside a flow run; cancelling the run ends the waiting.

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
        _wait(place, sleep)
        yield
    finally:
        place.release()


def work_of(
    mode: str, jobs: Sequence[str], parameters: Mapping[str, Any], *, retry_failed: bool
) -> str:
    """What a run would do, if another one may do it in its place; "" if not.

    A run that sets parameters, or makes new jobs, is its user's own.
    """
    if mode != "continue" or parameters:
        return ""
    return f"{mode}{' all' if retry_failed else ''}: {', '.join(sorted(jobs))}"


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
