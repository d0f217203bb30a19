"""`scontrol show config`, as Slurm 22.05 prints it."""

from __future__ import annotations

from slurm_texts import Slurm, recorded

from crboost.scheduler.slurm_text import parse_config
from crboost.scheduler.state import Limits, limits


def test_values() -> None:
    config = parse_config(recorded("scontrol_show_config").out)
    assert config["MinJobAge"] == "3600 sec"
    assert config["AccountingStorageType"] == "accounting_storage/slurmdbd"


def test_limits() -> None:
    assert limits(Slurm(scontrol="scontrol_show_config")) == Limits(3600, 1001, accounting=True)


def test_no_controller_has_no_limits() -> None:
    assert limits(Slurm(scontrol="scontrol_no_controller")) is None
    assert limits(Slurm()) is None
