"""The settings file, what overrides it, and the schemer engine that results."""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.doctor.probe import last_words, run
from crboost.errors import CrboostError, FileFormatError, ParameterError
from crboost.scheduler.ask import Answer
from crboost.settings import Settings, load_settings, settings_file

#: Variables with our prefix that are no settings.
_OTHER_VARIABLES = {"CRBOOST_SETTINGS"}


@dataclass(frozen=True)
class SettingsFacts:
    """What the settings are made of.

    Attributes:
        named: CRBOOST_SETTINGS names the file.
        variables: CRBOOST_ variables that set something.
        strangers: CRBOOST_ variables that look as if they should.
        error, hint: why the settings cannot be used.
        usable: whether the settings could be read all the same.
    """

    file: Path
    exists: bool
    named: bool
    variables: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""
    usable: bool = True


@dataclass(frozen=True)
class Site:
    """The settings, if they can be read, and what they are made of."""

    settings: Settings | None
    facts: SettingsFacts
    environ: Mapping[str, str] = field(default_factory=dict)


def read_site(environ: Mapping[str, str]) -> Site:
    """Read this installation's settings; never raises for what is wrong with them."""
    file = settings_file()
    settings: Settings | None = None
    error, hint = "", ""
    try:
        settings = load_settings()
    except (ParameterError, FileFormatError) as problem:
        error, hint = problem.message, problem.hint or "correct that line"
    except OSError as problem:
        error, hint = f"{file}: {problem.strerror}", f"make {file} a file that you can read"
    except UnicodeDecodeError as problem:
        error, hint = f"{file}: {problem}", "save it as UTF-8"
    except CrboostError as problem:
        # The values are allowed, but the engine that they choose is not there: look on.
        error, hint, settings = problem.message, problem.hint or "", Settings()
    variables, strangers = sort_variables(environ)
    facts = SettingsFacts(
        file,
        file.exists(),
        "CRBOOST_SETTINGS" in environ,
        variables,
        strangers,
        error,
        hint,
        settings is not None,
    )
    return Site(settings, facts, environ)


def sort_variables(environ: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """CRBOOST_ variables that are settings, and those that were probably meant to be."""
    fields = [name.upper() for name in Settings.model_fields]
    ours, strangers = [], []
    for name in sorted(environ):
        if not name.upper().startswith("CRBOOST_") or name in _OTHER_VARIABLES:
            continue
        first = name.upper().removeprefix("CRBOOST_").split("__")[0]
        if first in fields:
            ours.append(name)
        elif "__" in name or difflib.get_close_matches(first, fields, 1, 0.8):
            strangers.append(name)
    return tuple(ours), tuple(strangers)


def judge_settings(facts: SettingsFacts) -> list[Finding]:
    """Findings on the settings' file and variables."""
    findings = [_judge_file(facts)]
    if facts.strangers:
        known = ", ".join(name.upper() for name in Settings.model_fields)
        findings.append(
            warning(
                "settings.environment",
                f"{', '.join(facts.strangers)}: no such setting; ignored",
                f"after CRBOOST_ comes one of {known}, then __ and the name of the field",
            )
        )
    elif facts.variables:
        findings.append(ok("settings.environment", f"set by {', '.join(facts.variables)}"))
    return findings


def _judge_file(facts: SettingsFacts) -> Finding:
    check = "settings.file"
    if facts.error and not facts.usable:
        return failed(check, facts.error, facts.hint)
    if facts.exists:
        return ok(check, str(facts.file))
    if facts.named:
        return failed(
            check,
            f"CRBOOST_SETTINGS names {facts.file}, which is not there: the defaults are used",
            "correct CRBOOST_SETTINGS, or unset it",
        )
    return ok(check, f"none ({facts.file}): the defaults, for work on this machine")


def judge_engine(settings: Settings, facts: SettingsFacts) -> Finding:
    """The finding on who walks the schemes."""
    check = "settings.schemer"
    if facts.error:
        return failed(check, facts.error, facts.hint)
    if settings.engine == "embedded":
        return ok(check, f"embedded (schemer = {settings.schemer}): RELION is not needed")
    relion = settings.tools["relion"]
    where = relion.image if relion.image and settings.containers.engine != "none" else "this host"
    return ok(check, f"relion_schemer of {where} (schemer = {settings.schemer})")


def ask_interpreter(settings: Settings) -> Answer | None:
    """What the interpreter of the jobs says of crboost; None if it is this process's own."""
    if settings.python == sys.executable:
        return None
    found = shutil.which(settings.python)
    if found is None:
        return Answer(127, "", "it is not there, or may not be run by this user")
    code = "import crboost; print(crboost.__version__)"
    return run([found, "-P", "-c", code], timeout_s=30)


def judge_interpreter(settings: Settings, answer: Answer | None, version: str) -> Finding:
    """The finding on the Python that jobs are run with.

    Args:
        version: of the crboost that looks.
    """
    check = "settings.python"
    if not Path(settings.python).is_absolute():
        return failed(
            check,
            f"python = {settings.python!r} depends on each job's PATH",
            "give its absolute path",
        )
    if answer is None:
        return ok(check, f"{settings.python}: this one")
    if answer.code != 0:
        return failed(
            check,
            f"python = {settings.python!r} cannot import crboost: {last_words(answer, 1)}",
            "name the interpreter of the environment that crboost is installed in; all users must "
            "be able to run it, and the Python that it links to",
        )
    if answer.out.strip() != version:
        return failed(
            check,
            f"{settings.python} has crboost {answer.out.strip()}, here is {version}",
            "install the same version there",
        )
    return ok(check, f"{settings.python}, crboost {version}")
