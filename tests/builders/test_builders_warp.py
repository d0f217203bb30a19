"""WarpTools' commands: exact, within the contract of every version, and free of known bugs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.builders import warp
from crboost.builders.contract import PROGRAM, check, contract
from crboost.builders.series_values import TiltSeries, tomogram_size_px
from crboost.builders.step import Step
from crboost.cpu.io import read_gain
from crboost.errors import ParameterError
from crboost.parameters import (
    EffectiveParameters,
    FsMotionAndCtf,
    ProjectParameters,
    TsAlignment,
    TsCtf,
    TsImport,
    TsReconstruct,
)

FRAMES_OUT = "External/job002/warp/TS_01"
IMPORTED = "External/job003/warp/TS_01"
ALIGNED = "External/job004/warp/TS_01"
OUT = "External/job005/warp/TS_01"
GLOBAL = {
    "rlnTomoName": "TS_01",
    "rlnVoltage": 300.0,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.07,
    "rlnMicrographOriginalPixelSize": 1.35,
}


def row(number: int, angle: float, kind: str = ".eer", **values: object) -> dict[str, Any]:
    """A tilt image; `number` is its place in the order of recording, from 1 on."""
    name = f"TS_01_{number:03}_{angle:.1f}"
    average = f"{FRAMES_OUT}/warp_frameseries/average"
    return {
        "rlnMicrographMovieName": f"frames/{name}{kind}",
        "rlnTomoNominalStageTiltAngle": angle,
        "rlnTomoNominalTiltAxisAngle": 85.3,
        "rlnMicrographPreExposure": (number - 1) * 3.2,
        "rlnMicrographName": f"{average}/{name}.mrc",
        "rlnMicrographNameEven": f"{average}/even/{name}.mrc",
        "rlnMicrographNameOdd": f"{average}/odd/{name}.mrc",
        **values,
    }


def series(kind: str = ".eer", **values: object) -> TiltSeries:
    rows = [row(1, 0.0, kind), row(2, 3.0, kind), row(3, -3.0, kind)]
    return TiltSeries("TS_01", {**GLOBAL, **values}, rows)


def effective(node: str, tool: str | None = "warp", **changes: object) -> EffectiveParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    chosen = {f"jobs.{node}.tool": tool} if tool else {}
    return new.with_values({**chosen, **changes}).effective(node)


def frames(one: TiltSeries | None = None, **changes: object) -> list[Step]:
    seen = effective("fsMotionAndCtf", **changes)
    return warp.frames(one or series(), seen, seen.job_as(FsMotionAndCtf), FRAMES_OUT)


def ts_import(one: TiltSeries | None = None, **changes: object) -> list[Step]:
    seen = effective("tsImport", **changes)
    return warp.ts_import(one or series(), seen, seen.job_as(TsImport), IMPORTED)


def align(axis_deg: float | None = None, **changes: object) -> list[Step]:
    seen = effective("tsAlignment", **changes)
    job = seen.job_as(TsAlignment)
    return warp.align(series(), seen, job, OUT, IMPORTED, axis_deg=axis_deg)


def ctf(one: TiltSeries | None = None, flip: bool = True, **changes: object) -> list[Step]:
    seen = effective("tsCtf", **changes)
    folder = f"{ALIGNED}/warp_tiltseries"
    job = seen.job_as(TsCtf)
    return warp.ctf(one or series(), seen, job, OUT, IMPORTED, folder, flip=flip)


def reconstruct(one: TiltSeries | None = None, **changes: object) -> list[Step]:
    seen = effective("tsReconstruct", **changes)
    folder = f"{ALIGNED}/warp_tiltseries"
    return warp.reconstruct(
        one or series(), seen, seen.job_as(TsReconstruct), OUT, IMPORTED, folder
    )


def options(argv: Sequence[str]) -> dict[str, str]:
    """Option -> its value, or "" for a switch."""
    found: dict[str, str] = {}
    for word, after in itertools.pairwise((*argv[2:], "--end")):
        if word.startswith("--"):
            found[word] = "" if after.startswith("--") else after
    return found


def every_command() -> list[Step]:
    """All commands in all their variants."""
    two = [series(), TiltSeries("TS_02", GLOBAL, [])]
    imported = {"TS_01": IMPORTED, "TS_02": IMPORTED.replace("TS_01", "TS_02")}
    gain = {
        "acquisition.gain_reference_path": "/data/gain.mrc",
        "acquisition.gain_flip_x": True,
        "acquisition.gain_flip_y": True,
        "acquisition.gain_transpose": True,
    }
    steps = [
        *frames(),
        *frames(series(".tif"), **gain),
        *frames(
            **{
                "jobs.fsMotionAndCtf.c_use_sum": True,
                "jobs.fsMotionAndCtf.do_phase": True,
                "jobs.fsMotionAndCtf.movie_binning": 2,
                "jobs.fsMotionAndCtf.perdevice": 0,
            }
        ),
        *ts_import(),
        *ts_import(series(rlnTomoTiltSeriesPixelSize=2.7), **gain),
        *ctf(),
        *ctf(flip=False, **{"jobs.tsCtf.do_phase": True}),
        *reconstruct(),
        *reconstruct(**{"jobs.tsReconstruct.invert_contrast": True}),
        *warp.import_alignment(
            series(),
            OUT,
            IMPORTED,
            xf="1 0 0 1 0 0\n",
            tlt="0\n",
            pixel_size_angstrom=10.8,
            python="python",
        ),
        warp.check_hand("TS_01", "External/job005", OUT, IMPORTED, IMPORTED),
    ]
    for method in ("aretomo2", "etomo_patches", "etomo_fiducials", "aretomo3"):
        chosen = {"jobs.tsAlignment.alignment_method": method}
        steps += align(**chosen)
        steps += align(axis_deg=84.9, **chosen)
        seen = effective("tsAlignment", **chosen, **{"jobs.tsAlignment.axis_iter": 3})
        job = seen.job_as(TsAlignment)
        steps += warp.refine_axis(two, seen, job, "External/job004", imported)
    return steps


# --- the contract --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*contract().versions])
def test_bug_b37_every_command_keeps_to_the_contract_of_every_version(version: str) -> None:
    """B37: WarpTools exits 0 on wrong arguments; ours are held against its options before."""
    commands = [step.argv for step in every_command()]
    if version == "2.0.0dev29":  # has no AreTomo3, and the plan says so
        commands = [argv for argv in commands if argv[1] != "ts_aretomo3"]
    assert {argv[1] for argv in commands} >= {
        *("create_settings", "fs_motion_and_ctf", "ts_import", "ts_aretomo", "ts_ctf"),
        *("ts_etomo_patches", "ts_etomo_fiducials", "ts_defocus_hand", "ts_reconstruct"),
        "ts_import_alignments",
    }
    for argv in commands:
        assert argv[0] == PROGRAM
        assert check(argv, version) == [], argv


@given(
    pixel=st.floats(0.5, 3),
    window=st.integers(128, 4096),
    bfactor=st.integers(-10_000, 10_000),
    dose=st.floats(0.1, 9),
    grouping=st.integers(1, 100),
    binning=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 60)),
    flags=st.tuples(*[st.booleans()] * 6),
)
@settings(max_examples=60, deadline=None)
def test_any_parameters_make_commands_within_the_contract(
    pixel: float,
    window: int,
    bfactor: int,
    dose: float,
    grouping: int,
    binning: int,
    grid: tuple[int, int, int],
    flags: tuple[bool, ...],
) -> None:
    changes = {
        "microscope.pixel_size_angstrom": pixel,
        "acquisition.dose_per_tilt_e_per_a2": dose,
        "acquisition.eer_frames_per_fraction": grouping,
        "acquisition.gain_reference_path": "/data/a gain.tif",
        "acquisition.gain_flip_x": flags[0],
        "acquisition.gain_flip_y": flags[1],
        "acquisition.gain_transpose": flags[2],
        "jobs.fsMotionAndCtf.c_window": window,
        "jobs.fsMotionAndCtf.m_bfac": bfactor,
        "jobs.fsMotionAndCtf.m_grid": "x".join(map(str, grid)),
        "jobs.fsMotionAndCtf.movie_binning": binning,
        "jobs.fsMotionAndCtf.c_use_sum": flags[3],
        "jobs.fsMotionAndCtf.do_phase": flags[4],
        "jobs.fsMotionAndCtf.out_average_halves": flags[5],
    }
    one = TiltSeries("TS_01", {}, [row(1, 0.0)])
    for step in frames(one, **changes):
        assert check(step.argv) == []
        assert all("e-" not in word for word in step.argv if word[:1].isdigit())


# --- frames --------------------------------------------------------------------------------------


def test_the_commands_for_movies() -> None:
    settings_step, motion = frames()
    assert settings_step.argv == (
        *("WarpTools", "create_settings", "--folder_data", "frames", "--extension", "*.eer"),
        *("--folder_processing", "warp_frameseries", "--output", "warp_frameseries.settings"),
        *("--angpix", "1.35", "--exposure", "3.2", "--eer_ngroups", "-32"),
    )
    assert motion.argv == (
        *("WarpTools", "fs_motion_and_ctf", "--settings", "warp_frameseries.settings"),
        *("--m_range_min", "500", "--m_range_max", "10", "--m_bfac", "-500", "--m_grid", "1x1x3"),
        *("--c_window", "512", "--c_range_min", "30", "--c_range_max", "6"),
        *("--c_defocus_min", "1.1", "--c_defocus_max", "8", "--c_voltage", "300"),
        *("--c_cs", "2.7", "--c_amplitude", "0.07", "--c_grid", "2x2x1"),
        *("--out_averages", "--out_average_halves", "--out_skip_first", "0"),
        *("--out_skip_last", "0", "--perdevice", "2"),
    )


def test_each_tilt_series_has_its_own_place() -> None:
    for step in every_command():
        assert step.tool == "warp"
        assert step.directory.startswith("External/job00")
        of_dataset = step.directory.endswith("/warp_dataset")
        assert of_dataset or step.directory.endswith("/warp/TS_01")
        for name in (*step.clears, *step.creates, *step.files, *step.links):
            assert name.startswith(f"{step.directory}/") or name == step.stdout
    one, two = (warp.frames(TiltSeries(name, GLOBAL, []), seen, job, f"External/job002/warp/{name}")
                for seen in [effective("fsMotionAndCtf")]
                for job in [seen.job_as(FsMotionAndCtf)]
                for name in ("TS_01", "TS_02"))  # fmt: skip
    assert not {step.directory for step in one} & {step.directory for step in two}


def test_movies_are_linked_and_only_those_of_the_series() -> None:
    settings_step, _ = frames()
    assert settings_step.links == {
        f"{FRAMES_OUT}/frames/{name}": f"frames/{name}"
        for name in ("TS_01_001_0.0.eer", "TS_01_002_3.0.eer", "TS_01_003_-3.0.eer")
    }
    assert f"{FRAMES_OUT}/frames" in settings_step.clears


def test_bug_b6_defocus_goes_in_micrometres() -> None:
    """B6: the defocus range was multiplied by 10000."""
    assert options(frames()[1].argv)["--c_defocus_max"] == "8"
    assert options(ctf()[1].argv)["--defocus_min"] == "1.1"


def test_bug_b7_eer_frames_are_grouped_not_groups_counted() -> None:
    """B7: +32 made 32 groups of frames, where groups of 32 frames were meant."""
    argv = frames(**{"acquisition.eer_frames_per_fraction": 16})[0].argv
    assert options(argv)["--eer_ngroups"] == "-16"


@pytest.mark.parametrize("kind", [".tif", ".tiff", ".mrc", ".TIF"])
def test_bug_b7_b14_only_eer_movies_have_eer_frames(kind: str) -> None:
    """B14: a K3's image size was taken for EER. B7: the option was given for TIFF movies too."""
    k3 = {
        "acquisition.detector_dimensions_px": (5760, 4092),
        "acquisition.eer_frames_per_fraction": 16,
    }
    for step in (*frames(series(kind), **k3), *ts_import(series(kind), **k3)):
        assert not any("eer" in word for word in step.argv)


@pytest.mark.parametrize("kind", [".tif", ".tiff", ".mrc", ".eer", ".EER"])
def test_bug_b17_movies_are_found_by_their_own_ending(kind: str) -> None:
    """B17: .tif movies were looked for as *.tiff."""
    assert options(frames(series(kind))[0].argv)["--extension"] == f"*{kind}"


def test_movies_of_several_kinds_are_refused() -> None:
    mixed = TiltSeries("TS_01", GLOBAL, [row(1, 0.0, ".tif"), row(2, 3.0, ".eer")])
    with pytest.raises(ParameterError, match=r"TS_01 has movies of several kinds: \.eer, \.tif"):
        frames(mixed)


def test_k3_super_resolution_is_binned_on_reading() -> None:
    recorded = series(".tif", rlnMicrographOriginalPixelSize=0.675)
    changes = {"jobs.fsMotionAndCtf.movie_binning": 2}
    given_options = options(frames(recorded, **changes)[0].argv)
    assert (given_options["--angpix"], given_options["--bin_angpix"]) == ("0.675", "1.35")
    binned = series(".tif", rlnMicrographOriginalPixelSize=0.675, rlnTomoTiltSeriesPixelSize=1.35)
    k3 = {"acquisition.detector_dimensions_px": (11520, 8184)}
    of_series = options(ts_import(binned, **k3)[1].argv)
    assert (of_series["--angpix"], of_series["--bin_angpix"]) == ("0.675", "1.35")
    assert of_series["--tomo_dimensions"] == "8184x11520x4446"
    assert "--bin_angpix" not in options(ts_import()[1].argv)


def test_each_tilt_series_has_the_optics_of_its_group() -> None:
    other = series(
        rlnVoltage=200.0,
        rlnSphericalAberration=0.01,
        rlnAmplitudeContrast=0.1,
        rlnMicrographOriginalPixelSize=2.17,
    )
    settings_step, motion = frames(other)
    assert options(settings_step.argv)["--angpix"] == "2.17"
    seen = options(motion.argv)
    assert (seen["--c_voltage"], seen["--c_cs"], seen["--c_amplitude"]) == ("200", "0.01", "0.1")
    fit = options(ctf(other)[1].argv)
    assert (fit["--voltage"], fit["--cs"], fit["--amplitude"]) == ("200", "0.01", "0.1")


def test_the_ctf_of_the_sum_has_no_time() -> None:
    changes = {"jobs.fsMotionAndCtf.c_use_sum": True, "jobs.fsMotionAndCtf.c_grid": "2x2x3"}
    with pytest.raises(ParameterError, match="c_grid = 2x2x3: the CTF of the sum has one point"):
        frames(**changes)


# --- gain ----------------------------------------------------------------------------------------


def test_bug_b3_gain_has_the_options_that_exist() -> None:
    """B3: --gain_reference and --gain_operations were given, which no version has."""
    gain = {"acquisition.gain_reference_path": "/data/gain.mrc", "acquisition.gain_flip_y": True}
    seen = options(frames(**gain)[0].argv)
    assert seen["--gain_path"] == "/data/gain.mrc"
    assert seen["--gain_flip_y"] == ""
    assert "--gain_flip_x" not in seen
    assert options(ts_import(**gain)[1].argv)["--gain_path"] == "/data/gain.mrc"
    assert not any("gain" in word for word in frames()[0].argv)
    inside = frames(**{"acquisition.gain_reference_path": "gain.mrc"})[0].argv
    assert options(inside)["--gain_path"] == "../../../../gain.mrc"  # from the settings' directory


def as_warp_does(path: Path, argv: Sequence[str]) -> np.ndarray[Any, Any]:
    """The gain reference as WarpTools applies it (`LoadAndPrepareGainReference`)."""
    raw = read_gain(path, flip_x=False, flip_y=False, transpose=False)
    if path.suffix == ".gain":  # read as TIFF, and so upside down
        raw = raw[::-1]
    steps: dict[str, Callable[[Any], Any]] = {
        "--gain_flip_x": lambda image: image[:, ::-1],
        "--gain_flip_y": lambda image: image[::-1],
        "--gain_transpose": lambda image: image.T,
    }
    for option, change in steps.items():
        if option in argv:
            raw = change(raw)
    return raw


@pytest.mark.parametrize("kind", [".tif", ".gain"])
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
def test_a_gain_reference_lies_as_the_built_in_tool_lays_it(
    tmp_path: Path, kind: str, flags: tuple[bool, bool, bool]
) -> None:
    flip_x, flip_y, transpose = flags
    path = tmp_path / f"gain{kind}"
    tifffile.imwrite(path, np.arange(1, 13, dtype=np.float32).reshape(3, 4))
    ours = read_gain(path, flip_x=flip_x, flip_y=flip_y, transpose=transpose)
    argv = frames(
        **{
            "acquisition.gain_reference_path": str(path),
            "acquisition.gain_flip_x": flip_x,
            "acquisition.gain_flip_y": flip_y,
            "acquisition.gain_transpose": transpose,
        }
    )[0].argv
    np.testing.assert_array_equal(as_warp_does(path, argv), ours)


# --- import of tilt series -----------------------------------------------------------------------


def test_the_commands_for_a_tilt_series() -> None:
    table, settings_step = ts_import(**{"jobs.tsImport.min_intensity": 0.3})
    assert table.argv == (
        *("WarpTools", "ts_import", "--mdocs", "mdoc", "--pattern", "TS_01.mdoc"),
        *("--frameseries", "../../../job002/warp/TS_01/warp_frameseries"),
        *("--tilt_exposure", "3.2", "--override_axis", "85.3"),
        *("--min_intensity", "0.3", "--output", "tomostar"),
    )
    assert table.creates == (f"{IMPORTED}/tomostar/TS_01.tomostar",)
    assert settings_step.argv == (
        *("WarpTools", "create_settings", "--folder_data", "tomostar"),
        *("--extension", "*.tomostar", "--folder_processing", "warp_tiltseries"),
        *("--output", "warp_tiltseries.settings", "--angpix", "1.35", "--exposure", "3.2"),
        *("--eer_ngroups", "-32", "--tomo_dimensions", "4096x4096x2224"),
    )


def test_bug_b9_b11_the_mdoc_holds_the_images_that_go_on_and_no_other() -> None:
    """B9: rejected tilts stayed in Warp's input. B11: one missing movie made Warp refuse them all.

    What is not in the table is not in the mdoc.
    """
    kept = TiltSeries("TS_01", GLOBAL, [row(4, -6.0), row(1, 0.0), row(3, -3.0)])
    table = ts_import(kept)[0]
    (text,) = table.files.values()
    assert [*table.files] == [f"{IMPORTED}/mdoc/TS_01.mdoc"]
    sections = text.split("[ZValue = ")[1:]
    assert [line for line in sections[1].splitlines() if line] == [
        "1]",
        "TiltAngle = -3.00",
        "SubFramePath = TS_01_003_-3.0.eer",
        "DateTime = 01-Jan-20 00:00:01",
    ]
    assert [part.splitlines()[2] for part in sections] == [
        "SubFramePath = TS_01_001_0.0.eer",
        "SubFramePath = TS_01_003_-3.0.eer",
        "SubFramePath = TS_01_004_-6.0.eer",
    ]
    assert len({part.splitlines()[3] for part in sections}) == 3
    assert warp.tomostar_doses(kept)["TS_01_004_-6.0"] == pytest.approx(9.6)


def test_bug_b12_any_name_of_a_tilt_series_will_do() -> None:
    """B12: only mdocs called Position_N were taken."""
    one = TiltSeries("lamella.3+b-Ä", GLOBAL, [row(1, 0.0)])
    table = ts_import(one)[0]
    assert options(table.argv)["--pattern"] == "lamella.3+b-Ä.mdoc"
    assert table.creates == (f"{IMPORTED}/tomostar/lamella.3+b-Ä.tomostar",)


@pytest.mark.parametrize("inverted", [False, True])
def test_bug_b31_tilt_angles_change_their_sign_once(inverted: bool) -> None:
    """B31: whether Warp turned the angles hung on a flag that nothing ever set.

    The import of the movies applies `invert_tilt_angles`; Warp always turns them once more, as its
    tilt is the other way round than RELION's.
    """
    table = ts_import(**{"acquisition.invert_tilt_angles": inverted})[0]
    assert "--dont_invert" not in table.argv
    assert "TiltAngle = 3.00" in next(iter(table.files.values()))


def test_bug_b15_the_axis_of_the_tilt_series_is_given_to_warp() -> None:
    """B15: the SerialEM header's axis was never found; Warp's own reading of mdocs is not asked."""
    one = TiltSeries("TS_01", GLOBAL, [row(1, 0.0, rlnTomoNominalTiltAxisAngle=-94.7)])
    assert options(ts_import(one)[0].argv)["--override_axis"] == "-94.7"


def test_images_of_another_tool_are_refused() -> None:
    cpu = row(1, 0.0, rlnMicrographName="External/job002/cpu/TS_01/TS_01_001_0.0.mrc")
    with pytest.raises(ParameterError, match="were not averaged by WarpTools") as told:
        ts_import(TiltSeries("TS_01", GLOBAL, [cpu]))
    assert "fsMotionAndCtf.tool = warp" in str(told.value)


@pytest.mark.parametrize(
    ("detector", "axis", "size"),
    [
        ((4096, 4096), 85.0, (4096, 4096, 2000)),
        ((5760, 4092), 85.0, (4092, 5760, 2000)),
        ((5760, 4092), -95.0, (4092, 5760, 2000)),
        ((5760, 4092), 3.0, (5760, 4092, 2000)),
        ((5760, 4092), 178.0, (5760, 4092, 2000)),
    ],
)
def test_a_tomogram_has_its_y_along_the_axis(
    detector: tuple[int, int], axis: float, size: tuple[int, int, int]
) -> None:
    assert tomogram_size_px(detector, axis, 200.0, 1.0) == size


# --- alignment -----------------------------------------------------------------------------------

COMMON = (
    *("--settings", "../../../job003/warp/TS_01/warp_tiltseries.settings"),
    *("--angpix", "5.4", "--perdevice", "1"),
)


@pytest.mark.parametrize(
    ("method", "argv", "result"),
    [
        ("aretomo2", ("ts_aretomo", *COMMON, "--alignz", "3000"), ("TS_01.st.aln",)),
        (
            "aretomo3",
            ("ts_aretomo3", *COMMON, "--alignz", "3000", "--patches", "0,0"),
            ("TS_01.aln",),
        ),
        (
            "etomo_patches",
            ("ts_etomo_patches", *COMMON, "--patch_size", "2000"),
            ("TS_01.xf", "TS_01.tlt"),
        ),
        (
            "etomo_fiducials",
            ("ts_etomo_fiducials", *COMMON, "--fiducial_size", "10", "--n_beads_target", "50"),
            ("TS_01.xf", "TS_01.tlt"),
        ),
    ],
)
def test_the_commands_of_an_alignment(
    method: str, argv: tuple[str, ...], result: tuple[str, ...]
) -> None:
    (step,) = align(**{"jobs.tsAlignment.alignment_method": method})
    assert step.argv == ("WarpTools", *argv, "--output_processing", "warp_tiltseries")
    stack = f"{OUT}/warp_tiltseries/tiltstack/TS_01"
    assert step.creates == tuple(f"{stack}/{name}" for name in result)


def test_patches_are_written_as_each_program_wants_them() -> None:
    both = {"jobs.tsAlignment.patch_x": 6, "jobs.tsAlignment.patch_y": 4}
    assert options(align(**both)[0].argv)["--patches"] == "6x4"
    three = {**both, "jobs.tsAlignment.alignment_method": "aretomo3"}
    assert options(align(**three)[0].argv)["--patches"] == "6,4"
    with pytest.raises(ParameterError, match="patch_x = 6 and patch_y = 0") as told:
        align(**{"jobs.tsAlignment.patch_x": 6})
    assert "set both" in str(told.value)


def test_images_are_not_enlarged_for_an_alignment() -> None:
    with pytest.raises(ParameterError, match=r"rescale_angpixs = 2 Å: the images have 4 Å"):
        seen = effective("tsAlignment", **{"jobs.tsAlignment.rescale_angpixs": 2})
        one = series(rlnMicrographOriginalPixelSize=4.0)
        warp.align(one, seen, seen.job_as(TsAlignment), OUT, IMPORTED)


def test_bug_b27_the_axis_is_refined_once_for_the_dataset() -> None:
    """B27: Warp's axis refinement, which is for a dataset, ran on every tilt series by itself."""
    names = ["TS_01", "TS_02", "TS_03"]
    imported = {name: f"External/job003/warp/{name}" for name in names}
    changes = {"jobs.tsAlignment.axis_iter": 3, "jobs.tsAlignment.axis_batch": 2}
    seen = effective("tsAlignment", **changes)
    job = seen.job_as(TsAlignment)
    every = [TiltSeries(name, GLOBAL, []) for name in names]
    (step,) = warp.refine_axis(every, seen, job, "External/job004", imported)
    assert step.directory == "External/job004/warp_dataset"
    start = step.argv.index("--input_data")
    assert step.argv[start : start + 3] == (
        "--input_data",
        "../../job003/warp/TS_01/tomostar/TS_01.tomostar",
        "../../job003/warp/TS_02/tomostar/TS_02.tomostar",
    )
    assert options(step.argv)["--axis_iter"] == "3"
    (single,) = align(axis_deg=84.87654, **changes)
    assert options(single.argv)["--axis"] == "84.877"
    assert "--axis_iter" not in single.argv
    assert warp.refine_axis(every, effective("tsAlignment"), TsAlignment(), "x", imported) == []


def test_the_axis_of_imod_is_refined_once_too() -> None:
    imod = {"jobs.tsAlignment.alignment_method": "etomo_patches", "jobs.tsAlignment.axis_iter": 1}
    seen = effective("tsAlignment", **imod)
    job = seen.job_as(TsAlignment)
    (step,) = warp.refine_axis([series()], seen, job, "External/job004", {"TS_01": IMPORTED})
    assert "--do_axis_search" in step.argv
    found = warp.axis_files(["TS_01", "TS_02"], job, "External/job004")
    assert list(found) == ["TS_01", "TS_02"]  # axis_batch 0: all
    assert found["TS_02"] == "External/job004/warp_dataset/axis/TS_02.xml"
    assert options(align(axis_deg=84.9, **imod)[0].argv)["--initial_axis"] == "84.9"


def test_an_alignment_from_elsewhere_is_brought_in() -> None:
    text = {"xf": "xf\n", "tlt": "tlt\n"}
    (step,) = warp.import_alignment(
        series(), OUT, IMPORTED, **text, pixel_size_angstrom=10.8, python="py"
    )
    assert step.files == {
        f"{OUT}/aligned_elsewhere/TS_01/TS_01.xf": "xf\n",
        f"{OUT}/aligned_elsewhere/TS_01/TS_01.tlt": "tlt\n",
    }
    assert options(step.argv)["--alignment_angpix"] == "10.8"
    assert step.creates == (f"{OUT}/alignment/TS_01.xml",)

    everything, left_out = warp.import_alignment(
        series(), OUT, IMPORTED, **text, pixel_size_angstrom=10.8, python="py", keep=["a", "b"]
    )
    assert options(everything.argv)["--output_processing"] == "alignment_of_all"
    assert everything.creates == (f"{OUT}/alignment_of_all/TS_01.xml",)
    assert left_out.argv == (
        *("py", "-P", "-m", "crboost.translate.keep_tilts", *everything.creates),
        *(*step.creates, "--", "a", "b"),
    )
    assert (left_out.creates, left_out.tool) == (step.creates, "cpu")


# --- CTF and hand --------------------------------------------------------------------------------


def test_the_hand_is_set_before_the_ctf_and_reaches_it() -> None:
    hand, fit = ctf()
    settings_file = "../../../job003/warp/TS_01/warp_tiltseries.settings"
    assert hand.argv == (
        *("WarpTools", "ts_defocus_hand", "--settings", settings_file, "--input_processing"),
        *("../../../job004/warp/TS_01/warp_tiltseries", "--output_processing", "warp_hand"),
        "--set_flip",
    )
    assert fit.argv == (
        *("WarpTools", "ts_ctf", "--settings", settings_file),
        *("--input_processing", "warp_hand", "--output_processing", "warp_tiltseries"),
        *("--window", "512", "--range_low", "30", "--range_high", "6"),
        *("--defocus_min", "1.1", "--defocus_max", "8", "--voltage", "300", "--cs", "2.7"),
        *("--amplitude", "0.07", "--perdevice", "1"),
    )
    assert hand.creates == (f"{OUT}/warp_hand/TS_01.xml",)
    assert fit.creates == (f"{OUT}/warp_tiltseries/TS_01.xml",)
    assert "--set_noflip" in ctf(flip=False)[0].argv


def test_each_tilt_series_is_asked_for_its_hand_by_itself() -> None:
    """Asked together, one that cannot tell ends the command for all of them."""
    aligned = "External/job004/warp/TS_02/warp_tiltseries"
    imported = "External/job003/warp/TS_02"
    out = "External/job005/warp/TS_02"
    step = warp.check_hand("TS_02", "External/job005", out, imported, aligned)
    assert step.argv == (
        *("WarpTools", "ts_defocus_hand", "--settings"),
        *("../../../job003/warp/TS_02/warp_tiltseries.settings", "--input_processing"),
        *("../../../job004/warp/TS_02/warp_tiltseries", "--output_processing", "warp_hand_check"),
        "--check",
    )
    assert (step.directory, step.tilt_series) == (out, "TS_02")
    assert step.creates == (step.stdout,) == ("External/job005/warp_dataset/hand/TS_02.txt",)


def test_a_ctf_is_not_fitted_beyond_nyquist() -> None:
    with pytest.raises(ParameterError, match=r"range_min_max = 30:6: images of 4 Å .* at 8 Å"):
        ctf(series(rlnMicrographOriginalPixelSize=4.0))


# --- reconstruction ------------------------------------------------------------------------------


def test_the_command_of_a_reconstruction() -> None:
    (step,) = reconstruct()
    assert step.argv == (
        *("WarpTools", "ts_reconstruct"),
        *("--settings", "../../../job003/warp/TS_01/warp_tiltseries.settings"),
        *("--input_processing", "../../../job004/warp/TS_01/warp_tiltseries"),
        *("--output_processing", "warp_tiltseries", "--angpix", "5.4", "--halfmap_frames"),
        *("--deconv", "--dont_invert", "--perdevice", "1"),
    )
    folder = f"{OUT}/warp_tiltseries/reconstruction"
    assert step.creates == (
        f"{folder}/TS_01_5.40Apx.mrc",
        f"{folder}/even/TS_01_5.40Apx.mrc",
        f"{folder}/odd/TS_01_5.40Apx.mrc",
    )


def test_bug_b5_what_is_switched_off_is_not_there() -> None:
    """B5: `--halfmap_frames 0 --deconv 0` switched both on."""
    off = {"jobs.tsReconstruct.halfmap_frames": False, "jobs.tsReconstruct.deconv": False}
    (step,) = reconstruct(**off)
    assert not {"--halfmap_frames", "--deconv", "0"} & set(step.argv)
    assert len(step.creates) == 1
    white = reconstruct(**{"jobs.tsReconstruct.invert_contrast": True})
    assert "--dont_invert" not in white[0].argv


def test_halves_need_halves() -> None:
    whole = TiltSeries("TS_01", GLOBAL, [row(1, 0.0, rlnMicrographNameEven=None)])
    (step,) = reconstruct(whole)
    assert "--halfmap_frames" not in step.argv
    assert len(step.creates) == 1


# --- what holds for all --------------------------------------------------------------------------


def test_bug_b30_commands_are_lists_of_words_whatever_the_names() -> None:
    """B30: commands were glued with blanks, so that a path with one became two arguments."""
    gain = {"acquisition.gain_reference_path": "/data/my gain; rm -rf ~.mrc"}
    argv = frames(**gain)[0].argv
    assert argv[argv.index("--gain_path") + 1] == "/data/my gain; rm -rf ~.mrc"
    for step in every_command():
        assert isinstance(step.argv, tuple)
        assert not {"&&", ";", "|", "test"} & set(step.argv)


def test_bug_b8_everything_that_a_command_makes_is_made_anew() -> None:
    """B8: settings and tomostars that were there were kept, whatever the parameters said."""
    for step in every_command():
        made = [word for option, word in options(step.argv).items()
                if option in ("--output", "--output_processing")]  # fmt: skip
        for name in made:
            assert f"{step.directory}/{name}" in (*step.clears, *step.creates)


@pytest.mark.parametrize(
    "argument",
    ["--settings x", "--output_processing=/tmp", "-o x", "--input_data a", "--workers x"],
)
def test_the_user_cannot_undo_the_isolation(argument: str) -> None:
    with pytest.raises(ParameterError, match=r"jobs\.tsCtf\.warp_arguments: -.* is not for you"):
        ctf(**{"jobs.tsCtf.warp_arguments": argument})


def test_further_options_are_checked_with_the_rest() -> None:
    argv = ctf(**{"jobs.tsCtf.warp_arguments": "--device_list 0 1"})[1].argv
    assert argv[-3:] == ("--device_list", "0", "1")
    assert check(argv) == []
    wrong = ctf(**{"jobs.tsCtf.warp_arguments": "--windw 256 --window 128"})[1].argv
    assert [problem.option for problem in check(wrong)] == ["--windw", "--window"]


def test_a_plan_can_show_commands_without_any_image() -> None:
    example = TiltSeries("<tilt series>", {}, [])
    for step in (*frames(example), *ts_import(example), *ctf(example), *reconstruct(example)):
        assert check(step.argv) == []


def test_numbers_are_written_with_points_on_every_machine() -> None:
    assert all(step.environment["LC_ALL"] == "C.UTF-8" for step in every_command())
