"""`sacct --parsable2`, as Slurm 22.05 prints it."""

from __future__ import annotations

import pytest
from slurm_texts import recorded

from crboost.scheduler.slurm_text import Record, parse_sacct
from crboost.scheduler.state import interpret, interpret_all


def records(name: str) -> list[Record]:
    return parse_sacct(recorded(name).out)


def test_a_job_and_its_steps() -> None:
    job, batch, step = records("sacct_out_of_memory_in_step")
    assert (job.job_id, job.step, job.state, job.exit_code, job.derived_signal) == (
        "5",
        "",
        "FAILED",
        1,
        125,
    )
    assert (batch.step, step.step, step.state, step.memory_used) == (
        "batch",
        "0",
        "OUT_OF_MEMORY",
        "824K",
    )
    assert (job.memory, job.nodes, job.time_limit) == ("100M", "compute1", "UNLIMITED")


def test_who_cancelled_is_no_part_of_the_state() -> None:
    job = records("sacct_cancelled")[0]
    assert (job.state, job.by, job.nodes) == ("CANCELLED", "0", "compute1")
    pending = records("sacct_cancelled_while_pending")[0]
    assert (pending.state, pending.by, pending.nodes) == ("CANCELLED", "0", "")


def test_tasks_of_an_array() -> None:
    tasks = [record for record in records("sacct_array") if not record.step]
    assert [(one.array_id, one.task, one.raw_id) for one in tasks] == [
        ("9", "0", "10"),
        ("9", "1", "11"),
        ("9", "2", "12"),
        ("9", "3", "13"),
        ("9", "4", "9"),
    ]


def test_tasks_that_wait_are_one_record() -> None:
    header, row = recorded("sacct_pending_resources").out.splitlines()
    record = parse_sacct(f"{header}\n{row.replace('14|14', '14_[5-7%2]|14', 1)}\n")[0]
    assert (record.array_id, record.task, record.raw_id) == ("14", "5-7%2", "14")


def test_an_unknown_job_is_a_header_without_rows() -> None:
    assert recorded("sacct_unknown_job").out.startswith("JobID|")
    assert records("sacct_unknown_job") == []


def test_without_a_header_nothing_is_guessed() -> None:
    assert records("sacct_allocations_out_of_memory") == []
    assert records("sacct_no_database") == []


def test_a_work_directory_may_hold_the_separator() -> None:
    text = "JobID|State|WorkDir\n7|RUNNING|/data/a|b\n"
    assert parse_sacct(text)[0].work_dir == "/data/a|b"


@pytest.mark.parametrize(
    ("name", "phase", "kind", "words"),
    [
        ("completed", "succeeded", None, "completed"),
        ("failed", "failed", "tool_error", "exit code 3"),
        ("failed_by_signal", "failed", "killed", "SIGSEGV"),
        ("out_of_memory", "failed", "out_of_memory", "more memory than the 100M"),
        ("out_of_memory_in_step", "failed", "out_of_memory", "more memory than the 100M"),
        ("timeout", "failed", "time_limit", "time limit of 00:01:00 after 00:01:25"),
        ("node_fail", "failed", "node_failure", "spare1 failed"),
        ("preempted", "failed", "preempted", "preempted on compute1"),
        ("cancelled", "failed", "aborted", "cancelled by user 0"),
        ("cancelled_while_pending", "failed", "aborted", "cancelled by user 0"),
        ("deadline", "failed", "aborted", "deadline"),
        ("running", "running", None, "running on compute1"),
        ("suspended", "running", None, "suspended"),
        ("pending_resources", "pending", None, "waits"),
        ("pending_held", "pending", None, "JobHeldUser"),
        ("requeued_after_node_fail", "pending", None, "BeginTime"),
    ],
)
def test_what_each_state_means(name: str, phase: str, kind: str | None, words: str) -> None:
    state = interpret(records(f"sacct_{name}"), "sacct")
    assert state is not None
    assert (state.phase, state.kind) == (phase, kind)
    assert words in state.message


def test_several_jobs_at_once() -> None:
    states = interpret_all(records("sacct_several"), "sacct")
    assert {name: state.phase for name, state in states.items()} == {
        "1": "succeeded",
        "2": "failed",
        "4": "failed",
        "7": "running",
        "9_0": "succeeded",
        "9_1": "succeeded",
        "9_2": "succeeded",
        "9_3": "failed",
        "9_4": "succeeded",
        "22": "pending",
        "21": "pending",
    }


def test_a_word_that_slurm_may_yet_invent_is_unknown() -> None:
    text = recorded("sacct_completed").out.replace("COMPLETED", "PERHAPS")
    state = interpret(parse_sacct(text), "sacct")
    assert state is not None
    assert (state.phase, state.alive) == ("unknown", None)


@pytest.mark.parametrize(
    ("printed", "memory"), [("1G", "1G"), ("1.50Gn", "1.50Gn"), ("16?", ""), ("0n", ""), ("", "")]
)
def test_memory_that_the_database_has_not_heard_of(printed: str, memory: str) -> None:
    header, row, *_ = recorded("sacct_cancelled_while_pending").out.splitlines()
    place = header.split("|").index("ReqMem")
    cells = row.split("|")
    cells[place] = printed
    assert parse_sacct(f"{header}\n{'|'.join(cells)}\n")[0].memory == memory
