from __future__ import annotations

import itertools

import pytest

from flows.tasks.run_job import (
    END_TIMEOUT_SECONDS,
    SCHEMER_RESTARTS,
    Sight,
    failure_text,
    last_message,
    next_step,
)


@pytest.mark.parametrize(
    ("sight", "step"),
    [
        # contract 6: adopt what is finished or running
        (Sight("succeeded", alive=False), "done"),
        (Sight("succeeded", alive=True), "done"),
        (Sight("running", alive=True, started=True), "wait"),
        (Sight("waiting", alive=True, started=True), "wait"),
        # nobody takes care of it
        (Sight("waiting", alive=False), "start"),
        (Sight("running", alive=False), "start"),
        (Sight("running", alive=False, started=True, restarts=SCHEMER_RESTARTS), "start"),
        (Sight("running", alive=False, started=True, restarts=SCHEMER_RESTARTS + 1), "lost"),
        # failed: only when its schemer has gone
        (Sight("failed", alive=True, started=True), "wait"),
        (Sight("failed", alive=True, started=True, waited_seconds=END_TIMEOUT_SECONDS), "failed"),
        (Sight("failed", alive=False), "failed"),
        (Sight("aborted", alive=False), "failed"),
        # a retry does not mistake the last attempt's failure for its own
        (Sight("failed", alive=False, attempt=2), "start"),
        (Sight("failed", alive=False, started=True, attempt=2, restarts=1), "failed"),
    ],
)
def test_next_step(sight: Sight, step: str) -> None:
    assert next_step(sight) == step


def test_a_live_schemer_is_never_started_again() -> None:
    phases = ("waiting", "running", "succeeded", "failed", "aborted")
    for phase, started, attempt, restarts in itertools.product(
        phases, (False, True), (1, 2, 3), range(6)
    ):
        sight = Sight(phase, True, started, attempt, restarts)
        assert next_step(sight) not in ("start", "lost")


def test_the_jobs_own_words_come_first() -> None:
    text = failure_text("\nmovie TS_01_003.eer has no frames\n", "bad_input", "x", "External/job3/")
    assert text == "movie TS_01_003.eer has no frames\nx (External/job3) failed: bad input"


def test_a_silent_failure_still_says_which_job() -> None:
    text = failure_text("", "out_of_memory", "tsAlignment", None)
    assert text.splitlines() == [
        "The job gave no reason.",
        "tsAlignment failed: out of memory",
    ]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        ("starting\njob.star:3: no value\n  -> give one\n", "job.star:3: no value\n  -> give one"),
        ("job.star: damaged\n-> look at it\n\n", "job.star: damaged\n-> look at it"),
        ("   only this", "only this"),
    ],
)
def test_the_last_message_of_a_log_keeps_its_hint(log: str, message: str) -> None:
    assert last_message(log) == message
