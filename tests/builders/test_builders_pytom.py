"""pytom-match-pick's command lines, held against its own options."""

from __future__ import annotations

import itertools
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from crboost.builders import pytom
from crboost.builders.pytom_contract import check, contract
from crboost.builders.series_values import Row, TiltSeries
from crboost.builders.step import Step
from crboost.errors import ParameterError, ToolError
from crboost.parameters import ExtractCandidates, ProjectParameters, TemplateMatching
from crboost.parameters.effective import EffectiveParameters

ROWS = [
    {
        "rlnMicrographMovieName": f"frames/TS_{number}.tif",
        "rlnTomoNominalStageTiltAngle": nominal,
        "rlnTomoYTilt": nominal + 1.5,
        "rlnDefocusU": 31000.0 + number,
        "rlnDefocusV": 29000.0 + number,
        "rlnMicrographPreExposure": 3.0 * number,
    }
    for number, nominal in enumerate((0.0, 3.0, -3.0))
]


def new_project() -> ProjectParameters:
    return ProjectParameters.new("P", datetime(2026, 5, 1, tzinfo=UTC))


def effective(**values: object) -> EffectiveParameters:
    changes = {f"jobs.templateMatching.{name}": value for name, value in values.items()}
    given = {"template_path": "maps/ribo some.mrc", "mask_path": "maps/mask.mrc"}
    changes |= {f"jobs.templateMatching.{name}": value for name, value in given.items()}
    return new_project().with_values(changes).effective("templateMatching")


def match(
    parameters: EffectiveParameters,
    rows: list[dict[str, object]] | None = None,
    global_row: Row = MappingProxyType({}),
) -> Step:
    return pytom.match_template(
        TiltSeries("TS_01", global_row, ROWS if rows is None else rows),
        "External/job004/cpu/TS_01/TS_01.mrc",
        16.0,
        parameters,
        parameters.job_as(TemplateMatching),
        "External/job005/pytom/TS_01",
        2,
    )


def value(step: Step, option: str) -> str:
    return step.argv[step.argv.index(option) + 1]


def test_the_contract_names_its_source() -> None:
    source = contract()["source"]
    assert source["versions"] == ["0.10.0", "0.11.0", "0.12.0", "0.13.0"]
    assert len(contract()["programs"][pytom.MATCH]) == 35
    assert len(contract()["programs"][pytom.EXTRACT]) == 13


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([pytom.MATCH, "--nonsense"], "has no option --nonsense"),
        ([pytom.MATCH, "--volume-split", "2", "2"], "takes 3 values, not 2"),
        ([pytom.MATCH, "--low-pass", "-3"], "--low-pass = -3 must be above 0"),
        ([pytom.MATCH, "--voltage", "high"], "is not of type float"),
        ([pytom.MATCH, "--defocus-handedness", "2"], "is none of"),
        ([pytom.MATCH, "--per-tilt-weighting", "1"], "takes 0 values, not 1"),
        ([pytom.EXTRACT, "--cut-off", "0.1"], "needs --job-file"),
        (["pytom_dance.py"], "has no program"),
    ],
)
def test_a_wrong_command_is_told(argv: list[str], told: str) -> None:
    assert any(told in problem for problem in check(argv)), check(argv)


def test_the_optics_are_those_of_the_tilt_series() -> None:
    own = {"rlnVoltage": 200.0, "rlnSphericalAberration": 2.1, "rlnAmplitudeContrast": 0.07}
    options = ("--voltage", "--spherical-aberration", "--amplitude-contrast")
    step = match(effective(), global_row=own)
    assert [value(step, option) for option in options] == ["200", "2.1", "0.07"]
    assert [value(match(effective()), option) for option in options] == ["300", "2.7", "0.1"]


def test_every_choice_makes_a_command_that_pytom_takes() -> None:
    choices = {
        "symmetry": ("C1", "C3"),
        "defocus_weight": (True, False),
        "dose_weight": (True, False),
        "random_phase_correction": (True, False),
        "bandpass_filter": (None, "20:500"),
        "gpu_split": ("auto", "4x4x2"),
        "tomogram_ctf_model": ("none", "phase-flip"),
    }
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        step = match(effective(**chosen, spectral_whitening=True, non_spherical_mask=True))
        assert check(step.argv) == []


@pytest.mark.parametrize(("asked", "voxel_size"), [(None, 16.0), (13.5, 13.5)])
def test_the_scores_have_the_recorded_pixel_size_or_the_users(
    asked: float | None, voxel_size: float
) -> None:
    job = ExtractCandidates(apix_score_map=asked)
    step = pytom.extract_candidates(
        {"voxel_size": 16.0, "tomogram": "x.mrc"}, "External/job005/pytom/TS_01", "TS_01", job, "X"
    )
    record = json.loads(step.files["X/TS_01_job.json"])
    assert record == {"voxel_size": voxel_size, "tomogram": "x.mrc", "output_dir": "X"}


def test_b10_pytom_gets_the_diameter_which_it_halves_itself() -> None:
    """B10: the earlier CryoBoost passed the radius, so that neighbours came twice."""
    for method in ("NumberOfFalsePositives", "ManualCutOff"):
        job = ExtractCandidates(
            particle_diameter_ang=300, cutoff_method=method, score_filter_method="tophat"
        )
        step = pytom.extract_candidates(
            {"output_dir": "/elsewhere"}, "External/job005/pytom/TS_01", "TS_01", job, "X/TS_01"
        )
        assert value(step, "--particle-diameter") == "300"
        assert check(step.argv) == []
    assert "--number-of-false-positives" not in step.argv
    assert '"output_dir": "X/TS_01"' in step.files["X/TS_01/TS_01_job.json"]
    assert step.links == {
        "X/TS_01/TS_01_scores.mrc": "External/job005/pytom/TS_01/TS_01_scores.mrc",
        "X/TS_01/TS_01_angles.mrc": "External/job005/pytom/TS_01/TS_01_angles.mrc",
    }


def test_b28_lists_are_of_the_kept_tilts_with_refined_angles_and_mean_defocus() -> None:
    """B28: nominal angles, U alone, and lists that NaN or filtered rows put out of step."""
    step = match(effective())
    lists = {
        Path(path).name: [float(line) for line in text.split()] for path, text in step.files.items()
    }
    assert lists["TS_01_tilts.tlt"] == [1.5, 4.5, -1.5]
    assert lists["TS_01_defocus_um.txt"] == pytest.approx([3.0, 3.0001, 3.0002])
    assert lists["TS_01_dose.txt"] == [0.0, 3.0, 6.0]
    shorter = match(effective(), ROWS[:2])
    assert all(len(text.split()) == 2 for text in shorter.files.values())


@pytest.mark.parametrize("column", ["rlnTomoYTilt", "rlnDefocusV", "rlnMicrographPreExposure"])
@pytest.mark.parametrize("bad", [math.nan, None, "-"])
def test_b28_a_tilt_without_a_number_is_an_error_not_a_shift(column: str, bad: object) -> None:
    """B28: see above."""
    rows = [dict(row) for row in ROWS]
    rows[1][column] = bad
    with pytest.raises(ToolError, match=f"tilt image TS_1 has {column} = {bad}"):
        match(effective(), rows)


def test_b30_a_path_with_a_blank_is_one_word() -> None:
    """B30: commands were joined with blanks."""
    assert value(match(effective()), "--template") == "maps/ribo some.mrc"


def test_weights_that_are_off_are_off() -> None:
    step = match(effective(defocus_weight=False, dose_weight=False))
    assert not {"--defocus", "--voltage", "--dose-accumulation"} & set(step.argv)
    assert [Path(path).name for path in step.files] == ["TS_01_tilts.tlt"]


def test_a_group_that_pytom_does_not_know_is_searched_by_a_list() -> None:
    step = match(effective(symmetry="O", angular_search=15))
    path = value(step, "--angular-search")
    assert path.endswith("TS_01_angles_O.txt")
    lines = [line.split(" ") for line in step.files[path].splitlines()]
    assert all(len(line) == 3 for line in lines)
    assert "--z-axis-rotational-symmetry" not in step.argv
    assert value(match(effective(symmetry="C4")), "--z-axis-rotational-symmetry") == "4"


def test_without_a_template_there_is_no_command() -> None:
    bare = new_project().with_values({"jobs.templateMatching.mask_path": "m.mrc"})
    with pytest.raises(ParameterError, match="template_path is not set"):
        match(bare.effective("templateMatching"))
