"""Whether a tilt series is all there: its mdoc finished and every movie in place.

Pure: what is on disk is passed in. How long to wait for the rest is the watcher's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from crboost.acquisition.tilt_series import TiltAcquisition, TiltSeriesAcquisition


class CompletenessState(StrEnum):
    """The first of these that is true."""

    INCOMPLETE_MDOC = "incomplete mdoc"
    MISSING_MOVIES = "missing movies"
    PARTIAL = "partial"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is there of a tilt series.

    Args:
        state: `partial` means that mdoc and movies agree, but that there are fewer tilts than
            expected.
        usable: tilts with a movie that can be used.
        missing: tilts without a movie.
        broken: movie name -> why it cannot be used (empty, truncated).
        reasons: what keeps it from being complete, in words.
    """

    state: CompletenessState
    usable: tuple[TiltAcquisition, ...]
    missing: tuple[TiltAcquisition, ...]
    broken: Mapping[str, str]
    reasons: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return self.state is CompletenessState.COMPLETE


def assess(
    series: TiltSeriesAcquisition,
    movies: Mapping[str, int],
    *,
    problems: Mapping[str, str] | None = None,
    expected_tilts: int | None = None,
) -> Completeness:
    """Compare a tilt series with the movies that are there.

    Args:
        series: what the mdoc tells.
        movies: names of the movies present (as in `TiltAcquisition.movie_name`, upper and lower
            case aside) and their sizes in bytes; size 0 is a file that was only created.
        problems: movie name -> why it cannot be used, from `inspect_movie`.
        expected_tilts: how many tilts there should be, if known, such as from other series.
    """
    sizes = {name.casefold(): size for name, size in movies.items()}
    told = {name.casefold(): problem for name, problem in (problems or {}).items()}
    usable: list[TiltAcquisition] = []
    missing: list[TiltAcquisition] = []
    broken: dict[str, str] = {}
    for tilt in series.tilts:
        name = tilt.movie_name.casefold()
        if name not in sizes:
            missing.append(tilt)
        elif name in told:
            broken[tilt.movie_name] = told[name]
        elif sizes[name] == 0:
            broken[tilt.movie_name] = "the file is empty"
        else:
            usable.append(tilt)

    reasons = [series.incomplete] if series.incomplete else []
    reasons += [
        f"tilt {tilt.z_value} ({tilt.tilt_angle_deg:.1f} deg): movie {tilt.movie_name} is missing"
        for tilt in missing
    ]
    reasons += [f"movie {name}: {problem}" for name, problem in broken.items()]
    short = expected_tilts is not None and len(series.tilts) < expected_tilts
    if short:
        reasons.append(f"{len(series.tilts)} tilts of {expected_tilts}")

    if series.incomplete:
        state = CompletenessState.INCOMPLETE_MDOC
    elif missing or broken:
        state = CompletenessState.MISSING_MOVIES
    elif short:
        state = CompletenessState.PARTIAL
    else:
        state = CompletenessState.COMPLETE
    return Completeness(state, tuple(usable), tuple(missing), broken, tuple(reasons))
