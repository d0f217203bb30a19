"""The job types that take another job's tilt series, done with the embedded tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crboost.builders import cpu as builder
from crboost.builders.series_values import optics_of
from crboost.builders.step import Step
from crboost.errors import ProjectError
from crboost.files import read_json
from crboost.parameters import FsMotionAndCtf, TsAlignment, TsReconstruct
from crboost.results import result_file, table_fingerprint
from crboost.stages.base import Context, SeriesInput
from crboost.tilt_name import tilt_name
from crboost.translate import cpu as translate
from crboost.translate.output import SeriesOutput
from crboost.translate.tables import read_tilt_series, write_blocks


class FromStar:
    """A job whose tilt series come from another job's global table."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        if context.input_star is None:
            raise ProjectError(f"{context.job}: no input tilt-series STAR was given")
        tables = read_tilt_series(context.project / context.input_star, context.project)
        producer = (context.project / context.input_star).parent
        return {
            name: SeriesInput(
                name,
                _input_fingerprint(
                    producer, name, context.project / str(row["rlnTomoTiltSeriesStarFile"])
                ),
                row,
                rows,
            )
            for name, (row, rows) in tables.items()
        }

    def result(self, context: Context, series: SeriesInput) -> Mapping[str, Any]:
        """The tool's own result file."""
        path = context.project / context.tool_directory(series.name) / "result.json"
        result: Mapping[str, Any] = read_json(path)
        return result


class CpuFrames(FromStar):
    """fsMotionAndCtf with the embedded tool."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(FsMotionAndCtf)
        out = context.tool_directory(series.name)
        return [
            builder.frames(
                context.python,
                series.tilt_series,
                context.parameters,
                job,
                out,
                context.workers,
            )
        ]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        result = self.result(context, series)
        directory = context.tool_directory(series.name)
        optics = optics_of(series.tilt_series, context.parameters)
        pixel = optics.movie_pixel_size_angstrom
        output = translate.frames_output(series.rows, result, directory, pixel)
        tilts = {tilt["name"]: tilt for tilt in result["tilts"]}
        for row in output.rows:
            general, shifts = translate.micrograph_metadata(
                row, tilts[tilt_name(row)], optics.voltage_kv, pixel
            )
            write_blocks(
                context.project / row["rlnMicrographMetadata"],
                {"general": general, "global_shift": shifts},
            )
        return output


class CpuAlign(FromStar):
    """tsAlignment with the embedded tool."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsAlignment)
        out = context.tool_directory(series.name)
        return [builder.align(context.python, series.tilt_series, context.parameters, job, out)]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        return translate.align_output(series.rows, self.result(context, series))


class CpuReconstruct(FromStar):
    """tsReconstruct with the embedded tool."""

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        job = context.parameters.job_as(TsReconstruct)
        out = context.tool_directory(series.name)
        return [
            builder.reconstruct(context.python, series.tilt_series, context.parameters, job, out)
        ]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        return translate.reconstruct_output(
            series.rows, self.result(context, series), context.tool_directory(series.name)
        )


def _input_fingerprint(producer: Path, name: str, table: Path) -> str:
    """What a series' input is: its producer's word for it, else a hash of its table.

    The planner asks the same question of the past; both answers must be made the same way.
    """
    recorded = result_file(producer, name)
    if recorded.is_file():
        fingerprint = read_json(recorded).get("fingerprint")
        if isinstance(fingerprint, str):
            return fingerprint
    return table_fingerprint(table)
