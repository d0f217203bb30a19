"""The holder: one schemer per project, found out by the kernel, and nothing lost when it dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from relion_golden import GOLDEN

from crboost.errors import SchemerError
from crboost.relion import lock
from crboost.relion.job import external_job, write_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import make_linear_scheme, read_scheme, scheme_dir, write_scheme
from crboost.relion.schemer import verbs
from crboost.relion.schemer.engine import EmbeddedEngine, RelionEngine
from crboost.relion.schemer.holder import (
    PROJECT_LOCK,
    active_scheme,
    detached_shell_line,
    hold,
    holder_state,
    project_lock,
    start_argv,
)
from crboost.relion.schemer.launch import has_processes
from crboost.relion.schemer.recovery import Action, decide, recover
from crboost.relion.schemer.walker import WalkerOptions

HOLD = (
    "import sys; from pathlib import Path;"
    "from crboost.relion.schemer.engine import EmbeddedEngine;"
    "from crboost.relion.schemer.holder import hold;"
    "sys.exit(hold(Path(sys.argv[1]), sys.argv[2], EmbeddedEngine()))"
)
SUCCEED = "touch ${d}SUCCESS"


def never(_job_dir: Path) -> bool:
    return False


def make(directory: Path, **scripts: str) -> Path:
    """A project with a linear scheme `run`; every start of a job adds a line to runs.log."""
    directory.mkdir(exist_ok=True)
    for node, script in scripts.items():
        path = directory / f"{node}.sh"
        text = f"#!/bin/bash\no=$2; d=${{o}}RELION_JOB_EXIT_\necho {node} >> runs.log\n"
        path.write_text(f"{text}echo $$ > ${{o}}pid\n{script}\n")
        path.chmod(0o755)
        write_job(scheme_dir(directory, "run") / node / "job.star", external_job(f"./{node}.sh"))
    write_scheme(directory, make_linear_scheme("run", list(scripts)))
    return directory


def start(directory: Path, environ: dict[str, str], name: str = "run") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLD, str(directory), name], env=environ)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def runs(directory: Path) -> list[str]:
    path = directory / "runs.log"
    return path.read_text().split() if path.exists() else []


# --- holding -----------------------------------------------------------------------------------


def test_hold_in_this_process(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a=SUCCEED)
    before = holder_state(directory, "run")
    assert (before.alive, before.pid, before.exit_code) == (False, None, None)
    assert hold(directory, "run", EmbeddedEngine(WalkerOptions(environ=environ))) == 0
    state = holder_state(directory, "run")
    assert (state.alive, state.exit_code, state.pid) == (False, 0, os.getpid())
    assert (state.engine, state.error) == ("embedded", None)
    out = (scheme_dir(directory, "run") / "schemer.out").read_text()
    assert "Creating new Job: External/job001/" in out
    record = json.loads((scheme_dir(directory, "run") / "schemer.pid").read_text())
    assert record["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert active_scheme(directory) is None


def test_a_second_schemer_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a="sleep 3; touch ${d}SUCCESS")
    write_scheme(directory, make_linear_scheme("other", ["a"]))
    first = start(directory, environ)
    wait_until(lambda: active_scheme(directory) == "run")
    assert holder_state(directory, "run").alive
    assert holder_state(directory, "run").pid == first.pid
    assert not holder_state(directory, "other").alive
    for name in ("run", "other"):
        with pytest.raises(SchemerError, match=rf"scheme run is held by\s+process {first.pid}"):
            hold(directory, name, EmbeddedEngine())
    assert first.wait(20) == 0
    assert active_scheme(directory) is None
    assert runs(directory) == ["a"]


def test_many_starts_at_once_run_it_once(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a="sleep 3; touch ${d}SUCCESS")
    holders = [start(directory, environ) for _ in range(4)]
    codes = sorted(holder.wait(30) for holder in holders)
    assert codes == [0, 1, 1, 1]
    assert runs(directory) == ["a"]


def test_looking_never_gets_in_the_way(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a=SUCCEED)
    (directory / ".crboost").mkdir()
    (directory / PROJECT_LOCK).touch()
    loop = "import sys\nfrom pathlib import Path\n"
    loop += "from crboost.relion.schemer.holder import active_scheme\n"
    loop += "while True: active_scheme(Path(sys.argv[1]))"
    lookers = [
        subprocess.Popen([sys.executable, "-c", loop, str(directory)], env=environ)
        for _ in range(2)
    ]
    try:
        time.sleep(0.5)
        for _ in range(5):
            with project_lock(directory, "run"):
                assert active_scheme(directory) == "run"
    finally:
        for looker in lookers:
            kill(looker)


def test_the_lock_dies_with_the_holder_and_not_with_its_jobs(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    directory = make(tmp_path / "p", a="sleep 1; touch ${d}SUCCESS")
    holder = start(directory, environ)
    wait_until(lambda: bool(runs(directory)))
    kill(holder)
    assert active_scheme(directory) is None
    state = holder_state(directory, "run")
    assert (state.alive, state.exit_code) == (False, None)
    assert has_processes(directory / "External/job001")
    wait_until(lambda: not has_processes(directory / "External/job001"))


def test_terminate_gives_the_locks_back(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a="sleep 1; touch ${d}SUCCESS")
    holder = start(directory, environ)
    wait_until(lambda: bool(runs(directory)))
    holder.terminate()
    assert holder.wait(10) == 143
    state = holder_state(directory, "run")
    assert (state.exit_code, state.error) == (143, "terminated")
    assert not list(directory.glob(".relion_lock*"))
    assert recover(directory, "run", never).action is Action.WAIT


def test_an_error_is_recorded(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a=SUCCEED)
    (scheme_dir(directory, "run") / "a/job.star").unlink()
    assert hold(directory, "run", EmbeddedEngine(WalkerOptions(environ=environ))) == 1
    state = holder_state(directory, "run")
    assert state.exit_code == 1
    assert "has no job file" in str(state.error)
    assert "has no job file" in (scheme_dir(directory, "run") / "schemer.err").read_text()
    with pytest.raises(SchemerError, match="there is no such scheme"):
        hold(directory, "nope", EmbeddedEngine())


def test_abort_through_the_engine(tmp_path: Path, environ: dict[str, str]) -> None:
    wait = "while [ ! -e ${o}RELION_JOB_ABORT_NOW ]; do sleep 0.05; done; touch ${d}ABORTED"
    directory = make(tmp_path / "p", a=wait)
    holder = start(directory, environ)
    wait_until(lambda: bool(runs(directory)))
    EmbeddedEngine().abort(directory, "run")
    assert holder.wait(20) == 0
    assert read_ledger(directory).processes[0].status is Status.ABORTED


# --- starting detached ---------------------------------------------------------------------------


def test_start_argv(tmp_path: Path) -> None:
    argv = start_argv(tmp_path, "run_1", "embedded")
    assert argv == [
        sys.executable,
        *("-P", "-m", "crboost", "schemer", "run", str(tmp_path), "run_1", "--engine", "embedded"),
    ]


def test_the_detached_line_quotes_prints_the_pid_and_survives(tmp_path: Path) -> None:
    nasty = "a b'c\"d$HOME`id`;&|>x\n*"
    log = tmp_path / "the log'.txt"
    code = "import os, sys, time; time.sleep(0.5); print(sys.argv[1:], os.getpid(), os.getsid(0))"
    line = detached_shell_line([sys.executable, "-c", code, nasty], log)
    started = time.monotonic()
    shell = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 0.4, "the line must not wait"
    pid = int(shell.stdout)
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    assert log.read_text() == f"{[nasty]} {pid} {pid}\n", "its own session, under that pid"


# --- relion_schemer ------------------------------------------------------------------------------


def relion_engine(directory: Path, script: str, environ: dict[str, str]) -> RelionEngine:
    program = directory / "relion_schemer"
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    return RelionEngine(["env", "LC_ALL=C"], environ, str(program))


def test_the_relion_engine_runs_in_the_project(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a=SUCCEED)
    engine = relion_engine(tmp_path, 'pwd; echo "$@"; echo oops >&2; exit 1', environ)
    assert engine.argv("run")[-5:] == ["--scheme", "run", "--run", "--verb", "2"]
    assert hold(directory, "run", engine) == 1
    out = (scheme_dir(directory, "run") / "schemer.out").read_text()
    assert out == f"{directory}\n--scheme run --run --verb 2\n"
    assert (scheme_dir(directory, "run") / "schemer.err").read_text() == "oops\n"
    missing = RelionEngine(["/nonexistent/apptainer", "exec"], environ)
    assert hold(directory, "run", missing) == 1
    assert "cannot run /nonexistent/apptainer" in str(holder_state(directory, "run").error)


def test_a_stale_lock_of_relion_is_removed_and_a_strangers_is_not(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    directory = make(tmp_path / "p", a=SUCCEED)
    stale = lock.scheme_lock_dir(directory, "run")
    stale.mkdir()
    (stale / "lock_scheme").write_text("lock mechanism from Schemer\n")
    engine = relion_engine(tmp_path, "exit 0", environ)
    with pytest.raises(SchemerError, match="another program has locked this scheme"):
        hold(directory, "run", engine)
    lock.release(stale)
    leaves_a_lock = f"mkdir {stale}; echo lock mechanism > {stale}/lock_scheme; exit 1"
    assert hold(directory, "run", relion_engine(tmp_path, leaves_a_lock, environ)) == 1
    assert stale.exists()
    recovery = recover(directory, "run", never)
    assert recovery.action is Action.START
    assert "removed the lock" in recovery.messages[0]
    assert not stale.exists()


# --- recovery ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_started", "marker", "alive", "action"),
    [
        (False, None, False, Action.START),
        (False, Marker.SUCCESS, True, Action.START),
        (True, Marker.SUCCESS, False, Action.ADVANCE),
        (True, Marker.SUCCESS, True, Action.ADVANCE),
        (True, Marker.FAILURE, False, Action.RERUN),
        (True, Marker.ABORTED, True, Action.RERUN),
        (True, None, True, Action.WAIT),
        (True, None, False, Action.FAIL),
    ],
)
def test_decide(has_started: bool, marker: Marker | None, alive: bool, action: Action) -> None:
    assert decide(has_started=has_started, marker=marker, alive=alive) is action


def test_killed_schemer_finished_job(
    project: Callable[[str], Path], environ: dict[str, str]
) -> None:
    """The golden `sig_KILL` project: killed in job 1 of 2. Its end, without a second start."""
    directory = project("scenario_sig_KILL")
    for node in ("ext1", "ext2"):
        path = scheme_dir(directory, "x") / node / "job.star"
        path.write_text(path.read_text().replace(" Yes ", " No "))
    verbs.set_var(directory, "x", "nap", "12")
    holder = start(directory, environ, "x")
    wait_until(lambda: (directory / "External/job001/note.txt").exists())
    kill(holder)
    assert (directory / ".relion_lock_scheme_x").exists()
    waiting = recover(directory, "x", never)
    assert (waiting.action, waiting.node, waiting.job_name) == (
        Action.WAIT,
        "ext1",
        "External/job001/",
    )
    wait_until(lambda: read_marker(directory / "External/job001") is Marker.SUCCESS)
    done = recover(directory, "x", never)
    assert (done.action, done.next_node, done.at_end) == (Action.ADVANCE, "ext2", False)
    ledger = read_ledger(directory)
    assert ledger.processes[0].status is Status.SUCCEEDED
    assert [node.name for node in ledger.outputs_of("External/job001/")] == [
        "External/job001/out.star"
    ]
    verbs.set_var(directory, "x", "nap", "0")
    assert start(directory, environ, "x").wait(20) == 0
    golden = GOLDEN / "scenario_sig_KILL"
    for name in ("default_pipeline.star", "Schemes/x/scheme.star"):
        assert (directory / name).read_text() == (golden / name).read_text()
    note = (directory / "External/job001/note.txt").read_text()
    assert note.count("Executing new job") == 1, "RELION's own rerun started it twice"
    end = recover(directory, "x", never)
    assert (end.action, end.node, end.at_end) == (Action.START, "EXIT", True)


def test_killed_schemer_in_the_last_job(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a="sleep 0.4; touch ${d}SUCCESS")
    holder = start(directory, environ)
    wait_until(lambda: bool(runs(directory)))
    kill(holder)
    wait_until(lambda: recover(directory, "run", never).at_end)
    assert read_ledger(directory).processes[0].status is Status.SUCCEEDED


def test_killed_schemer_and_killed_job(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a="[ -e again ] || sleep 60; touch ${d}SUCCESS", b=SUCCEED)
    holder = start(directory, environ)
    pid_file = directory / "External/job001/pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    kill(holder)
    assert recover(directory, "run", never).action is Action.WAIT
    os.killpg(os.getpgid(int(pid_file.read_text())), signal.SIGKILL)
    wait_until(lambda: not has_processes(directory / "External/job001"))
    elsewhere = recover(directory, "run", lambda job_dir: job_dir.name == "job001")
    assert elsewhere.action is Action.WAIT, "the caller knows it to run elsewhere"
    failed = recover(directory, "run", never)
    assert failed.action is Action.FAIL
    assert read_marker(directory / "External/job001") is Marker.FAILURE
    assert "process is gone" in (directory / "External/job001/run.err").read_text()
    assert read_ledger(directory).processes[0].status is Status.FAILED
    assert recover(directory, "run", never).action is Action.RERUN
    (directory / "again").touch()
    assert start(directory, environ).wait(20) == 0
    assert runs(directory) == ["a", "a", "b"]
    assert [p.name for p in read_ledger(directory).processes] == [
        "External/job001/",
        "External/job002/",
    ]


def test_recovery_leaves_a_living_schemer_alone(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = make(tmp_path / "p", a="sleep 0.5; touch ${d}SUCCESS")
    holder = start(directory, environ)
    wait_until(lambda: active_scheme(directory) == "run")
    assert recover(directory, "run", never).action is Action.HELD
    assert holder.wait(20) == 0


def test_a_job_to_be_continued_is_not_taken_for_done(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    directory = make(tmp_path / "p", a=SUCCEED, b=SUCCEED)
    assert start(directory, environ).wait(20) == 0
    scheme = read_scheme(directory, "run")
    for node in ("a", "b"):
        order = scheme_dir(directory, "run") / node / "job.star"
        order.write_text(order.read_text())  # as a new run's job file: younger than the marker
    scheme.current_node = "a"
    write_scheme(directory, scheme)
    assert recover(directory, "run", never).action is Action.START
    assert start(directory, environ).wait(20) == 0
    assert runs(directory) == ["a", "b", "a", "b"]
    # Killed after the ledger knew of the end and before the scheme did:
    scheme.current_node = "a"
    write_scheme(directory, scheme)
    assert recover(directory, "run", never).action is Action.ADVANCE
    assert read_scheme(directory, "run").current_node == "b"


@pytest.mark.slow
def test_kills_at_any_instant_never_start_a_job_twice(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """Kill the schemer again and again, recover, start; each job must run exactly once."""
    rng = random.Random(7)
    jobs = dict.fromkeys("abcdefghijkl", "sleep 0.1; touch ${d}SUCCESS")
    directory = make(tmp_path / "p", **jobs)
    kills = 0
    for _ in range(200):
        recovery = recover(directory, "run", never)
        if recovery.at_end:
            break
        if recovery.action in (Action.HELD, Action.WAIT):
            time.sleep(0.02)
            continue
        holder = start(directory, environ)
        wait_until(lambda h=holder: active_scheme(directory) is not None or h.poll() is not None)
        time.sleep(rng.uniform(0.0, 0.12))
        kills += holder.poll() is None
        kill(holder)
    else:
        pytest.fail("never came to an end")
    assert kills >= 5
    assert runs(directory) == list("abcdefghijkl")
    ledger = read_ledger(directory)
    assert {process.status for process in ledger.processes} == {Status.SUCCEEDED}
    assert len(ledger.processes) == 12
    assert read_scheme(directory, "run").current_node == "EXIT"
    for debris in directory.glob(".crboost_lock_*"):
        os.utime(debris, (0, 0))
    lock.sweep(directory)
    assert not list(directory.glob(".crboost_lock_*"))
