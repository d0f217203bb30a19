"""membrain-seg 0.0.9: job parameters and one tomogram -> its step. Pure.

The options are checked by `membrain_contract`. Paths are project-relative: the program runs in the
project directory.
"""

from __future__ import annotations

from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import EffectiveParameters, MembraneSegmentation

PROGRAM = "membrain"
#: With no GPU asked for, none is to be found: membrain-seg takes the first that it sees.
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def segment(
    tomogram: str,
    voxel_size_angstrom: float,
    parameters: EffectiveParameters,
    job: MembraneSegmentation,
    directory: str,
    gpus: int,
) -> Step:
    """The membranes of one tomogram.

    Args:
        tomogram: project-relative file; the outputs are called by its stem.
        voxel_size_angstrom: of the tomogram; its header may be wrong.
        directory: project-relative, for all files.
        gpus: how many it is shown; membrain-seg uses one of them.

    Raises:
        ParameterError: no model, or a size of membranes that are not told apart.
    """
    if not job.model_path:
        raise ParameterError(
            f"jobs.{parameters.node}.model_path is not set",
            hint="name the checkpoint of a trained network (.ckpt)",
        )
    if job.smallest_component_voxels is not None and not job.connected_components:
        raise ParameterError(
            f"jobs.{parameters.node}.smallest_component_voxels = {job.smallest_component_voxels}, "
            "but connected_components is off: membrain-seg would remove nothing",
            hint="set connected_components too, or leave smallest_component_voxels empty",
        )
    argv = [PROGRAM, "segment", "--tomogram-path", tomogram, "--ckpt-path", job.model_path]
    argv += ["--out-folder", directory]
    if job.rescale_patches:
        argv += ["--rescale-patches", "--in-pixel-size", f"{voxel_size_angstrom:.6g}"]
        argv += ["--out-pixel-size", f"{job.out_pixel_size_angstrom:g}"]
    if job.store_probabilities:
        argv += ["--store-probabilities"]
    if job.connected_components:
        argv += ["--store-connected-components"]
        if job.smallest_component_voxels is not None:
            argv += ["--connected-component-thres", str(job.smallest_component_voxels)]
    if not job.test_time_augmentation:
        argv += ["--no-test-time-augmentation"]
    argv += ["--segmentation-threshold", f"{job.segmentation_threshold:g}"]
    argv += ["--sliding-window-size", str(job.sliding_window_size_px)]
    creates = [segmentation(tomogram, job.model_path, directory)]
    if job.store_probabilities:
        creates.append(scores(tomogram, directory))
    return Step(
        name="membrain_segment",
        argv=tuple(argv),
        creates=tuple(creates),
        environment={} if gpus else NO_GPU,
    )


def segmentation(tomogram: str, model: str, directory: str) -> str:
    """Where the segmentation is written.

    The name has the model's in it, up to "-val_loss" (`segment` and `store_segmented_tomograms` of
    membrain-seg).
    """
    token = model.rpartition("/")[2].split("-val_loss")[0]
    return f"{directory}/{_stem(tomogram)}_{token}_segmented.mrc"


def scores(tomogram: str, directory: str) -> str:
    """Where the map of scores is written."""
    return f"{directory}/{_stem(tomogram)}_scores.mrc"


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name
