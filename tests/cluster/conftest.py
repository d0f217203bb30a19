"""A site with a cluster, as an administrator would describe it, made of the testbed's parts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_site import INTERPRETER, Bench, Sections, Site, make_project

from crboost.files import write_text


@pytest.fixture(scope="session")
def site_sections(_slurm_answers: Any, relion_sif: Any) -> Sections:
    """RELION in its image, jobs to Slurm's partition `cpu`."""
    if not _slurm_answers["accounting"]:
        pytest.skip("the testbed has no accounting: python tests/testbed up --with-sacct")
    return {
        "python": sys.executable,
        "containers": {"executable": str(relion_sif.apptainer.command)},
        "tools": {
            "relion": {"image": str(relion_sif.image)},
            "ctffind": {"executable": relion_sif.stand_ins["ctffind"]},
        },
        "scheduler": {
            "kind": "slurm",
            "poll_s": 1.0,
            "setup": ["export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"],
            "defaults": {
                "partition": "cpu",
                "cpus": 2,
                "memory_gb": 2,
                "time_limit_minutes": 10,
            },
        },
    }


@pytest.fixture
def site(site_sections: Sections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site of one test; also the settings of what runs in this process."""
    made = Site(tmp_path / "settings.toml", site_sections)
    made.set()
    monkeypatch.setenv("CRBOOST_SETTINGS", str(made.file))
    return made


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tilt series, for tests that look at how jobs end and not at what they compute."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("tiny")
    make_example_data(directory, series=1, size_px=256, frames=2, tilt_range_deg=20,
                      tilt_step_deg=10, defects=False)  # fmt: skip
    return directory


@pytest.fixture
def bench(site: Site, tiny_data: Path, tmp_path: Path, slurm: Any) -> Iterator[Bench]:
    """A project of one small tilt series, on the site, with jobs that can be made to fail."""
    interpreter = tmp_path / "interpreter"
    write_text(interpreter, INTERPRETER.format(python=sys.executable))
    interpreter.chmod(0o755)
    site.set(python=str(interpreter))
    made = Bench(make_project(tmp_path / "project", tiny_data), site)
    yield made
    made.clean_up()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until something holds; fails after so many seconds."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.1)

    return wait
