"""What membrain-seg accepts on its command line, and whether an argv keeps to it. Pure.

The options are in `membrain_cli.json` beside this module, read from the source that it names. What
is required and missing, membrain-seg asks for on its terminal, which no job has; the check spares
a wait in the queue for that.
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
    """`source`: where it was read from; `commands`: command -> option -> what it takes."""
    text = (files("crboost.builders") / "membrain_cli.json").read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    return known


def check(argv: Sequence[str]) -> list[str]:
    """What is wrong with an argv of membrain-seg, one sentence each; empty if nothing is."""
    name = argv[0].rpartition("/")[2] if argv else ""
    command = argv[1] if len(argv) > 1 else ""
    options = contract()["commands"].get(command)
    if name != "membrain" or options is None:
        return [f"{name} {command}".strip() + ": no command of membrain-seg that is known here"]
    switches_off = {one["off"]: known for known, one in options.items() if one["type"] == "switch"}
    problems: list[str] = []
    given: set[str] = set()
    words = list(argv[2:])
    while words:
        word = words.pop(0)
        option = switches_off.get(word, word)
        if option not in options:
            problems.append(f"membrain {command} has no option {word}")
            continue
        if option in given:
            problems.append(f"{option} is given twice")
        given.add(option)
        if options[option]["type"] != "switch":
            problems += _value_problem(word, options[option], words)
    problems += [
        f"membrain {command} needs {option}"
        for option, one in options.items()
        if one.get("required") and option not in given
    ]
    return problems


def _value_problem(word: str, option: Mapping[str, Any], words: list[str]) -> list[str]:
    """Take the option's value off `words`: the next word, as click has it."""
    if not words:
        return [f"{word} needs a value"]
    value = words.pop(0)
    return [] if _is(value, option["type"]) else [f"{word} = {value!r} is no {option['type']}"]


def _is(value: str, kind: str) -> bool:
    if kind == "path":
        return bool(value)
    try:
        return math.isfinite(float(value)) if kind == "float" else str(int(value)) == value
    except ValueError:
        return False
