"""What a form may change in a project's parameters: every field optional, same bounds and help.

The models are made from those of `crboost.parameters`; there is no second list of parameters.
Prefect makes its forms of them, and its server refuses what they refuse before a run exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from crboost.catalogue import CATALOGUE
from crboost.errors import ParameterError
from crboost.parameters import (
    DEFAULT_JOBS,
    JOB_MODELS,
    Acquisition,
    Computing,
    Microscope,
    ParameterModel,
    field_facts,
    job_type_of,
)

GROUPS: Mapping[str, type[ParameterModel]] = {
    "microscope": Microscope,
    "acquisition": Acquisition,
    "computing": Computing,
}


#: Part of a pattern: the number of a further job of a type, after "__".
FURTHER = "([2-9]|[1-9][0-9]+)"


class Changes(ParameterModel):
    """A group of parameters of which any may be set; what is not set stays as it is."""

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema of a form: "or null" would double every field, for it can be left empty."""
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for position, (name, value) in enumerate(properties.items()):
            properties[name] = {**_without_null(value), "position": position}
        return made


class JobChanges(Changes):
    """Groups of job parameters: one for each type, and others for further jobs of a type.

    A further job (`tsAlignment__2`) has no place in the form; it can be named where the group is
    given as JSON.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _further_jobs(self) -> JobChanges:
        for node, value in (self.__pydantic_extra__ or {}).items():
            group = CHANGES_OF_JOBS[job_type_of(_job(node))]
            # Its fields are named in errors as those of the other groups are.
            given = {node: value}
            model = create_model("FurtherJob", __base__=ParameterModel, **{node: (group, ...)})
            self.__pydantic_extra__[node] = getattr(model.model_validate(given), node)  # type: ignore[index]
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = super().__get_pydantic_json_schema__(schema, handler)
        shown = handler.resolve_ref_schema(made)
        shown["patternProperties"] = {
            f"^{name}__{FURTHER}$": {"$ref": value["$ref"]}
            for name, value in shown["properties"].items()
        }
        shown["additionalProperties"] = False
        for name, value in shown["properties"].items():
            if name not in DEFAULT_JOBS:
                shown["properties"][name] = _folded(value)
        return made


def _folded(value: JsonSchemaValue) -> JsonSchemaValue:
    """A group that a form shows when somebody asks for it: one of two tabs, the other is empty."""
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    rest = {key: part for key, part in value.items() if key != "$ref"}
    return {**rest, "anyOf": [{**nothing, "title": "as it is"}, {"$ref": value["$ref"]}]}


def _without_null(value: JsonSchemaValue) -> JsonSchemaValue:
    plain = {key: part for key, part in value.items() if key not in ("anyOf", "default")}
    kinds = [one for one in value.get("anyOf", ()) if one.get("type") != "null"]
    if not kinds:
        return plain
    if len(kinds) > 1:
        return {**plain, "anyOf": kinds}
    if kinds[0].get("type") == "boolean":
        # A switch that nobody touched looks like "no"; a list of choices can be empty.
        return {"enum": [True, False], **plain}
    if "prefixItems" in kinds[0]:
        # Two numbers are typed faster than put together from two items of a list.
        return {"type": "string", "pattern": "^ *[0-9]+ *[xX,] *[0-9]+ *$", **plain}
    return {**kinds[0], **plain}


def changes_to(model: type[ParameterModel], title: str) -> type[Changes]:
    """A model with the fields of `model`, all of them optional, for a form."""
    fields: dict[str, Any] = {
        name: _optional(model, name, model.model_fields[name]) for name in form_fields(model)
    }
    made: type[Changes] = create_model(
        f"{model.__name__}Changes", __base__=Changes, __doc__=model.__doc__, **fields
    )
    made.model_config["title"] = title
    made.model_rebuild(force=True)
    return made


def form_fields(model: type[ParameterModel]) -> list[str]:
    """The fields of `model` that a form shows: the tool, what is special to the model, the rest.

    Left out is what has only one choice, and what none of the tools that can be chosen uses.
    """
    general = {name for base in model.__mro__[1:] for name in getattr(base, "model_fields", ())}
    ordered = sorted(model.model_fields, key=lambda name: (name != "tool", name in general))
    shown = {name: field_facts(model, name) for name in ordered}
    tools = set(shown["tool"].choices) if "tool" in shown else set()
    return [
        name
        for name, facts in shown.items()
        if len(facts.choices) != 1 and (not facts.tools or tools & set(facts.tools))
    ]


def _optional(model: type[ParameterModel], name: str, info: FieldInfo) -> tuple[Any, Any]:
    facts = field_facts(model, name)
    kind: Any = info.annotation
    for constraint in info.metadata:
        kind = Annotated[kind, constraint]
    help_text = facts.description.replace("; None: ", "; if it was never set: ")
    if facts.bounds:
        help_text += f" {facts.bounds[0].upper()}{facts.bounds[1:]}."
    if facts.tools and len(field_facts(model, "tool").choices) > 1:
        help_text += f" Only with {' and '.join(facts.tools)}."
    if facts.default is not None:
        help_text += f" Default: {_shown(facts.default)}."
    return (
        kind | None,
        Field(
            None,
            title=f"{facts.title} ({facts.unit})" if facts.unit else facts.title,
            description=help_text,
        ),
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "x".join(str(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


def parameter_changes(
    name: str, jobs: Sequence[str], *, further_jobs: bool = False
) -> type[Changes]:
    """The groups that a form shows: the project's, and one for each of `jobs`.

    Args:
        further_jobs: further jobs of these types may have parameters too.
    """
    job_groups = create_model(
        f"{name}Jobs",
        __base__=JobChanges if further_jobs else Changes,
        **_groups({job: CHANGES_OF_JOBS[job] for job in jobs}),
    )
    job_groups.model_config["title"] = "Job parameters"
    groups = {group: changes_to(model, group.capitalize()) for group, model in GROUPS.items()}
    # What a site sets once comes last.
    computing = groups.pop("computing")
    ordered = {**groups, "jobs": job_groups, "computing": computing}
    return create_model(name, __base__=Changes, **_groups(ordered))


def _groups(models: Mapping[str, type[Changes]]) -> dict[str, Any]:
    return {
        name: (model | None, Field(None, title=str(model.model_config["title"])))
        for name, model in models.items()
    }


def overrides_of(changes: Changes | Mapping[str, Any] | None) -> dict[str, Any]:
    """Dotted name to value, as `crboost run --set` gives them, of everything that is set."""
    if changes is None:
        return {}
    values = changes.model_dump() if isinstance(changes, Changes) else dict(changes)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update({f"{name}.{key}": one for key, one in overrides_of(value).items()})
        elif value is not None:
            found[name] = value
    return found


PREPROCESS_JOBS = ("fsMotionAndCtf", "motionCorr", "ctfFind")
RECONSTRUCT_JOBS = ("tsReconstruct", "reconstructTomograms")

#: The default jobs first, then the others in the order in which they follow each other.
ALL_JOBS = (*DEFAULT_JOBS, *(name for name in CATALOGUE if name not in DEFAULT_JOBS))

CHANGES_OF_JOBS: Mapping[str, type[Changes]] = {
    name: changes_to(JOB_MODELS[name], CATALOGUE[name].title) for name in ALL_JOBS
}

#: More jobs than anybody names in one run.
_MOST_JOBS = 24
_JOB_PATTERN = f"^({'|'.join(ALL_JOBS)})(__{FURTHER})?$"


def _job(name: str) -> str:
    try:
        job_type_of(name)
    except ParameterError as error:
        raise ValueError(str(error)) from None
    return name


JobNames = Annotated[
    list[Annotated[str, AfterValidator(_job)]],
    WithJsonSchema(
        {
            "type": "array",
            # A form offers what `items` enumerates. To a validator `items` is only what comes
            # after `prefixItems`, and there further jobs of a type are as good.
            "items": {"type": "string", "enum": list(ALL_JOBS)},
            "prefixItems": [{"type": "string", "pattern": _JOB_PATTERN}] * _MOST_JOBS,
            "maxItems": _MOST_JOBS,
        }
    ),
]
"""Names of jobs: types, which a form offers, and further jobs of a type."""
