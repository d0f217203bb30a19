"""Which job stands for each stage of a project: the newest that succeeded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from crboost.catalogue import (
    CATALOGUE,
    EXTERNAL,
    TOMO_ALIGN,
    TOMO_CTFFIND,
    TOMO_EXCLUDE,
    TOMO_IMPORT,
    TOMO_MOTIONCORR,
    TOMO_RECONSTRUCT,
    label_matches,
)
from crboost.errors import FileFormatError
from crboost.files import read_json
from crboost.history import PastJob
from crboost.quality.native import native_results
from crboost.results import SeriesResult, read_results


class ProjectLike(Protocol):
    """The little that quality needs to know of a project."""

    @property
    def directory(self) -> Path:
        """The project directory."""

    def history(self) -> Sequence[PastJob]:
        """Every process in the ledger."""


#: The stages, each known by the node label of what it makes, in the order of the work.
STAGES = (
    TOMO_IMPORT,
    TOMO_MOTIONCORR,
    TOMO_CTFFIND,
    TOMO_EXCLUDE,
    TOMO_ALIGN,
    TOMO_RECONSTRUCT,
)

#: A stage's words for a tilt image that goes no further.
LOST = ("missing", "excluded", "failed")


@dataclass(frozen=True)
class StageResults:
    """What one stage left behind.

    Attributes:
        job_type: what people call the stage: the job type's name, or RELION's.
        job: the RELION job that stands for it, as people write it (`External/job003`).
        results: its tilt series by name.
        number: the job's; later jobs have higher ones.
        has_frames: whether the embedded frame tool may have left its files here.
        has_motion: whether its word on motion counts.
    """

    job_type: str
    job: str
    results: Mapping[str, SeriesResult]
    number: int = 0
    has_frames: bool = False
    has_motion: bool = True


def newest_jobs(history: Sequence[PastJob]) -> dict[str, PastJob]:
    """Stage -> the newest succeeded job, of any type, that made its kind of node, in order."""
    newest: dict[str, PastJob] = {}
    for past in sorted(history, key=lambda one: one.number):
        if past.status == "Succeeded":
            newest |= {stage: past for stage in STAGES if output_of(past, stage)}
    # A job that measures motion and CTF at once leaves no use for an older motion correction.
    motion, ctf = newest.get(TOMO_MOTIONCORR), newest.get(TOMO_CTFFIND)
    if motion and ctf and ctf.relion_type == EXTERNAL and ctf.number > motion.number:
        del newest[TOMO_MOTIONCORR]
    # A filter that the alignment did not go by has left nothing out.
    excluded, aligned = newest.get(TOMO_EXCLUDE), newest.get(TOMO_ALIGN)
    if excluded and aligned and output_of(excluded, TOMO_EXCLUDE) not in aligned.inputs:
        del newest[TOMO_EXCLUDE]
    return {stage: newest[stage] for stage in STAGES if stage in newest}


def output_of(past: PastJob, label: str) -> str | None:
    """The job's output with this label, project-relative; by its type where the ledger is mute."""
    found = past.output_with_label((label,))
    if found or past.job_type not in CATALOGUE:
        return found
    for output in CATALOGUE[past.job_type].outputs:
        if label_matches(output.label, label):
            return f"{past.name}/{output.file}"
    return None


def read_stages(project: ProjectLike) -> dict[str, StageResults]:
    """The results of each stage that has a succeeded job, by node label, in order."""
    stages: dict[str, StageResults] = {}
    for label, past in newest_jobs(project.history()).items():
        results = read_results(project.directory / past.name)
        native = not results and past.relion_type != EXTERNAL
        if native:
            output = output_of(past, label) or ""
            results = native_results(project.directory, project.directory / output, label)
            results = {
                name: with_left_out(result, past, stages.values())
                for name, result in results.items()
            }
        motion = stages.get(TOMO_MOTIONCORR)
        older = label == TOMO_CTFFIND and motion is not None and motion.number > past.number
        stages[label] = StageResults(
            past.job_type or past.relion_type,
            past.name,
            {name: without_motion(result) for name, result in results.items()}
            if older
            else results,
            past.number,
            has_frames=label == TOMO_CTFFIND and not native,
            has_motion=not older,
        )
    return stages


def with_left_out(
    result: SeriesResult, past: PastJob, earlier: Iterable[StageResults]
) -> SeriesResult:
    """RELION's tables leave tilt images out in silence: a record for each. Pure.

    Args:
        earlier: the stages before; one whose job is newer tells nothing of this one's input.
    """
    if not result.tilts:
        return result
    listed = {tilt["name"] for tilt in result.tilts}
    used: dict[str, dict[str, Any]] = {}
    for stage in earlier:
        before = stage.results.get(result.tilt_series)
        if before is None or stage.number > past.number:
            continue
        for tilt in before.tilts:
            if tilt["status"] in LOST:
                used.pop(tilt["name"], None)
            else:
                used[tilt["name"]] = tilt
    left_out = [
        {
            "name": name,
            "tilt_angle_deg": tilt["tilt_angle_deg"],
            "status": "excluded",
            "reason": f"not in the table of {past.name}",
        }
        for name, tilt in used.items()
        if name not in listed
    ]
    warnings = [
        f"tilt image {tilt['name']} ({tilt['tilt_angle_deg']:+.1f} deg) is {tilt['reason']}"
        for tilt in left_out
    ]
    return replace(result, tilts=[*result.tilts, *left_out], warnings=[*result.warnings, *warnings])


def without_motion(result: SeriesResult) -> SeriesResult:
    """A result whose word on motion does not count: a newer job measured it again. Pure."""

    def rest(values: Mapping[str, Any], key: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name != key}

    return replace(
        result,
        metrics=rest(result.metrics, "motion_angstrom"),
        tilts=[rest(tilt, "motion_total_angstrom") for tilt in result.tilts],
    )


def tool_result(project: Path, job: str, tilt_series: str) -> tuple[Path, dict[str, Any]] | None:
    """The embedded tool's own `result.json` for one tilt series, and where it is.

    None where another tool ran, or where the file is not readable: pictures then show less.
    """
    path = project / job / "cpu" / tilt_series / "result.json"
    if not path.is_file():
        return None
    try:
        value = read_json(path)
    except FileFormatError:
        return None
    return (path, value) if isinstance(value, dict) else None
