"""`results/<tilt series>.json`: what became of each tilt series in a job directory.

The driver writes one per tilt series, as soon as that series is through; plans, tables and
pictures read them. The format is in `docs/architecture.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import read_json, write_json
from crboost.history import SeriesRecord, SeriesStatus

RESULTS = "results"


@dataclass(frozen=True)
class SeriesResult:
    """One tilt series in one job.

    Attributes:
        status: done, failed or skipped; `reason` says why, unless done.
        redo: it failed for a reason outside it, and is worth another try as it is.
        fingerprint: of the job's parameters and the series' input.
        input_fingerprint: of the series' input alone.
        commands: the argv of every tool command.
        metrics: numbers for people; units in the keys.
        tilts: one record per tilt image.
        outputs: project-relative files; when one is gone, the series is not done any more.
        global_columns, table: the series' row in the global STAR, and its own STAR file
            (project-relative), for series that go on.
    """

    tilt_series: str
    status: SeriesStatus
    fingerprint: str
    input_fingerprint: str
    reason: str | None = None
    redo: bool = False
    started: str = ""
    seconds: float = 0.0
    host: str = ""
    commands: list[list[str]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    tilts: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    global_columns: dict[str, Any] = field(default_factory=dict)
    table: str | None = None

    def record(self) -> SeriesRecord:
        """What the planner needs to know of it."""
        return SeriesRecord(
            self.status, self.fingerprint, self.input_fingerprint, self.reason, self.redo
        )


def result_file(job: Path, tilt_series: str) -> Path:
    """Where the result of one tilt series is kept."""
    return job / RESULTS / f"{tilt_series}.json"


def write_result(job: Path, result: SeriesResult) -> None:
    """Write one result, whole or not at all."""
    write_json(result_file(job, result.tilt_series), asdict(result))


def read_result(path: Path) -> SeriesResult:
    """Read one result.

    Raises:
        FileFormatError: the file is no such result.
    """
    value = read_json(path)
    known = {one.name for one in fields(SeriesResult)}
    try:
        return SeriesResult(**{key: item for key, item in value.items() if key in known})
    except (TypeError, AttributeError) as error:
        raise FileFormatError(path, f"not a tilt-series result: {error}") from error


def read_results(job: Path) -> dict[str, SeriesResult]:
    """All results in a job directory, by tilt series, in name order.

    A damaged file counts as no result: the series is then simply done again.
    """
    return ResultReader().read(job)


class ResultReader:
    """Reads the results of a job again and again, each file only when it has changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], SeriesResult | None]] = {}

    def read(self, job: Path) -> dict[str, SeriesResult]:
        """See `read_results`."""
        found: dict[str, SeriesResult] = {}
        for path in sorted((job / RESULTS).glob("*.json")):
            result = self._one(path)
            if result is not None:
                found[result.tilt_series] = result
        return found

    def _one(self, path: Path) -> SeriesResult | None:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if path not in self._known or self._known[path][0] != version:
                self._known[path] = (version, read_result(path))
        except FileNotFoundError:
            return None
        except FileFormatError:
            self._known[path] = (version, None)
        return self._known[path][1]


def missing_outputs(project: Path, results: Iterable[SeriesResult]) -> list[str]:
    """Files that done tilt series should have and that are gone, project-relative."""
    # One listing per directory: a project has tens of thousands of these files.
    listings: dict[str, set[str]] = {}

    def is_there(output: str) -> bool:
        folder, _, name = output.rpartition("/")
        if folder not in listings:
            try:
                listings[folder] = {path.name for path in (project / folder).iterdir()}
            except OSError:
                listings[folder] = set()
        return name in listings[folder]

    return [
        output
        for result in results
        if result.status == "done"
        for output in [*result.outputs, *([result.table] if result.table else [])]
        if not is_there(output)
    ]


def fingerprint_of(value: Any) -> str:
    """A short hash of plain values, the same for the same values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_extra(fingerprint: str, extra: str | None) -> str:
    """Fingerprint of a series' input that is more than what its producer made; None: no more.

    Planner and driver must make it the same way.
    """
    return fingerprint if extra is None else fingerprint_of([fingerprint, extra])


def whole_fingerprint(series: Mapping[str, SeriesRecord]) -> str | None:
    """Of what a job made of all its tilt series together; None where it left no results."""
    done = sorted((name, one.fingerprint) for name, one in series.items() if one.status == "done")
    return fingerprint_of(done) if done else None


def table_fingerprint(path: Path) -> str:
    """A short hash of a tilt series' STAR file, for jobs that leave no result files."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
