"""The double of membrain-seg's `membrain segment`: its options, files and manners.

What is dark in a smoothed tomogram is membrane; its score is how many standard deviations darker
than the mean it is, less two. The model is not read, but has to be there. As the real one it ends
with 1 and a trace on any error, with 0 where it is given nothing at all, asks on the terminal for
what is required and missing (and aborts where there is none), and names the segmentation after
tomogram and model. DOUBLES_FAIL names tomograms to fail on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
from doubles.failing import is_to_fail
from scipy import ndimage

from crboost.builders.membrain_contract import check, contract

OPTIONS = contract()["commands"]["segment"]


def parsed(words: Sequence[str]) -> dict[str, str | bool]:
    """Every option's value; the defaults for those that are not given."""
    found = {name: one["default"] for name, one in OPTIONS.items() if "default" in one}
    off = {one["off"]: name for name, one in OPTIONS.items() if one["type"] == "switch"}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in off:
            found[off[word]] = False
        elif OPTIONS[word]["type"] == "switch":
            found[word] = True
        else:
            found[word] = rest.pop(0)
    return found


def segment(options: dict[str, str | bool]) -> None:
    tomogram, model = Path(str(options["--tomogram-path"])), Path(str(options["--ckpt-path"]))
    if not model.is_file():
        raise FileNotFoundError(model)
    if int(options["--sliding-window-size"]) % 32:
        raise OSError("Sliding window size must be multiple of 32°!")
    if int(options["--sliding-window-size"]) == 32:
        raise ValueError("Expected more than 1 spatial element when training")
    if is_to_fail(tomogram.as_posix()):
        raise RuntimeError("CUDA out of memory.")
    with mrcfile.open(tomogram, permissive=True) as volume:
        density = volume.data.astype(np.float32)
        voxel = volume.voxel_size.copy()
    smooth = ndimage.gaussian_filter(density, 1.0)
    score = (smooth.mean() - smooth) / smooth.std() - 2.0
    found: np.ndarray = score > float(options["--segmentation-threshold"])
    if options["--store-connected-components"]:
        found, count = ndimage.label(found, structure=np.ones((3, 3, 3)))
        smallest = options.get("--connected-component-thres")
        if smallest is not None:
            sizes = np.bincount(found.ravel(), minlength=count + 1)
            kept = [n for n in range(1, count + 1) if sizes[n] >= int(smallest)]
            numbers = np.zeros(count + 1, int)
            numbers[kept] = range(1, len(kept) + 1)
            found = numbers[found]
    out = Path(str(options["--out-folder"]))
    out.mkdir(parents=True, exist_ok=True)
    token = model.name.split("-val_loss")[0]
    made = {f"{tomogram.stem}_{token}_segmented.mrc": smallest_integers(found)}
    if options["--store-probabilities"]:
        made[f"{tomogram.stem}_scores.mrc"] = score.astype(np.float32)
    for name, data in made.items():
        with mrcfile.new(out / name, overwrite=True) as file:
            file.set_data(data)
            file.voxel_size = voxel


def smallest_integers(data: np.ndarray) -> np.ndarray:
    """As `convert_dtype` of membrain-seg."""
    return data.astype(np.int8 if data.max() <= 127 else np.int16)


def main(words: Sequence[str]) -> int:
    if words in (["segment"], []):
        print("Usage: membrain segment [OPTIONS]")
        return 0
    problems = check(["membrain", *words])
    if any(" needs --" in problem for problem in problems):
        print("Path to the tomogram to be segmented: Aborted.", file=sys.stderr)
        return 1
    if problems:
        print(f"Usage: membrain segment [OPTIONS]\nError: {problems[0]}", file=sys.stderr)
        return 2
    segment(parsed(words[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
