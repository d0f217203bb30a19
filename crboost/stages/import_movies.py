"""importmovies: mdocs and movies of the project become RELION's import tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.acquisition.movies import MovieFile, MovieIndex, find_movies, inspect_movie
from crboost.acquisition.tilt_series import (
    TiltSeriesAcquisition,
    read_tilt_series,
    series_name,
)
from crboost.builders.step import Step
from crboost.errors import CrboostError
from crboost.results import fingerprint_of
from crboost.stages.base import Context, SeriesInput
from crboost.tilt_name import plain_name
from crboost.translate.acquisition import import_output
from crboost.translate.output import SeriesOutput

FRAMES = "frames"
MDOCS = "mdoc"


@dataclass(frozen=True)
class FoundSeries:
    """A tilt series as it lies in the project directory.

    Attributes:
        acquisition: what its mdoc says; None when the mdoc cannot be used, see `problem`.
        movies: movie name in the mdoc -> its link in the project.
        fingerprint: of the mdoc's content and the movies' names and sizes.
    """

    name: str
    acquisition: TiltSeriesAcquisition | None
    movies: Mapping[str, Path]
    fingerprint: str
    problem: str | None = None


def find_series(project: Path) -> dict[str, FoundSeries]:
    """Every tilt series whose mdoc lies in the project, by name, in name order.

    Movie headers are not read here: the plan asks this question and must answer at once.
    """
    index = MovieIndex(find_movies([project / FRAMES]))
    found: dict[str, FoundSeries] = {}
    for path in sorted((project / MDOCS).glob("*.mdoc")):
        name = plain_name(series_name(path))
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        try:
            acquisition = read_tilt_series(path)
            movies = {
                tilt.movie_name: movie
                for tilt in acquisition.tilts
                if (movie := index.find(plain_name(tilt.movie_name))) is not None
            }
        except CrboostError as error:
            found[name] = FoundSeries(name, None, {}, fingerprint_of(content), str(error))
            continue
        sizes = sorted((movie, path.stat().st_size) for movie, path in movies.items())
        found[name] = FoundSeries(name, acquisition, movies, fingerprint_of([content, sizes]))
    return found


class ImportMovies:
    """The import needs no tool: it reads mdocs and movie headers."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The project's tilt series; `do_at_most` takes the first ones by name."""
        from crboost.parameters import ImportMovies as Parameters

        at_most = context.parameters.job_as(Parameters).do_at_most
        found = list(find_series(context.project).values())
        chosen = found if at_most < 0 else found[:at_most]
        return {
            one.name: SeriesInput(
                one.name, one.fingerprint, {}, [], problem=one.problem, source=one
            )
            for one in chosen
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
