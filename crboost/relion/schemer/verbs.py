"""What can be done to a scheme besides running it: `relion_schemer`'s other verbs.

Each takes the scheme's lock, keeps a copy of scheme.star as scheme.star.bck, and writes the
changed scheme. `abort` takes no lock: it speaks to a schemer that holds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from crboost.errors import SchemerError
from crboost.files import write_text
from crboost.relion.job import (
    EXTERNAL,
    JOB_FILE,
    Job,
    complete_external,
    read_job,
    write_job,
)
from crboost.relion.lock import scheme_lock
from crboost.relion.markers import request_abort
from crboost.relion.scheme import (
    SCHEME_FILE,
    JobMode,
    Scheme,
    Value,
    Variable,
    format_scheme,
    read_scheme,
    scheme_dir,
    write_scheme,
)

BACKUP_FILE = f"{SCHEME_FILE}.bck"
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def reset(project_dir: Path, scheme_name: str) -> None:
    """Back to the start: the next run makes new jobs."""
    _change(project_dir, scheme_name, lambda scheme: scheme.reset())


def set_current_node(project_dir: Path, scheme_name: str, node: str) -> None:
    """Where the next run starts.

    Raises:
        SchemerError: the scheme has no such node.
    """

    def change(scheme: Scheme) -> None:
        _require(node in scheme.jobs or node in scheme.operators, scheme, "node", node)
        scheme.current_node = node

    _change(project_dir, scheme_name, change)


def set_has_started(project_dir: Path, scheme_name: str, job: str, has_started: bool) -> None:
    """Whether the job goes on in its directory (mode continue) or gets a new number.

    Raises:
        SchemerError: the scheme has no such job.
    """

    def change(scheme: Scheme) -> None:
        _require(job in scheme.jobs, scheme, "job", job)
        scheme.jobs[job].has_started = has_started

    _change(project_dir, scheme_name, change)


def set_job_mode(project_dir: Path, scheme_name: str, job: str, mode: str) -> None:
    """Mode `new` or `continue`.

    Raises:
        SchemerError: the scheme has no such job, or there is no such mode.
    """
    if mode not in set(JobMode):
        raise SchemerError(f"{mode!r} is no job mode; there are {' and '.join(JobMode)}")

    def change(scheme: Scheme) -> None:
        _require(job in scheme.jobs, scheme, "job", job)
        scheme.jobs[job].mode = JobMode(mode)

    _change(project_dir, scheme_name, change)


def set_var(
    project_dir: Path, scheme_name: str, name: str, value: str, original: str | None = None
) -> None:
    """Give a variable a value, and with `original` also the one that a reset gives it.

    Raises:
        SchemerError: no such variable, or the value does not fit its type.
    """

    def change(scheme: Scheme) -> None:
        if name in scheme.bools:
            _set(scheme.bools[name], name, value, original, _flag)
        elif name in scheme.floats:
            _set(scheme.floats[name], name, value, original, _number)
        elif name in scheme.strings:
            _set(scheme.strings[name], name, value, original, lambda _name, text: text)
        else:
            _require(False, scheme, "variable", name)

    _change(project_dir, scheme_name, change)


def abort(project_dir: Path, scheme_name: str, say: Callable[[str], None] = print) -> None:
    """Ask the running job to stop, and the schemer to stop after it."""
    scheme = read_scheme(project_dir, scheme_name)
    say(f" + Aborting scheme while at: {scheme.current_node}")
    job = scheme.jobs.get(scheme.current_node)
    if job is not None and job.current_name != scheme.current_node:
        request_abort(project_dir / job.current_name)
        say(f" ++ Touched file: {job.current_name}RELION_JOB_ABORT_NOW")
    request_abort(scheme_dir(project_dir, scheme_name))
    say(f" ++ Touched file: {scheme.directory}RELION_JOB_ABORT_NOW")
    say(" ++ Now wait for the job and the schemer to abort ...")


def copy(
    project_dir: Path,
    scheme_name: str,
    new_name: str,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Copy a scheme with its jobs; paths into the old scheme lead into the new one.

    Raises:
        SchemerError: the new scheme exists, or a job file is missing.
    """
    target = scheme_dir(project_dir, new_name)
    if (target / SCHEME_FILE).exists():
        raise SchemerError(f"{target}: there is a scheme of this name already")
    with scheme_lock(project_dir, scheme_name, timeout_s=10):
        scheme = read_scheme(project_dir, scheme_name)
        old, new = scheme.directory, f"{scheme.directory[: -len(scheme.name) - 1]}{new_name}/"
        for variable in scheme.strings.values():
            variable.value = variable.value.replace(old, new)
            variable.original = variable.original.replace(old, new)
        named = {
            node for edge in scheme.edges for node in (edge.input, edge.output, edge.output_if_true)
        }
        for name in list(scheme.jobs):
            path = scheme_dir(project_dir, scheme_name) / name / JOB_FILE
            if not path.exists() and name not in named:
                # RELION takes a file in the scheme's directory for a job when a job names it.
                del scheme.jobs[name]
                continue
            if not path.exists():
                raise SchemerError(f"{path}: the scheme's job {name} has no job file")
            job = read_job(path)
            if job.type_label == EXTERNAL:
                job = complete_external(job, os.environ if environ is None else environ)
            moved = {key: value.replace(old, new) for key, value in job.options.items()}
            write_job(
                target / name / JOB_FILE,
                Job(job.type_label, moved, job.is_continue, job.is_tomo),
            )
        scheme.name = new_name
        write_scheme(project_dir, scheme)


def _change(project_dir: Path, scheme_name: str, change: Callable[[Scheme], None]) -> None:
    read_scheme(project_dir, scheme_name)  # complain before taking the lock
    with scheme_lock(project_dir, scheme_name, timeout_s=10):
        scheme = read_scheme(project_dir, scheme_name)
        write_text(scheme_dir(project_dir, scheme_name) / BACKUP_FILE, format_scheme(scheme))
        change(scheme)
        write_scheme(project_dir, scheme)


def _require(condition: bool, scheme: Scheme, kind: str, name: str) -> None:
    if condition:
        return
    known = {
        "node": [*scheme.jobs, *scheme.operators],
        "job": list(scheme.jobs),
        "variable": [*scheme.floats, *scheme.bools, *scheme.strings],
    }[kind]
    raise SchemerError(
        f"{scheme.directory}scheme.star has no {kind} {name}",
        hint=f"it has: {', '.join(known) or 'none'}",
    )


def _set(
    variable: Variable[Value],
    name: str,
    value: str,
    original: str | None,
    convert: Callable[[str, str], Value],
) -> None:
    variable.value = convert(name, value)
    if original is not None:
        variable.original = convert(name, original)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise SchemerError(f"the variable {name} is a boolean; {text!r} is neither true nor false")
    return text.lower() in _TRUE


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SchemerError(f"the variable {name} is a number; {text!r} is none") from None
