"""What WarpTools accepts on its command line, and whether an argv keeps to it. Pure.

WarpTools answers an argument that it does not know, or a required one that is missing, with its
help text and exit code 0: whoever trusts exit codes takes that for success. So every argv of ours
is held against the options of the version in use before anything starts.

The options are in `warptools_cli.json` beside this module, read from the tool's own source; the
commit of each version is named there. How words become options is that of CommandLineParser 2.9,
which WarpTools uses.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from crboost.errors import ParameterError

#: The program whose argv this contract is for.
PROGRAM = "WarpTools"

Effect = Literal["exits_0", "fails", "ignored"]


@dataclass(frozen=True)
class Option:
    """One option of one command.

    Attributes:
        name: without the dashes.
        type: "flag" takes no value, "list[...]" takes several, the others take one: string, int,
            float.
        default: what the tool takes when the option is not given; None: nothing.
        short: its one-letter name.
        versions: the versions that have it.
    """

    name: str
    type: str
    required: bool
    default: str | int | float | None
    short: str | None
    versions: tuple[str, ...]

    @property
    def is_switch(self) -> bool:
        """Whether it is on by being there, and takes no value."""
        return self.type == "flag"

    @property
    def takes_many(self) -> bool:
        """Whether it takes all words up to the next option."""
        return self.type.startswith("list[")

    @property
    def value_type(self) -> str:
        """Type of one value: string, int or float."""
        return self.type.removeprefix("list[").removesuffix("]")


@dataclass(frozen=True)
class Contract:
    """The command line of WarpTools in all versions that are known.

    Attributes:
        versions: version -> commit of the source that it was read from, oldest first.
        commands: command -> option name -> option.
        rules: command -> (what, option names); what is "at_most_one" or "exactly_one".
    """

    repository: str
    versions: Mapping[str, str]
    commands: Mapping[str, Mapping[str, Option]]
    rules: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]]


@dataclass(frozen=True)
class ArgvProblem:
    """What is wrong with an argv.

    Attributes:
        option: the option with its dashes, or the command; "" where there is none.
        message: what is wrong; names the option and the value.
        hint: what to do about it.
        effect: what the real program does: "exits_0" prints its help and ends without a word of
            failure, "fails" ends with an error, "ignored" goes on as if nothing had been said.
    """

    option: str
    message: str
    hint: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


@functools.cache
def contract() -> Contract:
    """The contract that comes with the package."""
    text = (files("crboost.builders") / "warptools_cli.json").read_text(encoding="utf-8")
    raw: dict[str, Any] = json.loads(text)
    versions: dict[str, str] = raw["source"]["versions"]
    return Contract(
        repository=raw["source"]["repository"],
        versions=versions,
        commands={
            command: {
                name: Option(
                    name,
                    given["type"],
                    given.get("required", False),
                    given.get("default"),
                    given.get("short"),
                    tuple(given.get("versions", versions)),
                )
                for name, given in options.items()
            }
            for command, options in raw["commands"].items()
        },
        rules={
            command: [(what, tuple(names)) for rule in rules for what, names in rule.items()]
            for command, rules in raw["rules"].items()
        },
    )


def known_version(configured: str | None) -> str | None:
    """The version of the contract that stands for the one that an installation has.

    A version between two known ones counts as the older: what came later is not there yet.

    Args:
        configured: `tools.warp.version` of the settings: "2.0.0dev36", "v2.0.0dev29", "2.0".

    Returns:
        one of `contract().versions`; None where `configured` is, which means: any of them.

    Raises:
        ParameterError: no version, or one that is older than all that are known.
    """
    if configured is None:
        return None
    versions = list(contract().versions)
    wanted = _version_key(configured)
    if wanted is None:
        raise ParameterError(
            f"tools.warp.version = {configured!r} is not a version of WarpTools",
            hint=f"write it as WarpTools' releases are called, such as {versions[-2]}",
        )
    older = [one for one in versions if (_version_key(one) or wanted) <= wanted]
    if not older:
        raise ParameterError(
            f"tools.warp.version = {configured}: WarpTools this old is not known",
            hint=f"{versions[0]} is the oldest whose options are; take a newer one",
        )
    return older[-1]


def check(argv: Sequence[str], version: str | None = None) -> list[ArgvProblem]:
    """What is wrong with an argv of WarpTools; empty if nothing is.

    Args:
        argv: program and all; its path does not matter.
        version: one of `contract().versions`; None holds it against all of them.

    Raises:
        ParameterError: no such version.
    """
    known = contract()
    if version is not None and version not in known.versions:
        raise ParameterError(
            f"no contract for WarpTools {version}", hint=f"known: {', '.join(known.versions)}"
        )
    versions = tuple(known.versions) if version is None else (version,)
    if len(argv) < 2:
        return [_unknown_command("", versions)]
    command = argv[1]
    options = known.commands.get(command)
    if options is None:
        return [_unknown_command(command, versions)]
    lacking = _lacking(_command_versions(options), versions)
    if lacking:
        return [_not_in(command, f"command {command}", lacking, version)]
    found: list[ArgvProblem] = []
    given: dict[str, list[str]] = {}
    for word, values in _split(argv[2:], options, found):
        option = _option_of(word, options)
        if option is None:
            found.append(_unknown_option(command, word, options))
            continue
        lacking = _lacking(option.versions, versions)
        if lacking:
            found.append(_not_in(word, f"option {word} of {command}", lacking, version))
        if option.name in given:
            found.append(ArgvProblem(word, f"{word} is given twice", "give it once", "exits_0"))
        given.setdefault(option.name, values)
        found += _check_values(word, option, values)
    for option in options.values():
        if option.required and option.name not in given and not _lacking(option.versions, versions):
            name = f"--{option.name}"
            found.append(
                ArgvProblem(name, f"{command} needs {name}, which is missing", "give it", "exits_0")
            )
    for what, names in known.rules.get(command, ()):
        found += _check_rule(command, what, names, given)
    return found


def number(value: float) -> str:
    """A number as every option takes it: all its digits, but no exponent (`0.00001`).

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number for a command line")
    if isinstance(value, int) or float(value).is_integer():
        return str(int(value))
    text = repr(float(value))
    return text if "e" not in text else f"{value:.12f}".rstrip("0")


def _split(
    words: Sequence[str], options: Mapping[str, Option], found: list[ArgvProblem]
) -> Iterable[tuple[str, list[str]]]:
    """Options as written (`--angpix`), each with the words that follow it or its `=value`."""
    current: tuple[str, list[str]] | None = None
    for word in words:
        if _is_option(word):
            if current is not None:
                yield current
            name, equals, value = word.partition("=")
            current = (name, [value] if equals else [])
        elif current is None:
            found.append(_stray(word, None))
        else:
            current[1].append(word)
    if current is not None:
        yield current


def _is_option(word: str) -> bool:
    """Whether a word is an option's name: "-500" is a number, "-.5" is not."""
    return len(word) > 1 and word[0] == "-" and not word[1].isdigit()


def _option_of(word: str, options: Mapping[str, Option]) -> Option | None:
    if word.startswith("--"):
        return options.get(word[2:])
    return next((one for one in options.values() if one.short == word[1:]), None)


def _check_values(word: str, option: Option, values: list[str]) -> list[ArgvProblem]:
    if option.is_switch:
        if not values:
            return []
        return [
            ArgvProblem(
                word,
                f"{word} is a switch and takes no value, but {values[0]!r} follows",
                f"leave the value out; to switch it off, leave {word} out",
                "ignored",
            )
        ]
    if not values or values[0] == "":
        return [
            ArgvProblem(
                word,
                f"{word} needs a value, and none follows",
                f"give {_article(option)}",
                "exits_0",
            )
        ]
    taken = values if option.takes_many else values[:1]
    problems = [
        ArgvProblem(
            word,
            f"{word} = {value!r} must be {_article(option)}",
            "correct the value",
            "exits_0",
        )
        for value in taken
        if not _is_of_type(value, option.value_type)
    ]
    if not option.takes_many and len(values) > 1:
        problems.append(_stray(values[1], word))
    return problems


def _check_rule(
    command: str, what: str, names: tuple[str, ...], given: Mapping[str, list[str]]
) -> list[ArgvProblem]:
    used = [f"--{name}" for name in names if name in given]
    every = ", ".join(f"--{name}" for name in names)
    if len(used) > 1:
        message = f"{command}: {' and '.join(used)} exclude each other"
        return [ArgvProblem(used[1], message, "give one of them", "fails")]
    if what == "exactly_one" and not used:
        message = f"{command} needs one of {every}"
        return [ArgvProblem("", message, "give one of them", "fails")]
    return []


def _is_of_type(value: str, kind: str) -> bool:
    if kind == "int":
        return bool(re.fullmatch(r"[+-]?\d{1,10}", value)) and abs(int(value)) < 2**31
    if kind == "float":
        return bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value))
    return True


def _article(option: Option) -> str:
    one = {"int": "a whole number", "float": "a number"}.get(option.value_type, "a text")
    return one if not option.takes_many else f"{one}, or several with blanks between them"


def _stray(word: str, after: str | None) -> ArgvProblem:
    where = f"after the value of {after}" if after else "before any option"
    return ArgvProblem(
        after or "", f"{word!r} {where} belongs to no option", "leave it out", "ignored"
    )


def _unknown_command(command: str, versions: Sequence[str]) -> ArgvProblem:
    names = [
        name
        for name, options in contract().commands.items()
        if not _lacking(_command_versions(options), versions)
    ]
    message = f"WarpTools has no command {command!r}" if command else "no command is given"
    return ArgvProblem(command, message, _instead(command, names), "exits_0")


def _unknown_option(command: str, word: str, options: Mapping[str, Option]) -> ArgvProblem:
    names = [f"--{name}" for name in options]
    return ArgvProblem(word, f"{command} has no option {word}", _instead(word, names), "exits_0")


def _instead(word: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, names, 1, 0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def _not_in(word: str, what: str, lacking: Sequence[str], version: str | None) -> ArgvProblem:
    if version is None:
        message = f"{what} is not in every WarpTools: {', '.join(lacking)} has none"
        hint = "say in the settings which one you have (tools.warp.version), or leave it out"
    else:
        message = f"WarpTools {version} has no {what}"
        hint = "leave it out, or install another version and set tools.warp.version"
    return ArgvProblem(word, message, hint, "exits_0")


def _lacking(having: Sequence[str], wanted: Sequence[str]) -> list[str]:
    return [one for one in wanted if one not in having]


def _command_versions(options: Mapping[str, Option]) -> list[str]:
    """Versions that have a command: those that have one of its options."""
    having = {version for option in options.values() for version in option.versions}
    return [version for version in contract().versions if version in having]


def _version_key(text: str) -> tuple[int, ...] | None:
    """Comparable form of "v2.0.0dev39-92-ge3213444" or "2.0.0": releases come after their dev."""
    match = re.fullmatch(
        r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:\.?dev(\d+)(?:[-+.](\d+))?(?:[-.]g[0-9a-f]+)?)?",
        text.strip(),
    )
    if match is None:
        return None
    major, minor, patch, dev, after = match.groups()
    return (
        int(major),
        int(minor),
        int(patch or 0),
        1_000_000 if dev is None else int(dev),
        int(after or 0),
    )
