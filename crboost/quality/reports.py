"""Writes the summary pictures of a project, and only those that are not up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from crboost.errors import FileFormatError
from crboost.files import write_bytes
from crboost.quality.details import read_details
from crboost.quality.series import series_report
from crboost.quality.stages import ProjectLike, StageResults, read_stages, tool_result
from crboost.results import result_file

REPORTS = "Reports"

#: Part of each picture's source: a new design redraws the old pictures.
DESIGN = 4


def write_reports(project: ProjectLike) -> list[Path]:
    """One picture per tilt series in `<project>/Reports/`; returns their paths, in name order.

    Works after any stage. A picture that was made from the same files is not written again.
    """
    stages = read_stages(project)
    names = sorted({name for stage in stages.values() for name in stage.results})
    return [_write_one(project.directory, stages, name) for name in names]


def _write_one(project: Path, stages: Mapping[str, StageResults], name: str) -> Path:
    report = series_report(name, stages)
    volumes = [project / volume for volume in report.halves or (report.tomogram,) if volume]
    volumes = [volume for volume in volumes if volume.is_file()]
    picture = project / REPORTS / f"{name}.png"
    source = source_of(project, [*_sources(project, stages, name), *volumes])
    if not _is_made_from(picture, source):
        from crboost.quality.pictures import central_slice, draw

        report = series_report(name, stages, read_details(project, stages, name))
        pixel_size = report.metrics.get("tomogram_pixel_size_angstrom")
        try:
            middle = central_slice(volumes, pixel_size) if volumes else None
        except FileFormatError:
            middle = None
        write_bytes(picture, draw(report, middle, source=source))
    return picture


def _sources(project: Path, stages: Mapping[str, StageResults], name: str) -> Iterator[Path]:
    """The files that stand for what each stage says of a tilt series.

    Of a native job its tables: what lies beside them was made with them.
    """
    for stage in stages.values():
        result = stage.results.get(name)
        if result is None:
            continue
        found = tool_result(project, stage.job, name) if stage.has_frames else None
        if found is not None:
            yield found[0]
        own = result_file(project / stage.job, name)
        for path in (own, project / result.table) if result.table else (own,):
            if path.is_file():
                yield path


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
