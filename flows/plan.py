"""plan-project: what a run would do and why, as an artifact; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from crboost.errors import CrboostError
from flows.parameters import overrides_of
from flows.process import UP_TO_DATE
from flows.service import TO_CHANGE, Jobs, ProcessChanges, ProjectDirectory, RunMode
from flows.tasks.keys import artifact_key


@flow(name="plan-project", flow_run_name="{project_dir}", persist_result=False)
def plan_project(
    project_dir: ProjectDirectory,
    jobs: Jobs = [],  # noqa: B006
    mode: RunMode = "new",
    parameters: Annotated[ProcessChanges, TO_CHANGE] = ProcessChanges(),  # noqa: B008
) -> State[Any]:
    """Show what would run and why. Changes nothing; parameters are tried, not kept.

    Args:
        project_dir: Absolute path of the project on the headnode; `crboost init` makes one.
        jobs: Which jobs; none chosen: import, preprocessing, alignment and reconstruction.
        mode: new: a job whose input changed gets a new number; continue: the existing RELION job
            takes what is new.
        parameters: Tried in this plan only; what is left empty is as in the project.
    """
    from crboost.project import Project
    from crboost.settings import load_settings

    log = get_run_logger()
    try:
        project = Project.open(Path(project_dir))
        wanted = project.parameters()
        changes = overrides_of(parameters)
        if changes:
            wanted = wanted.with_values(changes)
        plan = project.plan(list(jobs) or None, wanted, mode, settings=load_settings())
        new = project.new_data()
    except CrboostError as error:
        log.error("%s", error)
        return Failed(message=str(error), data=error)
    text = plan.to_markdown()
    if new:
        text += f"\n\n{len(new)} new files of raw data are not in this plan: a run links them.\n"
    create_markdown_artifact(
        text,
        key=artifact_key(project.directory, "plan"),
        description=f"Plan for {project.name}",
    )
    for warning in plan.warnings:
        log.warning("%s", warning)
    nodes = ", ".join(job.node for job in plan.jobs)
    message = UP_TO_DATE if plan.is_empty else f"{len(plan.jobs)} jobs would run: {nodes}"
    return Completed(message=message, data=[job.node for job in plan.jobs])
