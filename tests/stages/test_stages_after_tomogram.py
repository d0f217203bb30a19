"""From tomograms to particles, through the schemer and the driver: what is found is what is there.

The gold beads of the example data are the particles: the simulator knows where each of them is.
cryoCARE and pytom are doubles (tests/doubles).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from testbed.fixtures import RelionImage

from crboost.builders.relion import RELION_TYPE
from crboost.catalogue import OPTIMISATION_SET
from crboost.errors import PlanError
from crboost.project import Project
from crboost.relion.job import Job, read_job, write_job
from crboost.relion.nodes import read_output_nodes
from crboost.results import read_results
from crboost.run import Run
from crboost.settings import Settings
from crboost.translate.candidates import particle_rows, read_candidates

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
TO_TOMOGRAMS = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
AFTER = [
    "denoiseTrain",
    "denoisePredict",
    "templateMatching",
    "templateMatching__2",
    "extractCandidates",
    "extractCandidates__2",
]
VOXEL = 8.0
BIN = Path(__file__).parents[1] / "doubles" / "bin"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "DOUBLES_PYTHON": sys.executable,
    "OMP_NUM_THREADS": "1",
}


def run(project: Project, jobs: list[str]) -> list[str]:
    """Do what the plan says, through the real schemer; the nodes that ran."""
    plan = project.plan(jobs)
    if plan.is_empty:
        return []
    made = Run.create(project, plan, project.parameters(), Settings(), now=NOW)
    code = "import sys; from crboost.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name],
        check=True,
        capture_output=True,
        env=ENVIRONMENT,
    )
    states = {node: made.job_state(node) for node in made.nodes}
    assert {node: state.phase for node, state in states.items()} == dict.fromkeys(
        made.nodes, "succeeded"
    ), states
    return made.nodes


def newest(project: Project, node: str) -> Path:
    jobs = [past for past in project.history() if past.node == node]
    return project.directory / max(jobs, key=lambda past: past.number).name


def write_map(path: Path, data: np.ndarray, voxel: float = VOXEL) -> None:
    with mrcfile.new(path, overwrite=True) as made:
        made.set_data(data.astype(np.float32))
        made.voxel_size = voxel


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("beads")
    make_example_data(directory, size_px=256, frames=2, tilt_step_deg=6)
    return directory


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Project:
    """A project with two templates, matched in denoised tomograms, all jobs done."""
    made = Project.create(
        tmp_path_factory.mktemp("after") / "P",
        movies=[str(data / "frames")],
        mdocs=[str(data / "*.mdoc")],
    ).project
    z, y, x = np.indices((17, 17, 17)) - 8
    distance = np.sqrt(x**2 + y**2 + z**2)
    write_map(made.directory / "bead.mrc", -1.0 * (distance <= 6.25))  # gold is dark
    write_map(made.directory / "mask.mrc", distance <= 8)
    write_map(made.directory / "rod.mrc", -1.0 * ((np.abs(z) <= 8) & (x**2 + y**2 <= 9)))
    values: dict[str, object] = {
        "acquisition.sample_thickness_nm": 80,
        "computing.workers": 2,
        "jobs.tsReconstruct.rescale_angpixs": VOXEL,
        "jobs.denoiseTrain.subvolume_dimensions": 32,
        "jobs.denoiseTrain.tomograms_for_training": "TS_01 TS_03",
        "jobs.templateMatching.template_path": "bead.mrc",
        "jobs.templateMatching.symmetry": "I1",
        "jobs.templateMatching.angular_search": 60,
        "jobs.templateMatching__2.template_path": "rod.mrc",
        "jobs.templateMatching__2.angular_search": 90,
        "jobs.templateMatching__2.symmetry": "C2",
    }
    for node in ("templateMatching", "templateMatching__2"):
        values[f"jobs.{node}.mask_path"] = "mask.mrc"
    for node in ("extractCandidates", "extractCandidates__2"):
        values[f"jobs.{node}.particle_diameter_ang"] = 120
        values[f"jobs.{node}.max_num_particles"] = 40
        values[f"jobs.{node}.cutoff_method"] = "ManualCutOff"
        values[f"jobs.{node}.cc_threshold"] = 0.3
    made.set_values(values)
    assert run(made, [*TO_TOMOGRAMS, *AFTER]) == [*TO_TOMOGRAMS, *AFTER]
    return made


def test_one_model_is_trained_on_the_chosen_series_alone(project: Project) -> None:
    job = newest(project, "denoiseTrain")
    conf = json.loads((job / "train_data_config.json").read_text())
    assert [Path(path).parent.name for path in conf["even"]] == ["TS_01", "TS_03"]
    assert {name: one.status for name, one in read_results(job).items()} == {
        "TS_01": "done",
        "TS_02": "skipped",
        "TS_03": "done",
    }
    nodes = {node.label: Path(node.name).name for node in read_output_nodes(job)}
    assert nodes["ParamsData.targz.cryocare.model"] == "denoising_model.tar.gz"
    assert (job / "denoising_model.tar.gz").is_file()
    assert len(json.loads((job / "dataset.json").read_text())["commands"]) == 2


def test_denoised_tomograms_are_what_templates_are_matched_in(project: Project) -> None:
    job = newest(project, "denoisePredict")
    star = read_job(job / "job.star")
    trained = newest(project, "denoiseTrain").relative_to(project.directory)
    assert star.option("in_3dref") == f"{trained}/denoising_model.tar.gz"
    table = starfile.read(job / "tomograms.star")
    assert list(table["rlnTomoReconstructedTomogramDenoised"]) == [
        f"{job.relative_to(project.directory)}/cryocare/{name}/{name}.mrc"
        for name in ("TS_01", "TS_02", "TS_03")
    ]
    matched = read_results(newest(project, "templateMatching"))["TS_02"].commands[0]
    assert table["rlnTomoReconstructedTomogramDenoised"][1] in matched


def test_each_template_has_its_own_chain(project: Project) -> None:
    for node, template in (("", "bead.mrc"), ("__2", "rod.mrc")):
        match = newest(project, f"templateMatching{node}")
        assert template in read_results(match)["TS_01"].commands[0]
        star = read_job(newest(project, f"extractCandidates{node}") / "job.star")
        assert star.option("in_mic") == f"{match.relative_to(project.directory)}/tomograms.star"
    # Also later, when the newest template matching is the other one's.
    project_values = {"jobs.extractCandidates.max_num_particles": 39}
    parameters = project.parameters().with_values(project_values)
    (job,) = project.plan(["extractCandidates"], parameters).jobs
    first = newest(project, "templateMatching").relative_to(project.directory)
    assert job.inputs[0].path == f"{first}/tomograms.star"


def test_beads_are_found_where_they_are(project: Project, data: Path) -> None:
    """Centred coordinates in Angstrom, against the simulator's truth."""
    job = newest(project, "extractCandidates")
    found = starfile.read(job / "candidates.star", always_dict=True)["particles"]
    truth = json.loads((data / "truth.json").read_text())
    assert truth["series"]
    for series in truth["series"]:
        beads = np.array(series["beads_xyz_px"]) * series["pixel_size_angstrom"]
        mine = found[found["rlnTomoName"] == series["name"]]
        places = mine[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
        offsets = places[:, None] - beads[None]
        nearest = np.linalg.norm(offsets, axis=2).argmin(axis=0)
        errors = places[nearest] - beads
        # An alignment knows the specimen up to a translation, in z above all.
        assert np.abs(np.median(errors, axis=0)).max() < 80
        errors -= np.median(errors, axis=0)
        close = np.linalg.norm(errors, axis=1) < VOXEL
        assert close.sum() >= 0.75 * len(beads), (series["name"], errors)
    assert set(found["rlnTomoTiltSeriesPixelSize"]) == {4.0}


def test_the_optimisation_set_is_a_node_that_subtomogram_extraction_takes(
    project: Project,
) -> None:
    job = newest(project, "extractCandidates__2").relative_to(project.directory)
    labels = {node.label: node.name for node in read_output_nodes(project.directory / job)}
    assert labels[f"{OPTIMISATION_SET}.tomo.candidates"] == f"{job}/optimisation_set.star"
    read = starfile.read(project.directory / job / "optimisation_set.star")
    assert read["rlnTomoParticlesFile"] == f"{job}/candidates.star"
    assert read["rlnTomoTomogramsFile"] == f"{job}/tomograms.star"
    for node, number in (("subtomoExtraction", ""), ("subtomoExtraction__2", "__2")):
        (planned,) = project.plan([node]).jobs
        source = newest(project, f"extractCandidates{number}").relative_to(project.directory)
        assert planned.inputs[0].path == f"{source}/optimisation_set.star"


@pytest.mark.relion
def test_relion_itself_extracts_beads_at_the_candidates(
    project: Project, relion_sif: RelionImage, tmp_path: Path
) -> None:
    """RELION's own job, as it is planned, on our candidates: a bead in the middle of every box."""
    job = newest(project, "extractCandidates").relative_to(project.directory)
    box = 32
    copy = tmp_path / "P"
    shutil.copytree(project.directory, copy, symlinks=True)
    values = {"box_size": 2 * box, "crop_size": box, "binning": 2, "do_stack2d": False}
    parameters = project.parameters().with_values(
        {f"jobs.subtomoExtraction.{name}": value for name, value in values.items()}
    )
    (planned,) = project.plan(["subtomoExtraction"], parameters).jobs
    given = {one.relion_field: str(one.path) for one in planned.inputs}
    options = {**planned.options, **given, "nr_threads": "2", "do_queue": "No"}
    write_job(
        copy / "planned/job.star", Job(RELION_TYPE["subtomoExtraction"], options, is_tomo=True)
    )
    relion_sif.run(["relion_pipeliner", "--addJobFromStar", "planned/job.star"], copy)
    (made,) = copy.glob("Extract/job*")
    queue = ["--RunJobs", f"Extract/{made.name}/", "--repeat", "1"]
    relion_sif.run(["relion_pipeliner", *queue], copy)
    # 5.1 has left out what only 5.0 knows, and to the planner the job is done.
    assert {"box_size", "box_size_angst"} & set(read_job(made / "job.star").options) == {
        "box_size_angst"
    }
    assert Project.open(copy).plan(["subtomoExtraction"], parameters).is_empty
    read = starfile.read(made / "particles.star")
    assert read["optics"]["rlnTomoSubtomogramBinning"].item() == 2
    particles = read["particles"]
    candidates = starfile.read(project.directory / job / "candidates.star", always_dict=True)
    assert len(particles) == len(candidates["particles"])
    total = np.zeros((box,) * 3)
    for image in particles["rlnImageName"]:
        with mrcfile.open(copy / image, permissive=True) as volume:
            total += volume.data
    # RELION inverts: gold is bright in its boxes, in the rings that the CTF makes of it.
    weight = np.clip(total - np.percentile(total, 90), 0, None)
    middle = [(weight * axis).sum() / weight.sum() for axis in np.indices(total.shape)]
    assert np.abs(np.array(middle) - box // 2).max() < 0.7, middle


def test_nothing_is_written_into_the_matching_job(project: Project) -> None:
    match = newest(project, "templateMatching")
    assert not list(match.glob("pytom/*/*_particles.star"))
    extract = newest(project, "extractCandidates") / "pytom" / "TS_01"
    assert (extract / "TS_01_scores.mrc").is_symlink()
    assert (extract / "TS_01_particles.star").is_file()


def test_nothing_runs_twice_and_a_new_model_denoises_all_anew(project: Project) -> None:
    everything = [*TO_TOMOGRAMS, *AFTER]
    assert project.plan(everything).is_empty
    model = newest(project, "denoiseTrain") / "denoising_model.tar.gz"
    model.unlink()
    plan = project.plan(["denoiseTrain", "denoisePredict"])
    assert [(job.node, bool(job.continue_of)) for job in plan.jobs] == [
        ("denoiseTrain", True),
        ("denoisePredict", True),
    ]
    assert run(project, ["denoiseTrain", "denoisePredict"])
    assert model.is_file()
    assert project.plan(everything).is_empty


def test_b29_a_part_of_a_name_is_no_name(project: Project) -> None:
    """B29: training series were chosen by substring; `TS_0` must not mean TS_01 to TS_03."""
    project.set_values({"jobs.denoiseTrain__2.tomograms_for_training": "TS_0"})
    plan = project.plan(["denoiseTrain__2"])
    made = Run.create(project, plan, project.parameters(), Settings(), now=NOW)
    code = "import sys; from crboost.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name],
        capture_output=True,
        check=False,
    )
    state = made.job_state("denoiseTrain__2")
    assert state.phase == "failed"
    failure = json.loads((project.directory / str(state.job) / "failure.json").read_text())
    assert "there is no tilt series TS_0" in failure["message"]


def test_b18_a_prediction_that_wrote_nothing_is_a_failure(project: Project, tmp_path: Path) -> None:
    """B18: denoising succeeded with zero outputs. An empty tomogram is none either."""
    for name, text in {
        "nothing": "",
        "zeros": (
            "import json, mrcfile, numpy, pathlib, sys\n"
            "c = json.load(open(sys.argv[2]))\n"
            "e = mrcfile.open(c['even'])\n"
            "m = mrcfile.new(pathlib.Path(c['output']) / pathlib.Path(c['even']).name)\n"
            "m.set_data(numpy.zeros(e.data.shape, 'f4'))\n"
        ),
    }.items():
        tools = tmp_path / name
        tools.mkdir()
        program = tools / "cryoCARE_predict.py"
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
        project.set_values({"jobs.denoisePredict__2.ntiles_x": 2 if name == "zeros" else 1})
        plan = project.plan(["denoisePredict__2"])
        made = Run.create(project, plan, project.parameters(), Settings(), now=NOW)
        code = "import sys; from crboost.cli import main; main()"
        subprocess.run(
            [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name],
            capture_output=True,
            check=False,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        )
        state = made.job_state("denoisePredict__2")
        assert state.phase == "failed"
        reasons = {one.reason for one in read_results(project.directory / str(state.job)).values()}
        wanted = "was not written" if name == "nothing" else "is empty"
        assert all(wanted in str(reason) for reason in reasons), reasons


def test_a_job_without_a_template_is_no_plan_but_stops_no_other(project: Project) -> None:
    parameters = project.parameters().with_values({"jobs.templateMatching__3.angular_search": 30})
    with pytest.raises(PlanError, match="template_path is not set"):
        project.plan(["templateMatching__3"], parameters)
    project.plan(["templateMatching"], parameters)


def test_an_orientation_comes_back_through_maps_and_tables(tmp_path: Path) -> None:
    """A template without any symmetry, put into a tomogram with RELION's matrix, is found so."""
    spots = np.array([[0, 0, 0], [5, 0, 0], [0, 3, 0], [0, 0, 4.0]])  # x, y, z from the centre
    rot, tilt, psi = np.deg2rad([70.0, 40.0, -25.0])

    def about(axis: int, angle: float) -> np.ndarray:
        first, second = [one for one in range(3) if one != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        return turn.T if axis == 1 else turn

    # RELION's matrix from particle to tomogram; the same turn as pytom's Rz(z2) Rx(x) Rz(z1).
    to_tomogram = (about(2, rot) @ about(1, tilt) @ about(2, psi)).T
    truth = (-rot + np.pi / 2, tilt, -psi - np.pi / 2)
    assert np.allclose(about(2, truth[2]) @ about(0, truth[1]) @ about(2, truth[0]), to_tomogram)

    def draw(points: np.ndarray, size: int) -> np.ndarray:
        drawn = np.zeros((size,) * 3)
        z, y, x = np.indices(drawn.shape)
        for p in points:
            drawn += np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / 2)
        return drawn

    place = np.array([22.0, 17.0, 26.0])
    write_map(tmp_path / "t.mrc", draw(spots + 8, 17))
    write_map(tmp_path / "m.mrc", np.ones((17,) * 3))
    write_map(tmp_path / "TS.mrc", draw(spots @ to_tomogram.T + place, 44))
    others = [(a, b, c) for a in (0.2, 2.1, 4.0) for b in (0.3, 1.5, 2.6) for c in (0.1, 2.2, 4.4)]
    lines = [*others, tuple(angle % (2 * np.pi) for angle in truth)]
    (tmp_path / "list.txt").write_text("".join(f"{a} {b} {c}\n" for a, b, c in lines))
    (tmp_path / "tilts.tlt").write_text("-3\n0\n3\n")
    for program, words in (
        (
            "pytom_match_template.py",
            "--template t.mrc --mask m.mrc --tomogram TS.mrc --destination . --gpu-ids 0 "
            "--voxel-size-angstrom 8 --tilt-angles tilts.tlt --angular-search list.txt",
        ),
        (
            "pytom_extract_candidates.py",
            "--job-file TS_job.json --number-of-particles 1 --particle-diameter 64 --cut-off 0",
        ),
    ):
        argv = [str(BIN / program), *words.split()]
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, env=ENVIRONMENT)
    sizes = dict.fromkeys(("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"), 88)
    table = {"rlnTomoTiltSeriesPixelSize": 4.0, "rlnTomoTomogramBinning": 2.0, **sizes}
    (row,) = particle_rows(read_candidates(tmp_path / "TS_particles.star"), "TS", table)
    found = [row[f"rlnCenteredCoordinate{axis}Angst"] / 8 + 22 for axis in "XYZ"]
    assert np.allclose(found, place, atol=0.6)
    angles = np.deg2rad([row[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")])
    again = (about(2, angles[0]) @ about(1, angles[1]) @ about(2, angles[2])).T
    assert np.allclose(spots @ again.T, spots @ to_tomogram.T, atol=1e-3)
