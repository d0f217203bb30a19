"""What jobs ask of a Slurm cluster by the settings, and whether it has that."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from crboost.catalogue import CATALOGUE
from crboost.doctor.cluster import NodeKind, number_in
from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.parameters import Computing
from crboost.scheduler.array import coordinator_resources
from crboost.scheduler.resources import Resources, resources_for
from crboost.settings import ResourceRequest, SchedulerSettings


@dataclass(frozen=True)
class Request:
    """What some jobs ask for, and which table of the settings says so."""

    setting: str
    resources: Resources


def requests(scheduler: SchedulerSettings) -> list[Request]:
    """What jobs ask for, one for each table of the settings that makes a difference."""
    found = [Request("scheduler.defaults", _resources("", scheduler, gpu=False))]
    gpu_jobs = [name for name, request in scheduler.jobs.items() if request.gpus]
    if scheduler.gpu_defaults != ResourceRequest():
        found.append(Request("scheduler.gpu_defaults", _resources("", scheduler, gpu=True)))
    for name in scheduler.jobs:
        gpu = name in gpu_jobs
        found.append(Request(f"scheduler.jobs.{name}", _resources(name, scheduler, gpu=gpu)))
    if scheduler.coordinator != ResourceRequest():
        found.append(Request("scheduler.coordinator", coordinator_resources(scheduler)))
    return found


def _resources(job_type: str, scheduler: SchedulerSettings, *, gpu: bool) -> Resources:
    return resources_for(job_type, Computing(), scheduler, uses_gpu=gpu, explicit=())


def judge_job_names(scheduler: SchedulerSettings) -> list[Finding]:
    """Tables for job types that do not exist."""
    known = {name.lower() for name in CATALOGUE}
    strangers = [name for name in scheduler.jobs if name.lower() not in known]
    if not strangers:
        return []
    close = [difflib.get_close_matches(name, list(CATALOGUE), 1) for name in strangers]
    meant = [one[0] for one in close if one]
    return [
        warning(
            "scheduler.jobs",
            f"no job type is called {', '.join(strangers)}: these resources are never used",
            f"did you mean {', '.join(meant)}?" if meant else f"there are {', '.join(CATALOGUE)}",
        )
    ]


def judge_job_types(
    kinds: Sequence[NodeKind], scheduler: SchedulerSettings, settled: Sequence[Request]
) -> list[Finding]:
    """Job types that by themselves need more than the nodes have, and that the settings let.

    Args:
        settled: requests whose problems are told elsewhere.
    """
    told = {p.found for one in settled for p in request_problems(one, kinds, scheduler)}
    own = {name.lower() for name in scheduler.jobs}
    has_gpus = scheduler.gpu_defaults != ResourceRequest()
    found: dict[str, list[str]] = {}
    for name, job_type in CATALOGUE.items():
        if name.lower() in own:
            continue
        gpu = has_gpus and job_type.needs_with_gpu is not None
        request = Request(name, _resources(name, scheduler, gpu=gpu))
        for problem in request_problems(request, kinds, scheduler):
            if problem.found not in told:
                found.setdefault(problem.found, []).append(name)
    return [
        warning(
            "scheduler.job_types",
            f"{', '.join(names)}: {text}",
            f"set it in scheduler.defaults for all, or in scheduler.jobs.{names[0]}",
        )
        for text, names in found.items()
    ]


@dataclass(frozen=True)
class Problem:
    """What a request cannot have."""

    check: str
    found: str
    fix: str


def judge_requests(
    every: Sequence[Request], kinds: Sequence[NodeKind], scheduler: SchedulerSettings
) -> list[Finding]:
    """Findings on partitions, sizes, times and GPUs that jobs ask for."""
    problems: dict[tuple[str, str], tuple[Problem, list[str]]] = {}
    for request in every:
        for problem in request_problems(request, kinds, scheduler):
            key = (problem.check, problem.found)
            problems.setdefault(key, (problem, []))[1].append(request.setting)
    findings = [
        failed(problem.check, f"{', '.join(settings)}: {problem.found}", problem.fix)
        for problem, settings in problems.values()
    ]
    if not findings:
        used = [request.resources.partition or "the default one" for request in every]
        shown = ", ".join(dict.fromkeys(used))
        findings.append(ok("scheduler.requests", f"can be had in the partitions used ({shown})"))
    return findings + _judge_retries(every, kinds, scheduler)


def request_problems(
    request: Request, kinds: Sequence[NodeKind], scheduler: SchedulerSettings
) -> list[Problem]:
    """Why a cluster with these nodes could never start such a job."""
    wanted = request.resources
    names = list(dict.fromkeys(kind.partition for kind in kinds))
    if wanted.partition is None:
        mine = [kind for kind in kinds if kind.is_default]
        if not mine:
            return [
                Problem(
                    "scheduler.partition",
                    "no partition is named, and the cluster has no default one",
                    f"set scheduler.defaults.partition to one of {', '.join(names)}",
                )
            ]
    else:
        # Several, of which Slurm takes the one that is free first.
        several = wanted.partition.split(",")
        absent = [name for name in several if name not in names]
        if absent:
            close = difflib.get_close_matches(absent[0], names, 1)
            meant = f"did you mean {close[0]}? " if close else ""
            return [
                Problem(
                    "scheduler.partition",
                    f"there is no partition {', '.join(absent)}",
                    f"{meant}the cluster has {', '.join(names)}",
                )
            ]
        mine = [kind for kind in kinds if kind.partition in several]
    return _size_problems(wanted, mine, scheduler)


def _size_problems(
    wanted: Resources, mine: Sequence[NodeKind], scheduler: SchedulerSettings
) -> list[Problem]:
    where = f"partition {', '.join(dict.fromkeys(kind.partition for kind in mine))}"
    usable = [kind for kind in mine if kind.usable]
    if not usable:
        states = ", ".join(dict.fromkeys(kind.state for kind in mine))
        return [
            Problem(
                "scheduler.partition",
                f"{where} has no node that takes jobs ({states})",
                "bring a node back (scontrol update nodename=NODE state=resume), or name "
                "another partition",
            )
        ]
    problems = []
    memory = max(kind.memory_mb for kind in usable)
    cpus = max(kind.cpus for kind in usable)
    if wanted.memory_gb and memory and wanted.memory_gb * 1024 > memory:
        problems.append(
            Problem(
                "scheduler.memory_gb",
                f"memory_gb = {wanted.memory_gb}: no node of {where} has more than "
                f"{memory // 1024} GB",
                f"memory_gb = {memory // 1024} or less, or another partition",
            )
        )
    if cpus and wanted.cpus > cpus:
        problems.append(
            Problem(
                "scheduler.cpus",
                f"cpus = {wanted.cpus}: no node of {where} has more than {cpus}",
                f"cpus = {cpus} or less, or another partition",
            )
        )
    times = [kind.time_limit_minutes for kind in usable]
    longest = None if None in times else max(time for time in times if time is not None)
    if wanted.time_limit_minutes and longest is not None and wanted.time_limit_minutes > longest:
        problems.append(
            Problem(
                "scheduler.time_limit_minutes",
                f"time_limit_minutes = {wanted.time_limit_minutes}: {where} allows {longest}",
                f"time_limit_minutes = {longest} or less, or another partition",
            )
        )
    if wanted.gpus:
        problems += _gpu_problems(wanted.gpus, usable, where, scheduler)
    return problems


def _gpu_problems(
    count: int, usable: Sequence[NodeKind], where: str, scheduler: SchedulerSettings
) -> list[Problem]:
    kind, number = gpu_request(scheduler.gpu_resource.format(gpus=count))
    best = max(
        (sum(n for one, n in node.gpus.items() if kind in ("", one)) for node in usable), default=0
    )
    if number <= best:
        return []
    there = sorted({f"{one or 'gpu'} x {n}" for node in usable for one, n in node.gpus.items()})
    asked = f"{number} GPUs" + (f" of type {kind}" if kind else "")
    return [
        Problem(
            "scheduler.gpus",
            f"{asked}: nodes of {where} have {', '.join(there) or 'none'}",
            "correct gpus, scheduler.gpu_resource or the partition; "
            "sinfo --format='%P %G' shows what there is",
        )
    ]


def gpu_request(gres: str) -> tuple[str, int]:
    """(type or empty, number) of `gpu:2` or `gpu:a100:2`."""
    words = gres.split(":")
    return (words[1] if len(words) > 2 else ""), number_in(words[-1])


def _judge_retries(
    every: Sequence[Request], kinds: Sequence[NodeKind], scheduler: SchedulerSettings
) -> list[Finding]:
    """A retry must not ask for what no node can give."""
    used = {request.resources.partition for request in every}
    mine = [
        kind
        for kind in kinds
        if kind.usable and (kind.partition in used or (None in used and kind.is_default))
    ]
    findings = []
    memory = max((kind.memory_mb // 1024 for kind in mine), default=0)
    if memory and scheduler.max_memory_gb > memory:
        findings.append(
            warning(
                "scheduler.max_memory_gb",
                f"a retry after out-of-memory may ask for up to {scheduler.max_memory_gb} GB; "
                f"the largest node has {memory} GB",
                f"scheduler.max_memory_gb = {memory}",
            )
        )
    times = [kind.time_limit_minutes for kind in mine]
    finite = [time for time in times if time is not None]
    if finite and len(finite) == len(times) and scheduler.max_time_limit_minutes > max(finite):
        findings.append(
            warning(
                "scheduler.max_time_limit",
                "a retry after a time limit may ask for up to "
                f"{scheduler.max_time_limit_minutes} minutes; the partitions allow {max(finite)}",
                f"scheduler.max_time_limit_minutes = {max(finite)}",
            )
        )
    return findings
