"""RELION's own job types: job parameters -> options of their `job.star`. Pure.

RELION pastes option values into a shell command as they are. What may hold characters that a
shell reads is therefore escaped here, with backslashes: quotes would not survive a STAR file.
Option names are those of RELION 5.0 and 5.1. Where they differ a `job.star` has both: each RELION
takes its own, ignores the others with a warning, and leaves them out of the completed `job.star`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from crboost.builders.series_values import check_not_finer
from crboost.catalogue import CATALOGUE
from crboost.errors import ParameterError
from crboost.parameters import (
    DEFAULT_EER_FRAMES_PER_FRACTION,
    Acquisition,
    Class3d,
    CtfFind,
    EffectiveParameters,
    MotionCorr,
    ReconstructParticle,
    ReconstructTomograms,
    Refine3d,
    SubtomoExtraction,
)

RELION_TYPE: dict[str, str] = {
    name: job_type.relion_type for name, job_type in CATALOGUE.items() if job_type.is_native
}
"""RELION's label of each job type, as RELION writes it into ledger and `job.star`."""

GAIN_ROTATIONS = ("No rotation (0)", "90 degrees (1)", "180 degrees (2)", "270 degrees (3)")
GAIN_FLIPS = ("No flipping (0)", "Flip upside down (1)", "Flip left to right (2)")
SAMPLINGS = (
    "30 degrees",
    "15 degrees",
    "7.5 degrees",
    "3.7 degrees",
    "1.8 degrees",
    "0.9 degrees",
    "0.5 degrees",
    "0.2 degrees",
    "0.1 degrees",
)
"""RELION's choices; the place of each is the HEALPix order *before* its one oversampling."""

POWER_SPECTRUM_SIZE_PX = 512
POWER_SPECTRUM_PIXEL_SIZE_ANGSTROM = 1.4
OVERSAMPLING = 1

Options = dict[str, str]


def relion_options(
    job_type: str, effective: EffectiveParameters, *, ctffind_executable: str
) -> Options:
    """The options of a RELION job that the parameters decide.

    Left to others: input files (given as overrides here only to the planner), queue, threads and
    MPI processes.

    Args:
        job_type: one of `RELION_TYPE`.
        effective: what the job sees.
        ctffind_executable: CTFFIND 4.1, as the compute node finds it; used by `ctfFind` alone.

    Returns:
        value by option name, as RELION writes them: Yes and No, numbers, choices by their text.

    Raises:
        ParameterError: RELION has no such job type, or cannot do what the parameters say.
    """
    if job_type not in RELION_TYPE:
        raise ParameterError(
            f"{job_type}: not a job type of RELION", hint=f"those are {', '.join(RELION_TYPE)}"
        )
    if job_type == "ctfFind":
        return _ctf_find(effective, ctffind_executable)
    builders: dict[str, Callable[[EffectiveParameters], Options]] = {
        "motionCorr": _motion_corr,
        "reconstructTomograms": _reconstruct_tomograms,
        "subtomoExtraction": _subtomo_extraction,
        "reconstructParticle": _reconstruct_particle,
        "class3d": _class3d,
        "refine3d": _refine3d,
    }
    return builders[job_type](effective)


def shell_word(text: str, *, field: str) -> str:
    r"""`text` as one word of a shell command, and safe in a STAR file: `it's` is `it\'s`.

    Raises:
        ParameterError: `text` is empty, or has a line break or a double quote.
    """
    if not text or re.search(r'[\n\r\0"]', text):
        raise ParameterError(
            f"{field} = {text!r}: RELION cannot be given a name that is empty or has a line break "
            "or a double quote",
            hint="rename the file, or link to it under a plain name",
        )
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)


def gain_turn(acquisition: Acquisition) -> tuple[str, str]:
    """RELION's choices (gain_rot, gain_flip) for `gain_transpose`, `gain_flip_x`, `gain_flip_y`.

    We transpose, then mirror left to right (x) and upside down (y), on the array as stored.
    RELION rotates it n times by 90 degrees clockwise (array row 0 on top), then mirrors once.
    A transposition is one such rotation, mirrored in x; one mirrored in y is three of them; both
    mirrors without a transposition are two. So each of the 8 combinations has its choices.
    """
    key = (acquisition.gain_transpose, acquisition.gain_flip_x, acquisition.gain_flip_y)
    rotation, flip = {
        (False, False, False): (0, 0),
        (False, True, False): (0, 2),
        (False, False, True): (0, 1),
        (False, True, True): (2, 0),
        (True, False, False): (1, 2),
        (True, True, False): (1, 0),
        (True, False, True): (3, 0),
        (True, True, True): (1, 1),
    }[key]
    return GAIN_ROTATIONS[rotation], GAIN_FLIPS[flip]


def power_spectrum_size_px(
    frame_size_px: tuple[int, int], pixel_size_angstrom: float, bin_factor: float = 1.0
) -> int:
    """Edge of the power spectra that RELION's motion correction can write for such frames.

    RELION bins the frames, crops their spectrum to 1.4 Å per pixel where it is finer, and then
    shrinks it to 512 px; it reads beyond the spectrum where that is smaller already.
    """
    side = int(min(frame_size_px) / bin_factor)
    pixel_size = pixel_size_angstrom * bin_factor
    if pixel_size < POWER_SPECTRUM_PIXEL_SIZE_ANGSTROM:
        side = math.ceil(side * pixel_size / POWER_SPECTRUM_PIXEL_SIZE_ANGSTROM)
    return min(POWER_SPECTRUM_SIZE_PX, side - side % 2)


def _motion_corr(effective: EffectiveParameters) -> Options:
    job, acquisition = effective.job_as(MotionCorr), effective.acquisition
    grouping = acquisition.eer_frames_per_fraction or DEFAULT_EER_FRAMES_PER_FRACTION
    spectrum = power_spectrum_size_px(
        acquisition.detector_dimensions_px,
        effective.microscope.pixel_size_angstrom,
        job.bin_factor,
    )
    smaller = job.do_save_ps and spectrum < POWER_SPECTRUM_SIZE_PX
    defects = job.defect_file
    return {
        "do_own_motioncor": "Yes",
        "bfactor": _number(job.bfactor_a2),
        "patch_x": str(job.patch_x),
        "patch_y": str(job.patch_y),
        "group_frames": str(job.group_frames),
        "bin_factor": _number(job.bin_factor),
        "do_even_odd_split": _yes(job.do_even_odd_split),
        "do_float16": _yes(job.do_float16),
        "do_save_ps": _yes(job.do_save_ps),
        "group_for_ps": str(job.ps_group_frames),
        "eer_grouping": str(grouping),
        "fn_defect": shell_word(defects, field="defect_file") if defects else "",
        **_gain(acquisition),
        "other_args": _arguments(
            ["--ps_size", str(spectrum)] if smaller else [], job.other_arguments
        ),
    }


def _gain(acquisition: Acquisition) -> Options:
    path = acquisition.gain_reference_path
    rotation, flip = gain_turn(acquisition)
    if not path:
        return {"fn_gain_ref": "", "gain_rot": GAIN_ROTATIONS[0], "gain_flip": GAIN_FLIPS[0]}
    suffix = path.lower().rpartition(".")[2]
    where = f"acquisition.gain_reference_path = {path}"
    if suffix in ("dm3", "dm4"):
        raise ParameterError(
            f"{where}: RELION reads no gain reference in Digital Micrograph's format",
            hint="convert it to MRC (dm2mrc of IMOD)",
        )
    if suffix == "gain" and (rotation, flip) != (GAIN_ROTATIONS[0], GAIN_FLIPS[0]):
        # RELION would write the turned one as MRC, and read an MRC as divisors, not factors.
        raise ParameterError(
            f"{where}: RELION cannot turn or mirror a .gain file: it would apply it upside down "
            "in value",
            hint="turn the file itself and set acquisition.gain_flip_x, gain_flip_y and "
            "gain_transpose to false",
        )
    return {
        "fn_gain_ref": shell_word(path, field="acquisition.gain_reference_path"),
        "gain_rot": rotation,
        "gain_flip": flip,
    }


def _ctf_find(effective: EffectiveParameters, executable: str) -> Options:
    job = effective.job_as(CtfFind)
    if not re.fullmatch(r"[\w@%+=:,./-]+", executable):
        raise ParameterError(
            f"the CTFFIND executable {executable!r}: RELION starts it through a shell script and "
            "takes no name with spaces, quotes or other signs",
            hint="give a path without them, such as a link",
        )
    return {
        "fn_ctffind_exe": executable,
        "box": str(job.box_px),
        "resmin": _number(job.resmin_angstrom),
        "resmax": _number(job.resmax_angstrom),
        "dfmin": _angstrom(job.dfmin_um),
        "dfmax": _angstrom(job.dfmax_um),
        "dfstep": _angstrom(job.dfstep_um),
        "dast": _number(job.dast_angstrom),
        "localsearch_nominal_defocus": _angstrom(job.localsearch_nominal_defocus_um),
        "exp_factor_dose": _number(job.exp_factor_dose_e_per_a2),
        "do_phaseshift": _yes(job.do_phaseshift),
        "phase_min": _number(job.phase_min_degrees),
        "phase_max": _number(job.phase_max_degrees),
        "phase_step": _number(job.phase_step_degrees),
        "use_given_ps": _yes(job.use_given_ps),
        "slow_search": _yes(job.slow_search),
        "ctf_win": "-1",
        "other_args": _arguments(job.other_arguments),
    }


def _reconstruct_tomograms(effective: EffectiveParameters) -> Options:
    job = effective.job_as(ReconstructTomograms)
    x, y, z = job.tomo_dimensions_px or tomogram_size_px(
        effective.image_size_px,
        effective.acquisition.tilt_axis_degrees,
        job.thickness_nm,
        effective.image_pixel_size_angstrom,
    )
    check_not_finer(effective, "binned_angpix", job.tomogram_pixel_size_angstrom)
    name = job.tomo_name
    return {
        "binned_angpix": _number(job.tomogram_pixel_size_angstrom),
        "xdim": str(x),
        "ydim": str(y),
        "zdim": str(z),
        "generate_split_tomograms": _yes(job.generate_split_tomograms),
        "do_fourier": _yes(job.do_fourier),
        "do_skip_wiener": _yes(job.do_skip_wiener),
        "ctf_intact_first_peak": _yes(job.ctf_intact_first_peak),
        "tiltangle_offset": _number(job.tiltangle_offset_degrees),
        "tomo_name": shell_word(name, field="tomo_name") if name else "",
        "do_proj": _yes(job.do_proj),
        "centre_proj": str(job.centre_proj_px),
        "thickness_proj": str(job.thickness_proj_px),
        # 5.0 has the program's option and none in the job.
        "other_args": _arguments(["--skip_wiener"] * job.do_skip_wiener, job.other_arguments),
    }


def tomogram_size_px(
    image_size_px: tuple[int, int],
    tilt_axis_deg: float,
    thickness_nm: float,
    pixel_size_angstrom: float,
) -> tuple[int, int, int]:
    """Even (x, y, z), in pixels of the images, that covers the field of view and the sample.

    The tilt axis is the tomogram's y: an axis closer to the image's x swaps the image's sides.
    """
    sideways = abs(math.sin(math.radians(tilt_axis_deg))) > math.sqrt(0.5)
    x, y = image_size_px[::-1] if sideways else image_size_px
    z = thickness_nm * 10 / pixel_size_angstrom
    # The tiny part keeps 400.0000001 from becoming 402.
    return x + x % 2, y + y % 2, 2 * math.ceil(z / 2 - 1e-6)


def _subtomo_extraction(effective: EffectiveParameters) -> Options:
    """Boxes in Å for RELION 5.1, in binned pixels for 5.0."""
    job = effective.job_as(SubtomoExtraction)
    pixel_size = effective.image_pixel_size_angstrom * job.binning
    final = job.final_box_px
    cropped = final < job.box_size
    return {
        "box_size_angst": _number(final * pixel_size),
        "binned_size_pix": str(final),
        "precrop_size_angst": _number(job.box_size * pixel_size) if cropped else "-1",
        "subtomo_format": "2D stacks" if job.do_stack2d else "3D pseudo-subtomos",
        "box_size": str(job.box_size),
        "crop_size": str(final) if cropped else "-1",
        "binning": _number(job.binning),
        "do_stack2d": _yes(job.do_stack2d),
        "do_float16": _yes(job.do_float16),
        "max_dose": _number(job.max_dose),
        "min_frames": str(job.min_frames),
        "use_direct_entries": "No",
        "other_args": _arguments(job.other_arguments),
    }


def _reconstruct_particle(effective: EffectiveParameters) -> Options:
    job = effective.job_as(ReconstructParticle)
    extra = ["--whiten"] * job.whiten + ["--no_ctf"] * job.no_ctf
    # RELION takes the last of two, so that these win over the job's own.
    for option, threads in (("--j_in", job.threads_in), ("--j_out", job.threads_out)):
        extra += [option, str(threads)] if threads is not None else []
    return {
        "box_size": str(job.box_size),
        "crop_size": str(job.crop_size),
        "binning": _number(job.binning),
        "sym_name": job.symmetry,
        "snr": _number(job.snr),
        "do_helix": _yes(job.do_helix),
        "helical_twist": _number(job.helical_twist),
        "helical_rise": _number(job.helical_rise),
        "helical_z_percentage": _number(job.helical_z_percentage),
        "helical_tube_outer_diameter": _number(job.helical_tube_outer_diameter),
        "helical_nr_asu": str(job.helical_nr_asu),
        "use_direct_entries": "No",
        "other_args": _arguments(extra, job.other_arguments),
    }


def _refinement(effective: EffectiveParameters, job: Class3d | Refine3d) -> Options:
    extra = ["--no_norm"] * (not job.do_norm) + ["--no_scale"] * (not job.do_scale)
    if job.oversampling != OVERSAMPLING:
        # RELION takes the last of two, so that this one wins over the job's own.
        extra += ["--oversampling", str(job.oversampling)]
    return {
        "use_direct_entries": "No",
        "sym_name": job.symmetry,
        "ini_high": _number(job.ini_high),
        "particle_diameter": _number(job.particle_diameter),
        "do_zero_mask": _yes(job.zero_mask),
        "ref_correct_greyscale": _yes(not job.firstiter_cc),
        "trust_ref_size": _yes(job.trust_ref_size),
        "do_ctf_correction": _yes(job.do_ctf),
        "ctf_intact_first_peak": _yes(job.ctf_intact_first_peak),
        "do_blush": _yes(job.do_blush),
        "sampling": SAMPLINGS[job.healpix_order],
        "offset_range": str(job.offset_range),
        # The job's own number is the one after oversampling.
        "offset_step": _number(job.offset_step / 2**OVERSAMPLING),
        "sigma_tilt": _number(job.sigma_tilt),
        "relax_sym": job.relax_symmetry,
        "do_combine_thru_disc": _yes(not job.dont_combine_weights_via_disc),
        "do_pad1": _yes(job.pad == 1),
        "do_preread_images": _yes(job.preread_images),
        "nr_pool": str(job.pool),
        "use_gpu": _yes(job.use_gpu and effective.computing.gpu_count > 0),
        "other_args": _arguments(extra, job.other_arguments),
    }


def _class3d(effective: EffectiveParameters) -> Options:
    job = effective.job_as(Class3d)
    options = _refinement(effective, job)
    is_local = job.sigma_ang > 0
    return {
        **options,
        "nr_classes": str(job.n_classes),
        "nr_iter": str(job.n_iterations),
        "tau_fudge": _number(job.tau_fudge),
        "dont_skip_align": _yes(not job.skip_align),
        "do_local_ang_searches": _yes(is_local),
        # RELION's range is three standard deviations.
        "sigma_angles": _number(3 * job.sigma_ang) if is_local else "5",
        "allow_coarser": _yes(job.allow_coarser),
        "do_fast_subsets": _yes(job.do_fast_subsets),
        "highres_limit": _number(job.highres_limit),
        # RELION refuses GPUs for a classification without alignment.
        "use_gpu": "No" if job.skip_align else options["use_gpu"],
    }


def _refine3d(effective: EffectiveParameters) -> Options:
    job = effective.job_as(Refine3d)
    return {
        **_refinement(effective, job),
        "auto_local_sampling": SAMPLINGS[job.auto_local_healpix_order],
        "auto_faster": _yes(job.auto_faster),
        "do_solvent_fsc": _yes(job.do_solvent_fsc),
    }


def _arguments(*groups: Iterable[str]) -> str:
    words = (word for group in groups for word in group)
    # The option's own sign of an argument without text.
    return " ".join(shell_word(word, field="other_args") if word else "''" for word in words)


def _angstrom(micrometres: float) -> str:
    return _number(micrometres * 1e4)


def _number(value: float) -> str:
    """As a person writes it, without exponent; 1e-6 is below any unit's meaning here."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _yes(value: bool) -> str:
    return "Yes" if value else "No"
