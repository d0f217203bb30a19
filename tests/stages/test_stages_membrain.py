"""membraneSegmentation through schemer and driver; the program is a double that sees the data."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from testbed.fixtures import RelionImage

from crboost.catalogue import TOMO_MEMBRANES
from crboost.project import Project
from crboost.relion.nodes import read_output_nodes
from crboost.results import read_results
from crboost.run import Run
from crboost.settings import Settings

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
BIN = Path(__file__).parents[1] / "doubles" / "bin"
TO_TOMOGRAMS = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
NODE = "membraneSegmentation"
COLUMN = "crboostTomoMembraneSegmentation"


def run(project: Project, jobs: list[str], *, fail: str = "") -> dict[str, str]:
    plan = project.plan(jobs, retry_failed=True)
    made = Run.create(project, plan, project.parameters(), Settings(), now=NOW)
    code = "import sys; from crboost.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name],
        capture_output=True,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "DOUBLES_PYTHON": sys.executable,
            "DOUBLES_FAIL": fail,
            "OMP_NUM_THREADS": "1",
        },
    )
    return {node: made.job_state(node).phase for node in made.nodes}


def newest(project: Project, node: str) -> Path:
    jobs = [past for past in project.history() if past.node == node]
    return project.directory / max(jobs, key=lambda past: past.number).name


def volume(path: Path) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as file:
        data: np.ndarray = file.data.copy()
        return data


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tomograms, and what a first try left of which one tilt series failed."""
    from crboost.cpu.example_data import make_example_data

    data = tmp_path_factory.mktemp("data")
    make_example_data(data, series=2, size_px=128, frames=2, tilt_step_deg=10, defects=False)
    made = Project.create(
        tmp_path_factory.mktemp("membranes") / "P",
        movies=[str(data / "frames")],
        mdocs=[str(data / "*.mdoc")],
    ).project
    made.set_values(
        {
            "acquisition.sample_thickness_nm": 60,
            "computing.workers": 2,
            "jobs.tsReconstruct.rescale_angpixs": 8.0,
            f"jobs.{NODE}.model_path": "MemBrain_v10-val_loss=0.5.ckpt",
            f"jobs.{NODE}.connected_components": True,
            f"jobs.{NODE}.store_probabilities": True,
        }
    )
    (made.directory / "MemBrain_v10-val_loss=0.5.ckpt").write_bytes(b"weights")
    jobs = [*TO_TOMOGRAMS, NODE]
    phases = run(made, jobs, fail="TS_02")
    assert list(phases) == jobs
    first = {name: one.status for name, one in read_results(newest(made, NODE)).items()}
    assert first == {"TS_01": "done", "TS_02": "failed"}
    return made


def test_what_failed_is_done_in_the_same_job_and_nothing_else(project: Project) -> None:
    """Against the bad habit of doing all again, or of calling half of it success for good."""
    job = newest(project, NODE)
    assert "CUDA out of memory" in str(read_results(job)["TS_02"].reason)
    before = read_results(job)["TS_01"]
    assert run(project, [NODE]) == {NODE: "succeeded"}
    assert newest(project, NODE) == job
    after = read_results(job)
    assert {name: one.status for name, one in after.items()} == dict.fromkeys(after, "done")
    assert after["TS_01"].started == before.started


def test_a_map_for_each_tomogram_and_a_column_that_names_it(project: Project) -> None:
    job = newest(project, NODE)
    table = starfile.read(job / "tomograms.star")
    (node,) = read_output_nodes(job)
    assert (node.label, Path(node.name).name) == (TOMO_MEMBRANES, "tomograms.star")
    assert list(table["rlnTomoName"]) == ["TS_01", "TS_02"]
    for name, one in read_results(job).items():
        (row,) = table[table["rlnTomoName"] == name].to_dict("records")
        found = volume(project.directory / row[COLUMN])
        tomogram = volume(project.directory / row["rlnTomoReconstructedTomogram"])
        assert found.shape == tomogram.shape
        # What was found is what is dark; the double's scores are the tool's second file.
        dark = tomogram[found > 0].mean()
        assert dark < tomogram.mean() - tomogram.std()
        assert one.metrics["membranes"] == found.max() > 1
        assert one.metrics["membrane_share"] == pytest.approx((found > 0).mean())
        assert [(project.directory / path).is_file() for path in one.outputs] == [True, True]


def test_a_plan_says_what_is_missing(project: Project) -> None:
    changed = project.parameters().with_values({f"jobs.{NODE}.model_path": ""})
    with pytest.raises(Exception, match="model_path is not set"):
        project.plan([NODE], changed)


@pytest.mark.relion
def test_relion_keeps_the_column(project: Project, relion_sif: RelionImage) -> None:
    job = newest(project, NODE).relative_to(project.directory)
    done = relion_sif.run(
        [
            "relion_star_handler",
            *("--i", f"{job}/tomograms.star", "--o", "kept.star"),
            *("--select", "rlnTomoTomogramBinning", "--minval", "0"),
        ],
        directory=project.directory,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = starfile.read(project.directory / "kept.star")
    assert list(kept[COLUMN]) == list(
        starfile.read(project.directory / job / "tomograms.star")[COLUMN]
    )
