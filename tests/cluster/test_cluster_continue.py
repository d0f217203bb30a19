"""Mode continue on the real RELION and Slurm: the same jobs take what the microscope has added.

Ours redo the tilt series that are new or changed; RELION's own jobs skip what they find done, so
what has changed must not look done to them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tifffile
from cluster_site import Site, make_project, run_flow, slurm_jobs_below

from crboost.project import Project
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.star import read_star

pytestmark = [pytest.mark.relion, pytest.mark.slurm, pytest.mark.prefect, pytest.mark.slow]

NODES = ("importmovies", "motionCorr", "ctfFind", "tsAlignment", "reconstructTomograms")
JOBS = ("External/job001/", "MotionCorr/job002/", "CtfFind/job003/", "External/job004/",
        "Tomograms/job005/")  # fmt: skip
#: RELION's reconstruction cannot go on: it is done anew, in a job of its own.
AGAIN = "Tomograms/job006/"
TABLES = {
    "External/job001/": "tilt_series",
    "MotionCorr/job002/": "tilt_series",
    "CtfFind/job003/": "tilt_series",
    "External/job004/": "tilt_series",
}


@dataclass(frozen=True)
class Session:
    """A project that was processed twice: as the data came.

    Attributes:
        late: the movie of TS_02 that came after the first run.
        before, after: tilt series -> modification times of what was made of it.
    """

    project: Project
    site: Site
    late: str
    first: dict[str, Any]
    second: dict[str, Any]
    before: dict[str, dict[str, int]]
    after: dict[str, dict[str, int]]

    def movies(self, job: str, series: str) -> list[str]:
        """The movies in a job's table of a tilt series."""
        file = self.project.directory / job / TABLES[job] / f"{series}.star"
        block = read_star(file).blocks[0]
        return [Path(movie).name for movie in block.column("rlnMicrographMovieName")]


def made_of(project: Path, series: str) -> dict[str, int]:
    """Images that jobs made of a tilt series, and when."""
    return {
        str(file.relative_to(project)): file.stat().st_mtime_ns
        for job in (*JOBS, AGAIN)
        for file in (project / job).rglob(f"*{series}*.mrc")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def session(
    site_sections: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("continue")
    data = directory / "data"
    make_example_data(directory / "recorded", series=3, size_px=256, frames=4, tilt_range_deg=40,
                      tilt_step_deg=20, defects=False)  # fmt: skip
    shutil.copytree(directory / "recorded", data)
    late = sorted(file.name for file in (data / "frames").glob("TS_02_*"))[-1]
    for file in [data / "frames" / late, *data.rglob("TS_03*")]:
        file.unlink()
    site = Site(directory / "settings.toml", site_sections)
    site.set()
    project = make_project(directory / "project", data)
    project.set_values(
        {
            "data.movies": [str(data / "frames" / "*")],
            "data.mdocs": [str(data / "*.mdoc")],
            "acquisition.sample_thickness_nm": 100,
            "jobs.reconstructTomograms.binned_angpix": 8,
        }
    )
    first = run_flow(project, site, "--jobs", ",".join(NODES), timeout_seconds=400)
    before = {series: made_of(project.directory, series) for series in ("TS_01", "TS_02")}
    shutil.copytree(directory / "recorded", data, dirs_exist_ok=True)
    second = run_flow(
        project, site, "--jobs", ",".join(NODES), "--mode", "continue", timeout_seconds=400
    )
    after = {s: made_of(project.directory, s) for s in ("TS_01", "TS_02", "TS_03")}
    yield Session(project, site, late, first, second, before, after)
    assert slurm_jobs_below(directory) == []


def test_the_same_jobs_take_what_is_new(session: Session) -> None:
    assert (session.first["code"], session.first["state"]) == (0, "completed"), session.first
    assert (session.second["code"], session.second["state"]) == (0, "completed"), session.second
    assert session.first["jobs"] == dict(zip(NODES, JOBS, strict=True))
    assert session.second["jobs"] == {**session.first["jobs"], "reconstructTomograms": AGAIN}
    ledger = read_ledger(session.project.directory)
    jobs = {one.name: one.status for one in ledger.processes}
    assert jobs == dict.fromkeys((*JOBS, AGAIN), Status.SUCCEEDED)


@pytest.mark.parametrize("job", list(TABLES))
def test_every_table_has_every_tilt(session: Session, job: str) -> None:
    for series in ("TS_01", "TS_02", "TS_03"):
        assert len(session.movies(job, series)) == 5, (job, series)
    assert session.late in session.movies(job, "TS_02")


def test_what_was_done_is_not_done_again(session: Session) -> None:
    for name, made in session.before["TS_01"].items():
        assert session.after["TS_01"][name] == made, name


@pytest.mark.parametrize("series", ["TS_01", "TS_02", "TS_03"])
def test_every_series_has_a_tomogram(session: Session, series: str) -> None:
    """Also the one with a late movie: with `--only_do_unfinished` RELION 5.1 makes none at all."""
    made = {Path(name).name for name in session.after[series] if name.startswith(AGAIN)}
    assert made >= {f"rec_{series}_half1.mrc", f"rec_{series}_half2.mrc"}
    tomograms = read_star(session.project.directory / AGAIN / "tomograms.star").blocks[0]
    assert series in tomograms.column("rlnTomoName")


def test_a_third_run_finds_everything_up_to_date(session: Session) -> None:
    again = run_flow(session.project, session.site, "--jobs", ",".join(NODES), "--mode", "continue")
    assert (again["code"], again["state"]) == (0, "up_to_date"), again


def test_a_movie_that_was_written_again_is_corrected_again(session: Session) -> None:
    """RELION's job skips what has an output, however old that is."""
    directory = session.project.directory
    link = next(directory.glob("frames/TS_03_001_*.tif"))
    movie = link.resolve()
    frames = tifffile.imread(movie)
    tifffile.imwrite(movie, frames[::-1], compression="zlib", photometric="minisblack")
    stem = f"{JOBS[1]}frames/{link.stem.replace('.', '_')}"
    images = [name for name in session.after["TS_03"] if name.startswith(stem)]
    others = [name for name in session.after["TS_03"] if name.startswith(JOBS[1])]
    assert 0 < len(images) < len(others)
    said = run_flow(
        session.project, session.site, "--jobs", ",".join(NODES), "--mode", "continue",
        timeout_seconds=400,
    )  # fmt: skip
    assert (said["code"], said["state"]) == (0, "completed"), said
    now = made_of(directory, "TS_03")
    again = [name for name in others if now[name] > session.after["TS_03"][name]]
    assert sorted(again) == sorted(images)
