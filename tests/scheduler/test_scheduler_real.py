"""On the testbed: the real Apptainer, the real relion_schemer in its image, the real Slurm.

Skips unless CRBOOST_TESTBED names a testbed that is up (`python tests/testbed up --dir DIR`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from crboost.containers import real_locations, relion_launch, wrap
from crboost.relion.job import external_job, write_job
from crboost.relion.ledger import Ledger, Status, read_ledger, write_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import JobMode, make_linear_scheme, write_scheme
from crboost.relion.schemer.engine import RelionEngine
from crboost.scheduler.ask import ask
from crboost.scheduler.cluster import limits, partitions
from crboost.scheduler.outcome import GoneWatch, cancel, scheduler_failure, state_of_job
from crboost.scheduler.resources import Resources
from crboost.scheduler.state import job_state
from crboost.scheduler.submission import write_submission
from crboost.scheduler.submitted import find_in_queue, scheduler_job_id
from crboost.settings import Settings

ODD = 'it\'s $HOME, a:b "q" ü^'
RUN = "run_1"
DRIVER = """#!/bin/bash
while [ $# -gt 0 ]; do case $1 in --o) o=$2 ;; --does) does=$2 ;; esac; shift; done
case $does in
  fails) exit 7 ;;
  eats) exec python3 -c 'x = bytearray(2_000_000_000)' ;;
esac
pwd >"${o}where"
touch "${o}RELION_JOB_EXIT_SUCCESS"
"""


@pytest.fixture(scope="module")
def site() -> Settings:
    """This machine's RELION image, Apptainer and Slurm as settings."""
    directory = os.environ.get("CRBOOST_TESTBED", "")
    file = Path(directory) / "testbed.json"
    if not directory or not file.is_file():
        pytest.skip("no testbed: python tests/testbed up --dir DIR, then CRBOOST_TESTBED=DIR")
    if ask(["scontrol", "ping"]).code != 0:
        pytest.skip("the testbed's Slurm does not answer: python tests/testbed up")
    described = json.loads(file.read_text())
    return Settings.model_validate(
        {
            "containers": {"executable": described["apptainer"]},
            "tools": {"relion": {"image": described["image"]}},
            "scheduler": {"kind": "slurm"},
        }
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a name that nobody should give, with one link to raw data."""
    raw = tmp_path / "raw, data:1"
    raw.mkdir()
    (raw / "a.tif").write_text("movie")
    (tmp_path / "by name").symlink_to(raw)
    project = tmp_path / ODD
    (project / "frames").mkdir(parents=True)
    (project / "frames" / "a.tif").symlink_to(tmp_path / "by name" / "a.tif")
    return project


def run_scheme(
    site: Settings, project: Path, does: list[str], resources: Resources
) -> dict[str, Status]:
    """Run one External job after another by relion_schemer in its image, through Slurm."""
    run = project / "Schemes" / RUN
    run.mkdir(parents=True)
    (run / "driver").write_text(DRIVER)
    (run / "driver").chmod(0o755)
    nodes = [f"job{number}" for number, _ in enumerate(does)]
    for node, what in zip(nodes, does, strict=True):
        asked = Resources(partition="nope") if what == "is refused" else resources
        submission = write_submission(project, f"Schemes/{RUN}", node, asked, site)
        job = external_job(
            f"Schemes/{RUN}/driver", parameters={"does": what}, submission=submission
        )
        write_job(run / node / "job.star", job)
    write_scheme(project, make_linear_scheme(RUN, nodes, JobMode.CONTINUE))
    write_ledger(project / "default_pipeline.star", Ledger())
    launch = relion_launch(site, project, environ=os.environ)
    RelionEngine(launch.argv_prefix, launch.environ, launch.program).run(project, RUN)
    return {one.name: one.status for one in read_ledger(project).processes}


def test_everything_reaches_the_tool(site: Settings, project: Path) -> None:
    arguments = ["a b", "it's", "$HOME `id`", "", 'say "so"', "back\\slash", "ü"]
    value = '1,2 = $HOME `id` "q" it\'s \\'
    script = 'pwd; cat frames/a.tif; printf "|%s" "$VALUE" "$@"'
    argv = wrap(
        ["bash", "-c", script, "bash", *arguments],
        "relion",
        site,
        cwd=project,
        binds=real_locations(project),
        gpus=True,
        environment={"VALUE": value, "ENDS": '"', "COMMAS": "1,2,3"},
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{project}\nmovie" + "".join(f"|{one}" for one in [value, *arguments])


def test_jobs_through_slurm(site: Settings, project: Path) -> None:
    states = run_scheme(site, project, ["works", "works"], Resources(memory_gb=1))
    assert set(states.values()) == {Status.SUCCEEDED}
    job = project / "External" / "job002"
    assert (job / "where").read_text() == f"{project}\n"
    assert scheduler_job_id(job) == find_in_queue(job)
    assert scheduler_failure(job) is None


def test_a_refused_job_does_not_hang_the_schemer(site: Settings, project: Path) -> None:
    states = run_scheme(site, project, ["is refused"], Resources())
    assert states == {"External/job001/": Status.FAILED}
    said = (project / "External/job001/run.err").read_text()
    assert "sbatch: error: invalid partition specified: nope" in said


def test_a_job_that_dies_does_not_hang_the_schemer(site: Settings, project: Path) -> None:
    states = run_scheme(site, project, ["fails"], Resources(memory_gb=1))
    assert states == {"External/job001/": Status.FAILED}
    failure = scheduler_failure(project / "External" / "job001")
    assert failure is not None
    assert (failure.kind, "exit code 7" in failure.message) == ("tool_error", True)


def test_memory(site: Settings, project: Path) -> None:
    described = json.loads((Path(os.environ["CRBOOST_TESTBED"]) / "testbed.json").read_text())
    if not described["slurm"]["memory_limit"].startswith("cgroup"):
        pytest.skip("this machine's Slurm cannot tell that memory was the reason")
    run_scheme(site, project, ["eats"], Resources(memory_gb=1))
    failure = scheduler_failure(project / "External" / "job001")
    assert failure is not None
    assert failure.kind == "out_of_memory"
    # For a moment accounting does not know what was asked for.
    assert re.search("the (1G|share) that it had asked for", failure.message)


def test_a_job_that_was_cancelled_while_it_waited(site: Settings, project: Path) -> None:
    """No script ever ran, so nobody wrote a marker: the watch does, with Slurm's reason."""
    job = project / "External" / "job001"
    job.mkdir(parents=True)
    script = "#!/bin/bash\n#SBATCH --hold\n#SBATCH --output=/dev/null\nsleep 100\n"
    (job / "run_submit.script").write_text(script)
    submission = write_submission(project, f"Schemes/{RUN}", "a", Resources(), site)
    assert submission is not None
    argv = ["sh", "-c", f"{submission.command} External/job001/run_submit.script"]
    subprocess.run(argv, cwd=project, check=True)
    number = scheduler_job_id(job)
    assert number is not None
    try:
        state = state_of_job(job)
        assert state is not None
        assert (state.phase, state.waits_for_somebody) == ("pending", True)
    finally:
        assert cancel(job) is None
    watch = GoneWatch(job, grace_s=0.5, poll_s=0.2)
    deadline = time.monotonic() + 60
    while watch.look() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert read_marker(job) is Marker.FAILURE
    assert "was cancelled" in (job / "run.err").read_text()
    assert json.loads((job / "failure.json").read_text())["kind"] == "aborted"


def test_a_job_that_never_was(site: Settings) -> None:
    assert job_state("99999999").phase == "forgotten"


def test_limits(site: Settings) -> None:
    found = limits()
    assert found is not None
    assert found.max_array_size > 1
    assert partitions()
