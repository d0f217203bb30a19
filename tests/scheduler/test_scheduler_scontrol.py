"""`scontrol show job`, as Slurm 22.05 prints it."""

from __future__ import annotations

import pytest
from slurm_texts import recorded

from crboost.scheduler.slurm_text import Record, parse_scontrol
from crboost.scheduler.state import interpret


def records(name: str) -> list[Record]:
    return parse_scontrol(recorded(name).out)


def test_one_job() -> None:
    (job,) = records("scontrol_timeout")
    assert (job.job_id, job.raw_id, job.state, job.reason) == ("6", "6", "TIMEOUT", "TimeLimit")
    assert (job.time_limit, job.elapsed, job.nodes) == ("00:01:00", "00:01:25", "compute1")
    assert (job.signal, job.memory, job.work_dir) == (15, "200M", "/project")


def test_tasks_of_an_array() -> None:
    tasks = records("scontrol_array")
    assert [(one.job_id, one.raw_id, one.state) for one in tasks] == [
        ("9_4", "9", "COMPLETED"),
        ("9_3", "13", "FAILED"),
        ("9_2", "12", "COMPLETED"),
        ("9_1", "11", "COMPLETED"),
        ("9_0", "10", "COMPLETED"),
    ]


def test_paths_and_names_with_blanks() -> None:
    text = recorded("scontrol_running").out
    text = text.replace("WorkDir=/project", "WorkDir=/data/my project = x")
    text = text.replace("JobName=timeout_fast", "JobName=two words")
    text = text.replace("Command=(null)", "Command=/data/my project/run_submit.script")
    (job,) = parse_scontrol(text)
    assert job.work_dir == "/data/my project = x"
    assert job.script == "/data/my project/run_submit.script"
    assert (job.name, job.state) == ("two words", "RUNNING")


def test_a_long_reason() -> None:
    (job,) = records("scontrol_pending_nodes_down_or_reserved")
    assert job.reason.startswith("Nodes required for job are DOWN")


def test_errors_hold_no_job() -> None:
    assert records("scontrol_unknown_job") == []
    assert records("scontrol_no_controller") == []


@pytest.mark.parametrize(
    ("name", "phase", "kind"),
    [
        ("completed", "succeeded", None),
        ("failed", "failed", "tool_error"),
        ("failed_by_signal", "failed", "killed"),
        ("out_of_memory", "failed", "out_of_memory"),
        ("timeout", "failed", "time_limit"),
        ("node_fail", "failed", "node_failure"),
        ("preempted", "failed", "preempted"),
        ("cancelled", "failed", "aborted"),
        ("cancelled_while_pending", "failed", "aborted"),
        ("deadline", "failed", "aborted"),
        ("running", "running", None),
        ("suspended", "running", None),
        ("pending_begin_time", "pending", None),
        ("pending_dependency", "pending", None),
        ("requeued_after_node_fail", "pending", None),
    ],
)
def test_what_each_state_means(name: str, phase: str, kind: str | None) -> None:
    state = interpret(records(f"scontrol_{name}"), "scontrol")
    assert state is not None
    assert (state.phase, state.kind) == (phase, kind)


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("pending_partition_time_limit", True),
        ("pending_held", True),
        ("pending_dependency_never_satisfied", True),
        ("pending_resources", False),
        ("pending_begin_time", False),
        ("pending_nodes_down_or_reserved", False),
    ],
)
def test_which_jobs_wait_for_somebody(name: str, waits: bool) -> None:
    state = interpret(records(f"scontrol_{name}"), "scontrol")
    assert state is not None
    assert state.waits_for_somebody is waits
