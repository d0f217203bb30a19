"""A job's submission, written into its run: the template to submit by, and what submits.

RELION runs `<qsub> <job>/run_submit.script &`: the scheduler's answer and its refusals are lost,
and RELION waits for ever for a job that was never accepted. So `qsub` is a small shell script in
the run's directory. It submits, keeps the answer in the job's directory, and ends a refused job
with the scheduler's own message. It needs nothing but `sh`, so that it works in RELION's container.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from crboost.containers import Bind, real_locations, schemer_environment, wrap
from crboost.errors import CrboostError
from crboost.files import write_text
from crboost.job_directory import FAILURE_FILE
from crboost.relion.job import Submission
from crboost.resources import resource_directory
from crboost.scheduler.resources import Resources, extra_values
from crboost.scheduler.submitted import STARTED_FILE, SUBMITTED_FILE
from crboost.scheduler.template import Filling, fill_template, template_problems
from crboost.settings import SchedulerKind, Settings

SUBMIT = "submit"
#: Not below `Schemes/<run>/<job>/`: RELION takes such a path for one of the job's results and puts
#: the job's folder in its place.
TEMPLATE = "submit_{node}.sh"
_TEMPLATES: dict[SchedulerKind, tuple[str, str, str]] = {
    "slurm": ("slurm_cpu.sh", "slurm_gpu.sh", "slurm_relion.sh"),
    "pbs": ("pbs.sh", "pbs.sh", "pbs.sh"),
    "sge": ("sge.sh", "sge.sh", "sge.sh"),
    "lsf": ("lsf.sh", "lsf.sh", "lsf.sh"),
}


def template_name(settings: Settings, *, native: bool, gpus: bool) -> str:
    """The template that the settings name for a job: a file of qsub/, or an absolute path.

    Args:
        native: the job's command is RELION's own, not a driver.

    Raises:
        CrboostError: jobs run on this machine, so that there is none.
    """
    scheduler = settings.scheduler
    if scheduler.kind == "local":
        raise CrboostError("scheduler.kind is local: jobs are not submitted, so need no template")
    driver, gpu, relion = _TEMPLATES[scheduler.kind]
    if native:
        return scheduler.template_relion or relion
    if gpus:
        return scheduler.template_gpu or gpu
    return scheduler.template or driver


def find_template(name: str, project_dir: Path | None = None) -> Path:
    """Where a template is: as named, in the project's qsub/, among those that crboost brings.

    Raises:
        CrboostError: nowhere; says where it was looked for.
    """
    if Path(name).is_absolute():
        candidates = [Path(name)]
    else:
        candidates = [project_dir / "qsub" / name] if project_dir is not None else []
        candidates.append(resource_directory("qsub") / name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise CrboostError(
        f"there is no submission template {name}",
        hint="looked for " + " and ".join(str(one) for one in candidates),
    )


def write_submission(
    project_dir: Path,
    run_dir: str,
    node: str,
    resources: Resources,
    settings: Settings,
    *,
    native: bool = False,
    files: Iterable[str] = (),
) -> Submission | None:
    """Write what a job of a run is submitted by. Call it again when its resources change.

    Args:
        run_dir: the run's scripts, relative to the project; not below `Schemes/`, which RELION
            would take for a job of the scheme.
        node: the job's name in the scheme; its directory below `run_dir` gets the template.
        native: the job's command is RELION's own, not a driver.
        files: what the job's parameters name (`EffectiveParameters.files`): RELION's container
            sees it, wherever it is.

    Returns:
        What goes into the job's `job.star`; None if jobs run on this machine.

    Raises:
        CrboostError: the template is missing, or would not work; the message says why.
    """
    scheduler = settings.scheduler
    if scheduler.kind == "local":
        return None
    name = template_name(settings, native=native, gpus=resources.gpus > 0)
    path = find_template(name, project_dir)
    template = path.read_text(encoding="utf-8")
    problems = template_problems(template, len(scheduler.fields))
    if problems:
        raise CrboostError(f"{path}: " + "; ".join(problems))
    extras = extra_values(resources, scheduler)
    container = _container(project_dir, resources, settings, files) if native else []
    filling = Filling(
        extras=extras,
        setup=setup_lines(settings, in_container=bool(container)),
        container=container,
        launcher=settings.relion.mpirun if native and resources.tasks > 1 else (),
    )
    target = f"{run_dir}/{TEMPLATE.format(node=node)}"
    write_text(project_dir / target, fill_template(template, filling))
    submit = project_dir / run_dir / SUBMIT
    write_text(submit, submit_script(shlex.split(scheduler.submit), scheduler.kind))
    submit.chmod(0o755)
    return Submission(
        command=f"{run_dir}/{SUBMIT}",
        template=target,
        queue=resources.partition or "",
        min_dedicated=max(1, resources.cpus * resources.tasks // resources.nodes),
        extras=extras,
    )


def _container(
    project_dir: Path, resources: Resources, settings: Settings, files: Iterable[str]
) -> list[str]:
    """What goes before a shell so that it runs in RELION's container."""
    places = real_locations(project_dir, others=[Path(file) for file in files])
    # Without a home there is no cache, and font libraries complain about it by the hundred.
    variables = {"XDG_CACHE_HOME": "/tmp"} | {
        name: value
        for name, value in schemer_environment(settings).items()
        if name in settings.relion.environment
    }
    return wrap(
        [],
        "relion",
        settings,
        cwd=project_dir,
        binds=[Bind(place) for place in places],
        gpus=resources.gpus > 0,
        environment=variables,
    )


def setup_lines(settings: Settings, *, in_container: bool) -> list[str]:
    """The shell lines at the start of a job: modules, the site's own, what its container sees."""
    lines = [f"module load {shlex.quote(name)}" for name in settings.scheduler.modules]
    lines += settings.scheduler.setup
    if in_container and settings.containers.environment:
        prefix = f"{settings.containers.engine.upper()}ENV_"
        names = " ".join(settings.containers.environment)
        lines.append(
            f"for name in {names}; do "
            f'if [ -n "${{!name+set}}" ]; then export "{prefix}$name=${{!name}}"; fi; done'
        )
    return lines


def submit_script(command: Sequence[str], kind: SchedulerKind) -> str:
    """The shell script that submits a job's script and keeps the answer.

    Args:
        command: what submits, such as `sbatch`; taken from PATH at this moment if it is there,
            since the container's PATH may lack it.
    """
    found = shutil.which(command[0])
    submit = shlex.join([found or command[0], *command[1:]])
    given = '<"$script"' if kind == "lsf" else '"$script" </dev/null'
    return f"""\
#!/bin/sh
# Submits a job's script; keeps the answer in the job's directory; fails a job that is refused.
script=$1
job=$(dirname "$script")
answer=$job/.submission.$$
# What an earlier try of this job left.
rm -f "$job/{STARTED_FILE}" "$job/{FAILURE_FILE}"
try=1
while :; do
  {submit} {given} >"$answer" 2>&1
  code=$?
  # A scheduler that starts again a moment later is no reason to lose a night.
  if [ "$code" -ne 0 ] && [ "$try" -lt 6 ] &&
    grep -q 'Unable to contact slurm controller' "$answer"; then
    try=$((try + 1))
    sleep 10
    continue
  fi
  break
done
cat "$answer"
{{
  printf 'scheduler: %s\\ntime: %s\\nexit code: %s\\nanswer:\\n' {kind} "$(date +%s)" "$code"
  cat "$answer"
}} >"$answer.kept"
mv "$answer.kept" "$job/{SUBMITTED_FILE}"
if [ "$code" -ne 0 ]; then
  printf 'crboost schemer: the scheduler refused the job (exit code %s): %s\\n' \\
    "$code" "$(tr '\\n' ' ' <"$answer")" >>"$job/run.err"
  : >"$job/RELION_JOB_EXIT_FAILURE"
fi
rm -f "$answer"
exit "$code"
"""
