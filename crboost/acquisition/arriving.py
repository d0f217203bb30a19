"""`.crboost/arriving.json`: how each tilt series stands at the microscope, for people to see.

The watcher writes it, for displays only: nothing is decided by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from crboost.acquisition.arrivals import SeriesState, Standing
from crboost.errors import FileFormatError
from crboost.files import read_json, write_json
from crboost.tilt_name import plain_name

ARRIVING_FILE = Path(".crboost") / "arriving.json"


@dataclass(frozen=True, slots=True)
class Arriving:
    """What the watcher last saw.

    Args:
        at: when, with time zone.
        series: by name, as in the project's tables.
    """

    at: datetime
    series: Mapping[str, Standing]


def write_arriving(project: Path, standing: Mapping[str, Standing], at: datetime) -> bool:
    """Write how the series stand, unless the file says so already; whether it was written.

    Args:
        project: the project directory.
        standing: from `Watcher.standing`.
        at: now, with time zone.
    """
    path = project / ARRIVING_FILE
    series = {plain_name(name): asdict(one) for name, one in standing.items()}
    try:
        if read_json(path)["series"] == json.loads(json.dumps(series)):
            return False
    except (FileNotFoundError, FileFormatError, KeyError, TypeError):
        pass
    write_json(path, {"at": at.isoformat(timespec="seconds"), "series": series})
    return True


def read_arriving(project: Path) -> Arriving | None:
    """What the watcher last saw; None where no watcher has been at work."""
    try:
        value = read_json(project / ARRIVING_FILE)
        return Arriving(
            datetime.fromisoformat(value["at"]),
            {name: _standing(one) for name, one in sorted(value["series"].items())},
        )
    except (FileNotFoundError, FileFormatError, KeyError, TypeError, ValueError, AttributeError):
        return None  # it is written again with the next change


def _standing(value: Mapping[str, Any]) -> Standing:
    return Standing(SeriesState(value["state"]), int(value["tilts"]), int(value["movies"]))
