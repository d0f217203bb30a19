"""Where the raw data are. They are linked into a project, never copied and never written to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from crboost.parameters.base import ParameterModel, field


def _no_empty_pattern(patterns: list[str]) -> list[str]:
    if any(not pattern.strip() for pattern in patterns):
        raise ValueError('a pattern is empty; write something like "/data/session/*.eer"')
    return patterns


Patterns = Annotated[list[str], AfterValidator(_no_empty_pattern)]


class DataSources(ParameterModel):
    """The files that the microscope wrote, as glob patterns."""

    movies: Patterns = field(
        [], title="Movies", description="Glob patterns of the movie files of all tilt series."
    )
    mdocs: Patterns = field(
        [], title="Mdocs", description="Glob patterns of the mdoc files, one for each tilt series."
    )
    gain_reference: str | None = field(
        None,
        title="Gain reference",
        description="The camera's gain reference file.",
        file=True,
    )
