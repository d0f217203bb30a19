"""Warnings about tilt images: grouped by cause, and never a flood."""

from __future__ import annotations

from crboost.translate.output import MOST_LINES, grouped


def test_single_problems_are_named_one_by_one() -> None:
    assert grouped([("tilt 1", "dark"), ("tilt 7", "missing")]) == [
        "tilt 1: dark",
        "tilt 7: missing",
    ]


def test_the_same_reason_is_said_once() -> None:
    problems = [(f"tilt {number}", "the gain has another size") for number in range(1, 22)]
    assert grouped(problems) == ["21 tilt images (tilt 1 to tilt 21): the gain has another size"]


def test_many_reasons_are_cut_short() -> None:
    problems = [(f"tilt {number}", f"movie {number} is empty") for number in range(1, 22)]
    lines = grouped(problems)
    assert len(lines) == MOST_LINES
    assert lines[0] == "tilt 1: movie 1 is empty"
    assert lines[-1] == "and 16 more tilt images"


def test_nothing_wrong_says_nothing() -> None:
    assert grouped([]) == []
