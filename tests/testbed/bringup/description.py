"""`testbed.json`: what is up, and how to use it."""

from __future__ import annotations

import json
from pathlib import Path

from bringup import apptainer, image, slurm
from bringup.layout import Layout
from bringup.shell import TestbedError

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
CLIENTS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct")


def submission_binds() -> list[str]:
    """What a container needs of the host to submit: client, plug-ins, configuration, munge."""
    paths = [
        slurm.CONFIGURATION,
        Path("/run/munge"),
        LIBRARIES / "slurm-wlm",
        LIBRARIES / "libmunge.so.2",
        Path("/etc/passwd"),
        Path("/etc/group"),
        *(Path("/usr/bin") / client for client in CLIENTS),
    ]
    return [str(path) for path in paths if path.exists()]


def write(layout: Layout, *, accounting: bool, memory: str) -> None:
    """Describe the testbed, with versions as asked from what runs.

    Raises:
        TestbedError: RELION in the image or Slurm does not answer.
    """
    versions = {
        "relion": image.relion_version(layout),
        "apptainer": apptainer.version(layout),
        "slurm": slurm.version(),
    }
    for name, value in versions.items():
        if value is None:
            raise TestbedError(f"{name} does not answer (logs: {layout.root}/log)")
    described = {
        "directory": str(layout.root),
        "image": str(layout.image),
        "apptainer": str(layout.apptainer_command),
        "versions": versions,
        "slurm": {
            "configuration": str(slurm.CONFIGURATION),
            "partitions": list(slurm.PARTITIONS),
            "default_partition": slurm.PARTITIONS[0],
            "nodes": list(slurm.NODES),
            "gpus": slurm.GPUS,
            "memory_limit": memory,
            "accounting": accounting,
            "log_directory": str(layout.slurm / "log"),
        },
        "submission_binds": submission_binds(),
        # Keeps the container's environment out of the jobs that are submitted from inside.
        "submission_environment": {"SBATCH_EXPORT": "NONE"},
        "stand_ins": {
            name: f"/usr/local/bin/{name}"
            for name in sorted(
                path.stem.removesuffix("_standin") for path in image.STAND_INS.glob("*_standin.py")
            )
        },
    }
    fresh = layout.description.with_suffix(".new")
    fresh.write_text(json.dumps(described, indent=2) + "\n")
    fresh.replace(layout.description)


def read(layout: Layout) -> dict[str, object] | None:
    """The description, None when nothing is up."""
    if not layout.description.exists():
        return None
    loaded: dict[str, object] = json.loads(layout.description.read_text())
    return loaded
