"""A microscope that writes a recorded session again, movie by movie, as if it were being taken.

For tests and demonstrations of what watches a microscope: movies grow in pieces, the mdoc grows
with every tilt, and things go wrong as they do: a movie comes late or never, a series breaks off.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.acquisition.tilt_series import TiltSeriesAcquisition, read_tilt_series
from crboost.errors import ParameterError

_ZVALUE = re.compile(rb"^\[ZValue\s*=\s*(-?\d+)\s*\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the microscope takes, in seconds of the session.

    Args:
        tilt_seconds: from one tilt to the next.
        series_seconds: from the last tilt of a series to the first of the next one.
        write_seconds: for writing a movie; the mdoc names it at the beginning.
        pieces: in how many pieces a movie is written.

    Raises:
        ParameterError: a number is out of its bounds.
    """

    tilt_seconds: float = 30.0
    series_seconds: float = 120.0
    write_seconds: float = 5.0
    pieces: int = 3

    def __post_init__(self) -> None:
        if self.tilt_seconds <= 0 or self.series_seconds < 0 or self.write_seconds < 0:
            raise ParameterError(
                f"a microscope takes some time: tilt_seconds {self.tilt_seconds}, series_seconds "
                f"{self.series_seconds}, write_seconds {self.write_seconds}"
            )
        if self.pieces < 1:
            raise ParameterError(f"pieces is {self.pieces}; it must be 1 or more")


@dataclass(frozen=True, slots=True)
class Mishaps:
    """What goes wrong.

    Args:
        late_movies: movie -> seconds after the end of the session at which it comes.
        lost_movies: movies that never come.
        interrupted: tilt series -> tilts after which it breaks off.
    """

    late_movies: dict[str, float]
    lost_movies: frozenset[str]
    interrupted: dict[str, int]

    @staticmethod
    def none() -> Mishaps:
        """All goes well."""
        return Mishaps({}, frozenset(), {})


@dataclass(frozen=True, slots=True)
class Append:
    """One thing that the microscope does: append `data` to a file.

    Args:
        at_seconds: since the beginning of the session.
        target: the file, relative to the directory that is written to.
        source: copy bytes `start` to `stop` of this file, or
        data: these bytes.
    """

    at_seconds: float
    target: Path
    source: Path | None = None
    start: int = 0
    stop: int = 0
    data: bytes = b""


def schedule(
    mdocs: Iterable[Path], frames: Path, pace: Pace | None = None, mishaps: Mishaps | None = None
) -> list[Append]:
    """What the microscope does and when, in order; tilts come in the order of acquisition.

    Args:
        mdocs: of the recorded tilt series, in the order in which they are to be taken.
        frames: directory of the recorded movies; those that are not there are not written.
        pace: how long things take.
        mishaps: what goes wrong.

    Raises:
        FileFormatError: an mdoc cannot be read.
        ParameterError: a mishap names a movie or a tilt series that is not there.
    """
    pace, mishaps = pace or Pace(), mishaps or Mishaps.none()
    recorded = [read_tilt_series(path) for path in mdocs]
    _check(mishaps, recorded)
    actions: list[Append] = []
    at = 0.0
    late: list[tuple[float, Path]] = []
    for series in recorded:
        header, sections = _parts(series.mdoc_path)
        target = Path(series.mdoc_path.name)
        actions.append(Append(at, target, data=header))
        for tilt in series.tilts[: mishaps.interrupted.get(series.name)]:
            actions.append(Append(at, target, data=sections[tilt.z_value]))
            movie = frames / tilt.movie_name
            if tilt.movie_name in mishaps.late_movies:
                late.append((mishaps.late_movies[tilt.movie_name], movie))
            elif tilt.movie_name not in mishaps.lost_movies and movie.is_file():
                actions += _movie(movie, at, pace)
            at += pace.tilt_seconds
        at += pace.series_seconds
    for delay, movie in late:
        if movie.is_file():
            actions += _movie(movie, at + delay, pace)
    return sorted(actions, key=lambda action: action.at_seconds)


def run(
    actions: Sequence[Append],
    directory: Path,
    *,
    speed: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Write a session to a directory: mdocs into it, movies into its `frames`.

    Args:
        actions: from `schedule`.
        directory: created if it is not there.
        speed: how many times faster than the session was.
        sleep, clock: another time.

    Raises:
        ParameterError: the speed is not positive.
    """
    if not speed > 0:
        raise ParameterError(f"speed is {speed}; it must be more than 0")
    directory.mkdir(parents=True, exist_ok=True)
    began = clock()
    for action in actions:
        wait = began + action.at_seconds / speed - clock()
        if wait > 0:
            sleep(wait)
        perform(action, directory)


def perform(action: Append, directory: Path) -> None:
    """Do one thing; nothing is atomic, as with a microscope."""
    target = directory / action.target
    target.parent.mkdir(parents=True, exist_ok=True)
    data = action.data
    if action.source is not None:
        with action.source.open("rb") as source:
            source.seek(action.start)
            data = source.read(action.stop - action.start)
    with target.open("ab") as stream:
        stream.write(data)


def _movie(movie: Path, at_seconds: float, pace: Pace) -> Iterator[Append]:
    size = movie.stat().st_size
    for piece in range(pace.pieces):
        yield Append(
            at_seconds + pace.write_seconds * (piece + 1) / pace.pieces,
            Path("frames") / movie.name,
            source=movie,
            start=size * piece // pace.pieces,
            stop=size * (piece + 1) // pace.pieces,
        )


def _parts(mdoc: Path) -> tuple[bytes, dict[int, bytes]]:
    """The lines before the first image, and the lines of each image by its ZValue."""
    data = mdoc.read_bytes()
    starts = list(_ZVALUE.finditer(data))
    ends = [match.start() for match in starts[1:]] + [len(data)]
    sections = {
        int(match[1]): data[match.start() : end] for match, end in zip(starts, ends, strict=True)
    }
    return data[: starts[0].start()], sections


def _check(mishaps: Mishaps, recorded: Sequence[TiltSeriesAcquisition]) -> None:
    movies = {tilt.movie_name for series in recorded for tilt in series.tilts}
    names = {series.name for series in recorded}
    for movie in (*mishaps.late_movies, *mishaps.lost_movies):
        if movie not in movies:
            raise ParameterError(f"no tilt series has a movie {movie}")
    for name, tilts in mishaps.interrupted.items():
        if name not in names:
            raise ParameterError(f"there is no tilt series {name}: {', '.join(sorted(names))}")
        if tilts < 1:
            raise ParameterError(f"{name} cannot break off after {tilts} tilts")
