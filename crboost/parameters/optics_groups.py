"""Tilt series of a project that were taken otherwise than the rest, named by patterns.

The text of `jobs.importmovies.optics_groups`, such as
"TS_1*: first; TS_2*: second pixel_size_angstrom=2.7": for tilt series whose name fits the pattern,
the optics group's name, and those values of the microscope that differ from the project's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator

from crboost.parameters.base import closest, field_facts, number_text
from crboost.parameters.microscope import Microscope

#: What an optics group may say of its own; fields of `microscope`.
OPTICS_VALUES = (
    "pixel_size_angstrom",
    "acceleration_voltage_kv",
    "spherical_aberration_mm",
    "amplitude_contrast",
)
_FORM = '"PATTERN: NAME", with values where they differ, like "TS_2*: second pixel_size_angstrom=2"'


@dataclass(frozen=True)
class OpticsGroup:
    """An optics group that a user has made.

    Attributes:
        pattern: of the tilt series' names, with * and ?, as in a shell.
        name: RELION's name of the group.
        values: of `OPTICS_VALUES`, those that it says.
    """

    pattern: str
    name: str
    values: Mapping[str, float]

    def __str__(self) -> str:
        values = (f"{name}={number_text(value)}" for name, value in self.values.items())
        return f"{self.pattern}: {' '.join([self.name, *values])}"


def parse_optics_groups(text: str) -> tuple[OpticsGroup, ...]:
    """The groups that a text describes, in its order.

    Raises:
        ValueError: a group is not of that form, a value is unknown or not allowed, or two groups
            of one name have different values.
    """
    groups = tuple(_group(part.strip()) for part in text.split(";") if part.strip())
    for one in groups:
        for other in groups:
            if one.name == other.name and one.values != other.values:
                raise ValueError(f"two groups are called {one.name} and have different values")
    return groups


def _group(text: str) -> OpticsGroup:
    pattern, colon, rest = text.partition(":")
    words = rest.split()
    if not colon or not words or not pattern.strip() or " " in pattern.strip():
        raise ValueError(f"{text!r}: must be {_FORM}")
    if not re.fullmatch(r"[\w.+-]+", words[0]):
        raise ValueError(f"{words[0]!r}: a group's name has letters, digits, _, -, + and .")
    values: dict[str, float] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r}: must be {_FORM}")
        values[name] = _value(name, value)
    return OpticsGroup(
        pattern.strip(), words[0], {name: values[name] for name in OPTICS_VALUES if name in values}
    )


def _value(name: str, text: str) -> float:
    if name not in OPTICS_VALUES:
        meant = closest(name, OPTICS_VALUES)
        known = f"did you mean {meant}?" if meant else f"known are {', '.join(OPTICS_VALUES)}"
        raise ValueError(f"an optics group has no {name}; {known}")
    facts = field_facts(Microscope, name)
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}={text}: must be a number") from None
    if not is_allowed(name, value):
        raise ValueError(f"{name}={text}: must be {facts.bounds}")
    return value


def is_allowed(name: str, value: float) -> bool:
    """Whether a value of the microscope is within its bounds; NaN is not."""
    facts = field_facts(Microscope, name)
    low = float("-inf") if facts.minimum is None else facts.minimum
    high = float("inf") if facts.maximum is None else facts.maximum
    return low <= value <= high


def group_of(series: str, groups: tuple[OpticsGroup, ...]) -> OpticsGroup | None:
    """The first group whose pattern the name of a tilt series fits."""
    return next((one for one in groups if fnmatchcase(series, one.pattern)), None)


def _one_spelling(text: str) -> str:
    return "; ".join(str(group) for group in parse_optics_groups(text))


OpticsGroups = Annotated[str, AfterValidator(_one_spelling)]
"""Text that `parse_optics_groups` reads; empty: none."""
