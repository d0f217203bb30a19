"""A session from the first movie to the last tomogram, without any human act.

A simulated microscope writes five tilt series at 50 times its speed: one lacks a movie that comes
when all is over, one lacks a movie for ever, one breaks off. The service (server, worker, watcher)
is the one that `crboost up` starts. Once it works on this machine alone, and once through Slurm
and RELION's own schemer, where there are any; then worker and running flow are killed on the way.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from browser.chromium import Chromium, chromium_program
from browser.fixtures import REQUIRED_VARIABLE, SCREENSHOTS_VARIABLE
from testbed.fixtures import DIRECTORY_VARIABLE
from whole_site import (
    EXPECTED_TILTS,
    Facility,
    Microscope,
    cluster_settings,
    computed,
    job_of,
    kill,
    movies,
    tilts,
    wait_until,
    warnings_of,
)

from crboost.acquisition.microscope_simulation import Mishaps
from crboost.project import Project
from crboost.relion.ledger import read_ledger
from crboost.relion.star import read_star

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

SERIES = tuple(f"TS_0{number}" for number in range(1, 6))
LATE, INTERRUPTED, LACKING = "TS_02", "TS_03", "TS_04"
TILTS_BEFORE_THE_BREAK = 5
NODES = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct")
GRAPH_SECONDS = 3.0  # the page draws it on a canvas, which cannot be asked
LATE_SECONDS = 2000.0  # 40 s at this speed: after its partial series has been told


@dataclass
class Session:
    """A session that is over, and its project.

    Attributes:
        killed: what was killed on the way.
        pages: what Chromium showed of the first run while it ran, and of the last when all was
            over.
    """

    facility: Facility
    project: Path
    late_movie: str
    lost_movie: str
    killed: list[str] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)

    def job(self, node: str) -> str:
        job = job_of(self.project, node)
        assert job is not None
        return job


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microscope will write."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("recorded")
    make_example_data(directory, series=5, size_px=256, frames=2, tilt_range_deg=40,
                      tilt_step_deg=10, defects=False)  # fmt: skip
    return directory


def site(request: pytest.FixtureRequest) -> str:
    """The site's settings: this machine alone, or RELION in its image and Slurm.

    On the cluster the worker is killed: what it followed goes on elsewhere.
    """
    if request.param == "quiet" or not os.environ.get(DIRECTORY_VARIABLE):
        return ""
    image, _ = request.getfixturevalue("relion_sif"), request.getfixturevalue("_slurm_answers")
    return cluster_settings(image.image, image.apptainer.command)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module", params=["quiet", "worker killed"])
def session(
    request: pytest.FixtureRequest, recorded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    directory = tmp_path_factory.mktemp("facility")
    facility = Facility(directory, free_port(), site(request))
    microscope_writes = directory / "microscope"
    microscope_writes.mkdir()
    project = directory / "project"
    late, lost = movies(recorded, LATE)[6], movies(recorded, LACKING)[3]
    mishaps = Mishaps(
        {late: LATE_SECONDS}, frozenset({lost}), {INTERRUPTED: TILTS_BEFORE_THE_BREAK}
    )
    made = Session(facility, project, late, lost)
    try:
        facility.crboost("up")
        facility.crboost(
            "session", "start", "--watch", str(microscope_writes), "--project", str(project),
            "--preset", "simulated",
        )  # fmt: skip
        microscope = Microscope(recorded, microscope_writes, mishaps)
        microscope.start()
        if request.param == "worker killed":
            made.killed = kill_worker_and_flow(facility, project)
        elif chromium_program() or os.environ.get(REQUIRED_VARIABLE) == "1":
            browser = request.getfixturevalue("chromium")
            made.pages["running"] = look_at_the_first_run(made, browser)
        wait_until(lambda: is_done(made), 480, "every series has its tomogram")
        if made.pages:
            made.pages["done"] = look_at_the_last_run(made, browser)
        microscope.join(timeout=10)
        assert not microscope.is_alive()
        facility.crboost("session", "stop", str(project))
        yield made
    finally:
        facility.crboost("down")


def kill_worker_and_flow(facility: Facility, project: Path) -> list[str]:
    """Kill them while a flow run is in the middle of its first jobs."""
    wait_until(
        lambda: job_of(project, "fsMotionAndCtf") if Project.exists(project) else None,
        120,
        "the second job has begun",
    )
    flows = facility.flow_processes(project)
    assert flows, "no flow is at work"
    kill(facility.pids()["worker"])
    for pid in flows:
        kill(pid)
    return [f"worker, {len(flows)} flow processes"]


def look_at_the_first_run(session: Session, chromium: Chromium) -> str:
    """The page of the first run while one of its jobs is at work."""
    facility = session.facility
    wait_until(lambda: job_of(session.project, "importmovies"), 120, "the first job has begun")
    run = facility.flow_runs()[0]["id"]
    with chromium.page(1280, 800) as page:
        page.open(f"{facility.url}/runs/flow-run/{run}", login=facility.login)
        text = page.wait_text("Running", "importmovies", timeout=60)
        time.sleep(GRAPH_SECONDS)
        page.screenshot(screenshots(facility) / "running.png")
    return text


def look_at_the_last_run(session: Session, chromium: Chromium) -> str:
    """The page of the run that made the last tomogram, with the table of tilt series."""
    facility = session.facility
    ends = [one for one in facility.flow_runs() if one["state_type"] == "COMPLETED"]
    run = max(ends, key=lambda one: one["total_run_time"])["id"]
    with chromium.page(1280, 800) as page:
        page.open(f"{facility.url}/runs/flow-run/{run}", login=facility.login)
        text = page.wait_text("Completed", *NODES, timeout=60)
        time.sleep(GRAPH_SECONDS)
        page.screenshot(screenshots(facility) / "done.png")
        page.click("Artifacts")
        page.screenshot(screenshots(facility) / "artifacts.png")
    return text


def screenshots(facility: Facility) -> Path:
    return Path(os.environ.get(SCREENSHOTS_VARIABLE) or facility.directory)


def is_done(session: Session) -> bool:
    """Whether all has arrived and been through every stage, and nothing is at work."""
    if any(job_of(session.project, node) is None for node in NODES):
        return False
    states = [one.status for one in read_ledger(session.project).processes]
    if any(state != "Succeeded" for state in states):
        return False
    made = session.job("tsReconstruct")
    tomograms = session.project / made / "tomograms.star"
    if not tomograms.is_file():
        return False
    names = read_star(tomograms).blocks[0].column("rlnTomoName")
    return (
        tuple(names) == SERIES
        and all(len(tilts(session.project, session.job(n), LATE)) == EXPECTED_TILTS for n in NODES)
        and computed(session.project, made)[LATE] >= 2
        and not session.facility.flow_processes(session.project)
    )


def test_one_job_of_each_kind_takes_it_all(session: Session) -> None:
    """Jobs go on in their directories: RELION's GUI shows four, however often data came."""
    ledger = read_ledger(session.project)
    assert [one.name for one in ledger.processes] == [f"External/job00{n}/" for n in range(1, 5)]
    assert [session.job(node) for node in NODES] == [one.name for one in ledger.processes]


def test_every_series_has_its_tilts(session: Session) -> None:
    expected = dict.fromkeys(SERIES, EXPECTED_TILTS) | {
        INTERRUPTED: TILTS_BEFORE_THE_BREAK,
        LACKING: EXPECTED_TILTS - 1,
    }
    for node in NODES[1:]:
        found = {name: len(tilts(session.project, session.job(node), name)) for name in SERIES}
        assert found == expected, node
    assert session.late_movie in tilts(session.project, session.job("tsReconstruct"), LATE)


def test_every_series_has_a_tomogram(session: Session) -> None:
    block = read_star(session.project / session.job("tsReconstruct") / "tomograms.star").blocks[0]
    for name, file in zip(
        block.column("rlnTomoName"), block.column("rlnTomoReconstructedTomogram"), strict=True
    ):
        assert (session.project / file).is_file(), name


@pytest.mark.parametrize("node", NODES[1:])
def test_nothing_is_computed_twice(session: Session, node: str) -> None:
    """But what had a late movie: once without it, once with it."""
    times = computed(session.project, session.job(node))
    assert times == dict.fromkeys(SERIES, 1) | {LATE: 2}, node


def test_partial_series_are_marked_and_say_what_they_lack(session: Session) -> None:
    job = session.job("importmovies")
    warnings = {name: warnings_of(session.project, job, name) for name in SERIES}
    assert session.lost_movie in warnings[LACKING]
    assert f"{TILTS_BEFORE_THE_BREAK} tilts of {EXPECTED_TILTS}" in warnings[INTERRUPTED]
    assert not any(warnings[name] for name in SERIES if name not in (LACKING, INTERRUPTED))
    status = session.facility.crboost("status", str(session.project))
    for name in (LACKING, INTERRUPTED):
        (line,) = [one for one in status.splitlines() if one.strip().startswith(f"{name} ")]
        assert "partial" in line


def test_data_started_the_runs(session: Session) -> None:
    """Each run came from a batch of data; none stays `Running`, those of the dead included."""

    def ended() -> list[dict[str, Any]] | None:
        runs = session.facility.flow_runs()
        return (
            runs if all(one["state_type"] not in ("RUNNING", "PENDING") for one in runs) else None
        )

    runs = wait_until(ended, 150, "no run stays Running")
    assert len(runs) >= 3
    assert {one["parameters"]["mode"] for one in runs} == {"continue"}
    states = [one["state_type"] for one in runs]
    assert states.count("COMPLETED") >= 2
    if not session.killed:
        assert set(states) == {"COMPLETED"}, [(one["name"], one["state_name"]) for one in runs]


def test_a_person_sees_it_run_and_end(session: Session) -> None:
    """Each RELION job is a task on the page of its run, with its log below."""
    if not session.pages:
        pytest.skip("looked at where nothing is killed, and where there is a Chromium")
    assert "importmovies" in session.pages["running"]
    assert all(node in session.pages["done"] for node in NODES)
    assert "succeeded in External/job00" in session.pages["done"]


def test_raw_data_is_as_the_microscope_wrote_it(session: Session, recorded: Path) -> None:
    out = session.facility.directory / "microscope"
    written = {file.name for file in out.rglob("*") if file.is_file()}
    wanted = {file.name for file in (recorded / "frames").iterdir()}
    cut = set(movies(recorded, INTERRUPTED)[TILTS_BEFORE_THE_BREAK:])
    assert written == wanted - cut - {session.lost_movie} | {
        file.name for file in recorded.glob("*.mdoc")
    }
    for file in (recorded / "frames").iterdir():
        if file.name in written:
            assert (out / "frames" / file.name).read_bytes() == file.read_bytes()
