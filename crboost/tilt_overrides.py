"""`tilt_overrides.star`: what a person says of tilt images, against any rule.

The file lies in the project directory and belongs to the project: every tilt filter follows it. A
verdict is taken back by removing its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crboost.errors import FileFormatError
from crboost.files import locked
from crboost.relion.star import loop_block, read_star, write_star
from crboost.results import fingerprint_of

OVERRIDES_FILE = "tilt_overrides.star"
BLOCK = "tilt_overrides"

#: Columns of the table. RELION has no such file; the labels are ours, but for the series' name.
COLUMNS = (
    "rlnTomoName",
    "crbTiltImage",
    "crbVerdict",
    "crbReason",
    "crbUser",
    "crbTime",
)

Word = Literal["keep", "reject"]


@dataclass(frozen=True)
class Override:
    """One verdict of a person.

    Attributes:
        tilt: the tilt image's name (see `crboost.tilt_name`).
        time: when it was said, ISO 8601.
    """

    tilt_series: str
    tilt: str
    word: Word
    reason: str = ""
    user: str = ""
    time: str = ""


def read_overrides(project: Path) -> dict[str, dict[str, Override]]:
    """Tilt series -> tilt image -> verdict; empty where nobody has said anything.

    Raises:
        FileFormatError: the file is not such a table; names the row.
    """
    path = project / OVERRIDES_FILE
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Override]] = {}
    for number, row in enumerate(read_star(path).records(BLOCK), start=1):
        lacking = [column for column in COLUMNS[:3] if not row.get(column)]
        if lacking:
            raise FileFormatError(path, f"row {number} has no {lacking[0]}")
        word = row["crbVerdict"]
        if word not in ("keep", "reject"):
            raise FileFormatError(
                path,
                f"row {number}: crbVerdict is {word!r}",
                hint="write keep or reject, or remove the row",
            )
        one = Override(
            row["rlnTomoName"],
            row["crbTiltImage"],
            "keep" if word == "keep" else "reject",
            *(_text(row.get(column, "")) for column in COLUMNS[3:]),
        )
        found.setdefault(one.tilt_series, {})[one.tilt] = one
    return found


def change_overrides(
    project: Path, *, add: Iterable[Override] = (), remove: Iterable[tuple[str, str]] = ()
) -> None:
    """Add verdicts (the newer one of a tilt image counts) and take others back.

    Args:
        remove: (tilt series, tilt image).
    """
    with locked(project / ".crboost" / "tilt_overrides.lock"):
        known = read_overrides(project)
        for series, tilt in remove:
            known.get(series, {}).pop(tilt, None)
        for one in add:
            known.setdefault(one.tilt_series, {})[one.tilt] = one
        rows = [one for tilts in known.values() for one in tilts.values()]
        write_star(
            project / OVERRIDES_FILE,
            [
                loop_block(
                    BLOCK,
                    COLUMNS,
                    (
                        (one.tilt_series, one.tilt, one.word, one.reason, one.user, one.time)
                        for one in sorted(rows, key=lambda one: (one.tilt_series, one.tilt))
                    ),
                )
            ],
        )


def override_fingerprint(overrides: Mapping[str, Override]) -> str:
    """Of what the verdicts on one tilt series say; who said it and when changes nothing."""
    return fingerprint_of(sorted((tilt, one.word) for tilt, one in overrides.items()))


def _text(value: str) -> str:
    """An empty value may be written as a placeholder."""
    return "" if value in ('""', "None", "<NA>") else value
