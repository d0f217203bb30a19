"""Take the parameters as they are now, with this run's overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

if TYPE_CHECKING:
    from crboost.parameters import ProjectParameters
    from crboost.project import Project


@task(name="snapshot", task_run_name="snapshot", cache_policy=NO_CACHE, persist_result=False)
def snapshot(project: Project, overrides: Mapping[str, Any]) -> ProjectParameters:
    """The validated parameters of this run; raw data that came since are linked too.

    Args:
        project: the project.
        overrides: dotted name to value; written back to the project as the user's.

    Raises:
        ParameterError: an override names no parameter, or is out of bounds.
    """
    log = get_run_logger()
    linked = project.link_new_data()
    if linked:
        log.info("%d new files of raw data linked: %s", len(linked), _few(linked))
    if not overrides:
        return project.parameters()
    log.info("Set %s", ", ".join(f"{name}={value}" for name, value in overrides.items()))
    return project.snapshot_parameters(overrides)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
