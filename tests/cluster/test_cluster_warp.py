"""The whole way from movies to classes of particles: real Slurm, Apptainer, RELION and schemer.

WarpTools, AreTomo, IMOD, cryoCARE, pytom and membrain-seg are doubles, run in a container each as a
site would; their jobs go to the GPU partition, with two GPUs each, tsCtf as an array. Tilt series
are aligned in every way that there is. The gold beads of the example data are the particles.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from cluster_beads import bead_positions, matched_beads, true_beads
from cluster_site import (
    ALONE,
    Site,
    gain_elsewhere,
    make_project,
    run_flow,
    sacct,
    slurm_jobs_below,
)
from scipy import ndimage
from test_cluster_cpu import python_in_image

from crboost.array_directory import batch_job_id, batches_of, read_round
from crboost.catalogue import OPTIMISATION_SET
from crboost.cpu.accuracy import shift_errors, true_alignment
from crboost.cpu.geometry import TiltAlignment
from crboost.project import Project
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.star import read_star
from crboost.results import read_results
from crboost.settings import load_settings
from crboost.translate.imod import read_angles
from crboost.translate.tomostar import read_tomostar
from crboost.translate.warp_tilt_series import read_warp_tilt_series

pytestmark = [pytest.mark.relion, pytest.mark.slurm, pytest.mark.prefect, pytest.mark.slow]

TESTS = Path(__file__).parents[1]
BIN = TESTS / "doubles" / "bin"
#: Ways to align besides the one that the tomograms are made with.
ALIGNMENTS: dict[str, dict[str, str]] = {
    "tsAlignment__2": {"tool": "aretomo2"},
    "tsAlignment__3": {"tool": "aretomo3"},
    "tsAlignment__4": {"tool": "imod", "alignment_method": "etomo_fiducials"},
    "tsAlignment__5": {"tool": "warp", "alignment_method": "aretomo3"},
    "tsAlignment__6": {"tool": "warp", "alignment_method": "etomo_patches"},
    "tsAlignment__7": {"tool": "warp", "alignment_method": "etomo_fiducials"},
}
BY_WARP = ("tsAlignment", "tsAlignment__5", "tsAlignment__6", "tsAlignment__7")
TO_TOMOGRAMS = (
    *("importmovies", "fsMotionAndCtf", "tiltFilter", "tsImport", "tsAlignment", *ALIGNMENTS),
    *("tsCtf", "tsReconstruct", "tsReconstruct__2"),
)
TO_PARTICLES = (
    "denoiseTrain",
    "denoisePredict",
    "membraneSegmentation",
    "templateMatching",
    "extractCandidates",
    "subtomoExtraction",
    "reconstructParticle",
    "class3d",
)
NODES = (*TO_TOMOGRAMS, *TO_PARTICLES)
WARP = ("fsMotionAndCtf", "tsImport", *BY_WARP, "tsCtf", "tsReconstruct")
SERIES = ["TS_01", "TS_02"]
PIXEL, VOXEL, SIZE = 4.0, 8.0, 256
HIGHEST_TILT = 57.0  # of +-60 degrees
MODEL = "MemBrain_v10.ckpt"


@dataclass(frozen=True)
class Chain:
    """The project after its run."""

    project: Project
    site: Site
    result: dict[str, Any]
    truth: dict[str, Any]

    def job(self, node: str) -> Path:
        """The directory of a node's job."""
        return self.project.directory / str(self.result["jobs"][node])


def doubles_in_image(image: Path) -> dict[str, Any]:
    """`tools` of the settings, for tools whose doubles run on this Python in an image.

    AreTomo2 fails on TS_02, as it does: with exit code 0.
    """
    python = python_in_image(image)
    environment = {
        **python["environment"],
        "DOUBLES_PYTHON": sys.executable,
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    common = {
        "image": str(image),
        "binds": [*python["binds"], str(TESTS / "doubles")],
        "environment": environment,
    }
    tools = dict.fromkeys(("aretomo3", "imod", "cryocare", "pytom", "membrain"), common)
    return {
        **tools,
        "warp": {**common, "executable": str(BIN / "WarpTools"), "version": "2.0.0dev36"},
        "aretomo2": {**common, "environment": {**environment, "DOUBLES_FAIL": "TS_02"}},
    }


def write_map(path: Path, data: np.ndarray) -> None:
    with mrcfile.new(path) as made:
        made.set_data(data.astype(np.float32))
        made.voxel_size = VOXEL


@pytest.fixture(scope="module")
def chain(
    site_sections: dict[str, Any], relion_sif: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chain]:
    """One run of everything."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("warp")
    made = make_example_data(directory / "data", series=2, size_px=SIZE, frames=2,
                             pixel_size_angstrom=PIXEL, tilt_step_deg=6, defects=False)  # fmt: skip
    scheduler = {
        **site_sections["scheduler"],
        "gpu_defaults": {"partition": "gpu", "gpus": 2, "cpus": 4},
        "jobs": {"tsCtf": {"array": True}},
    }
    tools = {**site_sections["tools"], **doubles_in_image(relion_sif.image)}
    site = Site(
        directory / "settings.toml", {**site_sections, "tools": tools, "scheduler": scheduler}
    )
    site.set(containers=ALONE)
    project = make_project(directory / "project", directory / "data")
    maps = directory / "maps"
    maps.mkdir()
    z, y, x = np.indices((17, 17, 17)) - 8
    distance = np.sqrt(x**2 + y**2 + z**2)
    write_map(maps / "bead.mrc", -1.0 * (distance <= 6.25))  # gold is dark
    write_map(maps / "mask.mrc", distance <= 8)
    (project.directory / MODEL).write_bytes(b"weights")
    for node, given in ALIGNMENTS.items():
        values = {"rescale_angpixs": VOXEL, **given}
        project.set_values({f"jobs.{node}.{name}": value for name, value in values.items()})
    project.set_values(
        {
            "data.gain_reference": str(gain_elsewhere(directory, SIZE)),
            "acquisition.sample_thickness_nm": 80,
            "acquisition.detector_dimensions_px": [SIZE, SIZE],
            "jobs.fsMotionAndCtf.tool": "warp",
            "jobs.fsMotionAndCtf.c_range_min_max": "40:9",
            "jobs.tiltFilter.tilt_max_deg": HIGHEST_TILT,
            "jobs.tsAlignment.tool": "warp",
            "jobs.tsAlignment.rescale_angpixs": PIXEL,
            "jobs.tsCtf.range_min_max": "30:9",
            "jobs.tsReconstruct.tool": "warp",
            "jobs.tsReconstruct.rescale_angpixs": VOXEL,
            "jobs.tsReconstruct__2.tool": "warp",
            "jobs.tsReconstruct__2.rescale_angpixs": VOXEL,
            "jobs.denoiseTrain.subvolume_dimensions": 32,
            "jobs.membraneSegmentation.model_path": MODEL,
            "jobs.templateMatching.template_path": str(maps / "bead.mrc"),
            "jobs.templateMatching.mask_path": str(maps / "mask.mrc"),
            "jobs.templateMatching.symmetry": "I1",
            "jobs.templateMatching.angular_search": 60,
            "jobs.extractCandidates.particle_diameter_ang": 120,
            "jobs.extractCandidates.max_num_particles": 40,
            "jobs.extractCandidates.cutoff_method": "ManualCutOff",
            "jobs.extractCandidates.cc_threshold": 0.3,
            "jobs.subtomoExtraction.binning": 2,
            "jobs.subtomoExtraction.box_size": 48,
            "jobs.subtomoExtraction.crop_size": 32,
            "jobs.reconstructParticle.binning": 2,
            "jobs.reconstructParticle.box_size": 48,
            "jobs.reconstructParticle.crop_size": 32,
            # A dozen particles: more iterations than the first, by correlation, end in nothing.
            "jobs.class3d.n_iterations": 1,
            "jobs.class3d.other_args": "--random_seed 1",
            "jobs.class3d.healpix_order": 1,
            "jobs.class3d.oversampling": 0,
            "jobs.class3d.offset_range": 0,
            "jobs.class3d.pad": 1,
            "jobs.class3d.particle_diameter": 180,
            "jobs.class3d.use_gpu": False,
        }
    )
    result = run_flow(project, site, "--jobs", ",".join(NODES), timeout_seconds=1200)
    truth = {one["name"]: one for one in json.loads(made.truth.read_text())["series"]}
    yield Chain(project, site, result, truth)
    assert slurm_jobs_below(directory) == []


@pytest.fixture(autouse=True)
def _settings(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRBOOST_SETTINGS", str(chain.site.file))


def test_everything_succeeds(chain: Chain) -> None:
    assert (chain.result["code"], chain.result["state"]) == (0, "completed"), chain.result
    assert list(chain.result["jobs"]) == list(NODES)
    ledger = read_ledger(chain.project.directory)
    assert {one.status for one in ledger.processes} == {Status.SUCCEEDED}


def test_nothing_is_left_to_do(chain: Chain) -> None:
    """Not even for RELION's own jobs, which declare files that they never write."""
    plan = chain.project.plan(NODES, settings=load_settings())
    assert plan.is_empty, plan.to_markdown()
    (warning,) = plan.warnings
    assert "tsAlignment__2: tilt series TS_02 failed" in warning


def test_warptools_ran_in_its_container_under_slurm(chain: Chain, relion_sif: Any) -> None:
    for node in WARP:
        results = read_results(chain.job(node))
        assert {name: one.status for name, one in results.items()} == dict.fromkeys(SERIES, "done")
        for one in results.values():
            for argv in one.commands:
                assert argv[:2] == [str(relion_sif.apptainer.command), "exec"]
                image = argv.index(str(relion_sif.image))
                assert argv[image + 1] == load_settings().tools["warp"].executable


def devices_shown(argv: list[str]) -> str:
    """The GPUs that a container is shown."""
    name = "CUDA_VISIBLE_DEVICES="
    return next(word.removeprefix(name) for word in argv if word.startswith(name))


@pytest.mark.parametrize("node", ["tsAlignment", "tsReconstruct", "denoisePredict"])
def test_each_tilt_series_has_a_gpu_to_itself(chain: Chain, node: str) -> None:
    """Four CPUs once made four tilt series at once on the first of the two GPUs."""
    results = read_results(chain.job(node))
    shown = {name: {devices_shown(argv) for argv in one.commands} for name, one in results.items()}
    assert sorted(shown.values(), key=sorted) == [{"0"}, {"1"}], shown


def test_what_shares_out_gpus_itself_is_shown_both(chain: Chain) -> None:
    for node in ("fsMotionAndCtf", "templateMatching"):
        for one in read_results(chain.job(node)).values():
            assert {devices_shown(argv) for argv in one.commands} == {"0,1"}, node
    (argv,) = read_results(chain.job("templateMatching"))["TS_01"].commands
    assert argv[argv.index("--gpu-ids") + 1 :][:2] == ["0", "1"]


def test_one_of_warps_jobs_ran_as_an_array(chain: Chain) -> None:
    work = read_round(chain.job("tsCtf"))
    assert work is not None
    (batch,) = batches_of(chain.job("tsCtf"), work.number)
    assert batch.tasks == [[name] for name in SERIES]
    array = batch_job_id(chain.job("tsCtf"), batch)
    assert array is not None
    said = sacct(f"{array}_0", "State", "Partition")
    assert said == {"State": "COMPLETED", "Partition": "gpu"}


def test_bug_b9_rejected_tilts_are_no_input_of_warps(chain: Chain) -> None:
    """B9: the filter changed the tables alone, and Warp went on with what it had rejected."""
    filtered = read_results(chain.job("tiltFilter"))
    for name in SERIES:
        words = {tilt["name"]: tilt["status"] for tilt in filtered[name].tilts}
        rejected = {tilt for tilt, status in words.items() if status == "excluded"}
        assert len(rejected) == 2, words
        (tomostar,) = chain.job("tsImport").glob(f"warp/{name}/tomostar/*.tomostar")
        left = [tilt.name for tilt in read_tomostar(tomostar)]
        assert set(left) == set(words) - rejected
        for node in ("tsAlignment", "tsReconstruct"):
            xml = chain.job(node) / "warp" / name / "warp_tiltseries" / f"{name}.xml"
            assert [tilt.name for tilt in read_warp_tilt_series(xml).used] == left
        (stacked,) = chain.job("tsAlignment").glob(f"warp/{name}/*/tiltstack/{name}/*.rawtlt")
        assert len(read_angles(stacked)) == len(left)


@pytest.mark.parametrize("node", ["tsAlignment", *ALIGNMENTS])
def test_every_way_to_align_finds_what_was_simulated(chain: Chain, node: str) -> None:
    results = read_results(chain.job(node))
    for name in [name for name, one in results.items() if one.status == "done"]:
        truth = chain.truth[name]
        tilts = {tilt["name"]: tilt for tilt in truth["tilts"]}
        (block,) = read_star(chain.job(node) / "tilt_series" / f"{name}.star").blocks
        movies = [Path(movie).stem for movie in block.column("rlnMicrographMovieName")]
        columns = ("XTilt", "YTilt", "ZRot", "XShiftAngst", "YShiftAngst")
        values = zip(*(block.column(f"rlnTomo{one}") for one in columns), strict=True)
        found = [TiltAlignment(*(float(word) for word in row)) for row in values]
        actual = [true_alignment(tilts[movie], truth) for movie in movies]
        assert len(found) == len(tilts) - 2
        residuals, _ = shift_errors(found, actual, PIXEL)
        assert np.sqrt((residuals**2).sum(axis=1).mean()) < 2.5


def test_a_series_that_fails_in_its_container_is_named_and_the_job_succeeds(chain: Chain) -> None:
    """AreTomo2 ends with 0 and leaves nothing."""
    results = read_results(chain.job("tsAlignment__2"))
    assert {name: one.status for name, one in results.items()} == {
        "TS_01": "done",
        "TS_02": "failed",
    }
    assert "TS_02.st.aln was not written" in str(results["TS_02"].reason)
    assert list(read_results(chain.job("tsReconstruct__2"))) == ["TS_01"]


def test_warp_reconstructs_what_aretomo_has_aligned(chain: Chain) -> None:
    result = read_results(chain.job("tsReconstruct__2"))["TS_01"]
    commands = [argv[argv.index(str(BIN / "WarpTools")) + 1] for argv in result.commands]
    assert commands == ["ts_import_alignments", "ts_reconstruct"]
    assert_beads(chain, "tsReconstruct__2", "TS_01")


def test_beads_are_where_they_truly_are(chain: Chain) -> None:
    for name in SERIES:
        assert_beads(chain, "tsReconstruct", name)


def assert_beads(chain: Chain, node: str, name: str) -> None:
    """A tomogram of Warp's has its beads where they are, and not in the mirror image."""
    (volume,) = chain.job(node).glob(f"warp/{name}/warp_tiltseries/reconstruction/*.mrc")
    beads = true_beads(chain.truth[name])
    found = bead_positions(volume)
    hits = matched_beads(found, beads, within=30.0, shift=200.0)
    assert hits >= 0.8 * len(beads), (name, hits, len(beads), len(found))
    mirrored = matched_beads(found, beads * (1, 1, -1), within=30.0, shift=200.0)
    assert mirrored < hits


def test_membranes_are_what_is_dark(chain: Chain) -> None:
    table = read_star(chain.job("membraneSegmentation") / "tomograms.star").blocks[0]
    maps = table.column("crboostTomoMembraneSegmentation")
    tomograms = table.column("rlnTomoReconstructedTomogramDenoised")
    assert list(table.column("rlnTomoName")) == SERIES
    for segmentation, tomogram in zip(maps, tomograms, strict=True):
        with mrcfile.open(chain.project.directory / segmentation) as opened:
            found = np.array(opened.data) > 0
        with mrcfile.open(chain.project.directory / tomogram) as opened:
            density = np.array(opened.data)
        assert found.any()
        assert density[found].mean() < density.mean() - density.std()


def test_candidates_are_the_beads(chain: Chain) -> None:
    star = read_star(chain.job("extractCandidates") / "candidates.star")
    (particles,) = [one for one in star.blocks if one.name.endswith("particles")]
    names = particles.column("rlnTomoName")
    assert set(names) == set(SERIES)
    axes = [particles.column(f"rlnCenteredCoordinate{axis}Angst") for axis in "XYZ"]
    places = np.array(axes, dtype=float).T
    for name, truth in chain.truth.items():
        found = places[[one == name for one in names]]
        beads = true_beads(truth)
        assert matched_beads(found, beads, within=40.0, shift=200.0) >= 0.7 * len(beads)


@pytest.mark.parametrize("half", ["half1", "half2", "merged"])
def test_the_average_particle_is_a_bead(chain: Chain, half: str) -> None:
    """RELION inverts the contrast: gold is bright, in the middle of the box, and of its size."""
    with mrcfile.open(chain.job("reconstructParticle") / f"{half}.mrc") as opened:
        average = np.asarray(opened.data, dtype=float)
    middle = average.shape[0] // 2
    radius = 50.0 / VOXEL
    # Sharper than a bead the average of a dozen small images is noise, voxel by voxel.
    smooth = ndimage.gaussian_filter(average, radius / 2)
    peak = np.array(np.unravel_index(smooth.argmax(), smooth.shape))
    assert np.abs(peak - middle).max() <= 1, peak
    distance = np.sqrt(sum((axis - middle) ** 2 for axis in np.indices(average.shape)))
    outside = smooth[(distance > 2 * radius) & (distance < middle)]
    assert smooth.max() > 10 * outside.std()
    inside = average[distance <= radius].mean()
    assert inside > 0
    assert abs(average[(distance > radius + 1) & (distance < middle)].mean()) < 0.25 * inside


def test_relion_classifies_the_particles(chain: Chain) -> None:
    """An iteration on from the average, the class is still a bead in the middle of its box."""
    job = chain.job("class3d")
    table = read_star(job / "run_it001_data.star")
    (particles,) = [one for one in table.blocks if one.name == "particles"]
    extracted = read_star(chain.job("subtomoExtraction") / "particles.star")
    (before,) = [one for one in extracted.blocks if one.name == "particles"]
    assert len(particles.column("rlnClassNumber")) == len(before.column("rlnImageName"))
    with mrcfile.open(job / "run_it001_class001.mrc") as opened:
        smooth = ndimage.gaussian_filter(np.asarray(opened.data, dtype=float), 3)
    peak = np.array(np.unravel_index(smooth.argmax(), smooth.shape))
    assert np.abs(peak - smooth.shape[0] // 2).max() <= 2, peak
    (past,) = [one for one in chain.project.history() if one.job_type == "class3d"]
    set_file = past.output_with_label((f"{OPTIMISATION_SET}.class3d",))
    assert set_file == f"{past.job}run_it001_optimisation_set.star"
    (found,) = read_star(chain.project.directory / set_file).blocks
    assert found.column("rlnTomoParticlesFile") == (f"{past.job}run_it001_data.star",)
