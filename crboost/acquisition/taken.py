"""`.crboost/intake.json`: how each tilt series of a session was taken into its project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from crboost.errors import FileFormatError
from crboost.files import read_json, write_json

INTAKE_FILE = Path(".crboost") / "intake.json"

IntakeState = Literal["complete", "partial", "reopened"]


@dataclass(frozen=True, slots=True)
class SeriesIntake:
    """How a tilt series was taken in.

    Args:
        name: as in the project's tables.
        state: `reopened` has changed since it was taken in; it will be told again.
        tilts: how many its mdoc names.
        usable: how many of them have a movie that can be used.
        missing: names of the movies that are not there.
        reasons: what keeps it from being complete, in words.
        content: fingerprint of what was linked then; see `crboost.raw_data.raw_series`.
    """

    name: str
    state: IntakeState
    tilts: int
    usable: int
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    content: str = ""

    @property
    def broken(self) -> int:
        """How many movies are there that cannot be used."""
        return self.tilts - self.usable - len(self.missing)


def read_intake(project: Path) -> dict[str, SeriesIntake]:
    """How each tilt series was taken in; empty for a project without a session.

    Raises:
        FileFormatError: the record is damaged.
    """
    path = project / INTAKE_FILE
    try:
        value = read_json(path)
        return {name: _record(name, one) for name, one in sorted(value.items())}
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            path, f"not a record of tilt series: {error}", hint="remove it; no data depend on it"
        ) from None


def _record(name: str, value: Mapping[str, object]) -> SeriesIntake:
    fields = {**value, "name": name}
    for key in ("missing", "reasons"):
        fields[key] = tuple(fields.get(key, ()))  # type: ignore[arg-type]
    return SeriesIntake(**fields)  # type: ignore[arg-type]


def write_intake(project: Path, records: Mapping[str, SeriesIntake]) -> None:
    """Write how each tilt series was taken in, whole or not at all."""
    value = {name: asdict(one) for name, one in sorted(records.items())}
    for one in value.values():
        del one["name"]
    write_json(project / INTAKE_FILE, value)
