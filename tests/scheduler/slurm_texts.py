"""What Slurm printed, as `texts/` keeps it, given to the code under test as a command's answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crboost.scheduler.ask import NOT_FOUND, Answer

TEXTS = Path(__file__).parent / "texts"


def recorded(name: str) -> Answer:
    """The answer in `texts/<name>.txt`: its comments are command, exit code and error output."""
    lines = (TEXTS / f"{name}.txt").read_text().splitlines()
    comments = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    out = "".join(f"{line}\n" for line in lines if not line.startswith("# "))
    said = comments[1] if len(comments) > 1 else ""
    code = int(said.split()[2].rstrip(",")) if said.startswith("exit code ") else 0
    return Answer(code, out, "\n".join(comments[2:]))


class Slurm:
    """Answers with recorded texts, and remembers what it was asked."""

    def __init__(self, **answers: str | Answer) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> Answer:
        self.asked.append(list(argv))
        given = self.answers.get(argv[0], Answer(NOT_FOUND, "", f"{argv[0]}: command not found"))
        return recorded(given) if isinstance(given, str) else given


NO_CONTROLLER = {
    "sacct": "sacct_no_database",
    "scontrol": "scontrol_no_controller",
    "squeue": "squeue_no_controller",
}
