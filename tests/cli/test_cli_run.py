"""crboost run and all that looks at what it did: the real flow, the real tools, small data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crboost.project import Project
from crboost.turn import Claim, Turn, holder, waiting

if TYPE_CHECKING:
    from conftest import Crboost

    from crboost.cpu.example_data import ExampleData

JOBS = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
Finished = tuple[Path, subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


def test_a_run_ends_with_table_and_pictures(finished: Finished) -> None:
    project, said = finished
    assert said.returncode == 0, said.stderr
    assert "\x1b" not in said.stdout
    for job in JOBS:
        assert re.search(rf"{job}: succeeded in \S+job\d+ \(3 of 3 tilt series\)", said.stdout)
    lines = said.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("tilt series  tilts"))
    rows = [line.split() for line in lines[start + 1 : start + 4]]
    assert [row[:2] for row in rows] == [["TS_01", "9/9"], ["TS_02", "8/9"], ["TS_03", "8/9"]]
    for row in rows:
        assert (project / row[-1]).is_file()
    assert re.search(r"TS_02: tilt \d+ \(.* deg\): movie TS_02_.*\.mrc is missing", said.stdout)
    assert re.search(r"TS_03: tilt image TS_03_\S+ \(.* deg\): excluded: dark", said.stdout)
    pictures = [Path(line.strip()) for line in lines if line.endswith(".png")]
    assert pictures == [project / f"Reports/TS_0{number}.png" for number in (1, 2, 3)]
    assert all(picture.is_file() for picture in pictures)


def test_nothing_is_left_in_the_home(finished: Finished) -> None:
    home = finished[0].parent
    assert {path.name for path in home.iterdir()} <= {"project", ".cache", ".config"}
    assert not (home / ".prefect").exists()


def test_a_second_run_runs_nothing(crboost: Crboost, done: Path) -> None:
    ledger = (done / "default_pipeline.star").read_bytes()
    again = crboost("run", done)
    assert again.returncode == 0, again.stderr
    assert "everything is up to date" in again.stdout
    assert (done / "default_pipeline.star").read_bytes() == ledger


def test_status_of_a_finished_project(crboost: Crboost, finished: Finished) -> None:
    text = crboost("status", finished[0]).stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["tsAlignment", "External/job003", "succeeded", "3", "done"] in lines
    assert ["TS_02", "done", "done", "done", "done"] in lines
    value = json.loads(crboost("status", finished[0], "--json").stdout)
    assert value["active_run"] is None
    assert [job["node"] for job in value["jobs"]] == JOBS


def test_history_and_schemer_status(crboost: Crboost, finished: Finished) -> None:
    history = crboost("history", finished[0]).stdout.splitlines()
    assert [line.split()[1] for line in history[1:]] == JOBS
    run = history[1].split()[-1]
    assert re.fullmatch(r"run_\d{8}_\d{6}_[0-9a-f]{4}", run)
    states = json.loads(crboost("schemer", "status", finished[0], "--json").stdout)
    assert [(state["scheme"], state["exit_code"]) for state in states] == [(run, 0)]
    rows = json.loads(crboost("history", finished[0], "--json").stdout)
    assert {row["run"] for row in rows} == {run}


def test_log_shows_what_the_job_printed(crboost: Crboost, finished: Finished) -> None:
    shown = crboost("log", finished[0], "tsReconstruct", "-n", "1")
    printed = (finished[0] / "External/job004/run.out").read_text().splitlines()
    assert shown.stdout.splitlines()[0] == printed[-1]
    assert "External/job004 (tsReconstruct)" in shown.stderr
    followed = crboost("log", finished[0], "job004", "--follow", "-n", "1000")
    assert followed.stdout.splitlines()[: len(printed)] == printed


def test_a_changed_parameter_redoes_what_depends_on_it(crboost: Crboost, done: Path) -> None:
    assert crboost("set", done, "jobs.tsAlignment.dark_threshold=0.25").returncode == 0
    plan = json.loads(crboost("plan", done, "--json").stdout)
    assert [job["node"] for job in plan["jobs"]] == ["tsAlignment", "tsReconstruct"]
    assert [job["continue_of"] for job in plan["jobs"]] == [None, None]
    assert plan["jobs"][0]["inputs"][0]["path"] == "External/job002/tilt_series_ctf.star"


def test_a_deleted_output_is_noticed_and_made_again(crboost: Crboost, done: Path) -> None:
    tomogram = next((done / "External/job004/cpu/TS_02").glob("TS_02.mrc"))
    tomogram.unlink()
    plan = crboost("plan", done).stdout
    assert f"{tomogram.relative_to(done)}" in plan
    assert "1 job would run." in plan
    again = crboost("run", done)
    assert again.returncode == 0, again.stderr
    assert tomogram.is_file()
    assert not (done / "External/job005").exists()


def test_a_failed_job_speaks_first(crboost: Crboost, done: Path) -> None:
    """All averages are damaged: no tilt series can be aligned."""
    for image in (done / "External/job002").rglob("*.mrc"):
        image.write_bytes(b"not an image")
    failed = crboost("run", done, "tsAlignment", "--set", "jobs.tsAlignment.dark_threshold=0.2")
    assert failed.returncode == 1
    first, *rest = failed.stderr.splitlines()
    assert first.startswith("Error: tsAlignment: none of 3 tilt series could be done.")
    assert str(done / "External/job005/run.out") in "\n".join(rest)
    assert f"crboost log '{done}' tsAlignment" in "\n".join(rest)
    assert "Traceback" not in failed.stderr
    status = crboost("status", done).stdout
    assert re.search(r"tsAlignment +External/job005 +failed +3 failed", status)
    assert "TS_01 in tsAlignment: " in status


def test_an_interrupted_run_goes_on_by_itself(
    crboost: Crboost, project: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("PREFECT_")]:
        del environment[name]
    process = subprocess.Popen(
        [sys.executable, "-m", "crboost", "run", str(project)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    wait_for(lambda: (project / "External/job002/crboost_job.json").exists())
    during = crboost("status", project).stdout
    assert re.search(r"fsMotionAndCtf +External/job002 +running +\d of 3 tilt series", during)
    assert "tsReconstruct" in during
    assert "is at work." in during
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "its queue goes on by itself" in error
    assert f"crboost schemer abort '{project}'" in error
    opened = Project.open(project)
    wait_for(lambda: [job.status for job in opened.history()] == ["Succeeded"] * 4)
    again = crboost("run", project)
    assert again.returncode == 0, again.stderr
    assert not (project / "External/job005").exists()


def test_a_run_waits_for_the_one_that_is_at_work(done: Path, tmp_path: Path) -> None:
    at_work = Turn(done, Claim.of_this_process("the other run"))
    assert at_work.enter() is None
    assert at_work.take() is None
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("PREFECT_")]:
        del environment[name]
    process = subprocess.Popen(
        [sys.executable, "-m", "crboost", "run", str(done)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    wait_for(lambda: waiting(done))
    time.sleep(2)
    assert process.poll() is None
    at_work.release()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Waiting for the other run, which works on this project" in said
    assert "up to date" in said
    assert holder(done) is None


def test_the_driver_ignores_what_it_does_not_know(crboost: Crboost, done: Path) -> None:
    """RELION appends arguments of its own, such as --pipeline_control."""
    run = next((done / "Schemes").iterdir())
    ran = crboost(
        "job", "run", "--snapshot", f"Schemes/{run.name}/project_params.json",
        "--o", "External/job003/", "--in_mics", "External/job002/tilt_series_ctf.star",
        "--node", "tsAlignment", "--fingerprint", Project.open(done).history()[2].fingerprint,
        "--j", "1", "--pipeline_control", "External/job003/", cwd=done,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "3 done before, 0 to do" in ran.stdout


def test_scheme_verbs(crboost: Crboost, done: Path) -> None:
    run = next((done / "Schemes").iterdir()).name
    assert crboost("schemer", "copy", done, run, "again").returncode == 0
    assert crboost("schemer", "reset", done, "again").returncode == 0
    assert crboost("schemer", "set-current-node", done, "again", "tsAlignment").returncode == 0
    scheme = (done / "Schemes/again/scheme.star").read_text()
    assert re.search(r"_rlnSchemeCurrentNodeName +tsAlignment", scheme)
    wrong = crboost("schemer", "set-current-node", done, "again", "nosuch")
    assert wrong.returncode == 2
    assert "has no node nosuch" in wrong.stderr
    assert "importmovies" in wrong.stderr.splitlines()[1]
    idle = crboost("schemer", "abort", done)
    assert idle.returncode == 2
    assert "nothing is running" in idle.stderr


def test_a_flow_of_the_users_own_does_not_get_in_the_way(
    crboost: Crboost, done: Path, tmp_path: Path, example: ExampleData
) -> None:
    """A directory `flows/` where the user stands is not our package."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/local.py").write_text("raise SystemExit('the wrong one')")
    shutil.copy(tmp_path / "flows/local.py", tmp_path / "flows/__init__.py")
    again = crboost("run", done, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
