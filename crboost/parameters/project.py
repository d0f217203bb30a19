"""All parameters of a project, where each value came from, and what one job sees of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    AwareDatetime,
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
from crboost.parameters.base import ParameterModel, field_facts, files_of, plain_type
from crboost.parameters.changes import from_text, is_default, leaf_changes, place
from crboost.parameters.computing import Computing
from crboost.parameters.data import DataSources
from crboost.parameters.effective import EffectiveParameters, resolve_acquisition, resolve_job
from crboost.parameters.errors import ParameterProblemsError, Problem, problems_of, unknown
from crboost.parameters.groups import GROUPS, paths_of
from crboost.parameters.image_binning import image_binning
from crboost.parameters.job_base import JobParameters
from crboost.parameters.jobs import (
    DEFAULT_JOBS,
    JOB_MODELS,
    job_type_of,
    unused_by_tool,
)
from crboost.parameters.microscope import Microscope
from crboost.parameters.origin import BY_HAND, Origin, Source, plain

SCHEMA_VERSION: Literal[1] = 1


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
            problems.extend(resolve_job(self, node, job)[1])
        if problems:
            raise ParameterProblemsError(problems)
        return self

    @classmethod
    def new(
        cls,
        project_name: str,
        created: datetime,
        *,
        jobs: Iterable[str] = DEFAULT_JOBS,
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
        return paths_of(self.jobs)

    def value(self, path: str) -> Any:
        """The value at `path`, None where it follows another parameter.

        Raises:
            ParameterError: no such parameter.
        """
        group, name = self._find(path)
        return getattr(group, name)

    def files(self) -> tuple[str, ...]:
        """The files that the parameters name, of all jobs; absolute or relative to the project."""
        found: dict[str, None] = {}
        for path in self.paths():
            group, name = self._find(path)
            if field_facts(type(group), name).file:
                found |= dict.fromkeys(files_of(getattr(group, name)))
        return tuple(found)

    def origin(self, path: str) -> Origin:
        """Where the value at `path` came from.

        A value that differs from the default, or from what its recorded origin wrote, was
        edited in the file: it is the user's.

        Raises:
            ParameterError: no such parameter.
        """
        group, name = self._find(path)
        value = plain(getattr(group, name))
        recorded = self.origins.get(path)
        if recorded is not None:
            if recorded.source != "default" and recorded.value == value:
                return recorded
            if recorded.source != "default":
                return Origin(source="user", detail=BY_HAND, value=value)
        if value == plain(field_facts(type(group), name).default):
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
        for path, value in leaf_changes(changes, raw):
            try:
                container, name, model = place(raw, path)
            except ParameterProblemsError as error:
                problems.extend(error.problems)
                continue
            except ParameterError as error:
                problems.append(Problem(path, f": {error.message}", error.hint))
                continue
            restore = is_default(value)
            if restore:
                container.pop(name, None)
            else:
                kind = plain_type(model.model_fields[name].annotation)
                container[name] = from_text(value, kind) if isinstance(value, str) else value
            touched[path] = not restore
        if problems:
            problems.extend(_problems_in(raw))
            raise ParameterProblemsError(problems)
        changed = ProjectParameters.load(raw)
        origins = dict(changed.origins)
        for path, is_set in touched.items():
            origins.pop(path, None)
            if is_set and source != "default":
                value = plain(changed.value(path))
                origins[path] = Origin(source=source, detail=detail, value=value)
        return changed.model_copy(update={"origins": origins})

    # -- what a job sees ------------------------------------------------------------------

    def effective(self, node: str, *, binning: float | None = None) -> EffectiveParameters:
        """Everything that job `node` sees, with every followed value filled in.

        A node without parameters of its own has its job type's defaults.

        Args:
            binning: of the images that it works on, where that is known; None: as the project's
                job says that makes them.

        Raises:
            ParameterError: no such job type, or a followed value is outside the job's bounds.
        """
        job_type = job_type_of(node)
        job = self.jobs.get(node) or JOB_MODELS[job_type]()
        resolved, problems = resolve_job(self, node, job)
        if resolved is None:
            raise ParameterProblemsError(problems)
        return EffectiveParameters(
            node=node,
            job_type=job_type,
            data=self.data,
            microscope=self.microscope,
            acquisition=resolve_acquisition(self),
            computing=self.computing,
            job=resolved,
            project=self if node in self.jobs else self.with_job(node),
            image_binning=binning or image_binning(self.jobs, node, job),
        )

    def fingerprint(self, node: str) -> str:
        """16 hexadecimal digits that change when, and only when, the job's result may change.

        Made of the job type and of `EffectiveParameters.decisive`: tool, the job's own values
        (those it follows included, resources left out) and the global values that its type uses.

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
                    tool = f"{job.tool} with {job.method}" if job.method else job.tool
                    found.append(f"jobs.{node}.{name}: the tool {tool} does not use it")
            found += job.warnings(node, self.acquisition)
        return found


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


def _problems_in(raw: dict[str, Any]) -> list[Problem]:
    """What is wrong with `raw` itself, when something else is wrong already."""
    try:
        ProjectParameters.model_validate(raw)
    except ValidationError as error:
        return problems_of(error, GROUPS)
    except ParameterProblemsError as error:
        return list(error.problems)
    return []
