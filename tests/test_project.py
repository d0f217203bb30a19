"""A project directory: creation from raw data, links, history from ledger and job directories."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crboost.errors import ParameterError, PlanError, ProjectError
from crboost.project import Created, Project


def create(directory: Path, data: Path) -> Created:
    return Project.create(
        directory, movies=[str(data / "frames")], mdocs=[str(data / "*.mdoc")], name="demo"
    )


def test_create_links_raw_data_and_fills_parameters_from_mdocs(
    tmp_path: Path, example_data: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in example_data.rglob("*")}
    created = create(tmp_path / "P", example_data)
    project = created.project
    assert created.tilt_series == ("TS_01", "TS_02", "TS_03")
    assert any("TS_02" in warning and "missing" in warning for warning in created.warnings)
    links = sorted((project.directory / "frames").iterdir())
    assert len(links) == 3 * 21 - 1
    assert all(
        link.is_symlink() and link.resolve().parent == example_data / "frames" for link in links
    )
    parameters = project.parameters()
    assert parameters.microscope.pixel_size_angstrom == 4.0
    origin = parameters.origin("microscope.pixel_size_angstrom")
    assert origin.source == "mdoc"
    assert "TS_01.mdoc" in origin.detail
    assert parameters.acquisition.tilt_axis_degrees == 85.0
    assert sorted(parameters.data.movies) == [
        f"{example_data}/frames/*.mrc",
        f"{example_data}/frames/*.tif",
    ]
    assert project.ledger().counter == 1
    assert {path: path.stat().st_mtime_ns for path in example_data.rglob("*")} == before


def test_create_refuses_what_it_cannot_use_and_makes_nothing(
    tmp_path: Path, example_data: Path
) -> None:
    target = tmp_path / "P"
    with pytest.raises(ProjectError, match=r"no movie fits .*\.eer"):
        Project.create(target, movies=[str(tmp_path / "*.eer")], mdocs=[str(example_data)])
    lonely = tmp_path / "notes.mdoc"
    lonely.write_text("PixelSpacing = 1\n\n[FrameSet = 0]\nTiltAngle = 1\n")
    with pytest.raises(ProjectError, match=r"none of 1 mdocs is a tilt series"):
        Project.create(target, movies=[str(example_data / "frames")], mdocs=[str(lonely)])
    assert not target.exists()


def test_a_second_project_in_the_same_place_is_refused(tmp_path: Path, example_data: Path) -> None:
    create(tmp_path / "P", example_data)
    with pytest.raises(ProjectError, match="already holds a project"):
        create(tmp_path / "P", example_data)


def test_awkward_names_become_plain_links(tmp_path: Path, example_data: Path) -> None:
    raw = tmp_path / "my data $HOME 'x'"
    raw.mkdir()
    mdoc = (example_data / "TS_01.mdoc").read_text()
    for movie in sorted((example_data / "frames").glob("TS_01*")):
        shutil.copy(movie, raw / movie.name.replace("TS_01_", "TS 1 "))
    (raw / "TS 1.mdoc").write_text(mdoc.replace("TS_01_", "TS 1 "))
    project = Project.create(
        tmp_path / "P", movies=[str(raw)], mdocs=[str(raw / "TS 1.mdoc")]
    ).project
    assert (project.directory / "mdoc" / "TS_1.mdoc").is_symlink()
    assert len(list((project.directory / "frames").glob("TS_1_*.tif"))) == 21
    assert project.plan(["importmovies"]).jobs[0].node == "importmovies"


def test_open_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="does not exist"):
        Project.open(tmp_path / "nowhere")
    with pytest.raises(ProjectError, match="crboost init"):
        Project.open(tmp_path)


def test_set_values_is_all_or_nothing(tmp_path: Path, example_data: Path) -> None:
    project = create(tmp_path / "P", example_data).project
    with pytest.raises(ParameterError, match=r"at least 0\.5"):
        project.set_values(
            {"jobs.tsAlignment.patch_x": "4", "microscope.pixel_size_angstrom": "0.1"}
        )
    assert project.parameters().value("jobs.tsAlignment.patch_x") == 0
    project.set_values({"jobs.tsAlignment.patch_x": "4"})
    assert project.parameters().value("jobs.tsAlignment.patch_x") == 4
    assert project.parameters().origin("jobs.tsAlignment.patch_x").source == "user"


def test_late_movies_are_linked(tmp_path: Path, example_data: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(example_data, raw)
    late = next((raw / "frames").glob("TS_01_021*"))
    late.rename(tmp_path / late.name)
    project = create(tmp_path / "P", raw).project
    assert project.link_new_data() == []
    (tmp_path / late.name).rename(late)
    assert project.new_data() == [late]
    assert project.link_new_data() == [late.name]
    assert project.new_data() == []
    assert project.link_new_data() == []


def test_planning_changes_nothing(tmp_path: Path, example_data: Path) -> None:
    project = create(tmp_path / "P", example_data).project

    def listing() -> dict[str, int]:
        return {
            str(path): path.lstat().st_mtime_ns for path in sorted(project.directory.rglob("*"))
        }

    before = listing()
    assert [job.node for job in project.plan().jobs] == [
        "importmovies",
        "fsMotionAndCtf",
        "tsAlignment",
        "tsReconstruct",
    ]
    assert listing() == before


def test_a_lost_ledger_is_not_taken_for_a_new_project(tmp_path: Path, example_data: Path) -> None:
    project = create(tmp_path / "P", example_data).project
    (project.directory / "External" / "job007").mkdir(parents=True)
    (project.directory / "default_pipeline.star").unlink()
    with pytest.raises(ProjectError, match=r"default_pipeline\.star is missing") as caught:
        project.plan()
    assert "External/job007/default_pipeline.star" in str(caught.value)


def test_parameters_set_at_the_same_time_are_all_kept(tmp_path: Path, example_data: Path) -> None:
    project = create(tmp_path / "P", example_data).project
    names = ["patch_x", "patch_y", "axis_iter", "axis_batch", "imod_patch_size"]
    with ThreadPoolExecutor() as pool:
        for name in names:
            pool.submit(project.set_values, {f"jobs.tsAlignment.{name}": "7"})
    parameters = project.parameters()
    assert [parameters.value(f"jobs.tsAlignment.{name}") for name in names] == [7] * 5


def test_parameters_without_jobs_are_refused_in_words(tmp_path: Path, example_data: Path) -> None:
    project = create(tmp_path / "P", example_data).project
    path = project.directory / "project_params.json"
    text = json.loads(path.read_text())
    path.write_text(json.dumps({**text, "jobs": {}}))
    with pytest.raises(PlanError, match="have no jobs"):
        project.plan()


def test_a_plan_survives_lost_link_directories(tmp_path: Path, example_data: Path) -> None:
    project = create(tmp_path / "P", example_data).project
    shutil.rmtree(project.directory / "frames")
    shutil.rmtree(project.directory / "mdoc")
    assert project.plan().jobs[0].node == "importmovies"
    assert len(project.new_data()) == 3 + 3 * 21 - 1


def test_a_plan_scales_relions_jobs_by_the_job_that_made_the_images(
    tmp_path: Path, example_data: Path
) -> None:
    """The parameters have two jobs that average movies; the run's own one counts."""
    project = create(tmp_path / "P", example_data).project
    nodes = ("importmovies", "motionCorr", "ctfFind", "tsAlignment", "reconstructTomograms")
    width, height = project.parameters().acquisition.detector_dimensions_px
    for binning in (1, 2):
        project.set_values({"jobs.motionCorr.bin_factor": binning})
        (*_, tomograms) = project.plan(nodes).jobs
        size = {int(tomograms.options[f"{axis}dim"]) for axis in "xy"}
        assert size == {width // binning, height // binning}
