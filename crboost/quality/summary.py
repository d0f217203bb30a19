"""Numbers as people read them: one formatting for tables, pictures and markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

NOTHING = "-"


def number(value: float | int | None, digits: int, unit: str = "") -> str:
    """`3.0 Å`, or a dash where nothing is known."""
    if value is None or value != value:
        return NOTHING
    return f"{value:.{digits}f}{f' {unit}' if unit else ''}"


def tilts(row: Mapping[str, Any]) -> str:
    """`40/41`: tilt images in use of those acquired."""
    if row.get("tilts") is None:
        return NOTHING
    total = row.get("tilts_total")
    return f"{row['tilts']}/{total}" if total is not None else str(row["tilts"])


#: Heading and text of each column of the results table.
COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("tilt series", lambda row: str(row["tilt_series"])),
    ("tilts", tilts),
    ("motion (Å)", lambda row: number(row["motion_angstrom"], 1)),
    ("defocus (µm)", lambda row: number(row["defocus_um"], 2)),
    ("CTF fit (Å)", lambda row: number(row["ctf_resolution_angstrom"], 1)),
    ("residual (px)", lambda row: number(row["alignment_residual_px"], 2)),
)


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the results table, the tomogram (or the problem) last."""
    headings = [heading for heading, _ in COLUMNS] + ["tomogram"]
    cells = [
        [text(row) for _, text in COLUMNS] + [row["problem"] or row["tomogram"] or NOTHING]
        for row in rows
    ]
    return headings, cells


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results table as Markdown."""
    headings, cells = table(rows)
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def headline(metrics: Mapping[str, Any]) -> str:
    """One line on a tilt series: what is known of it, in the order of the stages."""
    parts = []
    if metrics.get("tilts") is not None:
        total = metrics.get("tilts_total")
        parts.append(f"{metrics['tilts']}{f' of {total}' if total else ''} tilts")
    for key, words, digits, unit in (
        ("motion_angstrom", "motion", 1, "Å"),
        ("defocus_um", "defocus", 2, "µm"),
        ("ctf_resolution_angstrom", "CTF fit to", 1, "Å"),
        ("alignment_residual_px", "alignment residual", 2, "px"),
    ):
        if metrics.get(key) is not None:
            parts.append(f"{words} {number(metrics[key], digits, unit)}")
    if metrics.get("beads"):
        parts.append(f"{metrics['beads']} beads")
    return "  ·  ".join(parts)
