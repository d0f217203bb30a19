"""Templates, and whether the scheduler would take what they become; also from RELION's container.

`sbatch --test-only` asks the controller everything that a submission asks, and submits nothing.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.containers import RelionLaunch, relion_launch, schemer_environment
from crboost.doctor.cluster import ANSWER_S
from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.doctor.probe import last_words, run
from crboost.doctor.requests import Request
from crboost.errors import CrboostError
from crboost.relion.job import Submission, external_job, fill_submission_script
from crboost.scheduler.ask import TIMED_OUT, Answer
from crboost.scheduler.resources import extra_values
from crboost.scheduler.submission import find_template, setup_lines, template_name
from crboost.scheduler.template import Filling, fill_template, placeholders, template_problems
from crboost.settings import Settings

#: sbatch's words for what is wrong -> what to do.
_REFUSALS: Sequence[tuple[str, str]] = (
    (
        r"[Ii]nvalid partition|Invalid partition name",
        "name a partition that exists: scheduler.defaults.partition, scheduler.jobs",
    ),
    (
        r"configuration is not available|More processors|CPU count|memory specification",
        "ask for less (memory_gb, cpus, gpus, constraint), or for another partition",
    ),
    (
        r"[Aa]ccount",
        "give your account: scheduler.defaults.site = { account = ... }, `account` in "
        "scheduler.extra, and its #SBATCH line in a template of your own",
    ),
    (r"QOS|qos", "name a QOS in the same way as an account, or ask for less"),
    (r"[Tt]ime limit", "a smaller time_limit_minutes, or another partition"),
    (r"[Gg]eneric resource|gres", "correct scheduler.gpu_resource: sinfo --format='%P %G'"),
    (r"feature", "correct scheduler.*.constraint: sinfo --format='%P %f'"),
)
#: What a client in a container says -> what it lacks of the host.
_LACKS: Sequence[tuple[str, str]] = (
    (
        r"[Mm]unge|authentication|auth/|credential",
        "bind munge's socket and library: /run/munge and libmunge.so.2",
    ),
    (r"slurm\.conf|configuration source|conf file", "bind Slurm's configuration: /etc/slurm"),
    (
        r"libslurm|shared librar|plugin|GLIBC|No such file or directory|not found",
        "bind sbatch and Slurm's library and plug-in directory; the image's C library must not "
        "be older than the host's",
    ),
    (r"[Ii]nvalid user|uid|getpw", "bind /etc/passwd and /etc/group, or /var/lib/sss/pipes"),
    (r"contact slurm controller|connection refused|Unable to resolve", "check slurmctld"),
)


@dataclass(frozen=True)
class TemplateFacts:
    """One template of the settings.

    Attributes:
        setting: which field names it, or would.
        path: None: it was not found; `text` then says where it was looked for.
    """

    setting: str
    name: str
    path: Path | None
    text: str


def templates(settings: Settings, project_dir: Path | None) -> list[TemplateFacts]:
    """The templates that jobs of this installation are submitted by."""
    found: list[TemplateFacts] = []
    choices = [("template", False, False), ("template_gpu", False, True)]
    if "relion" in settings.tools:
        choices.append(("template_relion", True, False))
    for setting, native, gpus in choices:
        name = template_name(settings, native=native, gpus=gpus)
        if any(one.name == name for one in found):
            continue
        try:
            path = find_template(name, project_dir)
            text = path.read_text(encoding="utf-8")
        except CrboostError as error:
            found.append(TemplateFacts(setting, name, None, error.hint or error.message))
            continue
        except (OSError, UnicodeDecodeError) as error:
            found.append(TemplateFacts(setting, name, None, str(error)))
            continue
        found.append(TemplateFacts(setting, name, path, text))
    return found


def judge_template(
    facts: TemplateFacts, settings: Settings, every: Sequence[Request]
) -> list[Finding]:
    """Findings on one template."""
    check = f"scheduler.{facts.setting}"
    if facts.path is None:
        return [
            failed(
                check,
                f"there is no template {facts.name}: {facts.text}",
                f"correct {check}: a file of a project's qsub/, of those that come with crboost, "
                "or an absolute path",
            )
        ]
    scheduler = settings.scheduler
    problems = template_problems(facts.text, len(scheduler.fields))
    if problems:
        return [
            failed(
                check,
                f"{facts.path}: {'; '.join(problems)}",
                "correct the template: qsub/README.md says what it must keep; scheduler.extra says "
                "what XXXextra1XXX and so on stand for",
            )
        ]
    lost = _lost_fields(facts, settings, every)
    if lost:
        return [
            warning(
                check,
                f"{facts.path} has no place for {', '.join(lost)}: the scheduler is never told",
                "add a line with XXXextraNXXX, N being its place in scheduler.extra",
            )
        ]
    return [ok(check, str(facts.path))]


def _lost_fields(facts: TemplateFacts, settings: Settings, every: Sequence[Request]) -> list[str]:
    """Fields that have a value for a job of this template, and no place in it."""
    scheduler = settings.scheduler
    there = placeholders(facts.text)
    lost: list[str] = []
    for request in every:
        gpus = request.resources.gpus > 0
        native = facts.setting == "template_relion"
        if template_name(settings, native=native, gpus=gpus) != facts.name:
            continue
        values = extra_values(request.resources, scheduler)
        named = zip(scheduler.fields, values, strict=True)
        lost += [
            name
            for number, (name, value) in enumerate(named, 1)
            if value not in ("", "1") and f"XXXextra{number}XXX" not in there
        ]
    return list(dict.fromkeys(lost))


# --- would the scheduler take it? ------------------------------------------------------------


def script_of(request: Request, settings: Settings, project_dir: Path | None) -> str:
    """The script by which RELION would submit a driver with these resources.

    Raises:
        CrboostError: there is no template, or it cannot be filled.
    """
    resources = request.resources
    path = find_template(
        template_name(settings, native=False, gpus=resources.gpus > 0), project_dir
    )
    extras = extra_values(resources, settings.scheduler)
    setup = setup_lines(settings, in_container=False)
    template = fill_template(path.read_text(encoding="utf-8"), Filling(extras=extras, setup=setup))
    submission = Submission(
        command="submit",
        template="template",
        queue=resources.partition or "",
        min_dedicated=max(1, resources.cpus * resources.tasks // resources.nodes),
        extras=extras,
    )
    job = external_job("true", submission=submission)
    environ = schemer_environment(settings)
    return fill_submission_script(template, job, "External/job001/", "true", environ)


def dry_run(script: str, settings: Settings, launch: RelionLaunch | None = None) -> Answer:
    """What sbatch says of a script without submitting it; inside RELION's container by `launch`."""
    command, *options = shlex.split(settings.scheduler.submit)
    argv = [shutil.which(command) or command, *options, "--test-only"]
    if launch is None:
        return run(argv, timeout_s=ANSWER_S, given=script)
    argv = [*launch.argv_prefix, *argv]
    return run(argv, timeout_s=3 * ANSWER_S, environ=launch.environ, given=script)


def judge_dry_run(answers: Sequence[tuple[Request, Answer]]) -> Finding:
    """The finding on what sbatch said of each request, asked on this host."""
    check = "scheduler.accepts"
    refused = [(request, answer) for request, answer in answers if answer.code != 0]
    if not refused:
        settings = ", ".join(request.setting for request, _ in answers)
        return ok(check, f"sbatch --test-only takes a job of {settings}")
    found = "; ".join(f"{request.setting}: {last_words(answer)}" for request, answer in refused)
    said = " ".join(answer.err for _, answer in refused)
    fix = _first(_REFUSALS, said) or "sbatch says why; correct the settings or the template"
    return failed(check, found, fix)


def container_launch(
    settings: Settings, project_dir: Path | None, environ: Mapping[str, str]
) -> RelionLaunch | str:
    """How relion_schemer is started in its container, or why it cannot be."""
    try:
        if project_dir is not None:
            return relion_launch(settings, project_dir, environ=environ)
        return relion_launch(settings, Path("/"), environ=environ, project_binds=())
    except CrboostError as error:
        return str(error)


def ask_inside(settings: Settings, launch: RelionLaunch) -> Answer:
    """Whether RELION's container has the command that submits; for schedulers without a dry run."""
    command = shlex.split(settings.scheduler.submit)[0]
    look = ["sh", "-c", 'command -v "$1"', "sh", shutil.which(command) or command]
    return run([*launch.argv_prefix, *look], timeout_s=3 * ANSWER_S, environ=launch.environ)


def judge_command_inside(settings: Settings, answer: Answer | str) -> Finding:
    """The finding on the command that submits, where it cannot be asked more."""
    check = "scheduler.from_container"
    command = shlex.split(settings.scheduler.submit)[0]
    if isinstance(answer, Answer) and answer.code == 0:
        return ok(check, f"{command} is in RELION's container; whether it works, a job will tell")
    said = answer if isinstance(answer, str) else last_words(answer)
    return failed(
        check,
        f"{command} is not in RELION's container ({said})",
        f"name {command}, its libraries, configuration and sockets in relion.client_binds, or set "
        'schemer = "embedded", which submits from this host',
    )


def judge_inside(answer: Answer | str, on_host: Answer | None) -> Finding:
    """The finding on submitting from inside RELION's container.

    Args:
        answer: what sbatch said in there, or why the container could not even be put together.
        on_host: what it said of the same script on this host.
    """
    check = "scheduler.from_container"
    if isinstance(answer, str):
        return failed(
            check, answer, "set relion.client_binds to what docs/cluster.md says sbatch needs"
        )
    if answer.code == 0:
        return ok(
            check, "sbatch works in RELION's container and reaches the controller (munge too)"
        )
    lacks = _first(_LACKS, f"{answer.err} {answer.out}")
    if on_host is not None and on_host.err.strip() == answer.err.strip() and not lacks:
        # The controller's own words: it was reached.
        return ok(check, "sbatch works in RELION's container; it is refused as it is outside")
    found = f"sbatch in RELION's container: {last_words(answer)}"
    if answer.code == TIMED_OUT:
        return failed(check, found, "check slurmctld; the container needs the host's network")
    lacks = lacks or "see what sbatch lacks in there"
    return failed(check, found, f"{lacks} (relion.client_binds)")


def _first(table: Sequence[tuple[str, str]], text: str) -> str:
    return next((fix for pattern, fix in table if re.search(pattern, text)), "")
