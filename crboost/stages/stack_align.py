"""tsAlignment with programs that align a stack: AreTomo2, AreTomo3 and IMOD, called directly."""

from __future__ import annotations

from collections.abc import Sequence

from crboost.builders import aretomo, imod
from crboost.builders.series_values import optics_of
from crboost.builders.step import Step
from crboost.errors import ToolError
from crboost.parameters import TsAlignment
from crboost.stages.base import Context, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.stages.tomograms import map_header
from crboost.tilt_name import tilt_name
from crboost.translate.alignment import aligned_output
from crboost.translate.aln import aln_alignments, local_warnings, read_aln
from crboost.translate.image_stack import Centre, ImageStack
from crboost.translate.imod import (
    distortion_warnings,
    imod_alignments,
    read_align_log,
    read_angles,
    read_x_tilts,
    read_xf,
)
from crboost.translate.output import SeriesOutput


class AreTomoAlign(FromStar):
    """tsAlignment with AreTomo2 or AreTomo3.

    Args:
        version: 2 or 3.
    """

    def __init__(self, version: int) -> None:
        self._version = version

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsAlignment)
        make = aretomo.align2 if self._version == 2 else aretomo.align3
        known = series.tilt_series
        return make(known, context.parameters, job, context.tool_directory(series.name))

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The `.aln`; dark images leave the table.

        Raises:
            FileFormatError: it is none, or not of this stack.
        """
        directory = context.project / context.tool_directory(series.name)
        ending = ".st.aln" if self._version == 2 else ".aln"
        names = _stack_order(series)
        found = read_aln(directory / f"{series.name}{ending}", images=len(names))
        stack = _stack(context, series, _image_size(context, series), "half")
        alignments = aln_alignments(names, found, stack)
        output = aligned_output(series.rows, alignments, f"AreTomo{self._version}")
        output.warnings.extend(local_warnings(found, stack))
        return output


class ImodAlign(FromStar):
    """tsAlignment with IMOD."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsAlignment)
        out = context.tool_directory(series.name)
        return imod.align(series.tilt_series, context.parameters, job, out)

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The transforms, angles and the residual.

        Raises:
            FileFormatError: a file is damaged, or not of this stack.
        """
        base = context.project / context.tool_directory(series.name) / series.name
        names = _stack_order(series)
        transforms = read_xf(base.with_name(f"{series.name}.xf"), count=len(names))
        angles = read_angles(base.with_name(f"{series.name}.tlt"), count=len(names))
        x_tilts = base.with_name(f"{series.name}.xtilt")
        image_px = _image_size(context, series)
        stack = _stack(context, series, image_px, "middle")
        alignments = imod_alignments(
            names,
            transforms,
            angles,
            stack,
            x_tilts_deg=read_x_tilts(x_tilts, len(names)) if x_tilts.is_file() else None,
        )
        log = base.with_name("align.log")
        residual = read_align_log(log).residual_px if log.is_file() else None
        pixel = optics_of(series.tilt_series, context.parameters).pixel_size_angstrom
        output = aligned_output(
            series.rows,
            alignments,
            f"IMOD, {context.parameters.job_as(TsAlignment).method}",
            residual_px=None if residual is None else residual * stack.pixel_size_angstrom / pixel,
        )
        output.warnings.extend(distortion_warnings(names, transforms, image_px))
        return output


def _stack_order(series: SeriesInput) -> list[str]:
    return [tilt_name(row) for row in imod.by_angle(series.tilt_series).rows]


def _image_size(context: Context, series: SeriesInput) -> tuple[int, int]:
    """Of the full-size tilt images, (x, y).

    Raises:
        FileFormatError: the first of them is no MRC file.
    """
    (x, y, _), _ = map_header(context.project / str(series.rows[0]["rlnMicrographName"]))
    return x, y


def _stack(
    context: Context, series: SeriesInput, image_px: tuple[int, int], centre: Centre
) -> ImageStack:
    """Where the pixels of the stack that `newstack` made lie in the images.

    Args:
        image_px: size of the full-size images.
        centre: from where the program that aligned it counts.

    Raises:
        FileFormatError: the stack is no MRC file.
        ToolError: the stack does not hold every image, or is not as small as was asked for.
    """
    known = series.tilt_series
    factor = imod.shrinkage(known, context.parameters, context.parameters.job_as(TsAlignment))
    file = f"{context.tool_directory(series.name)}/{series.name}.st"
    (width, height, images), _ = map_header(context.project / file)
    if images != len(series.rows):
        raise ToolError(f"{file} holds {images} images, {len(series.rows)} expected")
    x, y = image_px
    if max(abs(x / factor - width), abs(y / factor - height)) > 1:
        raise ToolError(
            f"{file} has images of {width} x {height} pixels, {x} x {y} shrunk {factor} times "
            "were expected"
        )
    pixel = optics_of(known, context.parameters).pixel_size_angstrom
    return ImageStack.shrunk(image_px, pixel, factor, centre=centre)
