"""What has arrived from the microscope, and which tilt series that completes.

No file is touched and no clock is read here: what was seen, and when, is passed in. Facts are
differences between what the files amount to and what has been reported. So neither the order in
which things are seen matters nor how often, and whoever has seen the same files comes to the same
end: after a restart, one look at all files makes up for everything that was missed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from crboost.acquisition.collect import OVERRIDE_SUFFIX
from crboost.acquisition.facts import (
    Fact,
    FileRejected,
    Report,
    SeriesComplete,
    SeriesPartial,
    SeriesReopened,
)
from crboost.acquisition.movies import MOVIE_SUFFIXES
from crboost.errors import CrboostError, ParameterError

MDOC_SUFFIX = ".mdoc"
FORMAT_VERSION = 1


class SeriesState(StrEnum):
    """How a tilt series stands."""

    GROWING = "growing"
    COMPLETE = "complete"
    PARTIAL = "partial"
    REOPENED = "reopened"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds.

    Args:
        stable_seconds: a movie is finished when its size and time have not changed for so long.
        mdoc_quiet_seconds: an mdoc has stopped growing when it has not changed for so long; more
            than the longest pause between two tilts.
        partial_after_seconds: a series without anything new for so long is taken as it is.
        expected_tilts: a series with fewer tilts is not complete; None: the mdoc decides.

    Raises:
        ParameterError: a time is negative, or a partial series would be told before a complete
            one.
    """

    stable_seconds: float = 30.0
    mdoc_quiet_seconds: float = 180.0
    partial_after_seconds: float = 3600.0
    expected_tilts: int | None = None

    def __post_init__(self) -> None:
        for name in ("stable_seconds", "mdoc_quiet_seconds", "partial_after_seconds"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ParameterError(f"{name} is {value}; it must be 0 s or more")
        longest = max(self.stable_seconds, self.mdoc_quiet_seconds)
        if self.partial_after_seconds < longest:
            raise ParameterError(
                f"partial_after_seconds is {self.partial_after_seconds:g}; it must not be less "
                f"than stable_seconds and mdoc_quiet_seconds ({longest:g} s)"
            )
        if self.expected_tilts is not None and self.expected_tilts < 1:
            raise ParameterError(f"expected_tilts is {self.expected_tilts}; it must be 1 or more")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tilt series stands at the microscope.

    Args:
        state: when `settle` was last called.
        tilts: how many its mdoc names so far.
        movies: how many of them have been seen, finished or not.
    """

    state: SeriesState
    tilts: int
    movies: int


#: States of series of which more is to be told.
OPEN_STATES = (SeriesState.GROWING, SeriesState.REOPENED)


def open_series(standing: Mapping[str, Standing]) -> list[str]:
    """Names of the series that have begun, or begun again, and have not come to their end."""
    return [name for name, one in standing.items() if one.state in OPEN_STATES]


@dataclass(frozen=True, slots=True)
class MdocLook:
    """What an mdoc says.

    Args:
        digest: of its content.
        name: the tilt series.
        movies: names of its movies.
        incomplete: why it looks unfinished, or None.
        problem: why it is no tilt series, or None.
    """

    digest: str
    name: str = ""
    movies: tuple[str, ...] = ()
    incomplete: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class MovieLook:
    """Why a movie cannot be used, or None."""

    problem: str | None = None


@dataclass(slots=True)
class _File:
    """A file as last seen; `since`: when it was first seen with this size and time."""

    size: int
    mtime_ns: int
    since: float
    present: bool = True
    look: MdocLook | MovieLook | None = None


@dataclass(slots=True)
class _Told:
    """What was last reported of a series: its movies' sizes and times, and paths, by name."""

    state: SeriesState
    mdoc: str
    digest: str
    movies: dict[str, tuple[int, int]]
    paths: dict[str, str]


@dataclass(slots=True)
class _Series:
    """A series as its files are now; `ready` says that no file needs waiting for."""

    name: str
    path: str
    mdoc: MdocLook
    activity: float
    ready: bool = True
    usable: int = 0
    missing: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    movies: dict[str, tuple[int, int]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)


def is_of_interest(name: str) -> bool:
    """Whether a file of this name is an mdoc or may be a movie; hidden files are not."""
    return not name.startswith(".") and name.lower().endswith((MDOC_SUFFIX, *MOVIE_SUFFIXES))


def is_mdoc(path: str) -> bool:
    """Whether the path is that of an mdoc."""
    return path.lower().endswith(MDOC_SUFFIX)


class Arrivals:
    """The state machine: files are seen and looked at, time passes, facts come out once each.

    Per tilt series: growing -> complete | partial -> reopened -> complete | partial. Of a series
    that was reported, files that go away are no news (facilities clear their buffers); a movie or
    an mdoc that comes late or changes is.

    A report stays in `pending` until `acknowledge`: save the state after the reports have been
    found and before they are told, and nothing is lost or told under two keys.

    Args:
        ledger: begins every key; another one for every new ledger.
        patience: how long to wait for what.
    """

    def __init__(self, ledger: str, patience: Patience) -> None:
        self.ledger = ledger
        self.patience = patience
        self.pending: list[Report] = []
        self._files: dict[str, _File] = {}
        self._told: dict[str, _Told] = {}
        self._rejected: dict[str, str] = {}
        self._number = 0
        self._changed = True
        self._wake: float | None = None
        self._latest = 0.0

    # -- what is seen ------------------------------------------------------------------------

    def seen(self, path: str, size: int, mtime_ns: int, now: float) -> None:
        """A file is there, with this size and modification time."""
        if not is_of_interest(PurePath(path).name):
            return
        known = self._files.get(path)
        if known is None or (known.size, known.mtime_ns) != (size, mtime_ns):
            self._files[path] = _File(size, mtime_ns, now)
            self._latest = now
            self._changed = True
        elif not known.present:
            known.present = True
            self._changed = True

    def gone(self, path: str) -> None:
        """A file is not there, or not any more."""
        known = self._files.get(path)
        if known is not None and known.present:
            known.present = False
            self._changed = True

    def scanned(self, root: str, files: Mapping[str, tuple[int, int]], now: float) -> None:
        """All files below a directory: those that are not among them are gone.

        Args:
            root: the directory.
            files: path -> size in bytes and modification time in ns.
        """
        for path, (size, mtime_ns) in files.items():
            self.seen(path, size, mtime_ns, now)
        top = PurePath(root)
        for path, file in self._files.items():
            if file.since > now:  # the clock has been set back
                file.since = now
                self._changed = True
            if path not in files and top in PurePath(path).parents:
                self.gone(path)

    def to_look_at(self, now: float) -> list[str]:
        """Files whose content is needed next: changed mdocs, and finished movies of a series."""
        mdocs = [
            path
            for path, file in self._files.items()
            if file.present and file.look is None and is_mdoc(path)
        ]
        index = self._movie_index()
        movies = {
            path
            for _, _, look in self._mdocs()
            for movie in look.movies
            for path in index.candidates(movie)
            if self._files[path].look is None
            and self._files[path].size > 0
            and self._files[path].since + self.patience.stable_seconds <= now
        }
        return sorted(mdocs) + sorted(movies)

    def looked(self, path: str, size: int, mtime_ns: int, look: MdocLook | MovieLook) -> None:
        """What a file contains; of no use if it has changed since, and then ignored."""
        known = self._files.get(path)
        if known is not None and (known.size, known.mtime_ns) == (size, mtime_ns):
            known.look = look
            self._changed = True

    # -- what follows ------------------------------------------------------------------------

    def due(self, now: float) -> bool:
        """Whether anything has changed, or the time for something has come, since `settle`."""
        return self._changed or (self._wake is not None and now >= self._wake)

    def settle(self, now: float) -> list[Report]:
        """The facts that are new, also put into `pending`."""
        if not self.due(now):
            return []
        self._changed, self._wake = False, None
        found: list[Fact] = list(self._rejections(now))
        for series in self._series(now):
            found += self._news(series, now)
        reports = []
        for fact in found:
            self._number += 1
            reports.append(Report(f"{self.ledger}-{self._number}", now, fact))
        self.pending += reports
        return reports

    def take_as_it_is(self) -> None:
        """From now on a series without news counts as partial as soon as its files are finished."""
        least = max(self.patience.stable_seconds, self.patience.mdoc_quiet_seconds)
        self.patience = replace(self.patience, partial_after_seconds=least)
        self._changed = True

    def acknowledge(self, reports: Iterable[Report]) -> None:
        """These reports have been dealt with."""
        done = {report.key for report in reports}
        self.pending = [report for report in self.pending if report.key not in done]

    @property
    def latest(self) -> float:
        """When a file was last new, or seen to have changed; 0 for never."""
        return self._latest

    def rejected(self) -> dict[str, str]:
        """Files that are there and will not be used as they are: path -> why."""
        return {
            path: reason
            for path, reason in sorted(self._rejected.items())
            if path in self._files and self._files[path].present
        }

    def states(self) -> dict[str, SeriesState]:
        """Every tilt series known, and how it stood when `settle` was last called."""
        states = {look.name: SeriesState.GROWING for _, _, look in self._holders()}
        states.update({name: told.state for name, told in self._told.items()})
        return dict(sorted(states.items()))

    def standing(self) -> dict[str, Standing]:
        """As `states`, with numbers; of a series whose mdoc has gone, those that were told."""
        index = self._movie_index()
        standing = {
            name: Standing(told.state, len(told.movies), len(told.movies))
            for name, told in self._told.items()
        }
        for _, _, look in self._holders():
            told = self._told.get(look.name)
            seen = sum(1 for movie in look.movies if index.candidates(movie))
            state = told.state if told is not None else SeriesState.GROWING
            if told is not None and state is not SeriesState.REOPENED:
                seen = max(seen, len(told.movies))  # what is cleared away afterwards has been there
            standing[look.name] = Standing(state, len(look.movies), seen)
        return dict(sorted(standing.items()))

    def _news(self, series: _Series, now: float) -> Iterator[Fact]:
        told = self._told.get(series.name)
        if told is not None and told.state is not SeriesState.REOPENED:
            changes = _changes(told, series)
            if not changes:
                return
            yield SeriesReopened(
                series.name, series.path, changes, _fingerprint(told.digest, told.movies)
            )
            told.state = SeriesState.REOPENED
        quiet = self._passed(self._files[series.path].since + self.patience.mdoc_quiet_seconds, now)
        if not (quiet and series.ready):
            return
        print_of = _fingerprint(series.mdoc.digest, series.movies)
        tilts = len(series.mdoc.movies)
        if not series.reasons:
            yield SeriesComplete(series.name, series.path, tilts, print_of)
            state = SeriesState.COMPLETE
        elif self._passed(series.activity + self.patience.partial_after_seconds, now):
            yield SeriesPartial(
                series.name,
                series.path,
                tilts,
                series.usable,
                tuple(series.missing),
                tuple(series.reasons),
                print_of,
            )
            state = SeriesState.PARTIAL
        else:
            return
        self._told[series.name] = _Told(
            state, series.path, series.mdoc.digest, series.movies, series.paths
        )

    def _series(self, now: float) -> Iterator[_Series]:
        """The series as their files are now, by name."""
        index = self._movie_index()
        for path, file, mdoc in sorted(self._holders(), key=lambda one: one[2].name):
            series = _Series(mdoc.name, path, mdoc, file.since)
            told = self._told.get(mdoc.name)
            if mdoc.incomplete:
                series.reasons.append(mdoc.incomplete)
            for movie in mdoc.movies:
                path_of = self._pick(movie, index.candidates(movie), told)
                self._add_movie(series, movie, path_of, now)
            expected = self.patience.expected_tilts
            if expected is not None and len(mdoc.movies) < expected:
                series.reasons.append(f"{len(mdoc.movies)} tilts of {expected}")
            yield series

    def _add_movie(self, series: _Series, movie: str, path: str | None, now: float) -> None:
        if path is None:
            series.missing.append(movie)
            series.reasons.append(f"movie {movie} is missing")
            return
        file = self._files[path]
        series.movies[movie] = (file.size, file.mtime_ns)
        series.paths[movie] = path
        series.activity = max(series.activity, file.since)
        problem = _movie_problem(file)
        if not self._passed(file.since + self.patience.stable_seconds, now):
            series.ready = False
        elif problem is not None:
            series.reasons.append(f"movie {movie}: {problem}")
        elif file.look is None and self._passed(
            file.since + self.patience.partial_after_seconds, now
        ):
            series.reasons.append(f"movie {movie}: it could not be read")
        elif file.look is None:
            series.ready = False
        else:
            series.usable += 1

    def _rejections(self, now: float) -> Iterator[FileRejected]:
        """Rejections that are new; a file that turns out well after all is forgotten."""
        for path, reason in sorted(self._verdicts(now)):
            if reason is None:
                self._rejected.pop(path, None)
            elif self._rejected.get(path) != reason:
                self._rejected[path] = reason
                yield FileRejected(path, reason)

    def _verdicts(self, now: float) -> list[tuple[str, str | None]]:
        """Path and problem (None: it is fine) of each file that is finished and was looked at."""
        verdicts: list[tuple[str, str | None]] = []
        holders, rivals = self._assigned()
        names = {path: look.name for path, _, look in holders}
        named: list[tuple[str, _Told | None]] = []
        for path, file in self._files.items():
            look = file.look
            if not file.present or not isinstance(look, MdocLook):
                continue
            problem = look.problem or _override(look.name)
            if problem is None:
                if path in names:
                    told = self._told.get(names[path])
                    named += [(movie, told) for movie in look.movies]
                else:
                    problem = self._same_name(path, rivals[path])
            if self._passed(file.since + self.patience.mdoc_quiet_seconds, now):
                verdicts.append((path, problem))
        verdicts += self._movie_verdicts(named, now)
        return verdicts

    def _movie_verdicts(
        self, named: Iterable[tuple[str, _Told | None]], now: float
    ) -> Iterator[tuple[str, str | None]]:
        index = self._movie_index()
        twins: dict[str, str] = {}
        wanted: set[str] = set()
        for movie, told in named:
            candidates = index.candidates(movie)
            wanted.update(candidates)
            used = self._pick(movie, candidates, told)
            twins |= {path: used for path in candidates if used is not None and path != used}
        for path, file in self._files.items():
            # Movies that no mdoc names are nobody's business, but an empty one is always wrong.
            if not file.present or is_mdoc(path) or (path not in wanted and file.size > 0):
                continue
            if not self._passed(file.since + self.patience.stable_seconds, now):
                continue
            problem = _movie_problem(file)
            if problem is None and path in twins:
                problem = self._same_name(path, twins[path])
            if problem is not None or file.look is not None:
                yield path, problem

    def _same_name(self, path: str, used: str) -> str:
        one, other = self._files[path], self._files[used]
        if isinstance(one.look, MdocLook) and isinstance(other.look, MdocLook):
            if one.look.digest != other.look.digest:
                return (
                    f"has the same name as {used}, which is used, and names the same movies; "
                    "if it is a tilt series of its own, it needs a session of its own"
                )
            same = True
        else:
            same = (one.size, one.mtime_ns) == (other.size, other.mtime_ns)
        return f"{'a copy of' if same else 'has the same name as'} {used}, which is used"

    def _mdocs(self) -> list[tuple[str, _File, MdocLook]]:
        """The mdocs of tilt series, sorted by path."""
        return [
            (path, file, file.look)
            for path, file in sorted(self._files.items())
            if file.present
            and isinstance(file.look, MdocLook)
            and file.look.problem is None
            and _override(file.look.name) is None
        ]

    def _holders(self) -> list[tuple[str, _File, MdocLook]]:
        """One mdoc of each series, under the series' name."""
        return self._assigned()[0]

    def _assigned(self) -> tuple[list[tuple[str, _File, MdocLook]], dict[str, str]]:
        """One mdoc of each series, and of each other mdoc the one that is used in its place.

        Of several mdocs of a series the one that was reported is used, or the first by path. Grids
        that are recorded in directories of their own may all have a Position_1: where they name no
        movie in common they are series of their own, and the later ones have their directory's
        name before theirs. What was reported keeps its name.
        """
        by_path = {told.mdoc: name for name, told in self._told.items()}
        by_digest = {told.digest: name for name, told in self._told.items()}
        groups: dict[str, list[tuple[str, _File, MdocLook]]] = {}
        others = []
        for one in self._mdocs():
            path, _, look = one
            name = by_path.get(path) or by_digest.get(look.digest)
            if name is not None and (name == look.name or name.endswith(f"_{look.name}")):
                groups.setdefault(name, []).append(one)
            else:
                others.append(one)
        for one in others:
            name = next(
                (name for name in _names_of(one[0], one[2].name)
                 if self._is_free(name, groups.get(name, []), one[2])),
                one[2].name,
            )  # fmt: skip
            groups.setdefault(name, []).append(one)
        holders = []
        rivals: dict[str, str] = {}
        for name, candidates in groups.items():
            path, file, look = _told_before(candidates, self._told.get(name))
            holders.append((path, file, look if look.name == name else replace(look, name=name)))
            rivals |= {one[0]: path for one in candidates if one[0] != path}
        return holders, rivals

    def _is_free(self, name: str, group: list[tuple[str, _File, MdocLook]], look: MdocLook) -> bool:
        """Whether an mdoc may have a name: nobody has it, or the same series."""
        told = self._told.get(name)
        if told is None and not group:
            return True
        if told is not None and not told.movies:  # nothing tells them apart
            return True
        movies = {_stem(movie) for movie in (told.movies if told is not None else ())}
        movies |= {_stem(movie) for _, _, one in group for movie in one.movies}
        return not movies.isdisjoint(map(_stem, look.movies))

    def _movie_index(self) -> MovieCandidates:
        return MovieCandidates(
            path for path, file in self._files.items() if file.present and not is_mdoc(path)
        )

    def _pick(self, movie: str, candidates: list[str], told: _Told | None) -> str | None:
        """Of several files that may be a movie: the one that was reported, or the first by path.

        One that cannot be used is taken only where there is no other.
        """
        good = [path for path in candidates if _movie_problem(self._files[path]) is None]
        if told is not None and told.paths.get(movie) in good:
            return told.paths[movie]
        for path in good:
            file = self._files[path]
            if told is not None and told.movies.get(movie) == (file.size, file.mtime_ns):
                return path
        return next(iter(good or candidates), None)

    def _passed(self, moment: float, now: float) -> bool:
        """Whether a moment has come; if not, `settle` has something to do when it does."""
        if moment <= now:
            return True
        self._wake = moment if self._wake is None else min(self._wake, moment)
        return False

    # -- across restarts ---------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """All of the state, for JSON."""
        return {
            "version": FORMAT_VERSION,
            "ledger": self.ledger,
            "number": self._number,
            "pending": [report.to_json() for report in self.pending],
            "told": {name: asdict(told) for name, told in self._told.items()},
            "rejected": self._rejected,
            "files": {path: asdict(file) for path, file in self._files.items()},
        }

    @staticmethod
    def from_json(value: Any, patience: Patience, now: float) -> Arrivals:
        """What `to_json` made.

        Args:
            value: the JSON value.
            patience: may differ from what it was.
            now: times after it, from a clock that was ahead, are taken as now.

        Raises:
            CrboostError: it is something else, or of another version.
        """
        try:
            if value["version"] != FORMAT_VERSION:
                raise CrboostError(
                    f"the watcher's state has version {value['version']}, not {FORMAT_VERSION}",
                    hint="remove the file to begin anew; everything will be reported again",
                )
            arrivals = Arrivals(str(value["ledger"]), patience)
            arrivals._number = int(value["number"])
            arrivals.pending = [Report.from_json(one) for one in value["pending"]]
            arrivals._told = {
                name: _Told(
                    SeriesState(one["state"]),
                    one["mdoc"],
                    one["digest"],
                    {movie: (size, time) for movie, (size, time) in one["movies"].items()},
                    dict(one["paths"]),
                )
                for name, one in value["told"].items()
            }
            arrivals._rejected = dict(value["rejected"])
            arrivals._files = {path: _file(one, now) for path, one in value["files"].items()}
            arrivals._latest = max((file.since for file in arrivals._files.values()), default=0.0)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CrboostError(
                f"this is no state of a watcher: {type(error).__name__} {error}",
                hint="remove the file to begin anew; everything will be reported again",
            ) from error
        return arrivals


class MovieCandidates:
    """Which files a movie's name may mean, as `MovieIndex` has it, but with all candidates."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._exact: dict[str, list[str]] = {}
        self._folded: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for path in sorted(paths):
            name = PurePath(path).name
            self._exact.setdefault(name, []).append(path)
            self._folded.setdefault(name.casefold(), []).append(path)
            self._stems.setdefault(_stem(name), []).append(path)

    def candidates(self, movie: str) -> list[str]:
        """Paths of the files that a movie's name may mean, sorted; the nearest kind of match."""
        return (
            self._exact.get(movie)
            or self._folded.get(movie.casefold())
            or self._stems.get(_stem(movie))
            or []
        )


def _stem(name: str) -> str:
    folded = name.casefold()
    for suffix in MOVIE_SUFFIXES:
        folded = folded.removesuffix(suffix) if folded.endswith(suffix) else folded
    return folded


def _names_of(path: str, name: str) -> Iterator[str]:
    """What the series of an mdoc may be called: `Position_1`, `grid2_Position_1`, ..."""
    yield name
    for directory in reversed(PurePath(path).parts[1:-1]):
        name = f"{directory}_{name}"
        yield name


def _override(name: str) -> str | None:
    if name.endswith(OVERRIDE_SUFFIX):
        return f"an edited copy of {name.removesuffix(OVERRIDE_SUFFIX)}, not the microscope's mdoc"
    return None


def _told_before(
    candidates: list[tuple[str, _File, MdocLook]], told: _Told | None
) -> tuple[str, _File, MdocLook]:
    """The mdoc that was reported, or else one with its content, or else the first."""
    if told is not None:
        for one in candidates:
            if one[0] == told.mdoc:
                return one
        for one in candidates:
            if one[2].digest == told.digest:
                return one
    return candidates[0]


def _movie_problem(file: _File) -> str | None:
    if file.size == 0:
        return "the file is empty"
    return file.look.problem if file.look is not None else None


def _changes(told: _Told, series: _Series) -> str:
    """What is new in a series since it was reported; empty for nothing."""
    late = [movie for movie in series.movies if movie not in told.movies]
    rewritten = [
        movie
        for movie, size_and_time in series.movies.items()
        if told.movies.get(movie, size_and_time) != size_and_time
    ]
    changes = ["the mdoc has changed"] if series.mdoc.digest != told.digest else []
    for what, movies in (("came", late), ("changed", rewritten)):
        if movies:
            rest = f" and {len(movies) - 3} more" if len(movies) > 3 else ""
            changes.append(f"{', '.join(movies[:3])}{rest} {what}")
    return "; ".join(changes)


def _fingerprint(digest: str, movies: Mapping[str, tuple[int, int]]) -> str:
    text = json.dumps([digest, sorted(movies.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file(value: Mapping[str, Any], now: float) -> _File:
    look = value["look"]
    found: MdocLook | MovieLook | None = None
    if look is not None and "digest" in look:
        found = MdocLook(**{**look, "movies": tuple(look["movies"])})
    elif look is not None:
        found = MovieLook(**look)
    since = min(float(value["since"]), now)
    return _File(int(value["size"]), int(value["mtime_ns"]), since, bool(value["present"]), found)
