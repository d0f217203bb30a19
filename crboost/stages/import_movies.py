"""importmovies: mdocs and movies of the project become RELION's import tables."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.acquisition.movies import MovieFile, MovieIndex, find_movies, inspect_movie
from crboost.acquisition.taken import SeriesIntake, read_intake
from crboost.acquisition.tilt_series import (
    TiltSeriesAcquisition,
    read_tilt_series,
    series_name,
)
from crboost.builders.step import Step
from crboost.errors import CrboostError
from crboost.parameters import EffectiveParameters
from crboost.parameters import ImportMovies as Parameters
from crboost.raw_data import FRAMES, MDOCS, RawSeries, raw_series
from crboost.results import fingerprint_of
from crboost.stages.base import Context, SeriesInput
from crboost.tilt_name import plain_name
from crboost.translate.acquisition import import_output
from crboost.translate.output import SeriesOutput


@dataclass(frozen=True)
class FoundSeries:
    """A tilt series as it lies in the project directory.

    Attributes:
        acquisition: what its mdoc says; None when the mdoc cannot be used, see `problem`.
        movies: movie name in the mdoc -> its link in the project.
    """

    name: str
    acquisition: TiltSeriesAcquisition | None
    movies: Mapping[str, Path]
    problem: str | None = None


def series_fingerprints(project: Path) -> dict[str, str]:
    """Tilt series -> fingerprint of its mdoc's content and of its movies' names and sizes.

    A series of a session keeps the one that it was taken in with while it grows again, and when
    its raw data have been cleared away: neither is a reason to do it again.
    """
    taken = read_intake(project)
    return {name: _fingerprint(raw, taken.get(name)) for name, raw in raw_series(project).items()}


def _fingerprint(raw: RawSeries, taken: SeriesIntake | None) -> str:
    if taken is None:
        return raw.fingerprint
    kept = taken.content and (raw.cleared or taken.state == "reopened")
    content = taken.content if kept else raw.fingerprint
    # A movie that is mended without a change of its size makes another series of it.
    return fingerprint_of([content, taken.broken]) if taken.broken else content


def find_series(project: Path, names: Container[str]) -> dict[str, FoundSeries]:
    """The tilt series called `names`, with what their mdocs say and where their movies are."""
    index = MovieIndex(find_movies([project / FRAMES]))
    found: dict[str, FoundSeries] = {}
    for path in sorted((project / MDOCS).glob("*.mdoc")):
        name = plain_name(series_name(path))
        if name not in names:
            continue
        try:
            acquisition = read_tilt_series(path)
            movies = {
                tilt.movie_name: movie
                for tilt in acquisition.tilts
                if (movie := index.find(plain_name(tilt.movie_name))) is not None
            }
        except CrboostError as error:
            found[name] = FoundSeries(name, None, {}, str(error))
            continue
        except OSError as error:
            problem = f"{path.resolve()} cannot be read: {error.strerror or error}"
            found[name] = FoundSeries(name, None, {}, problem)
            continue
        found[name] = FoundSeries(name, acquisition, movies)
    return found


def available_series(project: Path, parameters: EffectiveParameters) -> dict[str, str]:
    """What an import with these parameters would take: tilt series -> fingerprint."""
    at_most = parameters.job_as(Parameters).do_at_most
    every = series_fingerprints(project)
    return every if at_most < 0 else dict(list(every.items())[:at_most])


def taken_as(taken: SeriesIntake | None) -> tuple[str, ...]:
    """A warning on a series that came to an end before it was complete. Pure.

    Movies that are missing have a warning each from the import itself.
    """
    if taken is None or taken.state != "partial":
        return ()
    missing = {f"movie {movie} is missing" for movie in taken.missing}
    others = [reason for reason in taken.reasons if reason not in missing]
    text = f"partial: {taken.usable} of {taken.tilts} tilts were there"
    return ("; ".join([text, *others]),)


class ImportMovies:
    """The import needs no tool: it reads mdocs and movie headers."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The project's tilt series; `do_at_most` takes the first ones by name."""
        fingerprints = available_series(context.project, context.parameters)
        found = find_series(context.project, fingerprints)
        taken = read_intake(context.project)
        return {
            name: SeriesInput(
                name,
                fingerprint,
                {},
                [],
                warnings=taken_as(taken.get(name)),
                problem=found[name].problem,
                source=found[name],
            )
            for name, fingerprint in fingerprints.items()
        }

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """None."""
        return []

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Read the movies' headers and make the table."""
        one: FoundSeries = series.source
        assert one.acquisition is not None
        movies: dict[str, MovieFile] = {
            name: inspect_movie(path) for name, path in one.movies.items()
        }
        paths = {name: f"{FRAMES}/{path.name}" for name, path in one.movies.items()}
        return import_output(series.name, one.acquisition, movies, paths, context.parameters)
