"""What a watcher has to tell: the facts about tilt series and files, and their JSON form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SeriesComplete:
    """Every movie that the mdoc names is there and whole, and the mdoc has stopped growing.

    Args:
        name: the tilt series.
        mdoc: path of its mdoc.
        tilts: how many there are, each with its movie.
        fingerprint: of the mdoc's content and of the movies' sizes and times.
    """

    name: str
    mdoc: str
    tilts: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SeriesPartial:
    """Nothing has come for so long that the series will do as it is.

    Args:
        name: the tilt series.
        mdoc: path of its mdoc.
        tilts: how many the mdoc names.
        usable: how many of them have a movie that can be used; may be 0.
        missing: names of the movies that are not there.
        reasons: what keeps it from being complete, in words.
        fingerprint: as for `SeriesComplete`.
    """

    name: str
    mdoc: str
    tilts: int
    usable: int
    missing: tuple[str, ...]
    reasons: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SeriesReopened:
    """A series that was reported as complete or partial has changed; another report will follow.

    Args:
        name: the tilt series.
        mdoc: path of its mdoc.
        reason: what has changed.
        fingerprint: the one that was reported and holds no longer.
    """

    name: str
    mdoc: str
    reason: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class FileRejected:
    """A file that will not be used as it is, and why."""

    path: str
    reason: str


Fact = SeriesComplete | SeriesPartial | SeriesReopened | FileRejected

_KINDS: dict[str, type[Fact]] = {
    "series-complete": SeriesComplete,
    "series-partial": SeriesPartial,
    "series-reopened": SeriesReopened,
    "file-rejected": FileRejected,
}
_NAMES = {fact: name for name, fact in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Report:
    """A fact, told once.

    Args:
        key: never used for another fact. Whoever was killed before it could say that it has
            dealt with a report is given it again with the same key.
        at: when it was found, in seconds since 1970.
        fact: what was found.
    """

    key: str
    at: float
    fact: Fact

    def to_json(self) -> dict[str, Any]:
        """A flat dictionary for JSON."""
        kind = _NAMES[type(self.fact)]
        return {"key": self.key, "at": self.at, "kind": kind, **asdict(self.fact)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Report:
        """What `to_json` made.

        Raises:
            KeyError, TypeError: it is something else.
        """
        fields = dict(value)
        key, at, kind = fields.pop("key"), fields.pop("at"), fields.pop("kind")
        for name in ("missing", "reasons"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return Report(str(key), float(at), _KINDS[kind](**fields))
