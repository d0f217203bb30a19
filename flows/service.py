"""The flows behind the deployments: what `crboost run` runs, with forms in front of it.

`process-project` is the flow of `flows.process` with its parameters as models; the others are
the same for one stage. A run of a stage takes what the stages before it have made; it does not
run them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.parameters import (
    ALL_JOBS,
    PREPROCESS_JOBS,
    RECONSTRUCT_JOBS,
    Changes,
    JobNames,
    overrides_of,
    parameter_changes,
)
from flows.process import process_project as process

ProjectDirectory = Annotated[
    str,
    Field(
        pattern="^/",
        examples=["/data/projects/my_project"],
        json_schema_extra={"title": "Project directory"},
    ),
]
_JOBS = Field(json_schema_extra={"title": "Jobs"})
Jobs = Annotated[JobNames, _JOBS]
PreprocessJobs = Annotated[list[Literal["fsMotionAndCtf", "motionCorr", "ctfFind"]], _JOBS]
ReconstructJobs = Annotated[list[Literal["tsReconstruct", "reconstructTomograms"]], _JOBS]
RunMode = Annotated[Literal["new", "continue"], Field(json_schema_extra={"title": "Mode"})]
#: How a form calls its models of parameters.
TO_CHANGE = Field(json_schema_extra={"title": "Parameters to change"})

ProcessChanges = parameter_changes("ProcessChanges", ALL_JOBS, further_jobs=True)
ImportChanges = parameter_changes("ImportChanges", ["importmovies"])
PreprocessChanges = parameter_changes("PreprocessChanges", PREPROCESS_JOBS)
AlignChanges = parameter_changes("AlignChanges", ["tsAlignment"])
ReconstructChanges = parameter_changes("ReconstructChanges", RECONSTRUCT_JOBS)


def _run_name() -> str:
    given: Mapping[str, Any] = flow_run.parameters or {}
    project = Path(str(given.get("project_dir", "project"))).name
    jobs = given.get("jobs")
    return f"{project}: {', '.join(jobs)}" if jobs else project


def _process(
    project_dir: str,
    jobs: Sequence[str],
    parameters: Changes,
    mode: RunMode,
    retry_failed: bool = True,
) -> State[Any]:
    """The flow of `crboost run` inside the flow run that has begun."""
    changes = overrides_of(parameters)
    return process.fn(Path(project_dir), list(jobs) or None, changes, mode, retry_failed)


@flow(name="process-project", flow_run_name=_run_name, persist_result=False)
def process_project(
    project_dir: ProjectDirectory,
    jobs: Jobs = [],  # noqa: B006
    mode: RunMode = "new",
    parameters: Annotated[ProcessChanges, TO_CHANGE] = ProcessChanges(),  # noqa: B008
    retry_failed: Annotated[
        bool, Field(json_schema_extra={"title": "Try failed tilt series again"})
    ] = True,
) -> State[Any]:
    """Process a project: what is up to date stays, what is not runs.

    Args:
        project_dir: Absolute path of the project on the headnode; `crboost init` makes one.
        jobs: Which jobs; none chosen: import, preprocessing, alignment and reconstruction.
        mode: new: a job whose input changed gets a new number; continue: the existing RELION job
            takes what is new.
        parameters: Set in the project before the run; what is left empty stays as it is.
        retry_failed: In mode continue: also those that failed with the same parameters and data.
    """
    return _process(project_dir, list(jobs), parameters, mode, retry_failed)


@flow(name="import", flow_run_name=_run_name, persist_result=False)
def import_movies(
    project_dir: ProjectDirectory,
    mode: RunMode = "new",
    parameters: Annotated[ImportChanges, TO_CHANGE] = ImportChanges(),  # noqa: B008
) -> State[Any]:
    """Import the movies and mdocs of a project, new ones too.

    Args:
        project_dir: Absolute path of the project on the headnode; `crboost init` makes one.
        mode: new: a job whose input changed gets a new number; continue: the existing RELION job
            takes what is new.
        parameters: Set in the project before the run; what is left empty stays as it is.
    """
    return _process(project_dir, ["importmovies"], parameters, mode)


@flow(name="preprocess", flow_run_name=_run_name, persist_result=False)
def preprocess(
    project_dir: ProjectDirectory,
    jobs: PreprocessJobs = ["fsMotionAndCtf"],  # noqa: B006
    mode: RunMode = "new",
    parameters: Annotated[PreprocessChanges, TO_CHANGE] = PreprocessChanges(),  # noqa: B008
) -> State[Any]:
    """Correct motion and fit the CTF of what has been imported.

    Args:
        project_dir: Absolute path of the project on the headnode; `crboost init` makes one.
        jobs: Which programs: crboost's in one job, or RELION's two.
        mode: new: a job whose input changed gets a new number; continue: the existing RELION job
            takes what is new.
        parameters: Set in the project before the run; what is left empty stays as it is.
    """
    return _process(project_dir, list(jobs), parameters, mode)


@flow(name="align", flow_run_name=_run_name, persist_result=False)
def align(
    project_dir: ProjectDirectory,
    mode: RunMode = "new",
    parameters: Annotated[AlignChanges, TO_CHANGE] = AlignChanges(),  # noqa: B008
) -> State[Any]:
    """Align the tilt series that have been preprocessed.

    Args:
        project_dir: Absolute path of the project on the headnode; `crboost init` makes one.
        mode: new: a job whose input changed gets a new number; continue: the existing RELION job
            takes what is new.
        parameters: Set in the project before the run; what is left empty stays as it is.
    """
    return _process(project_dir, ["tsAlignment"], parameters, mode)


@flow(name="reconstruct", flow_run_name=_run_name, persist_result=False)
def reconstruct(
    project_dir: ProjectDirectory,
    jobs: ReconstructJobs = ["tsReconstruct"],  # noqa: B006
    mode: RunMode = "new",
    parameters: Annotated[ReconstructChanges, TO_CHANGE] = ReconstructChanges(),  # noqa: B008
) -> State[Any]:
    """Reconstruct tomograms from the aligned tilt series.

    Args:
        project_dir: Absolute path of the project on the headnode; `crboost init` makes one.
        jobs: Which program: crboost's or RELION's.
        mode: new: a job whose input changed gets a new number; continue: the existing RELION job
            takes what is new.
        parameters: Set in the project before the run; what is left empty stays as it is.
    """
    return _process(project_dir, list(jobs), parameters, mode)
