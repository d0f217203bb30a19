"""How jobs end badly on a real cluster, and what a user is told; the relion engine throughout.

Every test runs the real flow, the real relion_schemer in its image, and the real Slurm.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cluster_site import Bench, sacct, task_messages, task_runs

from crboost.relion.ledger import Status, read_ledger
from crboost.relion.lock import ProcessId, scheme_lock_dir
from crboost.relion.markers import Marker, read_marker
from crboost.run import active_run
from crboost.scheduler.submitted import read_submitted, scheduler_job_id

pytestmark = [pytest.mark.relion, pytest.mark.slurm, pytest.mark.prefect, pytest.mark.slow]

NODE = "importmovies"
JOB = "External/job001"
EATS = f"{sys.executable} -c 'memory = bytearray(1_400_000_000)' || exit 137\n"
Eventually = Callable[..., None]


def slurm_number(bench: Bench, eventually: Eventually, state: str, job: str = JOB) -> str:
    """The number of the bench's job, once Slurm calls it RUNNING (or whatever)."""
    found: list[str] = []

    def there() -> bool:
        directory = bench.directory / job
        number = scheduler_job_id(directory) if directory.is_dir() else None
        if number is None:
            return False
        said = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", number],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        if f"JobState={state} " in said.stdout:
            found.append(number)
        return bool(found)

    eventually(there, 90)
    return found[0]


def expire(number: str) -> None:
    """Let the job's time be over now; Slurm acts within 30 s."""
    subprocess.run(["scontrol", "update", f"jobid={number}", "EndTime=now"], check=True)


def test_memory(bench: Bench, slurm_memory_limit: None) -> None:
    """Named as such where the site allows no more; else tried again with twice as much."""
    bench.behave(NODE, EATS)
    bench.site.set(scheduler={"defaults": {"memory_gb": 1}, "max_memory_gb": 1})
    result = bench.run("--jobs", NODE)
    assert (result["code"], result["state"], result["kind"]) == (1, "failed", "out_of_memory")
    first, *_ = result["message"].splitlines()
    assert re.match(r"Slurm job \d+ \(OUT_OF_MEMORY\) was killed on compute1: ", first), result
    # Accounting may not have heard yet how much it was.
    assert re.search(r"it used more memory than the (1G|share) that it had asked for", first)
    (said,) = task_messages(bench.project, NODE)
    assert first in said
    assert f"{NODE} ({JOB}) failed: out of memory" in said
    assert bench.starts() == [NODE]
    assert bench.events("retry") == []

    bench.site.set(scheduler={"max_memory_gb": 512})
    result = bench.run("--jobs", NODE)
    assert (result["code"], result["state"]) == (0, "completed"), result
    (retry,) = bench.events("retry")
    assert (retry["failure"], retry["changed"]) == ("out_of_memory", "memory 1 -> 2 GB")
    assert bench.starts() == [NODE, NODE, NODE]
    number = scheduler_job_id(bench.directory / result["jobs"][NODE])
    assert number is not None
    assert sacct(number, "ReqMem", "State") == {"ReqMem": "2G", "State": "COMPLETED"}
    assert dict(task_runs(bench.project))[NODE] == "Completed"


def test_time(bench: Bench, eventually: Eventually) -> None:
    """The other limit is another error; the next try asks for twice the time."""
    bench.behave(NODE, "[ $tries -gt 1 ] || sleep 600\n")
    flow = bench.start("--jobs", NODE)
    expire(slurm_number(bench, eventually, "RUNNING"))
    result = flow.finish()
    assert (result["code"], result["state"]) == (0, "completed"), result
    (retry,) = bench.events("retry")
    assert (retry["failure"], retry["changed"]) == ("time_limit", "time limit 10 -> 20 minutes")
    number = scheduler_job_id(bench.directory / JOB)
    assert number is not None
    assert sacct(number, "Timelimit", "State") == {"Timelimit": "00:20:00", "State": "COMPLETED"}
    assert bench.starts() == [NODE, NODE]

    bench.behave(NODE, "sleep 600\n")
    bench.site.set(scheduler={"max_time_limit_minutes": 10})
    flow = bench.start("--jobs", NODE, "--set", "acquisition.sample_thickness_nm=90",
                       "--set", "acquisition.dose_per_tilt_e_per_a2=2.5")  # fmt: skip
    expire(slurm_number(bench, eventually, "RUNNING", "External/job002"))
    result = flow.finish()
    assert (result["code"], result["state"], result["kind"]) == (1, "failed", "time_limit")
    first, *_ = result["message"].splitlines()
    assert re.match(r"Slurm job \d+ \(TIMEOUT\) was killed on compute1 at its time limit", first)
    assert "memory" not in result["message"]
    assert first in task_messages(bench.project, NODE)[-1]


def test_a_refused_submission_says_why(bench: Bench) -> None:
    bench.site.set(scheduler={"defaults": {"partition": "nope"}})
    result = bench.run("--jobs", NODE)
    assert (result["code"], result["state"]) == (1, "failed"), result
    assert "sbatch: error: invalid partition specified: nope" in result["message"]
    assert result["message"].splitlines()[0] in task_messages(bench.project, NODE)[0]
    assert [one.status for one in read_ledger(bench.directory).processes] == [Status.FAILED]
    assert bench.starts() == []
    submitted = read_submitted(bench.directory / JOB)
    assert submitted is not None
    assert submitted.job_id is None


def test_a_cancelled_job_ends_the_run(bench: Bench, eventually: Eventually) -> None:
    """Somebody wanted it to stop: no retry, and the schemer does not wait for it for ever."""
    bench.behave(NODE, "trap 'kill %1; exit 143' TERM; sleep 600 & wait\n")
    flow = bench.start("--jobs", NODE)
    number = slurm_number(bench, eventually, "RUNNING")
    eventually(lambda: bench.starts() == [NODE])
    subprocess.run(["scancel", number], check=True)
    result = flow.finish(90)
    assert (result["code"], result["state"], result["kind"]) == (1, "failed", "aborted"), result
    assert f"Slurm job {number} (CANCELLED) was cancelled" in result["message"]
    assert bench.starts() == [NODE]
    assert not bench.last_run.schemer_alive()
    assert json.loads((bench.last_run.directory / "schemer.exit").read_text())["exit_code"] == 0


def test_a_job_that_was_killed_silently(bench: Bench, eventually: Eventually) -> None:
    """No process of it could say a word: the watch finds that Slurm has it no more."""
    bench.behave(NODE, "[ $tries -gt 1 ] || sleep 600\n")
    flow = bench.start("--jobs", NODE)
    number = slurm_number(bench, eventually, "RUNNING")
    eventually(lambda: bench.starts() == [NODE])
    said = subprocess.run(["scontrol", "listpids", number], capture_output=True, text=True)
    pids = [int(line.split()[0]) for line in said.stdout.splitlines()[1:]]
    assert len(pids) >= 2, said.stdout
    for pid in pids:  # as the kernel would, for memory of the whole machine
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: sacct(number, "State")["State"] not in ("RUNNING", "COMPLETING"))
    result = flow.finish(120)
    assert (result["code"], result["state"]) == (0, "completed"), result
    (retry,) = bench.events("retry")
    assert retry["failure"] == "killed"
    assert bench.starts() == [NODE, NODE]
    said = (bench.directory / JOB / "run.err").read_text()
    assert f"crboost schemer: Slurm job {number} " in said
    assert "left no RELION_JOB_EXIT_ file" in said


def test_a_killed_schemer_is_replaced_and_nothing_runs_twice(
    bench: Bench, eventually: Eventually
) -> None:
    """The job goes on under Slurm; the next run takes it over, and the dead schemer's lock off."""
    nodes = [NODE, "fsMotionAndCtf"]
    bench.behave(NODE, "while [ ! -e go ]; do sleep 0.2; done\n")
    flow = bench.start("--jobs", ",".join(nodes))
    number = slurm_number(bench, eventually, "RUNNING")
    eventually(lambda: bench.starts() == [NODE])
    run = active_run(bench.project)
    assert run is not None
    flow.process.kill()
    flow.process.communicate()
    pids = json.loads((run.directory / "schemer.pid").read_text())
    os.kill(pids["pid"], signal.SIGKILL)
    eventually(lambda: not run.schemer_alive())
    engine = ProcessId(**pids["engine_process"])
    assert scheme_lock_dir(bench.directory, run.name).exists()
    assert slurm_number(bench, eventually, "RUNNING") == number

    # Its container has outlived it, and would go on with nobody to see that a job is lost.
    assert engine.alive()
    flow = bench.start("--jobs", ",".join(nodes))
    eventually(lambda: not engine.alive())
    (bench.directory / "go").touch()
    result = flow.finish()
    assert (result["code"], result["state"]) == (0, "completed"), result
    assert result["joined"] == run.name
    assert bench.starts() == nodes
    assert scheduler_job_id(bench.directory / JOB) == number
    ledger = read_ledger(bench.directory)
    assert [one.status for one in ledger.processes] == [Status.SUCCEEDED] * 2
    messages = [event["message"] for event in run.record["events"] if "message" in event]
    assert messages[:2] == [
        f"ended the relion_schemer of {run.name}, whose holder is gone",
        f"removed the lock that a dead schemer left on {run.name}",
    ]
    assert not scheme_lock_dir(bench.directory, run.name).exists()
    again = bench.run("--jobs", ",".join(nodes))
    assert (again["code"], again["state"]) == (0, "up_to_date"), again


@pytest.mark.parametrize("waits", [True, False])
def test_abort(bench: Bench, eventually: Eventually, waits: bool) -> None:
    """A job in the queue cannot hear that it is to stop; one that runs can."""
    if waits:
        bench.site.set(scheduler={"submit_command": "sbatch --hold"})
    else:
        bench.behave(NODE, "while [ ! -e $job/RELION_JOB_ABORT_NOW ]; do sleep 0.2; done\n"
                     "touch $job/RELION_JOB_EXIT_ABORTED; exit 2\n")  # fmt: skip
    flow = bench.start("--jobs", f"{NODE},fsMotionAndCtf")
    number = slurm_number(bench, eventually, "PENDING" if waits else "RUNNING")
    if not waits:
        eventually(lambda: bench.starts() == [NODE])
    said = subprocess.run(
        [sys.executable, "-m", "crboost", "schemer", "abort", str(bench.directory)],
        env=bench.site.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert (f"{JOB} was taken out of the queue" in said.stdout) is waits
    result = flow.finish(120)
    assert (result["code"], result["state"], result["kind"]) == (1, "failed", "aborted"), result
    assert read_marker(bench.directory / JOB) is Marker.ABORTED
    assert [one.status for one in read_ledger(bench.directory).processes] == [Status.ABORTED]
    assert bench.starts() == ([] if waits else [NODE])
    state = sacct(number, "State")["State"]
    assert state.startswith("CANCELLED") if waits else state in ("COMPLETED", "FAILED")
    assert not bench.last_run.schemer_alive()
    assert not scheme_lock_dir(bench.directory, bench.last_run.name).exists()


def test_a_driver_that_fails_is_not_taken_for_a_limit(bench: Bench) -> None:
    """Slurm calls every non-zero exit FAILED: the job's own words count."""
    failure: dict[str, Any] = {"kind": "bad_input", "message": "TS_01: every tilt is dark"}
    bench.behave(
        NODE,
        f"echo '{json.dumps(failure)}' >$job/failure.json\n"
        "touch $job/RELION_JOB_EXIT_FAILURE; exit 1\n",
    )
    result = bench.run("--jobs", NODE)
    assert (result["code"], result["kind"]) == (1, "bad_input"), result
    assert result["message"].startswith("TS_01: every tilt is dark\n")
    assert bench.starts() == [NODE]
