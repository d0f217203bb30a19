"""One-machine Slurm on loopback: controller, two nodes, fake GPUs, real memory limits."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import time
from pathlib import Path

from bringup import daemons
from bringup.layout import Layout
from bringup.shell import TestbedError, output, run, say, wait_until

#: Where every client looks, on the host and inside a container that has it bound.
CONFIGURATION = Path("/etc/slurm")
MARK = "# written by the crboost testbed; `python tests/testbed down` removes it"
CONTROLLER_PORT = 16817
NODES = {"compute1": 16818, "spare1": 16820}
ACCOUNTING_PORT = 16819
PARTITIONS = ("cpu", "gpu", "short", "low", "spare")
GPUS = 2
CGROUP = Path("/sys/fs/cgroup")
V1_CONTROLLERS = ("memory", "freezer")


#: How a job is held to the memory that it asked for. By cgroup the kernel does it and the job ends
#: in OUT_OF_MEMORY; by polling Slurm looks once a second and kills it, which it calls FAILED.
MEMORY_LIMITS = ("cgroup/v1", "cgroup/v2", "polling")


def memory_limit_of_this_machine() -> str:
    """The best of `MEMORY_LIMITS` that this machine can do."""
    if all(os.access(CGROUP / controller / "tasks", os.W_OK) for controller in V1_CONTROLLERS):
        return "cgroup/v1"
    unified = CGROUP / "cgroup.controllers"
    if unified.exists() and "memory" in unified.read_text().split() and os.access(CGROUP, os.W_OK):
        return "cgroup/v2"
    return "polling"


def start(layout: Layout, *, accounting: bool, memory: str) -> None:
    """Start what is not running; restart the daemons when their configuration changed.

    Raises:
        TestbedError: this machine has a Slurm of its own or another testbed, or a daemon does not
            come up.
    """
    log = layout.log("slurm")
    refuse_other_slurm(layout)
    for name in ("state", "spool", "log", "run"):
        (layout.slurm / name).mkdir(parents=True, exist_ok=True)
    _make_gpus(layout)
    start_munge(layout, log)
    changed = _write_configuration(layout, memory, accounting=accounting)
    if changed:
        _stop_daemons(layout)
    # Without a controller the clients try for ten seconds.
    if daemons.running(*_controller(layout.root)) and _ready():
        return
    if not daemons.running(*_controller(layout.root)):
        run(["slurmctld"], log)
    for node in NODES:
        if not daemons.running(*_node(layout.root, node)):
            run(["slurmd", "-N", node], log)
    wait_until(
        "Slurm's controller answers",
        lambda: output(["scontrol", "ping"]) is not None,
        30,
        layout.slurm / "log/slurmctld.log",
        running=lambda: daemons.running(*_controller(layout.root)) is not None,
    )
    if changed or not _ready():
        for node in NODES:  # fails, and rightly so, for a node that is not down
            output(["scontrol", "update", f"nodename={node}", "state=resume"])
    wait_until("Slurm's nodes are idle", _ready, 30, layout.slurm / "log/slurmctld.log")
    say(f"Slurm {version()}: {len(NODES)} nodes, memory limit by {memory}")


def version() -> str | None:
    """Slurm's version, None without one."""
    said = output(["sinfo", "--version"])
    return said.removeprefix("slurm-wlm ").removeprefix("slurm ") if said else None


def is_up() -> bool:
    """Whether the controller answers and it is ours."""
    return _owner() is not None and output(["scontrol", "ping"]) is not None


def stop(layout: Layout) -> None:
    """Cancel what runs, stop the daemons that `start` started, remove their configuration."""
    if _owner() != str(layout.root):
        return
    if daemons.running(*_controller(layout.root)) and _ready():
        for partition in PARTITIONS:
            output(["scancel", f"--partition={partition}"])
        end = time.monotonic() + 10
        while time.monotonic() < end and output(["squeue", "-h"]):
            time.sleep(0.2)
    _stop_daemons(layout)
    _remove_cgroups()
    for name in ("slurm.conf", "gres.conf", "cgroup.conf"):
        if _is_ours(CONFIGURATION / name):
            (CONFIGURATION / name).unlink()


def stop_munge(layout: Layout) -> None:
    """Stop munged if it was `start_munge` that started it."""
    daemons.stop(layout.slurm / "run/munged.pid", "munged")


def _ready() -> bool:
    said = output(["sinfo", "-h", "-N", "-o", "%N %T"])
    if said is None:
        return False
    states = dict(line.split()[:2] for line in said.splitlines() if len(line.split()) == 2)
    return all(states.get(node) in ("idle", "mixed", "allocated") for node in NODES)


def refuse_other_slurm(layout: Layout) -> None:
    """Leave alone what is not this testbed's.

    Raises:
        TestbedError: the machine has a Slurm of its own, or a testbed elsewhere is up.
    """
    for name in ("slurm.conf", "slurmdbd.conf", "cgroup.conf", "gres.conf"):
        path = CONFIGURATION / name
        if path.exists() and not _is_ours(path):
            raise TestbedError(
                f"{path} is not the testbed's: this machine belongs to another Slurm, which the "
                "testbed leaves alone. Use a machine without one."
            )
    owner = _owner()
    if owner is None or owner == str(layout.root):
        return
    if daemons.running(*_controller(Path(owner))):
        raise TestbedError(
            f"another testbed is up: python tests/testbed down --dir {owner}; or use that one"
        )


def _owner() -> str | None:
    """Directory of the testbed whose configuration is in place, None without one."""
    path = CONFIGURATION / "slurm.conf"
    if not _is_ours(path):
        return None
    found = re.search(r"^StateSaveLocation=(.*)/slurm/state$", path.read_text(), re.MULTILINE)
    return found.group(1) if found else None


def _remove_cgroups() -> None:
    """Slurm leaves its empty cgroups behind."""
    for controller in V1_CONTROLLERS:
        for node in NODES:
            top = CGROUP / controller / f"slurm_{node}"
            for directory in sorted(top.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    directory.rmdir()


def _is_ours(path: Path) -> bool:
    return path.exists() and path.read_text(errors="replace").startswith(MARK)


def _make_gpus(layout: Layout) -> None:
    """A character device per GPU: Slurm takes a count without devices for a wrong answer."""
    for index in range(GPUS):
        path = layout.slurm / f"gpu{index}"
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def start_munge(layout: Layout, log: Path) -> None:
    if output(["munge", "-n"]) is not None:
        return
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        run(["mungekey", "--create"], log)
    for directory in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(directory).mkdir(parents=True, exist_ok=True)
        shutil.chown(directory, "munge", "munge")
    shutil.chown(key, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], log)
    wait_until("munge answers", lambda: output(["munge", "-n"]) is not None, 10, log)
    pid = Path("/run/munge/munged.pid").read_text()
    (layout.slurm / "run/munged.pid").write_text(pid)


def _write_configuration(layout: Layout, memory: str, *, accounting: bool) -> bool:
    """Write slurm.conf, gres.conf and cgroup.conf; True when one of them changed."""
    texts = {
        "slurm.conf": _slurm_conf(layout, memory, accounting=accounting),
        "gres.conf": f"NodeName=compute1 Name=gpu File={layout.slurm}/gpu[0-{GPUS - 1}]\n",
        "cgroup.conf": _cgroup_conf(memory),
    }
    changed = False
    CONFIGURATION.mkdir(exist_ok=True)
    for name, body in texts.items():
        path = CONFIGURATION / name
        text = f"{MARK}\n{body}"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed = True
    return changed


def _cgroup_conf(memory: str) -> str:
    if memory == "cgroup/v2":
        # No mount point: it is where the kernel has it. Not every container has a systemd to ask.
        where = "CgroupPlugin=cgroup/v2\nIgnoreSystemdOnFailure=yes\n"
    else:
        # For polling too: slurmd wants a plug-in, and this one does nothing until it is used.
        where = f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={CGROUP}\n"
    return where + "ConstrainRAMSpace=yes\nConstrainCores=no\nConstrainDevices=no\n"


def _slurm_conf(layout: Layout, memory: str, *, accounting: bool) -> str:
    here = layout.slurm
    host = socket.gethostname().split(".")[0]
    store = (
        "AccountingStorageType=accounting_storage/slurmdbd\n"
        f"AccountingStorageHost=localhost\nAccountingStoragePort={ACCOUNTING_PORT}\n"
        if accounting
        else "AccountingStorageType=accounting_storage/none\n"
    )
    limit = (
        "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\n"
        if memory != "polling"
        else "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n"
        "JobAcctGatherParams=OverMemoryKill\n"
    )
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        + (
            f"CPUs=8 RealMemory=16000 Gres=gpu:{GPUS} State=UNKNOWN"
            if name == "compute1"
            else "CPUs=2 RealMemory=4000 State=UNKNOWN"
        )
        for name, port in NODES.items()
    )
    return f"""\
ClusterName=testbed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={CONTROLLER_PORT}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool/%n
SlurmctldPidFile={here}/run/slurmctld.pid
SlurmdPidFile={here}/run/slurmd-%n.pid
SlurmctldLogFile={here}/log/slurmctld.log
SlurmdLogFile={here}/log/slurmd-%n.log
# More CPUs and memory than the machine may have: tests count them, nobody computes on them.
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
{store}JobCompType=jobcomp/filetxt
JobCompLoc={here}/log/jobcomp.log
{limit}JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
MinJobAge=3600
# Without it each job takes the memory of a whole node.
DefMemPerCPU=200
KillWait=2
OverTimeLimit=0
InactiveLimit=0
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=compute1 Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes=compute1 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=compute1 MaxTime=1 DefaultTime=1 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=compute1 MaxTime=INFINITE PriorityTier=1 PreemptMode=CANCEL
PartitionName=spare Nodes=spare1 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def _controller(root: Path) -> tuple[Path, str]:
    """Pid file and program of the controller of the testbed in `root`."""
    return Layout(root).slurm / "run/slurmctld.pid", "slurmctld"


def _node(root: Path, node: str) -> tuple[Path, str, str]:
    """Pid file, program and argument of a node's daemon."""
    return Layout(root).slurm / f"run/slurmd-{node}.pid", "slurmd", node


def _stop_daemons(layout: Layout) -> None:
    for node in NODES:
        daemons.stop(*_node(layout.root, node))
    daemons.stop(*_controller(layout.root))
