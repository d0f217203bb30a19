"""crboost plan, before anything has run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Crboost, Files

JOBS = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]


def test_everything_would_run_and_nothing_is_changed(
    crboost: Crboost, project: Path, files: Files
) -> None:
    before = files(project)
    done = crboost("plan", project)
    assert done.returncode == 0, done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in words if line[1:2] == ["run"]] == JOBS
    assert "4 jobs would run." in done.stdout
    assert "tilt_series_ctf.star of fsMotionAndCtf (made in this run)" in done.stdout
    assert files(project) == before


def test_commands_are_shown_when_asked_for(crboost: Crboost, project: Path) -> None:
    assert "crboost.cpu frames" not in crboost("plan", project).stdout
    assert "crboost.cpu frames" in crboost("plan", project, "--commands").stdout


def test_a_plan_for_programs(crboost: Crboost, project: Path) -> None:
    value = json.loads(crboost("plan", project, "--json").stdout)
    assert [job["node"] for job in value["jobs"]] == JOBS
    assert value["satisfied"] == []


def test_an_input_that_nothing_provides_names_the_missing_job(
    crboost: Crboost, project: Path
) -> None:
    done = crboost("plan", project, "tsReconstruct")
    assert done.returncode == 2
    assert "-> add tsAlignment to the run" in done.stderr


def test_run_refuses_what_plan_refuses(crboost: Crboost, project: Path) -> None:
    done = crboost("run", project, "tsReconstruct")
    assert done.returncode == 2, done.stderr
    assert "Error: tsReconstruct: nothing provides its input" in done.stderr
    assert "-> add tsAlignment to the run" in done.stderr
    assert not list((project / "Schemes").iterdir())


def test_a_change_can_be_tried(crboost: Crboost, project: Path, files: Files) -> None:
    before = files(project)
    tried = crboost(
        "plan", project, "importmovies", "--set", "microscope.pixel_size_angstrom=1.2",
        "--mode", "continue",
    )  # fmt: skip
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.splitlines()[-1].endswith(
        "importmovies --set microscope.pixel_size_angstrom=1.2 --mode continue"
    )
    assert crboost("plan", project, "--set", "microscope.nothing=1").returncode == 2
    assert files(project) == before


def test_a_project_that_has_not_run_has_no_status_and_no_history(
    crboost: Crboost, project: Path
) -> None:
    assert "Nothing has run yet." in crboost("status", project).stdout
    assert crboost("history", project).stdout == "Nothing has run yet.\n"
    assert json.loads(crboost("status", project, "--json").stdout)["jobs"] == []
    done = crboost("log", project, "tsAlignment")
    assert done.returncode == 2
    assert "nothing has run yet" in done.stderr
    assert "no runs yet" in crboost("schemer", "status", project).stdout
