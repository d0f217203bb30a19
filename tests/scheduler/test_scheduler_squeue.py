"""`squeue --states=all` with our format, as Slurm 22.05 prints it."""

from __future__ import annotations

import pytest
from slurm_texts import recorded

from crboost.scheduler.slurm_text import SQUEUE_FORMAT, Record, parse_squeue
from crboost.scheduler.state import interpret, interpret_all


def records(name: str) -> list[Record]:
    return parse_squeue(recorded(name).out)


def test_the_recorded_format_begins_like_ours() -> None:
    first = (recorded("squeue_array"), "%i|%A|%F|%K|%T|%r|%M|%l|%P|%N|%j")
    assert SQUEUE_FORMAT.startswith(first[1])


def test_tasks_of_an_array() -> None:
    assert [
        (one.job_id, one.raw_id, one.array_id, one.task) for one in records("squeue_array")
    ] == [
        ("9_4", "9", "9", "4"),
        ("9_2", "12", "9", "2"),
        ("9_1", "11", "9", "1"),
        ("9_0", "10", "9", "0"),
        ("9_3", "13", "9", "3"),
    ]


def test_script_and_time_of_submission() -> None:
    line = recorded("squeue_running").out.strip()
    (job,) = parse_squeue(f"{line}|2026-11-22T21:03:31|/my | project/External/job001/x\n")
    assert job.submitted == "2026-11-22T21:03:31"
    assert job.script == "/my | project/External/job001/x"


def test_a_reason_with_commas_and_blanks() -> None:
    (job,) = records("squeue_pending_nodes_down_or_reserved")
    assert job.reason.endswith("reserved for jobs in higher priority partitions")
    assert (job.nodes, job.name) == ("", "preempted")


@pytest.mark.parametrize(
    "name", ["squeue_no_controller", "squeue_unknown_job", "squeue_user_empty"]
)
def test_no_job(name: str) -> None:
    assert records(name) == []


def test_other_formats_are_not_guessed() -> None:
    assert records("squeue_default") == []


@pytest.mark.parametrize(
    ("name", "phase", "kind"),
    [
        ("completed", "succeeded", None),
        ("failed", "failed", "tool_error"),
        ("out_of_memory", "failed", "out_of_memory"),
        ("timeout", "failed", "time_limit"),
        ("node_fail", "failed", "node_failure"),
        ("preempted", "failed", "preempted"),
        ("cancelled", "failed", "aborted"),
        ("deadline", "failed", "aborted"),
        ("running", "running", None),
        ("suspended", "running", None),
        ("requested_too_much", "pending", None),
    ],
)
def test_what_each_state_means(name: str, phase: str, kind: str | None) -> None:
    state = interpret(records(f"squeue_{name}"), "squeue")
    assert state is not None
    assert (state.phase, state.kind) == (phase, kind)


def test_several_jobs_at_once() -> None:
    states = interpret_all(records("squeue_several"), "squeue")
    assert states["9_3"].phase == "failed"
    assert states["22"].phase == "pending"
    assert len(states) == 11
