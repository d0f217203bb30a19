"""The parameters of each job type, and the names of a project's jobs.

Names, bounds and defaults are those that users of the earlier CryoBoost know. A field that only
some tools use says so (`tools`); a field whose None means "as in the project" says which global
parameter it follows (`follows`).
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from crboost.errors import ParameterError
from crboost.parameters.acquisition import Acquisition
from crboost.parameters.base import SchemaKeywords, closest, field, field_facts
from crboost.parameters.denoise_jobs import DenoisePredict, DenoiseTrain
from crboost.parameters.job_base import BINNING, PIXEL_SIZE, JobParameters, resolved
from crboost.parameters.membrain_jobs import MembraneSegmentation
from crboost.parameters.optics_groups import OpticsGroup, OpticsGroups, parse_optics_groups
from crboost.parameters.per_series import WarpArguments
from crboost.parameters.relion_jobs import RELION_MODELS
from crboost.parameters.shaped_text import (
    DefocusRange,
    Grid,
    ResolutionRange,
    VolumeSize,
    parse_range,
    parse_size,
)
from crboost.parameters.template_matching_jobs import ExtractCandidates, TemplateMatching
from crboost.parameters.tilt_filter_jobs import TiltFilter
from crboost.parameters.warp_jobs import TsCtf, TsImport


class CpuJobParameters(JobParameters):
    """A job type that needs no tool but the built-in ones."""

    tool: Literal["cpu"] = field(
        "cpu", title="Tool", description="The program that does the work; cpu is built in."
    )


def _all_or_some(value: int) -> int:
    if value == 0:
        raise ValueError("must be -1 (all) or at least 1")
    return value


AllOrSome = Annotated[int, AfterValidator(_all_or_some), SchemaKeywords(**{"not": {"const": 0}})]


class ImportMovies(CpuJobParameters):
    """Movies and mdocs become RELION's tables of tilt series."""

    job_type: ClassVar[str] = "importmovies"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            PIXEL_SIZE,
            "microscope.acceleration_voltage_kv",
            "microscope.spherical_aberration_mm",
            "microscope.amplitude_contrast",
            "acquisition.dose_per_tilt_e_per_a2",
            "acquisition.dose_calibration_factor",
            "acquisition.tilt_axis_degrees",
            "acquisition.invert_tilt_angles",
            "acquisition.invert_defocus_hand",
            "acquisition.mtf_file",
        }
    )
    yields_to_mdoc: ClassVar[frozenset[str]] = frozenset(
        {
            PIXEL_SIZE,
            "microscope.acceleration_voltage_kv",
            "acquisition.tilt_axis_degrees",
            "acquisition.dose_per_tilt_e_per_a2",
        }
    )

    optics_group_name: str = field(
        "opticsGroup1", title="Optics group", description="RELION's name of the optics group."
    )
    optics_groups: OpticsGroups = field(
        "",
        title="Further optics groups",
        description='Tilt series with an optics group of their own, as "TS_2*: second; TS_3*: '
        'third pixel_size_angstrom=2.7": pattern of their names, name of the group, and values of '
        "the microscope that differ (docs/optics-groups.md).",
    )
    do_at_most: AllOrSome = field(
        -1, title="At most", description="Import at most so many tilt series; -1: all.", ge=-1
    )

    @property
    def groups(self) -> tuple[OpticsGroup, ...]:
        """`optics_groups` as values."""
        return parse_optics_groups(self.optics_groups)

    @model_validator(mode="after")
    def _usual_group_has_the_projects_values(self) -> ImportMovies:
        for group in self.groups:
            if group.name == self.optics_group_name and group.values:
                raise ValueError(
                    f"optics_groups: {group.name} is the group of all other tilt series, and "
                    "cannot have values of its own: take another name"
                )
        return self


class FsMotionAndCtf(WarpArguments):
    """Movies become motion-corrected images with their CTF."""

    job_type: ClassVar[str] = "fsMotionAndCtf"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            PIXEL_SIZE,
            "microscope.acceleration_voltage_kv",
            "microscope.spherical_aberration_mm",
            "microscope.amplitude_contrast",
            "acquisition.dose_per_tilt_e_per_a2",
            "acquisition.dose_calibration_factor",
            "acquisition.eer_frames_per_fraction",
            "acquisition.gain_reference_path",
            "acquisition.gain_flip_x",
            "acquisition.gain_flip_y",
            "acquisition.gain_transpose",
        }
    )

    tool: Literal["cpu", "warp"] = field(
        "cpu",
        title="Tool",
        description="The program that does the work; cpu is built in, warp is WarpTools.",
    )
    m_range_min_max: ResolutionRange = field(
        "500:10",
        title="Motion resolution",
        description='Coarsest and finest resolution that motion is fitted on, "500:10".',
        unit="Å",
    )
    m_bfac: int = field(
        -500,
        title="Motion B-factor",
        description="Weight of high resolution in the motion fit; negative damps.",
        unit="Å²",
    )
    m_grid: Grid = field(
        "1x1x3",
        title="Motion grid",
        description="Points of the motion model in x, y and time.",
        tools=["warp"],
    )
    c_range_min_max: ResolutionRange = field(
        "30:6",
        title="CTF resolution",
        description='Coarsest and finest resolution that the CTF is fitted on, "30:6".',
        unit="Å",
    )
    c_defocus_min_max: DefocusRange = field(
        "1.1:8",
        title="Defocus range",
        description='Smallest and largest defocus to look for, "1.1:8"; positive is underfocus.',
        unit="µm",
    )
    c_grid: Grid = field(
        "2x2x1",
        title="CTF grid",
        description="Points of the defocus model in x, y and time; the hand test needs 2x2x1.",
        tools=["warp"],
    )
    c_use_sum: bool = field(
        False,
        title="CTF of the sum",
        description="Fit the CTF on the motion-corrected sum instead of single frames.",
        tools=["warp"],
    )
    c_window: int = field(
        512,
        title="CTF window",
        description="Edge of the squares whose power spectra are averaged.",
        unit="px",
        ge=128,
    )
    do_phase: bool = field(
        False,
        title="Fit phase shift",
        description="Fit the phase shift of a phase plate too.",
        tools=["warp"],
    )
    movie_binning: int = field(
        1,
        title="Movie binning",
        description="Movies are binned this many times as they are read, in Fourier space; 2 for "
        "movies in super resolution.",
        ge=1,
        le=4,
        tools=["warp"],
    )
    out_average_halves: bool = field(
        True,
        title="Half averages",
        description="Write averages of even and odd frames too, for denoising and half tomograms.",
    )
    out_skip_first: int = field(
        0,
        title="Skip first frames",
        description="Frames at the start of each movie that are left out of the averages.",
        ge=0,
    )
    out_skip_last: int = field(
        0,
        title="Skip last frames",
        description="Frames at the end of each movie that are left out of the averages.",
        ge=0,
    )
    perdevice: int = field(
        2,
        title="Processes per GPU",
        description="Worker processes for each GPU; 0: as WarpTools likes.",
        ge=0,
        le=8,
        resource=True,
        tools=["warp"],
    )

    @property
    def image_binning(self) -> float:
        """`movie_binning`; the other tools take movies as they are."""
        return float(self.movie_binning) if self.tool == "warp" else 1.0

    def warnings(self, node: str, acquisition: Acquisition) -> list[str]:
        """Say so where movies in super resolution would stay as they are."""
        if self.tool != "warp" or self.movie_binning > 1 or acquisition.binning >= 1:
            return []
        return [
            f"jobs.{node}.movie_binning = 1, and the movies seem to be in super resolution "
            f"(acquisition.binning = {acquisition.binning:g}): 2 makes them four times smaller"
        ]

    @property
    def motion_resolution_angstrom(self) -> tuple[float, float]:
        """`m_range_min_max` as numbers: (coarsest, finest) in Å."""
        return parse_range(self.m_range_min_max)

    @property
    def ctf_resolution_angstrom(self) -> tuple[float, float]:
        """`c_range_min_max` as numbers: (coarsest, finest) in Å."""
        return parse_range(self.c_range_min_max)

    @property
    def ctf_defocus_um(self) -> tuple[float, float]:
        """`c_defocus_min_max` as numbers: (smallest, largest) in µm."""
        return parse_range(self.c_defocus_min_max)

    @property
    def motion_grid(self) -> tuple[int, int, int]:
        """`m_grid` as numbers (x, y, time)."""
        return _triple(self.m_grid)

    @property
    def ctf_grid(self) -> tuple[int, int, int]:
        """`c_grid` as numbers (x, y, time)."""
        return _triple(self.c_grid)


class TsAlignment(WarpArguments):
    """The images of a tilt series are brought into one frame."""

    job_type: ClassVar[str] = "tsAlignment"
    uses: ClassVar[frozenset[str]] = frozenset({PIXEL_SIZE, "acquisition.tilt_axis_degrees"})

    tool: Literal["cpu", "warp", "aretomo2", "aretomo3", "imod"] = field(
        "cpu",
        title="Tool",
        description="The program that does the work; cpu is built in, warp is WarpTools, which "
        "calls AreTomo or IMOD; the others are called directly.",
    )
    alignment_method: Literal["aretomo2", "aretomo3", "etomo_patches", "etomo_fiducials"] | None = (
        field(
            None,
            title="Method",
            description="aretomo2, aretomo3: no markers. etomo_patches: IMOD follows patches. "
            "etomo_fiducials: IMOD follows gold beads. None: aretomo2 with warp, etomo_patches "
            "with imod.",
            tools=["warp", "imod"],
        )
    )
    alignment_mode: Literal["auto", "coarse", "beads"] = field(
        "auto",
        title="Mode",
        description="beads: follow gold beads. coarse: correlate neighbours. "
        "auto: beads where there are any, else coarse.",
        tools=["cpu"],
    )
    fiducial_diameter_nm: float = field(
        10.0,
        title="Bead diameter",
        description="Diameter of the gold beads.",
        unit="nm",
        ge=1,
        le=100,
        tools=["cpu", "warp", "imod"],
        methods=["etomo_fiducials"],
    )
    fiducial_count: int = field(
        50,
        title="Beads",
        description="Gold beads to look for.",
        ge=1,
        tools=["warp", "imod"],
        methods=["etomo_fiducials"],
    )
    dark_threshold: float = field(
        0.3,
        title="Dark tilts",
        description="Leave out tilts with less than this fraction of the expected intensity.",
        ge=0,
        le=1,
        tools=["cpu", "aretomo2", "aretomo3"],
    )
    rescale_angpixs: float | None = field(
        None,
        title="Alignment pixel size",
        description="Pixel size that the images are aligned at; None: pixel size times binning.",
        unit="Å",
        ge=2,
        le=50,
        follows=[PIXEL_SIZE, BINNING],
    )
    sample_thickness_nm: float | None = field(
        None,
        title="Sample thickness",
        description="Thickness of the slab that is aligned; None: the project's.",
        unit="nm",
        ge=50,
        le=2000,
        follows="acquisition.sample_thickness_nm",
    )
    patch_x: int = field(
        0,
        title="Patches in x",
        description="Patches for local alignment in x; 0: global alignment only.",
        ge=0,
        tools=["warp", "aretomo2", "aretomo3"],
        methods=["aretomo2", "aretomo3"],
    )
    patch_y: int = field(
        0,
        title="Patches in y",
        description="Patches for local alignment in y; 0: global alignment only.",
        ge=0,
        tools=["warp", "aretomo2", "aretomo3"],
        methods=["aretomo2", "aretomo3"],
    )
    axis_iter: int = field(
        0,
        title="Axis iterations",
        description="Rounds of refining the tilt axis, once for all tilt series; 0: none.",
        ge=0,
        tools=["warp"],
    )
    axis_batch: int = field(
        0,
        title="Axis batch",
        description="Tilt series that the tilt axis is refined on together; 0: all.",
        ge=0,
        tools=["warp"],
    )
    imod_patch_size: int = field(
        200,
        title="Patch size",
        description="Edge of the patches that are tracked.",
        unit="nm",
        ge=1,
        tools=["warp", "imod"],
        methods=["etomo_patches"],
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

    @property
    def method(self) -> str | None:
        """`alignment_method`, or what its None stands for; None where the tool has but one."""
        standard = {"warp": "aretomo2", "imod": "etomo_patches"}
        return (self.alignment_method or standard[self.tool]) if self.tool in standard else None

    @property
    def dataset_uses_gpu(self) -> bool:
        """Whether what is done once for all tilt series, before them, needs a GPU too."""
        return self.tool == "warp" and self.axis_iter > 0

    @property
    def alignment_pixel_size_angstrom(self) -> float:
        """`rescale_angpixs` of an effective job, never None."""
        return resolved(self.rescale_angpixs, "rescale_angpixs")

    @property
    def thickness_nm(self) -> float:
        """`sample_thickness_nm` of an effective job, never None."""
        return resolved(self.sample_thickness_nm, "sample_thickness_nm")


class TsReconstruct(WarpArguments):
    """Aligned tilt series become tomograms."""

    job_type: ClassVar[str] = "tsReconstruct"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            PIXEL_SIZE,
            "acquisition.dose_per_tilt_e_per_a2",
            "acquisition.dose_calibration_factor",
        }
    )

    tool: Literal["cpu", "warp"] = field(
        "cpu",
        title="Tool",
        description="The program that does the work; cpu is built in, warp is WarpTools.",
    )
    rescale_angpixs: float | None = field(
        None,
        title="Tomogram pixel size",
        description="Pixel size of the tomograms; None: pixel size times binning.",
        unit="Å",
        ge=2,
        le=50,
        follows=[PIXEL_SIZE, BINNING],
    )
    tomo_dimensions: VolumeSize | None = field(
        None,
        title="Tomogram size",
        description='Size of the tomogram in pixels of the images, like "4096x4096x2048"; '
        "None: the size of the images and the thickness of the sample.",
        unit="px",
        tools=["cpu"],
    )
    sample_thickness_nm: float | None = field(
        None,
        title="Sample thickness",
        description="Height of the tomogram where no size is given; None: the project's.",
        unit="nm",
        ge=50,
        le=2000,
        follows="acquisition.sample_thickness_nm",
        tools=["cpu"],
    )
    halfmap_frames: bool = field(
        True,
        title="Half tomograms",
        description="Reconstruct even and odd frames by themselves too, for denoising.",
    )
    dose_weight: bool = field(
        True,
        title="Dose weighting",
        description="Damp each image's high resolution by the dose that it had already seen.",
        tools=["cpu"],
    )
    deconv: bool = field(
        True,
        title="Deconvolution",
        description="Write a deconvolved tomogram too, for looking at.",
        tools=["warp"],
    )
    invert_contrast: bool = field(
        False,
        title="Invert contrast",
        description="Make density white; templates must then be white too.",
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

    @property
    def tomogram_pixel_size_angstrom(self) -> float:
        """`rescale_angpixs` of an effective job, never None."""
        return resolved(self.rescale_angpixs, "rescale_angpixs")

    @property
    def thickness_nm(self) -> float:
        """`sample_thickness_nm` of an effective job, never None."""
        return resolved(self.sample_thickness_nm, "sample_thickness_nm")

    @property
    def tomo_dimensions_px(self) -> tuple[int, int, int] | None:
        """`tomo_dimensions` as numbers (x, y, z) in unbinned px."""
        return None if self.tomo_dimensions is None else _triple(self.tomo_dimensions)


DEFAULT_JOBS = tuple(
    model.job_type for model in (ImportMovies, FsMotionAndCtf, TsAlignment, TsReconstruct)
)
"""The jobs of a new project."""

_MODELS: tuple[type[JobParameters], ...] = (
    ImportMovies,
    FsMotionAndCtf,
    TsImport,
    TsAlignment,
    TsCtf,
    TsReconstruct,
    TiltFilter,
    DenoiseTrain,
    DenoisePredict,
    MembraneSegmentation,
    TemplateMatching,
    ExtractCandidates,
    *RELION_MODELS,
)

JOB_MODELS: dict[str, type[JobParameters]] = {model.job_type: model for model in _MODELS}
"""The model of each job type."""


def job_type_of(node: str) -> str:
    """The job type of a node: "tsAlignment" for "tsAlignment" and for "tsAlignment__2".

    Raises:
        ParameterError: no such job type, or a number that is not 2 or more.
    """
    name, separator, number = node.partition("__")
    if name not in JOB_MODELS:
        close = closest(name, JOB_MODELS)
        known = ", ".join(JOB_MODELS)
        raise ParameterError(
            f"{node}: no such job type" + (f"; did you mean {close}?" if close else ""),
            hint=f"job types are {known}",
        )
    if separator and not re.fullmatch("[1-9][0-9]*", number):
        raise ParameterError(f"{node}: no such job", hint=f"a second {name} is {name}__2")
    if number == "1":
        raise ParameterError(f"{node}: no such job", hint=f"the first {name} is just {name}")
    return name


def unused_by_tool(job: JobParameters) -> list[str]:
    """Names of the fields of `job` that its tool, as the job uses it, does not use, in the
    model's order."""
    model = type(job)
    facts = (field_facts(model, name) for name in model.model_fields)
    return [
        fact.name
        for fact in facts
        if (fact.tools is not None and job.tool not in fact.tools)
        or (fact.methods is not None and job.method is not None and job.method not in fact.methods)
    ]


def _triple(text: str) -> tuple[int, int, int]:
    first, second, third = parse_size(text, 3)
    return first, second, third
