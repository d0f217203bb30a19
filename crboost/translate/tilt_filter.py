"""A classifier's table -> verdicts; a judgement -> RELION rows and records."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError, ToolError
from crboost.tilt_name import tilt_name
from crboost.tilt_rules import Classified, Judgement, Verdict
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row
from crboost.translate.text_lines import read_lines

_WORDS = {"keep": True, "good": True, "reject": False, "bad": False}


def read_classified(path: Path) -> dict[str, Classified]:
    """The table that a classifier wrote: `tilt,verdict` and, if it likes, `probability,reason`.

    Raises:
        FileFormatError: the file is missing, no text, or damaged; a column is missing, a verdict
            is no such word, a probability no number from 0 to 1, or a tilt image comes twice.
    """
    found: dict[str, Classified] = {}
    reader = csv.DictReader(read_lines(path))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise FileFormatError(path, f"not a table: {error}", line=reader.line_num) from error
    for column in ("tilt", "verdict"):
        if column not in (reader.fieldnames or ()):
            raise FileFormatError(path, f"has no column {column}", line=1)
    for line, row in rows:
        word = (row["verdict"] or "").strip().lower()
        if word not in _WORDS:
            raise FileFormatError(
                path, f"verdict {row['verdict']!r}", line=line, hint=f"one of {list(_WORDS)}"
            )
        if not row["tilt"]:
            raise FileFormatError(path, "names no tilt image", line=line)
        if row["tilt"] in found:
            raise FileFormatError(path, f"{row['tilt']} comes twice", line=line)
        found[row["tilt"]] = Classified(
            _WORDS[word], _probability(path, line, row.get("probability")), row.get("reason")
        )
    return found


def _probability(path: Path, line: int, text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise FileFormatError(path, f"probability {text!r} is not 0 to 1", line=line)
    return value


def filter_output(
    rows: Sequence[Row], judgement: Judgement, directory: str, min_tilts: int
) -> SeriesOutput:
    """The rows that are kept, as they are, and a record of every verdict.

    Args:
        directory: project-relative; `verdicts.json` is there.

    Raises:
        ToolError: fewer than `min_tilts` are kept.
    """
    kept = {verdict.name for verdict in judgement.verdicts if verdict.keep}
    if len(kept) < min_tilts:
        raise ToolError(
            f"{len(kept)} of {len(judgement.verdicts)} tilt images are kept, "
            f"min_tilts = {min_tilts}: {_tally(judgement.verdicts)}"
        )
    rejected = [verdict for verdict in judgement.verdicts if not verdict.keep]
    return SeriesOutput(
        {},
        [dict(row) for row in rows if tilt_name(row) in kept],
        metrics={
            "tilts": len(kept),
            "tilts_total": len(judgement.verdicts),
            "tilts_rejected": len(rejected),
            "tilts_overruled": sum(verdict.by == "person" for verdict in judgement.verdicts),
        },
        tilts=[tilt_record(verdict) for verdict in judgement.verdicts],
        warnings=[
            *judgement.warnings,
            *grouped(
                [
                    (
                        f"tilt image {one.name} ({one.values.tilt_angle_deg:+.1f} deg)",
                        f"left out: {one.reason}",
                    )
                    for one in rejected
                ]
            ),
        ],
        outputs=[f"{directory}/verdicts.json"],
    )


def tilt_record(verdict: Verdict) -> dict[str, Any]:
    """One tilt image in `results/<tilt series>.json` and in `verdicts.json`."""
    return {
        "name": verdict.name,
        "tilt_angle_deg": verdict.values.tilt_angle_deg,
        "status": "done" if verdict.keep else "excluded",
        "reason": verdict.reason,
        "by": verdict.by,
        "against": list(verdict.reasons),
        "values": verdict.values.measured(),
    }


def filter_table(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """`tilt_filter.star`: every tilt image of every series with its verdict and its values.

    Args:
        series: tilt series -> the records of its tilt images.
    """
    return [
        {
            "rlnTomoName": name,
            "crbTiltImage": tilt["name"],
            "rlnTomoNominalStageTiltAngle": tilt["tilt_angle_deg"],
            "crbVerdict": "keep" if tilt["status"] == "done" else "reject",
            "crbBy": tilt["by"] or "nobody",
            "crbReason": tilt["reason"] or "none",
            **{
                f"crb{_camel(key)}": "nan" if value is None else value
                for key, value in tilt["values"].items()
            },
        }
        for name, tilts in series.items()
        for tilt in tilts
    ]


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _tally(verdicts: Sequence[Verdict]) -> str:
    """How often each of the filter's words spoke: "12 by rule, 3 by person"."""
    counted = Counter(verdict.by for verdict in verdicts if not verdict.keep)
    return ", ".join(f"{count} by {by}" for by, count in counted.most_common())
