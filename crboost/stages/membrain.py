"""membraneSegmentation with membrain-seg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crboost.builders import membrain as builder
from crboost.builders.step import Step
from crboost.errors import ProjectError, ToolError
from crboost.parameters import MembraneSegmentation
from crboost.stages.base import Context, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.stages.tomograms import map_header, tomogram_of, voxel_size_angstrom
from crboost.translate.output import SeriesOutput

#: RELION has no such column; it keeps columns that it does not know.
SEGMENTATION = "crboostTomoMembraneSegmentation"


class MembrainSegment(FromStar):
    """The membranes of one tomogram after another."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The tomograms.

        Raises:
            ProjectError: the model is not there.
        """
        job = context.parameters.job_as(MembraneSegmentation)
        if job.model_path and not (context.project / job.model_path).is_file():
            raise ProjectError(
                f"jobs.{context.parameters.node}.model_path = {job.model_path}: no such file",
                hint="put the checkpoint (.ckpt) into the project, or link it there",
            )
        return {
            name: replace(
                one, problem=None if tomogram_of(one.global_row) else "it has no tomogram"
            )
            for name, one in super().inputs(context).items()
        }

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """Segment one tomogram."""
        voxel = voxel_size_angstrom(series.global_row)
        return [
            builder.segment(
                tomogram_of(series.global_row) or f"{series.name}.mrc",
                voxel or context.parameters.image_pixel_size_angstrom,
                context.parameters,
                context.parameters.job_as(MembraneSegmentation),
                context.tool_directory(series.name),
                context.gpus,
            )
        ]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Look at what was made, and call it by the tilt series' name.

        Raises:
            ToolError: the segmentation is no map of the tomogram's size.
        """
        job = context.parameters.job_as(MembraneSegmentation)
        tomogram = tomogram_of(series.global_row)
        assert tomogram is not None
        directory = context.tool_directory(series.name)
        made = builder.segmentation(tomogram, job.model_path, directory)
        share, membranes = _look(context.project / made, context.project / tomogram)
        named = f"{directory}/{series.name}_membranes.mrc"
        (context.project / made).replace(context.project / named)
        metrics = {
            "tilts": len(series.rows),
            "membrane_share": share,
            "membrane_segmentation": named,
        }
        if job.connected_components:
            metrics["membranes"] = membranes
        extra = [builder.scores(tomogram, directory)] if job.store_probabilities else []
        return SeriesOutput(
            {SEGMENTATION: named},
            [dict(row) for row in series.rows],
            metrics=metrics,
            warnings=[] if share else ["no membrane in this tomogram"],
            outputs=[named, *extra],
        )


def _look(path: Path, tomogram: Path) -> tuple[float, int]:
    """(share of the voxels that are membrane, highest number of a membrane)."""
    import mrcfile
    import numpy as np

    size, _ = map_header(path)
    wanted, _ = map_header(tomogram)
    if size != wanted:
        raise ToolError(f"{path.name} has {size} px, the tomogram {wanted}")
    found, highest = 0, 0
    with mrcfile.mmap(path, mode="r", permissive=True) as volume:
        for plane in volume.data:
            found += int(np.count_nonzero(plane))
            highest = max(highest, int(plane.max()))
    return found / (size[0] * size[1] * size[2]), highest
