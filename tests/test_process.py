"""Running one tool command."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from crboost.process import Runner

#: Forks a child that keeps the standard streams, writes its number, then does what it is told.
_WITH_CHILD = """
import os, pathlib, sys, time
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
pathlib.Path("child").write_text(str(child))
print("last words", file=sys.stderr, flush=True)
{end}
"""


def _gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("end", "code"), [("os.kill(os.getpid(), 9)", -signal.SIGKILL), ("os._exit(3)", 3)]
)
def test_a_command_ends_with_its_main_process_and_its_children_with_it(
    tmp_path: Path, end: str, code: int
) -> None:
    lines: list[str] = []
    started = time.monotonic()
    finished = Runner().run(
        [sys.executable, "-c", _WITH_CHILD.format(end=end)],
        directory=tmp_path,
        environment={},
        on_error_line=lines.append,
    )
    assert time.monotonic() - started < 30
    assert finished.code == code
    assert finished.tail == ("last words",)
    assert lines == ["last words\n"]
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 60
    while not _gone(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _gone(child)


def test_stop_ends_a_command_and_its_children(tmp_path: Path) -> None:
    runner = Runner()
    threading.Timer(1.0, runner.stop).start()
    with pytest.raises(InterruptedError):
        runner.run(
            [sys.executable, "-c", _WITH_CHILD.format(end="time.sleep(60)")],
            directory=tmp_path,
            environment={},
            on_error_line=lambda _line: None,
        )
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 60
    while not _gone(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _gone(child)
