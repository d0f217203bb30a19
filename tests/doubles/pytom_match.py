"""The double of `pytom_match_template.py`: a real search, without the missing wedge and the CTF."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import starfile
from doubles.failing import is_to_fail
from doubles.pytom_maps import gpus, orientations, refuse, save, volume, voxel_size_angstrom
from scipy import fft
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from crboost.translate.warp_tilt_series import read_warp_tilt_series

PROGRAM = "pytom_match_template.py"
VERSION = "0.10.0"
Options = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class TiltSeries:
    """What the search is told of the tilt images.

    Attributes:
        angles_deg: two are the ends of a range, unless `is_each`.
        voxel_angstrom: of the tomogram; None: ask its header.
    """

    angles_deg: Sequence[float]
    is_each: bool
    voxel_angstrom: float | None


def one(options: Options, name: str, default: str | None = None) -> str | None:
    return options[name][0] if name in options else default


def numbers(path: str) -> list[float]:
    return [float(word) for word in Path(path).read_text().split()]


def tilt_series(options: Options, tomogram: Path) -> TiltSeries:
    """From RELION's table, Warp's XML, or the tilt angles given; the first that there is."""
    voxel = one(options, "--voxel-size-angstrom")
    star = one(options, "--relion5-tomograms-star")
    if star is not None:
        table = starfile.read(star, always_dict=True)["global"]
        rows = [row for _, row in table.iterrows() if str(row["rlnTomoName"]) in tomogram.stem]
        if not rows:
            raise ValueError(f"{star} has no tomogram of the name {tomogram.stem}")
        tilts = starfile.read(rows[0]["rlnTomoTiltSeriesStarFile"])
        size = rows[0]["rlnTomoTiltSeriesPixelSize"] * rows[0]["rlnTomoTomogramBinning"]
        return TiltSeries(list(tilts["rlnTomoYTilt"]), True, float(size))
    xml = one(options, "--warp-xml-file")
    if xml is not None:
        return TiltSeries([t.angle_deg for t in read_warp_tilt_series(Path(xml)).used], True, None)
    given = options.get("--tilt-angles", ())
    columns = options.get("--tilt-angles-first-column", ())
    if given and columns:
        raise ValueError("Only one of '--tilt-angles' or '--tilt-angles-first-column' is allowed")
    size = None if voxel is None else float(voxel)
    if len(given) == 2:
        return TiltSeries(sorted(float(word) for word in given), False, size)
    if len(given) > 2:
        refuse(PROGRAM, "--tilt-angles can only take one or two arguments")
    if not given and not columns:
        raise ValueError("Without tilt angles the missing wedge cannot be calculated.")
    file = Path((*given, *columns)[0])
    if not file.is_file() or file.suffix not in (".tlt", ".rawtlt"):
        refuse(PROGRAM, "provided tilt angle file does not exist or is not of the right format")
    lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
    if given and any(len(line) > 1 for line in lines):
        refuse(PROGRAM, "provided tilt angle file has more than one column")
    return TiltSeries([float(line[0]) for line in lines], True, size)


def check_lists(options: Options, tilts: TiltSeries) -> None:
    """One defocus and one dose for each tilt image, and all that a CTF needs."""
    optics = ("--amplitude-contrast", "--spherical-aberration", "--voltage")
    defocus = one(options, "--defocus")
    lists = []
    if defocus is not None:
        if any(name not in options for name in optics):
            raise ValueError("Cannot create 3D CTF weighting because parameters are missing.")
        if defocus.endswith((".txt", ".defocus")):
            lists.append(numbers(defocus))
        else:
            float(defocus)
    dose = one(options, "--dose-accumulation")
    if dose is not None:
        if not dose.endswith(".txt"):
            refuse(PROGRAM, "provided dose accumulation file does not have the right suffix")
        lists.append(numbers(dose))
    if any(len(each) != len(tilts.angles_deg) for each in lists):
        raise ValueError("the lists of tilt angles, defocus and dose differ in length")
    if "--per-tilt-weighting" in options and not tilts.is_each:
        raise ValueError("per-tilt weighting needs every tilt angle")
    if not 0 <= float(one(options, "--amplitude-contrast", "0") or 0) <= 1:
        refuse(PROGRAM, "--amplitude-contrast is a fraction and can only range between 0 and 1")


def angular_search(options: Options, voxel: float) -> str:
    """The step or file; from the particle's diameter by Crowther's criterion if there is none."""
    given = one(options, "--angular-search")
    if given is not None:
        return given
    diameter = one(options, "--particle-diameter")
    if diameter is None:
        raise ValueError("Either the angular search or a particle diameter should be provided")
    finest = max(2 * voxel, float(one(options, "--low-pass", "0") or 0))
    return f"{math.degrees(finest / float(diameter)):.6f}"


def filters(options: Options, tomogram: np.ndarray, voxel: float) -> np.ndarray | None:
    """Weights of the spectrum for band-pass and whitening; None: there is nothing to filter."""
    low, high = one(options, "--low-pass"), one(options, "--high-pass")
    if low is None and high is None and "--spectral-whitening" not in options:
        return None
    axes = [fft.fftfreq(n, voxel) for n in tomogram.shape[:2]]
    axes.append(fft.rfftfreq(tomogram.shape[2], voxel))
    frequency = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    weights = np.ones_like(frequency)
    if low is not None:
        weights *= np.exp(-((frequency * float(low)) ** 2) / 2)
    if high is not None:
        weights *= 1 - np.exp(-((frequency * float(high)) ** 2) / 2)
    if "--spectral-whitening" in options:
        shells = np.rint(frequency * voxel * max(tomogram.shape)).astype(int)
        power = np.abs(fft.rfftn(tomogram)) ** 2
        mean = np.bincount(shells.ravel(), power.ravel()) / np.bincount(shells.ravel())
        weights /= np.sqrt(np.maximum(mean, 1e-12))[shells]
        weights /= weights.max()
    return weights


def randomized(template: np.ndarray, seed: int) -> np.ndarray:
    """The template's amplitudes with the phases of noise."""
    noise = np.random.default_rng(seed).normal(size=template.shape)
    phases = np.exp(1j * np.angle(fft.rfftn(noise)))
    made: np.ndarray = fft.irfftn(np.abs(fft.rfftn(template)) * phases, template.shape)
    return made


@dataclass(frozen=True)
class Search:
    """A tomogram, ready to be searched."""

    tomogram: np.ndarray
    mask: np.ndarray
    weights: np.ndarray | None
    turns_mask: bool

    def scores(self, template: np.ndarray, listed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(best score, number of its orientation) of every voxel."""
        shape = self.tomogram.shape
        spectrum = fft.rfftn((self.tomogram - self.tomogram.mean()) / self.tomogram.std())
        if self.weights is not None:
            spectrum *= self.weights
            spectrum /= fft.irfftn(spectrum, shape).std()
        best = np.full(shape, -1.0, np.float32)
        numbers_ = np.zeros(shape, np.float32)
        for number, orientation in enumerate(listed):
            turned, inside = self._turned(template, orientation)
            padded = np.zeros(shape, np.float32)
            padded[tuple(slice(0, size) for size in turned.shape)] = turned
            padded = np.roll(padded, [-(size // 2) for size in turned.shape], (0, 1, 2))
            wanted = fft.rfftn(padded / np.linalg.norm(padded))
            if self.weights is not None:
                wanted *= self.weights
                wanted /= np.linalg.norm(fft.irfftn(wanted, shape))
            found = fft.irfftn(spectrum * np.conj(wanted), shape)
            found /= math.sqrt(inside.sum()) * 3
            better = found > best
            best[better], numbers_[better] = found[better], number
        return best, numbers_

    def _turned(
        self, template: np.ndarray, orientation: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(the template in an orientation, without its mean in the mask; the mask)."""
        turn = Rotation.from_euler("zxz", orientation).as_matrix()
        centre = (np.array(template.shape) - 1) / 2
        shift = centre - turn.T @ centre
        turned = affine_transform(template, turn.T, shift, order=1)
        mask = affine_transform(self.mask, turn.T, shift, order=1) if self.turns_mask else self.mask
        inside = mask > 0.5
        return np.where(inside, turned - turned[inside].mean(), 0), inside


def ranges(options: Options, shape: Sequence[int]) -> list[list[int]]:
    """Where to search, [first, end) in x, y and z."""
    found = []
    for axis, size in zip("xyz", shape, strict=True):
        first, end = (int(word) for word in options.get(f"--search-{axis}", ("0", str(size))))
        if not 0 <= first < end:
            refuse(PROGRAM, f"--search-{axis}: the end must be larger than the start")
        found.append([first, min(end, size)])
    return found


def parts(sizes: Sequence[int], split: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The pieces in which the GPU would see the search range."""
    edges = [[size * i // n for i in range(n + 1)] for size, n in zip(sizes, split, strict=True)]
    yield from itertools.product(*(list(map(slice, axis[:-1], axis[1:])) for axis in edges))


def match(options: Options) -> int:
    """Score and angle map and the record of the search, beside each other."""
    for name in ("--template", "--mask", "--tomogram", "--tomogram-mask"):
        path = one(options, name)
        if path is not None and not Path(path).is_file():
            refuse(PROGRAM, f"{name} got a file path that does not exist: {path}")
    tomogram_file, directory = (
        Path(options["--tomogram"][0]),
        Path(one(options, "--destination", "./") or "."),
    )
    if not directory.is_dir():
        refuse(PROGRAM, "--destination got a directory path that does not exist")
    there = gpus()
    if there is not None and any(not 0 <= int(word) < there for word in options["--gpu-ids"]):
        refuse(PROGRAM, f"--gpu-ids all gpu indices should be between 0 and {there - 1}")
    split = [int(word) for word in options.get("--volume-split", ("1", "1", "1"))]
    if min(split) < 1:
        raise ValueError("volume split must be at least 1 in every direction")
    tilts = tilt_series(options, tomogram_file)
    check_lists(options, tilts)
    if is_to_fail(tomogram_file.as_posix()):
        raise RuntimeError("One or more of the processes stopped unexpectedly.")

    voxel = tilts.voxel_angstrom or voxel_size_angstrom(tomogram_file)
    tomogram, template, mask = (
        volume(options[name][0]) for name in ("--tomogram", "--template", "--mask")
    )
    if template.shape != mask.shape:
        raise ValueError("template and mask differ in size")
    listed = orientations(
        search := angular_search(options, voxel),
        order := int(one(options, "--z-axis-rotational-symmetry", "1") or 1),
    )
    at_work = Search(
        tomogram, mask, filters(options, tomogram, voxel), "--non-spherical-mask" in options
    )
    scores, angles = at_work.scores(template, listed)
    if "--random-phase-correction" in options:
        seed = int(one(options, "--rng-seed", "1") or 1)
        noise, _ = at_work.scores(randomized(template, seed), listed)
        scores = scores - noise + noise.mean()
    where = ranges(options, tomogram.shape)
    inside = tuple(slice(first, end) for first, end in where)
    scores, angles = scores[inside], angles[inside]
    tomogram_mask = one(options, "--tomogram-mask")
    if tomogram_mask is not None:
        wanted = volume(tomogram_mask)[inside]
        for part in parts(scores.shape, split):
            if (wanted[part] <= 0).all():
                scores[part] = angles[part] = 0
    stem, half = tomogram_file.stem, "--half-precision" in options
    save(directory / f"{stem}_scores.mrc", scores, voxel, half=half)
    save(directory / f"{stem}_angles.mrc", angles, voxel)
    diameter = one(options, "--particle-diameter")
    record = {
        "tomogram": str(tomogram_file),
        "template": options["--template"][0],
        "mask": options["--mask"][0],
        "output_dir": str(directory.absolute()),
        "tomo_id": stem,
        "tomo_shape": list(tomogram.shape),
        "voxel_size": voxel,
        "rotation_file": search,
        "rotational_symmetry": order,
        "tomogram_mask": tomogram_mask,
        "particle_diameter": None if diameter is None else float(diameter),
        **{f"search_{axis}": limits for axis, limits in zip("xyz", where, strict=True)},
        "job_stats": {
            "std": float(scores.std()),
            "variance": float(scores.var()),
            "search_space": scores.size * len(listed),
        },
        "pytom_tm_version_number": VERSION,
    }
    (directory / f"{stem}_job.json").write_text(json.dumps(record))
    return 0
