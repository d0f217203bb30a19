"""The parameters of RELION's own job types.

`subtomoExtraction`, `reconstructParticle` and `class3d` have the names that users of the earlier
CryoBoost know; the others have RELION's names, with the unit where RELION's leave it open.
Values that RELION's jobs cannot express are not offered.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from crboost.parameters.acquisition import Acquisition
from crboost.parameters.base import SchemaKeywords, field
from crboost.parameters.job_base import BINNING, PIXEL_SIZE, JobParameters, resolved
from crboost.parameters.per_series import WarpArguments
from crboost.parameters.shaped_text import VolumeSize, parse_size

_POINT_GROUP = (
    "[CDcd][1-9][0-9]?[HVhv]?|[Tt][DHdh]?|[Oo][Hh]?|[Ii][1-5]?[Hh]?|[Cc][ISis]"  # RELION's names
)
SYMMETRY_PATTERN = rf"^\s*(?:{_POINT_GROUP})\s*$"
OPTIONAL_SYMMETRY_PATTERN = rf"^\s*(?:{_POINT_GROUP})?\s*$"


def _symmetry(text: str) -> str:
    if not re.search(SYMMETRY_PATTERN, text):
        raise ValueError('must be a point group of RELION, like "C1", "D7", "O" or "I1"')
    return text.strip().upper()


def _symmetry_or_none(text: str) -> str:
    return _symmetry(text) if text.strip() else ""


def _arguments(text: str) -> str:
    if "\n" in text or "\r" in text or '"' in "".join(_words(text)):
        raise ValueError("must be one line, and no argument may hold a double quote")
    return text.strip()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be split into arguments: {error}") from None


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


def _even_or_none(value: int) -> int:
    if value != -1 and (value < 16 or value % 2):
        raise ValueError("must be -1 (no cropping), or even and at least 16")
    return value


Symmetry = Annotated[str, AfterValidator(_symmetry), SchemaKeywords(pattern=SYMMETRY_PATTERN)]
OptionalSymmetry = Annotated[
    str, AfterValidator(_symmetry_or_none), SchemaKeywords(pattern=OPTIONAL_SYMMETRY_PATTERN)
]
Arguments = Annotated[str, AfterValidator(_arguments)]
BoxSize = Annotated[int, AfterValidator(_even), SchemaKeywords(multipleOf=2)]
CropSize = Annotated[
    int,
    AfterValidator(_even_or_none),
    # Not anyOf: a form would make two fields of it.
    SchemaKeywords(**{"if": {"minimum": 0}, "then": {"minimum": 16, "multipleOf": 2}}),
]


class RelionJobParameters(JobParameters):
    """A job that RELION itself runs, or could."""

    tool: Literal["relion", "warp"] = field(
        "relion", title="Tool", description="The program that does the work."
    )
    other_args: Arguments = field(
        "",
        title="Additional arguments",
        description="Further arguments of RELION's program, quoted as on a command line.",
    )

    @property
    def other_arguments(self) -> list[str]:
        """`other_args` as single arguments."""
        return shlex.split(self.other_args)


class _RelionAlone(RelionJobParameters):
    tool: Literal["relion"] = field(
        "relion", title="Tool", description="The program that does the work."
    )


class _OnTiltSeries(_RelionAlone):
    input_tilt_series: str | None = field(
        None,
        title="Input",
        description="Tilt-series STAR file to work on, relative to the project; None: the newest "
        "one that fits.",
        file=True,
    )


class _OnParticles(RelionJobParameters):
    uses: ClassVar[frozenset[str]] = frozenset({"acquisition.mtf_file"})

    input_optimisation_set: str | None = field(
        None,
        title="Input",
        description="Optimisation set (particles and tomograms) to work on, relative to the "
        "project; None: the newest one that fits.",
        file=True,
    )


class MotionCorr(_OnTiltSeries):
    """Movies become motion-corrected images, by RELION's own program."""

    job_type: ClassVar[str] = "motionCorr"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            PIXEL_SIZE,
            "acquisition.detector_dimensions_px",
            "acquisition.eer_frames_per_fraction",
            "acquisition.gain_reference_path",
            "acquisition.gain_flip_x",
            "acquisition.gain_flip_y",
            "acquisition.gain_transpose",
        }
    )

    bfactor_a2: float = field(
        150,
        title="Motion B-factor",
        description="How strongly high resolution is damped in the motion fit.",
        unit="Å²",
        ge=0,
        le=1500,
    )
    patch_x: int = field(
        1, title="Patches in x", description="Patches of the motion model in x.", ge=1, le=64
    )
    patch_y: int = field(
        1, title="Patches in y", description="Patches of the motion model in y.", ge=1, le=64
    )
    group_frames: int = field(
        1,
        title="Group frames",
        description="Frames that are averaged before their motion is fitted.",
        ge=1,
        le=100,
    )
    bin_factor: float = field(
        1.0,
        title="Binning of movies",
        description="The images have this many times the movies' pixel size; 2 for movies in "
        "super resolution.",
        ge=1,
        le=8,
    )
    do_even_odd_split: bool = field(
        True,
        title="Half averages",
        description="Write averages of even and odd frames too, for denoising and half tomograms.",
    )
    do_float16: bool = field(
        True, title="Half precision", description="Write images with 16 bits per pixel."
    )
    do_save_ps: bool = field(
        True,
        title="Power spectra",
        description="Write power spectra for the CTF fit; needed with half precision.",
    )
    ps_group_frames: int = field(
        4,
        title="Group for power spectra",
        description="Frames that are summed for each power spectrum.",
        ge=1,
        le=100,
    )
    defect_file: str | None = field(
        None,
        title="Defects",
        description="Text or image of the camera's bad pixels.",
        file=True,
    )

    def warnings(self, node: str, acquisition: Acquisition) -> list[str]:
        """Say so where movies in super resolution would stay as they are."""
        if self.bin_factor > 1 or acquisition.binning >= 1:
            return []
        return [
            f"jobs.{node}.bin_factor = 1, and the movies seem to be in super resolution "
            f"(acquisition.binning = {acquisition.binning:g}): 2 makes them four times smaller"
        ]

    @property
    def image_binning(self) -> float:
        """`bin_factor`."""
        return self.bin_factor

    @model_validator(mode="after")
    def _half_precision_needs_spectra(self) -> MotionCorr:
        if self.do_float16 and not self.do_save_ps:
            raise ValueError("do_float16 needs do_save_ps: RELION refuses one without the other")
        return self


class CtfFind(_OnTiltSeries):
    """The CTF of every tilt image is fitted, by CTFFIND under RELION."""

    job_type: ClassVar[str] = "ctfFind"

    box_px: BoxSize = field(
        512,
        title="CTF box",
        description="Edge of the power spectrum that is fitted.",
        unit="px",
        ge=64,
        le=1024,
    )
    resmin_angstrom: float = field(
        30,
        title="Coarsest resolution",
        description="Coarsest resolution that the CTF is fitted on.",
        unit="Å",
        ge=10,
        le=200,
    )
    resmax_angstrom: float = field(
        5,
        title="Finest resolution",
        description="Finest resolution that the CTF is fitted on.",
        unit="Å",
        ge=1,
        le=20,
    )
    dfmin_um: float = field(
        0.5,
        title="Smallest defocus",
        description="Smallest defocus to look for; positive is underfocus.",
        unit="µm",
        ge=0,
        le=20,
    )
    dfmax_um: float = field(
        5.0,
        title="Largest defocus",
        description="Largest defocus to look for; positive is underfocus.",
        unit="µm",
        ge=0.1,
        le=30,
    )
    dfstep_um: float = field(
        0.05,
        title="Defocus step",
        description="Step of the defocus search.",
        unit="µm",
        ge=0.02,
        le=0.2,
    )
    dast_angstrom: float = field(
        100,
        title="Astigmatism",
        description="Astigmatism that CTFFIND tolerates.",
        unit="Å",
        ge=0,
        le=2000,
    )
    localsearch_nominal_defocus_um: float = field(
        1.0,
        title="Search around nominal",
        description="Search this far around the recorded defocus; 0: from smallest to largest.",
        unit="µm",
        ge=0,
        le=10,
    )
    exp_factor_dose_e_per_a2: float = field(
        100,
        title="Fading of Thon rings",
        description="The finest resolution gets coarser by exp(dose / this); 0: never.",
        unit="e/Å²",
        ge=0,
        le=200,
    )
    do_phaseshift: bool = field(
        False, title="Fit phase shift", description="Fit the phase shift of a phase plate too."
    )
    phase_min_degrees: float = field(
        0, title="Smallest phase shift", description="To look for.", unit="°", ge=0, le=180
    )
    phase_max_degrees: float = field(
        180, title="Largest phase shift", description="To look for.", unit="°", ge=0, le=180
    )
    phase_step_degrees: float = field(
        10, title="Phase shift step", description="Of the search.", unit="°", ge=1, le=90
    )
    use_given_ps: bool = field(
        True,
        title="Use given power spectra",
        description="Fit the power spectra that motion correction wrote; needed with half "
        "precision.",
    )
    slow_search: bool = field(
        False, title="Exhaustive search", description="Search slowly and more thoroughly."
    )

    @model_validator(mode="after")
    def _ranges(self) -> CtfFind:
        for low, high in (
            ("resmax_angstrom", "resmin_angstrom"),
            ("dfmin_um", "dfmax_um"),
            ("phase_min_degrees", "phase_max_degrees"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"{low} must be smaller than {high}")
        return self


class ReconstructTomograms(_OnTiltSeries):
    """Aligned tilt series become tomograms, by RELION.

    Half tomograms by weighted back-projection are the default, as in `tsReconstruct`; RELION's
    own default is one tomogram by Fourier inversion, which needs images of even and odd frames.
    """

    job_type: ClassVar[str] = "reconstructTomograms"
    uses: ClassVar[frozenset[str]] = frozenset(
        {PIXEL_SIZE, "acquisition.detector_dimensions_px", "acquisition.tilt_axis_degrees"}
    )

    binned_angpix: float | None = field(
        None,
        title="Tomogram pixel size",
        description="Pixel size of the tomograms; None: pixel size times binning.",
        unit="Å",
        ge=1,
        le=50,
        follows=[PIXEL_SIZE, BINNING],
    )
    tomo_dimensions: VolumeSize | None = field(
        None,
        title="Tomogram size",
        description='Size of the tomogram in pixels of the images, like "4096x4096x2048"; '
        "None: the size of the images and the thickness of the sample.",
        unit="px",
    )
    sample_thickness_nm: float | None = field(
        None,
        title="Sample thickness",
        description="Height of the tomogram where no size is given; None: the project's.",
        unit="nm",
        ge=50,
        le=2000,
        follows="acquisition.sample_thickness_nm",
    )
    generate_split_tomograms: bool = field(
        True,
        title="Half tomograms",
        description="Reconstruct even and odd frames by themselves, for denoising.",
    )
    do_fourier: bool = field(
        False,
        title="Fourier inversion",
        description="Invert in Fourier space with a Wiener filter; not with half tomograms.",
    )
    do_skip_wiener: bool = field(
        False,
        title="Skip Wiener filter",
        description="Fourier inversion without a Wiener filter, for real subtomograms.",
    )
    ctf_intact_first_peak: bool = field(
        True,
        title="Leave first CTF peak",
        description="Fourier inversion does not boost what is below the first peak of the CTF.",
    )
    tiltangle_offset_degrees: float = field(
        0,
        title="Tilt angle offset",
        description="Added to every tilt angle, for lamellae.",
        unit="°",
        ge=-25,
        le=25,
    )
    tomo_name: Annotated[str, AfterValidator(_arguments)] = field(
        "", title="Only this one", description="Reconstruct only this tilt series; empty: all."
    )
    do_proj: bool = field(
        True, title="Projections", description="Write a sum of the central slices, to look at."
    )
    centre_proj_px: int = field(
        0,
        title="Centre of projections",
        description="Slice of the tomogram, from its middle.",
        unit="px",
        ge=-500,
        le=500,
    )
    thickness_proj_px: int = field(
        10,
        title="Thickness of projections",
        description="Slices of the tomogram that are summed.",
        unit="px",
        ge=1,
        le=500,
    )

    @model_validator(mode="after")
    def _one_method(self) -> ReconstructTomograms:
        if self.generate_split_tomograms and self.do_fourier:
            raise ValueError("generate_split_tomograms and do_fourier exclude each other")
        return self

    @property
    def tomogram_pixel_size_angstrom(self) -> float:
        """`binned_angpix` of an effective job, never None."""
        return resolved(self.binned_angpix, "binned_angpix")

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


class _Boxed(_OnParticles):
    box_size: BoxSize = field(
        384, title="Box size", description="Edge of the box, binned.", unit="px", ge=32, le=2048
    )
    crop_size: CropSize = field(
        224,
        title="Cropped box size",
        description="Edge that the box is cropped to, binned; -1: not cropped.",
        unit="px",
        ge=-1,
        le=2048,
    )
    binning: float = field(
        1.0,
        title="Binning",
        description="Boxes have this many times the pixel size of the tilt images.",
        ge=1,
        le=16,
    )

    @model_validator(mode="after")
    def _crop_is_smaller(self) -> _Boxed:
        if self.crop_size > self.box_size:
            raise ValueError("crop_size must not be larger than box_size")
        return self

    @property
    def final_box_px(self) -> int:
        """Edge of the boxes that are written."""
        return self.crop_size if self.crop_size > 0 else self.box_size


class SubtomoExtraction(_Boxed, WarpArguments):
    """Particles are cut out of the tilt series.

    WarpTools has no larger box before its CTF: it cuts boxes of the cropped size.
    """

    job_type: ClassVar[str] = "subtomoExtraction"
    uses: ClassVar[frozenset[str]] = frozenset({PIXEL_SIZE, "acquisition.mtf_file"})

    tool: Literal["relion", "warp"] = field(
        "relion",
        title="Tool",
        description="The program that does the work; warp is WarpTools, on tilt series of tsCtf.",
    )
    input_tilt_series: str | None = field(
        None,
        title="Tilt series",
        description="Tilt-series STAR file of tsCtf, relative to the project; None: the newest.",
        tools=["warp"],
        file=True,
    )
    array_throttle: int = field(
        20,
        title="Array limit",
        description="Tilt series that a scheduler may run at the same time.",
        ge=1,
        le=64,
        resource=True,
        tools=["warp"],
    )
    particle_diameter: float | None = field(
        None,
        title="Particle diameter",
        description="A particle is left out of images that it is not whole in; None: the box.",
        unit="Å",
        ge=1,
        le=10000,
        tools=["warp"],
    )
    max_missing_tilts: int = field(
        5,
        title="Most missing images",
        description="Leave out particles that more tilt images than this do not show.",
        ge=0,
        le=200,
        tools=["warp"],
    )
    perdevice: int = field(
        1,
        title="Processes per GPU",
        description="Worker processes for each GPU; 0: as WarpTools likes.",
        ge=0,
        le=8,
        resource=True,
        tools=["warp"],
    )
    other_args: Arguments = field(
        "",
        title="Additional arguments",
        description="Further arguments of RELION's program, quoted as on a command line.",
        tools=["relion"],
    )
    do_float16: bool = field(
        True,
        title="Half precision",
        description="Write images with 16 bits per pixel, as WarpTools always does.",
        tools=["relion"],
    )
    do_stack2d: bool = field(
        True,
        title="2D stacks",
        description="Write stacks of tilt images instead of pseudo-subtomograms.",
    )
    max_dose: float = field(
        -1.0,
        title="Largest dose",
        description="Leave out images that had seen more than this; -1: none.",
        unit="e/Å²",
        ge=-1,
        le=500,
        tools=["relion"],
    )
    min_frames: int = field(
        1,
        title="Fewest images",
        description="Leave out particles that are seen in fewer tilt images.",
        ge=1,
        le=200,
        tools=["relion"],
    )


class ReconstructParticle(_RelionAlone, _Boxed):
    """All particles are averaged into a map, and its two halves."""

    job_type: ClassVar[str] = "reconstructParticle"

    symmetry: Symmetry = field("C1", title="Symmetry", description="Point group of the particle.")
    snr: float = field(
        0.0,
        title="Signal to noise",
        description="Of the Wiener filter; 0: RELION's heuristic.",
        ge=0,
        le=100,
    )
    whiten: bool = field(
        False, title="Whiten", description="Flatten the power spectrum of the noise."
    )
    threads_in: int | None = field(
        None,
        title="Inner threads",
        description="Threads that share a volume: slower, with less memory; None: RELION's own.",
        ge=1,
        le=128,
        resource=True,
    )
    threads_out: int | None = field(
        None,
        title="Outer threads",
        description="Threads with a volume each: faster, with more memory; None: RELION's own.",
        ge=1,
        le=128,
        resource=True,
    )
    no_ctf: bool = field(False, title="No CTF", description="Do not apply CTFs.")
    do_helix: bool = field(False, title="Helix", description="Apply helical symmetry.")
    helical_twist: float = field(
        -1.0,
        title="Helical twist",
        description="Positive for a right-handed helix.",
        unit="°",
        ge=-180,
        le=180,
    )
    helical_rise: float = field(
        0.0, title="Helical rise", description="Along the axis.", unit="Å", ge=0, le=500
    )
    helical_z_percentage: float = field(
        30.0,
        title="Central length",
        description="Central part of the box that the symmetry is taken from.",
        unit="%",
        ge=5,
        le=80,
    )
    helical_tube_outer_diameter: float = field(
        -1.0, title="Helix diameter", description="Outer diameter.", unit="Å", ge=-1, le=5000
    )
    helical_nr_asu: int = field(
        1,
        title="Asymmetric units",
        description="Unique asymmetric units in each box of a helix.",
        ge=1,
        le=100,
    )

    @model_validator(mode="after")
    def _helix_is_known(self) -> ReconstructParticle:
        if self.do_helix and (self.helical_rise <= 0 or self.helical_tube_outer_diameter <= 0):
            raise ValueError("do_helix needs helical_rise and helical_tube_outer_diameter above 0")
        return self


class _Refinement(_RelionAlone, _OnParticles):
    """What classification and refinement share; the reference and mask come as inputs."""

    input_reference: str | None = field(
        None,
        title="Reference",
        description="Map to start from, relative to the project; None: the newest that fits.",
        file=True,
    )
    input_mask: str | None = field(
        None,
        title="Mask",
        description="Mask of the reference, relative to the project; None: a sphere.",
        file=True,
    )
    symmetry: Symmetry = field("C1", title="Symmetry", description="Point group of the particle.")
    ini_high: float = field(
        45.0,
        title="Initial low-pass",
        description="The reference is filtered to this resolution first; 0: not filtered.",
        unit="Å",
        ge=0,
        le=1000,
    )
    particle_diameter: float = field(
        -1.0,
        title="Mask diameter",
        description="Of the circular mask on the images; -1: as large as the box.",
        unit="Å",
        ge=-1,
        le=10000,
    )
    zero_mask: bool = field(
        True, title="Mask with zeros", description="Fill around particles with 0, not with noise."
    )
    firstiter_cc: bool = field(
        True,
        title="Correlate first",
        description="First iteration by correlation: the reference's greyscale is not absolute.",
    )
    trust_ref_size: bool = field(
        True, title="Resize reference", description="Bring the reference to the images' box."
    )
    do_ctf: bool = field(True, title="Correct CTF", description="Correct for the CTF.")
    ctf_intact_first_peak: bool = field(
        False, title="Leave first CTF peak", description="Ignore the CTF up to its first peak."
    )
    do_norm: bool = field(
        True, title="Normalisation", description="Correct errors of normalisation."
    )
    do_scale: bool = field(True, title="Scale", description="Correct the scale of image groups.")
    do_blush: bool = field(
        False, title="Blush", description="Regularise by a neural network that denoises."
    )
    healpix_order: int = field(
        3,
        title="Angular sampling",
        description="HEALPix order before oversampling: 2 is 15°, 3 is 7.5°, 4 is 3.7°.",
        ge=1,
        le=6,
    )
    oversampling: int = field(
        1,
        title="Oversampling",
        description="Orders of adaptive oversampling; 0: none.",
        ge=0,
        le=3,
    )
    offset_range: int = field(
        5, title="Shift range", description="Shifts that are tried.", unit="px", ge=0, le=30
    )
    offset_step: float = field(
        2,
        title="Shift step",
        description="Step of the shifts before oversampling.",
        unit="px",
        ge=0.2,
        le=10,
    )
    sigma_tilt: float = field(
        -1,
        title="Tilt prior",
        description="Width of the prior on the tilt angle; -1: no prior.",
        unit="°",
        ge=-1,
        le=30,
    )
    relax_symmetry: OptionalSymmetry = field(
        "", title="Relax symmetry", description="Point group of pseudo-symmetry; empty: none."
    )
    dont_combine_weights_via_disc: bool = field(
        True,
        title="Combine in memory",
        description="Combine the parts of an iteration over the network, not over the disk.",
        resource=True,
    )
    pad: int = field(
        2, title="Padding", description="Padding of references in Fourier space.", ge=1, le=2
    )
    use_gpu: bool = field(
        True,
        title="Use GPUs",
        description="Use GPUs, where computing.gpu_count is not 0.",
        resource=True,
    )
    preread_images: bool = field(
        True, title="Read into memory", description="Read all images first.", resource=True
    )
    pool: int = field(
        30,
        title="Pool",
        description="Particles that are read together for each thread.",
        ge=1,
        le=1000,
        resource=True,
    )


class Class3d(_Refinement):
    """Particles are sorted into classes, each with its own map."""

    job_type: ClassVar[str] = "class3d"

    n_classes: int = field(1, title="Classes", description="Number of classes.", ge=1, le=50)
    n_iterations: int = field(
        15, title="Iterations", description="Iterations in all.", ge=1, le=999
    )
    tau_fudge: float = field(
        1.0,
        title="Regularisation T",
        description="Weight of the data against the prior.",
        ge=0.01,
        le=100,
    )
    sigma_ang: float = field(
        -1.0,
        title="Local angular search",
        description="Standard deviation of local searches around known angles; -1: global.",
        unit="°",
        ge=-1,
        le=60,
    )
    skip_align: bool = field(
        False, title="Skip alignment", description="Classify only; angles and shifts are kept."
    )
    allow_coarser: bool = field(
        False,
        title="Allow coarser sampling",
        description="Sample coarser while the angles are not accurate yet.",
    )
    do_fast_subsets: bool = field(
        False, title="Fast subsets", description="Use parts of the data in early iterations."
    )
    highres_limit: float = field(
        -1,
        title="Resolution limit",
        description="Finest resolution that particles are aligned on; -1: no limit.",
        unit="Å",
        ge=-1,
        le=100,
    )

    @model_validator(mode="after")
    def _relaxing_is_local(self) -> Class3d:
        if self.relax_symmetry and (self.skip_align or self.sigma_ang <= 0):
            raise ValueError("relax_symmetry needs local searches: set sigma_ang")
        return self


class Refine3d(_Refinement):
    """Particles are refined against one map, in two independent halves.

    RELION needs at least 3 MPI processes for it.
    """

    job_type: ClassVar[str] = "refine3d"

    ini_high: float = field(
        60.0,
        title="Initial low-pass",
        description="The reference is filtered to this resolution first; 0: not filtered.",
        unit="Å",
        ge=0,
        le=1000,
    )
    healpix_order: int = field(
        2,
        title="Initial angular sampling",
        description="HEALPix order before oversampling: 2 is 15°, 3 is 7.5°, 4 is 3.7°.",
        ge=1,
        le=6,
    )
    auto_local_healpix_order: int = field(
        4,
        title="Local searches from",
        description="HEALPix order before oversampling from which searches are local.",
        ge=1,
        le=8,
    )
    auto_faster: bool = field(
        False, title="Finer faster", description="Go to finer angles earlier; less tested."
    )
    do_solvent_fsc: bool = field(
        False,
        title="Solvent-flattened FSC",
        description="Judge resolution on masked halves; needs a mask.",
    )


RELION_MODELS: tuple[type[RelionJobParameters], ...] = (
    MotionCorr,
    CtfFind,
    ReconstructTomograms,
    SubtomoExtraction,
    ReconstructParticle,
    Class3d,
    Refine3d,
)
"""The models of RELION's own job types, in the order in which the jobs follow each other."""
