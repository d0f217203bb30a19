"""`scontrol show config` and `sinfo`, as Slurm 22.05 prints it."""

from __future__ import annotations

from slurm_texts import Slurm, recorded

from crboost.scheduler.cluster import Limits, Partition, limits, partitions
from crboost.scheduler.slurm_text import parse_config


def test_values() -> None:
    config = parse_config(recorded("scontrol_show_config").out)
    assert config["MinJobAge"] == "3600 sec"
    assert config["AccountingStorageType"] == "accounting_storage/slurmdbd"


def test_limits() -> None:
    assert limits(Slurm(scontrol="scontrol_show_config")) == Limits(3600, 1001, accounting=True)


def test_no_controller_has_no_limits() -> None:
    assert limits(Slurm(scontrol="scontrol_no_controller")) is None
    assert limits(Slurm()) is None


def test_partitions() -> None:
    found = partitions(Slurm(sinfo="sinfo_partitions"))
    assert found is not None
    assert list(found) == ["cpu", "gpu", "short", "low", "spare"]
    assert found["cpu"] == Partition(
        "cpu", is_default=True, is_up=True, time_limit="infinite", gpus=True
    )
    assert (found["short"].time_limit, found["spare"].gpus) == ("1:00", False)


def test_no_controller_has_no_partitions() -> None:
    assert partitions(Slurm(sinfo="sinfo_no_controller")) is None
