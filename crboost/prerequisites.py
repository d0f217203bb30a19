"""Jobs that a run needs although nobody asked for them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from crboost.catalogue import CATALOGUE, InputSlot, JobType, producers_of
from crboost.errors import PlanError
from crboost.parameters import ProjectParameters, job_type_of


def with_prerequisites(nodes: Sequence[str], parameters: ProjectParameters) -> list[str]:
    """`nodes` and, before the first that needs it, each job that only prepares their input.

    WarpTools, for one, needs its own import of the tilt series (tsImport) before it can align
    them. Such a job is part of the run whenever one that needs it is; where it is up to date
    already, the plan says so. Of several in the parameters, `tsAlignment__2` takes `tsImport__2`
    if there is one, and `tsImport` if not.
    """
    found: list[str] = []
    for node in nodes:
        job_type = type_as_done(node, parameters)
        for slot in job_type.inputs:
            maker = _prerequisite(node, slot, parameters)
            if maker is not None and maker not in (*found, *nodes):
                found.append(maker)
        found.append(node)
    return list(dict.fromkeys(found))


def type_as_done(node: str, parameters: ProjectParameters) -> JobType:
    """The job type of a node as its tool does it."""
    return CATALOGUE[job_type_of(node)].for_tool(parameters.effective(node).job.tool)


def check_frames(nodes: Sequence[str], parameters: ProjectParameters) -> None:
    """Warp imports tilt series of its own averages only.

    Raises:
        PlanError: both are in the run, and the averages are another tool's.
    """
    for node in nodes:
        if job_type_of(node) != "tsImport":
            continue
        instance = node.partition("__")[2]
        makers = [one for one in nodes if job_type_of(one) == "fsMotionAndCtf"]
        own = [one for one in makers if one.partition("__")[2] == instance]
        for maker in own or makers[:1]:
            tool = parameters.effective(maker).job.tool
            if tool != "warp":
                raise PlanError(
                    f"{node} takes images that WarpTools has averaged, and jobs.{maker}.tool = "
                    f"{tool}",
                    hint=f"set jobs.{maker}.tool=warp, or the tool of the jobs that follow to "
                    "another than warp",
                )


def _prerequisite(node: str, slot: InputSlot, parameters: ProjectParameters) -> str | None:
    """The job to add for an input slot, if it is one that planners add."""
    makers = {name for label in slot.accepts for name in producers_of(label)}
    if len(makers) != 1 or not CATALOGUE[next(iter(makers))].is_prerequisite:
        return None
    if getattr(parameters.effective(node).job, f"input_{slot.name}", None):
        return None
    (maker,) = makers
    instance = node.partition("__")[2]
    of_same_instance = f"{maker}__{instance}"
    return of_same_instance if instance and of_same_instance in parameters.jobs else maker
