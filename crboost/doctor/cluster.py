"""The scheduler: its commands, its nodes, what its controller says of itself."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crboost.doctor.findings import Finding, failed, ok, warning
from crboost.doctor.probe import last_words, run
from crboost.scheduler.ask import Answer
from crboost.scheduler.cluster import SINFO_FORMAT, Limits, limits
from crboost.settings import SchedulerSettings

ANSWER_S = 20.0
#: What is called while a run works, besides the command that submits.
SLURM_COMMANDS = ("squeue", "scontrol", "scancel", "sinfo")
#: Below that, a job's end may be forgotten before it is asked for.
LEAST_JOB_AGE_S = 60
_USELESS_STATES = ("down", "drain", "fail", "maint", "unknown", "power", "reboot", "no_resp")


@dataclass(frozen=True)
class NodeKind:
    """Like nodes of one partition, as sinfo shows them.

    Attributes:
        time_limit_minutes: None: no limit.
        memory_mb, cpus: of one node.
        gpus: number of GPUs of each type; the type may be empty.
    """

    partition: str
    is_default: bool
    is_up: bool
    time_limit_minutes: int | None
    nodes: int
    state: str
    cpus: int
    memory_mb: int
    gpus: Mapping[str, int]

    @property
    def usable(self) -> bool:
        """Whether such a node takes jobs, now or later, without anybody's help."""
        return self.is_up and not self.state.lower().startswith(_USELESS_STATES)


@dataclass(frozen=True)
class ClusterFacts:
    """What a Slurm cluster said.

    Attributes:
        sinfo: as it answered; its lines are read by `parse_nodes`.
        limits: None: not told.
        accounting: what sacct said; None: it was not asked.
    """

    sinfo: Answer
    limits: Limits | None
    accounting: Answer | None


# --- commands --------------------------------------------------------------------------------


def absent_commands(scheduler: SchedulerSettings) -> list[str]:
    """Commands of the scheduler that this machine lacks."""
    words = shlex.split(scheduler.submit)
    wanted = [*words[:1], *(SLURM_COMMANDS if scheduler.kind == "slurm" else ())]
    return [name for name in dict.fromkeys(wanted) if shutil.which(name) is None]


def judge_commands(scheduler: SchedulerSettings, absent: Sequence[str]) -> Finding:
    """The finding on the scheduler's commands."""
    check = "scheduler.commands"
    if absent:
        return failed(
            check,
            f"{scheduler.kind}: {', '.join(absent)} cannot be found",
            "run crboost on a host that can submit jobs, with the scheduler's commands in PATH; "
            "scheduler.submit_command may be an absolute path",
        )
    others = f", {', '.join(SLURM_COMMANDS)}" if scheduler.kind == "slurm" else ""
    return ok(check, f"{scheduler.kind}: {scheduler.submit}{others}")


# --- Slurm -----------------------------------------------------------------------------------


def ask_cluster() -> ClusterFacts:
    """Ask Slurm for its partitions, limits and accounting."""
    argv = ["sinfo", "--noheader", "--exact", f"--format={SINFO_FORMAT}"]
    sinfo = run(argv, timeout_s=ANSWER_S)
    if sinfo.code != 0:
        return ClusterFacts(sinfo, None, None)
    sacct = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID"]
    accounting = run(sacct, timeout_s=ANSWER_S)
    return ClusterFacts(sinfo, limits(), accounting)


def parse_nodes(text: str) -> list[NodeKind]:
    """The lines of `sinfo --noheader` with `SINFO_FORMAT`; lines that are none are left out."""
    kinds = []
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) < 9:
            continue
        name = cells[0].removesuffix("*")
        kinds.append(
            NodeKind(
                name,
                cells[0].endswith("*"),
                cells[1] == "up",
                minutes_of(cells[2]),
                number_in(cells[3]),
                cells[4],
                number_in(cells[5]),
                number_in(cells[6]),
                parse_gres(cells[7]),
            )
        )
    return kinds


def number_in(text: str) -> int:
    """The number at the start of a text such as `16000+`; 0 if there is none."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def minutes_of(text: str) -> int | None:
    """Slurm's `1-12:00:00`, `30:00` or `infinite` in whole minutes; None without a limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, first, second, third = match.groups()
    if days is not None:  # days-hours[:minutes[:seconds]]
        return int(days) * 1440 + int(first) * 60 + int(second or 0)
    if third is not None:  # hours:minutes:seconds
        return int(first) * 60 + int(second)
    return int(first)  # minutes[:seconds]


def parse_gres(text: str) -> dict[str, int]:
    """GPUs by type in a node's generic resources: `gpu:a100:4(S:0-1),gpu:2`."""
    found: dict[str, int] = {}
    for one in re.sub(r"\([^)]*\)", "", text).split(","):
        words = one.split(":")
        if words[0] == "gpu" and words[-1].isdigit():
            kind = words[1] if len(words) == 3 else ""
            found[kind] = found.get(kind, 0) + int(words[-1])
    return found


def judge_cluster(facts: ClusterFacts, poll_s: float) -> list[Finding]:
    """Findings on what the controller says of itself."""
    if facts.sinfo.code != 0:
        return [
            failed(
                "scheduler.answers",
                f"sinfo: {last_words(facts.sinfo)}",
                "check slurmctld and munge on the controller, and /etc/slurm here",
            )
        ]
    kinds = parse_nodes(facts.sinfo.out)
    names = list(dict.fromkeys(kind.partition for kind in kinds))
    findings = [ok("scheduler.answers", f"partitions {', '.join(names)}")]
    findings += _judge_limits(facts.limits, poll_s)
    findings.append(_judge_accounting(facts))
    return findings


def _judge_limits(found: Limits | None, poll_s: float) -> list[Finding]:
    check = "scheduler.limits"
    if found is None:
        return [
            warning(
                check,
                "scontrol show config tells no MinJobAge",
                "let users ask the controller for its configuration",
            )
        ]
    said = f"the controller remembers a job for {found.min_job_age_s} s after its end (MinJobAge)"
    if found.min_job_age_s < max(LEAST_JOB_AGE_S, 2 * poll_s) and not found.accounting:
        return [
            warning(
                check,
                f"{said}, and there is no accounting: how a job ended may be forgotten",
                "MinJobAge=300 in slurm.conf, or a smaller scheduler.poll_s",
            )
        ]
    return [ok(check, f"{said}; arrays up to {found.max_array_size} tasks")]


def _judge_accounting(facts: ClusterFacts) -> Finding:
    check = "scheduler.accounting"
    configured = facts.limits is not None and facts.limits.accounting
    if configured and facts.accounting is not None and facts.accounting.code == 0:
        return ok(check, "sacct answers")
    why = "none is configured"
    if facts.accounting is not None and facts.accounting.code != 0:
        why = f"sacct: {last_words(facts.accounting)}"
    return warning(
        check,
        f"no accounting ({why}): how a job ended is known only as long as the controller "
        "remembers it, and memory that was used is not recorded",
        "set up slurmdbd, or a MinJobAge of some hours",
    )
