from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from flows.child import pause_before_restart
from flows.stale_runs import CLAIMED_S, SILENCE_S, FlowRun, Sight, judge, to_end

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
