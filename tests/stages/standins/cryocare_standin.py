#!/usr/bin/env python3
"""Stand-ins for cryoCARE's three programs: its configurations and files; the mean of the halves.

Installed as `cryoCARE_extract_train_data.py`, `cryoCARE_train.py` and `cryoCARE_predict.py`.
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path

import mrcfile
import numpy as np


def extract(conf: dict) -> None:
    samples = []
    for even, odd in zip(conf["even"], conf["odd"], strict=True):
        with mrcfile.open(even) as first, mrcfile.open(odd) as second:
            assert first.data.shape == second.data.shape
            assert min(first.data.shape) > 2 * conf["patch_shape"][0]
            samples.append((float(first.data.mean()), float(first.data.std())))
    directory = Path(conf["path"])
    if directory.exists() and not conf.get("overwrite"):
        sys.exit("Output directory already exists.")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("train_data", "val_data"):
        np.savez(directory / f"{name}.npz", samples=samples, even=conf["even"])


def train(conf: dict) -> None:
    data = np.load(Path(conf["train_data"]) / "train_data.npz")
    mean, std = data["samples"].mean(axis=0)
    model = Path(conf["path"]) / conf["model_name"]
    model.mkdir(exist_ok=True)
    (model / "norm.json").write_text(json.dumps({"mean": mean, "std": std}))
    with tarfile.open(f"{model}.tar.gz", "w:gz") as packed:
        packed.add(model, arcname=model.name)


def predict(conf: dict) -> None:
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(conf["path"], "r:gz") as packed:
            packed.extractall(directory, filter="data")
        (model,) = Path(directory).iterdir()
        norm = json.loads((model / "norm.json").read_text())
    output = Path(conf["output"])
    if output.exists() and not conf.get("overwrite"):
        sys.exit("Output directory already exists.")
    output.mkdir(parents=True, exist_ok=True)
    with mrcfile.open(conf["even"]) as even, mrcfile.open(conf["odd"]) as odd:
        mean = (even.data.astype("f4") + odd.data.astype("f4")) / 2
        voxel = even.voxel_size.copy()
    with mrcfile.new(output / Path(conf["even"]).name, overwrite=True) as made:
        made.set_data(((mean - norm["mean"]) / norm["std"]).astype("f4"))
        made.voxel_size = voxel


if __name__ == "__main__":
    name, flag, path = Path(sys.argv[0]).name, *sys.argv[1:]
    assert flag == "--conf"
    {
        "cryoCARE_extract_train_data.py": extract,
        "cryoCARE_train.py": train,
        "cryoCARE_predict.py": predict,
    }[name](json.loads(Path(path).read_text()))
