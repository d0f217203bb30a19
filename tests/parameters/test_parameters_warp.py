"""The parameters of what WarpTools, AreTomo and IMOD do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crboost.errors import ParameterError
from crboost.parameters import (
    FsMotionAndCtf,
    ImportMovies,
    ProjectParameters,
    TsAlignment,
    TsCtf,
    TsImport,
    TsReconstruct,
    field_facts,
    unused_by_tool,
)


def project(**changes: object) -> ProjectParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    return new.with_values(changes)


def test_defaults_and_bounds_are_those_that_users_know() -> None:
    ctf = TsCtf()
    assert (ctf.window, ctf.defocus_hand, ctf.do_phase, ctf.perdevice) == (*(512, None, False, 1),)
    assert (ctf.resolution_angstrom, ctf.defocus_um) == ((30, 6), (1.1, 8))
    facts = field_facts(TsCtf, "window")
    assert (facts.minimum, facts.maximum, facts.unit) == (128, 2048, "px")
    assert field_facts(TsImport, "min_intensity").bounds == "0 to 1"
    assert (TsImport().min_intensity, TsImport().tomo_dimensions_px) == (0, None)
    assert FsMotionAndCtf().perdevice == 2
    alignment = TsAlignment()
    assert (alignment.patch_x, alignment.patch_y) == (0, 0)
    assert (alignment.axis_iter, alignment.axis_batch, alignment.perdevice) == (0, 0, 1)
    for model in (FsMotionAndCtf, TsAlignment, TsCtf, TsReconstruct):
        assert field_facts(model, "perdevice").bounds == "0 to 8"
        assert field_facts(model, "array_throttle").bounds == "1 to 64"


@pytest.mark.parametrize(
    ("hand", "acquisition_says", "flipped"),
    [
        (None, True, True),
        (None, False, False),
        ("set_flip", False, True),
        ("set_noflip", True, False),
        ("auto", True, None),
    ],
)
def test_the_hand_is_the_acquisitions_unless_the_job_says_it(
    hand: Any, acquisition_says: bool, flipped: bool | None
) -> None:
    job = TsCtf(defocus_hand=hand)
    assert job.is_flipped(acquisition_says=acquisition_says) is flipped
    changed = project(**{"acquisition.invert_defocus_hand": False})
    assert changed.fingerprint("tsCtf") != project().fingerprint("tsCtf")


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, None),
        ({"tool": "warp"}, "aretomo2"),
        ({"tool": "warp", "alignment_method": "etomo_fiducials"}, "etomo_fiducials"),
        ({"tool": "imod"}, "etomo_patches"),
        ({"tool": "aretomo3", "alignment_method": "aretomo2"}, None),
    ],
)
def test_a_tool_with_several_methods_has_one(changes: dict[str, Any], method: str | None) -> None:
    assert TsAlignment(**changes).method == method


def test_what_a_tool_or_its_method_does_not_use_is_known() -> None:
    warp = set(unused_by_tool(TsAlignment(tool="warp")))
    assert warp == {
        *("alignment_mode", "fiducial_diameter_nm", "fiducial_count", "dark_threshold"),
        "imod_patch_size",
    }
    beads = set(unused_by_tool(TsAlignment(tool="warp", alignment_method="etomo_fiducials")))
    assert {"patch_x", "patch_y", "imod_patch_size"} <= beads
    assert not beads & {"fiducial_diameter_nm", "fiducial_count", "axis_iter"}
    direct = set(unused_by_tool(TsAlignment(tool="aretomo2")))
    assert not direct & {"patch_x", "patch_y", "dark_threshold", "rescale_angpixs"}
    assert {"alignment_method", "axis_iter", "perdevice", "warp_arguments"} <= direct
    assert "m_grid" not in unused_by_tool(FsMotionAndCtf(tool="warp"))
    assert unused_by_tool(FsMotionAndCtf(tool="warp")) == []
    told = project(**{"jobs.tsAlignment.tool": "imod", "jobs.tsAlignment.patch_x": 5}).warnings()
    assert "jobs.tsAlignment.patch_x: the tool imod with etomo_patches does not use it" in told


@pytest.mark.parametrize(
    ("job", "uses_gpu"),
    [
        (FsMotionAndCtf(), False),
        (FsMotionAndCtf(tool="warp"), True),
        (TsImport(), False),
        (TsAlignment(tool="aretomo2"), True),
        (TsAlignment(tool="imod"), False),
        (TsCtf(), True),
    ],
)
def test_who_asks_for_a_gpu(job: TsAlignment, uses_gpu: bool) -> None:
    assert job.use_gpu is uses_gpu


def test_jobs_of_warp_alone_are_done_with_warp() -> None:
    assert (TsImport().tool, TsCtf().tool) == ("warp", "warp")
    with pytest.raises(ParameterError, match=r"jobs\.tsCtf\.tool = .*must be warp"):
        project(**{"jobs.tsCtf.tool": "cpu"})


def test_super_resolution_that_is_not_binned_is_told() -> None:
    recorded = {"acquisition.binning": 0.5, "jobs.fsMotionAndCtf.tool": "warp"}
    (told,) = project(**recorded).warnings()
    assert "jobs.fsMotionAndCtf.movie_binning = 1, and the movies seem to be in super" in told
    assert project(**recorded, **{"jobs.fsMotionAndCtf.movie_binning": 2}).warnings() == []
    assert project(**{"acquisition.binning": 0.5}).warnings() == []
    (told,) = project(**{"acquisition.binning": 0.5, "jobs.motionCorr.patch_x": 2}).warnings()
    assert "jobs.motionCorr.bin_factor = 1, and the movies seem to be in super" in told


def test_what_a_method_does_not_use_is_told_with_its_name() -> None:
    beads = {
        "jobs.tsAlignment.tool": "warp",
        "jobs.tsAlignment.alignment_method": "etomo_fiducials",
        "jobs.tsAlignment.patch_x": 4,
    }
    told = "jobs.tsAlignment.patch_x: the tool warp with etomo_fiducials does not use it"
    assert told in project(**beads).warnings()


def test_further_arguments_are_words_and_never_seen_by_a_shell() -> None:
    """B30: other arguments were pasted into a shell command as they were."""
    job = TsCtf(warp_arguments="--name 'a b'  --x $(rm -rf /)")
    assert job.further_arguments == ("--name", "a b", "--x", "$(rm", "-rf", "/)")
    assert TsCtf(warp_arguments=job.warp_arguments) == job
    with pytest.raises(ParameterError, match=r"warp_arguments = .*cannot be split: No closing"):
        project(**{"jobs.tsCtf.warp_arguments": "--name 'a"})


def test_bug_b4_at_most_belongs_to_the_import_alone() -> None:
    """B4: do_at_most became a WarpTools option that does not exist; only our own import has it."""
    assert "do_at_most" in ImportMovies.model_fields
    for model in (FsMotionAndCtf, TsImport, TsAlignment, TsCtf, TsReconstruct):
        assert "do_at_most" not in model.model_fields


def test_bug_b3_gain_operations_are_switches_of_the_acquisition() -> None:
    """B3: gain operations were a free text for an option that does not exist."""
    assert "gain_operations" not in FsMotionAndCtf.model_fields
    assert {
        *("acquisition.gain_flip_x", "acquisition.gain_flip_y", "acquisition.gain_transpose")
    } < FsMotionAndCtf.uses


def test_bug_b5_switches_are_true_or_false() -> None:
    """B5: halfmap_frames and deconv were numbers, and 0 switched on."""
    for name in ("halfmap_frames", "deconv"):
        assert field_facts(TsReconstruct, name).kind is bool


def test_bug_b6_a_defocus_in_angstrom_is_refused() -> None:
    """B6: defocus went to WarpTools in Å, which takes µm."""
    with pytest.raises(ParameterError, match="80000 µm is no defocus: the unit is µm"):
        project(**{"jobs.tsCtf.defocus_min_max": "11000:80000"})
