"""The holder: the one detached process of a project that may run a scheme.

It locks `.crboost/schemer.lock` with `flock`, which the kernel releases whatever kills the
process, and leaves what followers need in the scheme's directory: schemer.pid (who), schemer.out
and schemer.err (the engine's output, appended), schemer.exit (how it ended, written last).
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from crboost.errors import CrboostError, FileFormatError, SchemerError
from crboost.files import read_json, write_json
from crboost.relion import lock
from crboost.relion.lock import ProcessId
from crboost.relion.scheme import SCHEME_FILE, SCHEMES_DIR, scheme_dir
from crboost.relion.schemer.engine import Engine

PROJECT_LOCK = Path(".crboost") / "schemer.lock"
PID_FILE = "schemer.pid"
EXIT_FILE = "schemer.exit"
OUT_FILE = "schemer.out"
ERR_FILE = "schemer.err"

_PROBE_S = 1.0
_PROBE_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class HolderState:
    """What is known of the last schemer of a scheme.

    Attributes:
        alive: whether it runs now, holding the project.
        exit_code: how it ended; None while it runs, when it was killed, or never ran.
        error: the message that it ended with, if any.
    """

    scheme: str
    alive: bool
    pid: int | None = None
    host: str | None = None
    engine: str | None = None
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    error: str | None = None


# --- the project's lock --------------------------------------------------------------------


@contextmanager
def project_lock(
    project_dir: Path, scheme_name: str, purpose: str = "run", *, wait_s: float = _PROBE_S
) -> Iterator[None]:
    """Hold the project: no other schemer starts, nobody recovers a scheme.

    Args:
        purpose: what for; shown to whoever is refused.
        wait_s: others hold the lock for an instant when they look; wait so long for them.

    Raises:
        SchemerError: another process holds it; says which.
    """
    path = project_dir / PROJECT_LOCK
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(descriptor, path, wait_s)
        me = ProcessId.of(os.getpid())
        content = {"scheme": scheme_name, "purpose": purpose, **asdict(me)}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = _read_lock(path)
                raise SchemerError(
                    f"{path.parent.parent}: scheme {holder.get('scheme', '(unknown)')} is held by"
                    f" process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                    f" ({holder.get('purpose', '?')})",
                    hint="one schemer at a time in a project: wait for it, or abort it",
                ) from None
            time.sleep(_PROBE_STEP_S)


def _read_lock(path: Path) -> dict[str, Any]:
    """What the holder wrote; empty in the instant before it has."""
    try:
        content = json.loads(path.read_text() or "{}")
    except (OSError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def active_scheme(project_dir: Path) -> str | None:
    """The scheme that a living process holds the project for; None when nobody does.

    True to the instant and safe against crashes: the answer is the kernel's.
    """
    path = project_dir / PROJECT_LOCK
    deadline = time.monotonic() + _PROBE_S
    while _is_held(path):
        content = _read_lock(path)
        # A holder that has just come may not have replaced its dead predecessor's text yet.
        if _writer(content) is not None and _writer_lives(content) is not False:
            return str(content["scheme"])
        if time.monotonic() >= deadline:
            return str(content.get("scheme", "")) or None
        time.sleep(_PROBE_STEP_S)
    return None


def _writer(content: dict[str, Any]) -> ProcessId | None:
    try:
        return ProcessId(
            int(content["pid"]),
            int(content["start_ticks"]),
            str(content["boot_id"]),
            str(content["host"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _writer_lives(content: dict[str, Any]) -> bool | None:
    writer = _writer(content)
    return writer.alive() if writer is not None else None


# --- holding -------------------------------------------------------------------------------


def hold(project_dir: Path, scheme_name: str, engine: Engine) -> int:
    """Run a scheme by `engine` while holding the project; the engine's exit code.

    Raises:
        SchemerError: there is no such scheme, the project is held, or another program has the
            scheme's lock.
    """
    project_dir = project_dir.resolve()
    directory = scheme_dir(project_dir, scheme_name)
    if not (directory / SCHEME_FILE).exists():
        raise SchemerError(
            f"{directory / SCHEME_FILE}: there is no such scheme",
            hint=f"the schemes are the directories in {project_dir / SCHEMES_DIR}",
        )
    with project_lock(project_dir, scheme_name):
        clear_scheme_lock(project_dir, scheme_name)
        record = _Record(directory, engine, scheme_name)
        code: int = 1
        error: str | None = None
        try:
            with _terminated_is_an_exit(), _output_to(directory):
                try:
                    code = engine.run(project_dir, scheme_name, on_start=record.engine_runs_as)
                except CrboostError as problem:
                    error = str(problem)
                    print(f"ERROR: {error}", file=sys.stderr)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
            error = "terminated"
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            record.ended(code, error)
        return code


class _Record:
    """schemer.pid and schemer.exit of one run."""

    def __init__(self, directory: Path, engine: Engine, scheme_name: str) -> None:
        self._directory = directory
        self._me = ProcessId.of(os.getpid())
        self._content: dict[str, Any] = {
            **asdict(self._me),
            "engine": engine.name,
            "argv": engine.argv(scheme_name),
            "engine_process": None,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (directory / EXIT_FILE).unlink(missing_ok=True)
        write_json(directory / PID_FILE, self._content)

    def engine_runs_as(self, pid: int) -> None:
        if pid == self._me.pid:
            return  # the project's lock tells whether this one lives
        try:
            self._content["engine_process"] = asdict(ProcessId.of(pid))
        except ProcessLookupError:
            return  # it has ended already
        write_json(self._directory / PID_FILE, self._content)

    def ended(self, code: int, error: str | None) -> None:
        write_json(
            self._directory / EXIT_FILE,
            {
                "exit_code": code,
                "error": error,
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "pid": self._me.pid,
                "start_ticks": self._me.start_ticks,
            },
        )


@contextmanager
def _output_to(directory: Path) -> Iterator[None]:
    """This process's stdout and stderr, and those of its children, appended to the log files."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = []
    try:
        for descriptor, name in ((1, OUT_FILE), (2, ERR_FILE)):
            saved.append((descriptor, os.dup(descriptor)))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            target = os.open(directory / name, flags, 0o666)
            os.dup2(target, descriptor)
            os.close(target)
        # The Python streams too: they need not be on descriptors 1 and 2.
        with (
            open(1, "w", closefd=False) as out,
            open(2, "w", closefd=False) as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            yield
    finally:
        for descriptor, original in saved:
            os.dup2(original, descriptor)
            os.close(original)


@contextmanager
def _terminated_is_an_exit() -> Iterator[None]:
    """SIGTERM and SIGINT end the run like an exit, so that locks are given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clear_scheme_lock(project_dir: Path, scheme_name: str) -> bool:
    """Remove a scheme lock that a dead schemer left; True if there was one. Hold the project.

    RELION's own locks name no owner. One is stale when the schemer that a holder started here
    for this scheme is gone. A lock that this scheme's last holder took on another machine is
    stale because that holder, were it alive, would hold the project.

    Raises:
        SchemerError: the lock's owner lives, or cannot be known.
    """
    lock.sweep(project_dir)
    directory = lock.scheme_lock_dir(project_dir, scheme_name)
    if not directory.exists():
        return False
    if lock.remove_stale(directory):
        return True
    who = _read(scheme_dir(project_dir, scheme_name) / PID_FILE)
    owner = lock.lock_owner(directory)
    engine = _engine_process(scheme_dir(project_dir, scheme_name))
    is_relions = owner is None and engine is not None and engine.alive() is not True
    if is_relions or (owner is not None and not owner.on_this_host and owner == _writer(who)):
        lock.release(directory)
        return True
    raise SchemerError(
        f"{directory}: another program has locked this scheme ({lock.describe(directory)})",
        hint="a relion_schemer or RELION GUI may be running it; if not, remove that directory",
    )


def end_engine(project_dir: Path, scheme_name: str, *, wait_s: float = 10.0) -> bool:
    """End an engine whose holder is gone; True if there was one. Hold the project.

    A native `relion_schemer` dies with its holder. In a container it does not (apptainer forgets
    the signal that is to follow its parent's death), and would go on with nobody to see that a
    job is lost. Its jobs do not care.
    """
    engine = _engine_process(scheme_dir(project_dir, scheme_name))
    if engine is None or engine.alive() is not True:
        return False
    deadline = time.monotonic() + wait_s
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(engine.pid, number)
        while engine.alive() and time.monotonic() < deadline:
            time.sleep(_PROBE_STEP_S)
        deadline = time.monotonic() + wait_s
        if not engine.alive():
            break
    return True


def _engine_process(directory: Path) -> ProcessId | None:
    content = _read(directory / PID_FILE).get("engine_process")
    return _writer(content) if isinstance(content, dict) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (FileNotFoundError, FileFormatError):
        return {}
    return content if isinstance(content, dict) else {}


# --- following -----------------------------------------------------------------------------


def holder_state(project_dir: Path, scheme_name: str) -> HolderState:
    """What is known of the scheme's schemer: does it run, where, and how did it end."""
    directory = scheme_dir(project_dir, scheme_name)
    alive = active_scheme(project_dir) == scheme_name
    who = _read(directory / PID_FILE)
    if alive:
        holder = _read_lock(project_dir / PROJECT_LOCK)
        if _writer(holder) != _writer(who):
            who = holder  # it has the project, and is about to write schemer.pid
    how = _read(directory / EXIT_FILE)
    if alive or (how.get("pid"), how.get("start_ticks")) != (
        who.get("pid"),
        who.get("start_ticks"),
    ):
        how = {}
    return HolderState(
        scheme=scheme_name,
        alive=alive,
        pid=who.get("pid"),
        host=who.get("host"),
        engine=who.get("engine"),
        started=who.get("started"),
        ended=how.get("ended"),
        exit_code=how.get("exit_code"),
        error=how.get("error"),
    )


# --- starting it detached ------------------------------------------------------------------


def start_argv(project_dir: Path, scheme_name: str, engine: str) -> list[str]:
    """The command that holds a project and runs a scheme in it.

    Args:
        engine: an engine's name: `embedded` or `relion`.
    """
    return [
        sys.executable,
        "-P",  # what lies in the project directory must not pass for a Python package
        "-m",
        "crboost",
        "schemer",
        "run",
        str(project_dir.resolve()),
        scheme_name,
        "--engine",
        engine,
    ]


def detached_shell_line(argv: Sequence[str], log: Path) -> str:
    """One bash line that starts `argv` in a session of its own and prints its process id.

    Its output is appended to `log`; the line itself ends at once. Nothing in `argv` is
    interpreted by the shell.
    """
    command = shlex.join(argv)
    target = shlex.quote(str(log))
    return f"setsid -- {command} </dev/null >>{target} 2>&1 & echo $!"
