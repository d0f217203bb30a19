"""The job types that WarpTools does: from movies to tomograms.

Success is what the files say: WarpTools ends with exit code 0 on wrong arguments and on failures
of single items, and leaves an XML file for an item that failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from crboost.builders import warp as builder
from crboost.builders.series_values import TiltSeries, optics_of
from crboost.builders.step import Step
from crboost.errors import CrboostError, FileFormatError, ToolError
from crboost.files import read_json, write_json
from crboost.parameters import FsMotionAndCtf, TsAlignment, TsCtf, TsImport, TsReconstruct
from crboost.stages.base import Context, DatasetOutput, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.stages.tomograms import map_header
from crboost.tilt_name import tilt_name
from crboost.translate.alignment import (
    TiltAlignment,
    aligned_output,
    alignment_of,
    mean_axis_deg,
)
from crboost.translate.imod import ImodFiles, tlt_text, xf_text
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row
from crboost.translate.tomostar import TomostarTilt, read_tomostar, write_tomostar
from crboost.translate.warp_frame_series import (
    FrameSeries,
    average_files,
    frame_series_output,
    read_frame_series_of,
    read_motion_angstrom,
)
from crboost.translate.warp_hand import correlation_in, is_flipped
from crboost.translate.warp_tilt_series import (
    WarpTiltSeries,
    deformation_warnings,
    read_warp_tilt_series,
    warp_alignments,
    warp_ctf_output,
    warp_import_files,
)

#: RELION's size of a tomogram in full-size pixels of the images; tsImport settles it.
SIZE_COLUMNS = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")


@dataclass(frozen=True)
class WarpSource:
    """Where WarpTools finds a tilt series of an earlier job.

    Attributes:
        imported: its directory in the tsImport job, project-relative.
        aligned: the folder with its aligned XML, project-relative; None: it was not WarpTools
            that aligned it.
        image_px: size (x, y) of its images.
        stack: the images that Warp takes, where it is not WarpTools that aligned it.
    """

    imported: str
    aligned: str | None = None
    image_px: tuple[int, int] = (0, 0)
    stack: tuple[TomostarTilt, ...] = ()


class WarpFrames(FromStar):
    """fsMotionAndCtf with WarpTools."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(FsMotionAndCtf)
        return builder.frames(
            _tilt_series(series), context.parameters, job, context.tool_directory(series.name)
        )

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Every image by itself: what one lacks counts against it alone."""
        job = context.parameters.job_as(FsMotionAndCtf)
        directory = f"{context.tool_directory(series.name)}/{builder.FRAME_FOLDER}"
        found: dict[str, FrameSeries | str] = {}
        motion: dict[str, float] = {}
        damaged: list[tuple[str, str]] = []
        for name, one in read_frame_series_of(series.rows, context.project / directory).items():
            files = average_files(directory, name, halves=job.out_average_halves)
            gone = [file for file in files.values() if not (context.project / file).is_file()]
            bad = isinstance(one, str) or one.problem is not None
            found[name] = one if bad or not gone else f"WarpTools did not write {gone[0]}"
            tracks = context.project / directory / "average" / f"{name}_motion.json"
            if tracks.is_file():
                try:
                    motion[name] = read_motion_angstrom(tracks)
                except FileFormatError as error:  # nothing but a number for people is lost
                    damaged.append((f"tilt image {name}", f"no motion: {error.message}"))
        optics = optics_of(_tilt_series(series), context.parameters)
        output = frame_series_output(
            series.rows,
            found,
            directory,
            optics.movie_pixel_size_angstrom * job.movie_binning,
            halves=job.out_average_halves,
            motion_angstrom=motion,
        )
        output.warnings.extend(grouped(damaged))
        return output


class WarpImport(FromStar):
    """tsImport: the images that go on become a `.tomostar`."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsImport)
        return builder.ts_import(
            _tilt_series(series), context.parameters, job, context.tool_directory(series.name)
        )

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The images that Warp took; their doses are put right in the `.tomostar`.

        Raises:
            FileFormatError: the `.tomostar` is none.
        """
        job = context.parameters.job_as(TsImport)
        out = context.tool_directory(series.name)
        tomostar = f"{out}/{builder.TOMOSTARS}/{series.name}.tomostar"
        known = _tilt_series(series)
        doses = builder.tomostar_doses(known)
        taken = read_tomostar(context.project / tomostar)
        strange = [tilt.name for tilt in taken if tilt.name not in doses]
        if strange:
            raise FileFormatError(
                context.project / tomostar, f"names {strange[0]}, which is not in the tilt series"
            )
        write_tomostar(
            context.project / tomostar,
            [replace(tilt, dose_e_per_a2=doses[tilt.name]) for tilt in taken],
        )
        optics = optics_of(known, context.parameters)
        scale = optics.movie_pixel_size_angstrom / optics.pixel_size_angstrom
        size = builder.tomogram_dimensions_px(known, context.parameters, job)
        columns: Row = dict(
            zip(SIZE_COLUMNS, (round(length * scale) for length in size), strict=True)
        )
        names = {tilt.name for tilt in taken}
        rows = [dict(row) for row in series.rows if tilt_name(row) in names]
        left = [_image(row) for row in series.rows if tilt_name(row) not in names]
        return SeriesOutput(
            columns,
            rows,
            metrics={"tilts": len(rows), "tilts_total": len(series.rows)},
            tilts=[
                _record(row, None if tilt_name(row) in names else "too dark (min_intensity)")
                for row in series.rows
            ],
            warnings=grouped([(image, "excluded: WarpTools did not take it") for image in left]),
            outputs=[tomostar, f"{out}/{builder.SERIES_SETTINGS}"],
        )


class WarpAlign(FromStar):
    """tsAlignment with WarpTools, which calls AreTomo or IMOD."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        found = {}
        for name, one in super().inputs(context).items():
            try:
                size = _image_size(context.project, one)
            except CrboostError as error:
                found[name] = replace(one, problem=str(error))
                continue
            source = WarpSource(_directory_of(context.input_star, name), image_px=size)
            found[name] = replace(one, source=source)
        return found

    def dataset_steps(self, context: Context, series: Mapping[str, SeriesInput]) -> Sequence[Step]:
        """One tilt axis for the microscope session, if the parameters ask for it."""
        return builder.refine_axis(
            [_tilt_series(one) for one in series.values()],
            context.parameters,
            context.parameters.job_as(TsAlignment),
            context.job,
            {name: _source(one).imported for name, one in series.items()},
        )

    def dataset_output(self, context: Context, series: Mapping[str, SeriesInput]) -> DatasetOutput:
        """The mean axis of the tilt series that it was refined on.

        Raises:
            ToolError: there is none.
        """
        job = context.parameters.job_as(TsAlignment)
        files = builder.axis_files(list(series), job, context.job)
        axes: dict[str, float] = {}
        left_out: dict[str, str] = {}
        for name, file in files.items():
            axis = _axis_deg(context.project / file)
            if isinstance(axis, str):
                left_out[name] = f"the tilt axis was not refined on it: {axis}"
            else:
                axes[name] = axis
        mean = mean_axis_deg(list(axes.values()))
        if mean is None:
            raise ToolError(
                f"the tilt axis could be refined on none of {len(files)} tilt series. "
                + "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3]),
                hint="let axis_batch take more tilt series, or set axis_iter to 0",
            )
        settled = f"{context.job}/{builder.DATASET}/{builder.AXIS_FILE}"
        write_json(context.project / settled, {"tilt_axis_deg": mean, "tilt_series": axes})
        return DatasetOutput([*(files[name] for name in axes), settled], left_out)

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsAlignment)
        return builder.align(
            _tilt_series(series),
            context.parameters,
            job,
            context.tool_directory(series.name),
            _source(series).imported,
            axis_deg=_refined_axis_deg(context) if job.axis_iter else None,
        )

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The alignment as Warp's XML has it: what Warp reconstructs with.

        Raises:
            ToolError: WarpTools failed on the tilt series, or did not align it.
        """
        found = _read_xml(context, series, builder.SERIES_FOLDER)
        if not found.aligned:
            raise ToolError("WarpTools left the tilt series unaligned: all its shifts are zero")
        pixel = optics_of(_tilt_series(series), context.parameters).pixel_size_angstrom
        alignments = warp_alignments(found, _source(series).image_px, _size_px(series), pixel)
        method = context.parameters.job_as(TsAlignment).method
        output = aligned_output(series.rows, alignments, f"WarpTools, {method}")
        output.warnings.extend(deformation_warnings(found))
        output.outputs.append(_xml(context, series, builder.SERIES_FOLDER))
        return output


class FromWarp(FromStar):
    """A job that wants an aligned tilt series, and Warp's own view of it."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """Tilt series that are aligned, and known to Warp.

        Raises:
            CrboostError: there is no tsImport to go by.
        """
        star = context.other_inputs.get("warp_import")
        if star is None or not (context.project / star).is_file():
            raise CrboostError(
                f"{context.job}: no tilt series of WarpTools {star or 'were given'}",
                hint="run tsImport, or set input_warp_import",
            )
        found = super().inputs(context)
        known = FromStar().inputs(replace(context, input_star=star))
        assert context.input_star is not None
        return {
            name: _with_source(context, one, known.get(name), star) for name, one in found.items()
        }

    def aligned(self, context: Context, series: SeriesInput) -> tuple[list[Step], str]:
        """The steps that make Warp's XML of an alignment, if it takes any, and its folder."""
        source = _source(series)
        if source.aligned is not None:
            return [], source.aligned
        out = context.tool_directory(series.name)
        pixel = optics_of(_tilt_series(series), context.parameters).pixel_size_angstrom
        files = _import_files(series, source, pixel)
        aligned = {tilt_name(row) for row in series.rows}
        kept = [tilt.name for tilt in source.stack if tilt.name in aligned]
        steps = builder.import_alignment(
            _tilt_series(series),
            out,
            source.imported,
            xf=xf_text(files.transforms),
            tlt=tlt_text(files.angles_deg, decimals=4),
            pixel_size_angstrom=pixel,
            python=context.python,
            keep=kept if len(kept) < len(source.stack) else (),
        )
        return steps, f"{out}/{builder.FOREIGN_ALIGNMENT}"


class WarpCtf(FromWarp):
    """tsCtf: the CTF of tilt series as a whole, and the defocus hand."""

    def dataset_steps(self, context: Context, series: Mapping[str, SeriesInput]) -> Sequence[Step]:
        """What each tilt series says of the defocus hand, if the parameters ask for that."""
        if context.parameters.job_as(TsCtf).defocus_hand != "auto":
            return []
        steps: list[Step] = []
        for name, one in series.items():
            try:
                before, folder = self.aligned(context, one)
            except CrboostError:  # what ails it is told where the tilt series itself is done
                continue
            steps += [replace(step, tilt_series=name) for step in before]
            out = context.tool_directory(name)
            steps.append(builder.check_hand(name, context.job, out, _source(one).imported, folder))
        if steps:  # nothing that a tilt series said in an earlier start counts
            old = f"{context.job}/{builder.DATASET}"
            steps[0] = replace(steps[0], clears=(*steps[0].clears, old))
        return steps

    def dataset_output(self, context: Context, series: Mapping[str, SeriesInput]) -> DatasetOutput:
        """The hand that the tilt series agree on.

        Raises:
            ToolError: not one of them says anything.
        """
        said: dict[str, float] = {}
        left_out: dict[str, str] = {}
        for name in series:
            path = context.project / builder.hand_file(name, context.job)
            found = correlation_in(path.read_text(encoding="utf-8")) if path.is_file() else None
            if found is None:
                left_out[name] = "WarpTools did not say which defocus hand it has"
            else:
                said[name] = found
        flip = is_flipped(list(said.values()))
        if flip is None:
            raise ToolError(
                f"{len(said)} of {len(series)} tilt series say something of the defocus hand, and "
                "nothing follows from it",
                hint="fsMotionAndCtf must fit a local CTF (c_grid 2x2x1); or set defocus_hand",
            )
        settled = f"{context.job}/{builder.DATASET}/{builder.HAND_FILE}"
        write_json(context.project / settled, {"flip": flip, "correlations": said})
        return DatasetOutput([settled], left_out)

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsCtf)
        before, folder = self.aligned(context, series)
        fit = builder.ctf(
            _tilt_series(series),
            context.parameters,
            job,
            context.tool_directory(series.name),
            _source(series).imported,
            folder,
            flip=_flip(context, job),
        )
        return [*before, *fit]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Defocus and hand.

        Raises:
            ToolError: WarpTools failed on the tilt series.
        """
        found = _read_xml(context, series, builder.SERIES_FOLDER)
        output = warp_ctf_output(series.rows, found)
        output.outputs.append(_xml(context, series, builder.SERIES_FOLDER))
        return output


class WarpReconstruct(FromWarp):
    """tsReconstruct with WarpTools."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsReconstruct)
        before, folder = self.aligned(context, series)
        made = builder.reconstruct(
            _tilt_series(series),
            context.parameters,
            job,
            context.tool_directory(series.name),
            _source(series).imported,
            folder,
        )
        return [*before, *made]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The tomogram and its halves.

        Raises:
            ToolError: one of them is not of the size that was asked for.
        """
        job = context.parameters.job_as(TsReconstruct)
        known = _tilt_series(series)
        optics = optics_of(known, context.parameters)
        made = builder.tomograms(known, job, context.tool_directory(series.name))
        binning = job.tomogram_pixel_size_angstrom / optics.pixel_size_angstrom
        for file in made.values():
            size, _ = map_header(context.project / file)
            for found, whole in zip(size, _size_px(series), strict=True):
                if abs(found - whole / binning) > 2:
                    raise ToolError(
                        f"{file} has {size} voxels, {_size_px(series)} / {binning:.3g} expected"
                    )
        columns: Row = {
            "rlnTomoTomogramBinning": binning,
            "rlnTomoReconstructedTomogram": made["tomogram"],
        }
        for half in ("half1", "half2"):
            if half in made:
                columns[f"rlnTomoReconstructedTomogram{half.title()}"] = made[half]
        return SeriesOutput(
            columns,
            [dict(row) for row in series.rows],
            metrics={
                "tilts": len(series.rows),
                "tomogram": made["tomogram"],
                "tomogram_pixel_size_angstrom": job.tomogram_pixel_size_angstrom,
            },
            tilts=[_record(row, None) for row in series.rows],
            outputs=list(made.values()),
        )


def _tilt_series(series: SeriesInput) -> TiltSeries:
    return TiltSeries(series.name, series.global_row, series.rows)


def _source(series: SeriesInput) -> WarpSource:
    """Where its files are; what a plan shows of an example has none."""
    if isinstance(series.source, WarpSource):
        return series.source
    return WarpSource(f"<tsImport>/warp/{series.name}", f"<aligned>/warp/{series.name}")


def _directory_of(star: str | None, name: str) -> str:
    """The directory of a tilt series in the job of WarpTools that wrote `star`."""
    return f"{PurePosixPath(star or '<job>/').parent}/warp/{name}"


def _with_source(
    context: Context, series: SeriesInput, imported: SeriesInput | None, star: str
) -> SeriesInput:
    """A tilt series with what Warp knows of it, or why that will not do."""
    if imported is None:
        return replace(series, problem=f"WarpTools does not know it: it is not in {star}")
    row = {**series.global_row, **{column: imported.global_row[column] for column in SIZE_COLUMNS}}
    series = replace(series, global_row=row)
    folder = f"{_directory_of(context.input_star, series.name)}/{builder.SERIES_FOLDER}"
    is_warps = (context.project / folder / f"{series.name}.xml").is_file()
    directory = _directory_of(star, series.name)
    tomostar = context.project / directory / builder.TOMOSTARS / f"{series.name}.tomostar"
    try:
        source = WarpSource(
            directory,
            folder if is_warps else None,
            _image_size(context.project, series),
            () if is_warps else tuple(read_tomostar(tomostar)),
        )
        if not is_warps:  # here, so that it is this tilt series that fails
            pixel = optics_of(_tilt_series(series), context.parameters).pixel_size_angstrom
            _import_files(series, source, pixel)
    except CrboostError as error:
        return replace(series, problem=str(error))
    return replace(series, source=source)


def _import_files(series: SeriesInput, source: WarpSource, pixel_size_angstrom: float) -> ImodFiles:
    """The alignment for `ts_import_alignments`: every image of Warp's stack, in its order.

    Images without an alignment stand as they were recorded; Warp is told not to use them.

    Raises:
        ToolError: none of the images is aligned.
        CrboostError: an alignment lacks a number, or has an x-tilt.
    """
    found = {tilt_name(row): alignment_of(row) for row in series.rows}
    axis = mean_axis_deg([found[t.name].z_rot_deg for t in source.stack if t.name in found])
    if axis is None:
        raise ToolError("no tilt image that Warp takes is aligned")
    return warp_import_files(
        [
            found.get(tilt.name) or TiltAlignment(0.0, -tilt.angle_deg, axis, 0.0, 0.0)
            for tilt in source.stack
        ],
        source.image_px,
        _size_px(series),
        pixel_size_angstrom,
        pixel_size_angstrom,
    )


def _image_size(project: Path, series: SeriesInput) -> tuple[int, int]:
    size, _ = map_header(project / str(series.rows[0]["rlnMicrographName"]))
    return int(size[0]), int(size[1])


def _size_px(series: SeriesInput) -> tuple[int, int, int]:
    x, y, z = (int(series.global_row[column]) for column in SIZE_COLUMNS)
    return x, y, z


def _xml(context: Context, series: SeriesInput, folder: str) -> str:
    return f"{context.tool_directory(series.name)}/{folder}/{series.name}.xml"


def _read_xml(context: Context, series: SeriesInput, folder: str) -> WarpTiltSeries:
    """Warp's XML of a tilt series that it did not fail on.

    Raises:
        FileFormatError: there is none, or it is damaged.
        ToolError: WarpTools says that it failed.
    """
    found = read_warp_tilt_series(context.project / _xml(context, series, folder))
    if found.problem is not None:
        raise ToolError(found.problem)
    return found


def _axis_deg(path: Path) -> float | str:
    """The tilt axis that WarpTools found for a tilt series, or why it did not."""
    if not path.is_file():
        return f"{path.name} was not written"
    try:
        found = read_warp_tilt_series(path)
    except FileFormatError as error:
        return str(error)
    if found.problem is not None:
        return found.problem
    axis = mean_axis_deg([tilt.axis_deg for tilt in found.used]) if found.aligned else None
    return "WarpTools left it unaligned" if axis is None else axis


def _refined_axis_deg(context: Context) -> float | None:
    """The tilt axis that was refined for the dataset; None where there is no job yet.

    Raises:
        ToolError: it was not refined.
    """
    found = _settled(context, builder.AXIS_FILE)
    return None if found is None else float(found["tilt_axis_deg"])


def _flip(context: Context, job: TsCtf) -> bool:
    """AreAnglesInverted: as the parameters say, or as the dataset did.

    Raises:
        ToolError: the dataset was not asked.
    """
    told = job.is_flipped(acquisition_says=context.parameters.acquisition.invert_defocus_hand)
    if told is not None:
        return told
    found = _settled(context, builder.HAND_FILE)
    return found is not None and bool(found["flip"])


def _settled(context: Context, name: str) -> Mapping[str, Any] | None:
    """What a job settled for all tilt series; None where there is no job yet, but a plan.

    Raises:
        ToolError: the job did not settle it.
    """
    job = context.project / context.job
    path = job / builder.DATASET / name
    if path.is_file():
        return read_json(path)  # type: ignore[no-any-return]
    if not job.is_dir():
        return None
    raise ToolError(f"{context.job}/{builder.DATASET}/{name} is gone: start the job again")


def _image(row: Row) -> str:
    angle = float(row["rlnTomoNominalStageTiltAngle"])
    return f"tilt image {tilt_name(row)} ({angle:+.1f} deg)"


def _record(row: Row, reason: str | None) -> dict[str, object]:
    return {
        "name": tilt_name(row),
        "tilt_angle_deg": float(row["rlnTomoNominalStageTiltAngle"]),
        "status": "done" if reason is None else "excluded",
        "reason": reason,
    }
