"""`crboost job`: the driver on the compute node. RELION calls `run`; a Slurm array calls `series`
for some tilt series of a job.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crboost.driver import Request

app = typer.Typer(help="One RELION job, as RELION's schemer calls it.", no_args_is_help=True)


Snapshot = Annotated[Path, typer.Option(help="The run's frozen project_params.json.")]
Output = Annotated[str, typer.Option("--o", help="The job's directory, project-relative.")]
Node = Annotated[str, typer.Option(help="The job's name in the scheme.")]
Fingerprint = Annotated[str, typer.Option(help="Of the job's parameters, from the plan.")]
InMics = Annotated[str | None, typer.Option("--in_mics", help="The tilt series' STAR.")]
InCoords = Annotated[str | None, typer.Option("--in_coords", help="Further input.")]
In3dRef = Annotated[str | None, typer.Option("--in_3dref", help="Further input.")]
InMask = Annotated[str | None, typer.Option("--in_mask", help="Further input.")]
Workers = Annotated[int, typer.Option("--j", min=1, help="Processes that it may use.")]


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    snapshot: Snapshot,
    output: Output,
    node: Node,
    fingerprint: Fingerprint = "",
    in_mics: InMics = None,
    in_coords: InCoords = None,
    in_3dref: In3dRef = None,
    in_mask: InMask = None,
    workers: Workers = 1,
) -> None:
    """Do one RELION job in the current directory, which is the project.

    Further arguments that RELION gives, such as --pipeline_control, are ignored.
    """
    from crboost.driver import run_job

    inputs = {"in_coords": in_coords, "in_3dref": in_3dref, "in_mask": in_mask}
    request = _request(snapshot, output, node, fingerprint, in_mics, inputs, workers)
    raise typer.Exit(run_job(request, log=_say))


@app.command("series")
def series(
    snapshot: Snapshot,
    output: Output,
    node: Node,
    batch: Annotated[str, typer.Option(help="Directory of the array, project-relative.")],
    task: Annotated[
        int, typer.Option(envvar="SLURM_ARRAY_TASK_ID", min=0, help="Number of the task in it.")
    ],
    fingerprint: Fingerprint = "",
    in_mics: InMics = None,
    in_coords: InCoords = None,
    in_3dref: In3dRef = None,
    in_mask: InMask = None,
    workers: Workers = 1,
) -> None:
    """Do the tilt series of one task of a job that runs as a Slurm array."""
    from crboost.array_task import run_task

    inputs = {"in_coords": in_coords, "in_3dref": in_3dref, "in_mask": in_mask}
    request = _request(snapshot, output, node, fingerprint, in_mics, inputs, workers)
    raise typer.Exit(run_task(request, batch, task, log=_say))


def _request(
    snapshot: Path,
    output: str,
    node: str,
    fingerprint: str,
    in_mics: str | None,
    inputs: Mapping[str, str | None],
    workers: int,
) -> Request:
    from crboost.driver import Request

    return Request(
        project=Path.cwd(),
        job=output.rstrip("/"),
        snapshot=snapshot.absolute(),
        node=node,
        fingerprint=fingerprint,
        input_star=in_mics,
        workers=workers,
        python=sys.executable,
        other_inputs={field: path for field, path in inputs.items() if path},
    )


def _say(line: str) -> None:
    """RELION sends stdout to run.out; a reader there must not wait for a full buffer."""
    print(line, flush=True)
