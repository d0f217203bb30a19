"""The ledger: RELION's rules for jobs and nodes, old files, and many writers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from relion_golden import GOLDEN

from crboost.errors import FileFormatError, SchemerError
from crboost.relion import lock
from crboost.relion.ledger import (
    LEDGER_FILE,
    Edge,
    Ledger,
    Node,
    Process,
    Status,
    format_ledger,
    label_matches,
    parse_ledger,
    read_ledger,
    update_ledger,
)
from crboost.relion.star import parse_star

IMPORT = "TomogramGroupMetadata.star.relion.tomo.import"

RELION_3 = """
data_pipeline_general

_rlnPipeLineJobCounter                       3

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessType #3
_rlnPipeLineProcessStatus #4
Import/job001/ Import/movies/            0            2
MotionCorr/job002/       None            1            3

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeType #2
Import/job001/movies.star            0
"""

RELION_4 = """
# version 30001

data_pipeline_general

_rlnPipeLineJobCounter                       2

# version 30001

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
Extract/job001/particles.star ParticlesData.star.relion
Import/job001/o.star OptimisationSet.star.relion
"""


def ledger_of(*names: str) -> Ledger:
    ledger = Ledger()
    for name in names:
        ledger = ledger.add_process(Process(name, "relion.external", Status.SUCCEEDED))
    return ledger


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("default_pipeline.star")), ids=str)
def test_golden_ledgers_survive(path: Path) -> None:
    ledger = parse_ledger(parse_star(path.read_text()), path)
    assert format_ledger(ledger) == path.read_text()


def test_relions_own_tomography_run() -> None:
    ledger = read_ledger(GOLDEN / "tomo_local")
    assert ledger.counter == 6
    found = ledger.newest_producer("TomogramGroupMetadata.star.relion.tomo.ctffind")
    assert found is not None
    assert (found[0].name, found[1].name) == (
        "CtfFind/job003/",
        "CtfFind/job003/tilt_series_ctf.star",
    )
    every = ledger.producers("TomogramGroupMetadata.star")
    assert [process.number for process, _ in every] == [5, 4, 3, 2, 1]
    producer = ledger.producer_of("Import/job001/tilt_series.star")
    assert producer is not None and producer.name == "Import/job001/"
    assert [p.name for p in ledger.consumers_of("CtfFind/job003")] == ["AlignTiltSeries/job004/"]
    assert ledger.process("CtfFind/job003") == ledger.process("CtfFind/job003/")


def test_no_file_is_an_empty_ledger(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == Ledger(counter=1)
    assert Ledger().next_job_name("External") == "External/job001/"
    assert Ledger(counter=1234).next_job_name("External") == "External/job1234/"


def test_numbers_are_never_given_twice() -> None:
    ledger = ledger_of("External/job001/")
    again = ledger.add_process(Process("External/job001/", "relion.external", Status.RUNNING))
    assert (again.counter, len(again.processes)) == (2, 1)
    assert again.processes[0].status is Status.RUNNING


def test_only_succeeded_jobs_count_and_the_newest_first() -> None:
    ledger = ledger_of("External/job001/", "External/job002/", "External/job010/")
    for name in ("001", "002", "010"):
        ledger = ledger.add_output(
            f"External/job{name}/", Node(f"External/job{name}/t.star", IMPORT)
        )
    ledger = ledger.set_status("External/job010/", Status.FAILED)
    assert [p.number for p, _ in ledger.producers(IMPORT)] == [2, 1]
    assert [p.number for p, _ in ledger.producers(IMPORT, Status.FAILED)] == [10]
    found = ledger.newest_producer(IMPORT, lambda process, _node: process.number < 2)
    assert found is not None and found[0].number == 1
    assert ledger.newest_producer("Mask3D.mrc") is None


def test_a_label_matches_its_refinements_only() -> None:
    assert label_matches(IMPORT, "TomogramGroupMetadata.star.relion.tomo")
    assert not label_matches(IMPORT, "TomogramGroupMetadata.star.relion.tomo.im")


def test_inputs_as_relion_enters_them() -> None:
    ledger = ledger_of("External/job001/", "External/job002/", "External/job003/")
    known = Node("External/job001/out.star", IMPORT)
    ledger = ledger.add_output("External/job001/", known)
    ledger = ledger.add_input("External/job002/", Node(known.name, "Guessed.star"))
    assert ledger.inputs_of("External/job002/") == [known], "a known node keeps its label"
    assert ledger.add_input("External/job002/", known) == ledger
    # Not declared by job 1, but lying in its directory.
    ledger = ledger.add_input("External/job003/", Node("External/job001/more.star", "X.star"))
    assert Edge("External/job001/", "External/job001/more.star") in ledger.output_edges
    # An alias in the name is replaced.
    aliased = Ledger(
        2, (Process("Import/job001/", "relion.import", Status.SUCCEEDED, "Import/movies/"),)
    )
    aliased = aliased.add_input("Import/job001/", Node("Import/movies/m.star", "M.star"))
    assert aliased.nodes[0].name == "Import/job001/m.star"
    assert aliased.process("Import/movies") == aliased.processes[0]


def test_relion_3_numbers() -> None:
    ledger = parse_ledger(parse_star(RELION_3), "old")
    assert [(p.type_label, p.status, p.alias) for p in ledger.processes] == [
        ("relion.import", Status.SUCCEEDED, "Import/movies/"),
        ("relion.motioncorr", Status.FAILED, "None"),
    ]
    assert ledger.nodes[0].label == "MicrographMovieGroupMetadata.star.relion"


def test_relion_4_labels() -> None:
    ledger = parse_ledger(parse_star(RELION_4), "old")
    assert [node.label for node in ledger.nodes] == [
        "ParticleGroupMetadata.star.relion",
        "TomoOptimisationSet.star.relion",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("            3\n\ndata_pipeline_processes", "", "JobCounter"),
        ("_rlnPipeLineJobCounter                       3", "_rlnPipeLineJobCounter x", "'x'"),
        ("1            3\n", "1            9\n", "MotionCorr/job002/ has status '9'"),
        ("_rlnPipeLineProcessName", "_rlnWrong", "column rlnPipeLineProcessName is missing"),
    ],
)
def test_a_damaged_ledger_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RELION_3
    (tmp_path / LEDGER_FILE).write_text(RELION_3.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=said) as caught:
        read_ledger(tmp_path)
    assert str(tmp_path / LEDGER_FILE) in str(caught.value)


# --- writers -------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from crboost.relion.ledger import Process, Status, update_ledger
project, count = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(count):
    update_ledger(project, lambda ledger: ledger.add_process(
        Process(ledger.next_job_name("External"), "relion.external", Status.RUNNING)))
"""


def writer(directory: Path, count: int) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(directory), str(count)], env=environ)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    writers = [writer(tmp_path, 15) for _ in range(6)]
    while any(process.poll() is None for process in writers):
        read_ledger(tmp_path)  # a reader never sees half a file
    assert [process.returncode for process in writers] == [0] * 6
    ledger = read_ledger(tmp_path)
    assert ledger.counter == 91
    assert [process.number for process in ledger.processes] == list(range(1, 91))
    assert not (tmp_path / ".relion_lock").exists()


def test_killed_writers_block_nobody(tmp_path: Path) -> None:
    for _ in range(6):
        process = writer(tmp_path, 10000)
        time.sleep(0.35)
        process.kill()
        process.wait()
        before = read_ledger(tmp_path).counter
        started = time.monotonic()
        after = update_ledger(
            tmp_path,
            lambda ledger: ledger.add_process(
                Process(ledger.next_job_name("External"), "relion.external", Status.RUNNING)
            ),
            timeout_s=5,
        )
        assert after.counter == before + 1
        assert time.monotonic() - started < 2


def test_an_unchanged_ledger_is_not_written(tmp_path: Path) -> None:
    update_ledger(tmp_path, lambda ledger: ledger)
    path = tmp_path / LEDGER_FILE
    assert path.read_text() == format_ledger(Ledger())
    before = path.stat().st_mtime_ns, path.stat().st_ino
    update_ledger(tmp_path, lambda ledger: ledger)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_an_error_in_a_change_gives_the_lock_back(tmp_path: Path) -> None:
    def fail(_ledger: Ledger) -> Ledger:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        update_ledger(tmp_path, fail)
    assert not (tmp_path / ".relion_lock").exists()
    with pytest.raises(SchemerError, match="no such project"):
        update_ledger(tmp_path / "missing", lambda ledger: ledger)


def test_relions_lock_is_respected(tmp_path: Path) -> None:
    held = tmp_path / ".relion_lock"
    held.mkdir()
    (held / "lock_default_pipeline.star").write_text("runJob: External/job001/\n")
    with pytest.raises(SchemerError, match=r"held this lock for \d+ s \(runJob: External"):
        update_ledger(tmp_path, lambda ledger: ledger, timeout_s=0.2)
    assert held.exists()


def test_an_old_empty_lock_is_debris(tmp_path: Path) -> None:
    held = tmp_path / ".relion_lock"
    held.mkdir()
    with pytest.raises(SchemerError, match="unnamed"):
        update_ledger(tmp_path, lambda ledger: ledger, timeout_s=0.1)
    os.utime(held, (time.time() - 60, time.time() - 60))
    update_ledger(tmp_path, lambda ledger: ledger, timeout_s=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".pipeline_has_changed",
        "default_pipeline.star",
    ]


def test_a_living_owners_lock_is_respected_and_a_dead_ones_removed(tmp_path: Path) -> None:
    with lock.ledger_lock(tmp_path, "test"):
        assert not lock.remove_stale(tmp_path / ".relion_lock")
        owner = lock.lock_owner(tmp_path / ".relion_lock")
        assert owner is not None and owner.pid == os.getpid() and owner.alive() is True
        with pytest.raises(SchemerError, match=f"process {os.getpid()}"):
            update_ledger(tmp_path, lambda ledger: ledger, timeout_s=0.1)
    # The same process id after a reboot, and the same pid given to another process.
    for changed in ({"boot_id": "another"}, {"start_ticks": owner.start_ticks - 1}):
        fields = {
            "start_ticks": owner.start_ticks,
            "boot_id": owner.boot_id,
            "host": owner.host,
            **changed,
        }
        dead = lock.ProcessId(pid=os.getpid(), **fields)  # type: ignore[arg-type]
        assert dead.alive() is False
    assert lock.ProcessId(1, 1, "x", "another-host").alive() is None
