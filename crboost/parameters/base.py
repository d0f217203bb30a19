"""The base of every parameter group: strict models whose fields know their unit and bounds."""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class ParameterModel(BaseModel):
    """A group of parameters. Unknown names, NaN and infinity are refused, also on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is wanted; they would pass as 1 and 0."""
        if isinstance(value, bool) and info.field_name is not None:
            plain = plain_type(cls.model_fields[info.field_name].annotation)
            if plain in (int, float):
                raise ValueError("must be a number, not true or false")
        return value


class SchemaKeywords:
    """In an `Annotated` type: what JSON schema can say of the validator beside it.

    Prefect's server reads no Python: it refuses by this before a run exists.

    Args:
        keywords: of JSON schema, such as `pattern` or `multipleOf`.
    """

    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), **self.keywords}


def field(
    default: Any,
    *,
    title: str,
    description: str,
    unit: str | None = None,
    ge: float | None = None,
    le: float | None = None,
    resource: bool = False,
    follows: str | Sequence[str] = (),
    tools: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    file: bool = False,
) -> Any:
    """Declare one parameter.

    Args:
        default: the value when nobody says otherwise.
        title: what a form calls it.
        description: what it is for, in one or two sentences.
        unit: unit of the value, as printed: "Å", "e/Å²", "px".
        ge: smallest allowed value, in `unit`.
        le: largest allowed value, in `unit`.
        resource: it changes how fast or where a job runs, never what it computes.
        follows: path of the global parameter that is taken when the value is None; with several
            paths, the product of their values.
        tools: the tools that use it; None: every tool of this job type.
        methods: where a tool has several methods, those that use it; None: all of them.
        file: it names a file that the job reads: its container has to see it.
    """
    paths = [follows] if isinstance(follows, str) else list(follows)
    extra: dict[str, Any] = {}
    if unit is not None:
        extra["unit"] = unit
    if resource:
        extra["resource"] = True
    if paths:
        extra["follows"] = paths
    if tools is not None:
        extra["tools"] = list(tools)
    if methods is not None:
        extra["methods"] = list(methods)
    if file:
        extra["file"] = True
    return Field(
        default, title=title, description=description, ge=ge, le=le, json_schema_extra=extra
    )


@dataclass(frozen=True)
class FieldFacts:
    """What a form, a table or an error message needs to know of one parameter."""

    name: str
    title: str
    description: str
    default: Any
    kind: Any
    """The Python type without `| None`: float, int, bool, str, list or tuple."""
    unit: str | None
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    nullable: bool
    resource: bool
    follows: tuple[str, ...]
    tools: tuple[str, ...] | None
    methods: tuple[str, ...] | None
    file: bool

    def with_unit(self, value: Any) -> str:
        """`value` as text, followed by the unit if there is one."""
        text = number_text(value) if isinstance(value, float) else str(value)
        return f"{text} {self.unit}" if self.unit else text

    @property
    def bounds(self) -> str:
        """The allowed range as text: "0.5 to 10 Å", "at least 128 px" or ""."""
        if self.minimum is not None and self.maximum is not None:
            return f"{number_text(self.minimum)} to {self.with_unit(self.maximum)}"
        if self.minimum is not None:
            return f"at least {self.with_unit(self.minimum)}"
        if self.maximum is not None:
            return f"at most {self.with_unit(self.maximum)}"
        return ""


def field_facts(model: type[BaseModel], name: str) -> FieldFacts:
    """Everything declared about the field `name` of `model`."""
    info = model.model_fields[name]
    declared = info.json_schema_extra
    extra: dict[str, Any] = dict(declared) if isinstance(declared, dict) else {}
    bounds: dict[str, float] = {}
    for constraint in info.metadata:
        for key in ("ge", "le"):
            value = getattr(constraint, key, None)
            if value is not None:
                bounds[key] = value
    kind = plain_type(info.annotation)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return FieldFacts(
        name=name,
        title=info.title or name,
        description=info.description or "",
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        kind=str if choices else (get_origin(kind) or kind),
        unit=extra.get("unit"),
        minimum=bounds.get("ge"),
        maximum=bounds.get("le"),
        choices=tuple(str(choice) for choice in choices),
        nullable=type(None) in get_args(info.annotation),
        resource=bool(extra.get("resource", False)),
        follows=tuple(extra.get("follows", ())),
        tools=tuple(extra["tools"]) if "tools" in extra else None,
        methods=tuple(extra["methods"]) if "methods" in extra else None,
        file=bool(extra.get("file", False)),
    )


def files_of(value: Any) -> tuple[str, ...]:
    """The files that a parameter with `file` names: none, one, or several."""
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def plain_type(annotation: Any) -> Any:
    """`annotation` without `Annotated` and without `| None`."""
    if hasattr(annotation, "__metadata__"):
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        others = [part for part in get_args(annotation) if part is not type(None)]
        if len(others) == 1:
            return plain_type(others[0])
    return annotation


def number_text(value: float) -> str:
    """A number as a person writes it: 10 rather than 10.0, every digit otherwise."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` is most likely a typing error for, or None."""
    import difflib

    names = {each.lower(): each for each in known}
    match = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if match:
        return names[match[0]]
    # "voltage" for "acceleration_voltage_kv": a part of one name only.
    parts = [each for each in names if len(name) > 2 and name.lower() in each]
    return names[parts[0]] if len(parts) == 1 else None
