"""What one job sees of a project's parameters: inheritance resolved, nothing left to follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from crboost.parameters.acquisition import Acquisition
from crboost.parameters.base import FieldFacts, ParameterModel, field_facts, files_of
from crboost.parameters.computing import Computing
from crboost.parameters.data import DataSources
from crboost.parameters.errors import ParameterProblemsError, Problem, problems_of, unknown
from crboost.parameters.groups import GROUPS
from crboost.parameters.job_base import JobParameters
from crboost.parameters.microscope import Microscope
from crboost.parameters.origin import Origin, Source, plain

if TYPE_CHECKING:
    from crboost.parameters.project import ProjectParameters

J = TypeVar("J", bound=JobParameters)


@dataclass(frozen=True)
class EffectiveParameters:
    """What one job sees: no value is left that only says "as in the project".

    Attributes:
        image_binning: of the images that it works on, as a multiple of the movies' pixel size; 1
            for jobs that take movies. A tilt series' own tables win over it: it is for jobs of
            which only the options are ours, and for what no table says.
    """

    node: str
    job_type: str
    data: DataSources
    microscope: Microscope
    acquisition: Acquisition
    computing: Computing
    job: JobParameters
    project: ProjectParameters = field(repr=False)
    image_binning: float = 1.0

    @property
    def image_pixel_size_angstrom(self) -> float:
        """Of the images that the job works on; the movies' one times `image_binning`."""
        # As followed values are: 0.675 * 2 is 1.35, without a rounding error.
        return round(self.microscope.pixel_size_angstrom * self.image_binning, 6)

    @property
    def image_size_px(self) -> tuple[int, int]:
        """Width and height of the images that the job works on."""
        width, height = self.acquisition.detector_dimensions_px
        return round(width / self.image_binning), round(height / self.image_binning)

    def job_as(self, model: type[J]) -> J:
        """The job's parameters as `model`.

        Raises:
            TypeError: the job is of another type.
        """
        if not isinstance(self.job, model):
            raise TypeError(f"{self.node} has {type(self.job).__name__}, not {model.__name__}")
        return self.job

    def decisive(self) -> dict[str, Any]:
        """Every value that the job's result depends on, as JSON values by name.

        The job's own fields by their name (resources left out), then the global ones that its
        type uses by their path, then which of those the user set where that matters.
        """
        model = type(self.job)
        own = self.job.model_dump(mode="json")
        values = {name: own[name] for name in own if not field_facts(model, name).resource}
        values |= {path: plain(self.value(path)) for path in sorted(model.uses)}
        users = (path for path in sorted(model.yields_to_mdoc) if self.origin(path).is_chosen)
        return values | {f"{path} set by the user": True for path in users}

    def files(self) -> tuple[str, ...]:
        """The files that the job's parameters name, absolute or relative to the project."""
        model = type(self.job)
        paths = [f"job.{name}" for name in model.model_fields] + sorted(model.uses)
        return tuple(
            dict.fromkeys(
                file
                for path in paths
                if self._facts(path).file
                for file in files_of(self.value(path))
            )
        )

    def value(self, path: str) -> Any:
        """The value at a path like "microscope.pixel_size_angstrom" or "job.rescale_angpixs"."""
        group, name = self._find(path)
        return getattr(group, name)

    def origin(self, path: str) -> Origin:
        """Where the value at `path` came from; followed values name what they follow."""
        group, name = self._find(path)
        full = f"jobs.{self.node}.{name}" if group is self.job else path
        own = self.project.origin(full)
        follows = field_facts(type(group), name).follows
        if not follows or self.project.value(full) is not None:
            return own
        origins = [self.project.origin(each) for each in follows]
        source: Source = "default"
        weights: tuple[Source, ...] = ("mdoc", "preset", "user")
        for each in weights:
            if any(origin.source == each for origin in origins):
                source = each
        told = [
            f"{each} ({origin})" if origin.source != "default" else each
            for each, origin in zip(follows, origins, strict=True)
        ]
        return Origin(source=source, detail="follows " + " × ".join(told))

    def _facts(self, path: str) -> FieldFacts:
        group, name = self._find(path)
        return field_facts(type(group), name)

    def _find(self, path: str) -> tuple[ParameterModel, str]:
        head, _, name = path.rpartition(".")
        group: ParameterModel | None = None
        if head in GROUPS:
            group = getattr(self, head)
        elif head in ("job", f"jobs.{self.node}"):
            group = self.job
        if group is None or name not in type(group).model_fields:
            known = [
                *self.project.paths(),
                *(f"job.{each}" for each in type(self.job).model_fields),
            ]
            raise ParameterProblemsError([unknown(path, known)])
        return group, name


def resolve_acquisition(project: ProjectParameters) -> Acquisition:
    updates = {
        name: _followed(project, facts.follows)
        for name in Acquisition.model_fields
        if (facts := field_facts(Acquisition, name)).follows
        and getattr(project.acquisition, name) is None
    }
    return project.acquisition.model_copy(update=updates)


def resolve_job(
    project: ProjectParameters, node: str, job: JobParameters
) -> tuple[JobParameters | None, list[Problem]]:
    """`job` with followed values filled in, or the reasons why they do not fit."""
    model = type(job)
    follows = {
        name: facts.follows
        for name in model.model_fields
        if (facts := field_facts(model, name)).follows and getattr(job, name) is None
    }
    if not follows:
        return job, []
    values = {name: _followed(project, paths) for name, paths in follows.items()}
    try:
        return model.model_validate({**job.model_dump(), **values}), []
    except ValidationError as error:
        problems = problems_of(error, GROUPS, prefix=("jobs", node))
        return None, [_explain(problem, follows) for problem in problems]


def _explain(problem: Problem, follows: Mapping[str, tuple[str, ...]]) -> Problem:
    """`problem` of a followed value, saying where the value comes from."""
    paths = follows.get(problem.path.rpartition(".")[2])
    if paths is None:
        return problem
    text = f"{problem.text} (it is {' × '.join(paths)})"
    return Problem(problem.path, text, f"set {problem.path}, or change {' or '.join(paths)}")


def _followed(project: ProjectParameters, paths: tuple[str, ...]) -> Any:
    values = [project.value(path) for path in paths]
    if len(values) == 1:
        return values[0]
    # 6 decimals: 1.35 * 4 is 5.4, not 5.4 and a rounding error; 1e-6 Å is below any calibration.
    return round(math.prod(values), 6)
