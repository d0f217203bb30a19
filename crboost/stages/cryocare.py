"""denoiseTrain and denoisePredict with cryoCARE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from crboost.builders import cryocare as builder
from crboost.builders.step import Step
from crboost.errors import CrboostError, ProjectError, ToolError
from crboost.parameters import DenoisePredict, DenoiseTrain
from crboost.results import read_results, whole_fingerprint, with_extra
from crboost.stages.base import Context, DatasetOutput, SeriesInput
from crboost.stages.cpu import FromStar
from crboost.stages.tomograms import DENOISED, halves_of, map_header
from crboost.translate.output import SeriesOutput

#: What a plan shows where the halves are not known yet.
_EXAMPLE = ("<even>", "<odd>")


class CryoCareTrain(FromStar):
    """One model for all tilt series; then each is through."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The tomograms to train on; the others are skipped.

        Raises:
            ProjectError: a name that is asked for is no tilt series.
        """
        job = context.parameters.job_as(DenoiseTrain)
        found = _chosen(super().inputs(context), job.training_series, "tomograms_for_training")
        least = builder.smallest_tomogram_px(job)
        return {
            name: one if one.skip else replace(one, problem=_too_small(context.project, one, least))
            for name, one in found.items()
        }

    def dataset_steps(self, context: Context, series: Mapping[str, SeriesInput]) -> Sequence[Step]:
        """Cut out subvolumes, train, pack the model."""
        job = context.parameters.job_as(DenoiseTrain)
        halves = [halves_of(one.global_row) or _EXAMPLE for one in series.values()]
        return builder.train(halves, job, context.job, context.gpus)

    def dataset_output(self, context: Context, series: Mapping[str, SeriesInput]) -> DatasetOutput:
        """The model, which the steps themselves answer for."""
        return DatasetOutput()

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """None."""
        return []

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """The tilt series as it was."""
        return SeriesOutput(
            {},
            [dict(row) for row in series.rows],
            metrics={"tilts": len(series.rows)},
            outputs=[f"{context.job}/{builder.MODEL_NAME}.tar.gz"],
        )


class CryoCarePredict(FromStar):
    """A trained model on one tomogram after another."""

    def inputs(self, context: Context) -> dict[str, SeriesInput]:
        """The tomograms to denoise; the others are skipped.

        Raises:
            ProjectError: there is no model, or a name that is asked for is no tilt series.
        """
        job = context.parameters.job_as(DenoisePredict)
        model = context.other_inputs.get("model")
        if model is None or not (context.project / model).is_file():
            raise ProjectError(
                f"{context.job}: no denoising model {model or 'was given'}",
                hint="run denoiseTrain, or set input_model",
            )
        found = _chosen(super().inputs(context), job.series_to_denoise, "denoising_tomo_name")
        # Another model makes other tomograms, even under the same name.
        trained = {
            name: result.record()
            for name, result in read_results((context.project / model).parent).items()
        }
        extra = whole_fingerprint(trained)
        return {
            name: replace(
                one,
                fingerprint=with_extra(one.fingerprint, extra),
                problem=None if one.skip else _too_small(context.project, one, 0),
            )
            for name, one in found.items()
        }

    def steps(self, context: Context, series: SeriesInput) -> Sequence[Step]:
        """Denoise one tomogram."""
        job = context.parameters.job_as(DenoisePredict)
        even, odd = halves_of(series.global_row) or _EXAMPLE
        model = context.other_inputs.get("model", "<model>")
        directory = context.tool_directory(series.name)
        path = context.project / even
        size = map_header(path)[0] if path.is_file() else None  # a plan has only a name
        return [builder.predict(even, odd, model, job, directory, context.gpus, size)]

    def output(self, context: Context, series: SeriesInput) -> SeriesOutput:
        """Look at what was made, and call it by the tilt series' name.

        Raises:
            ToolError: it is no tomogram of the right size, or is empty.
        """
        halves = halves_of(series.global_row)
        assert halves is not None
        directory = context.tool_directory(series.name)
        made = context.project / builder.predicted(halves[0], directory)
        _check_denoised(made, context.project / halves[0])
        named = f"{directory}/{series.name}.mrc"
        made.replace(context.project / named)
        return SeriesOutput(
            {DENOISED: named},
            [dict(row) for row in series.rows],
            metrics={"tilts": len(series.rows), "denoised_tomogram": named},
            outputs=[named],
        )


def _chosen(
    found: Mapping[str, SeriesInput], names: Sequence[str], parameter: str
) -> dict[str, SeriesInput]:
    """Skip what is not among `names`, each of which is a whole name; empty: all."""
    strangers = [name for name in names if name not in found]
    if strangers:
        raise ProjectError(
            f"{parameter}: there is no tilt series {', '.join(strangers)}",
            hint=f"there are {', '.join(found)}",
        )
    if not names:
        return dict(found)
    return {
        name: one if name in names else replace(one, skip=f"not among {parameter}")
        for name, one in found.items()
    }


def _too_small(project: Path, series: SeriesInput, least_px: int) -> str | None:
    """Why a tomogram's halves cannot be used."""
    halves = halves_of(series.global_row)
    if halves is None:
        return "its tomogram has no halves; tsReconstruct makes them with halfmap_frames"
    try:
        sizes = [map_header(project / half)[0] for half in halves]
    except CrboostError as error:
        return str(error)
    if sizes[0] != sizes[1]:
        return f"its halves differ in size: {sizes[0]} and {sizes[1]} px"
    if min(sizes[0]) <= least_px:
        return (
            f"its tomogram is {'x'.join(map(str, sizes[0]))} px; to train on subvolumes, every "
            f"edge must be longer than {least_px} px: make subvolume_dimensions smaller"
        )
    return None


def _check_denoised(path: Path, half: Path) -> None:
    import mrcfile
    import numpy as np

    size, _ = map_header(path)
    wanted, _ = map_header(half)
    if size != wanted:
        raise ToolError(f"{path.name} has {size} px, its half {wanted}")
    with mrcfile.mmap(path, mode="r", permissive=True) as volume:
        # The middle slice tells: cryoCARE writes zeros first, and fills them tile by tile.
        spread = float(np.std(volume.data[size[2] // 2].astype(np.float64)))
    if not np.isfinite(spread) or spread == 0:
        raise ToolError(f"{path.name} is empty: every value is the same, or none is a number")
