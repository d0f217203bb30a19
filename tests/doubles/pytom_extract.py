"""The double of `pytom_extract_candidates.py`: the peaks of a score map as pytom picks them.

With a diameter of less than two voxels it finds nothing, as the real one: its way to blank the
edges of the map then blanks all of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile
from doubles.failing import is_to_fail
from doubles.pytom_maps import orientations, refuse, volume
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.special import erfcinv

PROGRAM = "pytom_extract_candidates.py"
COLUMNS = (
    "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ",
    "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
    "rlnLCCmax", "rlnCutOff", "rlnSearchStd", "rlnDetectorPixelSize", "rlnMicrographName",
)  # fmt: skip
RELION5 = {
    **{f"rlnCoordinate{axis}": f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"},
    "rlnMicrographName": "rlnTomoName",
    "rlnDetectorPixelSize": "rlnTomoTiltSeriesPixelSize",
}
Options = Mapping[str, Sequence[str]]


def sharp_peaks(scores: np.ndarray, options: Options) -> np.ndarray:
    """Where a tophat transform stands out of its own noise."""
    if not 1 <= (connectivity := int(options.get("--tophat-connectivity", ("1",))[0])) <= 3:
        raise RuntimeError("structure and input must have same dimensionality")
    structure = ndimage.generate_binary_structure(3, connectivity)
    tophat = ndimage.white_tophat(scores, structure=structure)
    counts, edges = np.histogram(tophat, bins=int(options.get("--tophat-bins", ("50",))[0]))
    middles = (edges[:-1] + edges[1:]) / 2
    sigma = math.sqrt((counts * middles**2).sum() / counts.sum())
    wrong = float(options.get("--number-of-false-positives", ("1",))[0])
    found: np.ndarray = tophat > erfcinv(2 * wrong / scores.size) * math.sqrt(2) * sigma
    return found


def region(job: Mapping[str, Any], options: Options) -> np.ndarray | None:
    """Where candidates may be; None: anywhere."""
    path = options.get("--tomogram-mask", (job.get("tomogram_mask"),))[0]
    if path is None or "--ignore_tomogram_mask" in options:
        return None
    mask = volume(path)
    if list(mask.shape) != job["tomo_shape"]:
        raise ValueError("Tomogram mask does not have the same number of pixels as the tomogram.")
    inside: np.ndarray = mask[tuple(slice(*job[f"search_{axis}"]) for axis in "xyz")] > 0
    return inside


def extract(options: Options) -> int:
    """The table of candidates; one without rows where there is none."""
    for name in ("--job-file", "--tomogram-mask"):
        if name in options and not Path(options[name][0]).is_file():
            refuse(PROGRAM, f"{name} got a file path that does not exist: {options[name][0]}")
    job = json.loads(Path(options["--job-file"][0]).read_text())
    directory, stem = Path(job["output_dir"]), job["tomo_id"]
    if is_to_fail(stem):
        raise RuntimeError("DOUBLES_FAIL")
    scores = volume(directory / f"{stem}_scores.mrc")
    angles = volume(directory / f"{stem}_angles.mrc")
    listed = orientations(job["rotation_file"], job["rotational_symmetry"])
    voxel, sigma = job["voxel_size"], job["job_stats"]["std"]
    if not math.isfinite(sigma):
        raise ValueError("job stat 'std' is NaN or inf, please check your volumes")
    if "--tophat-filter" in options:
        scores *= sharp_peaks(scores, options)
    if (inside := region(job, options)) is not None:
        scores[~inside] = 0
    diameter = options.get("--particle-diameter", (job["particle_diameter"],))[0]
    if diameter is None:
        raise ValueError("You need to specify a particle diameter")
    radius = int(float(diameter) / 2 / voxel)
    for axis in range(3):
        edge = np.moveaxis(scores, axis, 0)
        edge[:radius] = edge[-radius:] = 0
    if "--cut-off" in options:
        cut = max(0.0, float(options["--cut-off"][0]))
    else:
        wrong = float(options.get("--number-of-false-positives", ("1",))[0])
        space = job["job_stats"]["search_space"]
        cut = float(erfcinv(2 * wrong / space)) * math.sqrt(2) * sigma
    rows: list[tuple[object, ...]] = []
    grid = np.indices(scores.shape)
    origin = [job[f"search_{axis}"][0] for axis in "xyz"]
    while len(rows) < int(options["--number-of-particles"][0]):
        place = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[place] <= cut:
            break
        backwards = [-angle for angle in listed[int(angles[place])]]
        turned = Rotation.from_euler("ZXZ", backwards).as_euler("ZYZ", degrees=True)
        best = float(scores[place])
        at = [int(index) + first for index, first in zip(place, origin, strict=True)]
        rows.append((*at, *turned, best, cut, sigma, voxel, stem))
        distance = sum((grid[axis] - place[axis]) ** 2 for axis in range(3))
        scores[distance <= radius**2] = 0
    table = pd.DataFrame(rows, columns=COLUMNS)
    if "--relion5-compat" in options:
        for axis, size in zip("XYZ", job["tomo_shape"], strict=True):
            table[f"rlnCoordinate{axis}"] = (table[f"rlnCoordinate{axis}"] - size / 2) * voxel
        table["rlnMicrographName"] = table["rlnMicrographName"].str.removeprefix("rec_")
        table = table.rename(columns=RELION5)
    starfile.write({"particles": table}, directory / f"{stem}_particles.star", overwrite=True)
    return 0
