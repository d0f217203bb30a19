"""pytom-match-pick 0.10 to 0.13: job parameters and one tomogram -> steps. Pure.

Everything about the tilt series goes into plain text files, one value per kept tilt image: that
works the same in all versions, while what `--relion5-tomograms-star` does with coordinates, tilt
angles and defocus has changed between them. The options are checked by `pytom_contract`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from crboost.builders.orientations import cyclic_order, unique_orientations
from crboost.builders.series_values import Row, TiltSeries, optics_of
from crboost.builders.step import Step
from crboost.errors import ParameterError, ToolError
from crboost.parameters import EffectiveParameters, ExtractCandidates, TemplateMatching
from crboost.tilt_name import tilt_name

MATCH = "pytom_match_template.py"
EXTRACT = "pytom_extract_candidates.py"


def match_template(
    series: TiltSeries,
    tomogram: str,
    voxel_size_angstrom: float,
    parameters: EffectiveParameters,
    job: TemplateMatching,
    directory: str,
    gpus: int,
) -> Step:
    """Score maps of the template in one tomogram.

    Args:
        series: with the tilt images that the tomogram was made from, aligned.
        tomogram: project-relative file; the outputs are called by its stem.
        voxel_size_angstrom: of the tomogram and the template.
        directory: project-relative, for all files.
        gpus: how many it is shown.

    Raises:
        ParameterError: no template, or no mask.
        ToolError: a tilt image lacks a value, or has no number for it.
    """
    for name, value in (("template_path", job.template_path), ("mask_path", job.mask_path)):
        if not value:
            raise ParameterError(
                f"jobs.{parameters.node}.{name} is not set", hint="name the file of the map (.mrc)"
            )
    stem = tomogram_id(tomogram)
    files: dict[str, str] = {}

    def table(suffix: str, values: Sequence[float]) -> str:
        path = f"{directory}/{stem}_{suffix}"
        files[path] = "".join(f"{value:.6f}\n" for value in values)
        return path

    rows = series.rows
    argv = [MATCH, "--template", job.template_path, "--mask", job.mask_path]
    argv += ["--tomogram", tomogram, "--destination", directory]
    argv += ["--voxel-size-angstrom", f"{voxel_size_angstrom:.6g}"]
    # The angles that the tomogram was made with, not the stage's (RELION and pytom agree in sign).
    angles = [_value(series.name, row, "rlnTomoYTilt") for row in rows]
    argv += ["--tilt-angles", table("tilts.tlt", angles), "--per-tilt-weighting"]
    if job.defocus_weight:
        axes = ("rlnDefocusU", "rlnDefocusV")
        defoci_um = [sum(_value(series.name, row, axis) for axis in axes) / 2e4 for row in rows]
        argv += ["--defocus", table("defocus_um.txt", defoci_um)]
        optics = optics_of(series, parameters)
        argv += ["--voltage", f"{optics.voltage_kv:g}"]
        argv += ["--spherical-aberration", f"{optics.spherical_aberration_mm:g}"]
        argv += ["--amplitude-contrast", f"{optics.amplitude_contrast:g}"]
        if job.tomogram_ctf_model != "none":
            argv += ["--tomogram-ctf-model", job.tomogram_ctf_model]
    if job.dose_weight:
        doses = [_value(series.name, row, "rlnMicrographPreExposure") for row in rows]
        argv += ["--dose-accumulation", table("dose.txt", doses)]
    argv += _orientations(job, f"{directory}/{stem}_angles_{job.symmetry}.txt", files)
    argv += ["--volume-split", *(str(parts) for parts in job.volume_split)]
    if job.spectral_whitening:
        argv += ["--spectral-whitening"]
    if job.random_phase_correction:
        argv += ["--random-phase-correction", "--rng-seed", str(job.rng_seed)]
    if job.non_spherical_mask:
        argv += ["--non-spherical-mask"]
    if job.low_and_high_pass_angstrom is not None:
        low_pass, high_pass = job.low_and_high_pass_angstrom
        argv += ["--low-pass", f"{low_pass:g}", "--high-pass", f"{high_pass:g}"]
    argv += ["--gpu-ids", *(str(number) for number in range(max(1, gpus)))]
    return Step(
        name="pytom_match_template",
        argv=tuple(argv),
        files=files,
        creates=tuple(f"{directory}/{stem}_{part}" for part in MATCH_OUTPUTS),
    )


#: What a template matching leaves, after the tomogram's stem and an underscore.
MATCH_OUTPUTS = ("scores.mrc", "angles.mrc", "job.json")


def extract_candidates(
    match: Mapping[str, Any],
    source: str,
    stem: str,
    job: ExtractCandidates,
    directory: str,
) -> Step:
    """The best places of one score map.

    pytom reads the maps from, and writes its table to, the directory that the matching's own
    record names; the record is changed to name ours, with links to the maps, so that nothing is
    written into another job.

    Args:
        match: what `<stem>_job.json` holds.
        source: project-relative directory of the matching's outputs.
        stem: of the tomogram's file name.
        directory: project-relative, for all files.
    """
    record = f"{directory}/{stem}_job.json"
    argv = [EXTRACT, "--job-file", record]
    argv += ["--number-of-particles", str(job.max_num_particles)]
    # The diameter, as pytom says; it halves it itself (`extract_particles`, particle_radius_px).
    argv += ["--particle-diameter", f"{job.particle_diameter_ang:g}"]
    if job.cutoff_method == "ManualCutOff":
        argv += ["--cut-off", f"{job.cc_threshold:g}"]
    else:
        argv += ["--number-of-false-positives", f"{job.expected_false_positives:g}"]
    if job.score_filter_method == "tophat":
        argv += ["--tophat-filter", "--tophat-connectivity", str(job.tophat_connectivity)]
        argv += ["--tophat-bins", str(job.tophat_bins)]
    changed = {**match, "output_dir": directory}
    if job.apix_score_map is not None:
        changed["voxel_size"] = job.apix_score_map
    maps = [f"{stem}_scores.mrc", f"{stem}_angles.mrc"]
    return Step(
        name="pytom_extract_candidates",
        argv=tuple(argv),
        files={record: json.dumps(changed, indent=1) + "\n"},
        links={f"{directory}/{name}": f"{source}/{name}" for name in maps},
        creates=(particles_file(directory, stem),),
    )


def particles_file(directory: str, stem: str) -> str:
    """Where pytom writes the candidates of one tomogram."""
    return f"{directory}/{stem}_particles.star"


def tomogram_id(tomogram: str) -> str:
    """What pytom calls a tomogram: the stem of its file name."""
    name = tomogram.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _orientations(job: TemplateMatching, path: str, files: dict[str, str]) -> list[str]:
    """C groups are pytom's own; of others it is given a list."""
    order = cyclic_order(job.symmetry)
    if order is not None:
        words = ["--angular-search", f"{job.angular_search:g}"]
        return words if order == 1 else [*words, "--z-axis-rotational-symmetry", str(order)]
    files[path] = "".join(
        f"{z1:.6f} {x:.6f} {z2:.6f}\n"
        for z1, x, z2 in unique_orientations(job.symmetry, job.angular_search)
    )
    return ["--angular-search", path]


def _value(series: str, row: Row, column: str) -> float:
    value = row.get(column)
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ToolError(
            f"{series}: tilt image {tilt_name(row)} has {column} = {value}; pytom needs a number "
            "for every tilt image that the tomogram was made from",
            hint="leave the tilt image out with a tilt filter, or switch the weighting off",
        )
    return number
