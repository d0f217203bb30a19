"""One table of a project: what is growing at the microscope, and how far each tilt series is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from crboost.acquisition.arrivals import OPEN_STATES, SeriesState, Standing
from crboost.acquisition.arriving import Arriving, read_arriving
from crboost.acquisition.taken import SeriesIntake, read_intake
from crboost.errors import FileFormatError
from crboost.history import PastJob
from crboost.job_directory import read_job_file
from crboost.results import read_result, result_file
from crboost.standing import NOT_YET, failures, latest, series_by_stage

if TYPE_CHECKING:
    from crboost.project import Project
    from crboost.session import Session
    from crboost.settings import Settings


@dataclass(frozen=True)
class Row:
    """A tilt series.

    Attributes:
        arrival: how it stands at the microscope, in words; empty without a session.
        stages: stage -> done, failed, skipped, running or `-`.
        is_through: nothing more is to come of it: complete or partial, and in the last stage.
    """

    name: str
    arrival: str
    stages: Mapping[str, str]
    is_through: bool


@dataclass(frozen=True)
class Overview:
    """A project at one moment.

    Attributes:
        session: its session, active or ended.
        run: the run at work.
        stages: the columns, in the order of the work.
        rows: by name.
        failures: one line for each job and each tilt series that failed.
        seen_at: when something last changed at the microscope.
    """

    name: str
    directory: Path
    session: Session | None
    run: str | None
    stages: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: tuple[str, ...]
    seen_at: datetime | None


def read_overview(project: Project, settings: Settings | None = None) -> Overview:
    """The project as its files are now.

    Raises:
        CrboostError: a file of the project is damaged.
    """
    from crboost.run import active_run
    from crboost.session import read_session

    newest = latest(project.history(settings))
    run = active_run(project)
    nodes = tuple(run.nodes) if run else ()
    stages = tuple(dict.fromkeys((*(stage for stage, job in newest.items() if job.series), *nodes)))
    arriving = read_arriving(project.directory)
    session = read_session(project)
    return Overview(
        name=project.name,
        directory=project.directory,
        session=session,
        run=run.name if run else None,
        stages=stages,
        rows=table(
            stages,
            series_by_stage(newest),
            at_work(project.directory, newest),
            arriving,
            read_intake(project.directory),
            session.patience.expected_tilts if session else None,
        ),
        failures=tuple(failures(newest)),
        seen_at=arriving.at if arriving else None,
    )


def at_work(project: Path, newest: Mapping[str, PastJob]) -> dict[str, frozenset[str]]:
    """Stage -> the tilt series that its job still has before it; only of jobs that are at work."""
    found: dict[str, frozenset[str]] = {}
    for stage, job in newest.items():
        if not job.alive:
            continue
        record = read_job_file(project / job.name)
        began = str(record.get("started", ""))
        kept = set(record.get("kept_failed", []))
        found[stage] = frozenset(
            name
            for name in record.get("tilt_series", [])
            if name not in job.series
            or (
                job.series[name].status == "failed"
                and name not in kept
                and _started(project / job.name, name) < began
            )
        )
    return found


def _started(job: Path, tilt_series: str) -> str:
    try:
        return read_result(result_file(job, tilt_series)).started
    except (FileNotFoundError, FileFormatError):
        return ""


def table(
    stages: Sequence[str],
    states: Mapping[str, Mapping[str, str]],
    working: Mapping[str, frozenset[str]],
    arriving: Arriving | None,
    taken: Mapping[str, SeriesIntake],
    expected_tilts: int | None = None,
) -> tuple[Row, ...]:
    """The rows, by name. Pure.

    Args:
        stages: the columns.
        states: tilt series -> stage -> word, from `series_by_stage`.
        working: from `at_work`.
        arriving: what the watcher last saw.
        taken: how each series was taken in.
        expected_tilts: of a whole series, if the session knows.
    """
    standing = arriving.series if arriving else {}
    left_out = {one.name for one in arriving.left_out} - set(taken) if arriving else set()
    names = {*states, *standing, *taken, *(name for one in working.values() for name in one)}
    rows = []
    for name in sorted(names):
        words = {stage: states.get(name, {}).get(stage, NOT_YET) for stage in stages}
        words |= {stage: "running" for stage in stages if name in working.get(stage, ())}
        last = words[stages[-1]] if stages else NOT_YET
        state = standing[name].state if name in standing else None
        ended = last not in (NOT_YET, "running") or name in left_out
        through = state not in OPEN_STATES and ended
        words_of_arrival = arrival(standing.get(name), taken.get(name), expected_tilts)
        if name in left_out and state not in OPEN_STATES:
            words_of_arrival = f"left out {words_of_arrival.partition(' ')[2]}".strip()
        rows.append(Row(name, words_of_arrival, words, through))
    return tuple(rows)


def cells(stages: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table; a column of arrivals where something is known of them."""
    arrivals = any(row.arrival for row in rows)
    headings = ["tilt series", *(["microscope"] if arrivals else []), *stages]
    return headings, [
        [row.name, *([row.arrival or NOT_YET] if arrivals else []), *row.stages.values()]
        for row in rows
    ]


def not_used(arriving: Arriving | None) -> list[str]:
    """A line for each series that was left out, and for each file that is not used. Pure."""
    if arriving is None:
        return []
    files = [f"{path}: {reason}" for path, reason in arriving.rejected.items()]
    return [*map(str, arriving.left_out), *files]


def arrivals(
    arriving: Arriving | None,
    taken: Mapping[str, SeriesIntake],
    expected_tilts: int | None = None,
) -> dict[str, str]:
    """Tilt series -> how it stands at the microscope, in words."""
    rows = table((), {}, {}, arriving, taken, expected_tilts)
    return {row.name: row.arrival for row in rows}


def arrival(
    standing: Standing | None, taken: SeriesIntake | None, expected_tilts: int | None = None
) -> str:
    """How a tilt series stands at the microscope: `growing 12/41`, `partial 40/41`. Pure.

    Numbers are movies that are there, or can be used, and tilts: as many as the mdoc names, or as
    are expected of a series that grows.
    """
    if standing is None:
        return "" if taken is None else f"{taken.state} {taken.usable}/{taken.tilts}"
    if taken is not None and standing.state == taken.state:
        return f"{taken.state} {taken.usable}/{taken.tilts}"
    tilts = standing.tilts
    if standing.state is SeriesState.GROWING:
        tilts = max(tilts, expected_tilts or 0)
    return f"{standing.state} {standing.movies}/{tilts}"
