"""Runs the scheduler's commands; never raises, since a scheduler that is away is an answer too."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Exit codes as a shell gives them.
NOT_FOUND = 127
TIMED_OUT = 124


@dataclass(frozen=True)
class Answer:
    """What a command of the scheduler said.

    Attributes:
        code: exit code; 127: there is no such command; 124: it took too long.
    """

    code: int
    out: str
    err: str

    @property
    def absent(self) -> bool:
        """Whether this machine has no such command."""
        return self.code == NOT_FOUND


#: Runs an argv and tells what it said. Tests give recorded answers.
Ask = Callable[[Sequence[str]], Answer]


def ask(argv: Sequence[str], *, timeout_s: float = 30.0) -> Answer:
    """Run a scheduler's command, in a form of output that the user's settings do not change."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SQUEUE_", "SACCT_", "SCONTROL_", "SINFO_", "SLURM_TIME_FORMAT"))
    }
    # The last: numbers of an array's tasks are not cut short.
    environ |= {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environ,
            check=False,
        )
    except FileNotFoundError:
        return Answer(NOT_FOUND, "", f"{argv[0]}: command not found")
    except subprocess.TimeoutExpired:
        return Answer(TIMED_OUT, "", f"{argv[0]} gave no answer within {timeout_s:g} s")
    except OSError as error:
        return Answer(NOT_FOUND, "", f"{argv[0]}: {error.strerror}")
    return Answer(done.returncode, done.stdout, done.stderr)
