"""Runs the commands that doctor asks; an absent or silent command is an answer too."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from crboost.scheduler.ask import NOT_FOUND, TIMED_OUT, Answer


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    environ: Mapping[str, str] | None = None,
    given: str = "",
) -> Answer:
    """What a command says, in English. It is killed, with its children, when it takes too long.

    Args:
        given: its standard input.
    """
    env = {**(os.environ if environ is None else environ), "LC_ALL": "C.UTF-8"}
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=env,
            start_new_session=True,
        )
    except FileNotFoundError:
        return Answer(NOT_FOUND, "", f"{argv[0]}: command not found")
    except OSError as error:
        return Answer(NOT_FOUND, "", f"{argv[0]}: {error.strerror}")
    try:
        out, err = process.communicate(given, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return Answer(TIMED_OUT, "", f"no answer within {timeout_s:g} s")
    return Answer(process.returncode, out, err)


def last_words(answer: Answer, lines: int = 2) -> str:
    """What a command complained about, on one line; its exit code where it said nothing."""
    said = [line.strip() for line in (answer.err or answer.out).splitlines() if line.strip()]
    return " ".join(said[-lines:]) or f"exit code {answer.code}"
