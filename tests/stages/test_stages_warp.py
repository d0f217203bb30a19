"""The chain of WarpTools from movies to tomograms, through the real schemer and the driver.

WarpTools is a double (tests/doubles) that computes with the embedded tools; the example data say
where each bead is. Images have odd sizes: Warp's centres are then none of RELION's. One tilt of
TS_01 is dark; AreTomo2, called directly, leaves it out, and Warp goes on from there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from testbed.fixtures import RelionImage

from crboost.catalogue import OPTIMISATION_SET
from crboost.cpu.accuracy import FOUND_SIGMA, find_at, shift_errors, true_alignment
from crboost.cpu.geometry import TiltAlignment
from crboost.cpu.io import read_movie, read_mrc, write_mrc, write_tiff_movie
from crboost.driver import Request, run_job
from crboost.files import read_json
from crboost.job_directory import read_failure
from crboost.parameters import ProjectParameters, write_parameters
from crboost.prerequisites import type_as_done
from crboost.project import Project
from crboost.relion.nodes import read_output_nodes
from crboost.results import read_results
from crboost.run import Run
from crboost.settings import Settings
from crboost.stages.base import Context
from crboost.stages.cpu import FromStar
from crboost.stages.warp import WarpAlign, WarpCtf, WarpFrames
from crboost.stages.warp_particles import WarpExtract
from crboost.tilt_name import tilt_name
from crboost.translate.candidates import write_optimisation_set
from crboost.translate.tables import read_tilt_series, write_blocks
from crboost.translate.warp_frame_series import read_frame_series, write_frame_series
from crboost.translate.warp_xml import Grid
from crboost.wanted import wanted_job

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
#: The doubles compute on CPUs: two tilt series at once on as many cores.
TWO_ON_A_GPU = Settings.model_validate({"scheduler": {"gpu_defaults": {"per_gpu": 2}}})
CHAIN = ["importmovies", "fsMotionAndCtf", "tsImport", "tsAlignment", "tsCtf", "tsReconstruct"]
#: The same from an alignment that Warp did not make.
FOREIGN = ["tsAlignment__2", "tsCtf__2", "tsReconstruct__2"]
BIN = Path(__file__).parents[1] / "doubles" / "bin"
VOXEL = 8.0
PIXEL = 4.0
SIZE = 255
DARK = "TS_01_011_-30.0"


def run(
    project: Project, jobs: list[str], *, fail: str = "", retry: bool | None = None
) -> dict[str, str]:
    """Do what the plan says, through the real schemer; node -> how it ended."""
    plan = project.plan(jobs, retry_failed=retry)
    if plan.is_empty:
        return {}
    made = Run.create(project, plan, project.parameters(), TWO_ON_A_GPU, now=NOW)
    code = "import sys; from crboost.cli import main; main()"
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "DOUBLES_PYTHON": sys.executable,
        "DOUBLES_FAIL": fail,
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name],
        capture_output=True,
        env=environment,
    )
    return {node: made.job_state(node).phase for node in made.nodes}


def newest(project: Project, node: str) -> Path:
    jobs = [past for past in project.history() if past.node == node]
    return project.directory / max(jobs, key=lambda past: past.number).name


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("movies")
    make_example_data(
        directory,
        size_px=SIZE + 1,
        frames=2,
        tilt_step_deg=6,
        defects=False,
        pixel_size_angstrom=PIXEL,
    )
    for path in sorted((directory / "frames").iterdir()):
        cut(path)
    truth = json.loads((directory / "truth.json").read_text())
    tilts = [tilt for series in truth["series"] for tilt in series["tilts"]]
    assert DARK in [tilt["name"] for tilt in tilts]
    for tilt in tilts:  # the specimen is where it was; the centre of 256 pixels was 128
        tilt["shift_xy_px"] = [shift + 1 for shift in tilt["shift_xy_px"]]
    (directory / "truth.json").write_text(json.dumps(truth))
    return directory


def cut(path: Path) -> None:
    """Take the last row and column off a movie; of the dark one also most electrons."""
    movie = read_movie(path)[:, :-1, :-1]
    if path.stem == DARK:
        kept = np.random.default_rng(1).binomial(movie, 0.25)
        movie = kept.astype(movie.dtype)
    if path.suffix == ".mrc":
        write_mrc(path, movie, PIXEL)
    else:
        write_tiff_movie(path, movie, PIXEL)


def made_project(directory: Path, data: Path, **values: object) -> Project:
    project = Project.create(
        directory, movies=[str(data / "frames")], mdocs=[str(data / "*.mdoc")]
    ).project
    project.set_values(
        {
            "acquisition.sample_thickness_nm": 80,
            "acquisition.detector_dimensions_px": [SIZE, SIZE],
            "computing.workers": 2,
            "jobs.fsMotionAndCtf.tool": "warp",
            "jobs.tsAlignment.tool": "warp",
            "jobs.tsAlignment.rescale_angpixs": PIXEL,
            "jobs.tsCtf.range_min_max": "30:9",
            "jobs.tsCtf.defocus_hand": "auto",
            "jobs.fsMotionAndCtf.c_range_min_max": "40:9",
            "jobs.tsReconstruct.tool": "warp",
            "jobs.tsReconstruct.rescale_angpixs": VOXEL,
            "jobs.tsAlignment__2.tool": "aretomo2",
            "jobs.tsAlignment__2.rescale_angpixs": 6.6,  # 154.5 pixels: newstack trims
            "jobs.tsCtf__2.range_min_max": "30:9",
            "jobs.tsReconstruct__2.tool": "warp",
            "jobs.tsReconstruct__2.rescale_angpixs": VOXEL,
            **values,
        }
    )
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Project:
    made = made_project(tmp_path_factory.mktemp("warp") / "P", data)
    assert run(made, [*CHAIN, *FOREIGN]) == dict.fromkeys([*CHAIN, *FOREIGN], "succeeded")
    return made


def test_every_tilt_series_gets_through(project: Project) -> None:
    for node in (*CHAIN, *FOREIGN):
        results = read_results(newest(project, node))
        assert {name: one.status for name, one in results.items()} == dict.fromkeys(
            ["TS_01", "TS_02", "TS_03"], "done"
        ), (node, {name: one.reason for name, one in results.items()})


def check_tomogram(project: Project, truth: dict[str, Any], row: Any) -> np.ndarray:
    """Alignment and beads of one tomogram against the truth.

    Returns:
        where the beads are by the alignment's own frame, in Angstrom from the tomogram's centre.
    """
    pixel = float(row["rlnTomoTiltSeriesPixelSize"])
    rows = starfile.read(project.directory / row["rlnTomoTiltSeriesStarFile"])
    tilts = {tilt["name"]: tilt for tilt in truth["tilts"]}
    found, actual = [], []
    for _, tilt in rows.iterrows():
        name = Path(tilt["rlnMicrographMovieName"]).stem
        found.append(
            TiltAlignment(
                tilt["rlnTomoXTilt"],
                tilt["rlnTomoYTilt"],
                tilt["rlnTomoZRot"],
                tilt["rlnTomoXShiftAngst"],
                tilt["rlnTomoYShiftAngst"],
            )
        )
        actual.append(true_alignment(tilts[name], truth))
        assert found[-1].y_tilt_deg == pytest.approx(tilts[name]["tilt_angle_deg"], abs=0.01)
    residuals, translation = shift_errors(found, actual, pixel)
    assert np.sqrt((residuals**2).sum(axis=1).mean()) < 1.0
    volume = read_mrc(project.directory / row["rlnTomoReconstructedTomogram"])[0]
    binning = float(row["rlnTomoTomogramBinning"])
    assert binning == VOXEL / pixel
    size = np.array([row[f"rlnTomoSize{axis}"] for axis in "XYZ"])
    assert tuple(round(n / binning) for n in size) == volume.shape[::-1]
    beads = np.array(truth["beads_xyz_px"]) * truth["pixel_size_angstrom"] / pixel + translation
    radius = truth["bead_diameter_angstrom"] / 2 / VOXEL
    here = find_at(volume, (beads + size // 2) / binning, radius)[0]
    there = find_at(volume, (beads * (1, 1, -1) + size // 2) / binning, radius)[0]
    assert (here > FOUND_SIGMA).mean() > 0.9
    assert here.mean() > 2 * there.mean()
    return beads * pixel


@pytest.mark.parametrize("node", ["tsReconstruct", "tsReconstruct__2"])
def test_beads_are_where_they_are_and_not_mirrored(project: Project, data: Path, node: str) -> None:
    """Warp's tilt sign, its centres, and the tomogram's place all come out as RELION has them,
    and so does AreTomo's alignment on its way into Warp."""
    truths = json.loads((data / "truth.json").read_text())["series"]
    table = starfile.read(newest(project, node) / "tomograms.star")
    for truth, (_, row) in zip(truths, table.iterrows(), strict=True):
        check_tomogram(project, truth, row)


def test_super_resolution_movies_are_binned_once_and_for_all(tmp_path: Path) -> None:
    """Movies of 2 A per pixel, binned as Warp reads them: all that follows has 4 A per pixel."""
    from crboost.cpu.example_data import make_example_data

    size = 256
    data = tmp_path / "movies"
    make_example_data(
        data,
        series=1,
        size_px=2 * size,
        frames=2,
        tilt_step_deg=10,
        defects=False,
        pixel_size_angstrom=PIXEL / 2,
    )
    whole = {"acquisition.detector_dimensions_px": [2 * size, 2 * size]}
    made = made_project(tmp_path / "P", data, **whole, **{"jobs.fsMotionAndCtf.movie_binning": 2})
    assert run(made, CHAIN) == dict.fromkeys(CHAIN, "succeeded")
    (truth,) = json.loads((data / "truth.json").read_text())["series"]
    (_, row), *_ = starfile.read(
        newest(made, "tsReconstruct") / "tomograms.star", always_dict=True
    )["global"].iterrows()
    assert row["rlnMicrographOriginalPixelSize"] == PIXEL / 2
    assert row["rlnTomoTiltSeriesPixelSize"] == PIXEL
    assert row["rlnTomoSizeX"] == row["rlnTomoSizeY"] == size
    check_tomogram(made, truth, row)
    rows = starfile.read(made.directory / row["rlnTomoTiltSeriesStarFile"])
    image, pixel = read_mrc(made.directory / rows["rlnMicrographName"][0])
    assert (image.shape, pixel) == ((size, size), PIXEL)
    # RELION's own jobs on these images count in their pixels.
    given = {"jobs.subtomoExtraction.input_optimisation_set": "project_params.json"}
    (box,) = made.plan(["subtomoExtraction"], made.parameters().with_values(given)).jobs
    assert float(box.options["box_size_angst"]) == PIXEL * int(box.options["binned_size_pix"])


def test_a_tilt_that_the_aligner_left_out_is_left_out_by_warp(project: Project) -> None:
    """Its tilt series goes on; its image stays in Warp's files, and is not used."""
    from crboost.translate.warp_tilt_series import read_warp_tilt_series

    aligned = read_results(newest(project, "tsAlignment__2"))["TS_01"]
    assert [(tilt["name"], tilt["reason"]) for tilt in aligned.tilts if tilt["reason"]] == [
        (DARK, "AreTomo took it for a dark image")
    ]
    for node, folder in (
        ("tsCtf__2", "alignment"),
        ("tsCtf__2", "warp_tiltseries"),
        ("tsReconstruct__2", "warp_tiltseries"),
    ):
        job = newest(project, node)
        for name, left_out in (("TS_01", [DARK]), ("TS_02", [])):
            series = read_warp_tilt_series(job / "warp" / name / folder / f"{name}.xml")
            assert [tilt.name for tilt in series.tilts if not tilt.use] == left_out
            rows = starfile.read(job / "tilt_series" / f"{name}.star")
            used = {Path(movie).stem for movie in rows["rlnMicrographMovieName"]}
            assert used == {tilt.name for tilt in series.used}


@dataclass(frozen=True)
class Extracted:
    """Particles that WarpTools exported at the beads' places.

    Attributes:
        job: as stacks of tilt images, and `volumes` as subtomograms; project-relative.
        candidates: what was asked for.
    """

    job: Path
    volumes: Path
    candidates: pd.DataFrame


BOX = 40
BINNING = 1.5


@pytest.fixture(scope="module")
def extracted(project: Project, data: Path) -> Extracted:
    truths = json.loads((data / "truth.json").read_text())["series"]
    tomograms = newest(project, "tsReconstruct").relative_to(project.directory) / "tomograms.star"
    rows = []
    for truth, (_, row) in zip(
        truths[:2], starfile.read(project.directory / tomograms).iterrows(), strict=False
    ):
        size = np.array([row[f"rlnTomoSize{axis}"] for axis in "XYZ"])
        # One more lies at the edge, and leaves the images of high tilts.
        beads = [*check_tomogram(project, truth, row), np.array([0, 0.42 * SIZE * PIXEL, 0])]
        # RELION's particles count from half of the size, its matrices from a whole pixel.
        places = [bead + (size // 2 - size / 2) * PIXEL for bead in beads]
        for number, place in enumerate(places, start=1):
            one = {"rlnTomoName": truth["name"], "rlnTomoParticleName": f"{truth['name']}/{number}"}
            one |= {
                f"rlnCenteredCoordinate{axis}Angst": v + 8.0
                for axis, v in zip("XYZ", place, strict=True)
            }
            one |= {f"rlnOrigin{axis}Angst": 8.0 for axis in "XYZ"}
            one |= {"rlnAngleRot": 10.0 * number, "rlnAngleTilt": 60.0, "rlnAnglePsi": -20.0}
            rows.append({**one, "rlnRandomSubset": 1 + number % 2, "rlnLCCmax": 0.5})
    write_blocks(project.directory / "picked/candidates.star", {"particles": rows})
    given = "picked/optimisation_set.star"
    write_optimisation_set(project.directory / given, "picked/candidates.star", str(tomograms))
    ctf = newest(project, "tsCtf").relative_to(project.directory) / "ts_ctf_tilt_series.star"
    values: dict[str, object] = {"jobs.subtomoExtraction__2.do_stack2d": False}
    for node in ("subtomoExtraction", "subtomoExtraction__2"):
        values |= {
            f"jobs.{node}.tool": "warp",
            f"jobs.{node}.input_optimisation_set": given,
            # The newest is that of tsCtf__2, and of another alignment: that is refused.
            f"jobs.{node}.input_tilt_series": str(ctf),
            f"jobs.{node}.box_size": 48,
            f"jobs.{node}.crop_size": BOX,
            f"jobs.{node}.binning": BINNING,
            f"jobs.{node}.max_missing_tilts": 15,
            f"jobs.{node}.particle_diameter": 100,
        }
    project.set_values(values)
    nodes = ["subtomoExtraction", "subtomoExtraction__2"]
    assert run(project, nodes) == dict.fromkeys(nodes, "succeeded")
    job, volumes = (newest(project, node).relative_to(project.directory) for node in nodes)
    return Extracted(job, volumes, pd.DataFrame(rows))


def test_particles_are_cut_where_the_candidates_are(project: Project, extracted: Extracted) -> None:
    directory = project.directory / extracted.job
    statuses = {name: one.status for name, one in read_results(directory).items()}
    assert statuses == {"TS_01": "done", "TS_02": "done", "TS_03": "skipped"}
    read = starfile.read(directory / "particles.star", always_dict=True)
    particles, wanted = read["particles"], extracted.candidates
    assert list(particles["rlnTomoParticleName"]) == list(wanted["rlnTomoParticleName"])
    for axis in "XYZ":
        column, offset = f"rlnCenteredCoordinate{axis}Angst", f"rlnOrigin{axis}Angst"
        place = wanted[column] - wanted[offset]
        np.testing.assert_allclose(particles[column] - particles[offset], place, atol=1e-3)
    for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnRandomSubset", "rlnLCCmax"):
        np.testing.assert_allclose(particles[column], wanted[column])
    (optics,) = read["optics"].to_dict(orient="records")
    assert (optics["rlnImageSize"], optics["rlnImagePixelSize"]) == (BOX, PIXEL * BINNING)
    assert (
        optics["rlnTomoTiltSeriesPixelSize"] * optics["rlnTomoSubtomogramBinning"]
        == (optics["rlnImagePixelSize"])
    )
    total, some_are_missing = np.zeros((BOX, BOX)), False
    for _, one in particles.iterrows():
        visible = [int(word) for word in one["rlnTomoVisibleFrames"].strip("[]").split(",")]
        some_are_missing |= not all(visible)
        with mrcfile.open(project.directory / one["rlnImageName"]) as stack:
            assert stack.data.shape == (sum(visible), BOX, BOX)
            if all(visible):  # no bead is at the edge
                total += stack.data.astype(float).sum(axis=0)
    assert some_are_missing
    # As RELION does, WarpTools inverts: gold is bright.
    weight = np.clip(total - np.percentile(total, 90), 0, None)
    middle = [(weight * axis).sum() / weight.sum() for axis in np.indices(total.shape)]
    assert np.abs(np.array(middle) - BOX // 2).max() < 0.5, middle
    assert not project.plan(["subtomoExtraction"]).jobs


def test_particles_of_another_alignment_are_refused(project: Project, extracted: Extracted) -> None:
    """Their places are none in a specimen that lies elsewhere."""
    stars = {
        node: str(newest(project, node).relative_to(project.directory) / file)
        for node, file in (
            ("tsCtf", "ts_ctf_tilt_series.star"),
            ("tsCtf__2", "ts_ctf_tilt_series.star"),
            ("tsImport", "warp_tilt_series.star"),
        )
    }
    parameters = project.parameters().effective("subtomoExtraction")
    for node, is_refused in (("tsCtf", False), ("tsCtf__2", True)):
        given = {"tilt_series": stars[node], "warp_import": stars["tsImport"]}
        found = WarpExtract().inputs(
            Context(
                project.directory,
                "<job>",
                parameters,
                "picked/optimisation_set.star",
                "py",
                1,
                given,
            )
        )
        for name in ("TS_01", "TS_02"):
            said = str(found[name].problem)
            assert ("found with another alignment" in said) is is_refused, (node, said)
        assert found["TS_03"].skip == "there is no particle in it"


def test_images_of_a_particle_are_in_the_order_of_its_table(
    project: Project, extracted: Extracted
) -> None:
    """RELION pairs them by their order alone: the table of the job has Warp's."""
    table = starfile.read(project.directory / extracted.job / "tomograms.star")
    assert list(table["rlnTomoName"]) == ["TS_01", "TS_02"]
    for path in table["rlnTomoTiltSeriesStarFile"]:
        rows = starfile.read(project.directory / path)
        assert rows["rlnTomoYTilt"].is_monotonic_decreasing
        assert {"rlnDefocusU", "rlnMicrographName"} <= set(rows.columns)
    particles = starfile.read(project.directory / extracted.job / "particles.star")["particles"]
    assert len(rows) == len(particles["rlnTomoVisibleFrames"].iloc[-1].strip("[]").split(","))


def test_subtomograms_have_a_particle_in_their_middle(
    project: Project, extracted: Extracted
) -> None:
    read = starfile.read(project.directory / extracted.volumes / "particles.star", always_dict=True)
    assert read["general"] == {"rlnTomoSubTomosAre2DStacks": 0}
    assert read["optics"]["rlnImageDimensionality"].item() == 3
    assert read["optics"]["rlnCtfDataAreCtfPremultiplied"].item() == 0
    total = np.zeros((BOX,) * 3)
    for _, one in read["particles"].iterrows():
        assert (project.directory / one["rlnCtfImage"]).is_file()
        with mrcfile.open(project.directory / one["rlnImageName"]) as volume:
            total += volume.data.astype(float)
    weight = np.clip(total - np.percentile(total, 98), 0, None)
    middle = [(weight * axis).sum() / weight.sum() for axis in np.indices(total.shape)]
    assert np.abs(np.array(middle) - BOX // 2).max() < 0.7, middle


def test_averaging_and_classification_take_what_warp_exported(
    project: Project, extracted: Extracted
) -> None:
    nodes = {node.label: node.name for node in read_output_nodes(project.directory / extracted.job)}
    made = f"{extracted.job}/optimisation_set.star"
    assert nodes[f"{OPTIMISATION_SET}.tomo.extract"] == made
    given = {"jobs.class3d.input_optimisation_set": made}
    average, classes = project.plan(
        ["reconstructParticle", "class3d"], project.parameters().with_values(given)
    ).jobs
    assert average.inputs[0].path == f"{extracted.volumes}/optimisation_set.star"
    assert [one.path or one.node for one in classes.inputs] == [made, "reconstructParticle"]
    read = starfile.read(project.directory / made)
    assert read["rlnTomoTomogramsFile"] == f"{extracted.job}/tomograms.star"


@pytest.mark.relion
def test_relion_averages_and_refines_what_warp_exported(
    project: Project, extracted: Extracted, relion_sif: RelionImage
) -> None:
    """Its own programs, on the tables that we made of Warp's."""
    made = f"{extracted.job}/optimisation_set.star"
    (project.directory / "average").mkdir()
    relion_sif.run(
        [
            "relion_tomo_reconstruct_particle",
            *("--i", made, "--o", "average/", "--b", str(BOX), "--bin", str(BINNING), "--j", "2"),
        ],
        directory=project.directory,
    )
    average = read_mrc(project.directory / "average/merged.mrc")[0]
    relion_sif.run(
        [
            "relion_refine",
            *("--ios", made, "--ref", "average/merged.mrc", "--o", "average/run", "--iter", "1"),
            *("--K", "1", "--ini_high", "30", "--ctf", "--firstiter_cc", "--particle_diameter"),
            *("120", "--healpix_order", "0", "--offset_range", "2", "--offset_step", "2"),
            *("--norm", "--scale", "--j", "2", "--pad", "1", "--trust_ref_size"),
        ],
        directory=project.directory,
    )
    refined = read_mrc(project.directory / "average/run_it001_class001.mrc")[0]
    for volume in (average, refined):
        weight = np.clip(volume - np.percentile(volume, 98), 0, None)
        middle = [(weight * axis).sum() / weight.sum() for axis in np.indices(volume.shape)]
        assert np.abs(np.array(middle) - BOX // 2).max() < 1, middle


def test_the_hand_is_that_of_the_microscope(project: Project, data: Path) -> None:
    table = starfile.read(newest(project, "tsReconstruct") / "tomograms.star")
    hand = json.loads((data / "truth.json").read_text())["hand"]
    assert set(table["rlnTomoHand"]) == {hand}


def test_defocus_is_what_it_was(project: Project, data: Path) -> None:
    truths = json.loads((data / "truth.json").read_text())["series"]
    table = starfile.read(newest(project, "tsCtf") / "ts_ctf_tilt_series.star")
    for truth, path in zip(truths, table["rlnTomoTiltSeriesStarFile"], strict=True):
        rows = starfile.read(project.directory / path)
        mean = (rows["rlnDefocusU"] + rows["rlnDefocusV"]) / 2
        error = np.abs(mean.median() - truth["nominal_defocus_um"] * 1e4)
        assert error < 0.1 * truth["nominal_defocus_um"] * 1e4


def test_doses_are_those_of_the_table_not_of_ranks(project: Project) -> None:
    from crboost.translate.tomostar import read_tomostar

    job = newest(project, "tsImport")
    rows = starfile.read(job / "tilt_series" / "TS_02.star")
    doses = dict(
        zip(
            (Path(name).stem for name in rows["rlnMicrographMovieName"]),
            rows["rlnMicrographPreExposure"],
            strict=True,
        )
    )
    for tilt in read_tomostar(job / "warp" / "TS_02" / "tomostar" / "TS_02.tomostar"):
        assert tilt.dose_e_per_a2 == pytest.approx(doses[tilt.name])


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """A file that is no text while this lasts."""
    before = path.read_bytes()
    path.write_bytes(b"\xff\xfe\x00{")
    try:
        yield
    finally:
        path.write_bytes(before)


def context_of(project: Project, node: str, input_star: Path, **others: Path) -> Context:
    def seen(path: Path) -> str:
        return path.relative_to(project.directory).as_posix()

    return Context(
        project.directory,
        seen(newest(project, node)),
        project.parameters().effective(node),
        seen(input_star),
        sys.executable,
        1,
        {name: seen(path) for name, path in others.items()},
    )


def test_a_damaged_tomostar_fails_its_tilt_series_alone(project: Project) -> None:
    imported = newest(project, "tsImport")
    context = context_of(
        project,
        "tsCtf__2",
        newest(project, "tsAlignment__2") / "aligned_tilt_series.star",
        warp_import=imported / "warp_tilt_series.star",
    )
    with damaged(imported / "warp" / "TS_02" / "tomostar" / "TS_02.tomostar"):
        found = WarpCtf().inputs(context)
    assert {name: bool(one.problem) for name, one in found.items()} == {
        "TS_01": False,
        "TS_02": True,
        "TS_03": False,
    }
    assert "TS_02.tomostar: " in str(found["TS_02"].problem)


def test_a_damaged_image_fails_its_tilt_series_alone(project: Project) -> None:
    frames = newest(project, "fsMotionAndCtf")
    star = newest(project, "tsImport") / "warp_tilt_series.star"
    context = context_of(project, "tsAlignment", star)
    image = frames / "warp" / "TS_03" / "warp_frameseries" / "average" / "TS_03_001_0.0.mrc"
    with damaged(image):
        found = WarpAlign().inputs(context)
    assert [name for name, one in found.items() if one.problem] == ["TS_03"]


def test_damaged_tracks_cost_a_number_not_an_image(project: Project) -> None:
    job = newest(project, "fsMotionAndCtf")
    context = context_of(
        project, "fsMotionAndCtf", newest(project, "importmovies") / "tilt_series.star"
    )
    series = FromStar().inputs(context)["TS_01"]
    tracks = job / "warp/TS_01/warp_frameseries/average/TS_01_002_6.0_motion.json"
    with damaged(tracks):
        output = WarpFrames().output(context, series)
    assert len(output.rows) == len(series.rows)
    (warning,) = output.warnings
    assert warning.startswith("tilt image TS_01_002_6.0: no motion: ")
    assert tracks.name in warning


def test_nothing_is_left_to_do(project: Project) -> None:
    assert run(project, CHAIN) == {}


def test_bug_b9_warp_never_sees_a_rejected_tilt(project: Project) -> None:
    """B9: the filter changed the tables alone, and Warp went on with what it had rejected."""
    from crboost.translate.tomostar import read_tomostar

    project.set_values({"jobs.tiltFilter.tilt_max_deg": 50.0})
    nodes = ["tiltFilter", "tsImport__2"]
    assert run(project, nodes) == dict.fromkeys(nodes, "succeeded")
    job = newest(project, "tsImport__2")
    for name, one in read_results(newest(project, "tiltFilter")).items():
        kept = {tilt["name"] for tilt in one.tilts if tilt["status"] == "done"}
        assert len(kept) == len(one.tilts) - 4
        mdoc = (job / "warp" / name / "mdoc" / f"{name}.mdoc").read_text()
        given = [line for line in mdoc.splitlines() if line.startswith("SubFramePath")]
        assert {Path(line.split(" = ")[1]).stem for line in given} == kept
        taken = read_tomostar(job / "warp" / name / "tomostar" / f"{name}.tomostar")
        assert {tilt.name for tilt in taken} == kept


def test_a_failed_tilt_series_is_named_and_alone_done_again(
    tmp_path: Path, data: Path, project: Project
) -> None:
    """B: WarpTools ends with 0, or leaves an XML, where a tilt series failed."""
    made = made_project(tmp_path / "P", data)
    upto = CHAIN[:4]
    states = run(made, upto, fail="TS_02_")
    job = newest(made, "fsMotionAndCtf")
    results = read_results(job)
    assert {name: one.status for name, one in results.items()} == {
        "TS_01": "done",
        "TS_02": "failed",
        "TS_03": "done",
    }
    assert states["tsAlignment"] == "succeeded"
    assert list(read_results(newest(made, "tsAlignment"))) == ["TS_01", "TS_03"]
    before = {name: one.started for name, one in results.items()}
    run(made, upto, retry=True)
    results = read_results(newest(made, "fsMotionAndCtf"))
    assert {one.status for one in results.values()} == {"done"}
    assert {name for name, one in results.items() if one.started == before[name]} == {
        "TS_01",
        "TS_03",
    }
    assert set(read_results(newest(made, "tsAlignment"))) == {"TS_01", "TS_02", "TS_03"}


@pytest.mark.parametrize(("inverted", "option"), [(True, "--set_flip"), (False, "--set_noflip")])
def test_the_hand_is_set_as_the_acquisition_says(
    tmp_path: Path, inverted: bool, option: str
) -> None:
    new = ProjectParameters.new("P", datetime(2026, 1, 1, tzinfo=UTC))
    told = new.with_values({"acquisition.invert_defocus_hand": inverted})
    commands = wanted_job(tmp_path, "tsCtf", told, None).commands
    (hand,) = [argv for argv in commands if "ts_defocus_hand" in argv]
    assert hand[-1] == option


# --- what all tilt series decide together --------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project to change, with the double in this process' own PATH."""
    shutil.copytree(project.directory, tmp_path / "P", symlinks=True)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setenv("DOUBLES_PYTHON", sys.executable)
    return Project(tmp_path / "P")


def job_of(project: Project, node: str, source: str, **values: object) -> Request:
    """A further job of a type that was done before, with other parameters."""
    project.set_values({f"jobs.{node}.{name}": value for name, value in values.items()})
    parameters = project.parameters()
    snapshot = project.directory / "Schemes" / "run_test" / "project_params.json"
    write_parameters(snapshot, parameters)
    star = {
        one.node: f"{one.name}/{type_as_done(one.node, parameters).main_output.file}"
        for one in project.history()
        if one.node is not None
    }
    return Request(
        project.directory, "External/job099", snapshot, node, parameters.fingerprint(node),
        star[source], 1, sys.executable, {"in_coords": star["tsImport"]},
    )  # fmt: skip


def done(request: Request) -> list[str]:
    """Run it as the driver does; what it logged."""
    log: list[str] = []
    with chdir(request.project):
        run_job(request, log=log.append)
    return log


def test_one_axis_is_refined_on_the_tilt_series_that_can_be(
    copy: Project, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = job_of(copy, "tsAlignment", "tsImport", axis_iter=1, axis_batch=2)
    monkeypatch.setenv("DOUBLES_FAIL", "TS_02,TS_03")
    log = done(request)
    results = read_results(request.directory)
    assert {name: one.status for name, one in results.items()} == {
        "TS_01": "done",
        "TS_02": "failed",
        "TS_03": "failed",
    }
    record = read_json(request.directory / "dataset.json")
    assert list(record["left_out"]) == ["TS_02"]
    assert "TS_02 is left out: the tilt axis was not refined on it" in "\n".join(log)
    # The axis is that of TS_01, not the nominal one, and what the tilt series are given.
    (truth,) = [one for one in json.loads((data / "truth.json").read_text())["series"]
                if one["name"] == "TS_01"]  # fmt: skip
    settled = read_json(request.directory / "warp_dataset" / "axis.json")
    assert list(settled["tilt_series"]) == ["TS_01"]
    axis = settled["tilt_axis_deg"]
    assert axis == pytest.approx(truth["tilt_axis_deg"], abs=0.3)
    assert abs(axis - 85.0) > 0.05
    for one in results.values():
        (argv,) = one.commands
        assert float(argv[argv.index("--axis") + 1]) == pytest.approx(axis, abs=0.001)

    # Without the files there is no axis, and no job that goes on as if there were.
    shutil.rmtree(request.directory / "warp_dataset" / "axis")
    monkeypatch.setenv("DOUBLES_FAIL", "TS_0")
    log = done(request)
    assert not any("done before" in line and "tilt axis" in line for line in log)
    failure = read_failure(request.directory)
    assert failure is not None
    assert failure[0] == "tool_error"
    assert "tilt axis failed with exit code" in failure[1]


def frame_xmls(project: Project, series: str) -> list[Path]:
    folder = newest(project, "fsMotionAndCtf") / "warp" / series / "warp_frameseries"
    return sorted(folder.glob("*.xml"))


def test_the_hand_is_what_the_images_say(copy: Project) -> None:
    """The other way round it comes out the other way round, without those that cannot tell."""
    for name in ("TS_01", "TS_02", "TS_03"):
        for path in frame_xmls(copy, name):
            one = read_frame_series(path)
            grid = one.grid_ctf_defocus_um
            assert grid is not None
            assert (grid.width, grid.height) == (2, 2)
            turned = Grid(2, 2, 1, grid.values[::-1])
            lost = name == "TS_02"
            write_frame_series(path, replace(one, grid_ctf_defocus_um=None if lost else turned))
    request = job_of(copy, "tsCtf", "tsAlignment", window=256, defocus_hand="auto")
    log = done(request)
    assert any(line.startswith("TS_02 is left out: defocus hand failed") for line in log), log
    results = read_results(request.directory)
    assert {one.status for one in results.values()} == {"done"}
    assert [name for name, one in results.items() if "left out" in str(one.warnings)] == ["TS_02"]
    table = starfile.read(request.directory / "ts_ctf_tilt_series.star")
    assert list(table["rlnTomoHand"]) == [1, 1, 1]
    said = read_json(request.directory / "warp_dataset" / "hand.json")["correlations"]
    assert set(said) == {"TS_01", "TS_03"}
    assert min(said.values()) > 0.2
    assert "defocus hand: done before" in done(request)

    for name in ("TS_01", "TS_03"):
        path = frame_xmls(copy, name)[0]
        write_frame_series(path, replace(read_frame_series(path), grid_ctf_defocus_um=None))
    (request.directory / "warp_dataset" / "hand.json").unlink()
    done(request)
    failure = read_failure(request.directory)
    assert failure is not None
    assert "0 of 3 tilt series say something of the defocus hand" in failure[1]


def test_a_tilt_series_ends_where_it_gets_too_dark(copy: Project) -> None:
    """min_intensity: from the first dark tilt on the side is gone, and the images are named."""
    dark = newest(copy, "fsMotionAndCtf") / "warp" / "TS_02" / "warp_frameseries" / "average"
    (path,) = dark.glob("TS_02_*_30.0.mrc")
    with mrcfile.open(path, "r+") as image:
        image.set_data((image.data * np.float32(0.3)).astype(image.data.dtype))
    request = job_of(copy, "tsImport", "fsMotionAndCtf", min_intensity=0.5)
    done(request)
    results = read_results(request.directory)
    every = results["TS_03"].tilts  # TS_01 has a dark tilt of its own
    assert {one["status"] for one in every} == {"done"}
    left = {one["tilt_angle_deg"]: one["reason"] for one in results["TS_02"].tilts
            if one["status"] == "excluded"}  # fmt: skip
    assert left == dict.fromkeys((30, 36, 42, 48, 54, 60), "too dark (min_intensity)")
    assert results["TS_02"].metrics["tilts"] == len(every) - len(left)
    assert any("WarpTools did not take it" in word for word in results["TS_02"].warnings)


def test_a_job_shows_each_tilt_series_one_gpu(project: Project) -> None:
    record = read_json(newest(project, "tsCtf") / "crboost_job.json")
    assert record["resources"]["gpus"] == ["0"]


def test_tilts_are_left_out_by_what_the_whole_series_says(project: Project) -> None:
    """Last here: the tilt filter takes tsCtf's table, and what it keeps is aligned again."""
    table = newest(project, "tsCtf") / "ts_ctf_tilt_series.star"
    before = read_tilt_series(table, project.directory)
    project.set_values(
        {
            "jobs.tiltFilter.input_tilt_series": str(table.relative_to(project.directory)),
            "jobs.tiltFilter.tilt_max_deg": 50,
        }
    )
    again = ["tiltFilter", "tsImport", "tsAlignment"]
    assert run(project, again) == dict.fromkeys(again, "succeeded")
    judged = read_results(newest(project, "tiltFilter")).values()
    values = {tilt["name"]: tilt["values"] for one in judged for tilt in one.tilts}
    aligned = newest(project, "tsAlignment") / "aligned_tilt_series.star"
    after = read_tilt_series(aligned, project.directory)
    for name, (_, rows) in before.items():
        for row in rows:
            mean = (row["rlnDefocusU"] + row["rlnDefocusV"]) / 2e4
            assert values[tilt_name(row)]["defocus_um"] == pytest.approx(mean, abs=1e-3)
        kept = [tilt_name(row) for row in rows if abs(row["rlnTomoNominalStageTiltAngle"]) <= 50]
        assert 0 < len(kept) < len(rows)
        assert sorted(tilt_name(row) for row in after[name][1]) == sorted(kept)
