"""Whose turn it is, among real processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crboost.turn import QUEUE_DIRECTORY, Claim, Turn, holder, waiting

# Enters, says so, takes, says so, works until it is told to end.
RUN = """
import sys, time
from pathlib import Path
from crboost.turn import Claim, Turn
project, name, work = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
turn = Turn(project, Claim.of_this_process(name, work=work))
other = turn.enter()
if other:
    print("left to", other.name, flush=True)
    sys.exit()
print("entered", flush=True)
while (before := turn.take()) is not None:
    time.sleep(0.02)
print("took", flush=True)
with (project / "log").open("a") as log:
    log.write(f"{name} begins\\n"); log.flush()
    seconds = float(sys.argv[4])
    time.sleep(seconds) if seconds else sys.stdin.readline()
    log.write(f"{name} ends\\n")
turn.release()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes = []

    def run(name: str, work: str = "", seconds: float = 0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path), name, work, str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_works_and_the_others_wait_in_the_order_in_which_they_came(
    tmp_path: Path, start: Start
) -> None:
    first = start("first")
    assert [says(first), says(first)] == ["entered", "took"]
    second = start("second")
    assert says(second) == "entered"
    third = start("third")
    assert says(third) == "entered"

    at_work = holder(tmp_path)
    assert at_work is not None
    assert (at_work.name, at_work.pid) == ("first", first.pid)
    assert [claim.name for claim in waiting(tmp_path)] == ["second", "third"]

    end(first)
    assert says(second) == "took"
    end(second)
    assert says(third) == "took"
    end(third)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [f"{name} {what}" for name in ("first", "second", "third")
                     for what in ("begins", "ends")]  # fmt: skip
    assert holder(tmp_path) is None
    assert list((tmp_path / QUEUE_DIRECTORY).iterdir()) == []


def test_who_is_killed_at_work_or_in_the_queue_stands_in_nobodys_way(
    tmp_path: Path, start: Start
) -> None:
    first, second, third = start("first"), None, None
    assert [says(first), says(first)] == ["entered", "took"]
    second = start("second")
    assert says(second) == "entered"
    third = start("third")
    assert says(third) == "entered"

    os.kill(second.pid, signal.SIGKILL)
    os.kill(first.pid, signal.SIGKILL)

    assert says(third) == "took"
    at_work = holder(tmp_path)
    assert at_work is not None and at_work.name == "third"
    assert waiting(tmp_path) == []


def test_of_runs_that_would_do_the_same_one_waits(tmp_path: Path, start: Start) -> None:
    work = "continue: "
    first = start("first", work)
    assert [says(first), says(first)] == ["entered", "took"]
    # What is at work may have looked already: the second one is not the same any more.
    second = start("second", work)
    assert says(second) == "entered"

    assert says(start("third", work)) == "left to second"
    other = start("other", "continue: importmovies")
    assert says(other) == "entered"
    own = start("own")
    assert says(own) == "entered"
    # A promise of somebody dead is none.
    second.kill()
    second.wait()
    fourth = start("fourth", work)
    assert says(fourth) == "entered"
    end(first)
    assert says(other) == "took"


def test_many_at_once_never_work_at_the_same_time(tmp_path: Path, start: Start) -> None:
    processes = [start(f"run{number}", seconds=0.05) for number in range(6)]
    for process in processes:
        process.communicate(timeout=60)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 12
    for begin, ends in zip(lines[::2], lines[1::2], strict=True):
        assert (begin.split()[1], ends) == ("begins", f"{begin.split()[0]} ends")


def test_projects_do_not_wait_for_each_other(tmp_path: Path) -> None:
    turns = []
    for name in ("one", "two"):
        turn = Turn(tmp_path / name, Claim.of_this_process(name))
        assert turn.enter() is None
        assert turn.take() is None
        turns.append(turn)
    for turn in turns:
        turn.release()
    assert holder(tmp_path / "one") is None


def test_a_project_that_nobody_ever_ran_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert waiting(tmp_path) == []
