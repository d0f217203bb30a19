"""Outputs of RELION's own jobs that are older than what they were made from.

Started again in its directory, such a job skips every movie that has an output (option
`--only_do_unfinished` of `relion_run_motioncorr` and `relion_run_ctffind`), however old the output
is. What is out of date must be gone before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crboost.relion.star import read_star


@dataclass(frozen=True)
class _MadeFrom:
    """Which columns of a job's tables name what was made from what."""

    source: str
    outputs: tuple[str, ...]


_COLUMNS = {
    "relion.motioncorr.own": _MadeFrom(
        "rlnMicrographMovieName",
        (
            "rlnMicrographName",
            "rlnMicrographNameEven",
            "rlnMicrographNameOdd",
            "rlnCtfPowerSpectrum",
        ),
    ),
    "relion.ctffind.ctffind4": _MadeFrom("rlnMicrographName", ("rlnCtfImage",)),
}
#: ctffind's own result, which RELION takes as the sign that an image is done.
_BESIDE = {"relion.ctffind.ctffind4": (".txt", ".log")}


def remove_stale_outputs(project: Path, job: str, relion_type: str) -> list[str]:
    """Remove what a job made of movies or images that have changed since; the files removed.

    Only files in the job's own directory are touched. A source that is gone counts as changed
    where another job makes it (it is about to be made again), not where it is raw data: facilities
    clear their buffers.

    Args:
        project: project directory, absolute.
        job: the job's directory, project-relative.
        relion_type: RELION's label of the job; of those that are not known here nothing is stale.
    """
    columns = _COLUMNS.get(relion_type)
    if columns is None:
        return []
    removed = []
    for source, outputs in _rows(project / job, columns):
        files = [project / name for name in outputs if name.startswith(job)]
        files += [
            file.with_suffix(ending) for file in files for ending in _BESIDE.get(relion_type, ())
        ]
        there = [file for file in files if file.is_file()]
        raw = columns.source == "rlnMicrographMovieName"
        if there and _has_changed(project / source, there, raw):
            for file in there:
                file.unlink()
                removed.append(str(file.relative_to(project)))
    return removed


def _rows(directory: Path, columns: _MadeFrom) -> Iterator[tuple[str, list[str]]]:
    for table in sorted((directory / "tilt_series").glob("*.star")):
        for block in read_star(table).blocks:
            names = [name for name in columns.outputs if name in block.columns]
            if columns.source not in block.columns:
                continue
            made = [block.column(name) for name in names]
            for source, *outputs in zip(block.column(columns.source), *made, strict=True):
                # RELION names the format of an image after a colon.
                yield source, [name.partition(":")[0] for name in outputs]


def _has_changed(source: Path, outputs: list[Path], raw: bool) -> bool:
    try:
        changed = source.stat().st_mtime_ns
    except OSError:
        return not raw
    return any(file.stat().st_mtime_ns < changed for file in outputs)
