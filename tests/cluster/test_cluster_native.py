"""The main path of a site with a cluster, on the real RELION, Apptainer and Slurm.

Import (ours), RELION's motion correction, CTF, alignment (ours), RELION's reconstruction: run
once by the real relion_schemer in its image, each job through Slurm, as a Prefect flow.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    task_runs,
)

from crboost.containers import schemer_environment
from crboost.errors import CrboostError
from crboost.project import Project
from crboost.relion.job import SUBMIT_SCRIPT, read_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.star import read_star
from crboost.run import runs
from crboost.scheduler.submitted import read_started, scheduler_job_id
from crboost.settings import load_settings

pytestmark = [pytest.mark.relion, pytest.mark.slurm, pytest.mark.prefect, pytest.mark.slow]

NODES = ("importmovies", "motionCorr", "ctfFind", "tsAlignment", "reconstructTomograms")
JOBS = ("External/job001/", "MotionCorr/job002/", "CtfFind/job003/", "External/job004/",
        "Tomograms/job005/")  # fmt: skip
NATIVE = (JOBS[1], JOBS[2], JOBS[4])


@dataclass(frozen=True)
class Chain:
    """The project after its run.

    Attributes:
        result: the flow's own word on it.
        truth: what the simulated tilt series really are, by name.
    """

    project: Project
    site: Site
    result: dict[str, Any]
    truth: dict[str, Any]

    @property
    def directory(self) -> Path:
        return self.project.directory


@pytest.fixture(scope="module")
def chain(
    site_sections: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chain]:
    """One run of the chain for all tests here."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("native")
    # The smallest that has all twelve beads; RELION's power spectra are made smaller for it.
    made = make_example_data(directory / "data", series=2, size_px=384, frames=4,
                             tilt_range_deg=56, tilt_step_deg=8)  # fmt: skip
    site = Site(directory / "settings.toml", site_sections)
    site.set(containers=ALONE)
    project = make_project(directory / "project", directory / "data")
    project.set_values(
        {
            "data.gain_reference": str(gain_elsewhere(directory, 384)),
            "acquisition.sample_thickness_nm": 100,
            "jobs.reconstructTomograms.binned_angpix": 8,
        }
    )
    result = run_flow(project, site, "--jobs", ",".join(NODES), timeout_seconds=400)
    truth = {one["name"]: one for one in json.loads(made.truth.read_text())["series"]}
    yield Chain(project, site, result, truth)
    assert slurm_jobs_below(directory) == []


@pytest.fixture(autouse=True)
def _settings(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in this process sees the chain's site."""
    monkeypatch.setenv("CRBOOST_SETTINGS", str(chain.site.file))


def test_the_flow_completes_with_one_task_per_job(chain: Chain) -> None:
    assert (chain.result["code"], chain.result["state"]) == (0, "completed"), chain.result
    assert chain.result["jobs"] == dict(zip(NODES, JOBS, strict=True))
    names = ["snapshot", "plan", "generate", *NODES, "report"]
    assert task_runs(chain.project) == [(name, "Completed") for name in names]
    assert [Path(one).name for one in chain.result["pictures"]] == ["TS_01.png", "TS_02.png"]


def test_a_gain_reference_elsewhere_is_applied(chain: Chain) -> None:
    """Its directory, a link, and where that leads to are shown to RELION's container."""
    gain = chain.project.parameters().data.gain_reference
    assert f"--gainref {gain} " in (chain.directory / JOBS[1] / "note.txt").read_text()


def test_relions_ledger_has_every_job_succeeded(chain: Chain) -> None:
    ledger = read_ledger(chain.directory)
    assert {one.name: (one.type_label, one.status) for one in ledger.processes} == {
        JOBS[0]: ("relion.external", Status.SUCCEEDED),
        JOBS[1]: ("relion.motioncorr.own", Status.SUCCEEDED),
        JOBS[2]: ("relion.ctffind.ctffind4", Status.SUCCEEDED),
        JOBS[3]: ("relion.external", Status.SUCCEEDED),
        JOBS[4]: ("relion.reconstructtomograms", Status.SUCCEEDED),
    }
    inputs = {job: [node.name for node in ledger.inputs_of(job)] for job in JOBS}
    assert inputs == {
        JOBS[0]: [],
        JOBS[1]: ["External/job001/tilt_series.star"],
        JOBS[2]: ["MotionCorr/job002/corrected_tilt_series.star"],
        JOBS[3]: ["CtfFind/job003/tilt_series_ctf.star"],
        JOBS[4]: ["External/job004/aligned_tilt_series.star"],
    }
    assert ledger.counter == 6


def test_the_real_schemer_ran_in_its_image(chain: Chain, relion_sif: Any) -> None:
    (run,) = runs(chain.project)
    holder = json.loads((run.directory / "schemer.pid").read_text())
    argv = holder["argv"]
    assert holder["engine"] == "relion"
    assert argv[:2] == [str(relion_sif.apptainer.command), "exec"]
    assert argv[argv.index(str(relion_sif.image)) + 1] == "relion_schemer"
    assert shutil.which("relion_schemer") is None, "this machine's own RELION would do, too"
    assert run.record["images"]["relion"].startswith("sha256:")
    assert json.loads((run.directory / "schemer.exit").read_text())["exit_code"] == 0


@pytest.mark.parametrize("job", JOBS)
def test_every_job_ran_under_slurm(chain: Chain, job: str) -> None:
    directory = chain.directory / job
    number = scheduler_job_id(directory)
    started = read_started(directory)
    assert number is not None
    assert started is not None
    assert started.job_id == number
    said = sacct(number, "JobName", "State", "Partition", "ReqMem", "WorkDir")
    assert said == {
        "JobName": job,
        "State": "COMPLETED",
        "Partition": "cpu",
        "ReqMem": "2G",
        "WorkDir": str(chain.directory),
    }


@pytest.mark.parametrize("job", NATIVE)
def test_relions_jobs_ran_in_its_image(chain: Chain, relion_sif: Any, job: str) -> None:
    script = (chain.directory / job / SUBMIT_SCRIPT).read_text()
    (line,) = [one for one in script.splitlines() if f" {relion_sif.image} bash " in one]
    assert line.startswith(f"{relion_sif.apptainer.command} exec --cleanenv --no-home ")
    # Whatever made the outputs, it was no program of this machine.
    assert re.search(r"relion_\w+", script)
    assert shutil.which("relion_run_motioncorr") is None
    assert not (chain.directory / job / "RELION_JOB_EXIT_FAILURE").exists()


def test_power_spectra_are_as_large_as_the_frames_allow(chain: Chain) -> None:
    """RELION would read beyond the spectrum of frames that are smaller than 512 pixels."""
    import mrcfile

    options = read_job(chain.directory / JOBS[1] / "job.star").option("other_args")
    assert "--ps_size 384" in options
    spectra = sorted((chain.directory / JOBS[1] / "frames").glob("*_PS.mrc"))
    assert len(spectra) == 15 + 14  # one movie is missing
    for spectrum in spectra:
        with mrcfile.open(spectrum) as opened:
            assert opened.data.shape[-1] == 384
            assert np.isfinite(opened.data).all()
            assert opened.data.std() > 0


def test_defocus_is_near_the_truth(chain: Chain) -> None:
    for name, truth in chain.truth.items():
        block = read_star(chain.directory / JOBS[2] / "tilt_series" / f"{name}.star").blocks[0]
        movies = [Path(movie).stem for movie in block.column("rlnMicrographMovieName")]
        found = {
            movie: (float(u) + float(v)) / 2
            for movie, u, v in zip(
                movies, block.column("rlnDefocusU"), block.column("rlnDefocusV"), strict=True
            )
        }
        errors = []
        for tilt in truth["tilts"]:
            if not tilt["on_disk"]:
                assert tilt["name"] not in found
                continue
            true = (tilt["defocus_u_angstrom"] + tilt["defocus_v_angstrom"]) / 2
            errors.append(abs(found[tilt["name"]] / true - 1))
        assert np.median(errors) < 0.03, (name, errors)
        assert np.quantile(errors, 0.8) < 0.06, (name, errors)


def test_beads_are_where_they_truly_are(chain: Chain) -> None:
    """In the tomograms that RELION made from our STAR files, with the right hand."""
    for name, truth in chain.truth.items():
        pixel = truth["pixel_size_angstrom"]
        beads = true_beads(truth)
        assert len(beads) == 12
        for half in ("half1", "half2"):
            tomogram = chain.directory / JOBS[4] / "tomograms" / f"rec_{name}_{half}.mrc"
            found = bead_positions(tomogram)
            reach = {"within": 3 * pixel, "shift": 40 * pixel}
            assert matched_beads(found, beads, **reach) == 12, (name, half)
            mirrored = beads * [1, 1, -1]
            assert matched_beads(found, mirrored, **reach) <= 4, (name, half)


def test_relion_star_handler_reads_every_table_that_we_write(
    chain: Chain, relion_sif: Any, tmp_path: Path
) -> None:
    """All rows and columns, and every value: RELION drops what it does not know."""
    tables = [
        (file, block.name)
        for job in (JOBS[0], JOBS[3])
        for file in sorted((chain.directory / job).rglob("*.star"))
        if file.name not in ("job.star", "default_pipeline.star", "job_pipeline.star")
        for block in read_star(file).blocks
        if block.columns
    ]
    names = {str(file.relative_to(chain.directory)) for file, _ in tables}
    assert {"External/job001/tilt_series.star", "External/job004/tilt_series/TS_02.star"} <= names
    commands = [
        f"relion_star_handler --ignore_optics --i '{file}' --i_tablename '{block}' "
        f"--o '{tmp_path}/{number}.star' --add_column rlnMagnification --add_column_value 7"
        for number, (file, block) in enumerate(tables)
    ]
    binds = [str(chain.directory)]
    said = relion_sif.run(["bash", "-ec", "\n".join(commands)], tmp_path, binds=binds)
    assert "ERROR" not in said.stderr
    assert "WARNING" not in said.stdout + said.stderr
    for number, (file, block_name) in enumerate(tables):
        ours = next(one for one in read_star(file).blocks if one.name == block_name)
        (theirs,) = read_star(tmp_path / f"{number}.star").blocks
        assert [*ours.columns, "rlnMagnification"] == list(theirs.columns), (file, block_name)
        for column in ours.columns:
            for our, their in zip(ours.column(column), theirs.column(column), strict=True):
                assert same_value(our, their), (file, column)


def same_value(one: str, other: str) -> bool:
    """Whether RELION wrote again what it had read."""
    try:
        return abs(float(one) - float(other)) <= 1e-5 * max(1.0, abs(float(one)))
    except ValueError:
        return one == other


def test_relion_pipeliner_reads_ledger_and_job_files(
    chain: Chain, relion_sif: Any, tmp_path: Path
) -> None:
    """A copy of the project without its images; every job that we wrote is added once more."""
    copy = tmp_path / "copy"

    def is_bulk(_directory: str, names: list[str]) -> list[str]:
        return [one for one in names if one.endswith((".mrc", ".tif", ".pdf", ".eps", ".ctf"))]

    shutil.copytree(chain.directory, copy, symlinks=True, ignore=is_bulk)
    environment = schemer_environment(load_settings())
    (run,) = runs(chain.project)
    stars = [f"Schemes/{run.name}/{node}/job.star" for node in NODES]
    for number, star in enumerate(stars, start=6):
        # RELION wants the inputs that a scheme would have filled in by now.
        text = (copy / star).read_text()
        for node, job in zip(NODES, JOBS, strict=True):
            text = text.replace(f"Schemes/{run.name}/{node}/", job)
        (copy / star).write_text(text)
        said = relion_sif.run(
            ["relion_pipeliner", "--addJobFromStar", star], copy, environment=environment
        )
        assert "ERROR" not in said.stderr, said.stderr
        assert "WARNING" not in said.stdout + said.stderr, (star, said.stderr)
        assert read_ledger(copy).counter == number + 1
    ledger = read_ledger(copy)
    before = read_ledger(chain.directory)
    assert [p for p in ledger.processes if p.name in JOBS] == list(before.processes)
    added = [p for p in ledger.processes if p.name not in JOBS]
    assert [p.type_label for p in added] == [p.type_label for p in before.processes]
    assert {p.status for p in added} == {Status.SCHEDULED}
    assert [n.name for n in ledger.inputs_of(added[4].name)] == [
        "External/job004/aligned_tilt_series.star"
    ]


def test_a_changed_alignment_parameter_plans_what_depends_on_it(chain: Chain) -> None:
    settings = load_settings()
    parameters = chain.project.parameters()
    changed = parameters.with_values({"jobs.tsAlignment.dark_threshold": 0.2})
    plan = chain.project.plan(NODES, changed, settings=settings)
    assert [job.node for job in plan.jobs] == ["tsAlignment", "reconstructTomograms"]
    (from_ledger,) = plan.jobs[0].inputs
    assert from_ledger.path == "CtfFind/job003/tilt_series_ctf.star"
    assert plan.jobs[1].inputs[0].node == "tsAlignment"
    changed = parameters.with_values({"jobs.ctfFind.resmin_angstrom": 31})
    plan = chain.project.plan(NODES, changed, settings=settings)
    assert [job.node for job in plan.jobs] == ["ctfFind", "tsAlignment", "reconstructTomograms"]


def test_a_second_run_finds_everything_up_to_date(chain: Chain) -> None:
    again = run_flow(chain.project, chain.site, "--jobs", ",".join(NODES))
    assert (again["code"], again["state"]) == (0, "up_to_date"), again
    assert task_runs(chain.project) == [(n, "Completed") for n in ("snapshot", "plan", "report")]
    assert len(runs(chain.project)) == 1


def test_a_lost_tomogram_is_noticed(chain: Chain) -> None:
    tomograms = chain.directory / JOBS[4] / "tomograms.star"
    kept = tomograms.read_bytes()
    tomograms.unlink()
    try:
        plan = chain.project.plan(NODES, settings=load_settings())
    except CrboostError as error:
        pytest.fail(str(error))
    finally:
        tomograms.write_bytes(kept)
    assert [job.node for job in plan.jobs] == ["reconstructTomograms"]
