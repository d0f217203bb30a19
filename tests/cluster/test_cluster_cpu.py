"""The CPU tools on a cluster: by both schemers, on the nodes' Python and in a container."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_site import Site, make_project, run_flow, sacct, slurm_jobs_below, task_runs

from crboost.containers import image_digest, needed_binds
from crboost.files import read_json
from crboost.project import Project
from crboost.relion.ledger import format_ledger, read_ledger
from crboost.relion.star import read_star
from crboost.results import read_results
from crboost.run import runs
from crboost.scheduler.submitted import scheduler_job_id
from crboost.settings import load_settings

pytestmark = [pytest.mark.relion, pytest.mark.slurm, pytest.mark.prefect, pytest.mark.slow]

NODES = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct")
JOBS = tuple(f"External/job00{number}/" for number in range(1, 5))
SERIES = ("TS_01", "TS_02")


def python_in_image(image: Path) -> dict[str, Any]:
    """`tools.cpu` for an image without our packages: this Python, shown to it.

    A site would build an image with crboost in it; the driver does not see the difference.
    """
    is_systems = Path(sys.base_prefix) == Path("/usr")  # the image needs a /usr of its own
    of_python = [Path(sys.executable).resolve()] if is_systems else [Path(sys.base_prefix)]
    packages = [Path(one) for one in sys.path if Path(one).is_absolute() and Path(one).is_dir()]
    libraries = sysconfig.get_config_var("LIBDIR")
    return {
        "image": str(image),
        "binds": [str(one) for one in needed_binds([Path(sys.prefix), *of_python, *packages])],
        "environment": {} if is_systems else {"LD_LIBRARY_PATH": str(libraries)},
    }


@dataclass(frozen=True)
class Chain:
    """The project after its run by one engine."""

    project: Project
    site: Site
    result: dict[str, Any]
    engine: str
    image: Path | None

    @property
    def directory(self) -> Path:
        return self.project.directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tilt series; TS_02 lacks a movie."""
    from crboost.cpu.example_data import make_example_data

    directory = tmp_path_factory.mktemp("cpu_data")
    make_example_data(directory, series=2, size_px=256, frames=3, tilt_range_deg=50,
                      tilt_step_deg=10)  # fmt: skip
    return directory


def run_chain(
    tmp_path_factory: pytest.TempPathFactory, data: Path, sections: dict[str, Any], engine: str
) -> Chain:
    directory = tmp_path_factory.mktemp(engine)
    site = Site(directory / "settings.toml", sections)
    site.set(schemer=engine)
    project = make_project(directory / "project", data)
    result = run_flow(project, site, "--jobs", ",".join(NODES))
    cpu = site.sections["tools"].get("cpu")
    assert slurm_jobs_below(directory) == []
    return Chain(project, site, result, engine, Path(cpu["image"]) if cpu else None)


@pytest.fixture(scope="module")
def by_relion(
    tmp_path_factory: pytest.TempPathFactory, data: Path, site_sections: dict[str, Any]
) -> Chain:
    """relion_schemer in its image; the tools on the nodes' own Python."""
    return run_chain(tmp_path_factory, data, site_sections, "relion")


@pytest.fixture(scope="module")
def by_embedded(
    tmp_path_factory: pytest.TempPathFactory,
    data: Path,
    site_sections: dict[str, Any],
    relion_sif: Any,
) -> Chain:
    """The embedded schemer, submitting to the same Slurm; each tool command in a container."""
    tools = {**site_sections["tools"], "cpu": python_in_image(relion_sif.image)}
    return run_chain(tmp_path_factory, data, {**site_sections, "tools": tools}, "embedded")


@pytest.fixture(params=["relion", "embedded"])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """The run by each of the engines."""
    yield request.getfixturevalue(f"by_{request.param}")


def test_the_flow_completes_with_one_task_per_job(chain: Chain) -> None:
    assert (chain.result["code"], chain.result["state"]) == (0, "completed"), chain.result
    assert chain.result["jobs"] == dict(zip(NODES, JOBS, strict=True))
    names = ["snapshot", "plan", "generate", *NODES, "report"]
    assert task_runs(chain.project) == [(name, "Completed") for name in names]
    (run,) = runs(chain.project)
    assert read_json(run.directory / "schemer.pid")["engine"] == chain.engine


def test_every_job_ran_under_slurm(chain: Chain) -> None:
    for job in JOBS:
        number = scheduler_job_id(chain.directory / job)
        assert number is not None
        said = sacct(number, "JobName", "State", "WorkDir")
        assert said == {"JobName": job, "State": "COMPLETED", "WorkDir": str(chain.directory)}


def test_tool_commands_ran_where_the_settings_say(chain: Chain, relion_sif: Any) -> None:
    for job in JOBS[1:]:
        results = read_results(chain.directory / job)
        assert sorted(results) == list(SERIES)
        recorded = read_json(chain.directory / job / "crboost_job.json")["image"]
        for one in results.values():
            assert one.status == "done"
            (argv,) = one.commands
            assert "crboost.cpu" in argv
            if chain.image is None:
                assert Path(argv[0]) == Path(sys.executable)
            else:
                assert argv[:3] == [str(relion_sif.apptainer.command), "exec", "--cleanenv"]
                assert argv[argv.index(str(chain.image)) + 1] == sys.executable
        if chain.image is None:
            assert recorded is None
        else:
            digest = image_digest(chain.image, chain.directory / "digests.json")
            assert recorded == {"path": str(chain.image), "digest": digest}


def test_the_container_saw_another_system(by_embedded: Chain, relion_sif: Any) -> None:
    """Not this machine's C library: the tools ran on what the image has."""
    result = read_json(by_embedded.directory / JOBS[1] / "cpu" / "TS_01" / "result.json")
    assert result["versions"], result
    (run,) = runs(by_embedded.project)
    assert run.record["images"]["cpu"] == run.record["images"]["relion"]


def test_both_engines_leave_the_same_ledger(by_relion: Chain, by_embedded: Chain) -> None:
    ours, theirs = read_ledger(by_embedded.directory), read_ledger(by_relion.directory)
    assert format_ledger(ours) == format_ledger(theirs)


def test_the_container_does_not_change_what_the_tools_find(
    by_relion: Chain, by_embedded: Chain
) -> None:
    """Same numbers on the image's C library as on this machine's."""
    for job, columns in (
        (JOBS[1], ("rlnDefocusU", "rlnDefocusV", "rlnAccumMotionTotal")),
        (JOBS[2], ("rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")),
    ):
        for name in SERIES:
            tables = [
                read_star(each.directory / job / "tilt_series" / f"{name}.star").blocks[0]
                for each in (by_relion, by_embedded)
            ]
            for column in columns:
                one, other = (np.array(table.column(column), dtype=float) for table in tables)
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2, err_msg=column)


def test_a_missing_movie_is_said_and_does_no_harm(chain: Chain) -> None:
    results = read_results(chain.directory / JOBS[0])
    assert results["TS_01"].warnings == []
    (warning,) = results["TS_02"].warnings
    assert "is missing" in warning
    final = read_results(chain.directory / JOBS[3])
    assert {name: one.metrics["tilts"] for name, one in final.items()} == {"TS_01": 11, "TS_02": 10}
    assert [Path(one).name for one in chain.result["pictures"]] == ["TS_01.png", "TS_02.png"]


def test_a_project_made_by_one_engine_continues_under_the_other(
    by_relion: Chain, by_embedded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last here: it adds a job to both projects."""
    for chain, other in ((by_relion, "embedded"), (by_embedded, "relion")):
        chain.site.set(schemer=other)
        monkeypatch.setenv("CRBOOST_SETTINGS", str(chain.site.file))
        assert load_settings().engine == other
        assert chain.project.plan(NODES, settings=load_settings()).is_empty
        result = run_flow(chain.project, chain.site, "--jobs", ",".join(NODES),
                          "--set", "jobs.tsReconstruct.dose_weight=false")  # fmt: skip
        assert (result["code"], result["state"]) == (0, "completed"), (other, result)
        assert result["jobs"] == {"tsReconstruct": "External/job005/"}
        assert read_json(runs(chain.project)[-1].directory / "schemer.pid")["engine"] == other
        inputs = read_ledger(chain.directory).inputs_of("External/job005/")
        assert [one.name for one in inputs] == ["External/job003/aligned_tilt_series.star"]
    ours, theirs = read_ledger(by_embedded.directory), read_ledger(by_relion.directory)
    assert format_ledger(ours) == format_ledger(theirs)
