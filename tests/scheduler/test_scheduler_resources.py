"""What a job asks for, and how each scheduler wants it written."""

from __future__ import annotations

import pytest

from crboost.errors import ParameterError
from crboost.parameters.computing import Computing
from crboost.scheduler.resources import (
    Resources,
    extra_labels,
    extra_values,
    field_value,
    resources_for,
    with_more,
)
from crboost.settings import SchedulerSettings

SITE = SchedulerSettings.model_validate(
    {
        "kind": "slurm",
        "defaults": {"partition": "cpu", "time_limit_minutes": 60, "site": {"account": "em"}},
        "gpu_defaults": {"partition": "gpu", "gpus": 2},
        "jobs": {
            "fsMotionAndCtf": {"memory_gb": 64, "cpus": 16},
            "tsAlignment": {"site": {"account": "align"}},
        },
    }
)


BARE = SchedulerSettings(kind="slurm")


@pytest.mark.parametrize(
    ("job_type", "gpu", "one_series", "expected"),
    [
        ("tsAlignment", False, False, (8, 32, 0, None)),
        ("tsAlignment", False, True, (8, 32, 0, None)),
        ("tsAlignment", True, False, (2, 16, 1, None)),
        ("tsAlignment", True, True, (2, 16, 1, 15)),
        ("tsReconstruct", True, True, (4, 64, 1, 60)),
        ("tsImport", False, True, (1, 4, 0, 30)),
        ("denoiseTrain", True, False, (4, 32, 1, 120)),
        ("reconstructParticle", False, False, (4, 32, 0, 120)),
        ("class3d", True, False, (8, 64, 1, 480)),
        ("motionCorr", False, False, (8, 32, 0, None)),
    ],
)
def test_without_a_word_from_anybody_what_the_type_needs(
    job_type: str, gpu: bool, one_series: bool, expected: tuple[int | None, ...]
) -> None:
    asked = resources_for(job_type, Computing(), BARE, uses_gpu=gpu, one_series=one_series)
    told = (asked.cpus, asked.memory_gb, asked.gpus, asked.time_limit_minutes)
    assert told == expected
    assert asked.partition is None


def test_every_word_goes_before_what_the_type_needs() -> None:
    site = SchedulerSettings.model_validate(
        {"kind": "slurm", "defaults": {"memory_gb": 20, "time_limit_minutes": 7}}
    )
    asked = resources_for("tsReconstruct", Computing(), site, uses_gpu=True, one_series=True)
    assert (asked.cpus, asked.memory_gb, asked.time_limit_minutes) == (4, 20, 7)
    asked = resources_for("tsReconstruct", Computing(threads=3), site, uses_gpu=True)
    assert (asked.cpus, asked.memory_gb) == (3, 20)


def test_a_user_without_gpus_gets_what_the_type_needs_without() -> None:
    asked = resources_for("tsAlignment", Computing(gpu_count=0), BARE, uses_gpu=True)
    assert (asked.cpus, asked.memory_gb, asked.gpus) == (8, 32, 0)


def test_the_sites_words_go_before_the_defaults() -> None:
    asked = resources_for("fsMotionAndCtf", Computing(), SITE, uses_gpu=True)
    assert (asked.cpus, asked.memory_gb, asked.gpus, asked.partition) == (16, 64, 2, "gpu")
    assert (asked.time_limit_minutes, dict(asked.extra)) == (60, {"account": "em"})


def test_each_job_type_has_its_own() -> None:
    asked = resources_for("tsAlignment", Computing(), SITE)
    assert (asked.cpus, asked.memory_gb, asked.partition) == (8, 32, "cpu")
    assert dict(asked.extra) == {"account": "align"}


def test_the_user_has_the_last_word() -> None:
    computing = Computing(threads=4, memory_gb=128, gpu_count=4, partition="mine")
    asked = resources_for("fsMotionAndCtf", computing, SITE, uses_gpu=True)
    assert (asked.cpus, asked.memory_gb, asked.gpus, asked.partition) == (4, 128, 4, "mine")


def test_the_user_may_insist_on_a_default() -> None:
    asked = resources_for("fsMotionAndCtf", Computing(), SITE, explicit={"memory_gb"})
    assert (asked.memory_gb, asked.cpus) == (32, 16)


def test_no_gpus_for_tools_that_use_none() -> None:
    assert resources_for("fsMotionAndCtf", Computing(gpu_count=4), SITE).gpus == 0


def test_environment_variables_have_no_case() -> None:
    site = SchedulerSettings.model_validate({"jobs": {"fsmotionandctf": {"cpus": 3}}})
    assert resources_for("fsMotionAndCtf", Computing(), site).cpus == 3


def test_the_order_of_the_extras_is_the_settings() -> None:
    resources = Resources(
        cpus=8, memory_gb=32, time_limit_minutes=1530, gpus=2, partition="gpu", constraint="a100"
    )
    assert extra_values(resources, SchedulerSettings(kind="slurm")) == [
        "gpu",
        "a100",
        "1",
        "1",
        "8",
        "gpu:2",
        "32G",
        "25:30:00",
    ]
    two = SchedulerSettings(kind="slurm", extra=["time", "partition"])
    assert extra_values(resources, two) == ["25:30:00", "gpu"]
    assert extra_labels(two) == ["Time limit", "Partition"]


def test_what_is_not_asked_for_is_empty() -> None:
    values = extra_values(Resources(), SchedulerSettings(kind="slurm"))
    assert values == ["", "", "1", "1", "1", "", "", ""]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("slurm", "mem", "6G"),
        ("pbs", "mem", "6gb"),
        ("lsf", "mem", "6GB"),
        ("sge", "mem_per_cpu", "512M"),
        ("slurm", "time", "01:30:00"),
        ("lsf", "time", "1:30"),
        ("pbs", "gpus", "0"),
        ("sge", "gpus", ""),
    ],
)
def test_each_scheduler_has_its_units(kind: str, name: str, value: str) -> None:
    resources = Resources(cpus=4, tasks=3, memory_gb=6, time_limit_minutes=90)
    scheduler = SchedulerSettings.model_validate({"kind": kind})
    assert field_value(name, resources, scheduler) == value


def test_a_sites_gpu() -> None:
    site = SchedulerSettings(kind="slurm", gpu_resource="gpu:a100:{gpus}")
    assert field_value("gres", Resources(gpus=2), site) == "gpu:a100:2"


def test_a_sites_own_field() -> None:
    resources = resources_for("tsAlignment", Computing(), SITE)
    assert field_value("account", resources, SITE) == "align"
    assert field_value("account", Resources(), SITE) == ""
    with pytest.raises(ParameterError, match="'qos', which is no field of a job"):
        field_value("qos", resources, SITE)


def test_there_and_back() -> None:
    resources = resources_for("fsMotionAndCtf", Computing(), SITE, uses_gpu=True)
    assert Resources.from_dict(resources.to_dict()) == resources


class TestMore:
    def test_memory(self) -> None:
        more = with_more(Resources(memory_gb=32), "out_of_memory", SITE)
        assert more is not None
        assert (more[0].memory_gb, more[1]) == (64, "memory 32 -> 64 GB")

    def test_time(self) -> None:
        more = with_more(Resources(time_limit_minutes=60), "time_limit", SITE)
        assert more is not None
        assert more[0].time_limit_minutes == 120

    def test_up_to_the_limit(self) -> None:
        site = SchedulerSettings(max_memory_gb=40)
        more = with_more(Resources(memory_gb=32), "out_of_memory", site)
        assert more is not None
        assert more[0].memory_gb == 40
        assert with_more(more[0], "out_of_memory", site) is None

    @pytest.mark.parametrize("kind", ["bad_input", "tool_error", "node_failure", "aborted"])
    def test_other_failures_need_no_more(self, kind: str) -> None:
        resources = Resources(memory_gb=1, time_limit_minutes=1)
        assert with_more(resources, kind, SITE) is None  # type: ignore[arg-type]

    def test_what_was_not_limited_cannot_be_more(self) -> None:
        assert with_more(Resources(), "time_limit", SITE) is None
