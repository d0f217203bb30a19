from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crboost.files import read_json, write_json
from crboost.service.api import Api
from flows.child import pause_before_restart
from flows.local_server import LocalServer
from flows.stale_runs import CLAIMED_S, SILENCE_S, FlowRun, Sight, StaleRuns, judge, to_end

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def run(state: str, *, since_s: float = 1000, pooled: bool = True) -> FlowRun:
    return FlowRun("r", "project", state, ago(since_s), pooled)


def sight(
    *,
    alive: bool = False,
    gone: bool = False,
    heartbeat_s: float | None = None,
    server_s: float = 5000,
) -> Sight:
    beats: Mapping[str, datetime] = {} if heartbeat_s is None else {"r": ago(heartbeat_s)}
    return Sight(NOW, {"r"} if alive else (), {"r"} if gone else (), beats, ago(server_s))


@pytest.mark.parametrize(
    ("one", "seen", "verdict"),
    [
        (run("RUNNING"), sight(alive=True), None),
        (run("RUNNING"), sight(gone=True), "crashed"),
        (run("RUNNING", since_s=5), sight(gone=True), "crashed"),
        (run("CANCELLING"), sight(gone=True), "cancelled"),
        (run("CANCELLING"), sight(alive=True), None),
        # Another machine's: its heartbeats tell.
        (run("RUNNING"), sight(heartbeat_s=20), None),
        (run("RUNNING"), sight(heartbeat_s=SILENCE_S + 1), "crashed"),
        (run("RUNNING"), sight(heartbeat_s=SILENCE_S + 1, server_s=30), None),  # it was away
        (run("RUNNING"), sight(), "crashed"),
        (run("RUNNING", since_s=20), sight(), None),  # the first is still to come
        # A process of its own that sends none, such as somebody's script.
        (run("RUNNING", pooled=False), sight(), None),
        (run("RUNNING", pooled=False), sight(heartbeat_s=SILENCE_S + 1), "crashed"),
        # Claimed by a worker.
        (run("PENDING", since_s=CLAIMED_S - 1), sight(), None),
        (run("PENDING", since_s=CLAIMED_S + 1), sight(), "again"),
        (run("PENDING", since_s=CLAIMED_S + 1), sight(server_s=10), None),
        (run("PENDING", since_s=5), sight(gone=True), "again"),
        (run("PENDING", pooled=False), sight(), None),
    ],
)
def test_what_becomes_of_a_run(one: FlowRun, seen: Sight, verdict: str | None) -> None:
    assert judge([one], seen).get("r") == verdict


def test_only_processes_that_no_worker_would_end_are_ended() -> None:
    processes = {"a": (10, 1), "b": (11, 99), "c": (12, 1), "d": (13, 1), "e": (14, 98)}
    states = {"a": "CANCELLING", "b": "CANCELLING", "c": "RUNNING", "e": "CRASHED"}
    assert to_end(processes, states, worker=99) == [10, 14]


def test_pauses_grow_until_something_lives() -> None:
    pauses: list[float] = []
    pause: float | None = None
    for _ in range(8):
        pause = pause_before_restart(pause, lived_s=2, first_s=1)
        pauses.append(pause)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_before_restart(60, lived_s=100, first_s=1) == 1
    assert pause_before_restart(100, lived_s=1, first_s=100) == 100


@pytest.mark.prefect
def test_prefect_takes_the_verdicts(prefect_server: LocalServer, tmp_path: Path) -> None:
    login = prefect_server.environment["PREFECT_API_AUTH_STRING"]
    api = Api(prefect_server.api_url, login)
    pool = f"pool-{tmp_path.name}"
    api.post("/work_pools/", {"name": pool, "type": "process"})
    flow = api.post("/flows/", {"name": "some-flow"})["id"]

    def start(state: str, work_pool: str | None = pool) -> str:
        body = {"flow_id": flow, "work_pool_name": work_pool, "state": {"type": state}}
        return str(api.post("/flow_runs/", body)["id"])

    running, claimed, cancelling = start("RUNNING"), start("PENDING"), start("CANCELLING")
    elsewhere = start("RUNNING", work_pool=None)
    # They had a process before this supervisor was started.
    memory = tmp_path / "flow_runs.json"
    write_json(memory, [running, claimed, cancelling])
    stale = StaleRuns(api, prefect_server.api_url, pool, memory)

    assert stale.look(datetime.now(UTC), worker=None) == []  # it may be about to say so itself
    done = stale.look(datetime.now(UTC), worker=None)

    assert len(done) == 3
    states = {run: api.get(f"/flow_runs/{run}")["state"] for run in (running, claimed, cancelling)}
    assert states[running]["type"] == "CRASHED" and "process-project" in states[running]["message"]
    assert states[cancelling]["type"] == "CANCELLED"
    assert states[claimed]["type"] == "SCHEDULED"
    assert states[claimed]["state_details"]["scheduled_time"]  # a worker takes it from then on
    assert api.get(f"/flow_runs/{elsewhere}")["state"]["type"] == "RUNNING"
    assert read_json(memory) == []
    assert stale.look(datetime.now(UTC), worker=None) == []
