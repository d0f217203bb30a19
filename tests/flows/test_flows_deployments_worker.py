"""Deployments executed by a real worker, started as the README and docs/service.md say."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from browser.service import Service

from crboost.project import Project

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def documented_command(page: str, project: Project) -> list[str]:
    """The first `prefect deployment run` of a page of ours, for this project."""
    text = (ROOT / page).read_text()
    found = re.search(r"^prefect deployment run (?:.*\\\n)*.*", text, re.MULTILINE)
    assert found is not None
    words = shlex.split(found[0].replace("\\\n", " "))
    return [re.sub("^project_dir=.*", f"project_dir={project.directory}", word) for word in words]


def run_all(
    service: Service,
    eventually: Callable[..., Any],
    *wanted: tuple[str, Mapping[str, Any]],
) -> list[str]:
    """Have the worker run these deployments side by side; all must complete. Their messages."""
    known = service.deployments()
    ids = []
    for name, parameters in wanted:
        path = f"/deployments/{known[f'{name}/headnode']['id']}/create_flow_run"
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        ids.append(service.call("POST", path, body)["id"])
    states: dict[str, tuple[str, str]] = {}

    def ended() -> bool:
        found = service.call("POST", "/flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}})
        states.update({run["id"]: (run["state_type"], run["state"]["message"]) for run in found})
        return all(kind in ("COMPLETED", "FAILED", "CRASHED") for kind, _ in states.values())

    eventually(ended, 300)
    assert {kind for kind, _ in states.values()} == {"COMPLETED"}, states
    return [states[one][1] for one in ids]


def test_the_documented_command_and_then_stage_after_stage(
    deployed: Service,
    worker: Path,
    simulated_project: Project,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    project = simulated_project
    where = {"project_dir": str(project.directory)}
    tried = {"microscope": {"amplitude_contrast": 0.2}}

    pages = {page: documented_command(page, project) for page in ("docs/service.md", "README.md")}
    for words in pages.values():
        assert words[0] == "prefect" and "process-project/headnode" in words
        assert 'jobs=["fsMotionAndCtf"]' in words and "--watch" in words
    early = deployed.run("-m", *pages["docs/service.md"], cwd=tmp_path, timeout=300)

    assert early.returncode != 0  # nothing has been imported
    (refused,) = [
        run for run in deployed.flow_runs("process-project")
        if run["parameters"]["project_dir"] == where["project_dir"]
    ]  # fmt: skip
    assert "importmovies" in refused["state"]["message"]
    assert not list(project.directory.glob("External/job*"))

    run_all(deployed, eventually, ("import", where))
    assert (project.directory / "External/job001/RELION_JOB_EXIT_SUCCESS").exists()
    done = deployed.run("-m", *pages["README.md"], cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr + (worker / "out").read_text()

    planned = run_all(
        deployed, eventually,
        ("plan-project", where), ("plan-project", {**where, "parameters": tried}),
        ("preprocess", where),
        ("housekeeping", {"keep_days": 1}),
    )  # fmt: skip
    assert planned[0].startswith("2 jobs would run: tsAlignment, tsReconstruct")
    assert planned[1].startswith("4 jobs would run: importmovies, ")
    assert planned[2] == "everything is up to date"
    assert project.parameters().microscope.amplitude_contrast != 0.2  # tried, not kept

    coarse = {"jobs": {"tsAlignment": {"alignment_mode": "coarse"}}}
    run_all(deployed, eventually, ("align", {**where, "parameters": coarse}))
    assert project.parameters().value("jobs.tsAlignment.alignment_mode") == "coarse"
    (message,) = run_all(deployed, eventually, ("reconstruct", where))
    assert message.startswith("1 jobs succeeded: External/job")
    reconstructed = project.directory / message.removeprefix("1 jobs succeeded: ")
    assert list(reconstructed.rglob("*.mrc"))
    newest = deployed.call("POST", "/artifacts/latest/filter", {})
    (disks,) = (json.loads(one["data"]) for one in newest if one["key"] == "disks")
    assert any(Path(row["directory"]).is_dir() and row["size GB"] > 0 for row in disks)
    assert "crboost" not in "".join(path.name for path in worker.iterdir())  # nothing was pulled


def test_a_wheel_brings_the_deployments(tmp_path: Path) -> None:
    """Built and unpacked elsewhere, the package finds its deployments and their flows."""
    # The build tool is the index's to give, unless it is here.
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *here,
         "-w", str(tmp_path / "wheels"), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheels").glob("crboost-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import importlib, yaml
from crboost.resources import resource_directory
directory = resource_directory("deployments")
assert str(directory).startswith(sys.argv[1]), directory
for one in yaml.safe_load((directory / "prefect.yaml").read_text())["deployments"]:
    module, _, name = one["entrypoint"].rpartition(".")
    found = importlib.import_module(module)
    assert found.__file__.startswith(sys.argv[1]), found.__file__
    print(getattr(found, name).name + "/" + one["name"])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path / "site")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"process-project/headnode", "align/headnode"} <= set(done.stdout.split())
