"""`python -m flows.local process PROJECT`: what `crboost run` executes, in a process of its own.

Uses the Prefect server that `PREFECT_API_URL` names, else starts a private one (see
`flows.local_server`). Ends with a small JSON file for whoever started it:

    {"state": "completed" | "up_to_date" | "failed" | "refused" | "interrupted" | "error",
     "message": "...",            one or more lines for a person; the job's own error text first
     "run": "run_..." | null,     the run that was made
     "joined": "run_..." | null,    a run that was still at work and was followed first
     "job": "External/job003/" | null,   the job that failed
     "node": "tsAlignment" | null,
     "kind": "tool_error" | ... | null,  the class of the failure
     "jobs": {"importmovies": "Import/job001/"},
     "pictures": ["..."],
     "seconds_to_start": 3.6}     from the start of this process to the start of the flow

Exit code: 0 completed or up to date, 1 a job failed or something broke, 2 refused before
anything started, 130 interrupted (the queue goes on by itself).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from crboost.errors import CrboostError
from crboost.files import write_json
from crboost.job_directory import disk_full
from flows.local_server import QUIET, LocalServer, LocalServerError, dump_schema, local_home

EXIT_CODES = {
    "completed": 0,
    "up_to_date": 0,
    "failed": 1,
    "error": 1,
    "refused": 2,
    "interrupted": 130,
}


@dataclass
class Result:
    """What the caller is told; the module's text says what each field means."""

    state: str
    message: str
    run: str | None = None
    joined: str | None = None
    job: str | None = None
    node: str | None = None
    kind: str | None = None
    jobs: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[str] = ()
    seconds_to_start: float | None = None


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived: leave, and leave the schemer alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    began = time.monotonic()
    arguments = _parser().parse_args(argv)
    if arguments.command == "schema":
        return _print_schema()
    try:
        overrides = parse_overrides(arguments.set)
        jobs = [name for name in (arguments.jobs or "").split(",") if name]
        with _interruptible():
            result = _process(arguments.project, jobs, overrides, arguments.mode, began)
    except Interrupted:
        left = _left_at_work(arguments.project)
        result = replace(left, message=f"Interrupted. {left.message}")
    except CrboostError as error:
        result = Result("refused", str(error))
    except LocalServerError as error:
        result = Result("error", str(error))
    if result.state in ("error", "failed") and arguments.project.is_dir():
        # Prefect's database is the first to fail then, with a message that names no disk.
        full = disk_full(arguments.project)
        if full and full not in result.message:
            result = replace(result, message=f"{full}\n{result.message}")
    if arguments.result is not None:
        write_json(arguments.result, asdict(result))
    stream = sys.stdout if EXIT_CODES[result.state] == 0 else sys.stderr
    print(result.message, file=stream, flush=True)
    return EXIT_CODES[result.state]


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """`["jobs.tsAlignment.patch_x=4"]` as a mapping; the parameters know what each text means.

    Raises:
        CrboostError: an item has no `=`, or a name comes twice.
    """
    overrides: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise CrboostError(f"{text!r} is not NAME=VALUE", hint="jobs.tsAlignment.patch_x=4")
        if name in overrides:
            raise CrboostError(f"{name} is given twice: {overrides[name]!r} and {value!r}")
        overrides[name] = value.strip()
    return overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.local", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    process = commands.add_parser("process", help="run the flow on a project, here and now")
    process.add_argument("project", type=Path)
    process.add_argument("--jobs", help="comma-separated; all when not given")
    process.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    process.add_argument("--mode", choices=["new", "continue"], default="new")
    process.add_argument("--result", type=Path, help="where the result JSON goes")
    commands.add_parser("schema", help="print the local server's database schema, freshly made")
    return parser


def _process(
    project: Path, jobs: list[str], overrides: dict[str, str], mode: str, began: float
) -> Result:
    """Run the flow against the right server and say what came of it."""
    if os.environ.get("PREFECT_API_URL"):
        os.environ.update({**QUIET, **os.environ})
        return _run_flow(project, jobs, overrides, mode, began, server=None)
    _check_project(project)
    home = local_home(project)
    server = LocalServer(home)
    try:
        server.start()
        # Matplotlib would make its font cache in the user's home.
        _enter({"MPLCONFIGDIR": str(home / "matplotlib"), **server.environment})
        return _run_flow(project, jobs, overrides, mode, began, server=server)
    finally:
        _flush_logs()
        server.stop()


def _flush_logs() -> None:
    """Hand over the log records that Prefect still holds back, while there is a server."""
    if "prefect" in sys.modules:
        from prefect.logging.handlers import APILogHandler

        APILogHandler.flush(APILogHandler())


def _check_project(project: Path) -> None:
    """Refuse a directory that is no project before anything is written into it."""
    from crboost.project import Project

    Project.open(project)


def _enter(environment: Mapping[str, str]) -> None:
    """Make this the process's environment, before Prefect is imported and reads it."""
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    os.environ.update(environment)


def _run_flow(
    project: Path,
    jobs: list[str],
    overrides: dict[str, str],
    mode: str,
    began: float,
    *,
    server: LocalServer | None,
) -> Result:
    # Two seconds of imports, while the server starts in its own process.
    from flows.process import process_project

    if server is not None:
        server.wait()
    started = time.monotonic() - began
    try:
        state = process_project(
            project_dir=project, jobs=jobs or None, parameters=overrides or None, mode=mode,
            return_state=True,
        )  # fmt: skip
        result = _result_of(state)
    except Exception as error:
        # Prefect itself broke, such as a server that went away for good: the jobs do not care.
        traceback.print_exc()
        left = _left_at_work(project)
        where = "the local server" if server else os.environ["PREFECT_API_URL"]
        message = f"Prefect failed ({where}): {type(error).__name__}: {error}\n{left.message}"
        result = replace(left, state="error", message=message)
    result.seconds_to_start = round(started, 2)
    return result


def _result_of(state: Any) -> Result:
    """The result that a flow run's final state stands for."""
    from flows.process import UP_TO_DATE, Outcome
    from flows.tasks.run_job import JobFailed

    value = state.result(raise_on_failure=False)
    message = state.message or state.name
    if isinstance(value, JobFailed):
        return Result(
            "failed", message, run=value.run_name, job=value.job, node=value.node, kind=value.kind
        )
    if isinstance(value, CrboostError):
        return Result("refused", message)
    if isinstance(value, Outcome):
        return Result(
            "up_to_date" if message == UP_TO_DATE else "completed",
            message,
            run=value.run,
            joined=value.joined,
            jobs=value.jobs,
            pictures=value.pictures,
        )
    if isinstance(value, BaseException):
        traceback.print_exception(value)
    return Result("error", f"{message}\nThe flow ended as {state.name}.")


def _left_at_work(project: Path) -> Result:
    """What goes on after this process leaves, as the result of an interrupted run."""
    from crboost.project import Project
    from crboost.settings import load_settings
    from flows.process import run_at_work

    try:
        run = run_at_work(Project.open(project), load_settings())
    except CrboostError:
        run = None
    if run is None:
        return Result("interrupted", "Nothing of this project is running.")
    return Result(
        "interrupted",
        f"Left {run.name} at work: its queue goes on by itself.\n"
        f"  crboost status {project}    how it stands\n"
        f"  crboost run {project}       join it again",
        run=run.name,
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`, once; further ones do not disturb the end."""

    def leave(number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_schema() -> int:
    """Migrate an empty database with the installed Prefect and print what that gives."""
    import asyncio
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        os.environ.update(QUIET)
        os.environ["PREFECT_HOME"] = directory
        os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{home}/prefect.db"
        import prefect
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
        print(
            f"-- The schema of an empty Prefect {prefect.__version__} database (SQLite), as its\n"
            "-- migrations leave it. Made by: python -m flows.local schema"
        )
        print(dump_schema(home / "prefect.db"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
