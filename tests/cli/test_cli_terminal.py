"""Tables and words."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from crboost.cli.terminal import command, counted, plain_table, relative, seconds


def test_plain_tables_are_aligned_and_cut_nothing() -> None:
    long = "x" * 300
    assert plain_table(["a", "bb"], [["1", long], ["222", ""]]).splitlines() == [
        "a    bb",
        f"1    {long}",
        "222",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_commands_survive_the_shell() -> None:
    words = ["crboost", "plan", "/data/it's here/$x"]
    assert shlex.split(command(*words)) == words


def test_counts() -> None:
    assert [counted(0, "job"), counted(1, "job"), counted(2, "job")] == [
        "0 jobs",
        "1 job",
        "2 jobs",
    ]


def test_paths_elsewhere_stay_whole() -> None:
    assert relative("/p/External/job001/x.mrc", Path("/p")) == "External/job001/x.mrc"
    assert relative("/q/x.mrc", Path("/p")) == "/q/x.mrc"
