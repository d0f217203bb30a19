"""Parameters of membrane segmentation with membrain-seg."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from crboost.parameters.base import SchemaKeywords, field
from crboost.parameters.job_base import JobParameters

#: The network halves its windows five times; `segment.py` of membrain-seg refuses others. With 32
#: px a single voxel is left, and PyTorch's normalization ends with an error (seen).
WINDOW_STEP_PX = 32


def _window(size_px: int) -> int:
    if size_px % WINDOW_STEP_PX:
        raise ValueError(f"must be a multiple of {WINDOW_STEP_PX} px")
    return size_px


WindowSize = Annotated[int, AfterValidator(_window), SchemaKeywords(multipleOf=WINDOW_STEP_PX)]


class MembraneSegmentation(JobParameters):
    """Membranes of every tomogram, as maps of the same size."""

    job_type: ClassVar[str] = "membraneSegmentation"

    tool: Literal["membrain"] = field(
        "membrain", title="Tool", description="The program that does the work."
    )
    input_tomograms: str | None = field(
        None,
        title="Input",
        description="Tomograms' STAR file, relative to the project; None: the newest that fits, "
        "denoised ones first.",
        file=True,
    )
    model_path: str = field(
        "",
        title="Model",
        description="Checkpoint of a trained network (.ckpt); membrain-seg's documentation names "
        "its own.",
        file=True,
    )
    rescale_patches: bool = field(
        True,
        title="Rescale",
        description="Bring what the network sees to the pixel size that it was trained with; the "
        "segmentation keeps the tomogram's.",
    )
    out_pixel_size_angstrom: float = field(
        10.0,
        title="Pixel size of the model",
        description="Pixel size that the network was trained with, for rescale_patches.",
        unit="Å",
        ge=2,
        le=50,
    )
    segmentation_threshold: float = field(
        0.0,
        title="Threshold",
        description="Voxels with a higher score are membrane; lower it to find more.",
        ge=-20,
        le=20,
    )
    test_time_augmentation: bool = field(
        True,
        title="Average mirror images",
        description="Segment eight mirror images and take the mean: a little better, eight times "
        "the time.",
    )
    store_probabilities: bool = field(
        False, title="Score map", description="Write the map of scores too."
    )
    connected_components: bool = field(
        False,
        title="Number the membranes",
        description="Give each connected membrane a number of its own, instead of 1 to all.",
    )
    smallest_component_voxels: int | None = field(
        None,
        title="Smallest membrane",
        description="Remove membranes with fewer voxels, for connected_components; None: keep all.",
        unit="voxels",
        ge=2,
        le=10_000_000,
    )
    sliding_window_size_px: WindowSize = field(
        160,
        title="Window",
        description="Edge of what the network sees at once, a multiple of 32; smaller ones need "
        "less GPU memory (160: 8 GB) and find less.",
        unit="px",
        ge=64,
        le=512,
    )
    use_gpu: bool = field(
        True,
        title="Use GPUs",
        description="Use a GPU, where computing.gpu_count is not 0; without one it takes hours.",
        resource=True,
    )
    array_throttle: int = field(
        8,
        title="Array limit",
        description="Tilt series that a scheduler may run at the same time.",
        ge=1,
        le=64,
        resource=True,
    )
