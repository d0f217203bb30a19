"""AreTomo2, AreTomo3 and IMOD called directly: what they find is what RELION's tables say.

The programs are doubles (tests/doubles) that align what is in the stacks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile

from crboost.cpu.accuracy import shift_errors, true_alignment
from crboost.cpu.geometry import TiltAlignment
from crboost.project import Project
from crboost.results import read_results
from crboost.run import Run
from crboost.settings import Settings

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
#: The doubles compute on CPUs: two tilt series at once on as many cores.
TWO_ON_A_GPU = Settings.model_validate({"scheduler": {"gpu_defaults": {"per_gpu": 2}}})
BIN = Path(__file__).parents[1] / "doubles" / "bin"
PIXEL = 4.0
KINDS: dict[str, dict[str, Any]] = {
    "tsAlignment": {"tool": "aretomo2"},
    "tsAlignment__2": {"tool": "aretomo3"},
    "tsAlignment__3": {"tool": "imod", "alignment_method": "etomo_fiducials"},
    "tsAlignment__4": {"tool": "imod", "alignment_method": "etomo_patches"},
    "tsAlignment__5": {"tool": "aretomo2", "rescale_angpixs": 8.0},
    "tsAlignment__6": {
        "tool": "imod",
        "alignment_method": "etomo_fiducials",
        "rescale_angpixs": 8.0,
    },
}


def run(project: Project, jobs: list[str], *, fail: str = "") -> dict[str, str]:
    plan = project.plan(jobs)
    made = Run.create(project, plan, project.parameters(), TWO_ON_A_GPU, now=NOW)
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


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two tilt series of simulated beads."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("stacks")
    made = make_example_data(
        directory,
        series=2,
        size_px=256,
        frames=2,
        tilt_step_deg=6,
        defects=False,
        pixel_size_angstrom=PIXEL,
    )
    told = json.loads(made.truth.read_text())["series"]
    return directory, {one["name"]: one for one in told}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, truth: tuple[Path, dict[str, Any]]
) -> Project:
    data, _ = truth
    made = Project.create(
        tmp_path_factory.mktemp("direct") / "P",
        movies=[str(data / "frames")],
        mdocs=[str(data / "*.mdoc")],
    ).project
    values: dict[str, object] = {"acquisition.sample_thickness_nm": 80, "computing.workers": 2}
    for node, given in KINDS.items():
        values |= {f"jobs.{node}.rescale_angpixs": PIXEL}
        values |= {f"jobs.{node}.{name}": value for name, value in given.items()}
    made.set_values(values)
    nodes = ["importmovies", "fsMotionAndCtf", *KINDS]
    assert run(made, nodes) == dict.fromkeys(nodes, "succeeded")
    return made


@pytest.mark.parametrize("node", KINDS)
def test_what_the_program_found_is_what_was_simulated(
    project: Project, truth: tuple[Path, dict[str, Any]], node: str
) -> None:
    for name, one in truth[1].items():
        rows = starfile.read(newest(project, node) / "tilt_series" / f"{name}.star")
        tilts = {tilt["name"]: tilt for tilt in one["tilts"]}
        found, actual = [], []
        for _, row in rows.iterrows():
            tilt = tilts[Path(row["rlnMicrographMovieName"]).stem]
            columns = ("XTilt", "YTilt", "ZRot", "XShiftAngst", "YShiftAngst")
            found.append(TiltAlignment(*(float(row[f"rlnTomo{column}"]) for column in columns)))
            actual.append(true_alignment(tilt, one))
            assert found[-1].y_tilt_deg == pytest.approx(tilt["tilt_angle_deg"], abs=0.02)
            assert found[-1].z_rot_deg == pytest.approx(one["tilt_axis_deg"], abs=2.5)
        assert len(found) == len(tilts)
        residuals, _ = shift_errors(found, actual, PIXEL)
        rms = np.sqrt((residuals**2).sum(axis=1).mean())
        assert rms < (2.5 if node == "tsAlignment__4" else 1.0), rms


def test_a_program_that_ends_with_0_and_left_nothing_has_failed(project: Project) -> None:
    for number, tool in (("7", "aretomo2"), ("8", "imod")):
        node = f"tsAlignment__{number}"
        project.set_values({f"jobs.{node}.tool": tool, f"jobs.{node}.rescale_angpixs": 5.0})
        assert run(project, [node], fail="TS_02") == {node: "succeeded"}
        results = read_results(newest(project, node))
        assert {name: one.status for name, one in results.items()} == {
            "TS_01": "done",
            "TS_02": "failed",
        }
        assert "was not written" in str(results["TS_02"].reason)
