"""The doubles of cryoCARE take what the contract knows, and have the real ones' bad manners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from doubles.cryocare import main

from crboost.builders.cryocare import contract

EXTRACT, TRAIN, PREDICT = (f"cryoCARE_{name}.py" for name in
                           ("extract_train_data", "train", "predict"))  # fmt: skip
EXTRACTION: dict[str, Any] = {
    "even": ["even/TS_01.mrc"], "odd": ["odd/TS_01.mrc"], "patch_shape": [8, 8, 8],
    "num_slices": 100, "split": 0.75, "tilt_axis": "Y", "n_normalization_samples": 50,
    "path": "data",
}  # fmt: skip
TRAINING: dict[str, Any] = {
    "train_data": "data", "epochs": 3, "steps_per_epoch": 2, "batch_size": 4,
    "unet_kern_size": 3, "unet_n_depth": 3, "unet_n_first": 16, "learning_rate": 1e-4,
    "model_name": "model", "path": ".", "gpu_id": [0, 1],
}  # fmt: skip
PREDICTION: dict[str, Any] = {
    "path": "model.tar.gz", "even": "even/TS_01.mrc", "odd": "odd/TS_01.mrc",
    "n_tiles": [2, 3, 1], "output": "out",
}  # fmt: skip


def run(program: str, config: object) -> int:
    Path("c.json").write_text(json.dumps(config))
    return main(program, ["--conf", "c.json"])


def volume(path: str) -> np.ndarray:
    with mrcfile.open(path) as opened:
        data: np.ndarray = opened.data.copy()
        return data


@pytest.fixture(autouse=True)
def halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(3)
    for half in ("even", "odd"):
        Path(half).mkdir()
        for name in ("TS_01", "TS_02"):
            data = noise.normal(3.0, 2.0, (18, 20, 22)).astype(np.float32)
            mrcfile.write(f"{half}/{name}.mrc", data, voxel_size=8.0)
    mask = np.zeros((18, 20, 22), np.float32)
    mask[:, :10] = 1
    mrcfile.write("mask.mrc", mask)


@pytest.fixture
def model(halves: None) -> None:
    assert run(EXTRACT, EXTRACTION) == 0
    assert run(TRAIN, TRAINING) == 0


def test_denoised_is_the_mean_in_the_trained_scale(model: None) -> None:
    assert run(PREDICT, PREDICTION) == 0
    mean = (volume("even/TS_01.mrc") + volume("odd/TS_01.mrc")) / 2
    part = volume("even/TS_01.mrc")[:, :15]  # tilt axis Y, split 0.75
    assert np.allclose(volume("out/TS_01.mrc"), (mean - part.mean()) / part.std(), atol=1e-4)


def test_a_mask_is_where_it_learns(halves: None) -> None:
    assert run(EXTRACT, {**EXTRACTION, "mask": ["mask.mrc"]}) == 0
    samples = np.load("data/train_data.npz")["samples"]
    assert samples[0][0] == pytest.approx(volume("even/TS_01.mrc")[:, :10].mean(), abs=1e-5)


def test_directories_and_lists(model: None) -> None:
    lists = {"even": ["even/TS_02.mrc"], "odd": ["odd/TS_02.mrc"]}
    assert run(PREDICT, {**PREDICTION, **lists}) == 0
    assert [path.name for path in Path("out").iterdir()] == ["TS_02.mrc"]
    every = {"even": "even", "odd": "odd", "overwrite": True}
    assert run(PREDICT, {**PREDICTION, **every}) == 0
    assert len(list(Path("out").iterdir())) == 2
    # Nothing to do is no error.
    Path("empty").mkdir()
    none = {"even": "empty", "odd": "empty", "output": "none"}
    assert run(PREDICT, {**PREDICTION, **none}) == 0
    assert not list(Path("none").iterdir())


def test_a_gpu_that_is_not_there_is_a_warning(
    model: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert run(TRAIN, TRAINING) == 0
    assert capsys.readouterr().out == "WARNING: GPU 1 not found\n"


@pytest.mark.parametrize(
    ("program", "config", "message"),
    [
        (EXTRACT, {**EXTRACTION, "patches": 1}, "knows no 'patches'"),
        (EXTRACT, {**EXTRACTION, "num_slices": "9"}, "num_slices = '9' is no int"),
        (TRAIN, {}, "needs 'train_data'"),
        (PREDICT, {**PREDICTION, "n_tiles": 4}, "n_tiles = 4 is no int[]"),
    ],
)
def test_wrong_keys_are_refused(
    program: str, config: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, config) == 1
    assert message in capsys.readouterr().err


def test_wrong_words_are_refused() -> None:
    Path("c.json").write_text(json.dumps(PREDICTION))
    assert main(PREDICT, ["--config", "c.json"]) == 2
    assert main(PREDICT, []) == 2
    assert main(PREDICT, ["--conf", "absent.json"]) == 1


def test_what_is_there_is_not_overwritten_unasked(model: None) -> None:
    with pytest.raises(SystemExit) as ended:
        run(EXTRACT, EXTRACTION)
    assert ended.value.code == 1
    assert run(EXTRACT, {**EXTRACTION, "overwrite": True}) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_shape": [16, 8, 8]}, "too small for patches"),
        ({"n_normalization_samples": 75}, "too few normalization samples"),
        ({"odd": ["mask.mrc"], "even": ["even/small.mrc"]}, "differ in size"),
    ],
)
def test_what_cannot_be_cut_is_an_error(changes: dict[str, Any], message: str) -> None:
    mrcfile.write("even/small.mrc", np.zeros((18, 20, 20), np.float32))
    with pytest.raises(AssertionError, match=message):
        run(EXTRACT, {**EXTRACTION, **changes})


def test_one_that_is_killed_leaves_zeros(model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOUBLES_FAIL", "TS_01")
    assert run(PREDICT, PREDICTION) == 137
    assert not volume("out/TS_01.mrc").any()


def test_the_doubles_are_the_contracts_programs() -> None:
    there = {path.name for path in (Path(__file__).parent / "bin").glob("cryoCARE_*")}
    assert there == set(contract()["programs"])
