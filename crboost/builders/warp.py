"""WarpTools: job parameters and one tilt series -> steps. Pure.

Every tilt series has its own directory, with its own links to movies, settings, tomostar and
processing folders, and every command runs in it: what WarpTools shares between commands of one
processing folder (task queue, lists of processed items) is never shared between tilt series. What
a command writes is cleared before it runs, so that an old file never passes for a new result.

WarpTools exits 0 on wrong arguments and on failures of single items. So each step `creates` the
file that only success leaves; where a tilt series may lose single images, whoever reads the
results looks for each of them. `contract.check` holds the argv against the tool's version.

Paths: `--settings`, `--output`, `--input_processing` and `--output_processing` are relative to the
working directory; the folders and the gain inside a settings file are relative to that file. All
our settings files lie in the working directory they are made in.

Conventions (WarpTools' source at the commit that `warptools_cli.json` names):
- defocus in µm, resolution in Å, B-factor in Å², thickness and patches in Å.
- `--eer_ngroups` N > 0 makes N groups, N < 0 groups of -N raw frames.
- a gain reference is flipped in x, then in y, then transposed; TIFF files, `.gain` among them, are
  turned upside down on reading, movies too, EER movies are not.
- `ts_import` changes the sign of all tilt angles unless `--dont_invert`. We never give that: Warp
  turns the specimen the other way than RELION, IMOD and AreTomo, so that its tomograms have the
  hand of theirs with the other sign only. Whether the microscope's own sign is right is settled
  before, at the import of the movies (`acquisition.invert_tilt_angles`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from crboost.builders.contract import PROGRAM, number
from crboost.builders.series_values import (
    TiltSeries,
    check_not_finer,
    eer_frames_per_fraction,
    image_name,
    movie_extension,
    optics_of,
    seen_from,
    tilt_axis_deg,
    tilt_dose_e_per_a2,
    tomogram_size_px,
)
from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import (
    Acquisition,
    EffectiveParameters,
    FsMotionAndCtf,
    TsAlignment,
    TsCtf,
    TsImport,
    TsReconstruct,
)
from crboost.tilt_name import tilt_name

#: Names inside a tilt series' directory.
FRAMES = "frames"
FRAME_SETTINGS = "warp_frameseries.settings"
FRAME_FOLDER = "warp_frameseries"
MDOCS = "mdoc"
TOMOSTARS = "tomostar"
SERIES_SETTINGS = "warp_tiltseries.settings"
SERIES_FOLDER = "warp_tiltseries"
HAND_FOLDER = "warp_hand"
HAND_CHECK_FOLDER = "warp_hand_check"
FOREIGN_ALIGNMENT = "alignment"
IMPORTED_ALIGNMENT = "alignment_of_all"

#: In the job's directory: what is done once, with all tilt series.
DATASET = "warp_dataset"
#: In there: what the stage settles on from what WarpTools left.
AXIS_FILE = "axis.json"
HAND_FILE = "hand.json"

#: The installation's name for what runs with crboost's own interpreter.
EMBEDDED_TOOL = "cpu"

#: .NET writes 85,3 where the language of the machine does; AreTomo then reads 85.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

#: What is ours to say: a second word on it would go elsewhere, or undo the isolation.
RESERVED = frozenset(
    {
        *("settings", "output", "input_data", "input_data_recursive", "input_processing"),
        *("output_processing", "input_norawdata", "folder_data", "folder_processing"),
        *("task_dir", "workers", "delete_intermediate"),
    }
)


def frames(
    series: TiltSeries, parameters: EffectiveParameters, job: FsMotionAndCtf, out: str
) -> list[Step]:
    """Motion, CTF and averages of the movies of one tilt series.

    Results: `<out>/warp_frameseries/<movie>.xml`, `average/`, `average/even/`, `average/odd/`.

    Args:
        out: the tilt series' own directory, project-relative.

    Raises:
        ParameterError: WarpTools cannot do what the parameters say.
    """
    if job.c_use_sum and job.ctf_grid[2] > 1:
        raise ParameterError(
            f"jobs.{parameters.node}.c_grid = {job.c_grid}: the CTF of the sum has one point in "
            "time",
            hint="end c_grid in x1, or switch c_use_sum off",
        )
    optics = optics_of(series, parameters)
    binned = optics.movie_pixel_size_angstrom * job.movie_binning
    movies = [str(row["rlnMicrographMovieName"]) for row in series.rows]
    settings = _create_settings(
        series,
        parameters,
        out,
        data=FRAMES,
        extension=f"*{movie_extension(series, parameters)}",
        processing=FRAME_FOLDER,
        output=FRAME_SETTINGS,
        binned_angstrom=binned if job.movie_binning > 1 else None,
        clears=(f"{out}/{FRAMES}",),
        links={f"{out}/{FRAMES}/{PurePosixPath(movie).name}": movie for movie in movies},
    )
    motion_low, motion_high = job.motion_resolution_angstrom
    ctf_low, ctf_high = job.ctf_resolution_angstrom
    defocus_low, defocus_high = job.ctf_defocus_um
    argv = [
        *(PROGRAM, "fs_motion_and_ctf", "--settings", FRAME_SETTINGS),
        *("--m_range_min", number(motion_low), "--m_range_max", number(motion_high)),
        *("--m_bfac", number(job.m_bfac), "--m_grid", job.m_grid),
        *("--c_window", str(job.c_window)),
        *("--c_range_min", number(ctf_low), "--c_range_max", number(ctf_high)),
        *("--c_defocus_min", number(defocus_low), "--c_defocus_max", number(defocus_high)),
        *("--c_voltage", whole(optics.voltage_kv)),
        *("--c_cs", number(optics.spherical_aberration_mm)),
        *("--c_amplitude", number(optics.amplitude_contrast)),
        *("--c_grid", job.c_grid),
        *_switch("--c_use_sum", job.c_use_sum),
        *_switch("--c_fit_phase", job.do_phase),
        "--out_averages",
        *_switch("--out_average_halves", job.out_average_halves),
        *("--out_skip_first", str(job.out_skip_first), "--out_skip_last", str(job.out_skip_last)),
        *per_device(job.perdevice),
        *further_options(parameters, job.further_arguments),
    ]
    return [settings, _step("motion and CTF", argv, out, clears=(f"{out}/{FRAME_FOLDER}",))]


def ts_import(
    series: TiltSeries, parameters: EffectiveParameters, job: TsImport, out: str
) -> list[Step]:
    """One tilt series becomes a `.tomostar`, with the settings that go with it.

    The mdoc that Warp reads is made from the table: rejected, missing and failed images are not
    in it, since one of them makes Warp refuse the whole tilt series. Its times only hold the order
    of the images; Warp makes the dose from ranks, so that `wrpDose` is wrong behind a gap: whoever
    reads the result puts `tomostar_doses` in its place.

    Results: `<out>/tomostar/<series>.tomostar`, `<out>/warp_tiltseries.settings`.

    Raises:
        ParameterError: the images were not made by WarpTools.
    """
    optics = optics_of(series, parameters)
    size = tomogram_dimensions_px(series, parameters, job)
    mdoc = f"{series.name}.mdoc"
    tomostar = f"{out}/{TOMOSTARS}/{series.name}.tomostar"
    argv = [
        *(PROGRAM, "ts_import", "--mdocs", MDOCS, "--pattern", mdoc),
        *("--frameseries", seen_from(out, frame_folder(series))),
        *("--tilt_exposure", number(tilt_dose_e_per_a2(series, parameters))),
        *("--override_axis", number(tilt_axis_deg(series, parameters))),
        *("--min_intensity", number(job.min_intensity)),
        *("--output", TOMOSTARS),
        *further_options(parameters, job.further_arguments),
    ]
    table = _step(
        "tilt-series import",
        argv,
        out,
        clears=(f"{out}/{TOMOSTARS}", f"{out}/{MDOCS}"),
        files={f"{out}/{MDOCS}/{mdoc}": mdoc_text(series)},
        creates=(tomostar,),
    )
    is_binned = optics.pixel_size_angstrom > optics.movie_pixel_size_angstrom * 1.001
    settings = _create_settings(
        series,
        parameters,
        out,
        data=TOMOSTARS,
        extension="*.tomostar",
        processing=SERIES_FOLDER,
        output=SERIES_SETTINGS,
        binned_angstrom=optics.pixel_size_angstrom if is_binned else None,
        tomo_dimensions="x".join(map(str, size)),
    )
    return [table, settings]


def tomogram_dimensions_px(
    series: TiltSeries, parameters: EffectiveParameters, job: TsImport
) -> tuple[int, int, int]:
    """Size (x, y, z) of a tilt series' tomogram in pixels of the movies: `--tomo_dimensions`."""
    return job.tomo_dimensions_px or tomogram_size_px(
        parameters.acquisition.detector_dimensions_px,
        tilt_axis_deg(series, parameters),
        job.thickness_nm,
        optics_of(series, parameters).movie_pixel_size_angstrom,
    )


def mdoc_text(series: TiltSeries) -> str:
    """The images of a tilt series as an mdoc that `ts_import` understands, in recorded order."""
    lines = ["[T = The tilt images that go on. DateTime holds their order, and nothing else.]", ""]
    recorded = sorted(series.rows, key=lambda row: float(row["rlnMicrographPreExposure"]))
    for rank, row in enumerate(recorded):
        lines += [
            f"[ZValue = {rank}]",
            f"TiltAngle = {float(row['rlnTomoNominalStageTiltAngle']):.2f}",
            f"SubFramePath = {PurePosixPath(str(row['rlnMicrographMovieName'])).name}",
            f"DateTime = 01-Jan-20 {rank // 3600:02}:{rank // 60 % 60:02}:{rank % 60:02}",
            "",
        ]
    return "\n".join(lines)


def tomostar_doses(series: TiltSeries) -> dict[str, float]:
    """Tilt image -> dose before it in e/Å², which belongs into `wrpDose` of its tomostar."""
    return {tilt_name(row): float(row["rlnMicrographPreExposure"]) for row in series.rows}


def align(
    series: TiltSeries,
    parameters: EffectiveParameters,
    job: TsAlignment,
    out: str,
    imported: str,
    *,
    axis_deg: float | None = None,
) -> list[Step]:
    """Alignment of one tilt series by AreTomo or IMOD, which WarpTools calls.

    Results: `<out>/warp_tiltseries/<series>.xml`, and below `tiltstack/<series>/` the program's
    own: `<series>.st.aln` or `<series>.xf` and `.tlt`.

    Args:
        imported: the tilt series' directory in the tsImport job, project-relative.
        axis_deg: the tilt axis that `refine_axis` found; None: as it was imported.

    Raises:
        ParameterError: WarpTools cannot do what the parameters say.
    """
    stack = f"{out}/{SERIES_FOLDER}/tiltstack/{series.name}/{series.name}"
    made = {
        "aretomo2": (f"{stack}.st.aln",),
        "aretomo3": (f"{stack}.aln",),
        "etomo_patches": (f"{stack}.xf", f"{stack}.tlt"),
        "etomo_fiducials": (f"{stack}.xf", f"{stack}.tlt"),
    }
    argv = [
        *_alignment(series, parameters, job, seen_from(out, f"{imported}/{SERIES_SETTINGS}")),
        *("--output_processing", SERIES_FOLDER),
        *_axis(job, axis_deg),
        *further_options(parameters, job.further_arguments),
    ]
    return [
        _step(
            "alignment", argv, out, clears=(f"{out}/{SERIES_FOLDER}",), creates=made[_method(job)]
        )
    ]


def refine_axis(
    series: Sequence[TiltSeries],
    parameters: EffectiveParameters,
    job: TsAlignment,
    job_directory: str,
    imported: Mapping[str, str],
) -> list[Step]:
    """The tilt axis of the dataset, refined once on some of its tilt series; none if not asked.

    The axis is one number for a microscope session. Refined on single tilt series it would be as
    many, so this comes before them, and `align` is given the result: the mean AxisAngle of
    `axis_files`. WarpTools fails if it fails on all tilt series; where it fails on some, their
    files say so.

    Args:
        series: all tilt series, in order; the first `axis_batch` are used.
        imported: tilt series -> its directory in the tsImport job.
    """
    if job.axis_iter == 0 or not series:
        return []
    used = series[: job.axis_batch or None]
    out = f"{job_directory}/{DATASET}"
    first = imported[used[0].name]
    is_aretomo = _method(job).startswith("aretomo")
    argv = [
        *_alignment(used[0], parameters, job, seen_from(out, f"{first}/{SERIES_SETTINGS}")),
        *_input_data(out, [one.name for one in used], imported),
        *("--output_processing", "axis"),
        *(("--axis_iter", str(job.axis_iter)) if is_aretomo else ("--do_axis_search",)),
        *further_options(parameters, job.further_arguments),
    ]
    return [_step("tilt axis", argv, out, clears=(f"{out}/axis", f"{out}/{AXIS_FILE}"))]


def axis_files(names: Sequence[str], job: TsAlignment, job_directory: str) -> dict[str, str]:
    """Tilt series that `refine_axis` uses -> the XML that WarpTools leaves of each.

    Args:
        names: of all tilt series, in order.
    """
    if job.axis_iter == 0:
        return {}
    used = names[: job.axis_batch or None]
    return {name: f"{job_directory}/{DATASET}/axis/{name}.xml" for name in used}


def import_alignment(
    series: TiltSeries,
    out: str,
    imported: str,
    *,
    xf: str,
    tlt: str,
    pixel_size_angstrom: float,
    python: str,
    keep: Sequence[str] = (),
) -> list[Step]:
    """An alignment that was not made by WarpTools, put into its terms.

    `ts_import_alignments` wants one line for each image of its stack, and older versions take all
    images of the tomostar into it; what has no alignment is left out behind it.

    Result: `<out>/alignment/<series>.xml`.

    Args:
        xf, tlt: IMOD's transforms and tilt angles, one line for each row of the tomostar.
        pixel_size_angstrom: the unit of the shifts in `xf`.
        python: the interpreter that has crboost installed.
        keep: the tilt images that are aligned, if others are not; empty: all of them are.
    """
    given = f"{out}/aligned_elsewhere"
    files = {f"{given}/{series.name}/{series.name}.{kind}": text
             for kind, text in (("xf", xf), ("tlt", tlt))}  # fmt: skip
    argv = [
        *(PROGRAM, "ts_import_alignments"),
        *("--settings", seen_from(out, f"{imported}/{SERIES_SETTINGS}")),
        *("--alignments", "aligned_elsewhere", "--alignment_angpix", number(pixel_size_angstrom)),
        *("--output_processing", IMPORTED_ALIGNMENT if keep else FOREIGN_ALIGNMENT),
    ]
    result = f"{out}/{FOREIGN_ALIGNMENT}/{series.name}.xml"
    whole = f"{out}/{IMPORTED_ALIGNMENT}/{series.name}.xml" if keep else result
    steps = [
        _step(
            "import of the alignment",
            argv,
            out,
            clears=(given, f"{out}/{IMPORTED_ALIGNMENT}", f"{out}/{FOREIGN_ALIGNMENT}"),
            files=files,
            creates=(whole,),
        )
    ]
    if keep:
        left_out = (python, "-P", "-m", "crboost.translate.keep_tilts", whole, result, "--", *keep)
        steps.append(Step("tilt images left out", left_out, creates=(result,), tool=EMBEDDED_TOOL))
    return steps


def check_hand(name: str, job_directory: str, out: str, imported: str, aligned: str) -> Step:
    """What the images of one tilt series say of the defocus hand.

    WarpTools correlates the defocus gradients of the images with the tilts' geometry, and takes
    the mean of all tilt series that it is given; but one that it cannot do that with ends the
    command. So each is asked by itself, and the mean is ours (`translate/warp_hand.py`).

    Result: what WarpTools says, in `hand_file`.

    Args:
        name: the tilt series.
        out: its own directory, project-relative.
        imported: its directory in the tsImport job, project-relative.
        aligned: folder with its aligned `<series>.xml`, project-relative.
    """
    said = hand_file(name, job_directory)
    argv = [
        *(
            PROGRAM,
            "ts_defocus_hand",
            "--settings",
            seen_from(out, f"{imported}/{SERIES_SETTINGS}"),
        ),
        *("--input_processing", seen_from(out, aligned)),
        *("--output_processing", HAND_CHECK_FOLDER, "--check"),
    ]
    step = _step("defocus hand", argv, out, clears=(f"{out}/{HAND_CHECK_FOLDER}",), creates=(said,))
    return replace(step, stdout=said, tilt_series=name)


def hand_file(name: str, job_directory: str) -> str:
    """What WarpTools said of the defocus hand of a tilt series."""
    return f"{job_directory}/{DATASET}/hand/{name}.txt"


def ctf(
    series: TiltSeries,
    parameters: EffectiveParameters,
    job: TsCtf,
    out: str,
    imported: str,
    aligned: str,
    *,
    flip: bool,
) -> list[Step]:
    """The CTF of one tilt series as a whole, with the defocus hand set before.

    Result: `<out>/warp_tiltseries/<series>.xml`.

    Args:
        imported: the tilt series' directory in the tsImport job, project-relative.
        aligned: folder with its aligned `<series>.xml`, project-relative.
        flip: the defocus hand: AreAnglesInverted.

    Raises:
        ParameterError: the finest resolution is beyond what the images hold.
    """
    optics = optics_of(series, parameters)
    low, high = job.resolution_angstrom
    if high <= 2 * optics.pixel_size_angstrom:
        raise ParameterError(
            f"jobs.{parameters.node}.range_min_max = {job.range_min_max}: images of "
            f"{number(optics.pixel_size_angstrom)} Å per pixel end at "
            f"{number(2 * optics.pixel_size_angstrom)} Å",
            hint=f"let it end above {number(2 * optics.pixel_size_angstrom)}",
        )
    settings = seen_from(out, f"{imported}/{SERIES_SETTINGS}")
    hand = [
        *(PROGRAM, "ts_defocus_hand", "--settings", settings),
        *("--input_processing", seen_from(out, aligned), "--output_processing", HAND_FOLDER),
        "--set_flip" if flip else "--set_noflip",
    ]
    defocus_low, defocus_high = job.defocus_um
    fit = [
        *(PROGRAM, "ts_ctf", "--settings", settings),
        *("--input_processing", HAND_FOLDER, "--output_processing", SERIES_FOLDER),
        *("--window", str(job.window), "--range_low", number(low), "--range_high", number(high)),
        *("--defocus_min", number(defocus_low), "--defocus_max", number(defocus_high)),
        *("--voltage", whole(optics.voltage_kv)),
        *("--cs", number(optics.spherical_aberration_mm)),
        *("--amplitude", number(optics.amplitude_contrast)),
        *_switch("--fit_phase", job.do_phase),
        *per_device(job.perdevice),
        *further_options(parameters, job.further_arguments),
    ]
    return [_one_xml("defocus hand", hand, out, HAND_FOLDER, series.name),
            _one_xml("CTF", fit, out, SERIES_FOLDER, series.name)]  # fmt: skip


def reconstruct(
    series: TiltSeries,
    parameters: EffectiveParameters,
    job: TsReconstruct,
    out: str,
    imported: str,
    aligned: str,
) -> list[Step]:
    """Reconstruction of one tilt series.

    Results: `tomograms(...)` names them.

    Args:
        imported: the tilt series' directory in the tsImport job, project-relative.
        aligned: folder with its aligned `<series>.xml`, with its CTF if there is one.

    Raises:
        ParameterError: the tomogram would have smaller pixels than the images.
    """
    pixel = optics_of(series, parameters).pixel_size_angstrom
    check_not_finer(parameters, "rescale_angpixs", job.tomogram_pixel_size_angstrom, pixel)
    halves = has_halves(series, job)
    argv = [
        *(PROGRAM, "ts_reconstruct", "--settings", seen_from(out, f"{imported}/{SERIES_SETTINGS}")),
        *("--input_processing", seen_from(out, aligned), "--output_processing", SERIES_FOLDER),
        *("--angpix", number(job.tomogram_pixel_size_angstrom)),
        *_switch("--halfmap_frames", halves),
        *_switch("--deconv", job.deconv),
        *_switch("--dont_invert", not job.invert_contrast),
        *per_device(job.perdevice),
        *further_options(parameters, job.further_arguments),
    ]
    made = tomograms(series, job, out)
    return [
        _step(
            "reconstruction",
            argv,
            out,
            clears=(f"{out}/{SERIES_FOLDER}",),
            creates=tuple(made.values()),
        )
    ]


def tomograms(series: TiltSeries, job: TsReconstruct, out: str) -> dict[str, str]:
    """What `reconstruct` makes: "tomogram", "half1" (even frames), "half2" -> file."""
    name = f"{series.name}_{job.tomogram_pixel_size_angstrom:.2f}Apx.mrc"
    folder = f"{out}/{SERIES_FOLDER}/reconstruction"
    made = {"tomogram": f"{folder}/{name}"}
    if has_halves(series, job):
        made |= {"half1": f"{folder}/even/{name}", "half2": f"{folder}/odd/{name}"}
    return made


def has_halves(series: TiltSeries, job: TsReconstruct) -> bool:
    """Whether half tomograms are asked for, and every image has the halves that they need."""
    return job.halfmap_frames and all(row.get("rlnMicrographNameEven") for row in series.rows)


def frame_folder(series: TiltSeries) -> str:
    """Where WarpTools left XML files and averages of a tilt series' movies, project-relative.

    Raises:
        ParameterError: the images are not WarpTools' averages, or come from several places.
    """
    folders = {PurePosixPath(image_name(row)).parent for row in series.rows}
    if not folders:
        return f"<fsMotionAndCtf>/warp/{series.name}/{FRAME_FOLDER}"
    (folder, *others) = sorted(folders)
    if others or folder.name != "average":
        raise ParameterError(
            f"{series.name}: the images in {folder} were not averaged by WarpTools",
            hint="set jobs.fsMotionAndCtf.tool = warp, or align with another tool than warp",
        )
    return str(folder.parent)


def gain_arguments(acquisition: Acquisition, directory: str) -> list[str]:
    """The options of a gain reference, which is flipped and transposed as our parameters say.

    We transpose, then mirror left to right (x) and upside down (y), what a reader gives us, which
    turns TIFF files upside down but no `.gain` file. WarpTools turns both, mirrors, and transposes
    last. A mirror in x before a transposition is one in y after it.
    """
    path = acquisition.gain_reference_path
    if not path:
        return []
    flip_x, flip_y = acquisition.gain_flip_x, acquisition.gain_flip_y
    if acquisition.gain_transpose:
        flip_x, flip_y = flip_y, flip_x
    if PurePosixPath(path).suffix.lower() == ".gain":
        flip_y = not flip_y
    return [
        *("--gain_path", seen_from(directory, path)),
        *_switch("--gain_flip_x", flip_x),
        *_switch("--gain_flip_y", flip_y),
        *_switch("--gain_transpose", acquisition.gain_transpose),
    ]


def _create_settings(
    series: TiltSeries,
    parameters: EffectiveParameters,
    out: str,
    *,
    data: str,
    extension: str,
    processing: str,
    output: str,
    binned_angstrom: float | None,
    tomo_dimensions: str | None = None,
    clears: tuple[str, ...] = (),
    links: Mapping[str, str] | None = None,
) -> Step:
    optics = optics_of(series, parameters)
    grouping = eer_frames_per_fraction(series, parameters)
    argv = [
        *(PROGRAM, "create_settings", "--folder_data", data, "--extension", extension),
        *("--folder_processing", processing, "--output", output),
        *("--angpix", number(optics.movie_pixel_size_angstrom)),
        *(() if binned_angstrom is None else ("--bin_angpix", number(binned_angstrom))),
        *("--exposure", number(tilt_dose_e_per_a2(series, parameters))),
        *(() if grouping is None else ("--eer_ngroups", str(-grouping))),
        *gain_arguments(parameters.acquisition, out),
        *(() if tomo_dimensions is None else ("--tomo_dimensions", tomo_dimensions)),
    ]
    return _step(
        "settings", argv, out, clears=clears, links=links or {}, creates=(f"{out}/{output}",)
    )


def _alignment(
    series: TiltSeries, parameters: EffectiveParameters, job: TsAlignment, settings: str
) -> list[str]:
    """The command of the job's method, without what differs between dataset and tilt series."""
    optics = optics_of(series, parameters)
    angpix = job.alignment_pixel_size_angstrom
    check_not_finer(parameters, "rescale_angpixs", angpix, optics.pixel_size_angstrom)
    common = ["--settings", settings, "--angpix", number(angpix), *per_device(job.perdevice)]
    thickness = ["--alignz", whole(job.thickness_nm * 10)]
    match _method(job):
        case "aretomo2":
            x, y = patches(parameters, job)
            local = ["--patches", f"{x}x{y}"] if x else []
            return [PROGRAM, "ts_aretomo", *common, *thickness, *local]
        case "aretomo3":
            x, y = patches(parameters, job)  # its own default is 4,4
            return [PROGRAM, "ts_aretomo3", *common, *thickness, "--patches", f"{x},{y}"]
        case "etomo_patches":
            size = number(job.imod_patch_size * 10)
            return [PROGRAM, "ts_etomo_patches", *common, "--patch_size", size]
        case _:
            beads = [
                *("--fiducial_size", number(job.fiducial_diameter_nm)),
                *("--n_beads_target", str(job.fiducial_count)),
            ]
            return [PROGRAM, "ts_etomo_fiducials", *common, *beads]


def patches(parameters: EffectiveParameters, job: TsAlignment) -> tuple[int, int]:
    """Patches of a local alignment; (0, 0) for a global one.

    Raises:
        ParameterError: there are some in one direction and none in the other.
    """
    if (job.patch_x == 0) != (job.patch_y == 0):
        raise ParameterError(
            f"jobs.{parameters.node}: patch_x = {job.patch_x} and patch_y = {job.patch_y}",
            hint="set both, or both to 0 for a global alignment",
        )
    return job.patch_x, job.patch_y


def _method(job: TsAlignment) -> str:
    method = job.method
    assert method is not None
    return method


def _axis(job: TsAlignment, axis_deg: float | None) -> list[str]:
    if axis_deg is None:
        return []
    option = "--axis" if _method(job).startswith("aretomo") else "--initial_axis"
    return [option, number(round(axis_deg, 3))]


def _input_data(out: str, names: Sequence[str], imported: Mapping[str, str]) -> list[str]:
    """Tomostars of several directories, as input of one command."""
    found = (f"{imported[name]}/{TOMOSTARS}/{name}.tomostar" for name in names)
    return ["--input_data", *(seen_from(out, path) for path in found)]


def further_options(parameters: EffectiveParameters, arguments: Sequence[str]) -> Sequence[str]:
    """The user's own options; the contract checks them with the rest of the command.

    Raises:
        ParameterError: one of them is ours.
    """
    for word in arguments:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("-") and (name in RESERVED or word[:2] == "-o"):
            raise ParameterError(
                f"jobs.{parameters.node}.warp_arguments: {word} is not for you to give",
                hint="leave it out: where WarpTools reads and writes is crboost's business",
            )
    return arguments


def per_device(count: int) -> list[str]:
    """The option for worker processes on each GPU; none where WarpTools is to choose."""
    return ["--perdevice", str(count)] if count else []


def _switch(option: str, on: bool) -> list[str]:
    """A switch is there or not; whatever followed it would be ignored."""
    return [option] if on else []


def whole(value: float) -> str:
    """For an option that takes whole numbers only."""
    return str(math.floor(value + 0.5))


def _one_xml(name: str, argv: Sequence[str], out: str, folder: str, series: str) -> Step:
    made = f"{out}/{folder}"
    return _step(name, argv, out, clears=(made,), creates=(f"{made}/{series}.xml",))


def _step(
    name: str,
    argv: Sequence[str],
    out: str,
    *,
    clears: tuple[str, ...] = (),
    links: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    creates: tuple[str, ...] = (),
) -> Step:
    return Step(
        name=name,
        argv=tuple(argv),
        directory=out,
        clears=clears,
        links=links or {},
        files=files or {},
        creates=creates,
        environment=ENVIRONMENT,
        tool="warp",
    )
