"""How well the CPU tools do on example data, against its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndimage

from crboost.cpu.arrays import Floats
from crboost.cpu.commands import Report, run_align, run_frames, run_reconstruct
from crboost.cpu.example_data import ExampleData
from crboost.cpu.geometry import TiltAlignment, specimen_rotation
from crboost.cpu.io import read_mrc
from crboost.files import read_json, write_json

#: A bead counts as found where the tomogram is darker than this many of its standard deviations.
FOUND_SIGMA = 10.0


@dataclass(frozen=True)
class Accuracy:
    """Errors of one tilt series.

    Attributes:
        drift_rms_px: frame positions, each movie's mean removed.
        defocus_median_percent, defocus_max_percent: of the mean defocus.
        axis_deg: angle of the tilt axis, signed.
        shift_rms_px, shift_max_px: of the tilts' shifts, after one translation of the specimen.
        beads_found, beads: in the tomogram, of those in the untilted field of view.
        bead_rms_angstrom: of their positions, after one translation.
        flipped_found: the same as `beads_found` with z upside down; only beads near the middle of
            the slab may be left, or the hand is wrong.
        bead_contrast_sigma, flipped_contrast_sigma: mean darkness at the beads' places, in
            standard deviations of the tomogram; the same with z upside down.
    """

    tilt_series: str
    drift_rms_px: float
    defocus_median_percent: float
    defocus_max_percent: float
    axis_deg: float
    shift_rms_px: float
    shift_max_px: float
    beads_found: int
    beads: int
    flipped_found: int
    bead_rms_angstrom: float
    bead_contrast_sigma: float
    flipped_contrast_sigma: float


def run_chain(
    example: ExampleData,
    truth: dict[str, Any],
    directory: Path,
    *,
    workers: int = 2,
    alignment_pixel_size_angstrom: float | None = None,
    tomogram_pixel_size_angstrom: float | None = None,
    report: Report = lambda line: None,
) -> Path:
    """Run frames, align and reconstruct on one series; `truth` is its entry in truth.json.

    Returns:
        the directory with `frames/`, `align/` and `reconstruct/`.
    """
    pixel = example.pixel_size_angstrom
    name: str = truth["name"]
    where: Path = directory / name
    tilts = sorted(truth["tilts"], key=lambda tilt: float(tilt["tilt_angle_deg"]))
    common = {"tilt_series": name, "pixel_size_angstrom": pixel}
    frames_spec = {
        **common,
        "voltage_kv": example.voltage_kv,
        "spherical_aberration_mm": example.spherical_aberration_mm,
        "amplitude_contrast": example.amplitude_contrast,
        "dose_per_tilt_e_per_a2": example.dose_per_tilt_e_per_a2,
        "tilts": [
            {
                "name": tilt["name"],
                "movie": str(example.frames_directory / tilt["movie"]),
                "tilt_angle_deg": tilt["tilt_angle_deg"],
                "pre_exposure_e_per_a2": tilt["pre_exposure_e_per_a2"],
                "nominal_defocus_um": truth["nominal_defocus_um"],
            }
            for tilt in tilts
        ],
    }
    write_json(where / "frames.json", frames_spec)
    run_frames(where / "frames.json", where / "frames", workers, report)
    frames = read_json(where / "frames" / "result.json")["tilts"]
    angles = {tilt["name"]: tilt["tilt_angle_deg"] for tilt in tilts}
    exposures = {tilt["name"]: tilt["pre_exposure_e_per_a2"] for tilt in tilts}
    align_spec = {
        **common,
        "alignment_pixel_size_angstrom": alignment_pixel_size_angstrom or 2 * pixel,
        "tilt_axis_deg": example.tilt_axis_deg,
        "sample_thickness_nm": example.thickness_nm,
        "fiducial_diameter_nm": truth["bead_diameter_angstrom"] / 10,
        "tilts": [
            {
                "name": tilt["name"],
                "image": str(where / "frames" / tilt["average"]),
                "tilt_angle_deg": angles[tilt["name"]],
            }
            for tilt in frames
            if tilt["status"] == "done"
        ],
    }
    write_json(where / "align.json", align_spec)
    run_align(where / "align.json", where / "align", workers, report)
    aligned = read_json(where / "align" / "result.json")["tilts"]
    keys = ("x_tilt_deg", "y_tilt_deg", "z_rot_deg", "x_shift_angstrom", "y_shift_angstrom")
    reconstruct_spec = {
        **common,
        "tomogram_pixel_size_angstrom": tomogram_pixel_size_angstrom or 2 * pixel,
        "sample_thickness_nm": 1.4 * example.thickness_nm,
        "halves": False,
        "tilts": [
            {
                "name": tilt["name"],
                "image": str(where / "frames" / f"{tilt['name']}.mrc"),
                "pre_exposure_e_per_a2": exposures[tilt["name"]],
                "dose_e_per_a2": example.dose_per_tilt_e_per_a2,
                **{key: tilt[key] for key in keys},
            }
            for tilt in aligned
            if tilt["status"] == "aligned"
        ],
    }
    write_json(where / "reconstruct.json", reconstruct_spec)
    run_reconstruct(where / "reconstruct.json", where / "reconstruct", workers, report)
    return where


def measure(truth: dict[str, Any], directory: Path) -> Accuracy:
    """Compare what `run_chain` left in `directory` with the truth of its tilt series."""
    pixel = float(truth["pixel_size_angstrom"])
    tilts = {tilt["name"]: tilt for tilt in truth["tilts"]}
    frames = [
        tilt
        for tilt in read_json(directory / "frames" / "result.json")["tilts"]
        if tilt["status"] == "done" and not tilts[tilt["name"]]["dead"]
    ]
    drift = _drift_errors(frames, tilts)
    defocus = np.array([_defocus_error_percent(tilt, tilts[tilt["name"]]) for tilt in frames])
    result = read_json(directory / "align" / "result.json")
    aligned = [tilt for tilt in result["tilts"] if tilt["status"] == "aligned"]
    found = [alignment_of(tilt) for tilt in aligned]
    actual = [true_alignment(tilts[tilt["name"]], truth) for tilt in aligned]
    residuals, translation = shift_errors(found, actual, pixel)
    reconstruction = read_json(directory / "reconstruct" / "result.json")
    volume = read_mrc(directory / "reconstruct" / reconstruction["tomogram"])[0]
    beads = np.array(truth["beads_xyz_px"]) + translation
    centre = np.array([size // 2 for size in reconstruction["size_px"]])
    binning = float(reconstruction["binning"])
    radius = truth["bead_diameter_angstrom"] / 2 / pixel / binning
    contrasts, places = find_at(volume, (beads + centre) / binning, radius)
    mirrored = beads * (1, 1, -1)
    flipped = find_at(volume, (mirrored + centre) / binning, radius)[0]
    errors = places * binning - centre - beads
    seen = contrasts > FOUND_SIGMA
    errors = errors[seen] - errors[seen].mean(axis=0) if seen.any() else errors
    return Accuracy(
        tilt_series=truth["name"],
        drift_rms_px=float(np.sqrt((drift**2).sum(axis=-1).mean())),
        defocus_median_percent=float(np.median(np.abs(defocus))),
        defocus_max_percent=float(np.abs(defocus).max()),
        axis_deg=float(result["tilt_axis_deg"] - truth["tilt_axis_deg"]),
        shift_rms_px=float(np.sqrt((residuals**2).sum(axis=1).mean())),
        shift_max_px=float(np.hypot(*residuals.T).max()),
        beads_found=int(seen.sum()),
        beads=len(beads),
        flipped_found=int((flipped > FOUND_SIGMA).sum()),
        bead_rms_angstrom=float(np.sqrt((errors**2).sum(axis=1).mean()) * pixel),
        bead_contrast_sigma=float(contrasts.mean()),
        flipped_contrast_sigma=float(flipped.mean()),
    )


def alignment_of(tilt: dict[str, Any]) -> TiltAlignment:
    """The alignment of an entry of `align`'s result."""
    return TiltAlignment(
        tilt["x_tilt_deg"],
        tilt["y_tilt_deg"],
        tilt["z_rot_deg"],
        tilt["x_shift_angstrom"],
        tilt["y_shift_angstrom"],
    )


def true_alignment(tilt: dict[str, Any], truth: dict[str, Any]) -> TiltAlignment:
    """The true alignment of a tilt of truth.json."""
    pixel = truth["pixel_size_angstrom"]
    x, y = tilt["shift_xy_px"]
    return TiltAlignment(0, tilt["tilt_angle_deg"], truth["tilt_axis_deg"], x * pixel, y * pixel)


def shift_errors(
    found: list[TiltAlignment], actual: list[TiltAlignment], pixel_size_angstrom: float
) -> tuple[Floats, Floats]:
    """Errors of the shifts, and the translation of the specimen that was taken out.

    A translation of the specimen by (x, y, z) changes every shift by its projection, and no tilt
    series can tell; the one that explains most of the difference is not an error.

    Returns:
        (tilts, 2) errors (x, y) in pixels, and the translation (x, y, z) in pixels: a point p of
        the true specimen is found at p + translation.
    """
    difference = np.array(
        [
            np.subtract(one.shift_px(pixel_size_angstrom), two.shift_px(pixel_size_angstrom))
            for one, two in zip(found, actual, strict=True)
        ]
    ).reshape(-1)
    design = np.concatenate([specimen_rotation(one)[:2] for one in actual])
    translation = np.linalg.lstsq(design, -difference, rcond=None)[0]
    return (difference + design @ translation).reshape(-1, 2), translation


def find_at(volume: Floats, places_xyz: Floats, radius_px: float) -> tuple[Floats, Floats]:
    """Darkness of the tomogram at given places.

    Args:
        volume: [z, y, x].
        places_xyz: (n, 3) in voxels; at most half a radius from the bead, if there is one.
        radius_px: of a bead, in voxels.

    Returns:
        (n,) the darkest value near each place, in standard deviations of the tomogram smoothed to
        the size of a bead, and (n, 3) the centre of mass (x, y, z) of what is dark there.
    """
    smooth = -ndimage.gaussian_filter(volume.astype(np.float32), radius_px / 2)
    smooth = (smooth - smooth.mean()) / smooth.std()
    near, reach = int(np.ceil(radius_px / 2)), int(np.ceil(radius_px))
    size = np.array(smooth.shape)
    contrasts, found = [], []
    for place in places_xyz[:, ::-1]:
        middle = np.clip(np.rint(place).astype(int), reach + near, size - reach - near - 1)
        window = _cube(middle, near)
        step = np.unravel_index(int(np.argmax(smooth[window])), smooth[window].shape)
        darkest = middle + np.array(step) - near
        around = smooth[_cube(darkest, reach)]
        peak = float(smooth[tuple(darkest)])
        weight = np.clip(around - 0.5 * peak, 0, None)
        offset = ((np.indices(weight.shape) - reach) * weight).sum(axis=(1, 2, 3))
        contrasts.append(peak)
        found.append((darkest + offset / max(float(weight.sum()), 1e-9))[::-1])
    return np.array(contrasts), np.array(found)


def _cube(middle: npt.NDArray[np.int_], reach: int) -> tuple[slice, ...]:
    return tuple(slice(int(one) - reach, int(one) + reach + 1) for one in middle)


def _drift_errors(frames: list[dict[str, Any]], tilts: dict[str, Any]) -> Floats:
    errors = []
    for tilt in frames:
        measured = np.array(tilt["shifts_px"])[:, ::-1]
        error = measured - np.array(tilts[tilt["name"]]["drift_xy_px"])
        errors.append(error - error.mean(axis=0))
    return np.array(errors)


def _defocus_error_percent(found: dict[str, Any], actual: dict[str, Any]) -> float:
    one = found["defocus_u_angstrom"] + found["defocus_v_angstrom"]
    two = actual["defocus_u_angstrom"] + actual["defocus_v_angstrom"]
    return float((one - two) / two * 100)
