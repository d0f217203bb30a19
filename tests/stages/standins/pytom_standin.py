#!/usr/bin/env python3
"""Stand-ins for pytom-match-pick's two programs: its options and files, a small real search.

Installed as `pytom_match_template.py` and `pytom_extract_candidates.py`. Orientations, rotation
and the order of axes are pytom's: volumes are [x, y, z], and the orientation (z1, x, z2) takes a
point t of the template to Rz(z2) Rx(x) Rz(z1) t.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation


def orientations(search: str, order: int) -> np.ndarray:
    """The list that both programs must agree on, from the float or the file that was given."""
    if search.endswith(".txt"):
        lines = Path(search).read_text().splitlines()
        listed = np.array(sorted(tuple(map(float, line.split())) for line in lines))
    else:
        step = math.radians(float(search))
        turns = np.arange(0, 2 * math.pi - 1e-6, step)
        tilts = np.arange(step / 2, math.pi, step)
        listed = np.array([(a, b, c) for a in turns for b in tilts for c in turns])
    return listed[listed[:, 0] < 2 * math.pi / order]


def volume(path: str) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as opened:
        return np.asarray(opened.data, np.float32).T


def save(path: Path, data: np.ndarray, voxel: float) -> None:
    with mrcfile.new(path, overwrite=True) as made:
        made.set_data(np.ascontiguousarray(data.T.astype(np.float32)))
        made.voxel_size = voxel


def match(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("template", "mask", "tomogram", "destination"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--voxel-size-angstrom", type=float)
    parser.add_argument("--tilt-angles", nargs="+", required=True)
    parser.add_argument("--per-tilt-weighting", action="store_true")
    for name in ("defocus", "dose-accumulation", "angular-search"):
        parser.add_argument(f"--{name}")
    for name in ("voltage", "spherical-aberration", "amplitude-contrast"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--z-axis-rotational-symmetry", type=int, default=1)
    parser.add_argument("--volume-split", nargs=3, type=int)
    parser.add_argument("--gpu-ids", nargs="+", type=int, required=True)
    given = parser.parse_args(words)
    lengths = {
        len(Path(path).read_text().split())
        for path in (given.tilt_angles[0], given.defocus, given.dose_accumulation)
        if path
    }
    if len(lengths) != 1:
        sys.exit("the lists of tilt angles, defocus and dose differ in length")
    tomogram, template, mask = (volume(getattr(given, n)) for n in ("tomogram", "template", "mask"))
    listed = orientations(given.angular_search, given.z_axis_rotational_symmetry)
    tomogram = (tomogram - tomogram.mean()) / tomogram.std()
    spectrum = np.fft.rfftn(tomogram)
    scores = np.full(tomogram.shape, -1.0, np.float32)
    angles = np.zeros(tomogram.shape, np.float32)
    centre = (np.array(template.shape) - 1) / 2
    for number, (z1, x, z2) in enumerate(listed):
        turn = Rotation.from_euler("zxz", (z1, x, z2)).as_matrix()
        turned = affine_transform(template, turn.T, centre - turn.T @ centre, order=1)
        turned = np.where(mask > 0.5, turned - turned[mask > 0.5].mean(), 0)
        padded = np.zeros(tomogram.shape, np.float32)
        padded[tuple(slice(0, size) for size in turned.shape)] = turned / np.linalg.norm(turned)
        padded = np.roll(padded, [-(size // 2) for size in turned.shape], (0, 1, 2))
        found = np.fft.irfftn(spectrum * np.conj(np.fft.rfftn(padded)), tomogram.shape)
        found /= math.sqrt((mask > 0.5).sum()) * 3
        better = found > scores
        scores[better], angles[better] = found[better], number
    stem, directory = Path(given.tomogram).stem, Path(given.destination)
    save(directory / f"{stem}_scores.mrc", scores, given.voxel_size_angstrom)
    save(directory / f"{stem}_angles.mrc", angles, given.voxel_size_angstrom)
    record = {
        "tomogram": given.tomogram,
        "output_dir": str(directory.absolute()),
        "tomo_id": stem,
        "voxel_size": given.voxel_size_angstrom,
        "rotation_file": given.angular_search,
        "rotational_symmetry": given.z_axis_rotational_symmetry,
        "search_x": [0, tomogram.shape[0]],
        "job_stats": {"std": float(scores.std()), "search_space": scores.size * len(listed)},
        "pytom_tm_version_number": "0.10.0",
    }
    (directory / f"{stem}_job.json").write_text(json.dumps(record))


def extract(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job-file", required=True)
    parser.add_argument("--number-of-particles", type=int, required=True)
    parser.add_argument("--particle-diameter", type=float)
    parser.add_argument("--cut-off", type=float)
    parser.add_argument("--number-of-false-positives", type=float, default=1.0)
    given = parser.parse_args(words)
    job = json.loads(Path(given.job_file).read_text())
    directory, stem = Path(job["output_dir"]), Path(job["tomogram"]).stem
    scores = volume(str(directory / f"{stem}_scores.mrc")).copy()
    angles = volume(str(directory / f"{stem}_angles.mrc"))
    listed = orientations(job["rotation_file"], job["rotational_symmetry"])
    radius = int(given.particle_diameter / 2 / job["voxel_size"])
    for axis in range(3):
        edge = np.moveaxis(scores, axis, 0)
        edge[:radius] = edge[-radius:] = 0
    sigma = job["job_stats"]["std"]
    cut = given.cut_off if given.cut_off is not None else 5 * sigma
    grid = np.indices(scores.shape)
    rows = []
    while len(rows) < given.number_of_particles:
        place = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[place] <= cut:
            break
        backwards = [-angle for angle in listed[int(angles[place])]]
        turned = Rotation.from_euler("ZXZ", backwards).as_euler("ZYZ", degrees=True)
        best = float(scores[place])
        rows.append((*place, *turned, best, cut, sigma, job["voxel_size"], stem))
        distance = sum((grid[axis] - place[axis]) ** 2 for axis in range(3))
        scores[distance <= radius**2] = 0
    names = (
        "CoordinateX CoordinateY CoordinateZ AngleRot AngleTilt AnglePsi LCCmax CutOff SearchStd"
    )
    columns = [f"rln{name}" for name in f"{names} DetectorPixelSize MicrographName".split()]
    table = pd.DataFrame(rows, columns=columns)
    starfile.write({"particles": table}, directory / f"{stem}_particles.star", overwrite=True)


if __name__ == "__main__":
    {"pytom_match_template.py": match, "pytom_extract_candidates.py": extract}[
        Path(sys.argv[0]).name
    ](sys.argv[1:])
