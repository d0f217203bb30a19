"""What the watcher has told becomes part of a project: links to movies and mdocs, and a record.

A tilt series enters when it is told complete or partial, never while it grows. Its movies are
linked before its mdoc: by the mdoc the import knows of a series. Taking the same facts in again,
after a crash at any moment, comes to the same end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crboost.acquisition.arrivals import MovieCandidates
from crboost.acquisition.arriving import LeftOut
from crboost.acquisition.collect import collect, conclude
from crboost.acquisition.facts import (
    Fact,
    FileRejected,
    SeriesComplete,
    SeriesPartial,
    SeriesReopened,
)
from crboost.acquisition.movies import MovieFile, inspect_movie
from crboost.acquisition.taken import SeriesIntake, read_intake, write_intake
from crboost.acquisition.tilt_series import TiltSeriesAcquisition, read_tilt_series, series_name
from crboost.acquisition.watch import scan
from crboost.errors import FileFormatError, ProjectError
from crboost.files import locked
from crboost.found_values import OF_OPTICS_GROUP
from crboost.raw_data import FRAMES, MDOCS, make_link, raw_series, replace_link
from crboost.tilt_name import plain_name

if TYPE_CHECKING:
    from crboost.project import Project

LOCK_FILE = ".crboost/intake.lock"

#: Facts by which a series is taken in.
_Told = SeriesComplete | SeriesPartial


@dataclass(frozen=True, slots=True)
class Intake:
    """What taking in has done.

    Args:
        linked: names of the links that were made or now lead elsewhere.
        series: those that the project now has, and those that have changed since.
        left_out: those that were told and have not become part of the project.
        problems: what else a user should look at, naming the files.
    """

    linked: list[str]
    series: list[SeriesIntake]
    left_out: list[LeftOut]
    problems: list[str]

    @property
    def names(self) -> list[str]:
        """The series that the project has got, or got more of."""
        return [one.name for one in self.series if one.state != "reopened"]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A tilt series to be linked; `movies`: name in the mdoc -> file."""

    record: SeriesIntake
    acquisition: TiltSeriesAcquisition
    movies: dict[str, Path]


def take_in(project: Project, watched: Sequence[Path], facts: Sequence[Fact]) -> Intake:
    """Link the tilt series that have been told complete or partial, with what is there of them.

    Of several facts on a series the last one counts. The first series of a project also tell its
    parameters, as `Project.create` takes them; what a user or a preset has chosen stays.

    Args:
        watched: the directories in which the movies are.
        facts: from the watcher, in order.

    Raises:
        OSError: the project cannot be written, or a watched directory cannot be read just now.
            Nothing is lost then: take the same facts in again.
    """
    last = _last_of_each(facts)
    with locked(project.directory / LOCK_FILE):
        before = read_intake(project.directory)
        records = dict(before)
        left_out: list[LeftOut] = []
        problems: list[str] = []
        wanted = [fact for fact in last.values() if isinstance(fact, _Told)]
        taken = _find(project, watched, wanted, left_out) if wanted else []
        _tell_parameters(project, taken, problems)
        linked: list[str] = []
        series: list[SeriesIntake] = []
        for one in taken:
            try:
                linked += _link(project, one)
            except ProjectError as error:
                mdoc = str(one.acquisition.mdoc_path)
                left_out.append(LeftOut(one.record.name, mdoc, error.message))
                continue
            series.append(one.record)
        raw = raw_series(project.directory, {one.name for one in series})
        series = [replace(one, content=raw[one.name].fingerprint) for one in series]
        series += _reopened(last.values(), records)
        records |= {one.name: one for one in series}
        if records != before:
            write_intake(project.directory, records)
        return Intake(linked, series, left_out, problems)


def _last_of_each(facts: Iterable[Fact]) -> dict[str, Fact]:
    """The last fact on each series, in the order of the first one."""
    last: dict[str, Fact] = {}
    for fact in facts:
        if not isinstance(fact, FileRejected):
            last[fact.name] = fact
    return last


def _reopened(facts: Iterable[Fact], records: Mapping[str, SeriesIntake]) -> list[SeriesIntake]:
    """Records of the series that have changed since they were taken in."""
    found = []
    for fact in facts:
        known = records.get(plain_name(fact.name)) if isinstance(fact, SeriesReopened) else None
        if isinstance(fact, SeriesReopened) and known is not None:
            found.append(replace(known, state="reopened", reasons=(fact.reason,)))
    return found


def _find(
    project: Project, watched: Sequence[Path], facts: Sequence[_Told], left_out: list[LeftOut]
) -> list[_Taken]:
    """Read the mdocs and find the movies; what cannot be used is left out."""
    files: dict[str, tuple[int, int]] = {}
    unread: list[str] = []
    for root in watched:
        found, not_read = scan(root)
        files |= found
        unread += not_read
    candidates = MovieCandidates(path for path in files if not path.lower().endswith(".mdoc"))
    taken = []
    for fact in facts:
        name = plain_name(fact.name)
        try:
            acquisition = read_tilt_series(Path(fact.mdoc))
        except FileNotFoundError:
            left_out.append(LeftOut(name, fact.mdoc, f"{fact.mdoc} has gone"))
            continue
        except FileFormatError as error:
            left_out.append(LeftOut(name, fact.mdoc, error.message))
            continue
        movies = {
            tilt.movie_name: path
            for tilt in acquisition.tilts
            if (path := _pick(project, candidates.candidates(tilt.movie_name))) is not None
        }
        record = _judge(name, fact, acquisition, movies)
        told = 0 if isinstance(fact, SeriesComplete) else len(fact.missing)
        if unread and len(record.missing) > told:
            raise OSError(unread[0])  # a disk may be away for a moment
        if record.usable == 0:
            reason = f"none of its {record.tilts} movies can be used{_first(record.reasons)}"
            left_out.append(LeftOut(name, fact.mdoc, reason))
            continue
        taken.append(_Taken(record, acquisition, movies))
    return taken


def _judge(
    name: str, fact: _Told, acquisition: TiltSeriesAcquisition, movies: Mapping[str, Path]
) -> SeriesIntake:
    """The record of a series: what was told, but for movies that have gone since."""
    missing = tuple(t.movie_name for t in acquisition.tilts if t.movie_name not in movies)
    tilts = len(acquisition.tilts)
    if isinstance(fact, SeriesComplete):
        if not missing:
            return SeriesIntake(name, "complete", tilts, tilts)
        gone = tuple(f"movie {movie} has gone" for movie in missing)
        return SeriesIntake(name, "partial", tilts, tilts - len(missing), missing, gone)
    broken = fact.tilts - fact.usable - len(fact.missing)
    usable = max(0, min(fact.usable, tilts - len(missing) - max(0, broken)))
    return SeriesIntake(name, "partial", tilts, usable, missing, fact.reasons)


def _pick(project: Project, candidates: Sequence[str]) -> Path | None:
    """Of several files of one name: the one that is linked, or the first that can be used."""
    if len(candidates) < 2:
        return Path(candidates[0]) if candidates else None
    for path in map(Path, candidates):
        link = project.directory / FRAMES / plain_name(path.name)
        if link.exists() and link.samefile(path) and _header(path).problem is None:
            return path
    good = (Path(path) for path in candidates if _header(Path(path)).problem is None)
    return next(good, Path(candidates[0]))


def _header(path: Path) -> MovieFile:
    try:
        return inspect_movie(path)
    except OSError as error:
        return MovieFile(path, None, 0, problem=f"cannot be read: {error.strerror or error}")


def _tell_parameters(project: Project, taken: Sequence[_Taken], problems: list[str]) -> None:
    """Take parameters from the first series; say where later ones differ from them."""
    known = {plain_name(series_name(path)) for path in (project.directory / MDOCS).glob("*.mdoc")}
    if not taken:
        return
    if known:
        for one in taken:
            if one.record.name not in known:
                problems += _differences(project, one)
        return
    gain = project.parameters().data.gain_reference
    # Of mdocs of one name, in directories of their own, one will do to tell parameters.
    first = {series_name(one.acquisition.mdoc_path): one for one in reversed(taken)}
    movies = dict.fromkeys(path for one in first.values() for path in one.movies.values())
    mdocs = [one.acquisition.mdoc_path for one in first.values()]
    try:
        session = collect(mdocs, movies, Path(gain) if gain else None)
    except FileFormatError as error:
        problems.append(f"data.gain_reference: {error.message}")
        session = collect(mdocs, movies)
    problems += session.warnings
    problems += project.add_found_values(session.findings)
    for one in taken:
        if one not in first.values():
            problems += _differences(project, one)


def _differences(project: Project, taken: _Taken) -> list[str]:
    """Where a series was taken otherwise than the project's parameters say."""
    first = next(iter(taken.movies.values()), None)
    found, _ = conclude([taken.acquisition], [_header(first)] if first else [])
    return project.contradictions(one for one in found if one.path in OF_OPTICS_GROUP)


def _link(project: Project, taken: _Taken) -> list[str]:
    """Link movies, then the mdoc; names of the new links.

    Raises:
        ProjectError: another file has the name of one of them.
    """
    frames, mdocs = project.directory / FRAMES, project.directory / MDOCS
    mdoc = taken.acquisition.mdoc_path
    name = _link_name(mdoc, taken.record.name)
    _clear_the_way(mdocs, mdoc, taken.record.name, name)
    made = [plain_name(path.name) for path in taken.movies.values() if _make_or_mend(frames, path)]
    if make_link(mdocs, mdoc, name=name, replace_broken=True):
        made.append(name)
    return made


def _link_name(mdoc: Path, series: str) -> str:
    """The name of an mdoc's link, by which the import knows the series."""
    if plain_name(series_name(mdoc)) == series:
        return plain_name(mdoc.name)
    return f"{series}.mdoc"  # the watcher has put its directory's name before its own


def _clear_the_way(mdocs: Path, mdoc: Path, name: str, link_name: str) -> None:
    """Remove links to where the mdoc of a series was before.

    Raises:
        ProjectError: the series has another mdoc, which is still there.
    """
    for link in mdocs.glob("*.mdoc"):
        if plain_name(series_name(link)) != name or (link.exists() and link.samefile(mdoc)):
            continue
        if link.exists():
            raise ProjectError(f"{link.resolve()} and {mdoc} are both tilt series {name}")
        if link.name != link_name:
            link.unlink()


def _make_or_mend(frames: Path, movie: Path) -> bool:
    """Link a movie, also in place of one that has gone or cannot be used."""
    link = frames / plain_name(movie.name)
    if link.is_symlink() and link.exists() and not link.samefile(movie):
        if _header(link).problem is None:
            return False  # the watcher has told which of the two is used
        replace_link(link, movie)
        return True
    return make_link(frames, movie, replace_broken=True)


def _first(reasons: Sequence[str]) -> str:
    return f" ({reasons[0]}{', ...' if len(reasons) > 1 else ''})" if reasons else ""
