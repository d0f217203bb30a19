"""The doubles of cryoCARE's three programs: its configurations, files and manners.

What is learnt is mean and spread of the tomograms; what is predicted is the mean of the halves in
these terms. A configuration has the keys of the contract and no others (the real ones pass over
what they do not know). As the real ones they refuse an output directory that is there, unless they
may overwrite; only warn of a GPU that is not there, and go on without; take a directory of halves,
and do nothing where it is empty, with exit code 0; and write zeros into a new file first, so that
one that was killed leaves a tomogram of zeros. DOUBLES_FAIL names tomograms to fail on.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from doubles.failing import is_to_fail

from crboost.builders.cryocare import check_command

Config = Mapping[str, Any]


def data_of(path: str) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as opened:
        return np.array(opened.data, np.float32)


def make_directory(path: str, conf: Config) -> Path:
    directory = Path(path)
    if directory.exists() and not conf.get("overwrite"):
        print("Output directory already exists. Please choose a new output directory or set "
              "'overwrite' to 'true' in your configuration file.")  # fmt: skip
        sys.exit(1)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def look_for_gpus(conf: Config) -> None:
    """Say which GPUs are not there; nothing else comes of it."""
    given = conf.get("gpu_id", 0)
    wanted = given if isinstance(given, list) else [given]
    if not wanted:
        raise RuntimeError("ERROR: List of GPU IDs is empty")
    there = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    for gpu in wanted:
        if gpu >= len(there):
            print(f"WARNING: GPU {gpu} not found")


def extract(conf: Config) -> int:
    """Mean and spread of the part of each tomogram that is trained on."""
    patch = conf["patch_shape"]
    axis = "ZYX".index(conf["tilt_axis"].upper())
    masks = conf.get("mask", [None] * len(conf["even"]))
    samples = []
    for even, odd, mask in zip(conf["even"], conf["odd"], masks, strict=True):
        first, second = data_of(even), data_of(odd)
        assert first.shape == second.shape, "even and odd tomogram differ in size"
        assert all(n > 2 * size for n, size in zip(first.shape, patch, strict=True)), (
            f"{even} is too small for patches of {patch}"
        )
        if is_to_fail(even):
            raise MemoryError(even)
        count = int(first.shape[axis] * conf["split"])
        trained = np.moveaxis(first, axis, 0)[:count]
        if mask is not None:
            trained = trained[np.moveaxis(data_of(mask), axis, 0)[:count] > 0]
        samples.append((float(trained.mean()), float(trained.std())))
    available = len(samples) * (int(conf["num_slices"] * conf["split"]) - 1)
    assert conf["n_normalization_samples"] <= max(1, available), "too few normalization samples"
    directory = make_directory(conf["path"], conf)
    for name in ("train_data", "val_data"):
        np.savez(directory / f"{name}.npz", samples=samples, even=conf["even"], patch=patch)
    return 0


def train(conf: Config) -> int:
    """The model: a directory, and the same packed."""
    look_for_gpus(conf)
    data = np.load(Path(conf["train_data"]) / "train_data.npz")
    if any(size % 2 ** conf["unet_n_depth"] for size in data["patch"]):
        raise ValueError("patches cannot be halved as often as the network does")
    if is_to_fail(conf["model_name"]):
        raise MemoryError("OOM when allocating tensor")
    mean, std = data["samples"].mean(axis=0)
    model = Path(conf["path"]) / conf["model_name"]
    model.mkdir(exist_ok=True)
    losses = [1 / (epoch + 1) for epoch in range(conf["epochs"])]
    (model / "history.dat").write_text(json.dumps({"loss": losses}))
    (model / "norm.json").write_text(json.dumps({"mean": float(mean), "std": float(std)}))
    with tarfile.open(f"{model}.tar.gz", "w:gz") as packed:
        packed.add(model, arcname=model.name)
    return 0


def halves(conf: Config) -> list[tuple[str, str]]:
    """The tomograms to denoise, (even, odd)."""
    even, odd = conf["even"], conf["odd"]
    if isinstance(even, list):
        return list(zip(even, odd, strict=False))
    if Path(even).is_dir() and Path(odd).is_dir():
        every = (sorted(map(str, Path(where).glob("*.mrc"))) for where in (even, odd))
        return list(zip(*every, strict=False))
    return [(even, odd)]


def predict(conf: Config) -> int:
    """A denoised tomogram of each pair of halves, under the even one's name."""
    output = make_directory(conf["output"], conf)
    look_for_gpus(conf)
    if not Path(conf["path"]).is_file():
        print("Invalid config format.")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(conf["path"], "r:gz") as packed:
            packed.extractall(directory, filter="data")
        (model,) = Path(directory).iterdir()
        norm = json.loads((model / "norm.json").read_text())
    for even, odd in halves(conf):
        mean = (data_of(even) + data_of(odd)) / 2
        with mrcfile.open(even, permissive=True, header_only=True) as header:
            voxel = header.voxel_size.copy()
        made = mrcfile.new_mmap(
            output / Path(even).name, mean.shape, mrc_mode=2, fill=0, overwrite=True
        )
        made.voxel_size = voxel
        if is_to_fail(even):
            made.close()
            print("Killed", file=sys.stderr)
            return 137
        edges = [
            [size * i // n for i in range(n + 1)]
            for size, n in zip(mean.shape, conf["n_tiles"], strict=True)
        ]
        for z in map(slice, edges[0][:-1], edges[0][1:]):
            for y in map(slice, edges[1][:-1], edges[1][1:]):
                for x in map(slice, edges[2][:-1], edges[2][1:]):
                    made.data[z, y, x] = (mean[z, y, x] - norm["mean"]) / norm["std"]
        made.close()
    return 0


PROGRAMS: dict[str, Callable[[Config], int]] = {
    "cryoCARE_extract_train_data.py": extract,
    "cryoCARE_train.py": train,
    "cryoCARE_predict.py": predict,
}


def main(program: str, words: Sequence[str]) -> int:
    """What a program does with its arguments; its exit code."""
    texts = {word: Path(word).read_text() for word in words[1:] if Path(word).is_file()}
    problems = check_command([program, *words], texts)
    if problems:
        print(f"{program}: error: {problems[0]}", file=sys.stderr)
        return 1 if words[:1] == ["--conf"] else 2
    return PROGRAMS[program](json.loads(texts[words[1]]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
