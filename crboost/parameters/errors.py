"""pydantic's errors in a user's words: field, value, what is allowed, unit, likely typing error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from crboost.errors import ParameterError
from crboost.parameters.base import FieldFacts, closest, field_facts, number_text
from crboost.parameters.jobs import JOB_MODELS, job_type_of

LONGEST_VALUE = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one parameter, and what to do about it."""

    path: str
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.path}{self.text}"


class ParameterProblemsError(ParameterError):
    """One error that lists every problem that was found; `problems` has them one by one."""

    def __init__(self, problems: Sequence[Problem], *, where: str | None = None) -> None:
        self.problems = tuple(problems)
        prefix = f"{where}: " if where else ""
        if len(problems) == 1:
            super().__init__(f"{prefix}{problems[0]}", hint=problems[0].hint)
            return
        lines = [f"{prefix}{len(problems)} parameters are wrong"]
        for problem in problems:
            lines.append(f"  {problem}")
            if problem.hint:
                lines.append(f"    -> {problem.hint}")
        super().__init__("\n".join(lines))


def problems_of(
    error: ValidationError, groups: Mapping[str, type[BaseModel]], *, prefix: Sequence[str] = ()
) -> list[Problem]:
    """Every problem in `error`.

    Args:
        error: what pydantic raised.
        groups: the models of the groups by name; "jobs" is known besides.
        prefix: where the validated model sits: ("jobs", "tsAlignment").
    """
    problems = []
    for detail in error.errors(include_url=False):
        location = [*prefix, *(part for part in detail["loc"] if part != "[key]")]
        problems.append(_problem(detail, location, groups))
    return problems


def unknown(path: str, known: Iterable[str]) -> Problem:
    """The problem "no such parameter", with the path that was probably meant."""
    parts = path.split(".")
    every = list(known)
    members = [each.rpartition(".")[2] for each in every if each.rpartition(".")[0] == path]
    if members:
        return Problem(
            path, ": is a group of parameters, not a value", f"set one of {', '.join(members)}"
        )
    head = ".".join(parts[:-1])
    siblings = [each for each in every if each.rpartition(".")[0] == head]
    guess = closest(parts[-1], [each.rpartition(".")[2] for each in siblings])
    if guess is None:
        leaf = closest(parts[-1], {each.rpartition(".")[2] for each in every})
        same = [each for each in every if each.rpartition(".")[2] == leaf]
        guess = same[0] if len(same) == 1 else closest(path, same)
    text = ": no such parameter" + (f"; did you mean {guess}?" if guess else "")
    hint = None
    if guess is None and siblings:
        hint = f"{head or 'the file'} has " + ", ".join(
            each.rpartition(".")[2] for each in siblings
        )
    return Problem(path, text, hint)


def _problem(
    detail: ErrorDetails, location: Sequence[str | int], groups: Mapping[str, type[BaseModel]]
) -> Problem:
    path = ".".join(str(part) for part in location)
    model, name, path = _locate(location, groups, path)
    kind = detail["type"]
    if kind == "extra_forbidden":
        if model is None:
            known = [*groups, "jobs", *_leaves(groups)]
            return unknown(path, known)
        head = path.rpartition(".")[0]
        return unknown(path, [*(f"{head}.{each}" for each in model.model_fields), *_leaves(groups)])
    if kind == "missing":
        return Problem(path, ": is missing")
    facts = field_facts(model, name) if model is not None and name is not None else None
    return Problem(path, f"{_value(detail['input'], facts)}: {_rule(detail, facts)}", _hint(facts))


def _locate(
    location: Sequence[str | int], groups: Mapping[str, type[BaseModel]], path: str
) -> tuple[type[BaseModel] | None, str | None, str]:
    """The model and field that `location` is in, and the path up to that field."""
    parts = [str(part) for part in location]
    model: type[BaseModel] | None = None
    depth = 0
    if parts and parts[0] in groups:
        model, depth = groups[parts[0]], 1
    elif len(parts) > 1 and parts[0] == "jobs":
        try:
            model, depth = JOB_MODELS[job_type_of(parts[1])], 2
        except ParameterError:
            return None, None, path
    if model is None or len(parts) <= depth:
        return model, None, path
    name = parts[depth]
    if name not in model.model_fields:
        return model, None, path
    return model, name, ".".join(parts[: depth + 1])


def _leaves(groups: Mapping[str, type[BaseModel]]) -> list[str]:
    return [f"{group}.{name}" for group, model in groups.items() for name in model.model_fields]


def _value(value: Any, facts: FieldFacts | None) -> str:
    """ " = 0.1 Å": the value as the user wrote it, with its unit where it is a number."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str) and facts is not None and facts.kind in (int, float, tuple):
        try:
            float(value)
            numeric = True
        except ValueError:
            numeric = False
    if numeric:
        text = number_text(value) if isinstance(value, float) else str(value)
        return f" = {text} {facts.unit}" if facts is not None and facts.unit else f" = {text}"
    if isinstance(value, Mapping):
        return ""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = repr(value)
    return f" = {text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + '…'}"


_KINDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    list: "a list of texts",
    tuple: "two whole numbers",
}


def _rule(detail: ErrorDetails, facts: FieldFacts | None) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in ("greater_than_equal", "less_than_equal"):
        words, bound = ("least", "ge") if kind == "greater_than_equal" else ("most", "le")
        limit = context[bound]
        return f"must be at {words} {facts.with_unit(limit) if facts else limit}"
    if kind == "literal_error" and facts is not None and facts.choices:
        guess = closest(str(detail["input"]), facts.choices)
        choices = ", ".join(facts.choices)
        rule = f"must be one of {choices}" if len(facts.choices) > 1 else f"must be {choices}"
        return rule + (f"; did you mean {guess}?" if guess and len(facts.choices) > 1 else "")
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind == "finite_number":
        return "must be a finite number"
    if kind.endswith(("_parsing", "_type", "_from_float")) and facts is not None:
        expected = _KINDS.get(facts.kind)
        if expected is not None:
            unit = f", in {facts.unit}" if facts.unit and facts.kind in (int, float) else ""
            return f"must be {expected}{unit}"
    if kind.startswith(("datetime_", "timezone_")):
        return 'must be a date and time with its time zone, like "2026-05-01T10:00:00+00:00"'
    if kind in ("model_type", "dict_type"):
        return "must be a group of parameters, { ... }"
    if kind == "string_too_short":
        return "must not be empty"
    # pydantic's own words, in the form of ours.
    return detail["msg"].replace("Input should", "must").replace("valid string", "text")


def _hint(facts: FieldFacts | None) -> str | None:
    if facts is None or not facts.bounds:
        return None
    default = "" if facts.default is None else f", default {facts.with_unit(facts.default)}"
    return f"{facts.title}: {facts.bounds}{default}"
