"""IMOD: stacks of tilt images, and alignment by its `batchruntomo`. Pure.

Directives of patch tracking and bead tracking are those that WarpTools gives to `batchruntomo`
(`ts_etomo_patches`, `ts_etomo_fiducials`, at the commit that `warptools_cli.json` names), so that
the same parameters mean the same, whoever calls IMOD. The final `tiltalign` is run by `submfg`:
batchruntomo would first spend hours on cross-validation.
"""

from __future__ import annotations

from crboost.builders.contract import number
from crboost.builders.series_values import (
    TiltSeries,
    image_name,
    optics_of,
    seen_from,
    tilt_axis_deg,
)
from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import EffectiveParameters, TsAlignment

#: batchruntomo's step 5 makes the fiducial model; `submfg align.com` does the rest.
LAST_STEP = 5
#: Overlap of tracked patches, as WarpTools fixes it.
PATCH_OVERLAP = 0.8
#: IMOD's programs say what they do in the language of C, and keep their temporary files here.
ENVIRONMENT = {"LC_ALL": "C"}


def stack(series: TiltSeries, out: str, *, shrink: float, clears: tuple[str, ...] = ()) -> Step:
    """The images of a tilt series, by tilt angle, in one file `<out>/<series>.st`.

    The tilt angles are beside it, `<out>/<series>.rawtlt`, one line for each image.

    Args:
        shrink: how much smaller the images become, with antialiasing, as `shrinkage` says; 1: not
            at all.
    """
    images = [seen_from(out, image_name(row)) for row in by_angle(series).rows]
    argv = [
        *("newstack", "-mode", "2"),
        *(("-shrink", number(shrink)) if shrink > 1 else ()),
        *(images or ["<images>"]),
        f"{series.name}.st",
    ]
    return Step(
        name="stack",
        argv=tuple(argv),
        directory=out,
        clears=clears,
        files={f"{out}/{series.name}.rawtlt": angles_text(series)},
        creates=(f"{out}/{series.name}.st",),
        environment=ENVIRONMENT,
        tool="imod",
    )


def align(
    series: TiltSeries, parameters: EffectiveParameters, job: TsAlignment, out: str
) -> list[Step]:
    """Alignment by tracked patches or gold beads.

    Results: `<out>/<series>.xf` and `.tlt`, one line for each image of `by_angle(series)`.

    Args:
        out: the tilt series' own directory, project-relative.

    Raises:
        ParameterError: the method is none of IMOD's, or the images would be enlarged.
    """
    method = job.method
    if method not in ("etomo_patches", "etomo_fiducials"):
        raise ParameterError(
            f"jobs.{parameters.node}.alignment_method = {job.alignment_method}: IMOD has no such",
            hint="set it to etomo_patches or etomo_fiducials, or tool to aretomo2 or aretomo3",
        )
    directives = f"{out}/{series.name}.adoc"
    batch = Step(
        name="fiducial model",
        argv=(
            *("batchruntomo", "-DirectiveFile", f"{series.name}.adoc", "-CurrentLocation", "."),
            *("-RootName", series.name, "-EndingStep", str(LAST_STEP)),
        ),
        directory=out,
        files={directives: directive_text(series, parameters, job)},
        creates=(f"{out}/align.com",),
        environment=ENVIRONMENT,
        tool="imod",
    )
    fit = Step(
        name="alignment",
        argv=("submfg", "align.com"),
        directory=out,
        creates=(f"{out}/{series.name}.xf", f"{out}/{series.name}.tlt"),
        environment=ENVIRONMENT,
        tool="imod",
    )
    shrink = shrinkage(series, parameters, job)
    return [stack(series, out, shrink=shrink, clears=(out,)), batch, fit]


def directive_text(series: TiltSeries, parameters: EffectiveParameters, job: TsAlignment) -> str:
    """The directives of `batchruntomo` for one tilt series."""
    angpix = job.alignment_pixel_size_angstrom
    tracking: dict[str, str]
    if job.method == "etomo_fiducials":
        tracking = {
            "setupset.copyarg.gold": number(job.fiducial_diameter_nm),
            "runtime.Fiducials.any.trackingMethod": "0",
            "runtime.Fiducials.any.seedingMethod": "1",
            "comparam.autofidseed.autofidseed.TargetNumberOfBeads": str(job.fiducial_count),
        }
    else:
        size = round(job.imod_patch_size * 10 / angpix)
        tracking = {
            "runtime.Fiducials.any.trackingMethod": "1",
            "comparam.xcorr_pt.tiltxcorr.IterateCorrelations": "4",
            "comparam.xcorr_pt.imodchopconts.LengthOfPieces": "-1",
            "comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY": f"{size},{size}",
            "comparam.xcorr_pt.tiltxcorr.OverlapOfPatchesXandY": f"{PATCH_OVERLAP},{PATCH_OVERLAP}",
        }
    directives = {
        "setupset.copyarg.userawtlt": "1",
        "setupset.copyarg.stackext": "st",
        "setupset.copyarg.rotation": number(round(tilt_axis_deg(series, parameters), 3)),
        "setupset.copyarg.pixel": number(round(angpix / 10, 6)),
        "setupset.copyarg.dual": "0",
        "comparam.xcorr.tiltxcorr.FilterRadius2": "0.5",
        "comparam.xcorr.tiltxcorr.ExcludeCentralPeak": "1",
        **tracking,
        "comparam.align.tiltalign.MagOption": "0",
        "comparam.align.tiltalign.TiltOption": "0",
        "comparam.align.tiltalign.RotOption": "0",
        "comparam.align.tiltalign.RobustFitting": "1",
        "comparam.align.tiltalign.WeightWholeTracks": "1",
        "comparam.restrictalign.restrictalign.UseCrossValidation": "0",
    }
    return "".join(f"{name} = {value}\n" for name, value in directives.items())


def shrinkage(series: TiltSeries, parameters: EffectiveParameters, job: TsAlignment) -> float:
    """How much smaller than the images the aligned stack is: the number that `newstack` gets.

    Raises:
        ParameterError: it would be larger.
    """
    pixel = optics_of(series, parameters).pixel_size_angstrom
    angpix = job.alignment_pixel_size_angstrom
    if angpix < pixel * 0.9999:
        raise ParameterError(
            f"jobs.{parameters.node}.rescale_angpixs = {number(angpix)} Å: the images have "
            f"{number(pixel)} Å per pixel, and are not enlarged",
            hint=f"set it to at least {number(pixel)}",
        )
    factor = angpix / pixel
    return round(factor, 6) if factor > 1.0001 else 1.0


def by_angle(series: TiltSeries) -> TiltSeries:
    """The tilt series with its images in the order of a stack: by nominal tilt angle."""
    rows = sorted(series.rows, key=lambda row: float(row["rlnTomoNominalStageTiltAngle"]))
    return TiltSeries(series.name, series.global_row, rows)


def angles_text(series: TiltSeries) -> str:
    """The tilt angles of a stack, one line for each image."""
    return "".join(
        f"{float(row['rlnTomoNominalStageTiltAngle']):.2f}\n" for row in by_angle(series).rows
    )
