"""The parameters described for others: JSON schema for forms, rows for tables and docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from crboost.parameters.base import ParameterModel, field_facts
from crboost.parameters.groups import GROUPS
from crboost.parameters.jobs import JOB_MODELS, unused_by_tool
from crboost.parameters.origin import Origin
from crboost.parameters.project import ProjectParameters


@dataclass(frozen=True)
class ParameterRow:
    """One parameter as a table shows it. `value` is None where it follows another parameter;
    `effective` is what the job then takes."""

    path: str
    title: str
    value: Any
    effective: Any
    default: Any
    unit: str | None
    bounds: str
    choices: tuple[str, ...]
    help: str
    origin: Origin
    follows: tuple[str, ...]
    resource: bool
    used: bool
    """False where the job's present tool does not use it."""


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of `project_params.json`.

    Bounds are `minimum` and `maximum`; `unit`, `resource`, `follows` and `tools` are extra keys
    of a property. Every job type has its property in `jobs`; further jobs of a type
    (`tsAlignment__2`) are pattern properties.
    """
    from pydantic.json_schema import models_json_schema

    models: list[type[BaseModel]] = [ProjectParameters, *JOB_MODELS.values()]
    references, shared = models_json_schema([(model, "validation") for model in models])
    definitions = shared["$defs"]
    definitions.pop("JobParameters", None)
    schema: dict[str, Any] = dict(definitions.pop("ProjectParameters"))
    jobs = dict(schema["properties"]["jobs"])
    jobs["properties"] = {
        name: references[(model, "validation")] for name, model in JOB_MODELS.items()
    }
    jobs["patternProperties"] = {
        f"^{name}__([2-9]|[1-9][0-9]+)$": references[(model, "validation")]
        for name, model in JOB_MODELS.items()
    }
    jobs["additionalProperties"] = False
    schema["properties"] = {**schema["properties"], "jobs": jobs}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "$defs": definitions,
    }


def describe(parameters: ProjectParameters) -> list[ParameterRow]:
    """One row for each parameter of `parameters`, in the order of the file."""
    rows = []
    for group in GROUPS:
        rows.extend(_rows(parameters, group, getattr(parameters, group)))
    for node, job in parameters.jobs.items():
        rows.extend(_rows(parameters, f"jobs.{node}", job, unused=set(unused_by_tool(job))))
    return rows


def _rows(
    parameters: ProjectParameters,
    head: str,
    group: ParameterModel,
    unused: frozenset[str] | set[str] = frozenset(),
) -> list[ParameterRow]:
    node = head.removeprefix("jobs.") if head.startswith("jobs.") else next(iter(JOB_MODELS))
    seen = parameters.effective(node)
    rows = []
    for name in type(group).model_fields:
        facts = field_facts(type(group), name)
        path = f"{head}.{name}"
        rows.append(
            ParameterRow(
                path=path,
                title=facts.title,
                value=getattr(group, name),
                effective=seen.value(path),
                default=facts.default,
                unit=facts.unit,
                bounds=facts.bounds,
                choices=facts.choices,
                help=facts.description,
                origin=seen.origin(path),
                follows=facts.follows,
                resource=facts.resource,
                used=name not in unused,
            )
        )
    return rows
