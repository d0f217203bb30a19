"""cryoCARE's configurations, held against the keys that it reads."""

from __future__ import annotations

import json

import pytest

from crboost.builders import cryocare
from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import DenoisePredict, DenoiseTrain

HALVES = [("E/TS_1_even.mrc", "E/TS_1_odd.mrc"), ("E/TS_10_even.mrc", "E/TS_10_odd.mrc")]


def config(step: Step) -> dict[str, object]:
    program, flag, path = step.argv
    assert flag == "--conf"
    made: dict[str, object] = json.loads(step.files[path])
    assert cryocare.check(program, made) == []
    return made


def test_training_is_two_programs_with_the_keys_that_they_read() -> None:
    extract, train = cryocare.train(HALVES, DenoiseTrain(), "External/job005", 1)
    data = config(extract)
    assert data["even"] == ["E/TS_1_even.mrc", "E/TS_10_even.mrc"]
    assert data["odd"] == ["E/TS_1_odd.mrc", "E/TS_10_odd.mrc"]
    assert (data["patch_shape"], data["num_slices"]) == ([64, 64, 64], 600)
    assert config(train)["train_data"] == data["path"]
    assert train.creates == ("External/job005/denoising_model.tar.gz",)
    assert config(train)["gpu_id"] == 0
    assert config(cryocare.train(HALVES, DenoiseTrain(), "X", 2)[1])["gpu_id"] == [0, 1]


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("split", [0.5, 0.9, 0.99])
def test_never_more_normalization_samples_than_subvolumes(count: int, split: float) -> None:
    """cryoCARE indexes its samples without looking how many there are."""
    job = DenoiseTrain(number_training_subvolumes=100, training_split=split)
    data = config(cryocare.train([HALVES[0]] * count, job, "X", 1)[0])
    there = count * int(100 * (1 - (1.0 - split)))
    assert 0 < int(str(data["n_normalization_samples"])) <= min(2000, there)


def test_a_network_that_cannot_halve_its_subvolumes_is_refused() -> None:
    with pytest.raises(ParameterError, match="subvolume_dimensions = 36 px is no multiple of 8"):
        cryocare.train(HALVES, DenoiseTrain(subvolume_dimensions=36), "X", 1)


def test_prediction_is_written_under_the_name_of_the_even_half() -> None:
    job = DenoisePredict(ntiles_x=1, ntiles_y=2, ntiles_z=3)
    step = cryocare.predict(*HALVES[0], "External/job005/denoising_model.tar.gz", job, "X/TS_1", 1)
    assert config(step)["n_tiles"] == [3, 2, 1]
    assert config(step)["overwrite"] is True
    assert step.creates == ("X/TS_1/TS_1_even.mrc",)


@pytest.mark.parametrize(
    ("count", "edge_px", "tiles"),
    [(4, 1000, 4), (4, 1001, 8), (1, 2000, 2), (6, 2000, 8), (8, 2000, 8), (12, 2000, 12)],
)
def test_long_edges_have_twice_the_tiles(count: int, edge_px: int, tiles: int) -> None:
    assert cryocare.tiles_for(count, edge_px) == tiles
    job = DenoisePredict(ntiles_x=count, ntiles_y=1, ntiles_z=2)
    step = cryocare.predict(*HALVES[0], "model.tar.gz", job, "X", 1, (edge_px, 512, 200))
    assert config(step)["n_tiles"] == [2, 1, tiles]


def test_wrong_configurations_are_told() -> None:
    told = cryocare.check(cryocare.TRAIN, {"epochs": "10", "epoch": 3})
    assert "cryoCARE_train.py knows no 'epoch'" in told
    assert "epochs = '10' is no int" in told
    assert "cryoCARE_train.py needs 'path'" in told
    assert cryocare.check("x.py", {}) == ["cryoCARE has no program 'x.py'"]


def test_b29_names_of_tilt_series_are_whole_names() -> None:
    """B29: Position_1 also chose Position_10."""
    assert DenoiseTrain(tomograms_for_training="TS_1, TS_3  TS_1").training_series == (
        "TS_1",
        "TS_3",
    )
    assert DenoisePredict().series_to_denoise == ()
