"""`crboost doctor`: every point of the installation, and what to do where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.commands import AsJson
from crboost.cli.terminal import counted, heading, is_terminal, print_json
from crboost.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crboost.doctor.findings import Finding

TITLES = {
    "python": "Python and Prefect",
    "prefect": "Python and Prefect",
    "settings": "Settings",
    "service": "Service",
    "containers": "Tools",
    "tools": "Tools",
    "project": "Project directory",
    "scheduler": "Scheduler",
    "trial": "A job",
}
SHOWN = {"ok": "ok", "warning": "warning", "failed": "FAILED", "skipped": "-"}
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


def doctor(
    project: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PROJECT]",
            help="A project, or a directory where projects will be.",
            show_default=False,
        ),
    ] = None,
    submit: Annotated[
        bool,
        typer.Option("--submit", help="Also run small jobs in PROJECT, as a run would."),
    ] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="How long those may take, seconds.", min=1)
    ] = 180.0,
    as_json: AsJson = False,
) -> None:
    """Check the installation: settings, tools, containers, scheduler, project directory.

    Each point is ok, a warning, or FAILED with what to do; `-` was not looked at. Exit code 1 if
    anything failed. Nothing is changed; --submit makes a directory in PROJECT and removes it.
    """
    from crboost.doctor.examination import Wanted, examine
    from crboost.doctor.findings import counts, exit_code

    if submit and project is None:
        raise ParameterError(
            "--submit needs a directory that compute nodes see",
            hint="crboost doctor PROJECT --submit",
        )
    found = examine(Wanted(project, submit, timeout_s))
    if as_json:
        findings = list(found)
        print_json(
            {
                "exit_code": exit_code(findings),
                "counts": counts(findings),
                "findings": [finding.to_dict() for finding in findings],
            }
        )
    else:
        findings = show(found)
        typer.echo(f"\n{summary(findings)}")
    raise typer.Exit(exit_code(findings))


def show(found: Iterable[Finding]) -> list[Finding]:
    """Print the findings as they come; returns them."""
    findings: list[Finding] = []
    title = ""
    for finding in found:
        findings.append(finding)
        if TITLES[finding.subject] != title:
            title = TITLES[finding.subject]
            heading(title)
        typer.echo("  ", nl=False)
        word = f"{SHOWN[finding.status]:<8}"
        typer.secho(word, nl=False, fg=COLOURS[finding.status] if is_terminal() else None)
        typer.echo(f"{finding.check:<25} " + finding.found.replace("\n", f"\n{'':36}"))
        if finding.fix:
            typer.echo(f"{'':10}-> {finding.fix}")
    return findings


def summary(findings: Iterable[Finding]) -> str:
    """`14 ok, 1 warning, 2 failed; 1 was not looked at.`"""
    from crboost.doctor.findings import counts

    number = counts(findings)
    words = [f"{number['ok']} ok", counted(number["warning"], "warning")]
    words.append(f"{number['failed']} failed")
    text = ", ".join(words)
    if number["skipped"]:
        text += f"; {number['skipped']} not looked at"
    return f"{text}."
