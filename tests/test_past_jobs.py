"""Past jobs of RELION's own: what they left is not all that the ledger says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crboost.catalogue import OPTIMISATION_SET
from crboost.history import PastJob
from crboost.past_jobs import past_job
from crboost.relion.ledger import read_ledger

LEDGER = """
# version 50001

data_pipeline_general

_rlnPipeLineJobCounter 4

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
Extract/job001/ None relion.pseudosubtomo Succeeded
Reconstruct/job002/ None relion.reconstructparticletomo Succeeded
Class3D/job003/ None relion.class3d Succeeded

data_pipeline_nodes

loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeTypeLabel #2
_rlnPipeLineNodeTypeLabelDepth #3
Extract/job001/optimisation_set.star TomoOptimisationSet.star.relion.tomo.extract 1
Reconstruct/job002/optimisation_set.star TomoOptimisationSet.star.relion.tomo.reconstruct 1
Reconstruct/job002/merged.mrc DensityMap.mrc.relion.tomo.map.reconstruct 1
Class3D/job003/run_it002_optimisation_set.star TomoOptimisationSet.star.relion.class3d 1
Class3D/job003/run_optimisation_set.star TomoOptimisationSet.star.relion.class3d 1

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
Extract/job001/ Extract/job001/optimisation_set.star
Reconstruct/job002/ Reconstruct/job002/optimisation_set.star
Reconstruct/job002/ Reconstruct/job002/merged.mrc
Class3D/job003/ Class3D/job003/run_it002_optimisation_set.star
Class3D/job003/ Class3D/job003/run_optimisation_set.star
"""
JOB_STAR = """
data_job

_rlnJobTypeLabel {label}
_rlnJobIsContinue 0
_rlnJobIsTomo 1

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
in_optimisation {given}
"""
SET = "data_\n\n_rlnTomoParticlesFile p.star\n_rlnTomoTomogramsFile External/tomograms.star\n"
TOMOGRAMS = """
data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesStarFile #2
TS_01 External/TS_01.star
TS_02 External/TS_02.star
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Particles from two tilt series: extracted, averaged, classified, as RELION 5.1 leaves it."""
    (tmp_path / "default_pipeline.star").write_text(LEDGER)
    (tmp_path / "External").mkdir()
    (tmp_path / "External" / "tomograms.star").write_text(TOMOGRAMS)
    (tmp_path / "External" / "set.star").write_text(SET)
    for job, label, given, made in (
        ("Extract/job001", "relion.pseudosubtomo", "External/set.star", "optimisation_set.star"),
        ("Reconstruct/job002", "relion.reconstructparticletomo",
         "Extract/job001/optimisation_set.star", "merged.mrc"),
        ("Class3D/job003", "relion.class3d", "Extract/job001/optimisation_set.star",
         "run_it002_optimisation_set.star"),
    ):  # fmt: skip
        directory = tmp_path / job
        directory.mkdir(parents=True)
        (directory / "job.star").write_text(JOB_STAR.format(label=label, given=given))
        (directory / made).write_text(SET)
        (directory / "RELION_JOB_EXIT_SUCCESS").touch()
    return tmp_path


def read(project: Path) -> list[PastJob]:
    ledger = read_ledger(project)
    return [past_job(project, ledger, process, None) for process in ledger.processes]


def test_files_that_relion_declares_and_never_writes_are_not_missed(project: Path) -> None:
    extract, average, classes = read(project)
    assert [one.missing for one in (extract, average, classes)] == [(), (), ()]
    assert average.output_with_label((OPTIMISATION_SET,)) is None
    assert classes.output_with_label((f"{OPTIMISATION_SET}.class3d",)) == (
        "Class3D/job003/run_it002_optimisation_set.star"
    )


def test_what_it_did_write_is_missed(project: Path) -> None:
    (project / "Reconstruct/job002/merged.mrc").unlink()
    (project / "Class3D/job003/run_it002_optimisation_set.star").unlink()
    _, average, classes = read(project)
    assert average.missing == ("Reconstruct/job002/merged.mrc",)
    assert classes.missing == ("Class3D/job003/run_it002_optimisation_set.star",)


def test_the_tilt_series_of_the_particles_are_done(project: Path) -> None:
    for job in read(project):
        assert {name: one.status for name, one in job.series.items()} == {
            "TS_01": "done",
            "TS_02": "done",
        }


def test_particles_that_were_made_anew_since_are_not(project: Path) -> None:
    marker = (project / "Extract/job001/RELION_JOB_EXIT_SUCCESS").stat().st_mtime_ns
    later = marker + 5_000_000_000
    os.utime(project / "External/set.star", ns=(later, later))
    extract, average, _ = read(project)
    assert extract.series == {}
    assert set(average.series) == {"TS_01", "TS_02"}
