"""The container engine, what containers see, and whether each tool answers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.containers import clean_environment, wrap
from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.doctor.probe import last_words, run
from crboost.scheduler.ask import NOT_FOUND, TIMED_OUT, Answer
from crboost.settings import BindSetting, Settings

#: An image on a cold file system takes its time.
ANSWER_S = 60.0
OLDEST_RELION = 5


@dataclass(frozen=True)
class Program:
    """A program by which a tool is known.

    Attributes:
        version: its arguments for telling its version; empty: it is only looked for.
    """

    name: str
    version: tuple[str, ...] = ()


#: The first is what the settings' `executable` replaces.
PROGRAMS: Mapping[str, tuple[Program, ...]] = {
    "cpu": (Program("python3", ("-c", "import crboost.cpu; print(crboost.__version__)")),),
    "relion": (Program("relion_schemer", ("--version",)), Program("relion_refine", ("--version",))),
    "warp": (Program("WarpTools", ("--version",)),),
    "aretomo2": (Program("AreTomo2"),),
    "aretomo3": (Program("AreTomo3"),),
    "imod": (Program("imodinfo"),),
    "cryocare": (Program("cryoCARE_train.py"),),
    "pytom": (Program("pytom_match_template.py"),),
    "membrain": (Program("membrain"),),
    "ctffind": (Program("ctffind"),),
}


@dataclass(frozen=True)
class ToolFacts:
    """One tool, asked.

    Attributes:
        image: None: it runs natively.
        image_problem: why the image cannot be used; empty: it can be looked into.
        starts: what `true` in the image said; None for a native tool, or without an image.
        answers: by program, what it said.
        declared: the version in the settings.
    """

    name: str
    image: Path | None
    image_problem: str = ""
    starts: Answer | None = None
    answers: Mapping[str, Answer] | None = None
    declared: str | None = None


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
    if image is None:
        answers = {program.name: _ask_native(program, tool.environment) for program in programs}
        return ToolFacts(name, None, answers=answers, declared=tool.version)
    if not image.exists():
        return ToolFacts(name, image, "there is no such image on this machine")
    if not os.access(image, os.R_OK):
        return ToolFacts(name, image, "the image cannot be read")
    outside = clean_environment(environ)

    def inside(*argv: str) -> Answer:
        command = wrap(argv, name, settings, cwd=Path("/"))
        return run(command, timeout_s=ANSWER_S, environ=outside)

    starts = inside("true")
    answers = {}
    if starts.code == 0:
        answers = {program.name: inside(*_words(program)) for program in programs}
    return ToolFacts(name, image, "", starts, answers, tool.version)


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
    versions: list[str] = []
    for program, answer in (facts.answers or {}).items():
        problem = _program_problem(program, answer)
        if problem and modules and facts.image is None:
            return warning(
                check,
                f"{problem} here; the jobs' modules may bring it",
                "load the modules before `crboost doctor` to have it checked",
            )
        if problem:
            return failed(
                check,
                f"{problem} ({where})",
                f"set {check}.executable to its path"
                + (" in the image, or take an image that has it" if facts.image else ""),
            )
        versions.append(_version_in(answer.out))
    return _judge_version(check, facts, next(filter(None, versions), ""), where)


def _program_problem(program: str, answer: Answer) -> str:
    if answer.code == TIMED_OUT:
        return f"{program} gave no answer within {ANSWER_S:g} s"
    if answer.code in (NOT_FOUND, 126, 255) or (answer.code == 1 and not answer.out):
        return f"{program} cannot be found or run: {last_words(answer, 1)}"
    if answer.code < 0:
        return f"{program} was ended by signal {-answer.code}"
    return ""


def _version_in(text: str) -> str:
    match = re.search(r"\d+\.\d+[\w.+-]*", text)
    return match[0] if match and not text.startswith("/") else ""


def _judge_version(check: str, facts: ToolFacts, version: str, where: str) -> Finding:
    said = f"{facts.name} {version or 'is there'} ({where})"
    if facts.name == "relion" and version and int(version.split(".")[0]) < OLDEST_RELION:
        return failed(check, said, f"crboost writes the tables of RELION {OLDEST_RELION}: take one")
    if facts.declared and version and not version.startswith(facts.declared):
        return warning(
            check, f"{said}, but {check}.version = {facts.declared!r}", "correct the settings"
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
