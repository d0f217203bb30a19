"""Writes the summary pictures of a project, and only those that are not up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import read_json, write_bytes
from crboost.quality.series import series_report
from crboost.quality.stages import ProjectLike, StageResults, read_stages, tool_result
from crboost.results import result_file

REPORTS = "Reports"

#: Part of each picture's source: a new design redraws the old pictures.
DESIGN = 2


def write_reports(project: ProjectLike) -> list[Path]:
    """One picture per tilt series in `<project>/Reports/`; returns their paths, in name order.

    Works after any stage. A picture that was made from the same files is not written again.
    """
    stages = read_stages(project)
    names = sorted({name for stage in stages.values() for name in stage.results})
    return [_write_one(project.directory, stages, name) for name in names]


def _write_one(project: Path, stages: Mapping[str, StageResults], name: str) -> Path:
    frames = _frames(project, stages, name)
    files = [frames[0]] if frames else []
    files += [
        result_file(project / stage.job, name) for stage in stages.values() if name in stage.results
    ]
    report = series_report(name, stages, frames[1:] if frames else None)
    tomogram = project / report.tomogram if report.tomogram else None
    if tomogram is not None and tomogram.is_file():
        files.append(tomogram)
    else:
        tomogram = None
    picture = project / REPORTS / f"{name}.png"
    source = source_of(project, files)
    if not _is_made_from(picture, source):
        from crboost.quality.pictures import central_slice, draw

        try:
            middle = central_slice(tomogram) if tomogram else None
        except FileFormatError:
            middle = None
        write_bytes(picture, draw(report, middle, source=source))
    return picture


def _frames(
    project: Path, stages: Mapping[str, StageResults], name: str
) -> tuple[Path, Mapping[str, Any], Mapping[str, Any]] | None:
    """The frame tool's result file, specification and result for one tilt series."""
    stage = stages.get("fsMotionAndCtf")
    found = tool_result(project, stage.job, name) if stage else None
    if found is None:
        return None
    path, result = found
    specification = path.with_name("frames.json")
    return path, read_json(specification) if specification.is_file() else {}, result


def source_of(project: Path, files: Iterable[Path]) -> str:
    """Identifies the files that a picture is made from, by name, size and time."""
    digest = hashlib.sha256(f"design {DESIGN}".encode())
    for path in files:
        status = path.stat()
        name = path.relative_to(project)
        digest.update(f"\n{name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _is_made_from(picture: Path, source: str) -> bool:
    """Whether the picture's `Source` text (an uncompressed tEXt chunk) is this one."""
    return picture.is_file() and b"Source\0" + source.encode() in picture.read_bytes()
