"""The simulator: geometry, schedule, files as a microscope writes them, the same every time."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage as ndimage

from crboost.cpu.ctf import Optics
from crboost.cpu.example_data import make_example_data
from crboost.cpu.geometry import TiltAlignment, project
from crboost.cpu.io import read_movie
from crboost.cpu.simulate import (
    Camera,
    Exposure,
    dose_symmetric,
    expose,
    make_exposures,
    make_specimen,
)
from crboost.errors import ParameterError
from crboost.files import read_json

TINY = {"size_px": 128, "frames": 2, "tilt_range_deg": 40.0, "tilt_step_deg": 20.0}


def digest(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    # mrcfile stamps the time into the labels of the header.
    return content[:220] + content[1024:] if path.suffix == ".mrc" else content


def test_the_files_depend_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed, workers in (("one", 7, 1), ("two", 7, 2), ("other", 8, 1)):
        directory = tmp_path / name
        make_example_data(directory, seed=seed, workers=workers, series=2, **TINY)  # type: ignore[arg-type]
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    one, other = digest(tmp_path / "one"), digest(tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if not name.endswith(".mdoc"))


def test_what_is_written(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    example = make_example_data(
        tmp_path / "ex",
        workers=1,
        progress=lambda text, done, total: seen.append((done, total)),
        **TINY,  # type: ignore[arg-type]
    )
    assert [series.name for series in example.series] == ["TS_01", "TS_02", "TS_03"]
    assert seen == [(index, 14) for index in range(1, 15)]
    first, second, third = example.series
    assert (first.missing, first.dead) == (None, None)
    assert second.missing is not None and not (example.frames_directory / second.missing).exists()
    assert second.missing in second.mdoc.read_text()
    assert third.dead is not None and (example.frames_directory / third.dead).exists()
    assert {movie.suffix for movie in second.movies} == {".mrc"}
    assert {movie.suffix for movie in first.movies + third.movies} == {".tif"}
    assert first.movies[0].name == "TS_01_001_0.0.tif"
    for series in example.series:
        for path in series.movies:
            movie = read_movie(path)
            assert movie.shape == (2, 128, 128)
            electrons = movie.sum(axis=0).mean()
            assert electrons < 1 if path.name == series.dead else 20 < electrons < 50
    assert read_movie(first.movies[0]).dtype == np.uint8
    assert read_movie(second.movies[0]).dtype == np.int8
    truth = read_json(example.truth)
    assert [series["name"] for series in truth["series"]] == ["TS_01", "TS_02", "TS_03"]
    off = [tilt["movie"] for tilt in truth["series"][1]["tilts"] if not tilt["on_disk"]]
    assert off == [second.missing]
    assert not [path for path in (tmp_path / "ex").rglob(".*") if path.is_file()]


def test_mdoc_is_what_serialem_writes(tmp_path: Path) -> None:
    example = make_example_data(tmp_path, workers=1, series=1, **TINY)  # type: ignore[arg-type]
    text = example.mdocs[0].read_text(encoding="latin-1")
    assert "\nVoltage = 300\n" in text
    axis = re.search(r"^\[T = +Tilt axis angle = ([-\d.]+), binning", text, re.MULTILINE)
    assert axis is not None and float(axis[1]) == example.tilt_axis_deg
    sections = re.split(r"^\[ZValue = \d+\]$", text, flags=re.MULTILINE)[1:]
    fields = [dict(re.findall(r"^(\w+) = (.*)$", section, re.MULTILINE)) for section in sections]
    assert [float(one["TiltAngle"]) for one in fields] == [0, 20, -20, -40, 40]
    assert all(one["NumSubFrames"] == "2" and one["ExposureDose"] == "3" for one in fields)
    assert all(float(one["TargetDefocus"]) < 0 for one in fields)
    assert fields[0]["SubFramePath"] == "X:\\example\\frames\\TS_01_001_0.0.tif"
    times = [datetime.strptime(one["DateTime"], "%d-%b-%y  %H:%M:%S") for one in fields]
    assert times == sorted(times) and len(set(times)) == 5


@pytest.mark.parametrize(
    ("argument", "value"),
    [("series", 0), ("size_px", 64), ("size_px", 201), ("frames", 1), ("tilt_range_deg", 85.0)],
)
def test_bad_arguments(tmp_path: Path, argument: str, value: float) -> None:
    with pytest.raises(ParameterError, match=argument):
        make_example_data(tmp_path, **{argument: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_dose_symmetric_order() -> None:
    assert dose_symmetric(9, 3) == [0, 3, -3, -6, 6, 9, -9]
    angles = dose_symmetric(60, 3)
    assert len(angles) == 41 and sorted(angles) == [float(a) for a in range(-60, 61, 3)]
    reached = [abs(angle) for angle in angles]
    assert all(later >= max(reached[:i], default=0) - 6 for i, later in enumerate(reached))


def test_simulated_images_follow_relion_s_model() -> None:
    """In a nearly noiseless image the beads lie where `geometry.project` puts them."""
    camera = Camera(
        size_px=256,
        pixel_size_angstrom=4.0,
        frames=2,
        dose_per_tilt_e_per_a2=2000.0,
        tilt_axis_deg=85.0,
        optics=Optics(300, 2.7, 0.1),
        hand=-1,
    )
    rng = np.random.default_rng(1)
    specimen = make_specimen(rng, 256, 4.0, beads=6, thickness_angstrom=400)
    # Blobs in front of a bead would move its centre.
    specimen = replace(specimen, atoms=np.zeros((0, 3)))
    offsets: list[tuple[float, float]] = []
    for tilt_deg in (0.0, 15.0, -15.0, 42.0, -42.0, -54.0):
        exposure = Exposure(0, tilt_deg, (7.3, -4.6), np.zeros((2, 2)), 25000, 25000, 0)
        image = expose(rng, specimen, exposure, camera).sum(axis=0).astype(float)
        alignment = TiltAlignment(0, tilt_deg, 85.0, 7.3 * 4, -4.6 * 4)
        beads = project(specimen.beads, alignment, 4.0)[:, :2] + 128
        others = project(specimen.outer_beads, alignment, 4.0)[:, :2] + 128
        dark = ndimage.gaussian_filter(image.mean() - image, 3)
        errors = []
        for index, (x, y) in enumerate(beads):
            rest = np.vstack([np.delete(beads, index, axis=0), others])
            near = np.hypot(*(rest - (x, y)).T).min()
            if not (min(x, y) > 20 and max(x, y) < 236 and near > 40):
                continue
            row, column = round(y), round(x)
            window = dark[row - 16 : row + 17, column - 16 : column + 17]
            weight = np.clip(window - 0.5 * window.max(), 0, None)
            grid = np.indices(weight.shape) - 16
            found = (grid * weight).sum(axis=(1, 2)) / weight.sum()
            errors.append((column + found[1] - x, row + found[0] - y))
        offsets += errors
    assert len(offsets) >= 9
    assert np.hypot(*np.mean(offsets, axis=0)) < 0.1
    assert np.hypot(*np.array(offsets).T).max() < 0.3


def test_exposures_start_small_and_stay_in_bounds() -> None:
    exposures = make_exposures(
        np.random.default_rng(1),
        dose_symmetric(60, 3),
        5,
        defocus_um=3.0,
        shift_sigma_px=10.0,
        drift_sigma_px=1.0,
        dead_tilt_deg=-36.0,
    )
    assert [exposure.dead for exposure in exposures].count(True) == 1
    shifts = np.array([exposure.shift_xy_px for exposure in exposures])
    assert np.abs(shifts).max() <= 25 and shifts.std() > 5
    assert all(exposure.drift_xy_px[0].tolist() == [0, 0] for exposure in exposures)
    assert np.std([exposure.defocus_angstrom for exposure in exposures]) < 1000
