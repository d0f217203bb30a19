"""`crboost tilts`: what a person says of tilt images, against any rule of the tilt filter."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crboost.cli.commands import AsJson, ProjectPath
from crboost.cli.terminal import counted, print_json, print_table

if TYPE_CHECKING:
    from crboost.project import Project

app = typer.Typer(
    help="Keep or reject tilt images by hand; the tilt filter follows.", no_args_is_help=True
)

Series = Annotated[str, typer.Argument(metavar="SERIES", help="The tilt series' name.")]
Tilts = Annotated[
    list[str],
    typer.Argument(metavar="TILT...", help="Tilt images: names, or patterns such as '*_54.0'."),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the verdict.")]


@app.command("keep")
def keep(project: ProjectPath, series: Series, tilts: Tilts, reason: Reason = "") -> None:
    """Keep tilt images, whatever a rule or a classifier says."""
    _say("keep", project, series, tilts, reason)


@app.command("reject")
def reject(project: ProjectPath, series: Series, tilts: Tilts, reason: Reason = "") -> None:
    """Leave out tilt images, whatever a rule or a classifier says."""
    _say("reject", project, series, tilts, reason)


@app.command("forget")
def forget(project: ProjectPath, series: Series, tilts: Tilts) -> None:
    """Take verdicts back: rules and classifier decide again."""
    from crboost.errors import CrboostError
    from crboost.project import Project
    from crboost.tilt_overrides import change_overrides, read_overrides

    directory = Project.open(project).directory
    known = list(read_overrides(directory).get(series, {}))
    names = [name for name in known if any(fnmatchcase(name, one) for one in tilts)]
    if not names:
        raise CrboostError(
            f"{series}: nobody has said anything of {', '.join(tilts)}",
            hint=f"verdicts are on {', '.join(known)}" if known else "there are no verdicts on it",
        )
    change_overrides(directory, remove=[(series, name) for name in names])
    typer.echo(f"{counted(len(names), 'verdict')} taken back; run tiltFilter for it to count.")


@app.command("show")
def show(
    project: ProjectPath,
    series: Annotated[
        str | None, typer.Argument(metavar="[SERIES]", help="Only this tilt series.")
    ] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Only tilt images that are left out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the verdicts of the newest tilt filter, and what a person has said since."""
    from crboost.project import Project
    from crboost.tilt_overrides import read_overrides

    opened = Project.open(project)
    job, verdicts = _newest_verdicts(opened)
    said = read_overrides(opened.directory)
    rows = []
    for name in dict.fromkeys([*verdicts, *said]):
        if series is not None and name != series:
            continue
        tilts = {tilt["name"]: tilt for tilt in verdicts.get(name, [])}
        for tilt in dict.fromkeys([*tilts, *said.get(name, {})]):
            record, person = tilts.get(tilt, {}), said.get(name, {}).get(tilt)
            kept = {"done": "keep", "excluded": "reject"}.get(record.get("status", ""), "")
            if rejected and kept != "reject":
                continue
            rows.append(
                {
                    "tilt_series": name,
                    "tilt": tilt,
                    "tilt_angle_deg": record.get("tilt_angle_deg"),
                    "verdict": kept,
                    "by": record.get("by"),
                    "reason": record.get("reason"),
                    "values": record.get("values", {}),
                    "person": person.word if person else None,
                }
            )
    if as_json:
        print_json({"job": job, "tilts": rows})
        return
    print_table(
        ["tilt series", "tilt", "angle", "verdict", "by", "person", "why"],
        [
            [
                str(row["tilt_series"]),
                str(row["tilt"]),
                "" if row["tilt_angle_deg"] is None else f"{row['tilt_angle_deg']:+.1f}",
                str(row["verdict"]),
                str(row["by"] or ""),
                str(row["person"] or ""),
                str(row["reason"] or ""),
            ]
            for row in rows
        ],
    )
    typer.echo(f"\nVerdicts of {job}." if job else "\nNo tilt filter has run yet.")


def _say(word: str, project: Path, series: str, tilts: list[str], reason: str) -> None:
    """Write one verdict on every tilt image that is meant."""
    import getpass
    from datetime import UTC, datetime

    from crboost.errors import CrboostError
    from crboost.project import Project
    from crboost.tilt_overrides import Override, change_overrides

    opened = Project.open(project)
    table = _known_tilts(opened)
    if series not in table:
        known = ", ".join(table) or "none yet: fsMotionAndCtf makes them"
        raise CrboostError(f"no tilt series {series} has a CTF", hint=f"there are: {known}")
    names = [name for name in table[series] if any(fnmatchcase(name, one) for one in tilts)]
    for one in tilts:
        if not any(fnmatchcase(name, one) for name in table[series]):
            raise CrboostError(
                f"{series} has no tilt image {one}",
                hint=f"its tilt images are called like {table[series][0]}",
            )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    change_overrides(
        opened.directory,
        add=[
            Override(
                series,
                name,
                "keep" if word == "keep" else "reject",
                " ".join(reason.split()),
                getpass.getuser(),
                now,
            )
            for name in names
        ],
    )
    typer.echo(f"{word}: {counted(len(names), 'tilt image')}; run tiltFilter for it to count.")


def _known_tilts(project: Project) -> dict[str, list[str]]:
    """Tilt series -> its tilt images, of the newest job that made what a tilt filter takes."""
    from crboost.catalogue import TILT_FILTER
    from crboost.tilt_name import tilt_name
    from crboost.translate.tables import read_tilt_series

    for past in sorted(project.history(), key=lambda one: one.number, reverse=True):
        path = past.output_with_label(TILT_FILTER.inputs[0].accepts)
        if past.status == "Succeeded" and path is not None and path not in past.missing:
            tables = read_tilt_series(project.directory / path, project.directory)
            return {name: [tilt_name(row) for row in rows] for name, (_, rows) in tables.items()}
    return {}


def _newest_verdicts(project: Project) -> tuple[str | None, dict[str, list[dict[str, Any]]]]:
    """The newest tilt filter, and tilt series -> its records; also of series that it gave up."""
    from crboost.files import read_json

    past = max(
        (one for one in project.history() if one.job_type == "tiltFilter"),
        key=lambda one: one.number,
        default=None,
    )
    if past is None:
        return None, {}
    files = (project.directory / past.name / "cpu").glob("*/verdicts.json")
    return past.name, {path.parent.name: read_json(path)["tilts"] for path in sorted(files)}
