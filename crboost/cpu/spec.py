"""Reading the JSON spec of a command: every field checked, every complaint naming it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError, ParameterError
from crboost.files import read_json

_MISSING = object()


class Fields:
    """The fields of one object of a spec.

    Args:
        values: the object.
        where: how messages name it, such as `spec.json: tilts[3]`.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise ParameterError(f"{where}: must be an object, not {type(values).__name__}")
        self._values = values
        self.where = where

    def _get(self, name: str, default: Any) -> Any:
        value = self._values.get(name, default)
        if value is _MISSING:
            raise ParameterError(f"{self.where}: field {name!r} is missing")
        return value

    def _bad(self, name: str, value: Any, wanted: str) -> ParameterError:
        return ParameterError(f"{self.where}: field {name!r} is {value!r}, must be {wanted}")

    def text(self, name: str) -> str:
        """A string that is not empty."""
        value = self._get(name, _MISSING)
        if not isinstance(value, str) or not value:
            raise self._bad(name, value, "a text")
        return value

    def path(self, name: str) -> Path:
        """A path, relative to the working directory."""
        return Path(self.text(name))

    def optional_path(self, name: str) -> Path | None:
        """A path, or null."""
        return None if self._get(name, None) is None else self.path(name)

    def number(
        self,
        name: str,
        *,
        default: Any = _MISSING,
        above: float | None = None,
        at_least: float | None = None,
    ) -> float:
        """A number, with bounds."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._bad(name, value, "a number")
        if above is not None and value <= above:
            raise self._bad(name, value, f"above {above:g}")
        if at_least is not None and value < at_least:
            raise self._bad(name, value, f"at least {at_least:g}")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A number, or null."""
        return None if self._get(name, None) is None else self.number(name)

    def integer(self, name: str, *, default: Any = _MISSING, at_least: int = 0) -> int:
        """A whole number, with a lower bound."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._bad(name, value, "a whole number")
        if value < at_least:
            raise self._bad(name, value, f"at least {at_least}")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._bad(name, value, "true or false")
        return value

    def choice(self, name: str, choices: Sequence[str], *, default: str) -> str:
        """One of `choices`."""
        value = self._get(name, default)
        if value not in choices:
            raise self._bad(name, value, "one of " + ", ".join(choices))
        return str(value)

    def numbers(self, name: str, count: int, *, default: Any = _MISSING) -> tuple[float, ...]:
        """A list of `count` numbers."""
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or len(value) != count:
            raise self._bad(name, value, f"a list of {count} numbers")
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in value):
            raise self._bad(name, value, f"a list of {count} numbers")
        return tuple(float(one) for one in value)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._values.get(name) is not None

    def objects(self, name: str) -> list[Fields]:
        """A list of objects, not empty."""
        value = self._get(name, _MISSING)
        if not isinstance(value, list) or not value:
            raise self._bad(name, value, "a list that is not empty")
        return [Fields(one, f"{self.where}: {name}[{index}]") for index, one in enumerate(value)]


def read_spec(path: Path) -> Fields:
    """Read a spec file.

    Raises:
        FileFormatError: it is missing or not JSON.
    """
    if not path.is_file():
        raise FileFormatError(path, "the spec is missing")
    return Fields(read_json(path), str(path))
