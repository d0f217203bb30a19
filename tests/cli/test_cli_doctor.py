"""`crboost doctor` as a user meets it, on a machine with nothing but Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def doctor(home: Path, *words: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, for a user without settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "CRBOOST_", "XDG_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "crboost", "doctor", *map(str, words)],
        capture_output=True,
        text=True,
        env={**kept, "HOME": str(home), **environ},
        cwd=home,
        timeout=120,
        check=False,
    )


def test_defaults_are_fine_and_fast(tmp_path: Path) -> None:
    before = os.times()
    started = time.monotonic()
    done = doctor(tmp_path)
    after = os.times()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 warnings, 0 failed" in done.stdout
    assert "FAILED" not in done.stdout
    # Processor time: a busy machine must not make this fail.
    used = after.children_user - before.children_user + after.children_system
    assert used - before.children_system < 2, f"{time.monotonic() - started:.1f} s in all"


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from crboost.doctor.examination import Wanted, examine; "
        "from pathlib import Path; "
        "found = list(examine(Wanted(Path('.')))); "
        "print([n for n in ('prefect', 'numpy', 'pandas', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == "[]\n"


def test_with_a_trial(tmp_path: Path) -> None:
    done = doctor(tmp_path, tmp_path, "--submit", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    statuses = {one["check"]: one["status"] for one in said["findings"]}
    assert statuses["trial.driver"] == statuses["trial.locks"] == "ok"
    assert said["counts"]["failed"] == said["exit_code"] == 0
    assert not list(tmp_path.iterdir())


def test_failures_come_with_the_fix(tmp_path: Path) -> None:
    done = doctor(
        tmp_path, "/no/such/project", "--submit",
        CRBOOST_SCHEDULER__KIND="slurm", PATH="/nowhere",
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for check, fix in (
        ("project.writable", "make it, or correct the path"),
        ("scheduler.commands", "run crboost on a host that can submit jobs"),
    ):
        (number,) = [n for n, line in enumerate(lines) if f"FAILED  {check}" in line]
        assert fix in lines[number + 1]
    assert "no job was run: project.writable, scheduler.commands failed" in done.stdout


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[scheduler]\nkind = 'slrm'\n")
    done = doctor(tmp_path, CRBOOST_SETTINGS=str(path))
    assert done.returncode == 1
    assert f"{path}: scheduler.kind = 'slrm'" in done.stdout


def test_a_trial_needs_a_directory(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--submit")
    assert done.returncode == 2
    assert "--submit needs a directory" in done.stderr
