"""The table of a project: one row per tilt series, from `results/*.json` and RELION's own tables.

JSON and small STAR files only, so fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crboost.quality.stages import LOST, ProjectLike, StageResults, read_stages


def series_table(project: ProjectLike) -> list[dict[str, Any]]:
    """One row per tilt series, in name order; None where a stage has not run.

    Keys: `tilt_series`, `tilts` (that reached the last stage so far), `tilts_total`,
    `motion_angstrom`, `defocus_um`, `ctf_resolution_angstrom`, `alignment_residual_px`,
    `tilt_axis_deg`, `beads`, `tomogram` (path, absolute; of the
    first half where RELION wrote halves alone), `problem` (why it got no further).
    """
    return table_of(read_stages(project), project.directory)


def series_notes(project: ProjectLike) -> list[tuple[str, str]]:
    """(tilt series, what to know of it), each once: a missing movie, an excluded tilt image."""
    found = [
        (name, warning)
        for stage in read_stages(project).values()
        for name, result in stage.results.items()
        for warning in result.warnings
    ]
    return sorted(dict.fromkeys(found), key=lambda note: note[0])


def table_of(stages: Mapping[str, StageResults], directory: Path) -> list[dict[str, Any]]:
    """The rows of `series_table`. Pure.

    Args:
        stages: by node label, in order.
        directory: what project-relative paths are relative to.
    """
    names = sorted({name for stage in stages.values() for name in stage.results})
    return [_row(name, stages, directory) for name in names]


def _row(name: str, stages: Mapping[str, StageResults], directory: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    motions: dict[str, float] = {}
    tilts = total = None
    problem = None
    for stage in stages.values():
        result = stage.results.get(name)
        if result is None:
            continue
        if result.status != "done":
            problem = f"{stage.job_type} {result.status}: {result.reason}"
            continue
        problem = None
        metrics |= result.metrics
        update_motions(motions, result.tilts)
        tilts = result.metrics.get("tilts", tilts)
        if total is None:
            total = result.metrics.get("tilts_total")
    tomogram = metrics.get("tomogram")
    return {
        "tilt_series": name,
        "tilts": tilts,
        "tilts_total": total,
        "motion_angstrom": mean_motion(motions, metrics),
        "defocus_um": metrics.get("defocus_um"),
        "ctf_resolution_angstrom": metrics.get("ctf_resolution_angstrom"),
        "alignment_residual_px": metrics.get("alignment_residual_px"),
        "tilt_axis_deg": metrics.get("tilt_axis_deg"),
        "beads": metrics.get("beads"),
        "tomogram": str(directory / tomogram) if tomogram else None,
        "problem": problem,
    }


def update_motions(motions: dict[str, float], tilts: Sequence[Mapping[str, Any]]) -> None:
    """Take in a stage's word on each tilt image: its motion, or that it is lost."""
    for tilt in tilts:
        if tilt["status"] in LOST:
            motions.pop(tilt["name"], None)
        elif tilt.get("motion_total_angstrom") is not None:
            motions[tilt["name"]] = tilt["motion_total_angstrom"]


def mean_motion(motions: Mapping[str, float], metrics: Mapping[str, Any]) -> float | None:
    """Mean motion of the tilt images in use: the noise of a dead one is no motion.

    Where a tool does not tell the motion of each image, its own mean.
    """
    if motions:
        return sum(motions.values()) / len(motions)
    motion: float | None = metrics.get("motion_angstrom")
    return motion
