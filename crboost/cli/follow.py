"""Follow a run by its files: a live display on a terminal, a line per change in a log.

Nothing here talks to the process that drives the run: what is shown is what the files say, so
it is as true for a run that somebody else started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from crboost.cli.terminal import COLOURS, is_terminal, seconds
from crboost.errors import CrboostError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from crboost.project import Project
    from crboost.run import JobState, Run

LOOK_SECONDS = 0.4
SYMBOLS = {"succeeded": "✓", "failed": "✗", "aborted": "✗", "waiting": "·"}


@dataclass(frozen=True)
class Sight:
    """One look at a run.

    Attributes:
        run: its name; None before there is one.
        states: its jobs in order.
        last_line: of the running job's output.
    """

    run: str | None = None
    states: tuple[JobState, ...] = ()
    last_line: str = ""


def before_the_run() -> str:
    """What happens until the first job is there."""
    if os.environ.get("PREFECT_API_URL"):
        return "Planning"
    return "Starting a Prefect server for this run, and planning"


def changes(before: Sight, after: Sight) -> list[str]:
    """What to tell of the way from one look to the next; pure."""
    lines = []
    if after.run and after.run != before.run:
        nodes = ", ".join(state.node for state in after.states)
        lines.append(f"{after.run}: {nodes}")
    known = {state.node: state for state in before.states} if before.run == after.run else {}
    for state in after.states:
        was = known.get(state.node)
        phase = was.phase if was else "waiting"
        job = (state.job or "").rstrip("/")
        if state.phase != phase:
            detail = f" ({progress(state)})" if state.total and state.phase != "running" else ""
            lines.append(f"{state.node}: {state.phase} in {job}{detail}".replace(" in  ", " "))
        elif state.phase == "running" and was and finished(state) > finished(was):
            lines.append(f"{state.node}: {progress(state)}")
    return lines


def finished(state: JobState) -> int:
    """Tilt series that are through."""
    return state.done + state.failed + state.skipped


def progress(state: JobState) -> str:
    """`2 of 3 tilt series, 1 failed`."""
    text = f"{finished(state)} of {state.total} tilt series"
    return f"{text}, {state.failed} failed" if state.failed else text


def look(project: Project, known: set[str], last: Sight) -> Sight:
    """See how the newest run stands: one that is not in `known`, or is at work.

    Files that are being replaced may not fit together for an instant: then the last sight holds.
    """
    from crboost.run import active_run, runs

    try:
        fresh = [run for run in runs(project) if run.name not in known]
        run = fresh[-1] if fresh else active_run(project)
        if run is None:
            return last
        states = tuple(run.job_state(node) for node in run.nodes)
        return Sight(run.name, states, _last_line(run, states))
    except (CrboostError, OSError):
        return last


def _last_line(run: Run, states: Sequence[JobState]) -> str:
    from crboost.job_directory import tail

    for state in states:
        if state.phase == "running" and state.job:
            return tail(run.project.directory / state.job / "run.out", lines=1, most_bytes=4096)
    return ""


@dataclass
class Clock:
    """When each job was first and last seen at work; for the display only."""

    began: float = field(default_factory=time.monotonic)
    started: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    def see(self, states: Sequence[JobState]) -> None:
        """Take the time of what has begun and ended."""
        now = time.monotonic()
        for state in states:
            if state.phase == "running":
                self.started.setdefault(state.node, now)
            elif state.phase != "waiting" and state.node in self.started:
                self.took.setdefault(state.node, now - self.started[state.node])

    def text(self, state: JobState) -> str:
        """How long a job runs, or ran."""
        if state.node in self.took:
            return seconds(self.took[state.node])
        if state.phase == "running" and state.node in self.started:
            return seconds(time.monotonic() - self.started[state.node])
        return ""


def follow(
    project: Project,
    known: set[str],
    working: Callable[[], bool],
    waits_for: Callable[[], str] = lambda: "",
) -> None:
    """Show the run until `working` says that whoever drives it has ended.

    Args:
        known: runs that existed before.
        waits_for: the name of the flow run that must end first; empty for none.
    """
    if is_terminal():
        _follow_live(project, known, working, waits_for)
    else:
        _follow_lines(project, known, working, waits_for)


def waiting_words(name: str) -> str:
    """Why nothing happens yet."""
    return f"Waiting for {name}, which works on this project"


def _follow_lines(
    project: Project, known: set[str], working: Callable[[], bool], waits_for: Callable[[], str]
) -> None:
    sight = Sight()
    goes_on = True
    told = ""
    while goes_on:
        goes_on = working()
        before = waits_for()
        if before and before != told:
            typer.echo(f"{time.strftime('%H:%M:%S')}  {waiting_words(before)}")
            told = before
        seen = look(project, known, sight)
        for line in changes(sight, seen):
            typer.echo(f"{time.strftime('%H:%M:%S')}  {line}")
        sight = seen
        if goes_on:
            time.sleep(LOOK_SECONDS)


def _follow_live(
    project: Project, known: set[str], working: Callable[[], bool], waits_for: Callable[[], str]
) -> None:
    from rich.console import Console
    from rich.live import Live

    sight, clock = Sight(), Clock()
    console = Console(highlight=False)
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        goes_on = True
        while goes_on:
            goes_on = working()
            sight = look(project, known, sight)
            clock.see(sight.states)
            live.update(_display(sight, clock, goes_on=goes_on, waits_for=waits_for()))
            if goes_on:
                time.sleep(LOOK_SECONDS)


def _display(sight: Sight, clock: Clock, *, goes_on: bool, waits_for: str) -> RenderableType:
    from rich.console import Group
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    if not sight.states:
        doing = waiting_words(waits_for) if waits_for else before_the_run()
        words = f" {doing} ({seconds(time.monotonic() - clock.began)})"
        return Spinner("dots", Text(words)) if goes_on else Text("")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    for style in ("", "bold", "bright_black", "", "bright_black"):
        table.add_column(style=style, no_wrap=True)
    for state in sight.states:
        colour = COLOURS.get(state.phase, "")
        symbol: RenderableType
        if state.phase == "running":
            symbol = Spinner("dots", style=colour)
        else:
            symbol = Text(SYMBOLS[state.phase], style=colour)
        doing = (
            progress(state) if state.total else ("" if state.phase == "waiting" else state.phase)
        )
        job = (state.job or "").rstrip("/")
        table.add_row(symbol, state.node, job, doing, clock.text(state))
    if not goes_on:
        return table
    over = all(state.phase not in ("waiting", "running") for state in sight.states)
    words = "Making table and pictures" if over else sight.last_line
    if waits_for:
        words = waiting_words(waits_for)
    line = Text(f"  {words}", style="bright_black", no_wrap=True, overflow="ellipsis")
    return Group(table, line)


def log_files(project: Path, job: str | None, run: str | None) -> Mapping[str, Path]:
    """Where to read on after a failure: name to file, those that exist."""
    files: dict[str, Path] = {}
    if job:
        files = {name: project / job / name for name in ("run.err", "run.out")}
    if run:
        files |= {name: project / "Schemes" / run / name for name in ("schemer.err", "schemer.out")}
    return {name: path for name, path in files.items() if path.is_file() and path.stat().st_size}
