"""Only a daemon of ours is taken for running, and only that one is stopped."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bringup import daemons


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    process = subprocess.Popen(["sleep", "61"])
    pid_file = tmp_path / "sleep.pid"
    pid_file.write_text(f"{process.pid}\n")
    # For an instant after exec a process has no command line yet.
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    yield process, pid_file
    process.kill()
    process.wait()


def test_the_command_line_decides(sleeper: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, pid_file = sleeper
    assert daemons.running(pid_file, "sleep", "61") == process.pid
    assert daemons.running(pid_file, "slurmctld") is None
    assert daemons.running(pid_file, "sleep", "spare1") is None


def test_another_process_of_that_number_is_left_alone(
    sleeper: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, pid_file = sleeper
    daemons.stop(pid_file, "slurmctld")
    assert process.poll() is None


def test_stop_ends_it_and_a_second_stop_is_nothing(
    sleeper: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, pid_file = sleeper
    daemons.stop(pid_file, "sleep")
    assert process.wait(timeout=60) == -15
    assert not pid_file.exists()
    daemons.stop(pid_file, "sleep")


@pytest.mark.parametrize("text", ["", "no number\n", "999999999\n"])
def test_a_pid_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    pid_file = tmp_path / "x.pid"
    pid_file.write_text(text)
    assert daemons.running(pid_file, "sleep") is None
