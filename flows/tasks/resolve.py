"""Plan: which jobs run, on what, and why; shown as the flow's first artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.tasks.keys import artifact_key

if TYPE_CHECKING:
    from crboost.parameters import ProjectParameters
    from crboost.plan import Plan
    from crboost.project import Project
    from crboost.settings import Settings


@task(name="plan", task_run_name="plan", cache_policy=NO_CACHE, persist_result=False)
def resolve(
    project: Project,
    jobs: Sequence[str],
    parameters: ProjectParameters,
    mode: Literal["new", "continue"],
    settings: Settings,
    retry_failed: bool = True,
) -> Plan:
    """The same plan that `crboost plan` shows.

    Raises:
        PlanError: an input cannot be resolved; nothing has been started.
    """
    log = get_run_logger()
    for line in project.reconcile():
        log.info("%s: ended while nobody was watching", line)
    plan = project.plan(
        jobs, parameters, mode, retry_failed=None if retry_failed else False, settings=settings
    )
    create_markdown_artifact(
        plan.to_markdown(),
        key=artifact_key(project.directory, "plan"),
        description=f"Plan for {project.name}",
    )
    for done in plan.satisfied:
        log.info("%s: up to date in %s", done.node, done.job.rstrip("/"))
    for job in plan.jobs:
        log.info("%s: will run: %s", job.node, job.reason)
    for warning in plan.warnings:
        log.warning("%s", warning)
    return plan
