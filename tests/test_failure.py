"""Failures are told apart by what driver and schemer left behind."""

from __future__ import annotations

import pytest

from crboost.failure import RETRYABLE, Failure, classify

KILLED = "crboost schemer: the job's command was killed by signal 9 (SIGKILL) and left no file"
SHELL_KILLED = "crboost schemer: the job's command ended with exit code 137 (killed by SIGKILL)"
GONE = "crboost schemer: the job's process is gone (so is the schemer) and left no file"
EXITED = "crboost schemer: the job's command ended with exit code 1 and left no file"


def test_the_drivers_word_counts_most() -> None:
    failure = classify(("bad_input", "patch_x = -1"), KILLED, "External/job003")
    assert failure == Failure("bad_input", "patch_x = -1", KILLED)
    assert failure.kind not in RETRYABLE


@pytest.mark.parametrize("words", [KILLED, SHELL_KILLED, GONE])
def test_a_killed_job_may_be_tried_again(words: str) -> None:
    failure = classify(None, f"working\n{words}", "External/job003")
    assert failure.kind == "killed"
    assert failure.kind in RETRYABLE
    assert failure.message == words.removeprefix("crboost schemer: ")


def test_a_job_that_exits_by_itself_would_do_so_again() -> None:
    failure = classify(None, f"ImportError: no module\n{EXITED}\n", "External/job003")
    assert failure.kind == "tool_error"
    assert failure.message.splitlines()[0] == "ImportError: no module"


def test_an_unknown_kind_and_an_empty_log() -> None:
    assert classify(("odd", "text"), "", "External/job003").kind == "tool_error"
    assert (
        classify(None, "", "External/job003").message == "External/job003 failed and said nothing"
    )
