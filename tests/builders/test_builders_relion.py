"""Job parameters -> options of RELION's own jobs, against job.star files of RELION 5.1 and the
options that the source of RELION 5.0.1 names."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crboost.builders.relion import (
    GAIN_FLIPS,
    GAIN_ROTATIONS,
    RELION_TYPE,
    gain_turn,
    power_spectrum_size_px,
    relion_options,
    tomogram_size_px,
)
from crboost.errors import ParameterError
from crboost.parameters import Acquisition, Microscope, ProjectParameters
from crboost.relion.star import parse_star, read_star

GOLDEN = Path(__file__).parent / "golden_relion_jobs"
CTFFIND = "/opt/ctffind/bin/ctffind"
LEFT_TO_OTHERS = {"do_queue", "qsub", "qsubscript", "queuename", "min_dedicated", "nr_mpi"} | {
    "nr_threads"
}
INPUTS = {
    "motionCorr": {"input_star_mics"},
    "ctfFind": {"input_star_mics"},
    "reconstructTomograms": {"in_tiltseries"},
    "subtomoExtraction": {"in_optimisation"},
    "reconstructParticle": {"in_optimisation"},
    "class3d": {"in_optimisation", "fn_ref", "fn_mask"},
    "refine3d": {"in_optimisation", "fn_ref", "fn_mask"},
}


def golden(job_type: str) -> tuple[str, dict[str, str]]:
    """Type label and options of a job that RELION 5.1 completed itself."""
    document = read_star(GOLDEN / f"{job_type}.star")
    block = document.get("job")
    assert block is not None
    records = document.records("joboptions_values")
    options = {each["rlnJobOptionVariable"]: each["rlnJobOptionValue"] for each in records}
    return block.pairs()["rlnJobTypeLabel"], options


def options(job_type: str, **values: Any) -> dict[str, str]:
    project = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC)).with_values(values)
    return relion_options(job_type, project.effective(job_type), ctffind_executable=CTFFIND)


#: What one RELION has and the other has not: (5.0, 5.1).
ONLY_IN: dict[str, tuple[set[str], set[str]]] = {
    "subtomoExtraction": (
        {"box_size", "crop_size", "binning", "do_stack2d"},
        {"box_size_angst", "binned_size_pix", "precrop_size_angst", "subtomo_format"},
    ),
    "reconstructTomograms": (set(), {"do_skip_wiener"}),
}


def known_to_relion_50(job_type: str) -> set[str]:
    known = json.loads((GOLDEN / "options_5.0.1.json").read_text())
    return {*known["common"], *known["jobs"][job_type]}


@pytest.mark.parametrize("job_type", RELION_TYPE)
def test_every_option_is_one_of_relions_and_none_is_an_input_or_resource(job_type: str) -> None:
    label, known = golden(job_type)
    ours = set(options(job_type))
    assert RELION_TYPE[job_type] == label
    assert (INPUTS[job_type] | LEFT_TO_OTHERS - {"nr_threads"}) <= set(known)
    assert INPUTS[job_type] <= known_to_relion_50(job_type)
    assert not ours & (LEFT_TO_OTHERS | INPUTS[job_type])
    only_50, only_51 = ONLY_IN.get(job_type, (set(), set()))
    assert ours - set(known) == only_50
    assert ours - known_to_relion_50(job_type) == only_51


@pytest.mark.parametrize("job_type", RELION_TYPE)
def test_switches_and_choices_are_written_as_relion_writes_them(job_type: str) -> None:
    known = golden(job_type)[1]
    only_50 = ONLY_IN.get(job_type, (set(), set()))[0]
    for name, value in options(job_type).items():
        if name in only_50:
            continue
        if known[name] in ("Yes", "No"):
            assert value in ("Yes", "No"), name
        elif known[name].replace(".", "").lstrip("-").isdigit():
            float(value)


def test_motion_correction_with_relions_defaults_is_relions_job() -> None:
    known = golden("motionCorr")[1]
    ours = options("motionCorr", **{"jobs.motionCorr.do_even_odd_split": False})
    assert ours == {name: known[name] for name in ours}


def test_ctf_with_relions_defaults_is_relions_job() -> None:
    known = golden("ctfFind")[1] | {"fn_ctffind_exe": CTFFIND}
    ours = options("ctfFind")
    assert ours == {name: known[name] for name in ours}


@pytest.mark.parametrize(("transpose", "flip_x", "flip_y"), list(product([False, True], repeat=3)))
def test_a_turned_gain_is_the_same_image_in_relion(
    transpose: bool, flip_x: bool, flip_y: bool
) -> None:
    acquisition = Acquisition(gain_transpose=transpose, gain_flip_x=flip_x, gain_flip_y=flip_y)
    image = np.arange(6).reshape(2, 3)
    ours = image.T if transpose else image
    ours = ours[:, ::-1] if flip_x else ours
    ours = ours[::-1] if flip_y else ours
    rotation, flip = gain_turn(acquisition)
    # RELION's rotate90: source [y, x] goes to [x, height - 1 - y]; clockwise with row 0 on top.
    relion = np.rot90(image, -GAIN_ROTATIONS.index(rotation))
    relion = [relion, relion[::-1], relion[:, ::-1]][GAIN_FLIPS.index(flip)]
    assert relion.tolist() == ours.tolist()


def test_a_gain_reference_reaches_the_job() -> None:
    ours = options(
        "motionCorr",
        **{"data.gain_reference": "/data/it's $5/gäin.mrc", "acquisition.gain_transpose": True},
    )
    assert shlex.split(ours["fn_gain_ref"]) == ["/data/it's $5/gäin.mrc"]
    assert (ours["gain_rot"], ours["gain_flip"]) == ("90 degrees (1)", "Flip left to right (2)")


@pytest.mark.parametrize("name", ["gain.dm4", 'ga"in.mrc', "gain.mrc\nx"])
def test_a_gain_that_relion_cannot_take_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="gain_reference_path"):
        options("motionCorr", **{"data.gain_reference": name})


def test_a_gain_of_factors_is_not_turned() -> None:
    assert options("motionCorr", **{"data.gain_reference": "a.gain"})["fn_gain_ref"] == "a.gain"
    with pytest.raises(ParameterError, match=r"cannot turn or mirror a \.gain file"):
        options("motionCorr", **{"data.gain_reference": "a.gain", "acquisition.gain_flip_y": True})


def test_eer_grouping_is_the_projects_or_32() -> None:
    assert options("motionCorr")["eer_grouping"] == "32"
    value = {"acquisition.eer_frames_per_fraction": 40}
    assert options("motionCorr", **value)["eer_grouping"] == "40"


@pytest.mark.parametrize(
    ("frame", "pixel_size", "binning", "expected"),
    [
        ((4096, 4096), 1.35, 1, 512),
        ((512, 512), 4.0, 1, 512),
        ((256, 256), 4.0, 1, 256),
        ((512, 300), 4.0, 1, 300),
        ((512, 512), 0.7, 1, 256),
        ((1024, 1024), 4.0, 4, 256),
        ((512, 512), 1.35, 1, 494),
    ],
)
def test_power_spectra_are_never_larger_than_what_they_are_made_of(
    frame: tuple[int, int], pixel_size: float, binning: float, expected: int
) -> None:
    assert power_spectrum_size_px(frame, pixel_size, binning) == expected


def test_small_frames_get_small_power_spectra() -> None:
    small = {
        "microscope.pixel_size_angstrom": 4.0,
        "acquisition.detector_dimensions_px": "256x256",
        "jobs.motionCorr.other_args": "--dose_per_frame 'a b'",
    }
    words = shlex.split(options("motionCorr", **small)["other_args"])
    assert words == ["--ps_size", "256", "--dose_per_frame", "a b"]
    assert options("motionCorr")["other_args"] == ""


@pytest.mark.parametrize("name", ["/opt/ctf find", "ctffind;true", ""])
def test_a_ctffind_that_relion_cannot_start_is_refused(name: str) -> None:
    project = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ParameterError, match="CTFFIND executable"):
        relion_options("ctfFind", project.effective("ctfFind"), ctffind_executable=name)


def test_tomograms_cover_image_and_sample() -> None:
    ours = options(
        "reconstructTomograms",
        **{
            "microscope.pixel_size_angstrom": 4.0,
            "acquisition.detector_dimensions_px": "512x400",
            "acquisition.tilt_axis_degrees": 85,
            "acquisition.sample_thickness_nm": 50,
        },
    )
    assert (ours["xdim"], ours["ydim"], ours["zdim"]) == ("400", "512", "126")
    assert ours["binned_angpix"] == "16"
    assert tomogram_size_px((512, 400), 5, 160, 4.0) == (512, 400, 400)
    own = {"jobs.reconstructTomograms.tomo_dimensions": "500x400x300"}
    ours = options("reconstructTomograms", **own)
    assert (ours["xdim"], ours["ydim"], ours["zdim"]) == ("500", "400", "300")


def test_boxes_are_given_to_relion_in_angstrom() -> None:
    values = {"microscope.pixel_size_angstrom": 1.35, "jobs.subtomoExtraction.binning": 2}
    ours = options("subtomoExtraction", **values)
    assert ours["binned_size_pix"] == "224"
    assert ours["box_size_angst"] == "604.8"
    assert ours["precrop_size_angst"] == "1036.8"
    assert ours["subtomo_format"] == "2D stacks"
    whole = options("subtomoExtraction", **{**values, "jobs.subtomoExtraction.crop_size": -1})
    assert (whole["binned_size_pix"], whole["precrop_size_angst"]) == ("384", "-1")
    assert whole["box_size_angst"] == "1036.8"


K3_SUPER_RESOLUTION = {
    "microscope.pixel_size_angstrom": 0.675,
    "acquisition.detector_dimensions_px": "11520x8184",
    "acquisition.tilt_axis_degrees": 85,
    "acquisition.sample_thickness_nm": 135,
}
BINNED_BY = {
    "relion": {"jobs.motionCorr.bin_factor": 2},
    "warp": {"jobs.fsMotionAndCtf.tool": "warp", "jobs.fsMotionAndCtf.movie_binning": 2},
}


@pytest.mark.parametrize("maker", BINNED_BY)
def test_binned_movies_make_binned_boxes_and_tomograms(maker: str) -> None:
    """The images of 0.675 A movies binned twice have 1.35 A pixels, and half as many."""
    raw = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC), jobs=()).with_values(
        {**K3_SUPER_RESOLUTION, **BINNED_BY[maker]}
    )

    def of(node: str) -> dict[str, str]:
        return relion_options(node, raw.effective(node), ctffind_executable=CTFFIND)

    box = of("subtomoExtraction")
    assert (box["box_size_angst"], box["precrop_size_angst"]) == ("302.4", "518.4")
    assert (box["binned_size_pix"], box["box_size"], box["binning"]) == ("224", "384", "1")
    tomogram = of("reconstructTomograms")
    size = [tomogram[f"{axis}dim"] for axis in "xyz"]
    assert size == ["4092", "5760", "1000"]
    # What is asked for in Angstrom, or in pixels of its own, stays.
    assert tomogram["binned_angpix"] == "2.7"
    seen = raw.effective("reconstructTomograms", binning=1)
    options_1 = relion_options("reconstructTomograms", seen, ctffind_executable=CTFFIND)
    assert [options_1[f"{axis}dim"] for axis in "xyz"] == ["8184", "11520", "2000"]


def test_tomograms_are_not_finer_than_their_images() -> None:
    fine = {**K3_SUPER_RESOLUTION, "jobs.reconstructTomograms.binned_angpix": 1}
    assert options("reconstructTomograms", **fine)["binned_angpix"] == "1"
    binned = {**BINNED_BY["warp"], "jobs.fsMotionAndCtf.movie_binning": 4}
    with pytest.raises(ParameterError, match=r"binned_angpix = 1 Å: the images have 2.7 Å"):
        options("reconstructTomograms", **fine, **binned)


def command_of_relion_50(ours: dict[str, str]) -> list[str]:
    """What RELION 5.0.1 makes of a job.star (`getCommandsTomoSubtomoJob`)."""
    command = ["--b", ours["box_size"]]
    if float(ours["crop_size"]) > 0:
        command += ["--crop", ours["crop_size"]]
    command += ["--bin", ours["binning"]]
    return command + ["--stack2d"] * (ours["do_stack2d"] == "Yes")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "--b 384 --crop 224 --bin 1 --stack2d"),
        ({"binning": 2.5, "do_stack2d": False}, "--b 384 --crop 224 --bin 2.5"),
        ({"crop_size": -1, "box_size": 64}, "--b 64 --bin 1 --stack2d"),
        ({"crop_size": 64, "box_size": 64}, "--b 64 --bin 1 --stack2d"),
    ],
)
def test_relion_50_cuts_the_same_boxes(values: dict[str, Any], expected: str) -> None:
    job = {f"jobs.subtomoExtraction.{name}": value for name, value in values.items()}
    ours = options("subtomoExtraction", **job)
    assert " ".join(command_of_relion_50(ours)) == expected
    # RELION 5.1's own numbers say the same.
    size, edge = float(ours["binned_size_pix"]), float(ours["box_size_angst"])
    pixel = Microscope().pixel_size_angstrom
    assert edge / size / pixel == pytest.approx(float(ours["binning"]))
    precrop = float(ours["precrop_size_angst"])
    assert (precrop if precrop > 0 else edge) / (edge / size) == pytest.approx(
        float(ours["box_size"])
    )


def test_both_relions_are_told_to_skip_the_wiener_filter() -> None:
    ours = options("reconstructTomograms", **{"jobs.reconstructTomograms.do_skip_wiener": True})
    assert (ours["do_skip_wiener"], ours["other_args"]) == ("Yes", "--skip_wiener")
    assert options("reconstructTomograms")["other_args"] == ""


def test_what_the_job_has_no_option_for_goes_to_the_additional_arguments() -> None:
    ours = options(
        "reconstructParticle",
        **{
            "jobs.reconstructParticle.whiten": True,
            "jobs.reconstructParticle.no_ctf": True,
            "jobs.reconstructParticle.other_args": "--mem '$(reboot)'",
        },
    )
    assert ours["other_args"] == r"--whiten --no_ctf --mem \$\(reboot\)"
    threads = {"jobs.reconstructParticle.threads_in": 3, "jobs.reconstructParticle.threads_out": 2}
    assert options("reconstructParticle", **threads)["other_args"] == "--j_in 3 --j_out 2"
    assert options("reconstructParticle")["other_args"] == ""
    ours = options("class3d", **{"jobs.class3d.do_norm": False, "jobs.class3d.oversampling": 2})
    assert ours["other_args"] == "--no_norm --oversampling 2"


def test_classification_is_the_same_search_as_by_hand() -> None:
    ours = options("class3d", **{"jobs.class3d.sigma_ang": 2})
    # --healpix_order 3 --offset_step 2 --sigma_ang 2 is what RELION makes of these.
    assert ours["sampling"] == "3.7 degrees"
    assert ours["offset_step"] == "1"
    assert (ours["do_local_ang_searches"], ours["sigma_angles"]) == ("Yes", "6")
    assert (ours["nr_classes"], ours["nr_iter"], ours["tau_fudge"]) == ("1", "15", "1")
    assert (ours["ini_high"], ours["particle_diameter"], ours["nr_pool"]) == ("45", "-1", "30")
    assert (ours["do_pad1"], ours["use_gpu"], ours["ref_correct_greyscale"]) == ("No", "Yes", "No")


def test_gpus_are_used_where_there_are_any_and_relion_allows_it() -> None:
    assert options("class3d", **{"computing.gpu_count": 0})["use_gpu"] == "No"
    assert options("class3d", **{"jobs.class3d.skip_align": True})["use_gpu"] == "No"
    assert options("refine3d")["use_gpu"] == "Yes"


def test_refinement_starts_at_relions_own_sampling() -> None:
    known, ours = golden("refine3d")[1], options("refine3d")
    for name in ("sampling", "auto_local_sampling", "offset_range", "offset_step", "ini_high"):
        assert ours[name] == known[name]


def test_another_job_type_is_refused() -> None:
    project = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ParameterError, match="not a job type of RELION"):
        relion_options("tsAlignment", project.effective("tsAlignment"), ctffind_executable="x")


def test_values_come_back_from_a_star_file() -> None:
    from crboost.relion.star import StarDocument, format_star, loop_block

    words = options("class3d", **{"jobs.class3d.other_args": "--a 'b c' --d it\\'s '#' x#y"})
    rows = list(words.items())
    block = loop_block("joboptions_values", ["rlnJobOptionVariable", "rlnJobOptionValue"], rows)
    again = parse_star(format_star(StarDocument((block,)))).records("joboptions_values")
    assert {r["rlnJobOptionVariable"]: r["rlnJobOptionValue"] for r in again} == words
    assert shlex.split(words["other_args"]) == ["--a", "b c", "--d", "it's", "#", "x#y"]
