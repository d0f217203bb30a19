"""AreTomo2, AreTomo3 and IMOD called directly: stack, angles, exact commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crboost.builders import aretomo, imod
from crboost.builders.series_values import TiltSeries
from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import EffectiveParameters, ProjectParameters, TsAlignment

OUT = "External/job004/aretomo2/TS_01"


def row(number: int, angle: float) -> dict[str, Any]:
    return {
        "rlnMicrographMovieName": f"frames/{number}.eer",
        "rlnTomoNominalStageTiltAngle": angle,
        "rlnTomoNominalTiltAxisAngle": 85.3,
        "rlnMicrographPreExposure": (number - 1) * 3.0,
        "rlnMicrographName": f"External/job002/cpu/TS_01/{number}.mrc",
    }


SERIES = TiltSeries(
    "TS_01", {"rlnMicrographOriginalPixelSize": 2.0}, [row(1, 0.0), row(2, 3.0), row(3, -3.0)]
)
STACK = (
    *("newstack", "-mode", "2", "-shrink", "2.7"),
    *(f"../../../job002/cpu/TS_01/{number}.mrc" for number in (3, 1, 2)),
    "TS_01.st",
)


def effective(tool: str, **changes: object) -> EffectiveParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    chosen = {f"jobs.tsAlignment.{name}": value for name, value in changes.items()}
    return new.with_values({"jobs.tsAlignment.tool": tool, **chosen}).effective("tsAlignment")


def steps(tool: str, series: TiltSeries = SERIES, **changes: object) -> list[Step]:
    seen = effective(tool, **changes)
    job = seen.job_as(TsAlignment)
    made = {"aretomo2": aretomo.align2, "aretomo3": aretomo.align3, "imod": imod.align}[tool]
    return made(series, seen, job, OUT)


@pytest.mark.parametrize("tool", ["aretomo2", "aretomo3", "imod"])
def test_the_stack_is_ordered_by_tilt_angle_and_so_are_the_angles(tool: str) -> None:
    stack = steps(tool)[0]
    assert stack.argv == STACK
    assert stack.files[f"{OUT}/TS_01.rawtlt"] == "-3.00\n0.00\n3.00\n"
    assert stack.creates == (f"{OUT}/TS_01.st",)
    assert (stack.tool, stack.directory, stack.clears) == ("imod", OUT, (OUT,))


def test_images_that_are_small_enough_stay_as_they_are() -> None:
    assert "-shrink" not in steps("aretomo2", rescale_angpixs=2.0)[0].argv
    with pytest.raises(ParameterError, match=r"rescale_angpixs = 2 Å: the images have 4 Å"):
        steps("imod", TiltSeries("TS_01", {"rlnTomoTiltSeriesPixelSize": 4.0}, SERIES.rows),
              rescale_angpixs=2.0)  # fmt: skip


def test_aretomo2() -> None:
    _, align = steps("aretomo2")
    assert align.argv == (
        *("AreTomo2", "-InMrc", "TS_01.st", "-OutMrc", "TS_01_aligned.mrc"),
        *("-AngFile", "TS_01.rawtlt", "-VolZ", "0", "-OutBin", "1"),
        *("-TiltAxis", "85.3", "-1", "-AlignZ", "556", "-TiltCor", "1", "-DarkTol", "0.3"),
        *("-Gpu", "0", "-OutImod", "1", "-Patch", "0", "0"),
    )
    assert align.creates == (f"{OUT}/TS_01.st.aln",)
    assert (align.tool, align.directory) == ("aretomo2", OUT)


def test_aretomo3() -> None:
    _, align = steps("aretomo3", patch_x=4, patch_y=3)
    assert align.argv == (
        *("AreTomo3", "-InPrefix", "TS_01", "-InSuffix", ".st", "-OutDir", "."),
        *("-PixSize", "5.4", "-kV", "300", "-Cs", "2.7"),
        *("-TiltAxis", "85.3", "-1", "-AlignZ", "556", "-TiltCor", "1", "-DarkTol", "0.3"),
        *("-Gpu", "0", "-AtPatch", "4", "3", "-VolZ", "0", "-ExtZ", "0", "-OutImod", "2"),
        *("-Cmd", "1", "-Serial", "1", "-CorrCTF", "0", "0"),
    )
    assert align.files == {f"{OUT}/TS_01_TLT.txt": "-3.00 3 3.000\n0.00 1 3.000\n3.00 2 3.000\n"}
    assert align.creates == (f"{OUT}/TS_01.aln",)


@pytest.mark.parametrize("tool", ["aretomo2", "aretomo3"])
def test_the_axis_is_that_of_the_tilt_series_not_of_the_project(tool: str) -> None:
    rows = [{**one, "rlnTomoNominalTiltAxisAngle": -94.81234} for one in SERIES.rows]
    _, align = steps(tool, TiltSeries("TS_01", SERIES.global_row, rows))
    assert align.argv[align.argv.index("-TiltAxis") + 1] == "-94.812"


def test_patches_in_one_direction_alone_are_refused() -> None:
    with pytest.raises(ParameterError, match="patch_x = 5 and patch_y = 0"):
        steps("aretomo2", patch_x=5)


def directives(**changes: object) -> dict[str, str]:
    text = steps("imod", **changes)[1].files[f"{OUT}/TS_01.adoc"]
    return dict(line.split(" = ") for line in text.splitlines())  # type: ignore[misc]


def test_imod_runs_to_the_model_then_aligns() -> None:
    _, batch, align = steps("imod")
    assert batch.argv == (
        *("batchruntomo", "-DirectiveFile", "TS_01.adoc", "-CurrentLocation", "."),
        *("-RootName", "TS_01", "-EndingStep", "5"),
    )
    assert batch.creates == (f"{OUT}/align.com",)
    assert align.argv == ("submfg", "align.com")
    assert align.creates == (f"{OUT}/TS_01.xf", f"{OUT}/TS_01.tlt")


def test_imod_follows_patches() -> None:
    given = directives(imod_patch_size=108)
    assert given["runtime.Fiducials.any.trackingMethod"] == "1"
    assert given["comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY"] == "200,200"
    assert given["setupset.copyarg.rotation"] == "85.3"
    assert given["setupset.copyarg.pixel"] == "0.54"
    assert "setupset.copyarg.gold" not in given


def test_imod_follows_beads() -> None:
    given = directives(alignment_method="etomo_fiducials", fiducial_count=25)
    assert given["runtime.Fiducials.any.trackingMethod"] == "0"
    assert given["setupset.copyarg.gold"] == "10"
    assert given["comparam.autofidseed.autofidseed.TargetNumberOfBeads"] == "25"
    assert not any("xcorr_pt" in name for name in given)


def test_imod_is_no_aretomo() -> None:
    with pytest.raises(ParameterError, match="alignment_method = aretomo3: IMOD has no such"):
        steps("imod", alignment_method="aretomo3")


@pytest.mark.parametrize("tool", ["aretomo2", "aretomo3", "imod"])
def test_a_plan_can_show_commands_without_any_image(tool: str) -> None:
    made = steps(tool, TiltSeries("<tilt series>", {}, []))
    assert all(step.argv for step in made)
