"""templateMatching and extractCandidates with pytom-match-pick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crboost.builders import pytom as builder
from crboost.builders.step import Step
from crboost.catalogue import EXTRACT_CANDIDATES
from crboost.errors import FileFormatError, ProjectError, ToolError
from crboost.files import read_json
from crboost.parameters import ExtractCandidates, TemplateMatching
from crboost.results import SeriesResult, read_result, result_file
from crboost.stages.base import Context, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.stages.tomograms import map_header, tomogram_of, voxel_size_angstrom
from crboost.translate.candidates import (
    particle_rows,
    read_candidates,
    write_optimisation_set,
    write_particles,
)
from crboost.translate.output import SeriesOutput
from crboost.translate.tables import Row

PARTICLES = "candidates.star"
OPTIMISATION_SET = "optimisation_set.star"

#: A header may be off by the rounding of some program; more means another scale.
_SAME_VOXEL = 0.01


class PytomMatch(FromStar):
    """Score and angle maps of one template in one tomogram after another."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The tomograms.

        Raises:
            ProjectError: template and mask differ in size.
            FileFormatError: one of them is no map.
        """
        job = context.parameters.job_as(TemplateMatching)
        size, voxel = map_header(context.project / job.template_path)
        mask_size, _ = map_header(context.project / job.mask_path)
        if size != mask_size:
            raise ProjectError(
                f"{job.template_path} has {size} px, its mask {job.mask_path} {mask_size}",
                hint="both need a box of the same size",
            )
        return {
            name: replace(
                one,
                problem=None if tomogram_of(one.global_row) else "it has no tomogram",
                warnings=_scale_warnings(job.template_path, voxel, one.global_row),
            )
            for name, one in super().inputs(context).items()
        }

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """Match one tomogram."""
        voxel = voxel_size_angstrom(series.global_row)
        return [
            builder.match_template(
                series.tilt_series,
                tomogram_of(series.global_row) or f"{series.name}.mrc",
                voxel or context.parameters.image_pixel_size_angstrom,
                context.parameters,
                context.parameters.job_as(TemplateMatching),
                context.tool_directory(series.name),
                context.gpus,
            )
        ]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The maps, which must be as large as the tomogram.

        Raises:
            ToolError: they are not.
        """
        tomogram = tomogram_of(series.global_row)
        assert tomogram is not None
        stem = builder.tomogram_id(tomogram)
        directory = context.tool_directory(series.name)
        outputs = [f"{directory}/{stem}_{part}" for part in builder.MATCH_OUTPUTS]
        wanted, _ = map_header(context.project / tomogram)
        for name in outputs[:2]:
            size, _ = map_header(context.project / name)
            if size != wanted:
                raise ToolError(f"{name} has {size} px, the tomogram {wanted}")
        return SeriesOutput(
            {},
            [dict(row) for row in series.rows],
            metrics={"tilts": len(series.rows), "scores": outputs[0], "match_record": outputs[2]},
            outputs=outputs,
        )


class PytomExtract(FromStar):
    """Candidates of every score map; together they are particles that RELION can extract."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The score maps of a template matching."""
        found = super().inputs(context)
        assert context.input_star is not None
        producer = (context.project / context.input_star).parent
        return {name: _with_match(context.project, producer, one) for name, one in found.items()}

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """Extract from one score map."""
        match, source, stem = series.source or ({}, "<template matching>", series.name)
        return [
            builder.extract_candidates(
                match,
                source,
                stem,
                context.parameters.job_as(ExtractCandidates),
                context.tool_directory(series.name),
            )
        ]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Count the candidates; a tomogram without any is none the less done."""
        _, _, stem = series.source
        path = builder.particles_file(context.tool_directory(series.name), stem)
        candidates = read_candidates(context.project / path)
        scores = [float(one["rlnLCCmax"]) for one in candidates]
        return SeriesOutput(
            {},
            [dict(row) for row in series.rows],
            metrics={
                "tilts": len(series.rows),
                "candidates": len(candidates),
                "best_score": max(scores, default=None),
                "lowest_score": min(scores, default=None),
                "candidates_file": path,
            },
            warnings=[] if candidates else ["no candidate in this tomogram"],
            outputs=[path],
        )

    def finish(self, context: Context, done: Sequence[SeriesResult]) -> None:
        """Particles and optimisation set.

        Raises:
            ToolError: there is not one candidate: RELION reads no empty table of particles.
        """
        rows: list[Row] = []
        for one in done:
            candidates = read_candidates(context.project / one.metrics["candidates_file"])
            rows += particle_rows(candidates, one.tilt_series, one.global_columns)
        if not rows:
            raise ToolError(
                f"no candidate in any of {len(done)} tomograms",
                hint="lower the cut-off, or look at the score maps",
            )
        write_particles(context.project / context.job / PARTICLES, rows)
        write_optimisation_set(
            context.project / context.job / OPTIMISATION_SET,
            f"{context.job}/{PARTICLES}",
            f"{context.job}/{EXTRACT_CANDIDATES.main_output.file}",
        )


def _with_match(project: Path, producer: Path, series: SeriesInput) -> SeriesInput:
    """The series with what its template matching left: its record, where, and under which name."""
    path = result_file(producer, series.name)
    try:
        record = read_result(path).metrics.get("match_record") if path.is_file() else None
        if record is None:
            return replace(series, problem=f"{producer.name} has no score map of it")
        if not (project / record).is_file():
            return replace(series, problem=f"{record} is gone")
        match: Mapping[str, Any] = read_json(project / record)
    except FileFormatError as error:
        return replace(series, problem=str(error))
    directory, _, name = str(record).rpartition("/")
    return replace(series, source=(match, directory, name.removesuffix("_job.json")))


def _scale_warnings(
    template: str, template_voxel: float, row: Mapping[str, Any]
) -> tuple[str, ...]:
    voxel = voxel_size_angstrom(row)
    if template_voxel <= 0 or abs(template_voxel - voxel) <= _SAME_VOXEL * voxel:
        return ()
    return (
        f"{template} says it has {template_voxel:g} A/px, the tomogram has {voxel:g} A/px: "
        "the template must have the tomogram's scale",
    )
