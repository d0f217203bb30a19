"""Write the run: one scheme directory with a job.star per job and the frozen parameters."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

if TYPE_CHECKING:
    from crboost.parameters import ProjectParameters
    from crboost.plan import Plan
    from crboost.project import Project
    from crboost.run import Run
    from crboost.settings import Settings


@task(name="generate", task_run_name="generate", cache_policy=NO_CACHE, persist_result=False)
def generate(
    project: Project, plan: Plan, parameters: ProjectParameters, settings: Settings
) -> Run:
    """The new run `Schemes/run_<time>_<id>/`, ready to be started."""
    from crboost.run import Run

    now = datetime.now().astimezone()
    run = Run.create(project, plan, parameters, settings, now=now)
    get_run_logger().info("%s: %s", run.name, ", ".join(run.nodes))
    return run
