"""What a Slurm cluster is like: its limits and partitions, asked, not assumed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crboost.scheduler.ask import Ask
from crboost.scheduler.ask import ask as ask_slurm
from crboost.scheduler.slurm_text import parse_config

#: Partition, available, time limit, nodes, their state, CPUs, memory, GPUs, features.
SINFO_FORMAT = "%P|%a|%l|%D|%T|%c|%m|%G|%f"


@dataclass(frozen=True)
class Limits:
    """What a cluster allows, as its controller says.

    Attributes:
        min_job_age_s: for how long the controller remembers a job that is over.
        max_array_size: one above the highest number of a task.
        accounting: whether sacct has anything to tell.
    """

    min_job_age_s: int
    max_array_size: int
    accounting: bool


def limits(ask: Ask = ask_slurm) -> Limits | None:
    """The cluster's limits; None if the controller does not answer."""
    answer = ask(["scontrol", "show", "config"])
    config = parse_config(answer.out) if answer.code == 0 else {}
    age = re.match(r"\d+", config.get("MinJobAge", ""))
    size = re.match(r"\d+", config.get("MaxArraySize", ""))
    if age is None or size is None:
        return None
    storage = config.get("AccountingStorageType", "accounting_storage/none")
    return Limits(int(age[0]), int(size[0]), not storage.endswith("/none"))


@dataclass(frozen=True)
class Partition:
    """A partition, as sinfo shows it.

    Attributes:
        is_default: jobs that name none go there.
        is_up: takes and starts jobs.
        time_limit: as Slurm writes it: `infinite`, `1-00:00:00`.
        gpus: whether a node of it has any.
    """

    name: str
    is_default: bool
    is_up: bool
    time_limit: str
    gpus: bool


def parse_sinfo(text: str) -> dict[str, Partition]:
    """Partitions by name from `sinfo --noheader` with `SINFO_FORMAT`; nodes of a kind per line."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        cells = line.split("|")
        if len(cells) < 9:
            continue
        name = cells[0].removesuffix("*")
        gpus = cells[7].startswith("gpu") or (name in found and found[name].gpus)
        found[name] = Partition(name, cells[0].endswith("*"), cells[1] == "up", cells[2], gpus)
    return found


def partitions(ask: Ask = ask_slurm) -> dict[str, Partition] | None:
    """The cluster's partitions by name; None if the controller does not answer."""
    answer = ask(["sinfo", "--noheader", f"--format={SINFO_FORMAT}"])
    return parse_sinfo(answer.out) if answer.code == 0 else None
