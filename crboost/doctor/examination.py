"""All points in the order in which an administrator would mend them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost import __version__
from crboost.doctor.findings import Finding, failed, ok, skipped
from crboost.errors import CrboostError
from crboost.settings import Settings

SUBMIT_HINT = "crboost doctor PROJECT --submit"
#: Where one of these has failed, a job could only fail for the same reason.
BLOCKING = frozenset(
    (
        "settings.file",
        "settings.schemer",
        "settings.python",
        "containers.engine",
        "tools.relion",
        "project.writable",
        "scheduler.commands",
        "scheduler.answers",
        "scheduler.partition",
        "scheduler.template",
        "scheduler.template_relion",
        "scheduler.extra",
        "scheduler.from_container",
    )
)


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at.

    Attributes:
        project: a project, or a directory where projects will be; None: none.
        submit: run a few small jobs too.
        timeout_s: how long those may take.
    """

    project: Path | None = None
    submit: bool = False
    timeout_s: float = 180.0


def examine(wanted: Wanted, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Look at every point of this installation; findings come as they are made."""
    environ = dict(os.environ if environ is None else environ)
    blocked: list[str] = []
    for finding in _before_the_trial(wanted, environ):
        if finding.status == "failed" and finding.check in BLOCKING:
            blocked.append(finding.check)
        yield finding
    yield from _trial(wanted, environ, blocked)


def _before_the_trial(wanted: Wanted, environ: Mapping[str, str]) -> Iterator[Finding]:
    from crboost.doctor.site import judge_settings, read_site

    yield from _python(environ)
    site = read_site(environ)
    yield from judge_settings(site.facts)
    project = _directory_of(wanted)
    if site.settings is not None:
        from crboost.doctor.site import ask_interpreter, judge_engine, judge_interpreter

        yield judge_engine(site.settings, site.facts)
        yield judge_interpreter(site.settings, ask_interpreter(site.settings), __version__)
        yield from _tools(site.settings, environ)
    if site.settings is not None:
        yield from _service(site.settings)
    writable = True
    for finding in _directory(project):
        writable = writable and finding.status != "failed"
        yield finding
    if site.settings is not None:
        yield from _scheduler(site.settings, project if writable else None, environ)


def _directory_of(wanted: Wanted) -> Path | None:
    return wanted.project.expanduser().absolute() if wanted.project is not None else None


def _python(environ: Mapping[str, str]) -> Iterator[Finding]:
    from crboost.doctor.python import ask_api, judge_api, judge_python, python_facts

    facts = python_facts()
    yield from judge_python(facts)
    url = environ.get("PREFECT_API_URL")
    installed = next((one.installed for one in facts.requirements if one.name == "prefect"), None)
    yield judge_api(ask_api(url, environ) if url else None, installed or "")


def _tools(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    if not settings.tools:
        yield ok("tools.none", "none in the settings: the embedded CPU tools do the work")
        return
    from crboost.doctor.tools import (
        ask_ctffind,
        ask_tool,
        engine_version,
        judge_binds,
        judge_container_engine,
        judge_ctffind,
        judge_helpers,
        judge_tool,
        missing_binds,
    )

    uses_containers = settings.containers.engine != "none" and any(
        tool.image for tool in settings.tools.values()
    )
    usable = True
    if uses_containers:
        finding = judge_container_engine(settings, engine_version(settings))
        usable = finding.status == "ok"
        yield finding
    yield from judge_binds(missing_binds(settings), uses_containers)
    images_usable = set()
    for name, tool in settings.tools.items():
        if tool.image is not None and uses_containers and not usable:
            yield skipped(f"tools.{name}", "no program that runs its image")
        elif name != "ctffind" or "relion" not in settings.tools:
            facts = ask_tool(name, settings, environ)
            finding = judge_tool(facts, modules=bool(settings.scheduler.modules))
            if finding.status != "failed":
                images_usable.add(name)
            yield finding
            yield from judge_helpers(facts)
    if "relion" in images_usable:
        yield judge_ctffind(settings, ask_ctffind(settings, environ))


def _service(settings: Settings) -> Iterator[Finding]:
    from crboost.doctor.service import judge_service, service_facts

    yield from judge_service(service_facts(settings.service), wanted=False)


def _directory(project: Path | None) -> Iterator[Finding]:
    if project is None:
        yield skipped(
            "project.writable",
            "no PROJECT was given: directory, locks and space were not looked at",
            "crboost doctor PROJECT, or the directory where projects will be",
        )
        return
    from crboost.doctor.directory import directory_facts, judge_directory

    yield from judge_directory(directory_facts(project))


def _scheduler(
    settings: Settings, project: Path | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    scheduler = settings.scheduler
    if scheduler.kind == "local":
        cpus = len(os.sched_getaffinity(0))
        yield ok("scheduler.kind", f"local: jobs run on this machine ({cpus} CPUs)")
        return
    from crboost.doctor.cluster import (
        absent_commands,
        ask_cluster,
        judge_cluster,
        judge_commands,
        parse_nodes,
    )
    from crboost.doctor.requests import (
        judge_job_names,
        judge_job_types,
        judge_requests,
        requests,
    )
    from crboost.doctor.submission import judge_template, templates

    commands = judge_commands(scheduler, absent_commands(scheduler))
    yield commands
    every = requests(scheduler)
    yield from judge_job_names(scheduler)
    sound = True
    for facts in templates(settings, project):
        try:
            findings = judge_template(facts, settings, every)
        except CrboostError as error:
            findings = [failed("scheduler.extra", error.message, error.hint or "")]
        sound = sound and all(one.status != "failed" for one in findings)
        yield from findings
    if scheduler.kind != "slurm":
        yield from _other_scheduler(settings, project, environ)
        return
    if commands.status == "failed":
        return
    cluster = ask_cluster()
    yield from judge_cluster(cluster, scheduler.poll_s)
    if cluster.sinfo.code != 0:
        return
    wrong = False
    kinds = parse_nodes(cluster.sinfo.out)
    yield from judge_job_types(kinds, scheduler, every)
    for finding in judge_requests(every, kinds, scheduler):
        wrong = wrong or finding.status == "failed"
        yield finding
    if sound:
        yield from _submission(settings, project, environ, quiet=wrong)


def _submission(
    settings: Settings, project: Path | None, environ: Mapping[str, str], *, quiet: bool
) -> Iterator[Finding]:
    """Whether sbatch takes jobs, here and in RELION's container.

    Args:
        quiet: the requests are known to be wrong; what sbatch says of them is not told again.
    """
    from crboost.doctor.requests import requests
    from crboost.doctor.submission import (
        container_launch,
        dry_run,
        judge_dry_run,
        judge_inside,
        script_of,
    )

    every = requests(settings.scheduler)
    scripts = [(request, script_of(request, settings, project)) for request in every]
    answers = [(request, dry_run(script, settings)) for request, script in scripts]
    if not quiet:
        yield judge_dry_run(answers)
    if not _schemer_in_container(settings):
        return
    launch = container_launch(settings, project, environ)
    if isinstance(launch, str):
        yield judge_inside(launch, None)
    else:
        yield judge_inside(dry_run(scripts[0][1], settings, launch), answers[0][1])


def _other_scheduler(
    settings: Settings, project: Path | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """PBS, Grid Engine, LSF: nothing is asked of them but whether their command is there."""
    from crboost.doctor.submission import ask_inside, container_launch, judge_command_inside

    if _schemer_in_container(settings):
        launch = container_launch(settings, project, environ)
        said = launch if isinstance(launch, str) else ask_inside(settings, launch)
        yield judge_command_inside(settings, said)
    yield skipped(
        "scheduler.answers",
        f"queues and limits of {settings.scheduler.kind} are not asked for",
        f"have a job run: {SUBMIT_HINT}",
    )


def _schemer_in_container(settings: Settings) -> bool:
    """Whether relion_schemer would submit from inside an image that is there."""
    relion = settings.tools.get("relion")
    if settings.engine != "relion" or relion is None or relion.image is None:
        return False
    return settings.containers.engine != "none" and relion.image.exists()


def _trial(wanted: Wanted, environ: Mapping[str, str], blocked: Sequence[str]) -> Iterator[Finding]:
    project = _directory_of(wanted)
    if not wanted.submit or project is None:
        yield skipped(
            "trial.driver",
            "no job was run: whether one starts, and can write into the project, is not known",
            SUBMIT_HINT,
        )
    elif blocked:
        why = f"no job was run: {', '.join(blocked)} failed, and so would it"
        yield skipped("trial.driver", why, "mend that first")
    else:
        from crboost.doctor.site import read_site
        from crboost.doctor.trial import run_trial
        from crboost.doctor.verdict import judge_trial

        settings = read_site(environ).settings
        assert settings is not None, "settings.file blocks"
        facts = run_trial(settings, project, timeout_s=wanted.timeout_s)
        yield from judge_trial(facts, settings, __version__)
