"""What the planner is told of jobs that RELION itself did."""

from __future__ import annotations

import os
from pathlib import Path

from crboost.catalogue import CATALOGUE, OPTIMISATION_SET
from crboost.past_jobs import past_job
from crboost.relion.job import Job, write_job
from crboost.relion.ledger import Edge, Ledger, Node, Process, Status
from crboost.translate.candidates import write_optimisation_set
from crboost.translate.tables import write_blocks

EXTRACT = "Extract/job002/"
GIVEN = "External/job001/optimisation_set.star"


def test_a_job_on_particles_has_done_the_tilt_series_until_there_are_others(tmp_path: Path) -> None:
    """RELION leaves no word on them, and the planner would go on with such a job for ever."""
    given = tmp_path / "External/job001"
    given.mkdir(parents=True)
    write_blocks(given / "candidates.star", {"particles": [{"rlnTomoName": "TS_01"}]})
    names = ("TS_01", "TS_02")  # nothing was found in the second
    write_blocks(given / "tomograms.star", {"global": [{"rlnTomoName": name} for name in names]})
    write_optimisation_set(
        tmp_path / GIVEN, "External/job001/candidates.star", "External/job001/tomograms.star"
    )
    job_type = CATALOGUE["subtomoExtraction"].relion_type
    write_job(tmp_path / EXTRACT / "job.star", Job(job_type, {"box_size": "64"}, is_tomo=True))
    marker = tmp_path / EXTRACT / "RELION_JOB_EXIT_SUCCESS"
    marker.touch()
    ledger = Ledger(
        counter=3,
        processes=(Process(EXTRACT, job_type, Status.SUCCEEDED),),
        nodes=(Node(GIVEN, f"{OPTIMISATION_SET}.tomo.candidates"),),
        input_edges=(Edge(EXTRACT, GIVEN),),
    )

    def seen() -> list[str]:
        return list(past_job(tmp_path, ledger, ledger.processes[0], None).series)

    ended = marker.stat().st_mtime_ns
    os.utime(given / "candidates.star", ns=(ended - 10**9, ended - 10**9))
    assert seen() == ["TS_01", "TS_02"]
    os.utime(given / "candidates.star", ns=(ended + 10**9, ended + 10**9))
    assert seen() == []
    (given / "candidates.star").unlink()
    assert seen() == []
