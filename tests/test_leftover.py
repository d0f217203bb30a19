"""What a run leaves undone, and when that is worth another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.cpu.example_data import make_example_data
from crboost.leftover import (
    LEFTOVER_FILE,
    TRIES,
    Leftover,
    after_run,
    digest_of,
    digest_of_inputs,
    read_leftover,
    write_leftover,
)
from crboost.plan import Plan, PlannedJob
from crboost.project import Project
from crboost.settings import Settings

EMPTY = Plan((), ())


def to_do(reason: str = "TS_01 failed") -> Plan:
    return Plan((PlannedJob("x", "x", "f", reason, (), (), {}, "External/job001/", 0),), ())


def test_nothing_left_is_nothing_to_remember() -> None:
    assert after_run(Leftover("d", "r"), "d", EMPTY, failure=None) is None


def test_a_failure_of_its_own_is_final() -> None:
    left = after_run(None, "d", to_do(), failure=("tool_error", "it is dark\nmore"))
    assert left == Leftover("d", "it is dark", 1, final=True)
    assert left.leave_alone
    through = after_run(None, "d", to_do(), failure=None)
    assert through is not None and through.leave_alone


def test_what_was_ended_from_outside_is_tried_some_times() -> None:
    left = None
    for tries in range(1, TRIES + 1):
        left = after_run(left, "d", to_do(), failure=("killed", "killed by SIGKILL"))
        assert left is not None
        assert (left.tries, left.leave_alone) == (tries, tries == TRIES)
    changed = after_run(left, "other", to_do(), failure=("no_space", "the disk is full"))
    assert changed is not None
    assert not changed.leave_alone


def test_the_digest_follows_what_a_run_begins_with(tmp_path: Path) -> None:
    make_example_data(
        tmp_path / "raw", series=1, size_px=128, frames=2, tilt_step_deg=60, defects=False
    )
    project = Project.create(
        tmp_path / "project",
        movies=[str(tmp_path / "raw/frames/*")],
        mdocs=[str(tmp_path / "raw/*.mdoc")],
    ).project
    settings = Settings()

    def inputs() -> str:
        return digest_of_inputs(project, [], settings)

    first = inputs()
    assert inputs() == first
    assert digest_of_inputs(project, ["importmovies"], settings) != first
    other = Settings(scheduler={"kind": "slurm"})  # type: ignore[arg-type]
    assert digest_of_inputs(project, [], other) != first
    project.set_values({"jobs.tsAlignment.dark_threshold": 0.2})
    second = inputs()
    assert second != first
    link = next((project.directory / "frames").iterdir())
    link.unlink()
    assert inputs() != second
    assert digest_of(first, to_do()) != digest_of(first, to_do("something else"))
    assert digest_of(first, to_do()) != digest_of(second, to_do())


def test_it_is_remembered_in_the_project(tmp_path: Path) -> None:
    assert read_leftover(tmp_path) is None
    write_leftover(tmp_path, Leftover("d", "r", 2, final=False))
    assert read_leftover(tmp_path) == Leftover("d", "r", 2, final=False)
    write_leftover(tmp_path, None)
    write_leftover(tmp_path, None)
    assert read_leftover(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"digest": "d", "more": 1}'])
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / LEFTOVER_FILE
    path.parent.mkdir()
    path.write_text(text)
    assert read_leftover(tmp_path) is None
