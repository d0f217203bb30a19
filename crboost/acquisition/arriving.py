"""`.crboost/arriving.json`: how each tilt series stands at the microscope, and what is not used.

The watcher writes it, for displays only: nothing is decided by it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from crboost.acquisition.arrivals import SeriesState, Standing
from crboost.errors import FileFormatError
from crboost.files import read_json, write_json
from crboost.tilt_name import plain_name

ARRIVING_FILE = Path(".crboost") / "arriving.json"
#: A backup that is watched too may hold tens of thousands of copies.
MOST_REJECTED = 100


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tilt series that has come to its end, and has not become part of the project.

    Args:
        name: as it would be in the project's tables.
        mdoc: path of its mdoc.
        reason: in words.
    """

    name: str
    mdoc: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} is left out: {self.reason}"


@dataclass(frozen=True, slots=True)
class Arriving:
    """What the watcher last saw.

    Args:
        at: when, with time zone.
        series: by name, as in the project's tables.
        rejected: files that are not used: path -> why; the first ones by path.
        rejected_count: how many there are.
        left_out: series that are not in the project, though they have come to their end.
    """

    at: datetime
    series: Mapping[str, Standing]
    rejected: Mapping[str, str] = field(default_factory=dict)
    rejected_count: int = 0
    left_out: tuple[LeftOut, ...] = ()


def write_arriving(
    project: Path,
    standing: Mapping[str, Standing],
    at: datetime,
    rejected: Mapping[str, str] | None = None,
) -> bool:
    """Write how the series stand, unless the file says so already; whether it was written.

    Args:
        project: the project directory.
        standing: from `Watcher.standing`.
        at: now, with time zone.
        rejected: from `Watcher.rejected`.
    """
    rejected = rejected or {}
    known = _read(project)
    new = {
        "series": {plain_name(name): asdict(one) for name, one in standing.items()},
        "rejected": dict(list(rejected.items())[:MOST_REJECTED]),
        "rejected_count": len(rejected),
    }
    return _write(project, known, {**known, **new}, at)


def note_left_out(
    project: Path, left_out: Iterable[LeftOut], judged: Collection[str], at: datetime
) -> bool:
    """Write which series were left out; whether that is news.

    Args:
        project: the project directory.
        left_out: what taking in has left out.
        judged: paths of the mdocs that have been judged; what was said of them before is void.
        at: now, with time zone.
    """
    known = _read(project)
    kept = [one for one in known.get("left_out", []) if one["mdoc"] not in judged]
    new = sorted([*kept, *map(asdict, left_out)], key=lambda one: (one["name"], one["mdoc"]))
    return _write(project, known, {"series": {}, **known, "left_out": new}, at)


def read_arriving(project: Path) -> Arriving | None:
    """What the watcher last saw; None where no watcher has been at work."""
    try:
        value = read_json(project / ARRIVING_FILE)
        return Arriving(
            datetime.fromisoformat(value["at"]),
            {name: _standing(one) for name, one in sorted(value["series"].items())},
            dict(value.get("rejected", {})),
            int(value.get("rejected_count", 0)),
            tuple(LeftOut(**one) for one in value.get("left_out", [])),
        )
    except (FileNotFoundError, FileFormatError, KeyError, TypeError, ValueError, AttributeError):
        return None  # it is written again with the next change


def _read(project: Path) -> dict[str, Any]:
    """What the file says, without the time; empty where it is none of ours."""
    if read_arriving(project) is None:
        return {}
    value: dict[str, Any] = read_json(project / ARRIVING_FILE)
    del value["at"]
    return value


def _write(project: Path, known: Mapping[str, Any], new: Mapping[str, Any], at: datetime) -> bool:
    # As JSON has it: a state is a word, a tuple a list.
    if known == json.loads(json.dumps(new)):
        return False
    write_json(project / ARRIVING_FILE, {"at": at.isoformat(timespec="seconds"), **new})
    return True


def _standing(value: Mapping[str, Any]) -> Standing:
    return Standing(SeriesState(value["state"]), int(value["tilts"]), int(value["movies"]))
