"""The global groups of parameters and the dotted paths of everything in a project."""

from __future__ import annotations

from collections.abc import Iterable

from crboost.parameters.acquisition import Acquisition
from crboost.parameters.base import ParameterModel
from crboost.parameters.computing import Computing
from crboost.parameters.data import DataSources
from crboost.parameters.jobs import JOB_MODELS, job_type_of
from crboost.parameters.microscope import Microscope

GROUPS: dict[str, type[ParameterModel]] = {
    "data": DataSources,
    "microscope": Microscope,
    "acquisition": Acquisition,
    "computing": Computing,
}
"""The global groups, in the order of the file."""


def paths_of(nodes: Iterable[str]) -> list[str]:
    """The dotted path of every parameter of a project with the jobs `nodes`, in file order."""
    found = [f"{group}.{name}" for group, model in GROUPS.items() for name in model.model_fields]
    for node in nodes:
        model = JOB_MODELS[job_type_of(node)]
        found.extend(f"jobs.{node}.{name}" for name in model.model_fields)
    return found
