"""`crboost session`: begin and end a stay at the microscope, and what there is to see of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from crboost.cli.commands import AsJson, Changes, ProjectPath, parse_changes, print_warnings
from crboost.cli.terminal import command, counted, heading, print_json, print_table

if TYPE_CHECKING:
    from crboost.project import Project
    from crboost.session import Session
    from crboost.settings import Settings

app = typer.Typer(
    help="A stay at the microscope: what arrives is processed by itself.",
    no_args_is_help=True,
)

LISTS = ("--watch", "--jobs")


class StartCommand(TyperCommand):
    """Takes `--watch A B` as well as `--watch A --watch B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give each value its own option before the parser sees them."""
        return super().parse_args(ctx, spread(args, LISTS))


def spread(args: Sequence[str], lists: Collection[str]) -> list[str]:
    """`--watch a b` as `--watch a --watch b`, for a command without arguments."""
    result: list[str] = []
    current, given = "", 0
    for word in args:
        if word.startswith("-") and word != "-":
            current, given = (word if word in lists else ""), 0
            result.append(word)
        elif current:
            result += [current, word] if given else [word]
            given += 1
        else:
            result.append(word)
    return result


@app.command("start", cls=StartCommand)
def start(
    watch: Annotated[
        list[Path],
        typer.Option(metavar="DIR...", help="Where mdocs and movies arrive.", show_default=False),
    ],
    project: Annotated[
        Path,
        typer.Option(metavar="PROJECT", help="The project; made if it is not there."),
    ],
    preset: Annotated[
        str | None, typer.Option(help="What is known of the microscope: `crboost session presets`.")
    ] = None,
    jobs: Annotated[
        list[str] | None,
        typer.Option(metavar="JOB...", help="Jobs to run when data arrive; all if none is given."),
    ] = None,
    changes: Changes = None,
    name: Annotated[str | None, typer.Option(help="What to call a new project.")] = None,
    gain: Annotated[Path | None, typer.Option(help="The camera's gain reference.")] = None,
    expected_tilts: Annotated[
        int | None,
        typer.Option(min=1, help="Tilts of a whole series; without it the mdoc decides."),
    ] = None,
    partial_after: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES", min=0, help="Take a series as it is after so long without news."
        ),
    ] = None,
    mdoc_quiet: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="An mdoc is finished after so long without a change."
        ),
    ] = None,
    stable: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="A movie is finished after so long without a change."
        ),
    ] = None,
    batch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="What arrives within so long is processed together."
        ),
    ] = None,
    poll: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Look so often, instead of waiting for file events."),
    ] = None,
    quiet_after: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", min=0, help="No new data for so long is news; 0: never."),
    ] = None,
    failed_threshold: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="So many failed series are news; 0: never."),
    ] = None,
) -> None:
    """Start a session: every tilt series that arrives in DIR is processed in PROJECT.

    Raw data are linked, never copied and never written to. The same command again changes nothing.
    """
    from crboost.project import Project
    from crboost.session import start_session
    from crboost.settings import load_settings

    settings = load_settings()
    notices: list[str] = []
    is_new = not Project.exists(project)
    session = start_session(
        project,
        watch=watch,
        preset=preset,
        settings=settings,
        now=datetime.now(UTC),
        rules=rules_of(
            {
                "jobs": jobs,
                "batch_seconds": batch,
                "poll_seconds": poll,
                "quiet_minutes": quiet_after,
                "failed_series_threshold": failed_threshold,
            },
            {
                "expected_tilts": expected_tilts,
                "partial_after_seconds": None if partial_after is None else 60 * partial_after,
                "mdoc_quiet_seconds": mdoc_quiet,
                "stable_seconds": stable,
            },
        ),
        values=parse_changes(changes),
        name=name,
        gain=gain,
        notice=notices.append,
    )
    opened = Project.open(project)
    made = " (made)" if is_new else ""
    typer.echo(f"Session {session.id} is active: {opened.directory}{made}\n")
    print_session(session, opened)
    print_warnings(notices)
    print_service(settings)
    typer.echo("\nNext:")
    typer.echo(
        f"  {command('crboost', 'status', project, '--live')}    what arrives, how far it is"
    )
    typer.echo(f"  {command('crboost', 'session', 'stop', project)}    when the stay is over")


@app.command("stop")
def stop(
    project: ProjectPath,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for tilt series that have begun.")
    ] = False,
) -> None:
    """End a session. Tilt series that have begun are still taken in; jobs at work go on."""
    from crboost.project import Project
    from crboost.session import end_session
    from crboost.settings import load_settings

    opened = Project.open(project)
    session = end_session(opened, now=datetime.now(UTC), drain=not now)
    open_now = _open(opened)
    if not session.draining:
        typer.echo(f"Session {session.id} has ended: {_counts(opened)}.")
        if open_now:
            print_warnings([f"not taken in, as it had not ended: {', '.join(open_now)}"])
        return
    patience = session.patience
    typer.echo(f"Session {session.id} is draining: {_counts(opened)}.")
    if open_now:
        typer.echo(f"Waiting for {', '.join(open_now)}.")
    typer.echo(
        f"It ends when nothing has come for {patience.mdoc_quiet_seconds:g} s and no series is "
        f"open, or after {patience.partial_after_seconds / 60:g} min with what is there then. "
        f"At once: {command('crboost', 'session', 'stop', project, '--now')}"
    )
    print_service(load_settings())


@app.command("list")
def list_sessions(as_json: AsJson = False) -> None:
    """List the sessions of this machine whose data are taken in."""
    from crboost.project import Project
    from crboost.session import active_sessions, read_session
    from crboost.settings import load_settings

    settings = load_settings()
    notices: list[str] = []
    rows = []
    for active in active_sessions(settings.service.directory, notices.append):
        opened = Project.open(active.project)
        session = read_session(opened)
        if session is not None:
            rows.append((session, opened))
    if as_json:
        print_json([_values(session, opened) for session, opened in rows])
    elif rows:
        print_table(
            ["session", "state", "since", "preset", "tilt series", "watching", "project"],
            [
                [
                    session.id,
                    session.state,
                    _local(session.started),
                    session.preset or "-",
                    _counts(opened),
                    ", ".join(map(str, session.watch)),
                    str(opened.directory),
                ]
                for session, opened in rows
            ],
        )
    else:
        typer.echo("No session is active.")
    print_warnings(notices)


@app.command("show")
def show(project: ProjectPath, as_json: AsJson = False) -> None:
    """Show a project's session: what it watches, how, and what has arrived."""
    from crboost.acquisition.arriving import read_arriving
    from crboost.cli.status import print_not_used
    from crboost.errors import ProjectError
    from crboost.overview import read_overview
    from crboost.project import Project
    from crboost.session import read_session
    from crboost.settings import load_settings

    opened = Project.open(project)
    session = read_session(opened)
    if session is None:
        raise ProjectError(
            f"{opened.directory} has no session", hint="start one with `crboost session start`"
        )
    if as_json:
        print_json(_values(session, opened))
        return
    since = "" if session.active else f", stopped {_local(session.ended)}"
    typer.echo(f"Session {session.id}: {session.state}{since}\n")
    print_session(session, opened)
    rows = [row for row in read_overview(opened).rows if row.arrival]
    if rows:
        heading("Arrived")
        print_table(["tilt series", "movies/tilts"], [[row.name, row.arrival] for row in rows])
    print_not_used(read_arriving(opened.directory))
    if session.is_watched:
        print_service(load_settings())


@app.command("presets")
def presets(as_json: AsJson = False) -> None:
    """List the presets, with what they set."""
    from crboost.presets import preset_files, read_preset
    from crboost.settings import load_settings

    found = [read_preset(path) for path in preset_files(load_settings().service.presets).values()]
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "file": one.path,
                    "description": one.description,
                    "parameters": one.parameters,
                    "session": one.session.model_dump(mode="json"),
                }
                for one in found
            ]
        )
        return
    print_table(["preset", "for", "file"], [[p.name, p.description, str(p.path)] for p in found])
    for one in found:
        heading(one.name)
        for path, value in one.parameters.items():
            typer.echo(f"  {path} = {value}")


def rules_of(rules: dict[str, Any], patience: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as `start_session` takes them; 0 stands for never."""
    given = {key: value for key, value in rules.items() if value is not None}
    for key in ("quiet_minutes", "failed_series_threshold"):
        if given.get(key) == 0:
            given[key] = None
    waits = {key: value for key, value in patience.items() if value is not None}
    return {**given, **({"patience": waits} if waits else {})}


def print_session(session: Session, project: Project) -> None:
    """What is watched, what happens to it, and how long is waited for what."""
    patience = session.patience
    tilts = f", {patience.expected_tilts} tilts each" if patience.expected_tilts else ""
    quiet, failed = session.quiet_minutes, session.failed_series_threshold
    news = [
        *([f"no new data for {quiet:g} min"] if quiet else []),
        *([counted(failed, "failed tilt series", "failed tilt series")] if failed else []),
    ]
    seen = f"every {session.poll_seconds:g} s" if session.poll_seconds else "as files change"
    rows = [
        ["project", f"{project.name}, {project.directory}"],
        ["watching", f"{', '.join(map(str, session.watch))} ({seen})"],
        ["preset", session.preset or "none"],
        ["jobs", ", ".join(session.jobs) or "all: " + ", ".join(project.parameters().jobs)],
        [
            "complete",
            f"mdoc unchanged for {patience.mdoc_quiet_seconds:g} s, "
            f"movies for {patience.stable_seconds:g} s{tilts}",
        ],
        ["partial", f"after {patience.partial_after_seconds / 60:g} min without news"],
        ["together", f"what arrives within {session.batch_seconds:g} s"],
        ["messages", ", ".join(news) or "none"],
    ]
    width = max(len(row[0]) for row in rows)
    for name, text in rows:
        typer.echo(f"  {name:{width}}  {text}")


def print_service(settings: Settings) -> None:
    """Say if nobody is there to serve the session."""
    from crboost.service.directory import ServiceDirectory
    from crboost.service.status import is_up, read_status

    directory = ServiceDirectory(settings.service.directory)
    if not is_up(directory):
        typer.secho("\nThe service is not up: ", fg="yellow", nl=False)
        typer.echo("nothing is taken in before `crboost up`. Nothing is lost until then.")
        return
    status = read_status(directory)
    if status is not None:
        typer.echo(f"\nThe service is up: {status.url}")


def _values(session: Session, project: Project) -> dict[str, Any]:
    """A session for programs."""
    from crboost.acquisition.arriving import read_arriving
    from crboost.acquisition.taken import read_intake
    from crboost.cli.status import not_used_values

    return {
        **session.model_dump(mode="json"),
        "active": session.active,
        "state": session.state,
        "project": str(project.directory),
        "tilt_series": {
            name: {"state": one.state, "tilts": one.tilts, "usable": one.usable}
            for name, one in read_intake(project.directory).items()
        },
        **not_used_values(read_arriving(project.directory)),
    }


def _counts(project: Project) -> str:
    """`12 complete, 1 partial`, with those that were left growing."""
    from crboost.acquisition.arriving import read_arriving
    from crboost.acquisition.taken import read_intake

    states = [one.state for one in read_intake(project.directory).values()]
    words = [
        f"{states.count(state)} {state}"
        for state in ("complete", "partial", "reopened")
        if state in states
    ]
    growing = sum(1 for state in _standing(project).values() if state == "growing")
    arriving = read_arriving(project.directory)
    left_out = len(arriving.left_out) if arriving else 0
    more = [(growing, "growing"), (left_out, "left out")]
    return ", ".join([*words, *(f"{n} {word}" for n, word in more if n)]) or "none yet"


def _open(project: Project) -> list[str]:
    """The series that have begun, or begun again, and not come to their end: `TS_03 growing`."""
    states = _standing(project).items()
    return [f"{name} {state}" for name, state in states if state in ("growing", "reopened")]


def _standing(project: Project) -> dict[str, str]:
    """How each series stands at the microscope."""
    from crboost.acquisition.arriving import read_arriving

    arriving = read_arriving(project.directory)
    return {name: str(one.state) for name, one in arriving.series.items()} if arriving else {}


def _local(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")
