"""Whether the kernel has killed something of this job for its memory.

Slurm kills for memory by the kernel's hand: one process of the job dies of SIGKILL, the others go
on. Whoever started that process can ask here whether memory was the reason, while Slurm still calls
the job running.
"""

from __future__ import annotations

import re
from pathlib import Path


def oom_kill_count(root: Path = Path("/")) -> int | None:
    """How many processes of this job's control group the kernel has killed for memory so far.

    Args:
        root: where /proc and /sys are; for tests.

    Returns:
        None where the kernel does not tell.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text()
    except OSError:
        return None
    for path in counter_files(groups):
        try:
            count = parse_oom_kills((root / path).read_text())
        except OSError:
            continue
        if count is not None:
            return count
    return None


def counter_files(groups: str) -> list[str]:
    """Where the counters of the groups in /proc/self/cgroup are, the whole Slurm job's first."""
    files: list[str] = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = "sys/fs/cgroup", "memory.events"  # version 2
        elif "memory" in controllers.split(","):
            base, name = "sys/fs/cgroup/memory", "memory.oom_control"  # version 1
        else:
            continue
        job = re.match(r"(.*?/job_\d+)(/|$)", path)
        # Version 1 counts each group by itself: the job's own is of no use there.
        paths = [job[1], path] if job and controllers == "" else [path]
        files += [f"{base}{one.rstrip('/')}/{name}" for one in paths]
    return files


def parse_oom_kills(text: str) -> int | None:
    """The counter in `memory.events` or `memory.oom_control`."""
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else None
