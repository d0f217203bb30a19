"""From what a user typed to what a field may be set to; works on the content of the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from crboost.parameters.base import ParameterModel
from crboost.parameters.errors import ParameterProblemsError, unknown
from crboost.parameters.groups import GROUPS, paths_of
from crboost.parameters.jobs import JOB_MODELS, job_type_of


def leaf_changes(changes: Mapping[str, Any], raw: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """`changes` with every mapping (or JSON object) taken apart into its members."""
    for path, value in changes.items():
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError:
                yield path, value
                continue
        if isinstance(value, Mapping):
            yield from leaf_changes({f"{path}.{key}": each for key, each in value.items()}, raw)
        elif is_default(value) and _members(path, raw):
            yield from ((f"{path}.{name}", None) for name in _members(path, raw))
        else:
            yield path, value


def is_default(value: Any) -> bool:
    """Whether `value` asks for the default to come back."""
    if isinstance(value, str):
        return value.strip().lower() in ("none", "null", "default")
    return value is None


def _members(path: str, raw: dict[str, Any]) -> list[str]:
    """The names of the parameters in group or job `path`; none for anything else."""
    if path in GROUPS:
        return list(GROUPS[path].model_fields)
    node = path.removeprefix("jobs.")
    if node == path or node not in raw["jobs"]:
        return []
    return list(JOB_MODELS[job_type_of(node)].model_fields)


def place(raw: dict[str, Any], path: str) -> tuple[dict[str, Any], str, type[ParameterModel]]:
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
        known = [*paths_of(raw["jobs"]), *(f"jobs.{node}" for node in JOB_MODELS)]
        raise ParameterProblemsError([unknown(path, known)])
    if name not in model.model_fields:
        raise ParameterProblemsError(
            [unknown(path, [f"{head}.{each}" for each in model.model_fields])]
        )
    return container, name, model


def from_text(text: str, kind: Any) -> Any:
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
