"""Which job stands for each stage of a project: the newest that succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crboost.catalogue import CATALOGUE
from crboost.errors import FileFormatError
from crboost.files import read_json
from crboost.history import PastJob
from crboost.results import SeriesResult, read_results


class ProjectLike(Protocol):
    """The little that quality needs to know of a project."""

    @property
    def directory(self) -> Path:
        """The project directory."""

    def history(self) -> Sequence[PastJob]:
        """Every process in the ledger."""


@dataclass(frozen=True)
class StageResults:
    """What one stage left behind.

    Attributes:
        job_type: the stage.
        job: the RELION job that stands for it, as people write it (`External/job003`).
        results: its tilt series by name.
    """

    job_type: str
    job: str
    results: Mapping[str, SeriesResult]


def newest_jobs(history: Sequence[PastJob]) -> dict[str, PastJob]:
    """The newest succeeded job of each job type, in the catalogue's order."""
    newest: dict[str, PastJob] = {}
    for past in sorted(history, key=lambda one: one.number):
        if past.status == "Succeeded" and past.job_type in CATALOGUE:
            newest[past.job_type] = past
    return {name: newest[name] for name in CATALOGUE if name in newest}


def read_stages(project: ProjectLike) -> dict[str, StageResults]:
    """The results of each stage that has a succeeded job, in the catalogue's order."""
    return {
        name: StageResults(name, past.name, read_results(project.directory / past.name))
        for name, past in newest_jobs(project.history()).items()
    }


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
