"""Which jobs become arrays, what their tasks ask for, and what Slurm says of the tasks."""

from __future__ import annotations

import pytest
from slurm_texts import Slurm, recorded

from crboost.scheduler.array import (
    ArraySpec,
    array_directive,
    array_queue,
    coordinator_resources,
    max_array_size,
    slices,
    task_numbers,
    task_spec,
    uses_array,
)
from crboost.scheduler.ask import Answer
from crboost.scheduler.resources import Resources
from crboost.settings import SchedulerSettings

WAITS = (
    "56_[2,4,6,8,10,12,14,16,18,21,2|56|56|2,4,6-8,25-26%2|PENDING|JobArrayTaskLimit|0:00|"
    "UNLIMITED|cpu||s.sh\n"
    "56_1|58|56|1|RUNNING|None|0:03|UNLIMITED|cpu|compute1|s.sh\n"
    "56_0|57|56|0|COMPLETING|None|0:03|UNLIMITED|cpu|compute1|s.sh\n"
)


def scheduler(**values: object) -> SchedulerSettings:
    return SchedulerSettings.model_validate({"kind": "slurm", **values})


class TestWhichJobs:
    def test_by_default_only_where_the_user_has_set_the_limit(self) -> None:
        assert uses_array("tsCtf", scheduler(), uses_gpu=False, asked=True)
        assert not uses_array("tsCtf", scheduler(), uses_gpu=False, asked=False)

    def test_the_table_of_the_job_goes_before_that_of_all_jobs(self) -> None:
        site = scheduler(
            gpu_defaults={"array": True}, jobs={"tsCtf": {"array": False}}, array="auto"
        )
        assert uses_array("fsMotionAndCtf", site, uses_gpu=True, asked=False)
        assert not uses_array("fsMotionAndCtf", site, uses_gpu=False, asked=False)
        assert not uses_array("tsCtf", site, uses_gpu=True, asked=True)

    def test_all_or_none(self) -> None:
        assert uses_array("tsCtf", scheduler(array=True), uses_gpu=False, asked=False)
        never = scheduler(array=False, jobs={"tsCtf": {"array": True}})
        assert not uses_array("tsCtf", never, uses_gpu=False, asked=True)

    @pytest.mark.parametrize("kind", ["local", "pbs", "sge", "lsf"])
    def test_only_slurm_has_them(self, kind: str) -> None:
        site = SchedulerSettings.model_validate({"kind": kind, "array": True})
        assert not uses_array("tsCtf", site, uses_gpu=False, asked=True)

    def test_a_variable_may_say_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from crboost.settings import load_settings

        for text, value in (("true", True), ("false", False), ("auto", "auto")):
            monkeypatch.setenv("CRBOOST_SCHEDULER__ARRAY", text)
            assert load_settings().scheduler.array == value


class TestResources:
    def test_a_task_asks_for_what_the_job_would_and_for_one_gpu(self) -> None:
        job = Resources(cpus=8, memory_gb=64, gpus=4, partition="gpu")
        site = scheduler(gpu_defaults={"per_gpu": 2}, jobs={"tsCtf": {"per_gpu": 3}})
        spec = task_spec("tsCtf", site, job, throttle=5, workers=None)
        assert (spec.resources.gpus, spec.resources.memory_gb) == (1, 64)
        assert (spec.per_task, spec.workers, spec.throttle) == (3, 8, 5)
        assert spec.words == "5 tasks of 3 tilt series at once"
        assert ArraySpec.from_dict(spec.to_dict()) == spec

    def test_without_a_gpu_nothing_is_shared(self) -> None:
        site = scheduler(defaults={"per_gpu": 3})
        spec = task_spec("tsCtf", site, Resources(cpus=2), throttle=1, workers=1)
        assert (spec.per_task, spec.resources.gpus, spec.workers) == (1, 0, 1)

    def test_the_coordinator_asks_for_little_where_the_others_are(self) -> None:
        site = scheduler(
            defaults={
                "partition": "cpu",
                "cpus": 32,
                "memory_gb": 200,
                "time_limit_minutes": 60,
                "site": {"account": "em"},
            },
            gpu_defaults={"partition": "gpu", "gpus": 2},
            coordinator={"time_limit_minutes": 2880},
        )
        asked = coordinator_resources(site)
        assert (asked.partition, asked.cpus, asked.memory_gb, asked.gpus) == ("cpu", 1, 2, 0)
        assert (asked.time_limit_minutes, dict(asked.extra)) == (2880, {"account": "em"})

    def test_a_coordinator_that_computes_first_asks_for_what_a_task_does(self) -> None:
        task = Resources(cpus=4, memory_gb=24, time_limit_minutes=60, gpus=1, partition="gpu",
                         constraint="a100", extra={"account": "em"})  # fmt: skip
        site = scheduler(
            defaults={"partition": "cpu", "time_limit_minutes": 90},
            coordinator={"partition": "cpu", "time_limit_minutes": 2880, "cpus": 2},
        )
        asked = coordinator_resources(site, task)
        assert (asked.partition, asked.constraint, asked.gpus) == ("gpu", "a100", 1)
        assert (asked.cpus, asked.memory_gb, asked.time_limit_minutes) == (4, 24, 2880)
        assert dict(asked.extra) == {"account": "em"}
        assert coordinator_resources(scheduler(coordinator={"gpus": 2}), task).gpus == 2
        # Where it only waits, a GPU would be lost on it.
        assert coordinator_resources(scheduler(coordinator={"gpus": 2})).gpus == 0

    def test_other_schedulers_fields_are_not_disturbed(self) -> None:
        from crboost.parameters.computing import Computing
        from crboost.scheduler.resources import resources_for

        site = scheduler(jobs={"tsCtf": {"array": True, "per_gpu": 2, "cpus": 3}})
        assert resources_for("tsCtf", Computing(), site).cpus == 3


class TestSlices:
    def test_numbers_stay_below_the_limit(self) -> None:
        assert slices(list("abcde"), 2) == [["a", "b"], ["c", "d"], ["e"]]
        assert slices([], 5) == []
        assert slices(["a"], 0) == [["a"]]

    def test_the_directive(self) -> None:
        assert array_directive(7, 3) == "#SBATCH --array=0-6%3"

    def test_the_limit_is_the_sites(self) -> None:
        assert max_array_size(Slurm(scontrol="scontrol_show_config")) == 1001
        assert max_array_size(Slurm(scontrol=Answer(0, "MaxArraySize = 31\nMinJobAge = 5 sec\n", "")
                                    )) == 31  # fmt: skip
        assert max_array_size(Slurm(scontrol="scontrol_no_controller")) == 1001


class TestQueue:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("7", {7}),
            ("5-7%2", {5, 6, 7}),
            ("0-4,9,11-15:2%4", {0, 1, 2, 3, 4, 9, 11, 13, 15}),
            ("1,3,...", {1, 3}),
            ("N/A", set()),
        ],
    )
    def test_numbers(self, text: str, numbers: set[int]) -> None:
        assert task_numbers(text) == numbers

    def test_what_waits_and_what_runs(self) -> None:
        queue = array_queue("56", Slurm(squeue=Answer(0, WAITS, "")))
        assert queue is not None
        assert queue.waiting == {2, 4, 6, 7, 8, 25, 26}
        assert queue.running == {1}  # 0 is over, but for its epilogue
        assert queue.reason == "JobArrayTaskLimit"

    def test_over_or_forgotten(self) -> None:
        for answer in (Answer(0, "", ""), recorded("squeue_unknown_job")):
            queue = array_queue("56", Slurm(squeue=answer))
            assert queue is not None
            assert queue.alive == frozenset()

    def test_silence_is_no_end(self) -> None:
        assert array_queue("56", Slurm(squeue="squeue_no_controller")) is None
        assert array_queue("56", Slurm()) is None

    def test_another_job_is_not_ours(self) -> None:
        queue = array_queue("57", Slurm(squeue=Answer(0, WAITS, "")))
        assert queue is not None
        assert queue.running == frozenset()
