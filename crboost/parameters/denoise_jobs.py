"""Parameters of denoising with cryoCARE."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from crboost.parameters.base import field
from crboost.parameters.job_base import JobParameters


def _names(text: str) -> str:
    """One spelling of a list of names: separated by single blanks, each once, in order."""
    names = text.replace(",", " ").split()
    return " ".join(dict.fromkeys(names))


TiltSeriesNames = Annotated[str, AfterValidator(_names)]
"""Names of tilt series, with commas or blanks between them; empty: all."""


class _CryoCare(JobParameters):
    """What both halves of the work share."""

    tool: Literal["cryocare"] = field(
        "cryocare", title="Tool", description="The program that does the work."
    )
    input_tomograms: str | None = field(
        None,
        title="Input",
        description="Tomograms' STAR file with halves, relative to the project; None: the newest "
        "one that fits.",
        file=True,
    )
    use_gpu: bool = field(
        True,
        title="Use GPUs",
        description="Use GPUs, where computing.gpu_count is not 0.",
        resource=True,
    )


class DenoiseTrain(_CryoCare):
    """A network learns the noise of tomograms from their halves."""

    job_type: ClassVar[str] = "denoiseTrain"

    tomograms_for_training: TiltSeriesNames = field(
        "",
        title="Train on",
        description="Exact names of the tilt series to train on, with blanks between them; "
        "empty: all.",
    )
    number_training_subvolumes: int = field(
        600,
        title="Subvolumes",
        description="Subvolumes that are cut out of each tomogram.",
        ge=100,
        le=100_000,
    )
    subvolume_dimensions: int = field(
        64,
        title="Subvolume size",
        description="Edge of the subvolumes; a multiple of 8, and under half of the tomogram.",
        unit="px",
        ge=32,
        le=256,
    )
    training_split: float = field(
        0.9,
        title="Training share",
        description="Share of the tomogram that is trained on; the rest tests the training.",
        ge=0.5,
        le=0.99,
    )
    epochs: int = field(10, title="Epochs", description="Rounds of the training.", ge=1, le=10_000)
    steps_per_epoch: int = field(
        200, title="Steps", description="Steps of each round.", ge=1, le=100_000
    )
    batch_size: int = field(
        16, title="Batch size", description="Subvolumes of each step.", ge=1, le=1024
    )
    learning_rate: float = field(
        1e-5, title="Learning rate", description="Of the training.", ge=1e-9, le=1.0
    )
    unet_kern_size: int = field(
        3, title="Kernel size", description="Of the network's convolutions.", unit="px", ge=1, le=9
    )
    unet_n_depth: int = field(
        3, title="Depth", description="Times that the network halves its volumes.", ge=1, le=6
    )
    unet_n_first: int = field(
        16, title="First channels", description="Channels of the first layer.", ge=1, le=256
    )

    @property
    def training_series(self) -> tuple[str, ...]:
        """`tomograms_for_training` as names; empty for all."""
        return tuple(self.tomograms_for_training.split())


class DenoisePredict(_CryoCare):
    """Tomograms are denoised with a trained network."""

    job_type: ClassVar[str] = "denoisePredict"

    input_model: str | None = field(
        None,
        title="Model",
        description="cryoCARE model (.tar.gz), relative to the project; None: the newest.",
        file=True,
    )
    denoising_tomo_name: TiltSeriesNames = field(
        "",
        title="Denoise",
        description="Exact names of the tilt series to denoise, with blanks between them; "
        "empty: all.",
    )
    ntiles_x: int = field(
        4,
        title="Tiles in x",
        description="Parts in x that are denoised apart; twice as many, up to 8, where the "
        "tomogram is longer than 1000 px.",
        ge=1,
        le=64,
    )
    ntiles_y: int = field(
        4,
        title="Tiles in y",
        description="Parts in y that are denoised apart; twice as many, up to 8, where the "
        "tomogram is longer than 1000 px.",
        ge=1,
        le=64,
    )
    ntiles_z: int = field(
        4,
        title="Tiles in z",
        description="Parts in z that are denoised apart; twice as many, up to 8, where the "
        "tomogram is longer than 1000 px.",
        ge=1,
        le=64,
    )

    @property
    def series_to_denoise(self) -> tuple[str, ...]:
        """`denoising_tomo_name` as names; empty for all."""
        return tuple(self.denoising_tomo_name.split())
