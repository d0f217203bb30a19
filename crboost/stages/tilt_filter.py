"""tiltFilter with the embedded rules: the next job never sees what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crboost.builders.classifier import OUT_TABLE, classify
from crboost.builders.step import Step
from crboost.errors import FileFormatError
from crboost.files import write_json
from crboost.parameters import TiltFilter
from crboost.results import SeriesResult, read_result, result_file, with_extra
from crboost.stages.base import Context, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.tilt_name import tilt_name
from crboost.tilt_overrides import Override, override_fingerprint, read_overrides
from crboost.tilt_rules import judge, needs_counts, tilt_values
from crboost.translate.output import SeriesOutput
from crboost.translate.tables import Row, write_table
from crboost.translate.tilt_filter import filter_output, filter_table, read_classified, tilt_record

#: In the job's directory: every tilt image with its verdict and its values.
TABLE = "tilt_filter.star"


@dataclass(frozen=True)
class _Known:
    """What is known of a series beside its table."""

    overrides: Mapping[str, Override]
    counts: Mapping[str, float]


class CpuTiltFilter(FromStar):
    """Rules, a classifier if one is configured, and what a person said."""

    def extras(self, project: Path) -> Mapping[str, str]:
        """What a person said of each tilt series."""
        return {
            name: override_fingerprint(tilts)
            for name, tilts in read_overrides(project).items()
            if tilts
        }

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The input's tilt series, with what a person said of them."""
        found = super().inputs(context)
        extras = self.extras(context.project)
        overrides = read_overrides(context.project)
        assert context.input_star is not None
        producer = (context.project / context.input_star).parent
        return {
            name: replace(
                one,
                fingerprint=with_extra(one.fingerprint, extras.get(name)),
                source=_Known(overrides.get(name, {}), _recorded_counts(producer, name)),
            )
            for name, one in found.items()
        }

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """The classifier, if there is one."""
        argv = context.parameters.job_as(TiltFilter).classifier_argv
        if not argv:
            return []
        counts = series.source.counts if series.source else {}
        values = tilt_values(series.rows, _pixel_size(context, series), counts)
        tilts = [
            {
                "tilt_series": series.name,
                "tilt": one.name,
                "image": one.image,
                "tilt_angle_deg": one.tilt_angle_deg,
                **one.measured(),
            }
            for one in values
        ]
        return [classify(argv, tilts, context.tool_directory(series.name))]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Judge, record, and leave out."""
        rules = context.parameters.job_as(TiltFilter)
        directory = context.tool_directory(series.name)
        counts = series.source.counts
        if needs_counts(rules):
            counts = {**_measured_counts(context.project, series.rows, counts), **counts}
        classified = None
        if rules.classifier_argv:
            classified = read_classified(context.project / directory / OUT_TABLE)
        values = tilt_values(series.rows, _pixel_size(context, series), counts)
        judgement = judge(values, rules, classified, series.source.overrides)
        write_json(
            context.project / directory / "verdicts.json",
            {
                "tilt_series": series.name,
                "tilts": [tilt_record(one) for one in judgement.verdicts],
            },
        )
        return filter_output(series.rows, judgement, directory, rules.min_tilts)

    def finish(self, context: Context, done: Sequence[SeriesResult]) -> None:
        """The table of all verdicts."""
        table = filter_table({one.tilt_series: one.tilts for one in done})
        write_table(context.project / context.job / TABLE, "tilt_filter", table)


def _pixel_size(context: Context, series: SeriesInput) -> float:
    """Of the series' images, in Angstrom."""
    value = series.global_row.get("rlnTomoTiltSeriesPixelSize")
    return float(value) if value else context.parameters.image_pixel_size_angstrom


def _recorded_counts(producer: Path, name: str) -> dict[str, float]:
    """Mean counts that the job which made the images recorded."""
    path = result_file(producer, name)
    if not path.is_file():
        return {}
    try:
        tilts: list[dict[str, Any]] = read_result(path).tilts
    except FileFormatError:
        return {}
    return {
        tilt["name"]: float(tilt["mean_counts_per_px"])
        for tilt in tilts
        if tilt.get("mean_counts_per_px") is not None
    }


def _measured_counts(
    project: Path, rows: Sequence[Row], known: Mapping[str, float]
) -> dict[str, float]:
    """Mean counts of the images that nobody has recorded; averages are sums of counts.

    Raises:
        FileFormatError: an image cannot be read.
    """
    import mrcfile
    import numpy as np

    counts: dict[str, float] = {}
    for row in rows:
        name = tilt_name(row)
        if name in known or not row.get("rlnMicrographName"):
            continue
        path = project / str(row["rlnMicrographName"])
        try:
            with mrcfile.mmap(path, mode="r", permissive=True) as image:
                counts[name] = float(np.mean(image.data, dtype=np.float64))
        except (OSError, ValueError, TypeError) as error:
            raise FileFormatError(path, f"its mean cannot be measured: {error}") from error
    return counts
