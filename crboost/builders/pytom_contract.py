"""What pytom-match-pick accepts on its command line, and whether an argv keeps to it. Pure.

The options are in `pytom_cli.json` beside this module, read from the `add_argument` calls of the
releases that it names. Other than WarpTools, argparse ends with an error when it is misused; the
check spares a wait in the queue for it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
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
    position = 1
    while position < len(argv):
        word = argv[position]
        position += 1
        values = []
        while position < len(argv) and not argv[position].startswith("--"):
            values.append(argv[position])
            position += 1
        if word not in options:
            problems.append(f"{program} has no option {word}")
            continue
        if word in given:
            problems.append(f"{word} is given twice")
        given.add(word)
        problems += _check_values(word, options[word], values)
    problems += [
        f"{program} needs {name}"
        for name, option in options.items()
        if option.get("required") and name not in given
    ]
    return problems


def _check_values(word: str, option: dict[str, Any], values: list[str]) -> list[str]:
    count = option["values"]
    if (count == "+" and not values) or (count != "+" and len(values) != count):
        wanted = "at least one value" if count == "+" else f"{count} values"
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
