"""How many tilt series a job's GPUs take at once, and which of them each is shown."""

from __future__ import annotations

from collections import Counter

import pytest

from crboost.catalogue import CATALOGUE, GpusPerSeries
from crboost.gpus import Share, granted, share, shown


@pytest.mark.parametrize(
    ("gpus", "environment", "devices"),
    [
        (0, {}, ()),
        (3, {}, ("0", "1", "2")),  # a workstation: as many as were asked for, no more
        (2, {"CUDA_VISIBLE_DEVICES": "2,3"}, ("2", "3")),  # Slurm without cgroups
        (1, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, ("0",)),
        (4, {"CUDA_VISIBLE_DEVICES": "1"}, ("1",)),  # more were asked for than granted
        (0, {"CUDA_VISIBLE_DEVICES": "1"}, ()),
        (2, {"CUDA_VISIBLE_DEVICES": "GPU-89f3, MIG-GPU-1/2/3"}, ("GPU-89f3", "MIG-GPU-1/2/3")),
        (2, {"CUDA_VISIBLE_DEVICES": "3,-1,1"}, ("3",)),
        (2, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        (2, {"CUDA_VISIBLE_DEVICES": ""}, ()),
    ],
)  # fmt: skip
def test_what_a_job_was_granted(
    gpus: int, environment: dict[str, str], devices: tuple[str, ...]
) -> None:
    assert granted(gpus, environment) == devices


@pytest.mark.parametrize(("gpus", "per_gpu"), [(1, 1), (1, 3), (2, 1), (4, 2)])
def test_every_gpu_is_used_and_none_more_often_than_it_may(gpus: int, per_gpu: int) -> None:
    """Not as many as there are CPUs: eight AreTomos on one GPU end without memory."""
    devices = [str(number) for number in range(gpus)]
    found = share(8, devices, one_by_one=False, uses_gpu=True, per_gpu=per_gpu)
    assert found.at_once == gpus * per_gpu
    assert Counter(found.devices) == {(device,): per_gpu for device in devices}
    assert found.workers == max(1, 8 // found.at_once)


def test_a_tool_that_shares_out_gpus_itself_gets_all_of_them() -> None:
    devices = ["2", "3"]
    one = share(8, devices, one_by_one=True, uses_gpu=True, gpus_per_series="all")
    assert one == Share(8, (("2", "3"),))
    two = share(8, devices, one_by_one=True, uses_gpu=True, gpus_per_series="all", per_gpu=2)
    assert two == Share(4, (("2", "3"), ("2", "3")))


def test_without_gpus_the_workers_say_how_many() -> None:
    assert share(4, [], one_by_one=False, uses_gpu=False) == Share(1, ((),) * 4)
    assert share(4, [], one_by_one=True, uses_gpu=False) == Share(4, ((),))
    # What only wants a driver computes on the CPUs.
    found = share(4, ["0"], one_by_one=False, uses_gpu=True, gpus_per_series="none")
    assert found == Share(1, (("0",),) * 4)
    # A GPU that nobody asked for may be there all the same.
    assert share(4, [], one_by_one=False, uses_gpu=True) == Share(4, ((),))


def test_the_tilt_series_of_a_task_share_its_gpu() -> None:
    found = share(6, ["1"], one_by_one=False, uses_gpu=True, per_gpu=3, side_by_side=3)
    assert found == Share(2, (("1",),) * 3)
    assert share(2, [], one_by_one=True, uses_gpu=False, side_by_side=2) == Share(1, ((), ()))


def test_what_a_program_is_shown() -> None:
    assert shown(["2", "3"]) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert shown([]) == {}


@pytest.mark.parametrize(
    ("job_type", "wanted"),
    [
        ("fsMotionAndCtf", "all"),
        ("tsAlignment", "one"),
        ("tsCtf", "one"),
        ("tsReconstruct", "one"),
        ("denoisePredict", "one"),  # cryoCARE predicts on one alone
        ("membraneSegmentation", "one"),
        ("templateMatching", "all"),
        ("extractCandidates", "none"),
    ],
)
def test_what_each_tool_does_with_gpus(job_type: str, wanted: GpusPerSeries) -> None:
    assert CATALOGUE[job_type].gpus_per_series == wanted
