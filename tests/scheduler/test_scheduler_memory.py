"""The kernel's counters of processes killed for memory, of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

from crboost.scheduler.memory import counter_files, oom_kill_count, parse_oom_kills

V2 = "0::/system.slice/slurmstepd.scope/job_25/step_batch/user/task_0\n"
V1 = "9:cpuset:/x\n5:memory:/slurm/uid_0/job_25/step_batch\n0::/\n"


def test_version_2_counts_the_whole_job() -> None:
    assert counter_files(V2)[0] == (
        "sys/fs/cgroup/system.slice/slurmstepd.scope/job_25/memory.events"
    )


def test_version_1_counts_the_step() -> None:
    assert counter_files(V1)[0] == (
        "sys/fs/cgroup/memory/slurm/uid_0/job_25/step_batch/memory.oom_control"
    )


def test_the_counter() -> None:
    assert parse_oom_kills("low 0\nhigh 0\nmax 15\noom 2\noom_kill 2\noom_group_kill 0\n") == 2
    assert parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n") == 1
    assert parse_oom_kills("low 0\n") is None


def test_read_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(V2)
    assert oom_kill_count(tmp_path) is None
    group = tmp_path / "sys/fs/cgroup/system.slice/slurmstepd.scope/job_25"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert oom_kill_count(tmp_path) == 1


def test_a_machine_that_does_not_tell(tmp_path: Path) -> None:
    assert oom_kill_count(tmp_path) is None
