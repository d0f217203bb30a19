"""What pytom-match-pick accepts on its command line, and whether an argv keeps to it. Pure.

The options are in `pytom_cli.json` beside this module, read from the `add_argument` calls of the
releases that it names. Other than WarpTools, argparse ends with an error when it is misused; the
check spares a wait in the queue for it. It is stricter than argparse in one thing: options are
written out, or given by their one-letter name, while argparse takes any abbreviation.
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
    """`source`: where it was read from; `programs`: program -> option -> what it takes."""
    text = (files("crboost.builders") / "pytom_cli.json").read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    return known


def check(argv: Sequence[str]) -> list[str]:
    """What is wrong with an argv of pytom-match-pick, one sentence each; empty if nothing is."""
    program = argv[0].rpartition("/")[2] if argv else ""
    options = contract()["programs"].get(program)
    if options is None:
        return [f"pytom-match-pick has no program {program!r}"]
    problems: list[str] = []
    given: set[str] = set()
    names = _names(options)
    for word, values in _split(argv[1:]):
        name = names.get(word)
        if name is None:
            problems.append(f"{program} has no option {word}")
            continue
        if name in given:
            problems.append(f"{name} is given twice")
        given.add(name)
        problems += _check_values(name, options[name], values)
    problems += [
        f"{program} needs {name}"
        for name, option in options.items()
        if option.get("required") and name not in given
    ]
    return problems


def parsed(argv: Sequence[str]) -> dict[str, list[str]]:
    """An argv that `check` accepts: option with its two dashes -> its values."""
    names = _names(contract()["programs"][argv[0].rpartition("/")[2]])
    return {names[word]: values for word, values in _split(argv[1:])}


def _names(options: Mapping[str, Any]) -> dict[str, str]:
    """Every name of every option -> the one with two dashes."""
    short = {one["short"]: name for name, one in options.items() if "short" in one}
    return {**short, **{name: name for name in options}}


def _split(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Options as written, each with the words that follow it; the first word counts for one."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if not found or _is_option(word):
            found.append((word, []))
        else:
            found[-1][1].append(word)
    return found


def _is_option(word: str) -> bool:
    """Whether argparse takes a word for an option: "-3.5" is a value, so is "-a b"."""
    return len(word) > 1 and word[0] == "-" and not _is(word, "float") and " " not in word


def _check_values(word: str, option: dict[str, Any], values: list[str]) -> list[str]:
    count = option["values"]
    if (count == "+" and not values) or (count != "+" and len(values) != count):
        wanted = {"+": "at least one value", 1: "a value"}.get(count, f"{count} values")
        return [f"{word} takes {wanted}, not {len(values)}"]
    problems = []
    for value in values:
        if not _is(value, option.get("type", "string")):
            problems.append(f"{word} = {value!r} is not of type {option['type']}")
        elif "above" in option and float(value) <= option["above"]:
            problems.append(f"{word} = {value} must be above {option['above']}")
        elif "choices" in option and value not in [str(one) for one in option["choices"]]:
            problems.append(f"{word} = {value!r} is none of {option['choices']}")
    return problems


def _is(value: str, kind: str) -> bool:
    if kind in ("string", "path"):
        return bool(value)
    try:
        return math.isfinite(float(value)) if kind == "float" else str(int(value)) == value
    except ValueError:
        return False
