"""All parameters of a project, where each value came from, and what one job sees of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from crboost import files
from crboost.errors import ParameterError
from crboost.parameters.acquisition import Acquisition
from crboost.parameters.base import ParameterModel, field_facts, plain_type
from crboost.parameters.computing import Computing
from crboost.parameters.data import DataSources
from crboost.parameters.errors import ParameterProblemsError, Problem, problems_of, unknown
from crboost.parameters.jobs import JOB_MODELS, JobParameters, job_type_of, unused_by_tool
from crboost.parameters.microscope import Microscope

SCHEMA_VERSION: Literal[1] = 1
GROUPS: dict[str, type[ParameterModel]] = {
    "data": DataSources,
    "microscope": Microscope,
    "acquisition": Acquisition,
    "computing": Computing,
}
"""The global groups, in the order of the file."""

J = TypeVar("J", bound=JobParameters)
Source = Literal["default", "mdoc", "user"]


class Origin(BaseModel):
    """Where a value came from.

    `value` is the value that it had then: a value that was edited in the file since is the
    user's, whatever is recorded here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Source
    detail: str = ""
    value: Any = None

    def __str__(self) -> str:
        return f"{self.source} ({self.detail})" if self.detail else self.source


BY_HAND = "edited in the file"


class ProjectParameters(ParameterModel):
    """The parameters of one project, as `project_params.json` holds them.

    Raises:
        ParameterError: a value that a job would take from the project is outside that job's
            bounds. (Direct construction raises pydantic's ValidationError for anything else;
            `load` and `with_values` raise ParameterError only.)
    """

    schema_version: Literal[1] = Field(
        SCHEMA_VERSION, title="Version", description="Version of this file's format."
    )
    project_name: str = Field(
        title="Project name", description="What people call the project.", min_length=1
    )
    created: AwareDatetime = Field(
        title="Created", description="When the project was created (ISO 8601, with time zone)."
    )
    data: DataSources = Field(default_factory=DataSources, title="Data")
    microscope: Microscope = Field(default_factory=Microscope, title="Microscope")
    acquisition: Acquisition = Field(default_factory=Acquisition, title="Acquisition")
    computing: Computing = Field(default_factory=Computing, title="Computing")
    jobs: dict[str, SerializeAsAny[JobParameters]] = Field(
        default_factory=dict,
        title="Jobs",
        description="Parameters of each job: `tsAlignment`, `tsAlignment__2`, ...",
    )
    origins: dict[str, Origin] = Field(
        default_factory=dict,
        title="Origins",
        description="Where values came from that are no defaults; kept by crboost.",
    )

    @field_validator("jobs", mode="before")
    @classmethod
    def _model_of_each_job(cls, value: Any) -> Any:
        """The name of a job decides its model; errors keep the job's name in their location."""
        if not isinstance(value, Mapping):
            return value
        jobs: dict[str, Any] = {}
        wrong: list[InitErrorDetails] = []
        for node, job in value.items():
            try:
                model = JOB_MODELS[job_type_of(str(node))]
                if isinstance(job, JobParameters) and type(job) is not model:
                    raise ParameterError(f"{node}: needs {model.__name__} parameters")
                jobs[node] = job if isinstance(job, model) else model.model_validate(job)
            except ParameterError as error:
                told = error.message.removeprefix(f"{node}: ")
                problem = ValueError(f"{told} ({error.hint})" if error.hint else told)
                wrong.append(
                    InitErrorDetails(
                        type="value_error", loc=(node,), input={}, ctx={"error": problem}
                    )
                )
            except ValidationError as error:
                wrong.extend(
                    InitErrorDetails(
                        type=each["type"],
                        loc=(node, *each["loc"]),
                        input=each["input"],
                        ctx=each.get("ctx", {}),
                    )
                    for each in error.errors(include_url=False)
                )
        if wrong:
            raise ValidationError.from_exception_data("jobs", wrong)
        return jobs

    @model_validator(mode="after")
    def _followed_values_fit(self) -> ProjectParameters:
        """A global value must not push a job that follows it out of the job's own bounds."""
        problems: list[Problem] = []
        for node, job in self.jobs.items():
            problems.extend(_resolve_job(self, node, job)[1])
        if problems:
            raise ParameterProblemsError(problems)
        return self

    @classmethod
    def new(
        cls,
        project_name: str,
        created: datetime,
        *,
        jobs: Iterable[str] = tuple(JOB_MODELS),
    ) -> ProjectParameters:
        """A project with every parameter at its default.

        Args:
            project_name: what people call it.
            created: when it was created, with time zone.
            jobs: the nodes to have parameters of.
        """
        return cls.load(
            {
                "project_name": project_name,
                "created": created,
                "jobs": {node: {} for node in jobs},
            }
        )

    @classmethod
    def load(cls, raw: Any, *, where: str | None = None) -> ProjectParameters:
        """The parameters in `raw`, the content of a `project_params.json`.

        Origins of parameters that no longer exist (a job that was taken out) are dropped.

        Args:
            raw: what the JSON file holds, or `dump()` returned.
            where: the file's name, for messages.

        Raises:
            ParameterError: lists every unknown name and every value that is not allowed.
        """
        if not isinstance(raw, Mapping):
            raise ParameterProblemsError(
                [Problem("parameters", ": must be an object, { ... }")], where=where
            )
        version = raw.get("schema_version", SCHEMA_VERSION)
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ParameterProblemsError(
                [
                    Problem(
                        "schema_version",
                        f" = {version}: written by a newer crboost; this one reads up to "
                        f"{SCHEMA_VERSION}",
                    )
                ],
                where=where,
            )
        try:
            loaded = cls.model_validate(raw)
        except ValidationError as error:
            raise ParameterProblemsError(problems_of(error, GROUPS), where=where) from None
        except ParameterProblemsError as error:
            raise ParameterProblemsError(error.problems, where=where) from None
        known = set(loaded.paths())
        kept = {path: origin for path, origin in loaded.origins.items() if path in known}
        return loaded.model_copy(update={"origins": kept})

    def dump(self) -> dict[str, Any]:
        """Everything as JSON values; `load` is its inverse."""
        return self.model_dump(mode="json")

    # -- single values --------------------------------------------------------------------

    def paths(self) -> list[str]:
        """The dotted path of every parameter, in the order of the file."""
        found = [
            f"{group}.{name}" for group, model in GROUPS.items() for name in model.model_fields
        ]
        for node, job in self.jobs.items():
            found.extend(f"jobs.{node}.{name}" for name in type(job).model_fields)
        return found

    def value(self, path: str) -> Any:
        """The value at `path`, None where it follows another parameter.

        Raises:
            ParameterError: no such parameter.
        """
        group, name = self._find(path)
        return getattr(group, name)

    def origin(self, path: str) -> Origin:
        """Where the value at `path` came from.

        A value that differs from the default, or from what its recorded origin wrote, was
        edited in the file: it is the user's.

        Raises:
            ParameterError: no such parameter.
        """
        group, name = self._find(path)
        value = _plain(getattr(group, name))
        recorded = self.origins.get(path)
        if recorded is not None:
            if recorded.source != "default" and recorded.value == value:
                return recorded
            if recorded.source != "default":
                return Origin(source="user", detail=BY_HAND, value=value)
        if value == _plain(field_facts(type(group), name).default):
            return Origin(source="default", value=value)
        return Origin(source="user", detail=BY_HAND, value=value)

    def _find(self, path: str) -> tuple[ParameterModel, str]:
        head, _, name = path.rpartition(".")
        group: ParameterModel | None = None
        if head in GROUPS:
            group = getattr(self, head)
        elif head.startswith("jobs."):
            group = self.jobs.get(head.removeprefix("jobs."))
        if group is None or name not in type(group).model_fields:
            raise ParameterProblemsError([unknown(path, self.paths())])
        return group, name

    # -- changes --------------------------------------------------------------------------

    def with_job(self, node: str) -> ProjectParameters:
        """These parameters with those of `node`, at their defaults where it is new.

        Raises:
            ParameterError: no such job type.
        """
        if node in self.jobs:
            return self
        return ProjectParameters.load({**self.dump(), "jobs": {**self.dump()["jobs"], node: {}}})

    def with_values(
        self, changes: Mapping[str, Any], *, source: Source = "user", detail: str = ""
    ) -> ProjectParameters:
        """These parameters with `changes` made: all of them, or none.

        Args:
            changes: value by path. Text is read as the field's type wants it ("1.35", "true",
                "4096x4096", JSON). A mapping at the path of a group or job sets its members.
                None, "none", "null" and "default" bring back the default. A job that has no
                parameters yet gets them.
            source: who says so.
            detail: where exactly: "TS_01.mdoc: PixelSpacing".

        Raises:
            ParameterError: lists every unknown path and every value that is not allowed.
        """
        raw = self.dump()
        problems: list[Problem] = []
        touched: dict[str, bool] = {}
        for path, value in _leaf_changes(changes, self):
            try:
                container, name, model = _place(raw, path, self)
            except ParameterProblemsError as error:
                problems.extend(error.problems)
                continue
            except ParameterError as error:
                problems.append(Problem(path, f": {error.message}", error.hint))
                continue
            restore = _is_default(value)
            if restore:
                container.pop(name, None)
            else:
                kind = plain_type(model.model_fields[name].annotation)
                container[name] = _from_text(value, kind) if isinstance(value, str) else value
            touched[path] = not restore
        if problems:
            problems.extend(_problems_in(raw))
            raise ParameterProblemsError(problems)
        changed = ProjectParameters.load(raw)
        origins = dict(changed.origins)
        for path, is_set in touched.items():
            origins.pop(path, None)
            if is_set and source != "default":
                value = _plain(changed.value(path))
                origins[path] = Origin(source=source, detail=detail, value=value)
        return changed.model_copy(update={"origins": origins})

    # -- what a job sees ------------------------------------------------------------------

    def effective(self, node: str) -> EffectiveParameters:
        """Everything that job `node` sees, with every followed value filled in.

        A node without parameters of its own has its job type's defaults.

        Raises:
            ParameterError: no such job type, or a followed value is outside the job's bounds.
        """
        job_type = job_type_of(node)
        job = self.jobs.get(node) or JOB_MODELS[job_type]()
        resolved, problems = _resolve_job(self, node, job)
        if resolved is None:
            raise ParameterProblemsError(problems)
        return EffectiveParameters(
            node=node,
            job_type=job_type,
            data=self.data,
            microscope=self.microscope,
            acquisition=_resolve_acquisition(self),
            computing=self.computing,
            job=resolved,
            project=self if node in self.jobs else self.with_job(node),
        )

    def fingerprint(self, node: str) -> str:
        """16 hexadecimal digits that change when, and only when, the job's result may change.

        Made of job type, tool, the job's own values (those it follows included, resources left
        out) and the global values that its type uses.

        Raises:
            ParameterError: as `effective`.
        """
        seen = self.effective(node)
        parts = {"type": seen.job_type, "values": seen.decisive()}
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def warnings(self) -> list[str]:
        """What is allowed, but unusual or without effect; one sentence each."""
        found = self.microscope.warnings()
        for node, job in self.jobs.items():
            for name in unused_by_tool(job):
                default = field_facts(type(job), name).default
                if getattr(job, name) != default:
                    found.append(f"jobs.{node}.{name}: the tool {job.tool} does not use it")
        return found


@dataclass(frozen=True)
class EffectiveParameters:
    """What one job sees: no value is left that only says "as in the project"."""

    node: str
    job_type: str
    data: DataSources
    microscope: Microscope
    acquisition: Acquisition
    computing: Computing
    job: JobParameters
    project: ProjectParameters = field(repr=False)

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
        type uses by their path.
        """
        model = type(self.job)
        own = self.job.model_dump(mode="json")
        values = {name: own[name] for name in own if not field_facts(model, name).resource}
        return values | {path: _plain(self.value(path)) for path in sorted(model.uses)}

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
        for each in ("mdoc", "user"):
            if any(origin.source == each for origin in origins):
                source = "user" if each == "user" else "mdoc"
        told = [
            f"{each} ({origin})" if origin.source != "default" else each
            for each, origin in zip(follows, origins, strict=True)
        ]
        return Origin(source=source, detail="follows " + " × ".join(told))

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


def read_parameters(path: Path) -> ProjectParameters:
    """Read a `project_params.json`.

    Raises:
        ParameterError: no such file, or it holds names or values that are not allowed; all of
            them are listed.
        FileFormatError: it is not JSON; names the line.
    """
    try:
        raw = files.read_json(path)
    except FileNotFoundError:
        raise ParameterError(
            f"{path}: no such file", hint="`crboost init` creates a project with its parameters"
        ) from None
    return ProjectParameters.load(raw, where=str(path))


def write_parameters(path: Path, parameters: ProjectParameters) -> None:
    """Write `parameters` to `path`, whole or not at all."""
    files.write_json(path, parameters.dump())


def _resolve_acquisition(project: ProjectParameters) -> Acquisition:
    updates = {
        name: _followed(project, facts.follows)
        for name in Acquisition.model_fields
        if (facts := field_facts(Acquisition, name)).follows
        and getattr(project.acquisition, name) is None
    }
    return project.acquisition.model_copy(update=updates)


def _resolve_job(
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


def _leaf_changes(
    changes: Mapping[str, Any], project: ProjectParameters
) -> Iterable[tuple[str, Any]]:
    """`changes` with every mapping (or JSON object) taken apart into its members."""
    for path, value in changes.items():
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError:
                yield path, value
                continue
        if isinstance(value, Mapping):
            yield from _leaf_changes(
                {f"{path}.{key}": each for key, each in value.items()}, project
            )
        elif _is_default(value) and _members(path, project):
            yield from ((f"{path}.{name}", None) for name in _members(path, project))
        else:
            yield path, value


def _is_default(value: Any) -> bool:
    """Whether `value` asks for the default to come back."""
    if isinstance(value, str):
        return value.strip().lower() in ("none", "null", "default")
    return value is None


def _members(path: str, project: ProjectParameters) -> list[str]:
    """The names of the parameters in group or job `path`; none for anything else."""
    if path in GROUPS:
        return list(GROUPS[path].model_fields)
    job = project.jobs.get(path.removeprefix("jobs.")) if path.startswith("jobs.") else None
    return [] if job is None else list(type(job).model_fields)


def _place(
    raw: dict[str, Any], path: str, project: ProjectParameters
) -> tuple[dict[str, Any], str, type[ParameterModel]]:
    """The dictionary in `raw` that holds `path`, the key in it, and the model that it is of."""
    head, _, name = path.rpartition(".")
    if head in GROUPS:
        container, model = raw[head], GROUPS[head]
    elif head.startswith("jobs."):
        node = head.removeprefix("jobs.")
        model = JOB_MODELS[job_type_of(node)]
        if name in model.model_fields:
            raw["jobs"].setdefault(node, {})
        container = raw["jobs"].get(node, {})
    else:
        known = [*project.paths(), *(f"jobs.{node}" for node in JOB_MODELS)]
        raise ParameterProblemsError([unknown(path, known)])
    if name not in model.model_fields:
        raise ParameterProblemsError(
            [unknown(path, [f"{head}.{each}" for each in model.model_fields])]
        )
    return container, name, model


def _problems_in(raw: dict[str, Any]) -> list[Problem]:
    """What is wrong with `raw` itself, when something else is wrong already."""
    try:
        ProjectParameters.model_validate(raw)
    except ValidationError as error:
        return problems_of(error, GROUPS)
    except ParameterProblemsError as error:
        return list(error.problems)
    return []


def _from_text(text: str, kind: Any) -> Any:
    """`text` as a value that a field of type `kind` may be set to; pydantic does the rest."""
    origin = getattr(kind, "__origin__", kind)
    if origin is list:
        if text.lstrip().startswith("["):
            try:
                return json.loads(text)
            except ValueError:
                return [text]  # a glob pattern may begin with a bracket
        return [text]
    if kind is str and len(text) > 1 and text.startswith('"') and text.endswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text.strip()


def _plain(value: Any) -> Any:
    """`value` as JSON would give it back."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
