"""What the trial's jobs have shown, as findings. Pure; `trial` runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.doctor.trial import DRIVER, GPU, TrialFacts, TrialJob
from crboost.relion.markers import Marker
from crboost.settings import Settings

#: Clocks that differ by more make a job's start look older than its submission.
CLOCK_S = 5.0


def judge_trial(facts: TrialFacts, settings: Settings, version: str) -> list[Finding]:
    """Findings on the trial, from the first job on that says something.

    Args:
        version: of crboost here.
    """
    if facts.problem:
        return [
            failed(
                "trial.start",
                f"the trial could not be started: {facts.problem}",
                "mend what is named above first, then try again",
            )
        ]
    findings: list[Finding] = []
    for job in facts.jobs:
        if job.marker is not Marker.SUCCESS:
            findings.append(_judge_failure(job, facts))
            break
        if job.node == DRIVER:
            findings += _judge_node(job.report or {}, facts, settings, version)
        elif job.node == GPU:
            findings.append(_judge_gpu(str((job.report or {}).get("answer", ""))))
        else:
            words = str((job.report or {}).get("answer", "")).split("\n")
            findings.append(
                ok("trial.relion", f"RELION's container on {words[0]}: {' '.join(words[1:2])}")
            )
    return findings


def _judge_gpu(answer: str) -> Finding:
    """Of the job's answer: host, what the scheduler gave it, what the driver shows."""
    host, given, *shown = [*answer.split("\n"), "", ""]
    cards = [line.strip() for line in shown if line.startswith("GPU")]
    if cards:
        return ok("trial.gpu", f"{host} gave the job {len(cards)} of its GPUs: {cards[0]}")
    what = f"GPU {given}" if given else "no GPU"
    return warning(
        "trial.gpu",
        f"the job asked for a GPU: {host} gave it {what}, and shows none by nvidia-smi or rocm-smi",
        "check gres.conf, the GPU's driver on that node, and the line with --gres of the template",
    )


def _judge_failure(job: TrialJob, facts: TrialFacts) -> Finding:
    check = f"trial.{job.node}"
    kept = f"(logs: {facts.directory})"
    if job.waits and not job.for_somebody:
        return warning(
            check,
            f"the job did not end in time: {job.waits}; it was cancelled",
            "try again when the partition is less busy, or with a longer --timeout",
        )
    if job.waits:
        return failed(
            check,
            f"the job will never start: {job.waits}; it was cancelled",
            "correct what the scheduler names: partition, account, QOS, sizes",
        )
    if job.marker is None:
        said = facts.schemer or "the schemer started no job"
        return failed(
            check,
            f"{said} {kept}",
            "mend what the schemer says, and the points above",
        )
    said = job.said or "it ended without a word"
    return failed(check, f"the job failed: {said} {kept}", _fix_for(said))


def _fix_for(said: str) -> str:
    """What to do about what a job's run.err says."""
    if "refused the job" in said:
        return "sbatch says why: correct the partition, the template or scheduler.extra"
    if "No module named" in said or "crboost.doctor" in said:
        return "install crboost into the environment of `python` in the settings"
    if "not found" in said or "No such file" in said or "cannot execute" in said:
        return (
            "put `python`, apptainer and the images on a file system that compute nodes see under "
            "the same path, and correct the settings"
        )
    if "Permission denied" in said or "Read-only" in said:
        return "make the project's file system writable for this user on compute nodes"
    return "read the job's run.err, and slurmd's log of its node"


def _judge_node(
    report: Mapping[str, Any], facts: TrialFacts, settings: Settings, version: str
) -> list[Finding]:
    if not report:
        return [
            failed(
                "trial.driver",
                "the job says that it succeeded, but its files are not seen here",
                "projects must lie on one file system, shared by this host and the compute nodes",
            )
        ]
    host = report.get("host", "?")
    what = (
        "ran" if settings.scheduler.kind == "local" else f"went through {settings.scheduler.kind}"
    )
    findings = [ok("trial.driver", f"a job {what} on {host} and wrote into the project")]
    problems: list[tuple[str, str]] = []
    if report["crboost"] != version:
        problems.append(
            (f"crboost {report['crboost']} there, {version} here", "install the same on all hosts")
        )
    if report["user"] != facts.user:
        problems.append(
            (f"the job ran as user {report['user']}, not {facts.user}", "give users one number")
        )
    findings.append(
        _together("trial.node", f"Python {report['python']}, crboost {version}", host, problems)
    )
    findings.append(_judge_tools(report, host))
    findings += _judge_locks_and_clock(report, facts, host)
    if report.get("refusal") is not None:
        findings.append(_judge_submission(str(report["refusal"]), host, settings))
    return findings


def _judge_submission(refusal: str, host: str, settings: Settings) -> Finding:
    """Of what sbatch said on the compute node, where a coordinator submits its array."""
    check = "trial.array"
    if not refusal:
        return ok(check, f"sbatch works on {host}: tilt series can run as tasks of an array")
    scheduler = settings.scheduler
    used = scheduler.array is True or any(
        request.array for request in (scheduler.defaults, scheduler.gpu_defaults,
                                      *scheduler.jobs.values())
    )  # fmt: skip
    found = f"a job cannot submit tasks from {host}: {refusal}"
    fix = (
        "make compute nodes submit hosts (sbatch, slurm.conf and munge there; AllocNodes of the "
        "partition), or set scheduler.array = false"
    )
    return failed(check, found, fix) if used else warning(check, found, fix)


def _together(check: str, fine: str, host: str, problems: Sequence[tuple[str, str]]) -> Finding:
    if not problems:
        return ok(check, f"{fine} on {host}")
    found = "; ".join(found for found, _ in problems)
    return failed(check, f"{host}: {found}", "; ".join(fix for _, fix in problems))


def _judge_tools(report: Mapping[str, Any], host: str) -> Finding:
    problems = []
    if report["absent"]:
        problems.append(
            (
                f"not there: {', '.join(report['absent'])}",
                "compute nodes must see images and programs under the same paths as this host",
            )
        )
    if report["problems"]:
        problems.append(
            (
                f"containers do not start: {', '.join(report['problems'])}",
                "try `apptainer exec IMAGE true` on that node",
            )
        )
    return _together("trial.tools", "images and programs are there and start", host, problems)


def _judge_locks_and_clock(
    report: Mapping[str, Any], facts: TrialFacts, host: str
) -> list[Finding]:
    findings = []
    if report["lock_seen"] is True:
        findings.append(ok("trial.locks", f"a lock taken here is seen on {host}"))
    else:
        findings.append(
            warning(
                "trial.locks",
                f"a lock taken here is not seen on {host}: start runs of a project from one host",
                "Lustre: mount with -o flock, not localflock; NFS: version 4, without local_lock",
            )
        )
    early = facts.earliest - report["unix_time"]
    late = report["unix_time"] - facts.latest
    if max(early, late) > CLOCK_S:
        findings.append(
            warning(
                "trial.clock",
                f"the clock of {host} is off by {max(early, late):.0f} s",
                "run an NTP client on all hosts",
            )
        )
    return findings
