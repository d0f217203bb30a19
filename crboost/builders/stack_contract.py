"""What AreTomo2, AreTomo3 and IMOD accept on their command lines, and whether an argv does. Pure.

The options are in `stack_programs_cli.json` beside this module, read from the sources that it
names. Neither AreTomo ever complains of an option: what it does not know it passes over, and a
value that is missing it takes for its own default. So every argv of ours is held against the list
before anything starts. IMOD's programs end with an error; the check spares a wait in the queue.

IMOD knows each option under a long and a short name, and takes abbreviations of both; here either
name has to be written out. Its options take one word at most.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any


@functools.cache
def contract() -> dict[str, Any]:
    """`source`: program -> where it was read from; `programs`: program -> what it takes.

    Of a program, `options` has each option's `values` (the fewest and the most, None: any number),
    `type`, `short` name, and whether it is `required` and may be `repeated`; `words` is how many
    words it takes besides, unless one of the options `instead_of_words` is there.
    """
    text = (files("crboost.builders") / "stack_programs_cli.json").read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    return known


def options_of(program: str) -> dict[str, str]:
    """Every name of every option of a program -> its long one."""
    options = contract()["programs"][program]["options"]
    short = {one["short"]: name for name, one in options.items() if "short" in one}
    return {**short, **{name: name for name in options}}


def parsed(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """An argv that `check` accepts: (option's long name -> its values, words besides)."""
    options, words, _ = _read(argv)
    return options, words


def check(argv: Sequence[str]) -> list[str]:
    """What is wrong with an argv of one of these programs, one sentence each; empty: nothing."""
    program = _program(argv)
    known = contract()["programs"].get(program)
    if known is None:
        return [f"neither AreTomo nor IMOD has a program {program!r} that is known here"]
    given, words, problems = _read(argv)
    problems += [
        f"{program} needs {name}"
        for name, option in known["options"].items()
        if option.get("required") and name not in given
    ]
    least, most = known["words"]
    if any(name in given for name in known.get("instead_of_words", ())):
        least = 0
    if most is not None and len(words) > most:
        problems.append(f"{program}: {words[most]!r} belongs to no option")
    elif len(words) < least:
        problems.append(f"{program} needs {least} files or more, not {len(words)}")
    return problems


def _program(argv: Sequence[str]) -> str:
    return argv[0].rpartition("/")[2] if argv else ""


def _read(argv: Sequence[str]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """(options and values, words besides, what is wrong with them)."""
    program = _program(argv)
    known: Mapping[str, Any] = contract()["programs"][program]["options"]
    names = options_of(program)
    given: dict[str, list[str]] = {}
    words: list[str] = []
    problems: list[str] = []
    rest = list(argv[1:])
    while rest:
        word = rest.pop(0)
        if not _is_option(word):
            words.append(word)
            continue
        if word not in names:
            problems.append(f"{program} has no option {word}")
            while rest and not _is_option(rest[0]):
                rest.pop(0)
            continue
        name = names[word]
        option = known[name]
        least, most = option["values"]
        values: list[str] = []
        while rest and not _is_option(rest[0]) and (most is None or len(values) < most):
            values.append(rest.pop(0))
        if name in given and not option.get("repeated"):
            problems.append(f"{word} is given twice")
        if len(values) < least:
            problems.append(f"{word} takes {_count(least, most)}, not {len(values)}")
        problems += [
            f"{word} = {value!r} is not of type {option['type']}"
            for value in values
            if not _is(value, option["type"])
        ]
        given.setdefault(name, []).extend(values)
    return given, words, problems


def _is_option(word: str) -> bool:
    """Whether a word is an option's name, or meant to be: "-1" and "-.5" are numbers."""
    return len(word) > 1 and word[0] == "-" and not _is(word, "float")


def _count(least: int, most: int | None) -> str:
    if most == least:
        return "a value" if least == 1 else f"{least} values"
    return f"at least {least} values" if most is None else f"{least} to {most} values"


def _is(value: str, kind: str) -> bool:
    if kind in ("string", "path"):
        return bool(value)
    if kind == "numbers":
        return all(_is(one, "float") for one in value.split(","))
    try:
        return math.isfinite(float(value)) if kind == "float" else str(int(value)) == value
    except ValueError:
        return False
