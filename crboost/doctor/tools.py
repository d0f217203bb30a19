"""The container engine, what containers see, and whether each tool answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.containers import clean_environment, wrap
from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.doctor.probe import last_words, run
from crboost.doctor.programs import (
    HELPERS,
    PROGRAMS,
    Program,
    is_known,
    known_versions,
    version_in,
    version_question,
)
from crboost.scheduler.ask import NOT_FOUND, TIMED_OUT, Answer
from crboost.settings import BindSetting, Settings

#: An image on a cold file system takes its time.
ANSWER_S = 60.0
OLDEST_RELION = 5


@dataclass(frozen=True)
class ToolFacts:
    """One tool, asked.

    Attributes:
        image: None: it runs natively.
        image_problem: why the image cannot be used; empty: it can be looked into.
        starts: what `true` in the image said; None for a native tool, or without an image.
        answers: by program, what it said.
        declared: the version in the settings.
        told: what was said to the question for the version, where the programs are not asked.
        helpers: by program that the tool itself calls, whether it was found.
    """

    name: str
    image: Path | None
    image_problem: str = ""
    starts: Answer | None = None
    answers: Mapping[str, Answer] | None = None
    declared: str | None = None
    told: Answer | None = None
    helpers: Mapping[str, Answer] | None = None


def missing_binds(settings: Settings) -> list[tuple[str, Path]]:
    """Paths that containers are to see and that are not on this machine, by setting."""
    named: list[tuple[str, Sequence[BindSetting]]] = [
        ("containers.binds", settings.containers.binds),
        ("relion.client_binds", settings.relion.client_binds or []),
    ]
    named += [(f"tools.{name}.binds", tool.binds) for name, tool in settings.tools.items()]
    return [
        (setting, bind.source)
        for setting, binds in named
        for bind in binds
        if not bind.source.exists()
    ]


def judge_binds(missing: Sequence[tuple[str, Path]], uses_containers: bool) -> list[Finding]:
    """The finding on the settings' binds."""
    if missing:
        text = "; ".join(f"{setting}: {path}" for setting, path in missing)
        return [
            failed(
                "containers.binds",
                f"not on this machine: {text}",
                "correct or remove them: no container starts with a bind that is missing",
            )
        ]
    return [ok("containers.binds", "all are there")] if uses_containers else []


def engine_version(settings: Settings) -> Answer:
    """What `apptainer --version` says."""
    command = shutil.which(settings.containers.command) or settings.containers.command
    return run([command, "--version"], timeout_s=20)


def judge_container_engine(settings: Settings, answer: Answer) -> Finding:
    """The finding on the program that runs containers."""
    check = "containers.engine"
    command = settings.containers.command
    if answer.code == NOT_FOUND:
        return failed(
            check,
            f"{command} cannot be found",
            f"install {settings.containers.engine}, or set containers.executable to its absolute "
            "path, the same on every compute node",
        )
    if answer.code != 0:
        return failed(
            check, f"{command} --version: {last_words(answer)}", "mend the installation of it"
        )
    return ok(check, f"{answer.out.strip()} ({shutil.which(command) or command})")


def ask_tool(name: str, settings: Settings, environ: Mapping[str, str]) -> ToolFacts:
    """Look for one tool of the settings and ask its version."""
    tool = settings.tools[name]
    image = tool.image if settings.containers.engine != "none" else None
    programs = programs_of(name, tool.executable)
    question = version_question(name, programs[0].name)
    helpers = [Program(helper) for helper in HELPERS.get(name, ())]
    if image is None:

        def natively(argv: Sequence[str]) -> Answer:
            return run(argv, timeout_s=ANSWER_S, environ={**os.environ, **tool.environment})

        return ToolFacts(
            name,
            None,
            answers={one.name: _ask_native(one, tool.environment) for one in programs},
            declared=tool.version,
            told=natively(question) if question else None,
            helpers={one.name: _ask_native(one, tool.environment) for one in helpers},
        )
    if not image.exists():
        return ToolFacts(name, image, "there is no such image on this machine")
    if not os.access(image, os.R_OK):
        return ToolFacts(name, image, "the image cannot be read")
    outside = clean_environment(environ)

    def inside(*argv: str) -> Answer:
        command = wrap(argv, name, settings, cwd=Path("/"))
        return run(command, timeout_s=ANSWER_S, environ=outside)

    starts = inside("true")
    if starts.code != 0:
        return ToolFacts(name, image, "", starts, {}, tool.version)
    return ToolFacts(
        name,
        image,
        "",
        starts,
        {program.name: inside(*_words(program)) for program in programs},
        tool.version,
        inside(*question) if question else None,
        {helper.name: inside(*_words(helper)) for helper in helpers},
    )


def programs_of(name: str, executable: str | None) -> list[Program]:
    """The programs by which a tool is known, with what the settings say instead."""
    first, *others = PROGRAMS[name]
    return [Program(executable, first.version) if executable else first, *others]


def _words(program: Program) -> list[str]:
    if program.version:
        return [program.name, *program.version]
    return ["sh", "-c", 'command -v "$1"', "sh", program.name]


def _ask_native(program: Program, environment: Mapping[str, str]) -> Answer:
    found = shutil.which(program.name)
    if found is None:
        return Answer(NOT_FOUND, "", "not found")
    if not program.version:
        return Answer(0, found, "")
    environ = {**os.environ, **environment}
    return run([found, *program.version], timeout_s=ANSWER_S, environ=environ)


def judge_tool(facts: ToolFacts, *, modules: bool = False) -> Finding:
    """The finding on one tool.

    Args:
        modules: jobs load environment modules, so that programs may be there only then.
    """
    check = f"tools.{facts.name}"
    where = str(facts.image or "on this machine")
    if facts.image_problem:
        return failed(
            check,
            f"{facts.image}: {facts.image_problem}",
            f"correct {check}.image; compute nodes must see it under the same path",
        )
    if facts.starts is not None and facts.starts.code != 0:
        return failed(
            check,
            f"{facts.image}: nothing runs in it: {last_words(facts.starts)}",
            "try `apptainer exec IMAGE true`; a bind that is missing, an image that was copied "
            "in part, or user namespaces that are switched off are the usual reasons",
        )
    said = facts.answers or {}
    problems = {program: _program_problem(program, answer) for program, answer in said.items()}
    wrong = [problem for problem in problems.values() if problem]
    if wrong and modules and facts.image is None:
        return warning(
            check,
            f"{wrong[0]} here; the jobs' modules may bring it",
            "load the modules before `crboost doctor` to have it checked",
        )
    if wrong:
        others = [program for program, problem in problems.items() if problem][1:]
        more = f"; nor {', '.join(others)}" if others else ""
        return failed(
            check,
            f"{wrong[0]}{more} ({where})",
            f"set {check}.executable to its path"
            + (" in the image, or take an image that has it" if facts.image else ""),
        )
    versions = [version_in(answer.out) for answer in said.values()]
    if facts.told is not None and facts.told.code == 0:
        versions.insert(0, version_in(facts.told.out))
    return _judge_version(check, facts, next(filter(None, versions), ""), where)


def judge_helpers(facts: ToolFacts) -> list[Finding]:
    """Findings on the programs that a tool calls itself, for some of its work."""
    check = f"tools.{facts.name}.calls"
    if not facts.helpers or any(
        _program_problem(program, answer) for program, answer in (facts.answers or {}).items()
    ):
        return []
    where = str(facts.image or "on this machine")
    absent = [name for name, answer in facts.helpers.items() if answer.code != 0]
    if not absent:
        return [ok(check, f"{', '.join(facts.helpers)} ({where})")]
    uses = dict.fromkeys(HELPERS[facts.name][name] for name in absent)
    return [
        warning(
            check,
            f"{', '.join(absent)} cannot be found ({where}): not possible are {'; '.join(uses)}",
            f"take an image that has them: {facts.name} runs them where it runs itself"
            if facts.image
            else "put them on PATH, or leave these methods alone",
        )
    ]


def _program_problem(program: str, answer: Answer) -> str:
    if answer.code == TIMED_OUT:
        return f"{program} gave no answer within {ANSWER_S:g} s"
    if answer.code in (NOT_FOUND, 126, 255) or (answer.code == 1 and not answer.out):
        return f"{program} cannot be found or run: {last_words(answer, 1)}"
    if answer.code < 0:
        return f"{program} was ended by signal {-answer.code}"
    return ""


def _judge_version(check: str, facts: ToolFacts, version: str, where: str) -> Finding:
    said = f"{facts.name} {version or 'is there'} ({where})"
    if facts.name == "relion" and version and int(version.split(".")[0]) < OLDEST_RELION:
        return failed(check, said, f"crboost writes the tables of RELION {OLDEST_RELION}: take one")
    if facts.declared and version and not version.startswith(facts.declared):
        return warning(
            check, f"{said}, but {check}.version = {facts.declared!r}", "correct the settings"
        )
    known = ", ".join(known_versions(facts.name))
    if version and not is_known(facts.name, version):
        return warning(
            check,
            f"{said}: crboost's commands were made for {known}",
            "take one of these; with another version a command may be refused, or mean something "
            "else",
        )
    if facts.name == "warp" and not facts.declared:
        meant = f'"{version}"' if version else f"one of {known}"
        return warning(
            check,
            f"{said}, but {check}.version is not set: plans accept options of any version",
            f"{check}.version = {meant}",
        )
    return ok(check, said)


def ask_ctffind(settings: Settings, environ: Mapping[str, str]) -> Answer:
    """Whether RELION's jobs find their ctffind: in RELION's container, if it has one."""
    program = ctffind_of(settings)
    look = _words(Program(program))
    relion = settings.tools["relion"]
    if relion.image is None or settings.containers.engine == "none":
        return _ask_native(Program(program), {})
    argv = wrap(look, "relion", settings, cwd=Path("/"))
    return run(argv, timeout_s=ANSWER_S, environ=clean_environment(environ))


def ctffind_of(settings: Settings) -> str:
    """The ctffind that RELION's jobs are told to run."""
    tool = settings.tools.get("ctffind")
    return (tool.executable if tool is not None else None) or "ctffind"


def judge_ctffind(settings: Settings, answer: Answer) -> Finding:
    """The finding on the ctffind of RELION's jobs."""
    check = "tools.ctffind"
    program = ctffind_of(settings)
    relion = settings.tools["relion"]
    inside = relion.image is not None and settings.containers.engine != "none"
    where = "in RELION's container" if inside else "on this machine"
    if answer.code == 0:
        return ok(check, f"{answer.out.strip() or program} ({where})")
    fix = f"set tools.ctffind.executable to the path of CTFFIND 4.1 {where}"
    if "ctffind" in settings.tools:
        return failed(check, f"{program} cannot be found {where}", fix)
    return warning(check, f"no ctffind {where}: the job ctfFind will fail", fix)
