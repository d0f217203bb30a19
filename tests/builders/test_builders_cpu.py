"""Job parameters and one tilt series -> the exact command and spec."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from crboost.builders import cpu
from crboost.builders.series_values import TiltSeries
from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import FsMotionAndCtf, ProjectParameters, TsAlignment, TsReconstruct

OUT = "External/job002/cpu/TS_01"
ROW: dict[str, Any] = {
    "rlnMicrographMovieName": "frames/TS_01_001_0.0.tif",
    "rlnTomoNominalStageTiltAngle": 0.0,
    "rlnTomoNominalTiltAxisAngle": 85.0,
    "rlnMicrographPreExposure": 0.0,
    "rlnTomoNominalDefocus": -3.0,
    "rlnMicrographName": f"{OUT}/TS_01_001_0.0.mrc",
    "rlnMicrographNameEven": f"{OUT}/TS_01_001_0.0_EVN.mrc",
    "rlnMicrographNameOdd": f"{OUT}/TS_01_001_0.0_ODD.mrc",
    "rlnTomoXTilt": 0.0,
    "rlnTomoYTilt": 0.1,
    "rlnTomoZRot": 84.9,
    "rlnTomoXShiftAngst": 3.0,
    "rlnTomoYShiftAngst": -4.0,
}
SERIES = TiltSeries("TS_01", {}, [ROW])


def parameters(**changes: object) -> ProjectParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    return new.with_values({"microscope.pixel_size_angstrom": 4.0, **changes})


def spec_of(step: Step) -> dict[str, Any]:
    (text,) = step.files.values()
    value: dict[str, Any] = json.loads(text)
    return value


def frames(row: dict[str, Any] = ROW, **changes: object) -> Step:
    seen = parameters(**changes).effective("fsMotionAndCtf")
    return cpu.frames(
        "py", TiltSeries("TS_01", {}, [row]), seen, seen.job_as(FsMotionAndCtf), OUT, 2
    )


def test_frames() -> None:
    step = frames()
    assert step.argv == (
        *("py", "-P", "-m", "crboost.cpu", "frames", "--spec", f"{OUT}/frames.json"),
        *("--out", OUT, "--workers", "2"),
    )
    assert step.creates == (f"{OUT}/result.json",)
    assert step.environment["OMP_NUM_THREADS"] == "1"
    spec = spec_of(step)
    assert spec["pixel_size_angstrom"] == 4.0
    assert spec["ctf_defocus_um"] == [1.1, 8.0]
    assert spec["tilts"] == [
        {
            "name": "TS_01_001_0.0",
            "movie": "frames/TS_01_001_0.0.tif",
            "tilt_angle_deg": 0.0,
            "pre_exposure_e_per_a2": 0.0,
            "nominal_defocus_um": 3.0,
        }
    ]


def test_an_unknown_defocus_is_null() -> None:
    assert (
        spec_of(frames({**ROW, "rlnTomoNominalDefocus": 0.0}))["tilts"][0]["nominal_defocus_um"]
        is None
    )


@pytest.mark.parametrize(
    ("movie", "asked", "grouping"),
    [("a.tif", None, None), ("a.tif", 10, None), ("a.eer", None, 32), ("a.EER", 10, 10)],
)
def test_eer_grouping_is_for_eer_only(movie: str, asked: int | None, grouping: int | None) -> None:
    step = frames(
        {**ROW, "rlnMicrographMovieName": f"frames/{movie}"},
        **{"acquisition.eer_frames_per_fraction": asked},
    )
    assert spec_of(step)["eer_frames_per_fraction"] == grouping


def test_the_dose_is_calibrated() -> None:
    spec = spec_of(frames(**{"acquisition.dose_calibration_factor": 0.5}))
    assert spec["dose_per_tilt_e_per_a2"] == pytest.approx(1.5)


def test_align_takes_what_it_follows_from_the_project() -> None:
    seen = parameters(**{"acquisition.sample_thickness_nm": 90}).effective("tsAlignment")
    step = cpu.align("py", SERIES, seen, seen.job_as(TsAlignment), OUT)
    spec = spec_of(step)
    assert spec["alignment_pixel_size_angstrom"] == 16.0
    assert spec["sample_thickness_nm"] == 90
    assert spec["tilt_axis_deg"] == 85.0
    assert spec["tilts"][0]["image"] == ROW["rlnMicrographName"]


@pytest.mark.parametrize(("halves", "even"), [(True, True), (True, False), (False, True)])
def test_halves_are_made_where_they_are_wanted_and_can_be(halves: bool, even: bool) -> None:
    row = {key: value for key, value in ROW.items() if even or "Even" not in key}
    seen = parameters(**{"jobs.tsReconstruct.halfmap_frames": halves}).effective("tsReconstruct")
    step = cpu.reconstruct(
        "py", TiltSeries("TS_01", {}, [row]), seen, seen.job_as(TsReconstruct), OUT
    )
    spec = spec_of(step)
    assert spec["halves"] is (halves and even)
    assert spec["tilts"][0]["z_rot_deg"] == 84.9
    assert spec["tomogram_size_px"] is None


def test_the_tomogram_size_is_passed_in_unbinned_pixels() -> None:
    seen = parameters(**{"jobs.tsReconstruct.tomo_dimensions": "512x512x100"}).effective(
        "tsReconstruct"
    )
    step = cpu.reconstruct("py", SERIES, seen, seen.job_as(TsReconstruct), OUT)
    assert spec_of(step)["tomogram_size_px"] == [512, 512, 100]


def test_every_tilt_series_has_the_optics_of_its_group() -> None:
    own = {
        "rlnMicrographOriginalPixelSize": 2.0,
        "rlnTomoTiltSeriesPixelSize": 2.0,
        "rlnVoltage": 200.0,
        "rlnSphericalAberration": 2.1,
        "rlnAmplitudeContrast": 0.07,
    }
    series = TiltSeries("TS_01", own, [ROW, {**ROW, "rlnMicrographPreExposure": 1.5}])
    seen = parameters().effective("fsMotionAndCtf")
    spec = spec_of(cpu.frames("py", series, seen, seen.job_as(FsMotionAndCtf), OUT, 2))
    assert (spec["pixel_size_angstrom"], spec["voltage_kv"]) == (2.0, 200.0)
    assert (spec["spherical_aberration_mm"], spec["amplitude_contrast"]) == (2.1, 0.07)
    assert spec["dose_per_tilt_e_per_a2"] == 1.5
    seen = parameters().effective("tsAlignment")
    step = cpu.align("py", series, seen, seen.job_as(TsAlignment), OUT)
    assert spec_of(step)["pixel_size_angstrom"] == 2.0
    seen = parameters().effective("tsReconstruct")
    spec = spec_of(cpu.reconstruct("py", series, seen, seen.job_as(TsReconstruct), OUT))
    assert spec["pixel_size_angstrom"] == 2.0
    assert {tilt["dose_e_per_a2"] for tilt in spec["tilts"]} == {1.5}


def test_images_have_the_pixel_size_that_their_table_says() -> None:
    """Movies in super resolution that another tool binned, and several optics groups."""
    optics = {"rlnMicrographOriginalPixelSize": 2.0, "rlnVoltage": 200.0}
    images = TiltSeries("TS_01", {**optics, "rlnTomoTiltSeriesPixelSize": 5.0}, [ROW])
    align = parameters().effective("tsAlignment")
    spec = spec_of(cpu.align("py", images, align, align.job_as(TsAlignment), OUT))
    assert (spec["pixel_size_angstrom"], spec["alignment_pixel_size_angstrom"]) == (5.0, 16.0)
    tomograms = parameters().effective("tsReconstruct")
    spec = spec_of(cpu.reconstruct("py", images, tomograms, tomograms.job_as(TsReconstruct), OUT))
    assert (spec["pixel_size_angstrom"], spec["tomogram_pixel_size_angstrom"]) == (5.0, 16.0)
    seen = parameters().effective("fsMotionAndCtf")
    movies = TiltSeries("TS_01", optics, [ROW])
    spec = spec_of(cpu.frames("py", movies, seen, seen.job_as(FsMotionAndCtf), OUT, 2))
    assert (spec["pixel_size_angstrom"], spec["voltage_kv"]) == (2.0, 200.0)


def test_nothing_is_finer_than_the_images() -> None:
    images = TiltSeries("TS_01", {"rlnTomoTiltSeriesPixelSize": 20.0}, [ROW])
    align, tomograms = (parameters().effective(node) for node in ("tsAlignment", "tsReconstruct"))
    with pytest.raises(ParameterError, match=r"tsAlignment.rescale_angpixs = 16 Å.* 20 Å"):
        cpu.align("py", images, align, align.job_as(TsAlignment), OUT)
    with pytest.raises(ParameterError, match=r"tsReconstruct.rescale_angpixs = 16 Å.* 20 Å"):
        cpu.reconstruct("py", images, tomograms, tomograms.job_as(TsReconstruct), OUT)
