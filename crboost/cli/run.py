"""`crboost run`: the flow, here and now, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from crboost.cli.commands import (
    Changes,
    Jobs,
    Mode,
    ModeOption,
    ProjectPath,
    parse_changes,
    print_error,
)
from crboost.cli.follow import before_the_run, follow, log_files
from crboost.cli.terminal import command, heading, is_terminal, results_table

if TYPE_CHECKING:
    from crboost.project import Project


#: How many notes on tilt series are printed.
NOTES = 12

#: What can be done about a run that was left at work.
WHEN_LEFT = (
    (("status",), "how it stands"),
    (("run",), "join it again"),
    (("schemer", "abort"), "stop it"),
)


@dataclass(frozen=True)
class Outcome:
    """What the flow's process said at its end; the fields are those of `flows.local`.

    Attributes:
        output: the end of what the process printed, for an end without a word.
    """

    state: str
    message: str
    run: str | None = None
    job: str | None = None
    node: str | None = None
    pictures: Sequence[str] = ()
    output: str = ""
    code: int = 0
    rest: Mapping[str, Any] = field(default_factory=dict)


def run(
    project: ProjectPath,
    jobs: Jobs = None,
    changes: Changes = None,
    mode: ModeOption = Mode.new,
) -> None:
    """Run what is not up to date, here and now, and show the results.

    With a Prefect server if PREFECT_API_URL is set, else with one that lives as long as the
    command. The jobs run detached: Ctrl-C leaves them at work.
    """
    from crboost.project import Project

    parse_changes(changes)
    opened = Project.open(project)
    outcome = run_flow(opened, jobs or (), changes or (), mode)
    report(opened, outcome, shown_as=project)
    if outcome.code:
        raise typer.Exit(outcome.code)


def run_flow(project: Project, jobs: Sequence[str], changes: Sequence[str], mode: Mode) -> Outcome:
    """Run the flow in a process of its own and follow it to its end.

    SIGINT and SIGTERM are passed on once; the flow then leaves the jobs at work and says so.
    """
    from crboost.run import runs

    known = {one.name for one in runs(project)}
    with tempfile.TemporaryDirectory(prefix="crboost-run-") as scratch:
        result, output = Path(scratch) / "result.json", Path(scratch) / "output"
        argv = flow_argv(project.directory, jobs, changes, mode, result)
        with output.open("wb") as stream:
            # A session of its own: Ctrl-C reaches it through us, once.
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        if not is_terminal():
            typer.echo(before_the_run())
        with _passing_signals_to(process):
            follow(
                project,
                known,
                lambda: process.poll() is None,
                lambda: waits_for(project.directory, process.pid),
            )
            code = process.wait()
        return _outcome(code, result, output)


def waits_for(project: Path, pid: int) -> str:
    """The flow run that works on the project while the process `pid` waits; empty for none."""
    from crboost.turn import holder, waiting

    if pid not in [claim.pid for claim in waiting(project)]:
        return ""
    at_work = holder(project)
    return at_work.name if at_work else ""


def flow_argv(
    project: Path, jobs: Sequence[str], changes: Sequence[str], mode: Mode, result: Path
) -> list[str]:
    """The command that runs the flow. `-P`: a `flows/` in the working directory is not ours."""
    argv = [sys.executable, "-P", "-m", "flows.local", "process", str(project)]
    if jobs:
        argv += ["--jobs", ",".join(jobs)]
    for change in changes:
        argv += ["--set", change]
    return [*argv, "--mode", mode.value, "--result", str(result)]


def _outcome(code: int, result: Path, output: Path) -> Outcome:
    """What the flow's process left; a process that left nothing has crashed."""
    from crboost.files import read_json
    from crboost.job_directory import tail

    said = tail(output, lines=30)
    if not result.is_file():
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome("error", f"the flow ended with {how} and left no result", output=said,
                       code=1)  # fmt: skip
    value = dict(read_json(result))
    fields = {name: value.pop(name, None) for name in ("run", "job", "node")}
    return Outcome(
        str(value.pop("state")),
        str(value.pop("message")),
        **fields,
        pictures=tuple(value.pop("pictures", ())),
        output=said,
        code=code,
        rest=value,
    )


@contextmanager
def _passing_signals_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGINT and SIGTERM go to the flow; it says what it leaves at work. A second one kills it."""
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process.poll() is None:
            process.send_signal(signal.SIGINT if len(received) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report(project: Project, outcome: Outcome, *, shown_as: Path) -> None:
    """Say how a run ended: a failure's own words first, then what there is."""
    if outcome.state == "interrupted":
        typer.echo(f"\n{outcome.message.splitlines()[0]}", err=True)
        if outcome.run:
            for words, what in WHEN_LEFT:
                typer.echo(f"  {command('crboost', *words, shown_as)}    {what}", err=True)
        return
    if outcome.state == "refused":
        message, _, hint = outcome.message.partition("\n  -> ")
        print_error(message, hint or None)
        return
    if outcome.state in ("failed", "error"):
        print_error(outcome.message)
        _print_where_to_look(project, outcome, shown_as)
    elif outcome.state == "up_to_date":
        typer.echo(outcome.message)
    print_results(project, outcome.pictures)


def _print_where_to_look(project: Project, outcome: Outcome, shown_as: Path) -> None:
    if outcome.state == "error" and outcome.output:
        typer.echo(f"\nThe last lines of its output:\n{outcome.output}", err=True)
    files = log_files(project.directory, outcome.job, outcome.run)
    if files:
        typer.echo("\nLogs:", err=True)
        for path in files.values():
            typer.echo(f"  {path}", err=True)
    if outcome.node:
        typer.echo(f"  {command('crboost', 'log', shown_as, outcome.node)}", err=True)


def print_results(project: Project, pictures: Sequence[str | Path]) -> None:
    """The table of tilt series, what to know of them, and the pictures' paths."""
    from crboost.quality import series_notes, series_table

    rows = series_table(project)
    if not rows:
        return
    heading("Results")
    results_table(rows, project.directory)
    notes = series_notes(project)
    if notes:
        heading("Notes")
        for name, note in notes[:NOTES]:
            typer.echo(f"  {name}: {note}")
        if len(notes) > NOTES:
            typer.echo(f"  and {len(notes) - NOTES} more, in the pictures")
    if pictures:
        heading("Pictures")
        for picture in pictures:
            typer.echo(f"  {picture}")
