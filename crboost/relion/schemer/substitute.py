"""What RELION replaces in a scheme's values before it uses them: `$$variables` and job names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crboost.errors import SchemerError
from crboost.relion.scheme import SCHEMES_DIR, Scheme

# The options of relion.external that are not text, which limits the variables that fit.
_SWITCHES = frozenset({"do_queue"})
_NUMBERS = frozenset({"nr_threads", "min_dedicated"})

_MOST_VARIABLES = 100


def format_variable(value: float | bool | str) -> str:
    """A variable's value in a message or an option: numbers as C++ streams print floats."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return value if isinstance(value, str) else f"{value:g}"


def substitute_variables(value: str, scheme: Scheme, option: str) -> str:
    """`value` with each `$$name` replaced by that variable; a name ends at a space.

    Args:
        option: the job option that the value is for.

    Raises:
        SchemerError: no such variable, or its type does not fit the option.
    """
    for _ in range(_MOST_VARIABLES):
        before, found, after = value.partition("$$")
        if not found:
            return value
        words = [word for word in after.split(" ") if word]
        if not words:
            raise SchemerError(f"{scheme.directory}: option {option}: no name after $$ in {value}")
        value = " ".join([before + _variable(words[0], scheme, option), *words[1:]])
    raise SchemerError(f"{scheme.directory}: option {option}: variables refer to one another")


def _variable(name: str, scheme: Scheme, option: str) -> str:
    where = f"{scheme.directory}: option {option}"
    if name in scheme.bools:
        if option not in _SWITCHES:
            raise SchemerError(f"{where} is not a switch; the variable {name} is a boolean")
        return "Yes" if scheme.bools[name].value else "No"
    if name in scheme.floats:
        if option in _SWITCHES:
            raise SchemerError(f"{where} is a switch; the variable {name} is a number")
        return format_variable(scheme.floats[name].value)
    if name in scheme.strings:
        if option in _SWITCHES or option in _NUMBERS:
            raise SchemerError(f"{where} cannot take the variable {name}, which is a string")
        return scheme.strings[name].value
    known = ", ".join([*scheme.floats, *scheme.bools, *scheme.strings]) or "none"
    raise SchemerError(f"{where}: there is no variable {name}", hint=f"the scheme has: {known}")


def substitute_job_names(
    value: str, scheme: Scheme, jobs_of: Callable[[str], Mapping[str, str]]
) -> str:
    """`value` with `Schemes/NAME/<job>/` replaced by the directory that the job has now.

    A job of this scheme that has not started yet still has its own name for a directory, and
    the path becomes one that does not exist, as in RELION. A path into the scheme's directory
    that names none of its jobs stays as it is.

    Args:
        jobs_of: another scheme's jobs, original name -> present directory.

    Raises:
        SchemerError: a job of another scheme that does not exist there.
    """
    if scheme.directory in value:
        job = _job_part(value, scheme.directory)
        if job not in scheme.jobs:
            return value
        return value.replace(f"{scheme.directory}{job}/", scheme.jobs[job].current_name)
    if f"{SCHEMES_DIR}/" not in value:
        return value
    other = value.partition(f"{SCHEMES_DIR}/")[2].partition("/")[0]
    directory = f"{SCHEMES_DIR}/{other}/"
    job = _job_part(value, directory)
    known = jobs_of(other)
    if job not in known:
        raise SchemerError(
            f"{value}: the scheme {other} has no job {job}",
            hint=f"it has: {', '.join(sorted(known)) or 'none'}",
        )
    current = known[job] if known[job].endswith("/") else f"{known[job]}/"
    return value.replace(f"{directory}{job}/", current)


def unstarted_job(value: str, scheme: Scheme) -> str | None:
    """The job of this scheme that `value` points into although it has no directory yet."""
    if scheme.directory not in value:
        return None
    job = _job_part(value, scheme.directory)
    known = scheme.jobs.get(job)
    return job if known is not None and known.current_name == job else None


def _job_part(value: str, directory: str) -> str:
    """`<job>` of `...<directory><job>/<file>`."""
    return value.partition(directory)[2].rpartition("/")[0]
