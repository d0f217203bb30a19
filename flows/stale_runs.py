"""Flow runs whose process has gone, without Prefect having noticed.

A worker that is told to stop takes the processes of its flow runs with it, and the runs stay
`Running` for ever; so do those of a machine that lost its power. Prefect's own means for that is an
automation that waits for heartbeats, and takes a server that was away for a run that died. Here
the processes themselves are looked at first.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from crboost.errors import CrboostError
from crboost.files import read_json, write_json
from crboost.service.api import Api, ApiError
from flows.service_environment import HEARTBEAT_S

#: Without a word for so long, a run that is not this machine's to see is dead.
SILENCE_S = 3 * HEARTBEAT_S + 10
#: A run that has been claimed by a worker has a process before that.
CLAIMED_S = 120.0
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENGINE = (b"prefect.engine", b"prefect.runner._workspace", b"_workspace_runtime_bootstrap")
_TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

Verdict = Literal["crashed", "cancelled", "again"]

#: The name of the state (Crashed is its type) of runs that `abandon` has ended: what a person did
#: on purpose is no failure that others are told of (`flows/notifications.py`).
STOPPED_NAME = "Stopped"

CRASHED = (
    "The process of this run has gone (worker or machine stopped). Its jobs may be at work: run "
    "process-project again to follow them."
)


@dataclass(frozen=True)
class FlowRun:
    """A flow run that the server takes for unfinished.

    Attributes:
        state: RUNNING, PENDING or CANCELLING.
        since: when it entered that state.
        pooled: a worker of our pool has it; else somebody's own process, such as `crboost run`.
    """

    id: str
    name: str
    state: str
    since: datetime
    pooled: bool = True


@dataclass(frozen=True)
class Sight:
    """What is known of the processes of flow runs.

    Attributes:
        now: the time.
        alive: runs that have a process on this machine.
        gone: runs that had one when we looked last, and have none.
        heartbeats: the newest one of runs without a process here.
        server_since: since when the server could have taken heartbeats.
    """

    now: datetime
    alive: Collection[str] = ()
    gone: Collection[str] = ()
    heartbeats: Mapping[str, datetime] = field(default_factory=dict)
    server_since: datetime = _LONG_AGO


def judge(runs: Iterable[FlowRun], sight: Sight) -> dict[str, Verdict]:
    """What becomes of runs that nobody works on; runs that are well are left out."""
    found: dict[str, Verdict] = {}
    for run in runs:
        if run.id in sight.alive:
            continue
        if run.state == "PENDING":
            waited = sight.now - max(run.since, sight.server_since)
            if run.pooled and (run.id in sight.gone or waited > timedelta(seconds=CLAIMED_S)):
                found[run.id] = "again"  # it never began: nothing is lost by another try
        elif run.id in sight.gone or _silent(run, sight):
            found[run.id] = "cancelled" if run.state == "CANCELLING" else "crashed"
    return found


def _silent(run: FlowRun, sight: Sight) -> bool:
    """Whether a run has not been heard of for too long."""
    last = sight.heartbeats.get(run.id)
    if last is None and not run.pooled:
        return False  # its process sends none
    heard = max(last or run.since, run.since, sight.server_since)
    return sight.now - heard > timedelta(seconds=SILENCE_S)


def to_end(
    processes: Mapping[str, tuple[int, int]], states: Mapping[str, str], worker: int | None
) -> list[int]:
    """Processes of runs that are over or to be cancelled, and that no living worker would end.

    Args:
        processes: run to (pid, pid of its parent).
        states: run to the type of its state; runs that the server does not know are left out.
        worker: the worker's pid.
    """
    return [
        pid
        for run, (pid, parent) in processes.items()
        if parent != worker and states.get(run) in (*_TERMINAL, "CANCELLING")
    ]


def flow_processes(api_url: str) -> dict[str, tuple[int, int]]:
    """The processes of this user that run flow runs of a server: run to (pid, parent's pid)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            if entry.stat().st_uid != os.getuid():
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if not any(mark in word for mark in _ENGINE for word in words[:6]):
                continue
            pairs = (item.partition(b"=") for item in (entry / "environ").read_bytes().split(b"\0"))
            values = {name: value.decode(errors="replace") for name, _, value in pairs}
            run = values.get(b"PREFECT__FLOW_RUN_ID")
            if run and values.get(b"PREFECT_API_URL") == api_url:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found[run] = (int(entry.name), int(parent))
    return found


def end_processes(pids: Sequence[int], grace_s: float = 5.0) -> None:
    """End these processes and their groups, asked first; jobs have sessions of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
            time.sleep(0.1)


class StaleRuns:
    """Looks again and again; remembers which runs had a process.

    Args:
        memory: file that keeps them, for the time after a restart or a reboot.
    """

    def __init__(self, api: Api, api_url: str, pool: str, memory: Path) -> None:
        self._api = api
        self._api_url = api_url
        self._pool = pool
        self._memory = memory
        self._seen: set[str] = _remembered(memory)
        self._missed: set[str] = set()

    def look(self, server_since: datetime, worker: int | None) -> list[str]:
        """Look once, and set right what is wrong; returns what was done, a line each.

        Raises:
            ApiError: the server did not answer.
        """
        processes = flow_processes(self._api_url)
        runs = self._unfinished()
        # Gone at two looks in a row: at the first, its worker may be about to tell the server.
        missing = self._seen - set(processes)
        gone, self._missed = missing & self._missed, missing
        before, self._seen = self._seen, (self._seen | set(processes)) - gone
        unseen = [run.id for run in runs if run.id not in processes and run.id not in missing]
        sight = Sight(
            datetime.now(UTC), set(processes), gone, self._heartbeats(unseen), server_since
        )
        done = self._settle(runs, judge(runs, sight))
        if self._seen != before:
            write_json(self._memory, sorted(self._seen))
        strays = to_end(processes, self._states(processes), worker)
        if strays:
            end_processes(strays)
            done += [f"ended the process {pid} of a run that is over" for pid in strays]
        return done

    def abandon(self, message: str, grace_s: float = 5.0) -> list[str]:
        """End the processes of all flow runs, and say so of the runs: they are `Stopped`.

        The jobs that they follow stay at work.

        Raises:
            ApiError: the server did not answer; the processes are gone all the same.
        """
        processes = flow_processes(self._api_url)
        end_processes([pid for pid, _ in processes.values()], grace_s)
        runs = self._unfinished()
        ours = {*processes, *self._seen}
        sight = Sight(datetime.now(UTC), gone=ours, server_since=datetime.now(UTC))
        return self._settle(runs, judge(runs, sight), message, STOPPED_NAME)

    def _settle(
        self,
        runs: Sequence[FlowRun],
        verdicts: Mapping[str, Verdict],
        message: str = CRASHED,
        name: str = "Crashed",
    ) -> list[str]:
        states = {
            "crashed": {"type": "CRASHED", "name": name, "message": message},
            "cancelled": {"type": "CANCELLED", "name": "Cancelled", "message": message},
            "again": {"type": "SCHEDULED", "name": "Scheduled", "message": "Its worker has gone."},
        }
        names = {run.id: run.name for run in runs}
        done = []
        for run, verdict in verdicts.items():
            # By force only where Prefect's rules know no way back.
            body = {"state": states[verdict], "force": verdict == "again"}
            self._api.post(f"/flow_runs/{run}/set_state", body)
            done.append(f"run {names[run]} ({run}): {states[verdict]['name']}")
        return done

    def _unfinished(self) -> list[FlowRun]:
        kinds = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        answer = self._api.post("/flow_runs/filter", {"flow_runs": kinds, "limit": 200})
        return [
            FlowRun(
                run["id"],
                run["name"],
                run["state"]["type"],
                _time(run["state"]["timestamp"]),
                run["work_pool_name"] == self._pool,
            )
            for run in answer
        ]

    def _states(self, runs: Collection[str]) -> dict[str, str]:
        if not runs:
            return {}
        body = {"flow_runs": {"id": {"any_": sorted(runs)}}, "limit": 200}
        return {run["id"]: run["state_type"] for run in self._api.post("/flow_runs/filter", body)}

    def _heartbeats(self, runs: Iterable[str]) -> dict[str, datetime]:
        found = {}
        for run in runs:
            body = {
                "filter": {
                    "event": {"name": [_HEARTBEAT]},
                    "resource": {"id": [f"prefect.flow-run.{run}"]},
                    "order": "DESC",
                },
                "limit": 1,
            }
            with suppress(ApiError):
                for event in self._api.post("/events/filter", body)["events"]:
                    found[run] = _time(event["occurred"])
        return found


def _remembered(memory: Path) -> set[str]:
    with suppress(FileNotFoundError, CrboostError):
        return {str(run) for run in read_json(memory)}
    return set()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
