"""Side by side with the real `relion_schemer`, where CRBOOST_RELION_SCHEMER names one.

The same scheme through both engines: run with a failing job, mend it, run on, reset, run again.
After each stage every file must be the same, times and the differences named below aside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from relion_golden import mask_times

from crboost.relion.job import external_job, write_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import make_linear_scheme, read_scheme, scheme_dir, write_scheme
from crboost.relion.schemer import verbs
from crboost.relion.schemer.engine import EmbeddedEngine, Engine, RelionEngine
from crboost.relion.schemer.holder import hold
from crboost.relion.schemer.recovery import Action, recover

SCHEMER = os.environ.get("CRBOOST_RELION_SCHEMER", "")

pytestmark = pytest.mark.skipif(not SCHEMER, reason="CRBOOST_RELION_SCHEMER is not set")

BODY = """#!/bin/bash
while [ $# -gt 0 ]; do case $1 in --o) o=$2;; --node) n=$2;; esac; shift; done
echo start $n >> runs.log
[ -e slow_$n ] && sleep 1.5
[ -e fail_$n ] && { touch ${o}RELION_JOB_EXIT_FAILURE; exit 1; }
touch ${o}out.star
printf 'data_output_nodes\\nloop_\\n_rlnPipeLineNodeName #1\\n_rlnPipeLineNodeTypeLabel #2\\n' \\
  > ${o}RELION_OUTPUT_NODES.star
echo ${o}out.star TomogramGroupMetadata.star.relion.tomo.import >> ${o}RELION_OUTPUT_NODES.star
touch ${o}RELION_JOB_EXIT_SUCCESS
"""

# Ours: who holds what. RELION's: entries for inputs under the label guessed from their field.
IGNORED = ("schemer.pid", "schemer.exit", "schemer.lock", ".running.lock", "runs.log")
IGNORED_PARTS = (".Nodes",)


def make(directory: Path, driver: str) -> Path:
    directory.mkdir(parents=True)
    write_scheme(directory, make_linear_scheme("run", ["first", "second"]))
    program = directory / driver
    program.write_text(BODY)
    program.chmod(0o755)
    first = external_job(driver, parameters={"node": "first", "text": "a b"})
    second = external_job(
        driver, inputs={"in_mic": "Schemes/run/first/out.star"}, parameters={"node": "second"}
    )
    write_job(scheme_dir(directory, "run") / "first/job.star", first)
    write_job(scheme_dir(directory, "run") / "second/job.star", second)
    return directory


def files(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        is_left_out = path.name in IGNORED or set(name.parts) & set(IGNORED_PARTS)
        if path.is_file() and not is_left_out:
            lines = mask_times(path.read_text()).splitlines()
            # A file of the scheme's directory that fn_exe names is a job to RELION.
            kept = [line for line in lines if line.split()[:1] != ["driver"]]
            kept = [line for line in kept if "Schemes/run/driver -> " not in line]
            found[str(name)] = "\n".join(kept)
    return found


def reset(engine: Engine, directory: Path) -> None:
    if isinstance(engine, RelionEngine):
        subprocess.run([SCHEMER, "--scheme", "run", "--reset"], cwd=directory, check=True)
    else:
        verbs.reset(directory, "run")


def stages(directory: Path, engine: Engine) -> list[dict[str, str]]:
    states = []
    (directory / "fail_second").touch()
    assert hold(directory, "run", engine) == 0
    states.append(files(directory))
    (directory / "fail_second").unlink()
    assert recover(directory, "run", lambda _job: False).action is Action.RERUN
    assert hold(directory, "run", engine) == 0
    states.append(files(directory))
    assert recover(directory, "run", lambda _job: False).at_end
    reset(engine, directory)
    states.append(files(directory))
    assert hold(directory, "run", engine) == 0
    states.append(files(directory))
    return states


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["./driver.sh", "Schemes/run/driver"])
def test_the_same_files_at_every_stage(tmp_path: Path, driver: str) -> None:
    ours = stages(make(tmp_path / "embedded", driver), EmbeddedEngine())
    theirs = stages(make(tmp_path / "relion", driver), RelionEngine(program=SCHEMER))
    for stage, (our, their) in enumerate(zip(ours, theirs, strict=True), 1):
        assert sorted(our) == sorted(their), f"stage {stage}"
        for name in their:
            expected = their[name].replace(str(tmp_path / "relion"), str(tmp_path / "embedded"))
            assert our[name] == expected, f"stage {stage}: {name}"


HOLD = (
    "import sys; from pathlib import Path;"
    "from crboost.relion.schemer.engine import EmbeddedEngine, RelionEngine;"
    "from crboost.relion.schemer.holder import hold;"
    "e = RelionEngine(program=sys.argv[2]) if len(sys.argv) > 2 else EmbeddedEngine();"
    "sys.exit(hold(Path(sys.argv[1]), 'run', e))"
)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "next_engine"), [("relion", "embedded"), ("embedded", "relion")]
)
def test_either_engine_goes_on_after_the_other_was_killed(
    tmp_path: Path, killed: str, next_engine: str
) -> None:
    directory = make(tmp_path / "p", "./driver.sh")
    (directory / "slow_first").touch()
    arguments = {"relion": [SCHEMER], "embedded": []}
    argv = [sys.executable, "-c", HOLD, str(directory)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen([*argv, *arguments[killed]], env=environ)
    wait_until(lambda: (directory / "External/job001/note.txt").exists())
    wait_until(lambda: read_scheme(directory, "run").jobs["first"].has_started)
    holder.kill()
    holder.wait()
    # The real schemer follows its holder into death; its job does not.
    job = directory / "External/job001"
    wait_until(lambda: recover(directory, "run", lambda _j: True).action is not Action.HELD)
    wait_until(lambda: read_marker(job) is Marker.SUCCESS)
    done = recover(directory, "run", lambda _job: False)
    assert (done.action, done.next_node) == (Action.ADVANCE, "second")
    assert (
        subprocess.run([*argv, *arguments[next_engine]], env=environ, check=False).returncode == 0
    )
    assert (directory / "runs.log").read_text() == "start first\nstart second\n"
    ledger = read_ledger(directory)
    assert {process.status for process in ledger.processes} == {Status.SUCCEEDED}
    assert [n.name for n in ledger.inputs_of("External/job002/")] == ["External/job001/out.star"]
    assert not list(directory.glob(".relion_lock*"))
