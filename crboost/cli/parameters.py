"""`crboost set`, `crboost parameters` and `crboost schema`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crboost.cli.commands import AsJson, ProjectPath, parse_changes, print_warnings
from crboost.cli.terminal import counted, print_json, print_table

if TYPE_CHECKING:
    from crboost.parameters import ParameterRow

HEADINGS = ["parameter", "value", "unit", "from"]


def set_values(
    project: ProjectPath,
    changes: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="Such as microscope.pixel_size_angstrom=1.35"),
    ],
) -> None:
    """Change parameters: all of them, or none.

    VALUE `default` brings back the default. `crboost parameters PROJECT --all` lists the names.
    """
    from crboost.parameters import describe
    from crboost.project import Project

    opened = Project.open(project)
    before = opened.parameters()
    wanted = parse_changes(changes)
    opened.set_values(wanted)
    after = opened.parameters()
    was = {row.path: row for row in describe(before)}
    rows = []
    for row in describe(after):
        if row.path in wanted:
            old = text_of(was[row.path].effective) if row.path in was else ""
            rows.append([row.path, old, text_of(row.effective), row.unit or ""])
    print_table(["parameter", "was", "is", "unit"], rows)
    print_warnings([one for one in after.warnings() if one not in before.warnings()])


def parameters(
    project: ProjectPath,
    part: Annotated[
        str | None,
        typer.Argument(metavar="[PART]", help="Only names that contain this: tsAlignment."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also the jobs' parameters that are at their defaults.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the parameters: value, unit, and where each value came from."""
    from crboost.parameters import describe
    from crboost.project import Project

    opened = Project.open(project)
    found = describe(opened.parameters())
    rows = [row for row in found if is_shown(row, part, all_ or as_json)]
    if as_json:
        print_json([{**asdict(row), "origin": row.origin.model_dump(mode="json")} for row in rows])
        return
    print_table(HEADINGS, [cells(row) for row in rows])
    hidden = len(found) - len(rows)
    if hidden and part is None:
        typer.echo(f"\n{counted(hidden, 'more parameter')} at default; --all shows them.")


def schema() -> None:
    """Print the JSON schema of project_params.json."""
    from crboost.parameters import json_schema

    print_json(json_schema())


def is_shown(row: ParameterRow, part: str | None, everything: bool) -> bool:
    """Whether a parameter is listed: what was set, and all of microscope and acquisition."""
    if part is not None:
        return part.lower() in row.path.lower()
    group = row.path.partition(".")[0]
    return everything or row.origin.source != "default" or group in ("microscope", "acquisition")


def cells(row: ParameterRow) -> list[str]:
    """The parameter as a line of the table."""
    origin = str(row.origin)
    if row.value is None and row.follows and row.effective is not None:
        origin = f"follows {row.follows[0]}"
    if not row.used:
        origin += ", not used by this tool"
    return [row.path, text_of(row.effective), row.unit or "", origin]


def text_of(value: Any) -> str:
    """A value as a user types it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        joined = " ".join(text_of(item) for item in value)
        return joined if len(joined) <= 60 else f"{len(value)} values"
    return str(value)
