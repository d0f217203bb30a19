"""Tilt series as tasks of a real Slurm array inside one RELION job."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster_array import INTERPRETER, JOB, NODE, ArrayBench, directives, job_file
from cluster_site import Site, make_project, run_flow, sacct, slurm_jobs_below, start_flow

from crboost.array_directory import read_round
from crboost.files import write_json, write_text
from crboost.generate import scripts_directory
from crboost.job_directory import read_failure
from crboost.relion.markers import Marker, read_marker, request_abort
from crboost.run import runs
from crboost.scheduler.array import array_queue, task_spec
from crboost.scheduler.resources import Resources
from crboost.scheduler.submission import write_submission
from crboost.settings import load_settings
from crboost.translate.tables import read_tilt_series

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SERIES = ["TS_01", "TS_02", "TS_03", "TS_04"]
ALL_DONE = dict.fromkeys(SERIES, "done")
EATS = f"{sys.executable} -c 'memory = bytearray(1_400_000_000)' || exit 137"
#: A `scontrol` whose site allows arrays of three tasks.
SMALL_ARRAYS = """\
#!/bin/sh
if [ "$1 $2" = "show config" ]; then
  {scontrol} show config | sed 's/^MaxArraySize .*/MaxArraySize            = 3/'
else
  exec {scontrol} "$@"
fi
"""
Eventually = Callable[..., None]


@pytest.fixture(scope="session")
def four_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("four")
    make_example_data(directory, series=4, size_px=128, frames=2, tilt_range_deg=10,
                      tilt_step_deg=10, defects=False)  # fmt: skip
    return directory


@pytest.fixture
def bench(site: Site, four_series: Path, tmp_path: Path, slurm: Any) -> Iterator[ArrayBench]:
    interpreter = tmp_path / "interpreter"
    write_text(interpreter, INTERPRETER.format(python=sys.executable))
    interpreter.chmod(0o755)
    site.set(
        python=str(interpreter),
        schemer="embedded",
        scheduler={
            "defaults": {"cpus": 1, "memory_gb": 1},
            "coordinator": {"memory_gb": 1, "time_limit_minutes": 30},
            "jobs": {NODE: {"array": True}},
        },
    )
    made = ArrayBench(make_project(tmp_path / "project", four_series), site)
    made.project.set_values({f"jobs.{NODE}.array_throttle": 2})
    yield made
    made.clean_up()


def statuses(bench: ArrayBench) -> dict[str, str]:
    return {name: one.status for name, one in bench.results.items()}


def test_one_task_for_each_tilt_series(bench: ArrayBench) -> None:
    run = bench.run()
    assert read_marker(bench.job) is Marker.SUCCESS, bench.log
    assert statuses(bench) == ALL_DONE
    (batch,) = bench.batches
    assert batch.tasks == [[name] for name in SERIES]
    assert bench.most_at_once() == 2
    assert sorted(task for _, task, _ in bench.tasks()) == [0, 1, 2, 3]
    table = read_tilt_series(bench.job / "tilt_series_ctf.star", bench.directory)
    assert list(table) == SERIES
    (array,) = bench.arrays
    assert array != bench.coordinator
    for task in range(4):
        said = (batch.task_directory(bench.job, task) / "run.out").read_text()
        assert SERIES[task] in said
        assert sacct(f"{array}_{task}", "State")["State"] == "COMPLETED"
    assert f"Slurm job {array}: 4 tilt series in 4 tasks, 2 at once" in bench.log
    assert "[4/4] " in bench.log
    closed = read_round(bench.job)
    assert closed is not None
    assert closed.closed == "done"
    assert job_file(bench)["array"]["throttle"] == 2
    state = run.job_state(NODE)
    assert (state.phase, state.done, state.total) == ("succeeded", 4, 4)
    # The coordinator and its tasks ask for different things.
    assert sacct(bench.coordinator, "Timelimit")["Timelimit"] == "00:30:00"
    assert sacct(f"{array}_0", "Timelimit")["Timelimit"] == "00:10:00"


def test_more_tilt_series_than_an_array_may_have(bench: ArrayBench, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "scontrol"
    write_text(shim, SMALL_ARRAYS.format(scontrol=shutil.which("scontrol")))
    shim.chmod(0o755)
    bench.site.set(scheduler={"setup": [f"export PATH={shim.parent}:$PATH OMP_NUM_THREADS=1"]})
    bench.run()
    assert statuses(bench) == ALL_DONE, bench.log
    assert [[*batch.tasks] for batch in bench.batches] == [
        [["TS_01"], ["TS_02"], ["TS_03"]],
        [["TS_04"]],
    ]
    arrays = [directives(batch.directory(bench.job))["array"] for batch in bench.batches]
    assert arrays == ["0-2%2", "0-0%2"]
    assert "1 to follow" in bench.log
    assert len(bench.tasks()) == 4


def test_each_task_that_dies_gets_what_it_lacked(
    bench: ArrayBench, eventually: Eventually, slurm_memory_limit: None
) -> None:
    """Memory and time, in Slurm's words; only the tilt series that lacked it are done again."""
    bench.project.set_values({f"jobs.{NODE}.array_throttle": 4})
    bench.behave(
        f"if [ $batch = 1 ] && [ $task = 2 ]; then {EATS}; fi\n"
        "if [ $batch = 1 ] && [ $task = 1 ]; then sleep 600; fi\n"
    )
    schemer = bench.start(bench.make_run())
    eventually(lambda: ("1", 1) in [one[:2] for one in bench.tasks()], 90)
    (array,) = bench.arrays
    subprocess.run(["scontrol", "update", f"jobid={array}_1", "EndTime=now"], check=True)
    schemer.communicate(timeout=240)
    assert statuses(bench) == ALL_DONE, bench.log
    assert re.search(
        rf"TS_03: Slurm job {array}_2 \(OUT_OF_MEMORY\) was killed on compute1: .* "
        r"memory 1 -> 2 GB; will be tried again",
        bench.log,
    ), bench.log
    assert re.search(
        rf"TS_02: Slurm job {array}_1 \(TIMEOUT\) was killed on compute1 at its time limit.*"
        r"time limit 10 -> 20 minutes; will be tried again",
        bench.log,
    ), bench.log
    again = {batch.tasks[0][0]: batch for batch in bench.batches[1:]}
    assert set(again) == {"TS_02", "TS_03"}
    assert directives(again["TS_03"].directory(bench.job))["mem"] == "2G"
    assert directives(again["TS_02"].directory(bench.job))["time"] == "00:20:00"
    assert len(bench.tasks()) == 6


def test_a_tilt_series_that_cannot_be_done_fails_alone(
    bench: ArrayBench, eventually: Eventually, slurm_memory_limit: None
) -> None:
    """One has too little memory for good, one was cancelled by a person; the next run does both."""
    bench.site.set(scheduler={"max_memory_gb": 1})
    bench.project.set_values({f"jobs.{NODE}.array_throttle": 4})
    bench.behave(
        f"if [ $task = 2 ]; then {EATS}; fi\nif [ $task = 3 ]; then sleep 600; fi\n"
    )  # fmt: skip
    schemer = bench.start(bench.make_run())
    eventually(lambda: ("1", 3) in [one[:2] for one in bench.tasks()], 90)
    (array,) = bench.arrays
    subprocess.run(["scancel", f"{array}_3"], check=True)
    schemer.communicate(timeout=240)
    assert read_marker(bench.job) is Marker.SUCCESS, bench.log
    assert statuses(bench) == {**ALL_DONE, "TS_03": "failed", "TS_04": "failed"}
    lacked, cancelled = bench.results["TS_03"], bench.results["TS_04"]
    assert re.match(rf"Slurm job {array}_2 \(OUT_OF_MEMORY\) was killed", str(lacked.reason))
    assert "the site allows no more" in str(lacked.reason)
    assert f"(log: {JOB}/tasks/1/2/run.err)" in str(lacked.reason)
    assert re.match(rf"Slurm job {array}_3 \(CANCELLED\) was cancelled", str(cancelled.reason))
    assert (lacked.redo, cancelled.redo) == (False, True)
    table = read_tilt_series(bench.job / "tilt_series_ctf.star", bench.directory)
    assert list(table) == ["TS_01", "TS_02"]

    bench.behave("")
    bench.run(mode="continue")
    assert statuses(bench) == ALL_DONE, bench.log
    (batch,) = bench.batches
    assert batch.tasks == [["TS_03"], ["TS_04"]]
    assert len(bench.tasks()) == 6


def test_several_tilt_series_share_a_gpu(bench: ArrayBench) -> None:
    """As a tool with GPUs would be run; here only the tasks' resources are a GPU's."""
    # Both stay until both are there.
    bench.behave(
        'echo "$CUDA_VISIBLE_DEVICES" >>gpus.txt\n'
        "for i in $(seq 300); do [ $(wc -l <gpus.txt) = 2 ] && break; sleep 0.2; done\n"
    )
    run = bench.make_run()
    bench.site.set(scheduler={"jobs": {NODE: {"per_gpu": 3, "partition": "gpu"}}})
    settings = load_settings()
    asked = Resources(cpus=3, memory_gb=1, time_limit_minutes=10, gpus=2, partition="gpu")
    spec = task_spec(NODE, settings.scheduler, asked, throttle=2, workers=None)
    tasks = write_submission(
        bench.directory, scripts_directory(run.name), f"{NODE}.tasks", spec.resources, settings
    )
    assert tasks is not None
    spec = replace(spec, template=tasks.template)
    write_json(run.directory / NODE / "array.json", spec.to_dict())
    bench.start(run).communicate(timeout=180)
    assert statuses(bench) == ALL_DONE, bench.log
    (batch,) = bench.batches
    assert batch.tasks == [["TS_01", "TS_02", "TS_03"], ["TS_04"]]
    assert len(bench.tasks()) == 2
    assert "4 tilt series in 2 tasks" in bench.log
    asked_for = directives(batch.directory(bench.job))
    assert (asked_for["gres"], asked_for["partition"]) == ("gpu:1", "gpu")
    assert sorted((bench.directory / "gpus.txt").read_text().split()) == ["0", "1"]
    begun = [datetime.fromisoformat(bench.results[name].started) for name in SERIES[:3]]
    longest = max(bench.results[name].seconds for name in SERIES[:3])
    assert max(begun) - min(begun) < timedelta(seconds=longest)


def test_abort_ends_the_tasks_too(bench: ArrayBench, eventually: Eventually) -> None:
    bench.behave("while [ ! -e go ]; do sleep 0.2; done\n")
    schemer = bench.start(bench.make_run())
    eventually(lambda: len(bench.tasks()) == 2, 90)
    (array,) = bench.arrays
    request_abort(bench.job)
    schemer.communicate(timeout=120)
    assert read_marker(bench.job) is Marker.ABORTED, bench.log
    queue = array_queue(array)
    assert queue is not None
    assert queue.alive == frozenset()
    assert (len(bench.tasks()), len(bench.tasks("end"))) == (2, 0)
    closed = read_round(bench.job)
    assert closed is not None
    assert closed.closed == "aborted"
    assert statuses(bench) == {}


def test_a_cancelled_array_is_not_tried_again(bench: ArrayBench, eventually: Eventually) -> None:
    """Also its tasks that never started, of which Slurm has one record for all."""
    bench.behave("while [ ! -e go ]; do sleep 0.2; done\n")
    schemer = bench.start(bench.make_run())
    eventually(lambda: len(bench.tasks()) == 2, 90)
    (array,) = bench.arrays
    subprocess.run(["scancel", array], check=True)
    schemer.communicate(timeout=120)
    assert read_marker(bench.job) is Marker.FAILURE, bench.log
    assert bench.arrays == [array]
    assert statuses(bench) == dict.fromkeys(SERIES, "failed")
    for result in bench.results.values():
        assert "(CANCELLED) was cancelled" in str(result.reason)
    failure = read_failure(bench.job)
    assert failure is not None
    assert "none of 4 tilt series could be done" in failure[1]


def test_a_cancelled_coordinator_takes_its_tasks_along(
    bench: ArrayBench, eventually: Eventually
) -> None:
    bench.behave("while [ ! -e go ]; do sleep 0.2; done\n")
    schemer = bench.start(bench.make_run())
    eventually(lambda: len(bench.tasks()) == 2, 90)
    (array,) = bench.arrays
    subprocess.run(["scancel", bench.coordinator], check=True)
    schemer.communicate(timeout=120)
    assert read_marker(bench.job) is Marker.FAILURE, bench.log
    queue = array_queue(array)
    assert queue is not None
    assert queue.alive == frozenset()
    assert len(bench.tasks()) == 2


def test_tasks_that_sbatch_refuses(bench: ArrayBench) -> None:
    bench.site.set(scheduler={"jobs": {NODE: {"partition": "nope"}}})
    bench.run()
    assert read_marker(bench.job) is Marker.FAILURE
    failure = read_failure(bench.job)
    assert failure is not None
    assert failure[0] == "bad_input"
    assert "invalid partition specified: nope" in failure[1]


@pytest.mark.relion
@pytest.mark.prefect
def test_a_killed_coordinator_finds_its_array_again(
    bench: ArrayBench, eventually: Eventually
) -> None:
    """By the flow and the real relion_schemer: the job is tried again, and waits for the tasks."""
    bench.site.set(schemer="relion")
    bench.behave("while [ ! -e go ]; do sleep 0.2; done\n")
    flow = start_flow(bench.project, bench.site, "--jobs", f"importmovies,{NODE}")
    try:
        eventually(lambda: len(bench.tasks()) == 2, 120)
        (array,) = bench.arrays
        first = bench.coordinator
        said = subprocess.run(["scontrol", "listpids", first], capture_output=True, text=True)
        for line in said.stdout.splitlines()[1:]:  # as the kernel would
            os.kill(int(line.split()[0]), signal.SIGKILL)
        eventually(lambda: bench.coordinator not in ("", first), 120)
        (bench.directory / "go").touch()
        result = flow.finish()
    finally:
        if flow.process.poll() is None:
            flow.process.kill()
            flow.process.communicate()
    assert (result["code"], result["state"]) == (0, "completed"), result
    assert statuses(bench) == ALL_DONE
    assert bench.arrays == [array]
    assert sorted(task for _, task, _ in bench.tasks()) == [0, 1, 2, 3]
    (run,) = runs(bench.project)
    (retry,) = [event for event in run.record["events"] if event["event"] == "retry"]
    assert retry["failure"] == "killed"
    state = run.job_state(NODE)
    assert (state.phase, state.done, state.total) == ("succeeded", 4, 4)
    assert slurm_jobs_below(bench.directory) == []
    again = run_flow(bench.project, bench.site, "--jobs", f"importmovies,{NODE}")
    assert (again["code"], again["state"]) == (0, "up_to_date"), again


def test_the_plan_says_so(bench: ArrayBench) -> None:
    run = bench.make_run()
    plan = json.loads((run.directory / "plan.json").read_text())
    (job,) = [one for one in plan["jobs"] if one["node"] == NODE]
    assert job["resources"]["array"] == "2 tasks at once"
