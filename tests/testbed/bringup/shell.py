"""Run commands; tell a package mirror that does not deliver from everything else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: What apt and mmdebstrap say when the mirror, not we, is at fault.
MIRROR_WORDS = re.compile(
    r"Failed to fetch|Unable to fetch|Unable to locate package|Unable to correct problems"
    r"|unmet dependencies|has no installation candidate|Could not resolve|Could not connect"
    r"|Temporary failure resolving|Connection (failed|timed out|refused)|Hash Sum mismatch"
    r"|is not signed|NO_PUBKEY|Clearsigned file isn't valid|does not have a Release file"
    r"|Unable to connect|File has unexpected size|50[0-9]  ?\w+|404  ?Not Found"
)


class TestbedError(Exception):
    """The testbed cannot be brought up, and why."""

    __test__ = False  # not a test class, whatever its name


class MirrorError(TestbedError):
    """The package mirror did not deliver; nothing here is broken."""


_start = time.monotonic()
_print_lock = threading.Lock()


def say(text: str) -> None:
    """One line of progress, with the seconds since the start."""
    with _print_lock:
        print(f"[{time.monotonic() - _start:5.1f} s] {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    log: Path,
    *,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
    nice: bool = False,
) -> None:
    """Run a command, its output appended to `log`.

    Raises:
        MirrorError: it failed with the words of a mirror that does not deliver.
        TestbedError: it failed otherwise.
    """
    command = [str(word) for word in argv]
    if nice:
        command = ["nice", "-n", "10", *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        begin = out.tell()
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", **(environment or {})},
                cwd=directory,
                check=False,
            ).returncode
        except FileNotFoundError as error:
            raise TestbedError(f"{command[0]}: no such command (log: {log})") from error
    if code == 0:
        return
    with log.open("rb") as written:
        written.seek(begin)
        text = written.read().decode(errors="replace")
    last = "\n".join(f"    {line}" for line in text.strip().splitlines()[-8:])
    kind = MirrorError if MIRROR_WORDS.search(text) else TestbedError
    raise kind(f"{Path(command[0]).name} failed with exit code {code} (log: {log}):\n{last}")


def output(argv: Sequence[str | Path], environment: dict[str, str] | None = None) -> str | None:
    """Standard output of a command, None when it failed or does not exist."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            check=False,
            timeout=30,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def wait_until(
    what: str,
    ready: Callable[[], bool],
    seconds: float,
    log: Path,
    *,
    running: Callable[[], bool] = lambda: True,
) -> None:
    """Poll `ready()` until it is true.

    Args:
        what: what is waited for, for the message.
        log: whose last lines the message shows.
        running: whether it can still become true; asked from the third second on.

    Raises:
        TestbedError: it did not become true in time.
    """
    start = time.monotonic()
    while not ready():
        waited = time.monotonic() - start
        if waited > seconds or (waited > 3 and not running()):
            lines = log.read_text(errors="replace").splitlines()[-4:] if log.exists() else []
            last = "\n".join(f"    {line}" for line in lines)
            raise TestbedError(f"{what}: not after {waited:.0f} s (log: {log}):\n{last}")
        time.sleep(0.1)
