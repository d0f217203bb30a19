"""Daemons by their pid files, which may be older than the last restart of the machine."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path


def running(pid_file: Path, *words: str) -> int | None:
    """The process in a pid file, if it runs and its command line has all these words.

    The number alone says little: after a restart another process may have it.

    Args:
        pid_file: as the daemon wrote it.
        words: parts of the command line, the program's name first.
    """
    try:
        found = re.match(r"\s*(\d+)", pid_file.read_text())
        if found is None:
            return None
        pid = int(found.group(1))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
    if state == "Z" or Path(command[0]).name != words[0]:
        return None
    line = " ".join(command)
    return pid if all(word in line for word in words) else None


def stop(pid_file: Path, *words: str, seconds: float = 15) -> None:
    """End the daemon, gently first; nothing happens when it does not run."""
    pid = running(pid_file, *words)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while running(pid_file, *words) == pid:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.1)
    pid_file.unlink(missing_ok=True)
