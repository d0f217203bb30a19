"""Submission templates: what stands open in them, and who fills it.

RELION (and the embedded schemer) fill XXXnameXXX, XXXcommandXXX, XXXextra1XXX and so on when they
submit a job. Before that, when a run or a project is made, crboost fills the placeholders below
from the settings, so that no template names a place of the site:

    XXXsetupXXX      a line of its own: environment modules, the site's shell lines
    XXXcontainerXXX  what goes before a shell so that it runs in RELION's container; or nothing
    XXXlauncherXXX   mpirun, before the commands of a job with several MPI processes; or nothing

**RELION's rule:** a line with XXXcommandXXX keeps the rest of its text only if the command
contains `relion_` (and, with several MPI processes, is an MPI program); for any other command the
whole line *becomes* the command, a container's wrapper included. So XXXcommandXXX stands on a
line that needs nothing else, inside a here-document that feeds a shell: the shell is in the
container or is not, and the command's own quotes and backquotes mean what they mean.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crboost.errors import ParameterError

RELION_PLACEHOLDERS = frozenset(
    f"XXX{name}XXX"
    for name in (
        "mpinodes",
        "threads",
        "cores",
        "dedicated",
        "nodes",
        "name",
        "queue",
        "outfile",
        "errfile",
        "command",
    )
)
SETUP = "XXXsetupXXX"
CONTAINER = "XXXcontainerXXX"
LAUNCHER = "XXXlauncherXXX"
OUR_PLACEHOLDERS = frozenset((SETUP, CONTAINER, LAUNCHER))
COMMAND = "XXXcommandXXX"

_PLACEHOLDER = re.compile(r"XXX[A-Za-z0-9_]+?XXX")
_EXTRA = re.compile(r"XXXextra([1-9][0-9]*)XXX")
_DIRECTIVE = re.compile(r"#(SBATCH|PBS|BSUB|\$)\s")


@dataclass(frozen=True)
class Filling:
    """What crboost fills into a template.

    Attributes:
        extras: the values that XXXextra1XXX, ... will have; a directive with an empty one is
            left out. None keeps every line, for a template that people use from RELION's GUI.
        setup: shell lines.
        container: argv that goes before a shell; empty for a native one.
        launcher: argv that goes before each MPI command.
    """

    extras: Sequence[str] | None = None
    setup: Sequence[str] = ()
    container: Sequence[str] = ()
    launcher: Sequence[str] = ()


def placeholders(template: str) -> set[str]:
    """Every XXX...XXX in a template."""
    return set(_PLACEHOLDER.findall(template))


def template_problems(template: str, extra_count: int) -> list[str]:
    """What would go wrong with a template, for a person to read; empty if nothing would.

    Args:
        extra_count: how many XXXextraNXXX the settings define.
    """
    problems: list[str] = []
    if not template.startswith("#!"):
        problems.append("line 1: does not begin with #!, so the scheduler refuses the script")
    commands = 0
    for number, line in enumerate(template.splitlines(), 1):
        for name in _PLACEHOLDER.findall(line):
            extra = _EXTRA.fullmatch(name)
            if extra and int(extra[1]) > extra_count:
                problems.append(
                    f"line {number}: {name}: scheduler.extra has only {extra_count} fields"
                )
            elif not extra and name not in RELION_PLACEHOLDERS | OUR_PLACEHOLDERS:
                problems.append(f"line {number}: {name} is no placeholder that anything fills")
        if COMMAND in line:  # in a comment too: RELION would make a command of it
            commands += 1
            rest = line.replace(COMMAND, "").replace(LAUNCHER, "").strip()
            if rest:
                problems.append(
                    f"line {number}: RELION drops {rest!r} for commands without `relion_`; "
                    f"put {COMMAND} on a line of its own, in a here-document"
                )
    if commands != 1:
        problems.append(f"{COMMAND} stands in {commands} lines; it must stand in exactly one")
    return problems


def fill_template(template: str, filling: Filling) -> str:
    """The template with crboost's placeholders filled; RELION's stay.

    Raises:
        ParameterError: something to fill in contains a placeholder, or a line break.
    """
    container = _quoted(filling.container)
    launcher = _quoted(filling.launcher, allowed=RELION_PLACEHOLDERS)
    for line in filling.setup:
        _check(line, frozenset())
    lines: list[str] = []
    for line in template.removesuffix("\n").split("\n"):  # splitlines() knows other breaks too
        if filling.extras is not None and _asks_for_nothing(line, filling.extras):
            continue
        if line.strip() == SETUP:
            lines.extend(filling.setup)
            continue
        lines.append(_replace(line, {CONTAINER: container, LAUNCHER: launcher}))
    return "\n".join(lines) + "\n"


def _replace(line: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        if name in line:
            # Without the blank that would be left behind.
            line = line.replace(f"{name} ", f"{value} " if value else "").replace(name, value)
    return line


def _asks_for_nothing(line: str, extras: Sequence[str]) -> bool:
    """Whether a directive is about one XXXextraNXXX only, which is empty."""
    names = _PLACEHOLDER.findall(line)
    if not _DIRECTIVE.match(line) or len(names) != 1:
        return False
    extra = _EXTRA.fullmatch(names[0])
    return bool(extra and int(extra[1]) <= len(extras) and not extras[int(extra[1]) - 1])


def _quoted(argv: Sequence[str], allowed: frozenset[str] = frozenset()) -> str:
    """The argv as a shell reads it; the one place where it becomes text."""
    text = shlex.join(argv)
    _check(text, allowed)
    return text


def _check(text: str, allowed: frozenset[str]) -> None:
    for name in _PLACEHOLDER.findall(text):
        if name not in allowed:
            raise ParameterError(
                f"{text!r} contains {name}, which RELION would take for a placeholder",
                hint="rename the directory or change the setting",
            )
    if "\n" in text or "\r" in text:
        raise ParameterError(f"{text!r} has a line break, which a submission template cannot hold")
