"""The whole chain on example data, against its truth and through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crboost.cpu.accuracy import (
    Accuracy,
    alignment_of,
    measure,
    run_chain,
    shift_errors,
    true_alignment,
)
from crboost.cpu.example_data import ExampleData, make_example_data
from crboost.cpu.geometry import TiltAlignment, project, projection_matrix
from crboost.cpu.io import read_mrc, write_mrc
from crboost.files import read_json, write_json

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ExampleData:
    directory = tmp_path_factory.mktemp("cpu_example")
    return make_example_data(directory, size_px=256, frames=3, tilt_step_deg=6)


@pytest.fixture(scope="module")
def truths(example: ExampleData) -> list[dict[str, Any]]:
    series: list[dict[str, Any]] = read_json(example.truth)["series"]
    return series


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def results(
    example: ExampleData,
    truths: list[dict[str, Any]],
    lines: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    directory = tmp_path_factory.mktemp("cpu_chain")
    return [run_chain(example, truth, directory, report=lines.append) for truth in truths]


@pytest.fixture(scope="module")
def accuracies(truths: list[dict[str, Any]], results: list[Path]) -> list[Accuracy]:
    return [measure(truth, where) for truth, where in zip(truths, results, strict=True)]


def test_drift(accuracies: list[Accuracy]) -> None:
    assert max(one.drift_rms_px for one in accuracies) < 0.15


def test_defocus(accuracies: list[Accuracy]) -> None:
    assert max(one.defocus_median_percent for one in accuracies) < 1
    assert max(one.defocus_max_percent for one in accuracies) < 5


def test_tilt_axis(accuracies: list[Accuracy]) -> None:
    assert max(abs(one.axis_deg) for one in accuracies) < 0.2


def test_shifts(accuracies: list[Accuracy]) -> None:
    assert max(one.shift_rms_px for one in accuracies) < 0.4
    assert max(one.shift_max_px for one in accuracies) < 1.0


def test_beads_in_the_tomogram(accuracies: list[Accuracy]) -> None:
    for one in accuracies:
        assert one.beads_found == one.beads == 8
        assert one.bead_rms_angstrom < 3


def test_upside_down_the_beads_are_not_there(accuracies: list[Accuracy]) -> None:
    """The test of the hand: only beads near the middle of the slab may survive a flip of z."""
    for one in accuracies:
        assert one.flipped_found <= one.beads // 2
        assert one.flipped_contrast_sigma < 0.6 * one.bead_contrast_sigma


def test_relion_s_matrix_from_the_written_columns_finds_the_beads(
    truths: list[dict[str, Any]], results: list[Path]
) -> None:
    """True bead positions, projected as RELION would from our columns, against the simulator's."""
    for truth, where in zip(truths, results, strict=True):
        pixel = truth["pixel_size_angstrom"]
        tilts = {tilt["name"]: tilt for tilt in truth["tilts"]}
        aligned = [
            tilt
            for tilt in read_json(where / "align" / "result.json")["tilts"]
            if tilt["status"] == "aligned"
        ]
        found = [alignment_of(tilt) for tilt in aligned]
        actual = [true_alignment(tilts[tilt["name"]], truth) for tilt in aligned]
        translation = shift_errors(found, actual, pixel)[1]
        beads = np.array(truth["beads_xyz_px"])
        size, image = (300, 256, 180), (truth["size_px"],) * 2
        voxels = np.c_[beads + translation + [size[0] // 2, size[1] // 2, size[2] // 2], np.ones(8)]
        errors = []
        for one, other in zip(found, actual, strict=True):
            matrix = projection_matrix(one, pixel, size, image)
            pixels = (voxels @ matrix.T)[:, :2] - truth["size_px"] // 2
            errors.append(pixels - project(beads, other, pixel)[:, :2])
        # All beads together: what is left is the measured shifts' noise, no systematic turn.
        assert np.abs(np.mean(errors, axis=(0, 1))).max() < 0.1
        assert np.sqrt((np.array(errors) ** 2).sum(axis=-1).mean()) < 0.5


def test_wrong_conventions_would_be_noticed(
    truths: list[dict[str, Any]], results: list[Path]
) -> None:
    """Each sign that could be wrong makes an error far beyond the tolerance above."""
    truth, where = truths[0], results[0]
    pixel = truth["pixel_size_angstrom"]
    tilts = {tilt["name"]: tilt for tilt in truth["tilts"]}
    aligned = read_json(where / "align" / "result.json")["tilts"]
    found = [alignment_of(tilt) for tilt in aligned]
    actual = [true_alignment(tilts[tilt["name"]], truth) for tilt in aligned]
    for wrong in (
        [
            TiltAlignment(0, a.y_tilt_deg, a.z_rot_deg, -a.x_shift_angstrom, -a.y_shift_angstrom)
            for a in found
        ],
        [
            TiltAlignment(0, a.y_tilt_deg, a.z_rot_deg, a.y_shift_angstrom, a.x_shift_angstrom)
            for a in found
        ],
    ):
        errors = shift_errors(wrong, actual, pixel)[0]
        assert np.sqrt((errors**2).sum(axis=1).mean()) > 3
    beads = np.array(truth["beads_xyz_px"])
    tilted = next(a for a in actual if a.y_tilt_deg == 60)
    right = project(beads, tilted, pixel)[:, :2]
    for wrong_one in (
        TiltAlignment(0, -60, tilted.z_rot_deg, tilted.x_shift_angstrom, tilted.y_shift_angstrom),
        TiltAlignment(0, 60, -tilted.z_rot_deg, tilted.x_shift_angstrom, tilted.y_shift_angstrom),
    ):
        seen = project(beads, wrong_one, pixel)[:, :2]
        offsets = (seen - seen.mean(axis=0)) - (right - right.mean(axis=0))
        assert np.hypot(*offsets.T).mean() > 10


def test_the_missing_movie_fails_its_tilt_and_nothing_else(
    example: ExampleData, results: list[Path], lines: list[str]
) -> None:
    result = read_json(results[1] / "frames" / "result.json")
    failed = [tilt for tilt in result["tilts"] if tilt["status"] == "failed"]
    missing = example.series[1].missing
    assert missing is not None
    assert [tilt["name"] for tilt in failed] == [Path(missing).stem]
    assert missing in failed[0]["reason"] and "missing" in failed[0]["reason"]
    assert failed[0]["average"] is None
    assert sum(missing in line for line in lines) == 1
    assert len(read_json(results[1] / "align" / "result.json")["tilts"]) == 20


def test_the_dead_tilt_is_excluded_with_numbers(
    example: ExampleData, results: list[Path], lines: list[str]
) -> None:
    dead = example.series[2].dead
    assert dead is not None
    name = Path(dead).stem
    frames = {
        tilt["name"]: tilt for tilt in read_json(results[2] / "frames" / "result.json")["tilts"]
    }
    assert frames[name]["mean_counts_per_px"] < 1
    entries = read_json(results[2] / "align" / "result.json")["tilts"]
    excluded = [tilt for tilt in entries if tilt["status"] == "excluded"]
    assert [tilt["name"] for tilt in excluded] == [name]
    assert "dark: mean intensity 0.0" in excluded[0]["reason"]
    assert "dark_threshold 30 %" in excluded[0]["reason"]
    assert excluded[0]["y_tilt_deg"] is None
    assert any(name in line and "excluded" in line for line in lines)


def test_frames_writes_what_the_contract_says(results: list[Path]) -> None:
    result = read_json(results[0] / "frames" / "result.json")
    assert result["tilt_series"] == "TS_01"
    assert {"crboost", "numpy", "python"} <= result["versions"].keys()
    assert [tilt["name"] for tilt in result["tilts"]][:2] == ["TS_01_020_-60.0", "TS_01_019_-54.0"]
    tilt = result["tilts"][0]
    assert tilt["frame_count"] == 3 and len(tilt["shifts_px"]) == 3
    total = tilt["motion_early_angstrom"] + tilt["motion_late_angstrom"]
    assert tilt["motion_total_angstrom"] == pytest.approx(total, abs=0.01)
    assert tilt["defocus_u_angstrom"] - tilt["defocus_v_angstrom"] == pytest.approx(
        tilt["astigmatism_angstrom"], abs=0.02
    )
    curve = tilt["ctf_curve"]
    assert len(curve["frequency_per_angstrom"]) == len(curve["power"]) == len(curve["fit"]) > 20
    images = {}
    for key in ("average", "even", "odd", "power_spectrum"):
        images[key], pixel = read_mrc(results[0] / "frames" / tilt[key])
        assert pixel == pytest.approx(4.0)
    halves = images["even"].astype(float) + images["odd"]
    assert halves == pytest.approx(images["average"].astype(float), abs=0.1)
    assert images["average"].mean() == pytest.approx(tilt["mean_counts_per_px"], rel=1e-3)


def run_tool(
    command: str, spec: dict[str, Any], directory: Path
) -> subprocess.CompletedProcess[str]:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "spec.json", spec)
    return subprocess.run(
        [
            *(sys.executable, "-m", "crboost.cpu", command, "--workers", "2"),
            *("--spec", str(directory / "spec.json"), "--out", str(directory / "out")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=120,
        check=False,
    )


def test_command_line_reports_each_tilt_and_writes_the_result_last(
    results: list[Path], tmp_path: Path
) -> None:
    spec = json.loads((results[0] / "frames.json").read_text())
    spec["tilts"] = spec["tilts"][8:12]
    done = run_tool("frames", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == 4
    assert printed[3].startswith("TS_01 tilt 4/4 ")
    assert "deg: motion " in printed[0] and " um, CTF fit " in printed[0]
    result = read_json(tmp_path / "out" / "result.json")
    assert [tilt["status"] for tilt in result["tilts"]] == ["done"] * 4
    newest = max((tmp_path / "out").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "result.json"


@pytest.mark.parametrize(
    ("command", "change", "message"),
    [
        ("frames", {"pixel_size_angstrom": -1}, "'pixel_size_angstrom' is -1, must be above 0"),
        ("frames", {"gain_reference": "no/gain.mrc"}, "no/gain.mrc: the gain reference is missing"),
        ("frames", {"ctf_defocus_um": [8, 1]}, "'ctf_defocus_um' is [8, 1]"),
        ("align", {"tilts": []}, "'tilts' is [], must be a list that is not empty"),
        ("align", {"method": "magic"}, "must be one of auto, coarse, beads"),
        ("reconstruct", {"tomogram_size_px": [10, 10]}, "must be a list of 3 numbers"),
    ],
)
def test_bad_specs_exit_2_and_say_why(
    results: list[Path], tmp_path: Path, command: str, change: dict[str, Any], message: str
) -> None:
    spec = json.loads((results[0] / f"{command}.json").read_text())
    done = run_tool(command, spec | change, tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out" / "result.json").exists()


def test_halves_and_sizes_of_a_reconstruction(results: list[Path], tmp_path: Path) -> None:
    spec = json.loads((results[0] / "reconstruct.json").read_text())
    for tilt in spec["tilts"]:
        tilt["even"] = tilt["image"].replace(".mrc", "_EVN.mrc")
        tilt["odd"] = tilt["image"].replace(".mrc", "_ODD.mrc")
    size = [250, 200, 120]
    spec |= {"halves": True, "tomogram_size_px": size, "tomogram_pixel_size_angstrom": 10.0}
    done = run_tool("reconstruct", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "out" / "result.json")
    assert result["size_px"] == size
    assert result["binning"] == 2.5 and result["tomogram_pixel_size_angstrom"] == 10.0
    volumes = {}
    for key in ("tomogram", "half1", "half2"):
        volumes[key], pixel = read_mrc(tmp_path / "out" / result[key])
        assert pixel == pytest.approx(10.0)
        assert volumes[key].shape == (48, 80, 100)
    inside = np.s_[:, 8:-8, 8:-8]
    halves = np.corrcoef(volumes["half1"][inside].ravel(), volumes["half2"][inside].ravel())
    assert 0.3 < halves[0, 1] < 0.99


def test_coarse_method_says_nothing_of_beads_and_auto_says_that_there_are_none(
    results: list[Path], tmp_path: Path
) -> None:
    spec = json.loads((results[0] / "align.json").read_text())
    coarse = run_tool("align", spec | {"method": "coarse"}, tmp_path / "coarse")
    assert coarse.returncode == 0, coarse.stderr
    result = read_json(tmp_path / "coarse" / "out" / "result.json")
    assert (result["method"], result["beads"], result["residual_px"]) == ("coarse", 0, None)
    assert result["note"] is None
    # Beads of a size that is not there.
    spec["fiducial_diameter_nm"] = 60
    auto = run_tool("align", spec, tmp_path / "auto")
    assert auto.returncode == 0, auto.stderr
    result = read_json(tmp_path / "auto" / "out" / "result.json")
    assert result["method"] == "coarse"
    assert "kept the coarse alignment" in result["note"]
    demanded = run_tool("align", spec | {"method": "beads"}, tmp_path / "beads")
    assert demanded.returncode == 2
    assert "fewer than three beads" in demanded.stderr


def test_images_that_cannot_be_used_are_excluded(results: list[Path], tmp_path: Path) -> None:
    spec = json.loads((results[0] / "align.json").read_text())
    flat, small, gone = tmp_path / "flat.mrc", tmp_path / "small.mrc", tmp_path / "gone.mrc"
    write_mrc(flat, np.full((256, 256), 30, np.float32), 4.0)
    write_mrc(small, np.random.default_rng(1).normal(30, 5, (128, 128)), 4.0)
    for index, path in ((2, flat), (5, small), (9, gone)):
        spec["tilts"][index]["image"] = str(path)
    done = run_tool("align", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    entries = read_json(tmp_path / "out" / "result.json")["tilts"]
    reasons = {index: tilt["reason"] for index, tilt in enumerate(entries) if tilt["reason"]}
    assert reasons.keys() == {2, 5, 9}
    assert "no contrast" in reasons[2]
    assert "128 x 128 px, the rest of the series 256 x 256" in reasons[5]
    assert "gone.mrc: the file is missing" in reasons[9]


def test_a_series_without_usable_images_is_bad_input(results: list[Path], tmp_path: Path) -> None:
    spec = json.loads((results[0] / "align.json").read_text())
    for tilt in spec["tilts"]:
        tilt["image"] = "nowhere.mrc"
    done = run_tool("align", spec, tmp_path)
    assert done.returncode == 2
    assert "0 of 21 images of TS_01 can be used" in done.stderr
    assert "nowhere.mrc" in done.stderr
