"""Side by side with the real `relion_schemer`: of the testbed, or CRBOOST_RELION_SCHEMER's.

The same schemes through both engines: jobs that fail, are mended, aborted and run on, loops,
forks and operators, resets. After each stage every file must be the same, times and the
differences named below aside; and what one engine leaves unfinished the other goes on with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from relion_golden import mask_times

from crboost.relion.job import external_job, write_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import (
    JobMode,
    Operator,
    Scheme,
    SchemeEdge,
    SchemeJob,
    Variable,
    make_linear_scheme,
    read_scheme,
    scheme_dir,
    write_scheme,
)
from crboost.relion.schemer import verbs
from crboost.relion.schemer.engine import EmbeddedEngine, Engine, RelionEngine
from crboost.relion.schemer.holder import hold
from crboost.relion.schemer.recovery import Action, recover

SCHEMER = os.environ.get("CRBOOST_RELION_SCHEMER", "")

pytestmark = [pytest.mark.relion, pytest.mark.slow]

MakeEngine = Callable[[Path], RelionEngine]
Files = dict[str, str]


@pytest.fixture
def real(request: pytest.FixtureRequest) -> MakeEngine:
    """The real engine for a project directory; it is ended where it does not end by itself."""
    end = time.monotonic() + 90

    def watch(_project: Path, _scheme: str) -> None:
        assert time.monotonic() < end, "relion_schemer does not come to an end"

    if SCHEMER:
        return lambda _directory: RelionEngine(program=SCHEMER, watch=watch)
    image = request.getfixturevalue("relion_sif")
    return lambda directory: RelionEngine(image.argv([], directory), watch=watch)


BODY = """#!/bin/bash
while [ $# -gt 0 ]; do case $1 in --o) o=$2;; --node) n=$2;; esac; shift; done
echo start $n >> runs.log
[ -e slow_$n ] && sleep 1.5
[ -e abort_$n ] && {
  while [ ! -e ${o}RELION_JOB_ABORT_NOW ]; do sleep 0.1; done
  touch ${o}RELION_JOB_EXIT_ABORTED; exit 1
}
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


def make(directory: Path, driver: str = "./driver.sh", scheme: Scheme | None = None) -> Path:
    """A project with the jobs `first` and `second`, the latter on the former's output."""
    directory.mkdir(parents=True)
    write_scheme(directory, scheme or make_linear_scheme("run", ["first", "second"]))
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


def verb(engine: Engine, directory: Path, *words: str) -> None:
    """`--reset`, `--abort`: by RELION where the engine is RELION's."""
    if isinstance(engine, RelionEngine):
        argv = [*engine.argv_prefix, engine.program, "--scheme", "run", *words]
        subprocess.run(argv, cwd=directory, check=True, capture_output=True, timeout=60)
    elif words == ("--reset",):
        verbs.reset(directory, "run")
    elif words == ("--abort",):
        verbs.abort(directory, "run", say=lambda _line: None)
    else:
        raise ValueError(words)


def assert_same(
    tmp_path: Path,
    real: MakeEngine,
    prepare: Callable[[Path], Path],
    stages: Callable[[Path, Engine], list[Files]],
) -> None:
    """Every file the same after each stage."""
    ours = stages(prepare(tmp_path / "embedded"), EmbeddedEngine())
    directory = prepare(tmp_path / "relion")
    theirs = stages(directory, real(directory))
    for stage, (our, their) in enumerate(zip(ours, theirs, strict=True), 1):
        assert sorted(our) == sorted(their), f"stage {stage}"
        for name in their:
            expected = their[name].replace(str(tmp_path / "relion"), str(tmp_path / "embedded"))
            assert our[name] == expected, f"stage {stage}: {name}"


def failing_stages(directory: Path, engine: Engine) -> list[Files]:
    states = []
    (directory / "fail_second").touch()
    assert hold(directory, "run", engine) == 0
    states.append(files(directory))
    (directory / "fail_second").unlink()
    assert recover(directory, "run", lambda _job: False).action is Action.RERUN
    assert hold(directory, "run", engine) == 0
    states.append(files(directory))
    assert recover(directory, "run", lambda _job: False).at_end
    verb(engine, directory, "--reset")
    states.append(files(directory))
    assert hold(directory, "run", engine) == 0
    states.append(files(directory))
    return states


@pytest.mark.parametrize("driver", ["./driver.sh", "Schemes/run/driver"])
def test_failing_mended_and_reset(tmp_path: Path, real: MakeEngine, driver: str) -> None:
    assert_same(tmp_path, real, lambda directory: make(directory, driver), failing_stages)


def aborted_stages(directory: Path, engine: Engine) -> list[Files]:
    """Aborted in its second job, then run on to the end."""
    (directory / "abort_second").touch()

    def abort() -> None:
        wait_until(lambda: "start second" in log(directory))
        verb(engine, directory, "--abort")

    aborting = threading.Thread(target=abort)
    aborting.start()
    assert hold(directory, "run", engine) == 0
    aborting.join()
    states = [files(directory)]
    assert read_ledger(directory).processes[1].status is Status.ABORTED
    (directory / "abort_second").unlink()
    assert recover(directory, "run", lambda _job: False).action is Action.RERUN
    assert hold(directory, "run", engine) == 0
    assert read_ledger(directory).processes[1].status is Status.SUCCEEDED
    return [*states, files(directory)]


def test_aborted_and_run_on(tmp_path: Path, real: MakeEngine) -> None:
    assert_same(tmp_path, real, make, aborted_stages)


def loop(mode: JobMode) -> Scheme:
    """`first`, three times. RELION 5.1 lets a bare number through, and counts it as 0."""
    return Scheme(
        "run",
        "first",
        floats={"n": Variable(0.0, 0.0), "one": Variable(1.0, 1.0), "limit": Variable(3.0, 3.0)},
        bools={"enough": Variable(False, False)},
        operators={
            "COUNT": Operator("float=plus", "n", "n", "one"),
            "ENOUGH": Operator("bool=ge", "enough", "n", "limit"),
            "EXIT": Operator("exit"),
        },
        jobs={"first": SchemeJob("first", mode), "second": SchemeJob("second", mode)},
        edges=[
            SchemeEdge("first", "COUNT"),
            SchemeEdge("COUNT", "ENOUGH"),
            SchemeEdge("ENOUGH", "first", True, "second", "enough"),
            SchemeEdge("second", "EXIT"),
        ],
    )


def run_and_reset(directory: Path, engine: Engine) -> list[Files]:
    assert hold(directory, "run", engine) == 0
    states = [files(directory)]
    verb(engine, directory, "--reset")
    states.append(files(directory))
    assert hold(directory, "run", engine) == 0
    return [*states, files(directory)]


@pytest.mark.parametrize(("mode", "jobs"), [(JobMode.CONTINUE, 4), (JobMode.NEW, 8)])
def test_loops_in_both_modes(tmp_path: Path, real: MakeEngine, mode: JobMode, jobs: int) -> None:
    def prepare(directory: Path) -> Path:
        return make(directory, scheme=loop(mode))

    assert_same(tmp_path, real, prepare, run_and_reset)
    assert len(read_ledger(tmp_path / "relion").processes) == jobs
    assert log(tmp_path / "relion").split("\n").count("start first") == 6


def forks() -> Scheme:
    """Operators of each kind, files, and a fork that the second run takes the other way."""
    strings = {
        "flag": "done.txt", "word": "a", "joined": "", "table": "Schemes/run/first/out.star",
        "copy": "kept.txt", "before": "", "found": "", "pattern": "driver.*", "dot": ".",
        "list": "x,y,z", "second_word": "", "moved": "moved.txt",
    }  # fmt: skip
    floats = {"two": 2.0, "three": 3.0, "sum": 0.0, "product": 0.0, "rounded": 0.0, "words": 0.0,
              "ratio": 0.0}  # fmt: skip
    nodes = {
        "SUM": Operator("float=plus", "sum", "two", "three"),
        "PRODUCT": Operator("float=mult", "product", "sum", "three"),
        "RATIO": Operator("float=divide", "ratio", "product", "two"),
        "ROUNDED": Operator("float=round", "rounded", "ratio"),
        "JOINED": Operator("string=join", "joined", "word", "flag"),
        "BEFORE": Operator("string=before_first", "before", "joined", "dot"),
        "NTH": Operator("string=nth_word", "second_word", "list", "two"),
        "WORDS": Operator("float=count_words", "words", "list"),
        "GLOB": Operator("string=glob", "found", "pattern"),
        "MORE": Operator("bool=gt", "more", "product", "sum"),
        "NOT": Operator("bool=not", "less", "more"),
        "EITHER": Operator("bool=or", "either", "more", "less"),
        "BOTH": Operator("bool=and", "both", "more", "less"),
        "EXISTS": Operator("bool=file_exists", "exists", "flag"),
        "FORK": Operator("bool=set", "is_second_time", "exists"),
        "TOUCH": Operator("touch_file", input1="flag"),
        "COPY": Operator("copy_file", input1="flag", input2="copy"),
        "MOVE": Operator("move_file", input1="copy", input2="moved"),
        "DELETE": Operator("delete_file", input1="moved"),
        "EXIT": Operator("exit"),
    }
    names = list(nodes)
    until_fork = names[: names.index("FORK") + 1]
    edges = [SchemeEdge("first", "SUM")]
    edges += [SchemeEdge(*pair) for pair in pairwise(until_fork)]
    edges += [
        SchemeEdge("FORK", "TOUCH", True, "second", "is_second_time"),
        SchemeEdge("TOUCH", "COPY"),
        SchemeEdge("COPY", "EXIT"),
        SchemeEdge("second", "MOVE"),
        SchemeEdge("MOVE", "DELETE"),
        SchemeEdge("DELETE", "EXIT"),
    ]
    booleans = ("more", "less", "either", "both", "exists", "is_second_time")
    return Scheme(
        "run",
        "first",
        floats={name: Variable(value, value) for name, value in floats.items()},
        bools={name: Variable(False, False) for name in booleans},
        strings={name: Variable(value, value) for name, value in strings.items()},
        operators=nodes,
        jobs={name: SchemeJob(name, JobMode.CONTINUE) for name in ("first", "second")},
        edges=edges,
    )


def test_forks_and_operators(tmp_path: Path, real: MakeEngine) -> None:
    def prepare(directory: Path) -> Path:
        return make(directory, scheme=forks())

    assert_same(tmp_path, real, prepare, run_and_reset)
    assert log(tmp_path / "relion").split() == ["start", "first", "start", "first", "start",
                                                "second"]  # fmt: skip
    after = read_scheme(tmp_path / "relion", "run")
    assert (after.floats["product"].value, after.floats["words"].value) == (15.0, 3.0)
    assert after.strings["joined"].value == "adone.txt"
    assert not (tmp_path / "relion" / "moved.txt").exists()


def test_variables_in_job_files(tmp_path: Path, real: MakeEngine) -> None:
    def prepare(directory: Path) -> Path:
        scheme = make_linear_scheme("run", ["first", "second"])
        scheme.floats = {"size": Variable(4.0, 4.0), "half": Variable(0.5, 0.5)}
        scheme.strings = {"who": Variable("me", "me")}
        make(directory, scheme=scheme)
        job = external_job(
            "./driver.sh",
            inputs={"in_mic": "Schemes/run/first/out.star"},
            parameters={"node": "second", "text": "$$who and $$size A", "half": "$$half"},
        )
        write_job(scheme_dir(directory, "run") / "second/job.star", job)
        return directory

    assert_same(tmp_path, real, prepare, run_and_reset)


HOLD = (
    "import json, sys; from pathlib import Path;"
    "from crboost.relion.schemer.engine import EmbeddedEngine, RelionEngine;"
    "from crboost.relion.schemer.holder import hold;"
    "a = json.loads(sys.argv[2]);"
    "e = RelionEngine(a[:-1], program=a[-1]) if a else EmbeddedEngine();"
    "sys.exit(hold(Path(sys.argv[1]), 'run', e))"
)


def log(directory: Path) -> str:
    """What the drivers wrote when they started."""
    path = directory / "runs.log"
    return path.read_text() if path.exists() else ""


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("killed", "next_engine"), [("relion", "embedded"), ("embedded", "relion")]
)
def test_either_engine_goes_on_after_the_other_was_killed(
    tmp_path: Path, real: MakeEngine, killed: str, next_engine: str
) -> None:
    directory = make(tmp_path / "p")
    (directory / "slow_first").touch()
    engine = real(directory)
    arguments: dict[str, list[Any]] = {
        "relion": [*engine.argv_prefix, engine.program],
        "embedded": [],
    }
    argv = [sys.executable, "-c", HOLD, str(directory)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen([*argv, json.dumps(arguments[killed])], env=environ)
    wait_until(lambda: (directory / "External/job001/note.txt").exists())
    wait_until(lambda: read_scheme(directory, "run").jobs["first"].has_started)
    holder.kill()
    holder.wait()
    # The real schemer follows its holder into death, or recovery ends it; its job goes on.
    job = directory / "External/job001"
    wait_until(lambda: recover(directory, "run", lambda _j: True).action is not Action.HELD)
    wait_until(lambda: read_marker(job) is Marker.SUCCESS)
    done = recover(directory, "run", lambda _job: False)
    assert (done.action, done.next_node) == (Action.ADVANCE, "second")
    assert (
        subprocess.run(
            [*argv, json.dumps(arguments[next_engine])], env=environ, check=False, timeout=90
        ).returncode
        == 0
    )
    assert (directory / "runs.log").read_text() == "start first\nstart second\n"
    ledger = read_ledger(directory)
    assert {process.status for process in ledger.processes} == {Status.SUCCEEDED}
    assert [n.name for n in ledger.inputs_of("External/job002/")] == ["External/job001/out.star"]
    assert not list(directory.glob(".relion_lock*"))
