"""The whole path: real data, real tools, real schemer, real Prefect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crboost.run import active_run, runs

NODES = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
pytestmark = [pytest.mark.prefect, pytest.mark.slow]
Eventually = Callable[..., None]


def start(bench: Any, *options: str, api_url: str | None = None) -> subprocess.Popen[str]:
    """`python -m flows.local process` on the bench's project, with a server of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    if api_url:
        environment |= {"PREFECT_API_URL": api_url, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    return subprocess.Popen(
        [
            sys.executable, "-m", "flows.local", "process", str(bench.directory),
            "--result", str(bench.directory.parent / "result.json"), *options,
        ],
        env=environment,
        cwd=bench.directory.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finish(bench: Any, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for it; its result, with exit code and what it printed."""
    printed, _ = process.communicate(timeout=300)
    path = bench.directory.parent / "result.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    return {**result, "code": process.returncode, "printed": printed}


def local(bench: Any, *options: str) -> dict[str, Any]:
    return finish(bench, start(bench, *options))


def artifacts_of(flow_run_id: object) -> dict[str, Any]:
    """The artifacts of a flow run: key without the project's part, and data."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    return {str(one.key).split("-", 2)[2]: one for one in found}


def task_runs_of(flow_run_id: object) -> dict[str, str]:
    """Name and final state of each task of a flow run, in the order of their start."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        found = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        )
    found = sorted(found, key=lambda run: run.start_time)
    return {run.name: str(run.state_name) for run in found}


def test_a_run_shows_its_jobs_plan_progress_and_results_in_prefect(
    bench: Any, prefect: None, eventually: Eventually
) -> None:
    from flows.process import UP_TO_DATE, process_project

    state = process_project(project_dir=bench.directory, return_state=True)
    assert state.is_completed(), state.message
    assert bench.starts() == NODES
    run_id = state.state_details.flow_run_id
    names = ["snapshot", "plan", "generate", *NODES, "report"]
    eventually(lambda: task_runs_of(run_id) == dict.fromkeys(names, "Completed"), 30)
    artifacts = artifacts_of(run_id)
    assert "4 jobs to run" in artifacts["plan"].data
    rows = json.loads(artifacts["results"].data)
    assert [row["tilt_series"] for row in rows] == ["TS_01", "TS_02"]
    progress = json.loads(artifacts["tilt-series"].data)
    assert progress[1] == {"tilt series": "TS_02", **dict.fromkeys(NODES, "done")}
    assert artifacts["pictures"].data.count("](data:image/jpeg;base64,") == 2
    assert artifacts["tsreconstruct"].type == "progress"
    assert float(artifacts["tsreconstruct"].data) == 100.0
    assert artifacts["tsreconstruct"].description == "tsReconstruct: 2 of 2 tilt series"

    again = process_project(project_dir=bench.directory, return_state=True)
    assert again.is_completed()
    assert again.message == UP_TO_DATE
    run_id = again.state_details.flow_run_id
    eventually(lambda: list(task_runs_of(run_id)) == ["snapshot", "plan", "report"], 30)
    assert bench.starts() == NODES

    changed = process_project(
        project_dir=bench.directory,
        parameters={"jobs.tsAlignment.dark_threshold": 0.2},
        return_state=True,
    )
    assert changed.is_completed(), changed.message
    assert bench.starts() == [*NODES, "tsAlignment", "tsReconstruct"]


def test_what_cannot_be_planned_starts_nothing(bench: Any, prefect: None) -> None:
    from flows.process import process_project

    state = process_project(project_dir=bench.directory, jobs=["tsReconstruct"], return_state=True)
    assert state.is_failed()
    assert "add tsAlignment to the run" in state.message
    assert bench.starts() == []
    assert runs(bench.project) == []


def test_a_failing_job_fails_the_flow_with_its_own_words_and_stops_the_queue(
    bench: Any, prefect: None, eventually: Eventually
) -> None:
    from flows.process import process_project

    bench.behave(
        "tsAlignment",
        'echo \'{"kind": "bad_input", "message": "TS_01: every tilt is dark"}\' '
        "> $job/failure.json\ntouch $job/RELION_JOB_EXIT_FAILURE\nexit 1\n",
    )
    state = process_project(project_dir=bench.directory, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("TS_01: every tilt is dark\ntsAlignment (External/job003)")
    assert bench.starts() == NODES[:3]
    run_id = state.state_details.flow_run_id
    eventually(lambda: task_runs_of(run_id).get("tsAlignment") == "Failed", 30)
    assert "tsReconstruct" not in task_runs_of(run_id)
    assert "results" in artifacts_of(run_id)


OUT_OF_MEMORY = (
    'echo \'{"kind": "out_of_memory", "message": "no memory"}\' > $job/failure.json\n'
    "touch $job/RELION_JOB_EXIT_FAILURE; exit 1\n"
)


@pytest.mark.parametrize("death", [OUT_OF_MEMORY, "kill -KILL $$\n"])
def test_a_failure_that_a_retry_can_mend_is_tried_again(
    bench: Any, prefect: None, death: str
) -> None:
    from flows.process import process_project

    bench.behave(
        "importmovies", f"if [ $(grep -c importmovies starts.txt) = 1 ]; then\n{death}fi\n"
    )
    state = process_project(project_dir=bench.directory, jobs=["importmovies"], return_state=True)
    assert state.is_completed(), state.message
    assert bench.starts() == ["importmovies", "importmovies"]
    (run,) = runs(bench.project)
    assert [event["event"] for event in run.record["events"]].count("retry") == 1


def test_a_local_run_leaves_nothing_at_home_and_says_what_it_did(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    first = local(bench)
    assert (first["code"], first["state"]) == (0, "completed"), first
    assert list(first["jobs"]) == NODES
    assert [Path(path).name for path in first["pictures"]] == ["TS_01.png", "TS_02.png"]
    assert first["seconds_to_start"] < 60
    assert list(home.iterdir()) == []
    second = local(bench)
    assert (second["code"], second["state"]) == (0, "up_to_date")
    assert second["printed"].strip() == "everything is up to date"
    refused = local(bench, "--set", "jobs.tsAlignment.no_such_parameter=4")
    assert (refused["code"], refused["state"]) == (2, "refused")
    assert "no_such_parameter" in refused["message"]


def test_a_directory_that_is_no_project_is_refused_untouched(bench: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    process = subprocess.run(
        [sys.executable, "-m", "flows.local", "process", str(empty)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 2
    assert "crboost init" in process.stderr
    assert list(empty.iterdir()) == []


def test_a_killed_flow_leaves_the_queue_at_work(bench: Any, eventually: Eventually) -> None:
    bench.behave("importmovies", "sleep 3\n")
    flow = start(bench)
    eventually(lambda: bench.starts() == ["importmovies"])
    flow.send_signal(signal.SIGKILL)
    flow.communicate()
    run = active_run(bench.project)
    assert run is not None
    eventually(lambda: not run.schemer_alive(), 180)
    assert [run.job_state(node).phase for node in NODES] == ["succeeded"] * 4
    assert bench.starts() == NODES
    again = local(bench)
    assert (again["code"], again["state"]) == (0, "up_to_date")
    assert bench.starts() == NODES


def test_a_new_flow_joins_the_queue_that_a_killed_one_left(
    bench: Any, eventually: Eventually
) -> None:
    bench.behave("importmovies", "sleep 12\n")
    flow = start(bench)
    eventually(lambda: bench.starts() == ["importmovies"])
    flow.send_signal(signal.SIGKILL)
    flow.communicate()
    joining = local(bench)
    assert (joining["code"], joining["state"]) == (0, "completed"), joining
    assert joining["joined"] == runs(bench.project)[0].name
    assert joining["run"] is None
    assert list(joining["jobs"]) == NODES
    assert bench.starts() == NODES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_flow_says_that_the_queue_goes_on(
    bench: Any, eventually: Eventually, number: signal.Signals
) -> None:
    bench.behave("importmovies", "sleep 20\n")
    flow = start(bench, "--jobs", "importmovies")
    eventually(lambda: bench.starts() == ["importmovies"])
    flow.send_signal(number)
    result = finish(bench, flow)
    assert (result["code"], result["state"]) == (130, "interrupted"), result
    run = active_run(bench.project)
    assert run is not None
    assert result["run"] == run.name
    assert f"Left {run.name} at work" in result["message"]
    assert run.job_state("importmovies").phase == "running"


def test_a_killed_schemer_and_flow_are_recovered_by_the_next_run(
    bench: Any, eventually: Eventually
) -> None:
    bench.behave("importmovies", "sleep 15\n")
    flow = start(bench)
    eventually(lambda: bench.starts() == ["importmovies"])
    run = active_run(bench.project)
    assert run is not None
    flow.send_signal(signal.SIGKILL)
    flow.communicate()
    os.kill(json.loads((run.directory / "schemer.pid").read_text())["pid"], signal.SIGKILL)
    eventually(lambda: not run.schemer_alive())
    again = local(bench)
    assert (again["code"], again["state"]) == (0, "completed"), again
    phases = {node: run.job_state(node).phase for node in run.nodes}
    states = {past.node: past.status for past in bench.project.history()}
    assert states == dict.fromkeys(NODES, "Succeeded"), phases


def test_a_prefect_server_that_is_not_there_is_named(bench: Any) -> None:
    result = finish(bench, start(bench, api_url="http://127.0.0.1:9/api"))
    assert (result["code"], result["state"]) == (1, "error"), result
    assert "Prefect failed (http://127.0.0.1:9/api)" in result["message"]
    assert "Nothing of this project is running" in result["message"]
    assert bench.starts() == []
