"""membrain-seg's command lines, held against its own options."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from crboost.builders import membrain
from crboost.builders.membrain_contract import check, contract
from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import MembraneSegmentation, ProjectParameters

TOMOGRAM = "External/job005/cryocare/TS_01/TS_01.mrc"


def segment(gpus: int = 1, **values: object) -> Step:
    given = {"model_path": "models/MemBrain_seg v10.ckpt", **values}
    changes = {f"jobs.membraneSegmentation.{name}": value for name, value in given.items()}
    parameters = ProjectParameters.new("P", datetime(2026, 5, 1, tzinfo=UTC)).with_values(changes)
    effective = parameters.effective("membraneSegmentation")
    job = effective.job_as(MembraneSegmentation)
    return membrain.segment(TOMOGRAM, 13.48, effective, job, "External/job006/membrain/TS_01", gpus)


def value(step: Step, option: str) -> str:
    return step.argv[step.argv.index(option) + 1]


def test_the_contract_names_its_source() -> None:
    source = contract()["source"]
    assert list(source["versions"]) == ["0.0.9"]
    assert all(len(commit) == 40 for commit in source["versions"].values())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rescale_patches": False},
        {"store_probabilities": True, "test_time_augmentation": False},
        {"connected_components": True},
        {"connected_components": True, "smallest_component_voxels": 50},
        {"segmentation_threshold": -1.5, "sliding_window_size_px": 96},
    ],
)
def test_every_command_keeps_to_the_contract(values: dict[str, object]) -> None:
    assert check(segment(**values).argv) == []


def test_what_a_command_says() -> None:
    step = segment()
    assert value(step, "--ckpt-path") == "models/MemBrain_seg v10.ckpt"
    assert value(step, "--in-pixel-size") == "13.48"
    assert value(step, "--out-pixel-size") == "10"
    out = "External/job006/membrain/TS_01"
    assert step.creates == (f"{out}/TS_01_MemBrain_seg v10.ckpt_segmented.mrc",)
    assert "--in-pixel-size" not in segment(rescale_patches=False).argv
    assert len(segment(store_probabilities=True).creates) == 2


def test_without_gpus_none_is_taken() -> None:
    assert segment(gpus=0).environment == {"CUDA_VISIBLE_DEVICES": ""}
    assert segment(gpus=1).environment == {}


def test_a_model_is_called_by_what_stands_before_its_loss() -> None:
    model = "m/MemBrain_v10-epoch=999-val_loss=0.52.ckpt"
    assert membrain.segmentation("a/b.c.mrc", model, "X") == (
        "X/b.c_MemBrain_v10-epoch=999_segmented.mrc"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_path": ""}, "model_path is not set"),
        ({"smallest_component_voxels": 10}, "connected_components is off"),
    ],
)
def test_what_cannot_be_done_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        segment(**values)


@pytest.mark.parametrize("size", [0, 32, 65, 100, 1024])
def test_windows_are_multiples_of_32_and_not_32(size: int) -> None:
    with pytest.raises(ParameterError, match="sliding_window_size_px"):
        segment(sliding_window_size_px=size)


GOOD = ("membrain", "segment", "--tomogram-path", "t.mrc", "--ckpt-path", "m.ckpt")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("membrain", "train"), "no command of membrain-seg"),
        (GOOD[:4], "needs --ckpt-path"),
        ((*GOOD, "--out_folder", "X"), "no option --out_folder"),
        ((*GOOD, "--rescale-patches", "1"), "no option 1"),
        ((*GOOD, "--sliding-window-size", "160.0"), "is no int"),
        ((*GOOD, "--in-pixel-size", "nan"), "is no float"),
        ((*GOOD, "--in-pixel-size"), "needs a value"),
        ((*GOOD, "--rescale-patches", "--no-rescale-patches"), "given twice"),
    ],
)
def test_wrong_command_lines_are_told(words: tuple[str, ...], problem: str) -> None:
    assert problem in " ".join(check(words))


def test_negative_numbers_are_values() -> None:
    assert check((*GOOD, "--segmentation-threshold", "-1.5")) == []
