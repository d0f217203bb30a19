"""A project of two pixel sizes and voltages, through all its jobs."""

from __future__ import annotations

import sys
from contextlib import chdir
from pathlib import Path

import mrcfile
import pytest

from crboost.catalogue import CATALOGUE
from crboost.driver import Request, run_job
from crboost.files import read_json
from crboost.parameters import write_parameters
from crboost.project import Project
from crboost.relion.star import read_star
from crboost.results import read_results
from crboost.translate.tables import read_tilt_series

CHAIN = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct")
EXPECTED = {"TS_01": (4.0, 300.0), "TS_02": (5.0, 200.0)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All jobs done. TS_01 and TS_02 differ in their mdocs alone. Read only."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("optics")
    data = directory / "data"
    make_example_data(data, series=2, size_px=128, frames=2, tilt_range_deg=20, tilt_step_deg=10,
                      defects=False)  # fmt: skip
    mdoc = data / "TS_02.mdoc"
    text = mdoc.read_text()
    assert "PixelSpacing = 4" in text and "Voltage = 300" in text
    text = text.replace("PixelSpacing = 4", "PixelSpacing = 5")
    mdoc.write_text(text.replace("Voltage = 300", "Voltage = 200"))
    project = Project.create(
        directory / "P", movies=[str(data / "frames")], mdocs=[str(data / "*.mdoc")]
    ).project
    project.set_values(
        {
            "acquisition.sample_thickness_nm": 80,
            "jobs.importmovies.optics_groups": "TS_01: first",
            "jobs.tsAlignment.alignment_mode": "coarse",
        }
    )
    parameters = project.parameters()
    snapshot = project.directory / "Schemes" / "run_test" / "project_params.json"
    write_parameters(snapshot, parameters)
    source = None
    with chdir(project.directory):
        for number, node in enumerate(CHAIN, start=1):
            job = f"External/job{number:03d}"
            fingerprint = parameters.fingerprint(node)
            request = Request(
                project.directory, job, snapshot, node, fingerprint, source, 2, sys.executable
            )
            assert run_job(request) == 0
            source = f"{job}/{CATALOGUE[node].main_output.file}"
    return project


def job(project: Project, node: str) -> Path:
    return project.directory / f"External/job{CHAIN.index(node) + 1:03d}"


def test_every_table_has_both_groups(project: Project) -> None:
    assert project.parameters().microscope.pixel_size_angstrom == 4
    for node in CHAIN:
        star = job(project, node) / CATALOGUE[node].main_output.file
        rows = {name: row for name, (row, _) in read_tilt_series(star, project.directory).items()}
        assert {name: row["rlnOpticsGroupName"] for name, row in rows.items()} == {
            "TS_01": "first",
            "TS_02": "opticsGroup1_5A_200kV",
        }
        column = "rlnMicrographOriginalPixelSize" if node == CHAIN[0] else None
        for name, (pixel, voltage) in EXPECTED.items():
            row = rows[name]
            assert float(row[column or "rlnTomoTiltSeriesPixelSize"]) == pixel
            assert float(row["rlnVoltage"]) == voltage
    results = read_results(job(project, "importmovies"))
    assert results["TS_01"].warnings == []
    assert [one for one in results["TS_02"].warnings if "optics group of its own" in one]


def test_every_tool_was_told_the_values_of_the_series(project: Project) -> None:
    for node, command in zip(CHAIN[1:], ("frames", "align", "reconstruct"), strict=True):
        for name, (pixel, voltage) in EXPECTED.items():
            spec = read_json(job(project, node) / "cpu" / name / f"{command}.json")
            assert spec["pixel_size_angstrom"] == pixel
            assert spec.get("voltage_kv", voltage) == voltage


def test_images_and_tomograms_have_their_scale(project: Project) -> None:
    tables = read_tilt_series(job(project, "tsReconstruct") / "tomograms.star", project.directory)
    for name, (pixel, voltage) in EXPECTED.items():
        row, tilts = tables[name]
        with mrcfile.open(project.directory / str(tilts[0]["rlnMicrographName"])) as image:
            assert float(image.voxel_size.x) == pytest.approx(pixel)
        general = read_star(project.directory / str(tilts[0]["rlnMicrographMetadata"])).blocks[0]
        assert float(general.pairs()["rlnMicrographOriginalPixelSize"]) == pixel
        assert float(general.pairs()["rlnVoltage"]) == voltage
        with mrcfile.open(project.directory / str(row["rlnTomoReconstructedTomogram"])) as volume:
            assert float(volume.voxel_size.x) == pytest.approx(16.0)
        assert float(row["rlnTomoTomogramBinning"]) == pytest.approx(16 / pixel)
