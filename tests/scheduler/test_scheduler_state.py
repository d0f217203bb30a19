"""Which of Slurm's commands is believed, and what a run is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from slurm_texts import NO_CONTROLLER, Slurm, recorded

from crboost.scheduler.ask import Answer, ask
from crboost.scheduler.state import (
    array_states,
    job_state,
    said_in_log,
    submission_alive,
    why_ended,
)

SILENT = Answer(0, "", "")


class TestWhoIsAsked:
    def test_accounting_is_enough_for_a_job_that_is_over(self) -> None:
        slurm = Slurm(sacct="sacct_timeout")
        state = job_state("6", slurm)
        assert (state.phase, state.kind, state.source) == ("failed", "time_limit", "sacct")
        assert [argv[0] for argv in slurm.asked] == ["sacct"]

    def test_the_controller_says_why_a_job_waits(self) -> None:
        slurm = Slurm(sacct="sacct_pending_resources", scontrol="scontrol_pending_resources")
        state = job_state("14", slurm)
        assert (state.phase, state.reason, state.source) == ("pending", "Resources", "scontrol")

    @pytest.mark.parametrize("sacct", ["sacct_disabled", "sacct_no_database", "sacct_unknown_job"])
    def test_without_accounting_the_controller_is_asked(self, sacct: str) -> None:
        state = job_state("4", Slurm(sacct=sacct, scontrol="scontrol_out_of_memory"))
        assert (state.phase, state.kind) == ("failed", "out_of_memory")

    def test_the_queue_is_the_last_resort(self) -> None:
        slurm = Slurm(sacct="sacct_disabled", squeue="squeue_node_fail")
        state = job_state("20", slurm)
        assert (state.phase, state.kind, state.source) == ("failed", "node_failure", "squeue")

    def test_accounting_alone_still_knows_a_running_job(self) -> None:
        state = job_state("7", Slurm(**{**NO_CONTROLLER, "sacct": "sacct_running"}))
        assert state.alive is True

    def test_another_jobs_row_is_not_ours(self) -> None:
        slurm = Slurm(sacct="sacct_completed", scontrol="scontrol_no_controller")
        assert job_state("77", slurm).phase == "unknown"


class TestSilenceIsNoEnd:
    def test_nobody_answers(self) -> None:
        state = job_state("1", Slurm(**NO_CONTROLLER))
        assert (state.phase, state.alive) == ("unknown", None)
        assert "Unable to contact slurm controller" in state.message

    def test_no_command_at_all(self) -> None:
        assert submission_alive("1", Slurm()) is None

    def test_a_queue_that_prints_nothing(self) -> None:
        slurm = Slurm(sacct=SILENT, scontrol="scontrol_no_controller", squeue=SILENT)
        assert submission_alive("1", slurm) is None

    def test_all_are_silent(self) -> None:
        slurm = Slurm(sacct=SILENT, scontrol=SILENT, squeue=SILENT)
        assert submission_alive("1", slurm) is None

    def test_too_slow(self) -> None:
        slow = Answer(124, "", "sacct gave no answer within 30 s")
        state = job_state("1", Slurm(sacct=slow, scontrol=slow, squeue=slow))
        assert state.alive is None
        assert "no answer within" in state.message

    def test_such_a_job_has_no_reason_for_its_end(self) -> None:
        assert why_ended("1", ask=Slurm(**NO_CONTROLLER)) is None


class TestForgotten:
    def test_the_controller_denies_the_job(self) -> None:
        slurm = Slurm(sacct="sacct_disabled", scontrol="scontrol_unknown_job")
        state = job_state("99999", slurm)
        assert (state.phase, state.alive, state.kind) == ("forgotten", False, "killed")

    def test_a_job_that_only_the_database_calls_running_is_over(self) -> None:
        slurm = Slurm(sacct="sacct_running", scontrol="scontrol_unknown_job")
        assert submission_alive("7", slurm) is False

    def test_its_log_may_still_tell(self) -> None:
        slurm = Slurm(sacct="sacct_disabled", scontrol="scontrol_unknown_job")
        log = "slurmstepd: error: *** JOB 6 ON n CANCELLED AT 2026 DUE TO TIME LIMIT ***"
        failure = why_ended("6", log_tail=log, ask=slurm)
        assert failure is not None
        assert failure.kind == "time_limit"


class TestArrays:
    def test_one_failed_task_fails_the_whole(self) -> None:
        state = job_state("9", Slurm(sacct="sacct_array"))
        assert (state.phase, state.kind) == ("failed", "tool_error")
        assert "1 of 5 tasks failed" in state.message

    def test_each_task(self) -> None:
        states = array_states("9", Slurm(sacct="sacct_array"))
        assert {task: state.phase for task, state in states.items()} == {
            "0": "succeeded",
            "1": "succeeded",
            "2": "succeeded",
            "3": "failed",
            "4": "succeeded",
        }

    @pytest.mark.parametrize("number", ["9_3", "13"])
    def test_one_task_by_either_number(self, number: str) -> None:
        assert job_state(number, Slurm(sacct="sacct_array")).kind == "tool_error"

    def test_alive_while_one_task_is(self) -> None:
        text = recorded("sacct_array").out.replace(
            "9_2|12|array|cpu|COMPLETED", "9_2|12|array|cpu|RUNNING"
        )
        slurm = Slurm(sacct=Answer(0, text, ""), scontrol="scontrol_no_controller")
        assert job_state("9", slurm).phase == "running"

    def test_no_answer_is_no_tasks(self) -> None:
        assert array_states("9", Slurm(**NO_CONTROLLER)) == {}


class TestWhyEnded:
    @pytest.mark.parametrize(
        ("job", "name", "kind"),
        [
            ("4", "out_of_memory", "out_of_memory"),
            ("5", "out_of_memory_in_step", "out_of_memory"),
            ("6", "timeout", "time_limit"),
            ("20", "node_fail", "node_failure"),
            ("22", "preempted", "preempted"),
            ("8", "cancelled", "aborted"),
            ("2", "failed", "tool_error"),
        ],
    )
    def test_kinds_are_told_apart(self, job: str, name: str, kind: str) -> None:
        failure = why_ended(job, ask=Slurm(sacct=f"sacct_{name}"))
        assert failure is not None
        assert failure.kind == kind
        assert f"Slurm job {job} " in failure.message

    def test_a_job_that_succeeded_has_none(self) -> None:
        assert why_ended("1", ask=Slurm(sacct="sacct_completed")) is None

    def test_waits_until_slurm_has_settled_the_state(self) -> None:
        answers = iter([recorded("sacct_running"), recorded("sacct_running")])
        slurm = Slurm(scontrol="scontrol_no_controller")
        done = recorded("sacct_timeout").out.replace("6|6|timeout", "7|7|timeout")
        naps: list[float] = []

        def asked(argv: Sequence[str]) -> Answer:
            if argv[0] != "sacct":
                return slurm(argv)
            return next(answers, Answer(0, done, ""))

        failure = why_ended("7", patience_s=10, ask=asked, sleep=naps.append)
        assert failure is not None
        assert failure.kind == "time_limit"
        assert naps == [1.0, 1.0]

    def test_patience_ends(self) -> None:
        slurm = Slurm(sacct="sacct_running", scontrol="scontrol_running")
        naps: list[float] = []
        assert why_ended("7", patience_s=3, ask=slurm, sleep=naps.append) is None
        assert sum(naps) == 3

    def test_a_cancellation_for_memory_is_not_an_abort(self) -> None:
        log = "slurmstepd: error: Step 8.0 exceeded memory limit (210 > 200), being killed"
        failure = why_ended("8", log_tail=log, ask=Slurm(sacct="sacct_cancelled"))
        assert failure is not None
        assert failure.kind == "out_of_memory"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=4.batch.", "out_of_memory"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in step 4.batch", "out_of_memory"),
        ("slurmstepd: error: *** JOB 6 ON n CANCELLED AT 2026 DUE TO TIME LIMIT ***", "time_limit"),
        ("slurmstepd: error: *** JOB 6 ON n CANCELLED AT 2026 DUE TO PREEMPTION ***", "preempted"),
        ("slurmstepd: error: *** JOB 6 ON n CANCELLED AT 2026 ***", "aborted"),
    ],
)
def test_what_slurmstepd_says(line: str, kind: str) -> None:
    said = said_in_log(f"before\n{line}\nafter")
    assert said is not None
    assert said.kind == kind


def test_a_tools_own_words_are_not_slurms() -> None:
    assert said_in_log("the tool was CANCELLED AT noon DUE TO TIME LIMIT") is None


class TestAsk:
    def test_a_command_that_is_not_there(self) -> None:
        answer = ask(["no-such-command-of-slurm"])
        assert answer.absent
        assert "command not found" in answer.err

    def test_a_command_that_hangs(self) -> None:
        assert ask(["sleep", "5"], timeout_s=0.1).code == 124

    def test_the_users_formats_do_not_reach_slurm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SQUEUE_FORMAT", "%j")
        monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
        answer = ask(["env"])
        assert "SQUEUE_FORMAT" not in answer.out
        assert "SLURM_TIME_FORMAT=standard" in answer.out
