"""The trial jobs: really run on this machine, and what is made of how they end."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crboost import __version__
from crboost.doctor.findings import Finding
from crboost.doctor.node import LOCK, REPORT, SETTINGS, absent, is_held, main
from crboost.doctor.trial import (
    DRIVER,
    GPU,
    NATIVE,
    TrialFacts,
    TrialJob,
    run_trial,
    small,
)
from crboost.doctor.verdict import judge_trial
from crboost.relion.markers import Marker, read_marker
from crboost.scheduler.resources import Resources
from crboost.settings import Settings

SEEN = {
    "host": "node7",
    "user": 1000,
    "python": "3.11.9",
    "crboost": __version__,
    "unix_time": 105.0,
    "lock_seen": True,
    "absent": [],
    "problems": [],
    "refusal": "",
}
FACTS = TrialFacts(
    Path("/p/crboost-doctor-1"),
    [
        TrialJob(DRIVER, Marker.SUCCESS, SEEN),
        TrialJob(NATIVE, Marker.SUCCESS, {"answer": "node7\nR"}),
    ],
    earliest=100.0,
    latest=110.0,
    user=1000,
)
SLURM = Settings.model_validate({"scheduler": {"kind": "slurm"}})


def judged(facts: TrialFacts) -> dict[str, Finding]:
    """The findings by check."""
    return {one.check: one for one in judge_trial(facts, SLURM, __version__)}


def seen(**changes: Any) -> TrialFacts:
    """What the node saw, changed."""
    return replace(FACTS, jobs=[TrialJob(DRIVER, Marker.SUCCESS, {**SEEN, **changes})])


def test_all_is_well() -> None:
    found = judged(FACTS)
    assert {one.status for one in found.values()} == {"ok"}
    assert list(found) == [
        "trial.driver",
        "trial.node",
        "trial.tools",
        "trial.locks",
        "trial.array",
        "trial.relion",
    ]


def test_nodes_that_cannot_submit() -> None:
    """Only a failure where arrays are used."""
    facts = seen(refusal="sbatch: error: Access/permission denied")
    found = judged(facts)["trial.array"]
    assert (found.status, "Access/permission denied" in found.found) == ("warning", True)
    for scheduler in ({"array": True}, {"jobs": {"tsCtf": {"array": True}}}):
        site = Settings.model_validate({"scheduler": {"kind": "slurm", **scheduler}})
        findings = {one.check: one for one in judge_trial(facts, site, __version__)}
        assert findings["trial.array"].status == "failed"
    assert "trial.array" not in judged(seen(refusal=None))


@pytest.mark.parametrize(
    ("changes", "check", "status", "words"),
    [
        ({"crboost": "0.0.1"}, "trial.node", "failed", "crboost 0.0.1 there"),
        ({"user": 7}, "trial.node", "failed", "as user 7, not 1000"),
        ({"absent": ["tools.relion.image: /r.sif"]}, "trial.tools", "failed", "/r.sif"),
        ({"problems": ["tools.relion: FATAL"]}, "trial.tools", "failed", "FATAL"),
        ({"lock_seen": False}, "trial.locks", "warning", "not seen on node7"),
        ({"lock_seen": None}, "trial.locks", "warning", "not seen on node7"),
        ({"unix_time": 60.0}, "trial.clock", "warning", "off by 40 s"),
        ({"unix_time": 130.0}, "trial.clock", "warning", "off by 20 s"),
    ],
)
def test_what_the_node_sees(changes: dict[str, Any], check: str, status: str, words: str) -> None:
    finding = judged(seen(**changes))[check]
    assert finding.status == status
    assert words in finding.found
    assert finding.fix


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "crboost schemer: the scheduler refused the job (exit code 1): sbatch: error: x",
            "sbatch",
        ),
        ("/py: No module named crboost", "install crboost"),
        ("bash: line 2: /no/python: No such file or directory", "compute nodes see"),
        ("OSError: [Errno 30] Read-only file system: 'node.json'", "writable"),
        ("", "run.err"),
    ],
)
def test_a_job_that_failed(said: str, fix: str) -> None:
    finding = judged(replace(FACTS, jobs=[TrialJob(DRIVER, Marker.FAILURE, said=said)]))
    assert finding["trial.driver"].status == "failed"
    assert fix in finding["trial.driver"].fix
    assert "/p/crboost-doctor-1" in finding["trial.driver"].found


def test_a_job_that_waits() -> None:
    job = TrialJob(DRIVER, Marker.ABORTED, waits="Slurm job 7 waits: Resources")
    assert judged(replace(FACTS, jobs=[job]))["trial.driver"].status == "warning"
    never = replace(job, waits="Slurm job 7 waits: InvalidAccount", for_somebody=True)
    assert judged(replace(FACTS, jobs=[never]))["trial.driver"].status == "failed"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ("node9\n0\nGPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n", "ok", "GPU 0: NVIDIA A100"),
        ("node9\n0\nsh: nvidia-smi: not found\n", "warning", "gave it GPU 0"),
        ("node9\n\nNo devices were found\n", "warning", "gave it no GPU"),
        ("", "warning", "no GPU"),
    ],
)
def test_gpus(answer: str, status: str, words: str) -> None:
    job = TrialJob(GPU, Marker.SUCCESS, {"answer": answer})
    finding = judged(replace(FACTS, jobs=[job]))["trial.gpu"]
    assert finding.status == status
    assert words in finding.found


def test_files_that_are_not_seen_here() -> None:
    facts = replace(FACTS, jobs=[TrialJob(DRIVER, Marker.SUCCESS, {})])
    assert "one file system" in judged(facts)["trial.driver"].fix


def test_a_schemer_that_does_not_start() -> None:
    facts = replace(FACTS, jobs=[TrialJob(DRIVER, None)], schemer="FATAL: no image")
    assert "FATAL: no image" in judged(facts)["trial.driver"].found
    assert judged(TrialFacts(Path("/p"), problem="/p: full"))["trial.start"].status == "failed"


def test_a_trial_asks_for_little() -> None:
    big = Resources(cpus=64, memory_gb=900, gpus=4, tasks=5, partition="p", extra={"account": "a"})
    little = small(big)
    assert (little.cpus, little.memory_gb, little.gpus, little.tasks) == (1, 1, 0, 1)
    assert (little.partition, little.extra) == ("p", {"account": "a"})


# --- what runs on the node -------------------------------------------------------------------


def test_a_lock_is_seen(tmp_path: Path) -> None:
    path = tmp_path / LOCK
    with path.open("w") as stream:
        assert is_held(path) is False
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert is_held(path) is True


def test_the_node_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / LOCK).touch()
    settings = Settings.model_validate({"tools": {"ctffind": {"executable": "/no/ctffind"}}})
    (tmp_path / SETTINGS).write_text(settings.model_dump_json())
    job = tmp_path / "job001"
    job.mkdir()
    main(["--o", f"{job}/", "--j", "1"])
    report = json.loads((job / REPORT).read_text())
    assert (report["user"], report["lock_seen"]) == (os.getuid(), False)
    assert report["absent"] == ["tools.ctffind: /no/ctffind"]
    assert read_marker(job) is Marker.SUCCESS


def test_a_tool_needs_each_of_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/directory")
    settings = Settings.model_validate({"tools": {"imod": {"executable": "/no/imodinfo"}}})
    assert absent(settings)[0] == "tools.imod: /no/imodinfo"
    assert "tools.imod: batchruntomo" in absent(settings)


def test_what_is_absent() -> None:
    settings = Settings.model_validate(
        {
            "containers": {"executable": "/no/apptainer", "binds": ["/no/data"]},
            "tools": {
                "relion": {"image": "/no/r.sif", "binds": ["/no/lib"]},
                "ctffind": {"executable": "/in/the/image"},
            },
        }
    )
    assert absent(settings) == [
        "containers.executable: /no/apptainer",
        "containers.binds: /no/data",
        "tools.relion.image: /no/r.sif",
        "tools.relion.binds: /no/lib",
    ]


# --- a real one, here ------------------------------------------------------------------------


def test_a_trial_on_this_machine(tmp_path: Path) -> None:
    facts = run_trial(Settings(), tmp_path, timeout_s=60)
    findings = judge_trial(facts, Settings(), __version__)
    assert [one.status for one in findings] == ["ok"] * 4, findings
    assert not list(tmp_path.iterdir())


def test_an_interpreter_without_crboost(tmp_path: Path) -> None:
    """The job's own words reach the finding, and its directory is kept."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    settings = Settings(python=str(python))
    parent = tmp_path / "projects"
    parent.mkdir()
    facts = run_trial(settings, parent, timeout_s=60)
    (finding,) = judge_trial(facts, settings, __version__)
    assert finding.status == "failed"
    assert "crboost" in finding.found
    assert facts.directory.is_dir()


def test_a_trial_that_takes_too_long(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 30\n")
    python.chmod(0o755)
    settings = Settings(python=str(python))
    facts = run_trial(settings, tmp_path, timeout_s=4)
    (finding,) = judge_trial(facts, settings, __version__)
    assert finding.status in ("warning", "failed")
    assert finding.check == "trial.driver"
