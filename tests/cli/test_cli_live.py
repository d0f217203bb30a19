"""The command on a terminal: a live display, colours, and nothing cut that is to be copied."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def on_a_terminal(columns: int, home: Path, *words: object) -> tuple[int, str]:
    """Exit code and what a terminal of that width was sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    dropped = ("PREFECT_", "CRBOOST_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(dropped)
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "crboost", *map(str, words)],
        stdin=slave, stdout=slave, stderr=slave, close_fds=True,
        env={**environment, "HOME": str(home), "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(slave)
    received = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the last one has closed the terminal
            break
        if not data:
            break
        received += data
    os.close(master)
    return process.wait(), received.decode()


def words_of(sent: str) -> str:
    """Without the escape codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent).replace("\r", "")


def test_a_run_on_a_narrow_terminal(done: Path, tmp_path: Path) -> None:
    code, sent = on_a_terminal(
        78, tmp_path, "run", done, "--set", "jobs.tsReconstruct.rescale_angpixs=24"
    )
    shown = words_of(sent)
    assert code == 0, shown
    assert "\x1b[" in sent
    assert "Starting a Prefect server for this run" in shown
    assert re.search(r"✓ +tsReconstruct +External/job005 +3 of 3 tilt series", shown)
    lines = shown.splitlines()
    for name in ("TS_01", "TS_02", "TS_03"):
        assert f"  {name}  External/job005/cpu/{name}/{name}.mrc" in lines
    assert f"  {done}/Reports/TS_01.png" in lines


def test_tables_have_colours_on_a_terminal(finished: tuple[Path, object], tmp_path: Path) -> None:
    code, sent = on_a_terminal(120, tmp_path, "status", finished[0])
    assert code == 0
    assert "\x1b[32msucceeded\x1b[0m" in sent
    assert re.search(r"TS_01 +done +done +done +done", words_of(sent))
