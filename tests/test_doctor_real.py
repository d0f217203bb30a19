"""Doctor on the testbed: all is well there, and each thing that is broken is named with its fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed.fixtures import RelionImage, SlurmCluster

pytestmark = [pytest.mark.relion, pytest.mark.slurm]

SETTINGS = """\
python = "{python}"
[containers]
executable = "{apptainer}"
[tools.relion]
image = "{image}"
{ctffind}
[scheduler]
kind = "slurm"
poll_s = 5
max_memory_gb = 15
[scheduler.defaults]
partition = "{partition}"
cpus = 2
memory_gb = 2
time_limit_minutes = 10
"""
Doctor = Callable[..., tuple[int, dict[str, dict[str, str]]]]


@pytest.fixture
def root() -> Iterator[Path]:
    """Where projects are to be: a name that needs quoting, and other users may look into it."""
    base = Path(tempfile.mkdtemp(prefix="crboost-doctor-test-"))
    base.chmod(0o755)
    directory = base / "it's a $project"
    directory.mkdir()
    yield directory
    shutil.rmtree(base)


@pytest.fixture
def doctor(relion_sif: RelionImage, slurm: SlurmCluster, tmp_path: Path, root: Path) -> Doctor:
    """`doctor(words, changes)`: the exit code, and the findings by check."""
    ctffind = relion_sif.stand_ins.get("ctffind")
    text = SETTINGS.format(
        python=sys.executable,
        apptainer=relion_sif.apptainer.command,
        image=relion_sif.image,
        ctffind=f'[tools.ctffind]\nexecutable = "{ctffind}"' if ctffind else "",
        partition=slurm.default_partition,
    )
    file = tmp_path / "settings.toml"

    def run(*words: str, old: str = "", new: str = "", **environ: str) -> Any:
        assert old in text
        file.write_text(text.replace(old, new) if old else text)
        done = subprocess.run(
            [sys.executable, "-m", "crboost", "doctor", str(root), "--json", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "CRBOOST_SETTINGS": str(file), **environ},
            check=False,
            timeout=240,
        )
        assert done.returncode in (0, 1), done.stderr
        findings = json.loads(done.stdout)["findings"]
        return done.returncode, {finding["check"]: finding for finding in findings}

    return run


def test_all_is_well(doctor: Doctor, root: Path, slurm: SlurmCluster) -> None:
    code, found = doctor("--submit")
    assert code == 0
    wrong = {name: one for name, one in found.items() if one["status"] != "ok"}
    if not slurm.accounting:
        assert wrong.pop("scheduler.accounting")["status"] == "warning"
    # Nobody keeps a service running here, and nobody needs one.
    assert wrong.pop("service.supervisor")["status"] == "skipped"
    assert wrong == {}
    assert {"scheduler.from_container", "trial.driver", "trial.node", "trial.relion"} <= set(found)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "check", "words", "fix"),
    [
        ('partition = "cpu"', 'partition = "cpus"', "scheduler.partition", "cpus", "mean cpu?"),
        ("memory_gb = 2\n", "memory_gb = 64\n", "scheduler.memory_gb", "64", "15 or less"),
        (
            "cpus = 2\n",
            'cpus = 2\nconstraint = "a100"\n',
            "scheduler.accepts",
            "feature",
            "constraint",
        ),
        (
            "[scheduler.defaults]",
            '[scheduler.gpu_defaults]\npartition = "gpu"\ngpus = 3\n[scheduler.defaults]',
            "scheduler.gpus",
            "gpu x 2",
            "gpu_resource",
        ),
        ("relion.sif", "relion-6.sif", "tools.relion", "no such image", "tools.relion.image"),
        ('executable = "', 'executable = "/no', "containers.engine", "/no/", "executable"),
    ],
)
def test_what_is_broken_is_named(
    doctor: Doctor, old: str, new: str, check: str, words: str, fix: str
) -> None:
    code, found = doctor(old=old, new=new)
    assert code == 1
    assert found[check]["status"] == "failed"
    assert words in found[check]["found"]
    assert fix in found[check]["fix"]
    assert found["trial.driver"]["status"] == "skipped"


def test_a_template_with_an_unknown_placeholder(doctor: Doctor, tmp_path: Path) -> None:
    template = tmp_path / "ours.sh"
    template.write_text("#!/bin/bash\n#SBATCH --qos=XXXqosXXX\nXXXcommandXXX\n")
    named = f'kind = "slurm"\ntemplate = "{template}"'
    code, found = doctor("--submit", old='kind = "slurm"', new=named)
    assert code == 1
    assert (
        f"{template}: line 2: XXXqosXXX is no placeholder" in found["scheduler.template"]["found"]
    )
    assert found["trial.driver"]["status"] == "skipped"


def test_a_directory_that_cannot_be_written(doctor: Doctor, root: Path) -> None:
    """As a user who may not: nobody. (Root may always, unless the file system says no.)"""
    if os.getuid() != 0:
        root.chmod(0o555)
        code, found = doctor("--submit")
        root.chmod(0o755)
    else:
        subprocess.run(["mount", "--bind", "-o", "ro", str(root), str(root)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        try:
            code, found = doctor("--submit")
        finally:
            subprocess.run(["umount", str(root)], check=True)
    assert code == 1
    assert found["project.writable"]["status"] == "failed"
    assert "chown" in found["project.writable"]["fix"]
    assert found["trial.driver"]["status"] == "skipped"


def test_a_directory_that_compute_nodes_cannot_write(doctor: Doctor, tmp_path: Path) -> None:
    """The site's template stands in for a node that has the file system mounted read-only."""
    if os.getuid() != 0:
        pytest.skip("needs root, to show a job a read-only file system")
    ours = (Path(__file__).parents[1] / "qsub" / "slurm_cpu.sh").read_text()
    read_only = 'mount --bind "$PWD" "$PWD" && mount -o remount,bind,ro "$PWD" && cd "$PWD"'
    unshared = f"unshare --mount bash -c '{read_only} && exec bash -e -s' <<"
    assert ours.count("bash -e -s <<") == 1
    template = tmp_path / "read_only.sh"
    template.write_text(ours.replace("bash -e -s <<", unshared))
    named = f'kind = "slurm"\ntemplate = "{template}"'
    code, found = doctor("--submit", old='kind = "slurm"', new=named)
    assert code == 1
    assert found["scheduler.template"]["status"] == "ok"
    finding = found["trial.driver"]
    assert finding["status"] == "failed"
    assert "Read-only file system" in finding["found"]
    assert "writable for this user on compute nodes" in finding["fix"]


def test_a_container_without_the_scheduler_s_client(doctor: Doctor) -> None:
    code, found = doctor("--submit", CRBOOST_RELION__CLIENT_BINDS='["/etc/slurm"]')
    assert code == 1
    assert found["scheduler.from_container"]["status"] == "failed"
    assert "sbatch" in found["scheduler.from_container"]["found"]
    assert "relion.client_binds" in found["scheduler.from_container"]["fix"]


def test_a_job_that_does_not_get_its_turn(doctor: Doctor, slurm: SlurmCluster, root: Path) -> None:
    """A busy partition is no mistake of the installation."""
    blocker = slurm.submit("sleep 100", root, "--partition=spare", "--exclusive")
    slurm.wait(blocker, until="RUNNING")
    code, found = doctor(
        "--submit", "--timeout", "10", old='partition = "cpu"', new='partition = "spare"'
    )
    assert code == 0
    assert found["trial.driver"]["status"] == "warning"
    assert "--timeout" in found["trial.driver"]["fix"]


def test_a_scheduler_whose_client_is_not_bound(doctor: Doctor) -> None:
    """Slurm's command under another scheduler's name: nothing is bound for it by itself."""
    pbs = {"CRBOOST_SCHEDULER__KIND": "pbs", "CRBOOST_SCHEDULER__SUBMIT_COMMAND": "sbatch"}
    code, found = doctor(**pbs)
    assert code == 1
    assert 'schemer = "embedded"' in found["scheduler.from_container"]["fix"]
    bound = json.dumps([shutil.which("sbatch")])
    code, found = doctor(**pbs, CRBOOST_RELION__CLIENT_BINDS=bound)
    assert found["scheduler.from_container"]["status"] == "ok"


def test_a_job_with_a_gpu(doctor: Doctor) -> None:
    """The testbed's GPUs are names only: Slurm gives one, and no driver knows it."""
    gpus = '[scheduler.gpu_defaults]\npartition = "gpu"\ngpus = 2\n[scheduler.defaults]'
    code, found = doctor("--submit", old="[scheduler.defaults]", new=gpus)
    assert code == 0
    assert found["trial.gpu"]["status"] == "warning"
    assert "gave it GPU 0" in found["trial.gpu"]["found"]
