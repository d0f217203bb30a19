"""The whole way from movies to an averaged particle: real Slurm, Apptainer, RELION and schemer.

WarpTools, cryoCARE and pytom are doubles, run in a container each as a site would; their jobs go
to the GPU partition, with two GPUs each, not as arrays. The gold beads of the example data are the
particles.
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
from cluster_site import ALONE, Site, gain_elsewhere, make_project, run_flow, slurm_jobs_below
from scipy import ndimage
from test_cluster_cpu import python_in_image

from crboost.project import Project
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.star import read_star
from crboost.results import read_results
from crboost.settings import load_settings

pytestmark = [pytest.mark.relion, pytest.mark.slurm, pytest.mark.prefect, pytest.mark.slow]

TESTS = Path(__file__).parents[1]
TO_TOMOGRAMS = (
    "importmovies",
    "fsMotionAndCtf",
    "tsImport",
    "tsAlignment",
    "tsCtf",
    "tsReconstruct",
)
TO_PARTICLES = (
    "denoiseTrain",
    "denoisePredict",
    "templateMatching",
    "extractCandidates",
    "subtomoExtraction",
    "reconstructParticle",
)
NODES = (*TO_TOMOGRAMS, *TO_PARTICLES)
WARP = TO_TOMOGRAMS[1:]
SERIES = ["TS_01", "TS_02"]
PIXEL, VOXEL, SIZE = 4.0, 8.0, 256
STANDINS = {
    "pytom_match_template.py": "pytom_standin.py",
    "pytom_extract_candidates.py": "pytom_standin.py",
    "cryoCARE_extract_train_data.py": "cryocare_standin.py",
    "cryoCARE_train.py": "cryocare_standin.py",
    "cryoCARE_predict.py": "cryocare_standin.py",
}


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


def doubles_in_image(image: Path, directory: Path) -> dict[str, Any]:
    """`tools` of the settings, for tools whose doubles run on this Python in an image."""
    directory.mkdir()
    for program, source in STANDINS.items():
        text = (TESTS / "stages" / "standins" / source).read_text().partition("\n")[2]
        (directory / program).write_text(f"#!{sys.executable}\n{text}")
        (directory / program).chmod(0o755)
    python = python_in_image(image)
    environment = {**python["environment"], "DOUBLES_PYTHON": sys.executable}
    environment["PATH"] = f"{directory}:/usr/local/bin:/usr/bin:/bin"
    environment["OMP_NUM_THREADS"] = "1"
    common = {
        "image": str(image),
        "binds": [*python["binds"], str(TESTS / "doubles"), str(directory)],
        "environment": environment,
    }
    warp = {"executable": str(TESTS / "doubles" / "bin" / "WarpTools"), "version": "2.0.0dev36"}
    return {"warp": {**common, **warp}, "cryocare": common, "pytom": common}


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
    }
    tools = {
        **site_sections["tools"],
        **doubles_in_image(relion_sif.image, directory / "bin"),
    }
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
    project.set_values(
        {
            "data.gain_reference": str(gain_elsewhere(directory, SIZE)),
            "acquisition.sample_thickness_nm": 80,
            "acquisition.detector_dimensions_px": [SIZE, SIZE],
            "jobs.fsMotionAndCtf.tool": "warp",
            "jobs.fsMotionAndCtf.c_range_min_max": "40:9",
            "jobs.tsAlignment.tool": "warp",
            "jobs.tsAlignment.rescale_angpixs": PIXEL,
            "jobs.tsCtf.range_min_max": "30:9",
            "jobs.tsReconstruct.tool": "warp",
            "jobs.tsReconstruct.rescale_angpixs": VOXEL,
            "jobs.denoiseTrain.subvolume_dimensions": 32,
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
        }
    )
    result = run_flow(project, site, "--jobs", ",".join(NODES), timeout_seconds=540)
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


@pytest.mark.parametrize("node", ["tsAlignment", "tsCtf", "tsReconstruct", "denoisePredict"])
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


def test_beads_are_where_they_truly_are(chain: Chain) -> None:
    for name, truth in chain.truth.items():
        (volume,) = chain.job("tsReconstruct").glob(
            f"warp/{name}/warp_tiltseries/reconstruction/*.mrc"
        )
        beads = true_beads(truth)
        found = bead_positions(volume)
        hits = matched_beads(found, beads, within=30.0, shift=200.0)
        assert hits >= 0.8 * len(beads), (name, hits, len(beads), len(found))
        mirrored = matched_beads(found, beads * (1, 1, -1), within=30.0, shift=200.0)
        assert mirrored < hits


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
