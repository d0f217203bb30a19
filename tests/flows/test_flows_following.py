"""Following jobs of the real embedded schemer; the jobs are shell scripts."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from crboost.plan import Plan, PlannedJob
from crboost.run import JobState, Run, active_run
from crboost.settings import Settings
from flows.tasks.run_job import follow_job, start_schemer

LOG = logging.getLogger("test.following")

FIRST, SECOND = "importmovies", "importmovies__2"
SUCCEED = "touch $job/tilt_series.star $job/RELION_JOB_EXIT_SUCCESS; exit 0\n"
Eventually = Callable[..., None]


def make_run(bench: Any, *nodes: str) -> Run:
    jobs = tuple(
        PlannedJob(
            node=node,
            job_type="importmovies",
            fingerprint="f",
            reason="test",
            inputs=(),
            command=(),
            resources={"workers": "4"},
            continue_of=None,
            retries=1,
        )
        for node in nodes
    )
    return Run.create(
        bench.project,
        Plan(jobs, ()),
        bench.project.parameters(),
        Settings(python=str(bench.interpreter)),
        now=datetime.now().astimezone(),
    )


def follow(run: Run, node: str, attempt: int = 1) -> JobState:
    return follow_job(run, node, "embedded", attempt=attempt, log=LOG, progress=lambda state: None)


def test_jobs_are_started_once_and_followed_one_by_one(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for node in (FIRST, SECOND):
        bench.behave(node, f"seq 1000; echo 'a warning of {node}' >&2\n{SUCCEED}")
    run = make_run(bench, FIRST, SECOND)
    first = follow(run, FIRST)
    second = follow(run, SECOND)
    assert (first.phase, second.phase) == ("succeeded", "succeeded")
    assert bench.starts() == [FIRST, SECOND]
    out = [r.getMessage() for r in caplog.records if "lines left out" in r.getMessage()]
    assert len(out) == 2
    assert out[0].startswith("1\n2\n")
    assert "976 lines left out, see External/job001/run.out" in out[0]
    assert out[0].endswith("\n1000")
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"a warning of {FIRST}" in warnings


def test_a_finished_job_is_taken_as_it_is(bench: Any) -> None:
    bench.behave(FIRST, SUCCEED)
    run = make_run(bench, FIRST)
    follow(run, FIRST)
    assert follow(Run.open(bench.project, run.name), FIRST).phase == "succeeded"
    assert bench.starts() == [FIRST]


def test_a_running_job_is_joined_not_started(bench: Any, eventually: Eventually) -> None:
    bench.behave(FIRST, f"echo working\nsleep 3\n{SUCCEED}")
    run = make_run(bench, FIRST)
    start_schemer(run, "embedded", LOG)
    eventually(lambda: run.job_state(FIRST).phase == "running")
    joined = active_run(bench.project)
    assert joined is not None
    assert joined.name == run.name
    assert follow(joined, FIRST).phase == "succeeded"
    assert bench.starts() == [FIRST]


def test_a_failure_is_told_in_the_jobs_own_words(bench: Any) -> None:
    bench.behave(
        FIRST,
        'echo \'{"kind": "bad_input", "message": "TS_01.mdoc: line 7: no TiltAngle"}\''
        " > $job/failure.json\ntouch $job/RELION_JOB_EXIT_FAILURE\nexit 1\n",
    )
    run = make_run(bench, FIRST, SECOND)
    state = follow(run, FIRST)
    assert state.phase == "failed"
    assert state.failure is not None
    assert state.failure.kind == "bad_input"
    assert state.failure.message == "TS_01.mdoc: line 7: no TiltAngle"
    assert not run.schemer_alive()
    assert run.prepare_retry(FIRST, state.failure, 2) is None
    assert bench.starts() == [FIRST]


def test_a_retry_runs_in_the_same_folder_and_is_judged_by_itself(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.behave(
        FIRST,
        "echo attempt $(grep -c importmovies starts.txt)\n"
        "if [ $(grep -c importmovies starts.txt) = 1 ]; then\n"
        '  echo \'{"kind": "out_of_memory", "message": "no memory"}\' > $job/failure.json\n'
        "  touch $job/RELION_JOB_EXIT_FAILURE; exit 1\n"
        f"fi\nrm -f $job/RELION_JOB_EXIT_FAILURE\n{SUCCEED}",
    )
    run = make_run(bench, FIRST)
    first = follow(run, FIRST)
    assert first.failure is not None
    assert run.prepare_retry(FIRST, first.failure, 2) is not None
    caplog.clear()
    second = follow(run, FIRST, attempt=2)
    assert second.phase == "succeeded"
    assert second.job == first.job
    assert bench.starts() == [FIRST, FIRST]
    told = [record.getMessage() for record in caplog.records]
    assert "attempt 2" in told
    assert not [text for text in told if "attempt 1" in text]


def test_a_killed_schemer_is_replaced_and_its_job_not_started_again(
    bench: Any, eventually: Eventually
) -> None:
    bench.behave(FIRST, f"sleep 4\n{SUCCEED}")
    bench.behave(SECOND, SUCCEED)
    run = make_run(bench, FIRST, SECOND)
    start_schemer(run, "embedded", LOG)
    eventually(lambda: bench.starts() == [FIRST])
    os.kill(pid_of_schemer(run), signal.SIGKILL)
    eventually(lambda: not run.schemer_alive())
    assert follow(run, FIRST).phase == "succeeded"
    assert follow(run, SECOND).phase == "succeeded"
    assert bench.starts() == [FIRST, SECOND]


def pid_of_schemer(run: Run) -> int:
    import json

    text = (run.directory / "schemer.pid").read_text()
    return int(json.loads(text)["pid"])


def test_a_schemer_that_cannot_work_is_not_started_for_ever(bench: Any) -> None:
    run = make_run(bench, FIRST)
    (run.directory / FIRST / "job.star").write_text("this is not a STAR file\n")
    state = follow(run, FIRST)
    assert state.phase == "failed"
    assert state.failure is not None
    assert state.failure.kind == "schemer"
    assert "job.star" in state.failure.message.splitlines()[0]
    assert bench.starts() == []


def test_the_schemer_outlives_the_shell_that_started_it(bench: Any, eventually: Eventually) -> None:
    bench.behave(FIRST, f"sleep 3\n{SUCCEED}")
    run = make_run(bench, FIRST)
    start_schemer(run, "embedded", LOG)
    eventually(lambda: (run.directory / "schemer.pid").exists())
    assert os.getsid(pid_of_schemer(run)) != os.getsid(0)
    assert follow(run, FIRST).phase == "succeeded"


def test_a_second_run_at_the_same_time_is_refused_and_says_who_is_at_work(
    bench: Any, eventually: Eventually
) -> None:
    # At work until the test ends (or for ten minutes): no machine is too slow for that.
    bench.behave(FIRST, f"for i in $(seq 1200); do [ -e end ] && break; sleep 0.5; done\n{SUCCEED}")
    first = make_run(bench, FIRST)
    second = make_run(bench, SECOND)
    assert start_schemer(first, "embedded", LOG)
    eventually(lambda: bench.starts() == [FIRST])
    state = follow(second, SECOND)
    assert state.failure is not None
    assert state.failure.kind == "schemer"
    assert f"{first.name} is held by process" in state.failure.message.splitlines()[0]
    assert bench.starts() == [FIRST]
    assert first.schemer_alive()
    (bench.project.directory / "end").touch()
    assert follow(first, FIRST).phase == "succeeded"
