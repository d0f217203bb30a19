"""AreTomo2 and AreTomo3, called directly: one tilt series -> steps. Pure.

The stack is made with IMOD's newstack at the pixel size of the alignment. Arguments are those with
which WarpTools calls the same programs (its worker, at the commit that `warptools_cli.json` names),
but for the dark images: WarpTools keeps them all, here `dark_threshold` decides. No tomogram is
reconstructed (`-VolZ 0`).

The tilt axis is fixed to that of the tilt series' table (`-TiltAxis a -1`). `-Gpu 0` is
the one GPU that a tilt series is shown (`crboost.gpus`).
"""

from __future__ import annotations

from crboost.builders import imod
from crboost.builders.contract import number
from crboost.builders.series_values import TiltSeries, optics_of, tilt_axis_deg, tilt_dose_e_per_a2
from crboost.builders.step import Step
from crboost.builders.warp import patches
from crboost.parameters import EffectiveParameters, TsAlignment

ENVIRONMENT = {"LC_ALL": "C"}


def align2(
    series: TiltSeries,
    parameters: EffectiveParameters,
    job: TsAlignment,
    out: str,
) -> list[Step]:
    """Alignment with AreTomo2.

    Result: `<out>/<series>.st.aln` (`CSaveAlnFile` of AreTomo2, commit 01e7219), in pixels of the
    stack; its images are in the order of `imod.by_angle(series)`, and those that it left out are
    its DarkFrame lines.

    Args:
        out: the tilt series' own directory, project-relative.

    Raises:
        ParameterError: patches in one direction alone, or images that would be enlarged.
    """
    name = series.name
    argv = (
        *("AreTomo2", "-InMrc", f"{name}.st", "-OutMrc", f"{name}_aligned.mrc"),
        *("-AngFile", f"{name}.rawtlt", "-VolZ", "0", "-OutBin", "1"),
        *_common(series, parameters, job),
        *("-OutImod", "1", "-Patch", *map(str, patches(parameters, job))),
    )
    return [_stack(series, parameters, job, out), _step(argv, out, f"{name}.st.aln", "aretomo2")]


def align3(
    series: TiltSeries,
    parameters: EffectiveParameters,
    job: TsAlignment,
    out: str,
) -> list[Step]:
    """Alignment with AreTomo3, from the stack on (`-Cmd 1`), without its CTF correction.

    Result: `<out>/<series>.aln`; otherwise as `align2`. AreTomo3 reads the angles from
    `<series>_TLT.txt`: tilt angle, place in the order of recording from 1 on, dose of the image
    (`CTsPackage::mLoadTiltFile` of AreTomo3, commit 8a068cf). It reads no 16-bit floats: stacks
    are of mode 2.
    """
    name = series.name
    optics = optics_of(series, parameters)
    argv = (
        *("AreTomo3", "-InPrefix", name, "-InSuffix", ".st", "-OutDir", "."),
        *("-PixSize", number(job.alignment_pixel_size_angstrom)),
        *("-kV", str(round(optics.voltage_kv)), "-Cs", number(optics.spherical_aberration_mm)),
        *_common(series, parameters, job),
        *("-AtPatch", *map(str, patches(parameters, job)), "-VolZ", "0", "-ExtZ", "0"),
        *("-OutImod", "2", "-Cmd", "1", "-Serial", "1", "-CorrCTF", "0", "0"),
    )
    stack = _stack(series, parameters, job, out)
    align = _step(
        argv,
        out,
        f"{name}.aln",
        "aretomo3",
        {f"{out}/{name}_TLT.txt": tlt_text(series, parameters)},
    )
    return [stack, align]


def tlt_text(series: TiltSeries, parameters: EffectiveParameters) -> str:
    """`_TLT.txt` of AreTomo3: a line for each image of the stack."""
    recorded = sorted(float(row["rlnMicrographPreExposure"]) for row in series.rows)
    dose = tilt_dose_e_per_a2(series, parameters)
    return "".join(
        f"{float(row['rlnTomoNominalStageTiltAngle']):.2f} "
        f"{recorded.index(float(row['rlnMicrographPreExposure'])) + 1} {dose:.3f}\n"
        for row in imod.by_angle(series).rows
    )


def _common(
    series: TiltSeries, parameters: EffectiveParameters, job: TsAlignment
) -> tuple[str, ...]:
    axis = tilt_axis_deg(series, parameters)
    thickness_px = round(job.thickness_nm * 10 / job.alignment_pixel_size_angstrom)
    return (
        *("-TiltAxis", number(round(axis, 3)), "-1", "-AlignZ", str(thickness_px)),
        *("-TiltCor", "1", "-DarkTol", number(job.dark_threshold), "-Gpu", "0"),
    )


def _stack(series: TiltSeries, parameters: EffectiveParameters, job: TsAlignment, out: str) -> Step:
    return imod.stack(series, out, shrink=imod.shrinkage(series, parameters, job), clears=(out,))


def _step(
    argv: tuple[str, ...], out: str, result: str, tool: str, files: dict[str, str] | None = None
) -> Step:
    return Step(
        name="alignment",
        argv=argv,
        directory=out,
        files=files or {},
        creates=(f"{out}/{result}",),
        environment=ENVIRONMENT,
        tool=tool,
    )
