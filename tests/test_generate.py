"""What a run writes for RELION's own jobs. No RELION is asked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from crboost.failure import Failure
from crboost.project import Project
from crboost.run import Run
from crboost.settings import Settings


def test_relions_container_sees_the_gain_reference(tmp_path: Path, example_data: Path) -> None:
    """Also after a retry, which writes the submission again."""
    (tmp_path / "refs").mkdir()
    gain = tmp_path / "refs" / "gain.mrc"
    gain.touch()
    project = Project.create(
        tmp_path / "P", movies=[str(example_data / "frames")], mdocs=[str(example_data / "*.mdoc")]
    ).project
    project.set_values({"data.gain_reference": str(gain)})
    settings = Settings.model_validate(
        {
            "scheduler": {"kind": "slurm", "defaults": {"memory_gb": 8}},
            "tools": {"relion": {"image": str(tmp_path / "relion.sif")}},
        }
    )
    plan = project.plan(["importmovies", "motionCorr", "ctfFind"], settings=settings)
    now = datetime.now().astimezone()
    run = Run.create(project, plan, project.parameters(), settings, now=now)
    scripts = project.directory / ".crboost" / "runs" / run.name

    def sees(node: str) -> bool:
        return f"--bind {tmp_path / 'refs'}" in (scripts / f"submit_{node}.sh").read_text()

    assert sees("motionCorr")
    assert not sees("ctfFind")
    (scripts / "submit_motionCorr.sh").unlink()
    failure = Failure("out_of_memory", "killed")
    assert run.prepare_retry("motionCorr", failure, 2) == "memory 8 -> 16 GB"
    assert sees("motionCorr")
