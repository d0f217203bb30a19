"""What is told of a run while it is at work."""

from __future__ import annotations

from typing import Any

from crboost.cli.follow import Clock, Sight, changes
from crboost.run import JobState


def state(node: str, phase: Any, job: str | None = None, **counts: int) -> JobState:
    return JobState(node, job, phase, **counts)


def test_a_new_run_and_its_first_job_are_told() -> None:
    after = Sight("run_1", (state("a", "running", "External/job001/"), state("b", "waiting")))
    assert changes(Sight(), after) == ["run_1: a, b", "a: running in External/job001"]


def test_nothing_new_is_nothing_told() -> None:
    sight = Sight("run_1", (state("a", "running", "External/job001/", total=3),))
    assert changes(sight, sight) == []


def test_each_finished_tilt_series_and_the_end_are_told() -> None:
    job = "External/job001/"
    first = Sight("r", (state("a", "running", job, total=3),))
    second = Sight("r", (state("a", "running", job, done=1, failed=1, total=3),))
    third = Sight("r", (state("a", "succeeded", job, done=2, failed=1, total=3),))
    assert changes(first, second) == ["a: 2 of 3 tilt series, 1 failed"]
    assert changes(second, third) == [
        "a: succeeded in External/job001 (3 of 3 tilt series, 1 failed)"
    ]


def test_a_job_that_was_over_before_anybody_looked_is_told_once() -> None:
    seen = Sight("r", (state("a", "succeeded", "External/job001/", done=3, total=3),))
    assert changes(Sight("r", (state("a", "waiting"),)), seen) == [
        "a: succeeded in External/job001 (3 of 3 tilt series)"
    ]
    assert changes(seen, seen) == []


def test_a_run_that_follows_another_one_starts_afresh() -> None:
    old = Sight("run_1", (state("a", "succeeded", "External/job001/"),))
    new = Sight("run_2", (state("a", "running", "External/job002/"),))
    assert changes(old, new) == ["run_2: a", "a: running in External/job002"]


def test_the_clock_stops_with_the_job() -> None:
    clock = Clock()
    clock.see([state("a", "running")])
    clock.started["a"] -= 65
    assert clock.text(state("a", "running")) == "1 min 05 s"
    clock.see([state("a", "succeeded")])
    clock.started["a"] -= 1000
    assert clock.text(state("a", "succeeded")) == "1 min 05 s"
    assert clock.text(state("b", "waiting")) == ""
