"""A job that the scheduler lost is ended once, with the reason, and never while it may live."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from slurm_texts import NO_CONTROLLER, Slurm, recorded

from crboost.relion.markers import Marker
from crboost.scheduler.ask import Answer
from crboost.scheduler.outcome import GoneWatch, alive_check, scheduler_failure, state_of_job
from crboost.settings import SchedulerSettings

TIMEOUT = Answer(0, recorded("sacct_timeout").out, "")


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def job(tmp_path: Path) -> Path:
    kept = "scheduler: slurm\ntime: 100\nexit code: 0\nanswer:\nSubmitted batch job 6\n"
    (tmp_path / "submission.txt").write_text(kept)
    return tmp_path


def watch(job: Path, slurm: Slurm) -> tuple[GoneWatch, Clock]:
    clock = Clock()
    return GoneWatch(job, grace_s=15, poll_s=30, ask=slurm, clock=clock), clock


def looks(watching: GoneWatch, clock: Clock, seconds: int) -> list[Marker | None]:
    found = []
    for _ in range(seconds):
        found.append(watching.look())
        clock.now += 1
    return found


class TestGone:
    def test_is_ended_after_the_grace(self, job: Path) -> None:
        watching, clock = watch(job, Slurm(sacct=TIMEOUT))
        assert looks(watching, clock, 15) == [None] * 15
        assert watching.look() is Marker.FAILURE
        assert "time limit of 00:01:00" in (job / "run.err").read_text()
        assert json.loads((job / "failure.json").read_text())["kind"] == "time_limit"

    def test_a_marker_that_comes_late_counts(self, job: Path) -> None:
        watching, clock = watch(job, Slurm(sacct=TIMEOUT))
        looks(watching, clock, 14)
        (job / Marker.SUCCESS).touch()
        assert looks(watching, clock, 10) == [Marker.SUCCESS] * 10
        assert not (job / "run.err").exists()

    def test_an_abort_that_was_asked_for(self, job: Path) -> None:
        (job / "RELION_JOB_ABORT_NOW").touch()
        text = recorded("sacct_cancelled").out.replace("8", "6")
        watching, clock = watch(job, Slurm(sacct=Answer(0, text, "")))
        assert looks(watching, clock, 20)[-1] is Marker.ABORTED

    def test_what_the_job_said_itself_stays(self, job: Path) -> None:
        (job / "failure.json").write_text('{"kind": "bad_input", "message": "own words"}')
        watching, clock = watch(job, Slurm(sacct=TIMEOUT))
        looks(watching, clock, 20)
        assert json.loads((job / "failure.json").read_text())["kind"] == "bad_input"


class TestNotGone:
    def test_nobody_answers(self, job: Path) -> None:
        watching, clock = watch(job, Slurm(**NO_CONTROLLER))
        assert looks(watching, clock, 200) == [None] * 200
        assert not (job / "run.err").exists()

    def test_it_runs(self, job: Path) -> None:
        text = recorded("sacct_running").out.replace("7|7", "6|6").replace("7.", "6.")
        slurm = Slurm(sacct=Answer(0, text, ""), scontrol="scontrol_no_controller")
        watching, clock = watch(job, slurm)
        assert set(looks(watching, clock, 100)) == {None}
        assert sum(argv[0] == "sacct" for argv in slurm.asked) == 4  # every 30 s

    def test_an_answer_between_two_silences_is_not_enough(self, job: Path) -> None:
        slurm = Slurm(sacct=TIMEOUT)
        watching, clock = watch(job, slurm)
        looks(watching, clock, 5)
        slurm.answers = dict(NO_CONTROLLER)
        looks(watching, clock, 30)
        slurm.answers = {"sacct": TIMEOUT}
        assert looks(watching, clock, 10) == [None] * 10

    def test_no_submission_is_known(self, tmp_path: Path) -> None:
        watching, clock = watch(tmp_path, Slurm(**NO_CONTROLLER))
        assert set(looks(watching, clock, 100)) == {None}


def test_why(job: Path) -> None:
    (job / "run.err").write_text("last words\n")
    failure = scheduler_failure(job, ask=Slurm(sacct=TIMEOUT))
    assert failure is not None
    assert (failure.kind, failure.log_tail) == ("time_limit", "last words")


def test_where_it_stands(job: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    state = state_of_job(job, Slurm(sacct=TIMEOUT))
    assert state is not None
    assert state.state == "TIMEOUT"
    other = tmp_path_factory.mktemp("other")
    assert state_of_job(other, Slurm()) is None
    assert scheduler_failure(other, ask=Slurm()) is None


def test_the_walkers_question() -> None:
    check = alive_check(SchedulerSettings(kind="slurm"), Slurm(sacct=TIMEOUT))
    assert check is not None
    assert check("6") is False
    assert alive_check(SchedulerSettings(kind="pbs")) is None
