"""`crboost job run`: the driver, as RELION calls it on the compute node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="One RELION job, as RELION's schemer calls it.", no_args_is_help=True)


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    snapshot: Annotated[Path, typer.Option(help="The run's frozen project_params.json.")],
    output: Annotated[str, typer.Option("--o", help="The job's directory, project-relative.")],
    node: Annotated[str, typer.Option(help="The job's name in the scheme.")],
    fingerprint: Annotated[str, typer.Option(help="Of the job's parameters, from the plan.")] = "",
    in_mics: Annotated[str | None, typer.Option("--in_mics", help="The tilt series' STAR.")] = None,
    in_coords: Annotated[str | None, typer.Option("--in_coords", help="Further input.")] = None,
    in_3dref: Annotated[str | None, typer.Option("--in_3dref", help="Further input.")] = None,
    in_mask: Annotated[str | None, typer.Option("--in_mask", help="Further input.")] = None,
    workers: Annotated[int, typer.Option("--j", min=1, help="Processes that it may use.")] = 1,
) -> None:
    """Do one RELION job in the current directory, which is the project.

    Further arguments that RELION gives, such as --pipeline_control, are ignored.
    """
    from crboost.driver import Request, run_job

    request = Request(
        project=Path.cwd(),
        job=output.rstrip("/"),
        snapshot=snapshot.absolute(),
        node=node,
        fingerprint=fingerprint,
        input_star=in_mics,
        workers=workers,
        python=sys.executable,
        other_inputs={
            field: path
            for field, path in (
                ("in_coords", in_coords),
                ("in_3dref", in_3dref),
                ("in_mask", in_mask),
            )
            if path
        },
    )
    raise typer.Exit(run_job(request, log=_say))


def _say(line: str) -> None:
    """RELION sends stdout to run.out; a reader there must not wait for a full buffer."""
    print(line, flush=True)
