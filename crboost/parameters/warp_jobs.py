"""The parameters of the job types that only WarpTools does: tsImport and tsCtf."""

from __future__ import annotations

from typing import ClassVar, Literal

from crboost.parameters.base import field
from crboost.parameters.job_base import PIXEL_SIZE, resolved
from crboost.parameters.per_series import WarpArguments
from crboost.parameters.shaped_text import (
    DefocusRange,
    ResolutionRange,
    VolumeSize,
    parse_range,
    parse_size,
)


class WarpOnly(WarpArguments):
    """A job type that WarpTools alone does."""

    tool: Literal["warp"] = field(
        "warp", title="Tool", description="The program that does the work: WarpTools."
    )


class TsImport(WarpOnly):
    """Warp learns which images make a tilt series, and how large its tomogram is."""

    job_type: ClassVar[str] = "tsImport"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            PIXEL_SIZE,
            "acquisition.dose_per_tilt_e_per_a2",
            "acquisition.dose_calibration_factor",
            "acquisition.tilt_axis_degrees",
            "acquisition.detector_dimensions_px",
        }
    )

    min_intensity: float = field(
        0.0,
        title="Minimum intensity",
        description="Cut a tilt series at the first tilt on either side that is darker than this "
        "fraction of what cos(tilt) lets expect; 0: keep all.",
        ge=0,
        le=1,
    )
    tomo_dimensions: VolumeSize | None = field(
        None,
        title="Tomogram size",
        description='Size of the tomograms in pixels of the movies, like "4096x4096x2048"; '
        "None: the images, turned by the tilt axis, and the thickness of the sample.",
        unit="px",
    )
    sample_thickness_nm: float | None = field(
        None,
        title="Sample thickness",
        description="Height of the tomograms where tomo_dimensions is None; None: the project's.",
        unit="nm",
        ge=50,
        le=2000,
        follows="acquisition.sample_thickness_nm",
    )

    @property
    def use_gpu(self) -> bool:
        """Nothing is computed here."""
        return False

    @property
    def thickness_nm(self) -> float:
        """`sample_thickness_nm` of an effective job, never None."""
        return resolved(self.sample_thickness_nm, "sample_thickness_nm")

    @property
    def tomo_dimensions_px(self) -> tuple[int, int, int] | None:
        """`tomo_dimensions` as numbers (x, y, z) in unbinned px."""
        if self.tomo_dimensions is None:
            return None
        x, y, z = parse_size(self.tomo_dimensions, 3)
        return x, y, z


class TsCtf(WarpOnly):
    """The CTF of a whole tilt series, whose tilts constrain each other, and the defocus hand."""

    job_type: ClassVar[str] = "tsCtf"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            "microscope.acceleration_voltage_kv",
            "microscope.spherical_aberration_mm",
            "microscope.amplitude_contrast",
            "acquisition.invert_defocus_hand",
        }
    )

    window: int = field(
        512,
        title="CTF window",
        description="Edge of the squares whose power spectra are averaged.",
        unit="px",
        ge=128,
        le=2048,
    )
    range_min_max: ResolutionRange = field(
        "30:6",
        title="CTF resolution",
        description='Coarsest and finest resolution that the CTF is fitted on, "30:6".',
        unit="Å",
    )
    defocus_min_max: DefocusRange = field(
        "1.1:8",
        title="Defocus range",
        description='Smallest and largest defocus to look for, "1.1:8"; positive is underfocus.',
        unit="µm",
    )
    defocus_hand: Literal["set_flip", "set_noflip", "auto"] | None = field(
        None,
        title="Defocus hand",
        description="None: as acquisition.invert_defocus_hand says. set_flip: defocus grows the "
        "other way along the tilted sample (rlnTomoHand -1). set_noflip: it does not. auto: what "
        "the images of all tilt series say.",
    )
    do_phase: bool = field(
        False,
        title="Fit phase shift",
        description="Fit the phase shift of a phase plate too.",
    )
    perdevice: int = field(
        1,
        title="Processes per GPU",
        description="Worker processes for each GPU; 0: as WarpTools likes.",
        ge=0,
        le=8,
        resource=True,
    )

    def is_flipped(self, *, acquisition_says: bool) -> bool | None:
        """Whether defocus grows the other way (`--set_flip`); None: the images are to say it.

        Args:
            acquisition_says: `acquisition.invert_defocus_hand`.
        """
        if self.defocus_hand is None:
            return acquisition_says
        return None if self.defocus_hand == "auto" else self.defocus_hand == "set_flip"

    @property
    def resolution_angstrom(self) -> tuple[float, float]:
        """`range_min_max` as numbers: (coarsest, finest) in Å."""
        return parse_range(self.range_min_max)

    @property
    def defocus_um(self) -> tuple[float, float]:
        """`defocus_min_max` as numbers: (smallest, largest) in µm."""
        return parse_range(self.defocus_min_max)
