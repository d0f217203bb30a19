"""subtomoExtraction with WarpTools: particles that RELION averages and refines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crboost.builders import warp as warp_builder
from crboost.builders import warp_particles as builder
from crboost.builders.series_values import TiltSeries
from crboost.builders.step import Step
from crboost.catalogue import SUBTOMO_EXTRACTION
from crboost.errors import FileFormatError, ProjectError, ToolError
from crboost.parameters import SubtomoExtraction
from crboost.results import SeriesResult
from crboost.stages.base import Context, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.stages.warp import FromWarp, WarpSource
from crboost.tilt_name import tilt_name
from crboost.translate.candidates import write_optimisation_set
from crboost.translate.output import SeriesOutput
from crboost.translate.tables import Row, read_blocks, read_table, write_blocks
from crboost.translate.warp_particles import (
    Export,
    ExportedParticle,
    keep_visible,
    merged,
    optics_row,
    read_export,
    relion_particle,
    rows_in_warps_order,
    visible_by_tilt,
)
from crboost.translate.warp_tilt_series import read_warp_tilt_series

PARTICLES = "particles.star"
OPTIMISATION_SET = "optimisation_set.star"
#: In the tilt series' directory: its part of the particles, as RELION will have them.
PART = "relion_particles.star"

#: WarpTools rounds coordinates to a thousandth of a pixel.
_SAME_PLACE_PX = 0.01
#: How the alignment of two tables may differ by rounding: degrees, and Angstrom.
_SAME_ALIGNMENT = 0.01
_ALIGNMENT = (
    *("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot"),
    *("rlnTomoXShiftAngst", "rlnTomoYShiftAngst"),
)


@dataclass(frozen=True)
class ParticleSource:
    """Where WarpTools finds a tilt series, and the candidates in it."""

    warp: WarpSource
    candidates: tuple[Row, ...]


class WarpExtract(FromWarp):
    """subtomoExtraction with WarpTools."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The tilt series of the optimisation set's tomograms, as tsCtf left them.

        Raises:
            ProjectError: an input is missing, or the optimisation set names no files.
            CrboostError: there is no tsImport to go by.
        """
        particles, tomograms = _files_of(context)
        found = FromStar().inputs(replace(context, input_star=tomograms))
        aligned = super().inputs(replace(context, input_star=context.other_inputs["tilt_series"]))
        candidates: dict[str, list[Row]] = {}
        for row in read_blocks(context.project / particles).get("particles", []):
            candidates.setdefault(str(row.get("rlnTomoName")), []).append(row)
        return {
            name: _with_candidates(one, aligned.get(name), candidates.get(name, ()), context)
            for name, one in found.items()
        }

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """Export the particles of one tilt series."""
        source = _source(series)
        return builder.export_particles(
            _tilt_series(series),
            context.parameters,
            context.parameters.job_as(SubtomoExtraction),
            context.tool_directory(series.name),
            source.warp.imported,
            source.warp.aligned or "<tsCtf>",
            source.candidates,
        )

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """RELION's rows of the particles; the tilt images in Warp's order, as in their stacks.

        Raises:
            ToolError: a particle is not where its candidate is, or not of the size asked for.
            FileFormatError: WarpTools left something else than particles.
        """
        job = context.parameters.job_as(SubtomoExtraction)
        source = _source(series)
        directory = context.tool_directory(series.name)
        star = context.project / directory / builder.PARTICLES
        known = _tilt_series(series)
        pixel = builder.particle_pixel_size_angstrom(known, context.parameters, job)
        export = read_export(star, pixel)
        if export.box_px not in (None, job.final_box_px):
            raise ToolError(f"{star}: boxes of {export.box_px} px, {job.final_box_px} asked for")
        warp = read_warp_tilt_series(
            context.project / str(source.warp.aligned) / f"{series.name}.xml"
        )
        rows = rows_in_warps_order(series.rows, warp)
        if len(rows) != len(warp.used):
            raise ToolError(
                f"Warp uses {len(warp.used)} tilt images, {len(rows)} of them are in the table of "
                "tsCtf"
            )
        made: list[Row] = []
        for one in export.particles:
            candidate = _candidate_of(one, source.candidates, star)
            place = builder.warp_position_angstrom(candidate, known, context.parameters)
            apart = max(abs(a - b) for a, b in zip(place, one.position_angstrom, strict=True))
            if apart > _SAME_PLACE_PX * pixel:
                raise ToolError(
                    f"{star}: particle {one.candidate + 1} is {apart:.2f} A from its candidate"
                )
            visible = None
            if one.visible is not None:
                by_tilt = visible_by_tilt(one.visible, warp)
                keep_visible(context.project / directory / one.image, one.visible)
                visible = [by_tilt[tilt_name(row)] for row in rows]
            elif not (context.project / directory / one.image).is_file():
                raise ToolError(f"{directory}/{one.image} was not written")
            made.append(relion_particle(candidate, one, series.name, directory, visible))
        optics = optics_row(
            series.global_row,
            binning=job.binning,
            box_px=job.final_box_px,
            stacks=job.do_stack2d,
            premultiplied=export.premultiplied,
        )
        part = f"{directory}/{PART}"
        write_blocks(context.project / part, {"optics": [optics], "particles": made})
        lost = len(source.candidates) - len(made)
        return SeriesOutput(
            {},
            rows,
            metrics={"tilts": len(rows), "particles": len(made), "particles_file": part},
            warnings=_words_on(export, lost),
            outputs=[part, f"{directory}/{warp_builder.SERIES_FOLDER}"],
        )

    def finish(self, context: Context, done: Sequence[SeriesResult]) -> None:
        """Particles and optimisation set of all tilt series.

        Raises:
            ToolError: there is not one particle: RELION reads no empty table of them.
        """
        job = context.parameters.job_as(SubtomoExtraction)
        parts = []
        for one in done:
            blocks = read_blocks(context.project / one.metrics["particles_file"])
            parts.append((blocks["optics"][0], blocks.get("particles", [])))
        optics, particles = merged([part for part in parts if part[1]])
        if not particles:
            raise ToolError(
                f"not one particle in any of {len(done)} tilt series",
                hint=f"raise jobs.{context.parameters.node}.max_missing_tilts, or make the box or "
                "particle_diameter smaller",
            )
        write_blocks(
            context.project / context.job / PARTICLES,
            {
                "general": {"rlnTomoSubTomosAre2DStacks": int(job.do_stack2d)},
                "optics": optics,
                "particles": particles,
            },
        )
        tomograms = SUBTOMO_EXTRACTION.for_tool("warp").main_output.file
        write_optimisation_set(
            context.project / context.job / OPTIMISATION_SET,
            f"{context.job}/{PARTICLES}",
            f"{context.job}/{tomograms}",
        )


def _files_of(context: Context) -> tuple[str, str]:
    """The particles and the tomograms of the input, project-relative."""
    star = context.input_star
    if star is None or "tilt_series" not in context.other_inputs:
        raise ProjectError(
            f"{context.job}: it needs an optimisation set and the tilt series of tsCtf"
        )
    (row, *_) = read_table(context.project / star) or [{}]
    names = [str(row.get(f"rlnTomo{what}File", "")) for what in ("Particles", "Tomograms")]
    for name, what in zip(names, ("particles", "tomograms"), strict=True):
        if not name or not (context.project / name).is_file():
            raise ProjectError(
                f"{star}: its file of {what}, {name or 'none'}, is not there",
                hint="give an optimisation set that extractCandidates, or RELION, has made",
            )
    return names[0], names[1]


def _with_candidates(
    tomogram: SeriesInput,
    aligned: SeriesInput | None,
    candidates: Sequence[Row],
    context: Context,
) -> SeriesInput:
    """The tilt series that a tomogram is of, with the candidates that were found in it."""
    if not candidates:
        return replace(tomogram, skip="there is no particle in it")
    star = context.other_inputs["tilt_series"]
    if aligned is None:
        return replace(tomogram, problem=f"it has no CTF of its own: it is not in {star}")
    if aligned.problem is not None:
        return replace(tomogram, problem=aligned.problem)
    warp = aligned.source
    assert isinstance(warp, WarpSource)
    problem = None
    if warp.aligned is None:
        problem = f"{Path(star).parent} has no XML of WarpTools for it"
    elif _turned_otherwise(tomogram.rows, aligned.rows):
        problem = f"its particles were found with another alignment than that of {star}"
    return replace(
        tomogram,
        global_row={**tomogram.global_row, **aligned.global_row},
        rows=aligned.rows,
        problem=problem,
        source=ParticleSource(warp, tuple(candidates)),
    )


def _turned_otherwise(one: Sequence[Row], other: Sequence[Row]) -> bool:
    """Whether two tables of a tilt series have different alignments of its images."""
    by_name: Mapping[str, Row] = {tilt_name(row): row for row in other}
    for row in one:
        twin = by_name.get(tilt_name(row), {})
        for column in _ALIGNMENT:
            if column in row and column in twin:
                apart = abs(float(row[column]) - float(twin[column]))
                if apart > _SAME_ALIGNMENT:
                    return True
    return False


def _candidate_of(one: ExportedParticle, candidates: Sequence[Row], star: Path) -> Row:
    if not 0 <= one.candidate < len(candidates):
        raise FileFormatError(
            star, f"names particle {one.candidate + 1}; there were {len(candidates)} candidates"
        )
    return candidates[one.candidate]


def _words_on(export: Export, lost: int) -> list[str]:
    words = []
    if lost:
        words.append(f"{lost} particles were left out: too many tilt images do not show them")
    return words if export.particles else [*words, "no particle is left"]


def _tilt_series(series: SeriesInput) -> TiltSeries:
    return TiltSeries(series.name, series.global_row, series.rows)


def _source(series: SeriesInput) -> ParticleSource:
    """Where its files are; what a plan shows of an example has none."""
    if isinstance(series.source, ParticleSource):
        return series.source
    name: Any = series.name
    return ParticleSource(
        WarpSource(f"<tsImport>/warp/{name}", f"<tsCtf>/warp/{name}/{warp_builder.SERIES_FOLDER}"),
        (),
    )
