"""The numbered bugs of the earlier CryoBoost: none comes back.

Every number has tests: here, or elsewhere by name (`ELSEWHERE`, held against the files). One that
cannot be tested has a reason (`CANNOT_OCCUR`), and a test of what that rests on.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.acquisition.movies import MovieFile
from crboost.acquisition.tilt_series import read_tilt_series
from crboost.array_directory import Batch, task_script
from crboost.builders.step import Step
from crboost.catalogue import CATALOGUE, MAP, MASK, label_matches, producers_of
from crboost.errors import FileFormatError, PlanError
from crboost.history import PastJob, SeriesRecord
from crboost.parameters import ProjectParameters, TsCtf
from crboost.past_jobs import past_job
from crboost.plan import WantedJob, plan
from crboost.project import Project
from crboost.relion.ledger import Status, read_ledger
from crboost.resources import resource_directory
from crboost.results import SeriesResult, read_result, result_file, write_result
from crboost.scheduler.array import ArraySpec
from crboost.scheduler.resources import Resources, field_value
from crboost.scheduler.template import Filling, fill_template
from crboost.settings import SchedulerSettings, Settings
from crboost.stages import STAGES
from crboost.tool_commands import ToolCommands
from crboost.translate.acquisition import import_output
from crboost.wanted import wanted_job

ROOT = Path(__file__).parents[1]
ALL = range(1, 38)

#: Number -> tests in other files that would fail if it came back.
ELSEWHERE: dict[int, Sequence[str]] = {
    1: (
        "translate/test_translate_acquisition.py::test_calibration_sign_and_hand",
        "translate/test_translate_acquisition.py::"
        "test_the_mdoc_tells_axis_and_dose_unless_the_user_does",
    ),
    2: (
        "test_driver.py::test_every_job_leaves_relion_tables_nodes_and_one_marker",
        "stages/test_stages_warp.py::test_every_tilt_series_gets_through",
        "stages/test_stages_after_tomogram.py::"
        "test_the_optimisation_set_is_a_node_that_subtomogram_extraction_takes",
    ),
    3: (
        "builders/test_builders_contract.py::test_bug_b3_gain_options_that_never_existed",
        "builders/test_builders_warp.py::test_bug_b3_gain_has_the_options_that_exist",
        "parameters/test_parameters_warp.py::"
        "test_bug_b3_gain_operations_are_switches_of_the_acquisition",
    ),
    4: (
        "builders/test_builders_contract.py::test_bug_b4_do_at_most_is_no_option",
        "parameters/test_parameters_warp.py::test_bug_b4_at_most_belongs_to_the_import_alone",
    ),
    5: (
        "builders/test_builders_contract.py::test_bug_b5_a_switch_takes_no_value",
        "builders/test_builders_warp.py::test_bug_b5_what_is_switched_off_is_not_there",
        "parameters/test_parameters_warp.py::test_bug_b5_switches_are_true_or_false",
    ),
    6: (
        "builders/test_builders_warp.py::test_bug_b6_defocus_goes_in_micrometres",
        "parameters/test_parameters_warp.py::test_bug_b6_a_defocus_in_angstrom_is_refused",
    ),
    7: (
        "builders/test_builders_warp.py::test_bug_b7_eer_frames_are_grouped_not_groups_counted",
        "builders/test_builders_warp.py::test_bug_b7_b14_only_eer_movies_have_eer_frames",
    ),
    8: (
        "builders/test_builders_warp.py::test_bug_b8_everything_that_a_command_makes_is_made_anew",
        "test_step_files.py::test_bug_b8_nothing_old_is_left",
    ),
    9: (
        "test_tilt_filter.py::test_b9_rejected_tilts_never_reach_the_next_tool_and_come_back",
        "stages/test_stages_warp.py::test_bug_b9_warp_never_sees_a_rejected_tilt",
        "cluster/test_cluster_warp.py::test_bug_b9_rejected_tilts_are_no_input_of_warps",
        "builders/test_builders_warp.py::"
        "test_bug_b9_b11_the_mdoc_holds_the_images_that_go_on_and_no_other",
    ),
    10: (
        "builders/test_builders_pytom.py::test_b10_pytom_gets_the_diameter_which_it_halves_itself",
    ),
    11: (
        "translate/test_translate_acquisition.py::"
        "test_missing_and_broken_movies_leave_the_table_and_are_named",
        "builders/test_builders_warp.py::"
        "test_bug_b9_b11_the_mdoc_holds_the_images_that_go_on_and_no_other",
    ),
    12: (
        "builders/test_builders_warp.py::test_bug_b12_any_name_of_a_tilt_series_will_do",
        "acquisition/test_acquisition_tilt_series.py::test_series_name",
    ),
    13: (
        "acquisition/test_acquisition_collect.py::test_dose_is_the_median_not_the_last",
        "acquisition/test_acquisition_collect.py::test_disagreements_name_files_and_values",
    ),
    14: (
        "acquisition/test_acquisition_movies.py::test_content_decides_not_the_extension",
        "builders/test_builders_warp.py::test_bug_b7_b14_only_eer_movies_have_eer_frames",
        "builders/test_builders_cpu.py::test_eer_grouping_is_for_eer_only",
    ),
    15: (
        "acquisition/test_acquisition_tilt_series.py::test_serialem_title_wins",
        "acquisition/test_acquisition_tilt_series.py::test_serialem_without_the_title",
        "builders/test_builders_warp.py::test_bug_b15_the_axis_of_the_tilt_series_is_given_to_warp",
    ),
    16: (
        "test_doctor_images.py::test_bug_16_what_warp_calls_is_looked_for_in_warps_image",
        "test_containers_recipes.py::test_the_test_looks_for_what_doctor_asks_for",
    ),
    17: ("builders/test_builders_warp.py::test_bug_b17_movies_are_found_by_their_own_ending",),
    18: (
        "stages/test_stages_after_tomogram.py::"
        "test_b18_a_prediction_that_wrote_nothing_is_a_failure",
    ),
    20: (
        "relion/test_relion_ledger.py::test_no_file_is_an_empty_ledger",
        "relion/test_relion_ledger.py::test_a_damaged_ledger_is_named",
    ),
    21: (
        "test_plan_after_tomogram.py::"
        "test_alignment_takes_the_filter_of_its_run_and_else_the_newest",
    ),
    24: (
        "scheduler/test_scheduler_outcome.py::test_nobody_answers",
        "scheduler/test_scheduler_outcome.py::test_an_answer_between_two_silences_is_not_enough",
    ),
    25: ("test_array_task.py::test_a_task_does_its_tilt_series_and_nothing_else",),
    27: ("builders/test_builders_warp.py::test_bug_b27_the_axis_is_refined_once_for_the_dataset",),
    28: (
        "builders/test_builders_pytom.py::"
        "test_b28_lists_are_of_the_kept_tilts_with_refined_angles_and_mean_defocus",
        "builders/test_builders_pytom.py::test_b28_a_tilt_without_a_number_is_an_error_not_a_shift",
        "test_tilt_rules.py::test_b28_nan_is_a_reason_and_a_missing_column_is_not",
    ),
    29: (
        "builders/test_builders_cryocare.py::test_b29_names_of_tilt_series_are_whole_names",
        "stages/test_stages_after_tomogram.py::test_b29_a_part_of_a_name_is_no_name",
    ),
    30: (
        "builders/test_builders_warp.py::"
        "test_bug_b30_commands_are_lists_of_words_whatever_the_names",
        "builders/test_builders_pytom.py::test_b30_a_path_with_a_blank_is_one_word",
        "test_containers.py::test_arguments_arrive_as_they_are",
        "parameters/test_parameters_warp.py::"
        "test_further_arguments_are_words_and_never_seen_by_a_shell",
    ),
    31: (
        "builders/test_builders_warp.py::test_bug_b31_tilt_angles_change_their_sign_once",
        "stages/test_stages_warp.py::test_beads_are_where_they_are_and_not_mirrored",
    ),
    33: (
        "relion/test_relion_ledger.py::test_numbers_are_never_given_twice",
        "stages/test_stages_membrain.py::test_what_failed_is_done_in_the_same_job_and_nothing_else",
    ),
    36: (
        "translate/test_translate_aln.py::test_dark_images_keep_the_others_in_place",
        "translate/test_translate_keep_tilts.py::test_excluded_tilt_keeps_the_others_in_place",
    ),
    37: (
        "builders/test_builders_contract.py::"
        "test_bug_b37_errors_that_the_tool_itself_hides_are_marked",
        "builders/test_builders_warp.py::"
        "test_bug_b37_every_command_keeps_to_the_contract_of_every_version",
        "test_prerequisites.py::test_bug_b37_wrong_options_stop_the_plan",
        "test_wanted.py::test_bug_b37_an_option_that_there_never_was_stops_the_plan",
    ),
}

#: Number -> why it cannot come back; the test here is of what that rests on.
CANNOT_OCCUR: dict[int, str] = {
    34: "a call with the wrong number of arguments does not pass `mypy --strict`, which CI runs",
}


@functools.cache
def names_of_tests(name: str) -> set[str]:
    """The names of the tests in a file that pytest would run, and run to their end."""
    tree = ast.parse((ROOT / "tests" / name).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not any("mark.skip" in ast.unparse(one) for one in node.decorator_list)
        and not any("xfail" in ast.unparse(one) for one in node.decorator_list)
        and not any(
            isinstance(one, ast.Call) and ast.unparse(one.func) in ("pytest.skip", "pytest.xfail")
            for one in ast.walk(node)
        )
    }


def numbers_here() -> set[int]:
    """The bugs that have a test in this file."""
    names = [name for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)]
    return {int(found[1]) for name in names if (found := re.match(r"test_bug_(\d+)_", name))}


def test_every_number_has_a_test_or_a_reason() -> None:
    assert numbers_here() | set(ELSEWHERE) == set(ALL)
    assert set(CANNOT_OCCUR) <= numbers_here()
    assert not set(CANNOT_OCCUR) & set(ELSEWHERE)


@pytest.mark.parametrize("number", ELSEWHERE)
def test_tests_elsewhere_exist(number: int) -> None:
    for where in ELSEWHERE[number]:
        file, _, name = where.partition("::")
        assert name in names_of_tests(file), f"B{number}: {where} is gone: name what took its place"


def test_a_test_that_skips_is_none() -> None:
    names = names_of_tests("acquisition/test_acquisition_tilt_series.py")
    assert "test_serialem_title_wins" in names
    assert "test_serialem_writes_the_axis_as_rotation_minus_90" not in names  # skips in its body
    assert "test_the_contract_is_what_the_source_says" not in names_of_tests(
        "builders/test_builders_contract.py"
    )  # skips by its decorator


# --- tests ----------------------------------------------------------------------------------

PROJECT = Path("/nowhere/project")


def parameters(**changes: object) -> ProjectParameters:
    values = {name.replace("__", "."): value for name, value in changes.items()}
    return ProjectParameters.new("P", datetime(2026, 5, 1, tzinfo=UTC)).with_values(values)


def past(number: int, node: str, inputs: tuple[str, ...] = ()) -> PastJob:
    job = f"External/job{number:03d}/"
    return PastJob(
        job=job,
        status="Succeeded",
        inputs=inputs,
        outputs=tuple((f"{job}{one.file}", one.label) for one in CATALOGUE[node].outputs),
        job_type=node,
        node=node,
        fingerprint=f"{node}-a",
        series={"TS_01": SeriesRecord("done", f"{number}-TS_01", "")},
    )


def wanted(node: str) -> WantedJob:
    return WantedJob(node, CATALOGUE[node], f"{node}-a")


MDOC = """PixelSpacing = 4
Voltage = 300
ImageFile = TS_01.mrc
ImageSize = 512 512

[ZValue = 0]
TiltAngle = 0
ExposureDose = 2
SubFramePath = a.tif
DateTime = 01-May-25  10:00:00
"""


def test_bug_1_what_the_user_says_of_the_microscope_is_in_the_imported_table(
    tmp_path: Path,
) -> None:
    """B1: RELION's import kept its template's 300 kV, 2.7 mm and 2.93 A, whatever was set."""
    (tmp_path / "TS_01.mdoc").write_text(MDOC)
    given = parameters(
        microscope__acceleration_voltage_kv=200,
        microscope__spherical_aberration_mm=1.4,
        microscope__amplitude_contrast=0.07,
        microscope__pixel_size_angstrom=1.77,
        acquisition__dose_per_tilt_e_per_a2=3.5,
        acquisition__tilt_axis_degrees=12.5,
    )
    made = import_output(
        "TS_01",
        read_tilt_series(tmp_path / "TS_01.mdoc"),
        {"a.tif": MovieFile(Path("a.tif"), "TIFF", 1000, 512, 512, 5)},
        {"a.tif": "frames/a.tif"},
        given.effective("importmovies"),
    )
    columns = {
        "rlnVoltage": 200.0,
        "rlnSphericalAberration": 1.4,
        "rlnAmplitudeContrast": 0.07,
        "rlnMicrographOriginalPixelSize": 1.77,
    }
    assert {name: made.global_columns[name] for name in columns} == columns
    assert {row["rlnTomoNominalTiltAxisAngle"] for row in made.rows} == {12.5}


def test_bug_2_every_input_is_made_by_some_job() -> None:
    """B2: jobs expected files that no job wrote."""
    from_outside = {MAP, MASK}
    for job_type in CATALOGUE.values():
        slots = [*job_type.inputs, *(one for some in job_type.inputs_with.values() for one in some)]
        for slot in slots:
            for label in slot.accepts:
                makers = set(producers_of(label)) - {job_type.name}
                assert makers or label in from_outside, (job_type.name, slot.name, label)


def test_bug_2_what_a_job_is_given_is_what_the_other_writes() -> None:
    """B2: by name, along every edge of a run of all job types."""
    jobs = plan([], [wanted(node) for node in CATALOGUE]).jobs
    assert [job.node for job in jobs] == list(CATALOGUE)
    edges = [(given, job) for job in jobs for given in job.inputs]
    assert len(edges) >= len(CATALOGUE) - 1
    for given, job in edges:
        assert given.node is not None, (job.node, given.slot)
        written = {one.file: one.label for one in CATALOGUE[given.node].outputs}
        (slot,) = [one for one in CATALOGUE[job.node].inputs if one.name == given.slot]
        assert any(label_matches(written[given.file], label) for label in slot.accepts)


def test_bug_19_results_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    """B19: the state of aggregations was not restored when a project was loaded."""
    result = SeriesResult(
        tilt_series="TS_01",
        status="failed",
        fingerprint="f",
        input_fingerprint="i",
        reason="movie a.tif: the file is empty",
        redo=True,
        started="2026-05-01T10:00:00+00:00",
        seconds=1.5,
        host="node7",
        commands=[["WarpTools", "ts_ctf", "--settings", "a b.settings"]],
        metrics={"tilts": 3, "defocus_um": 2.5, "best_score": None},
        warnings=["tilt 2 (-3.0 deg): µ"],
        tilts=[{"name": "a", "tilt_angle_deg": 0.0, "status": "done", "reason": None}],
        outputs=["External/job002/warp/TS_01/x.mrc"],
        global_columns={"rlnTomoHand": -1.0},
        table="External/job002/tilt_series/TS_01.star",
    )
    unset = [
        name for name, value in vars(result).items() if value in (None, "", [], {}, 0.0, False)
    ]
    assert unset == [], "a field that this test forgets"
    write_result(tmp_path, result)
    assert read_result(result_file(tmp_path, "TS_01")) == result


def test_bug_21_the_producer_is_chosen_by_what_it_makes_not_by_its_place() -> None:
    """B21: the predecessor in the list was the input, whatever it was."""
    history = [past(2, "fsMotionAndCtf", ("External/job001/tilt_series.star",))]
    nodes = ["tsAlignment", "tiltFilter", "tsReconstruct"]
    jobs = {job.node: job for job in plan(history, [wanted(node) for node in nodes]).jobs}
    (given,) = jobs["tsReconstruct"].inputs
    assert given.node == "tsAlignment"


@pytest.mark.parametrize("gpus", [1, 4])
def test_bug_22_gpus_are_asked_for_with_a_colon(gpus: int) -> None:
    """B22: `--gres=gpu=N`, which Slurm refuses."""
    site = SchedulerSettings(kind="slurm")
    assert field_value("gres", Resources(gpus=gpus), site) == f"gpu:{gpus}"


def test_bug_23_jobs_can_write_wherever_the_project_and_its_data_are(tmp_path: Path) -> None:
    """B23: the directory with the projects was bound read-only."""
    store, data = tmp_path / "groups" / "us", tmp_path / "groups" / "raw"
    data.mkdir(parents=True)
    (data / "a.tif").write_bytes(b"II*\0")
    project = store / "P"
    (project / "frames").mkdir(parents=True)
    (project / "frames" / "a.tif").symlink_to(data / "a.tif")
    settings = Settings.model_validate({"tools": {"warp": {"image": "/images/warp.sif"}}})
    step = Step("x", ("WarpTools", "ts_ctf"), directory="External/job002/warp/TS_01")
    argv = ToolCommands(project, settings, ()).command(TsCtf(), step)
    assert argv[:2] == ["apptainer", "exec"]
    bound = [word for before, word in itertools.pairwise(argv) if before == "--bind"]
    assert sorted(bound) == sorted([str(project), str(data)])  # a third field would be "ro"
    assert "--mount" not in argv


def test_bug_25_a_task_s_script_says_nothing_of_the_job(tmp_path: Path) -> None:
    """B25: the script of the first task of an array that ended left the whole job's marker."""
    settings = Settings.model_validate({"scheduler": {"kind": "slurm"}})
    asked = Resources(cpus=1, memory_gb=1, time_limit_minutes=10, partition="cpu")
    job, batch = "External/job003", Batch("1", 1, [["TS_01"], ["TS_02"]], {}, asked)
    for template in ("slurm_cpu.sh", "slurm_gpu.sh"):
        text = (resource_directory("qsub") / template).read_text(encoding="utf-8")
        for task, (command, left) in enumerate({
            'touch "$job/RELION_JOB_EXIT_SUCCESS"': "RELION_JOB_EXIT_SUCCESS",
            "exit 3": "RELION_JOB_EXIT_FAILURE",
        }.items()):  # fmt: skip
            own = tmp_path / job / "tasks" / "1" / str(task)
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir(parents=True)
            script = task_script(
                fill_template(text, Filling()), f"{job}/tasks/1", batch,
                ArraySpec(2, 1, 1, asked), settings, command.replace("$job", str(own)),
            )  # fmt: skip
            subprocess.run(
                ["bash", "-s"],
                input=script,
                text=True,
                cwd=tmp_path,
                env={**os.environ, "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)},
                capture_output=True,
                timeout=60,
            )
            assert [path.name for path in own.glob("RELION_*")] == [left]
            assert not list((tmp_path / job).glob("RELION_*")), "of the job, which is not over"


def test_bug_26_what_was_set_for_computing_stays() -> None:
    """B26: the defaults of a job overwrote them."""
    given = parameters(computing__gpu_count=3, computing__memory_gb=77)
    for node in CATALOGUE:
        given = given.with_job(node)
    again = ProjectParameters.load(given.dump())
    for node in CATALOGUE:
        seen = again.effective(node).computing
        assert (seen.gpu_count, seen.memory_gb) == (3, 77), node
        assert again.origin("computing.gpu_count").source == "user"


def test_bug_32_there_is_no_global_state_and_no_user_s_name() -> None:
    """B32: one project and one process for everybody, and somebody's home in the code."""
    for path in sorted((ROOT / "crboost").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"[\"'](/home|/users|/groups|/scratch)/\w", text), path
        for node in ast.walk(ast.parse(text)):
            assert not isinstance(node, ast.Global), f"{path}:{node.lineno}"


def test_bug_32_projects_side_by_side(tmp_path: Path) -> None:
    """B32: a second project took the place of the first."""
    from crboost.cpu.example_data import make_example_data

    data = tmp_path / "data"
    make_example_data(data, series=1, size_px=128, frames=2, tilt_step_deg=30)
    projects = [
        Project.create(
            tmp_path / name, movies=[str(data / "frames")], mdocs=[str(data / "*.mdoc")]
        ).project
        for name in ("A", "B")
    ]
    for project, thickness in zip(projects, (100, 200), strict=True):
        project.set_values({"acquisition.sample_thickness_nm": thickness})
    assert [one.parameters().acquisition.sample_thickness_nm for one in projects] == [100, 200]
    assert all(one.plan(["importmovies"]).jobs for one in projects)


@pytest.mark.parametrize(("job_type", "tool"), STAGES)
def test_bug_33_no_command_knows_a_job_s_number_before_the_job_has_one(
    job_type: str, tool: str
) -> None:
    """B33: directories were predicted, and RELION gave another number."""
    changes: dict[str, object] = {f"jobs__{job_type}__tool": tool}
    if job_type == "tsAlignment" and tool == "imod":
        changes[f"jobs__{job_type}__alignment_method"] = "etomo_patches"
    if job_type == "templateMatching":
        changes |= {f"jobs__{job_type}__{one}_path": "x.mrc" for one in ("template", "mask")}
    if job_type == "membraneSegmentation":
        changes |= {f"jobs__{job_type}__model_path": "x.ckpt"}
    found = wanted_job(PROJECT, job_type, parameters(**changes), None)
    assert found.problem is None
    words = [word for argv in found.commands for word in argv]
    assert not [word for word in words if re.search(r"job\d{3}", word)]


def test_bug_34_calls_are_checked_before_anything_runs() -> None:
    """B34: a function was called with two arguments and took one."""
    assert CANNOT_OCCUR[34]
    assert "mypy --cache-dir" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    configuration = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^strict = true$", configuration, re.MULTILINE)
    ignored = re.findall(r"# type: ignore\[call-arg\]", "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "crboost").rglob("*.py")
    ))  # fmt: skip
    assert ignored == []


LEDGER = """
data_pipeline_general

_rlnPipeLineJobCounter 7

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
External/job001/ None relion.external Running
External/job002/ None relion.external Scheduled
External/job003/ None relion.external Succeeded
External/job004/ None relion.external Failed
External/job005/ None relion.external Aborted
"""


def test_bug_35_states_are_relion_s_five(tmp_path: Path) -> None:
    """B35: "Pending" was looked for, which RELION does not know; "Aborted" became unknown."""
    (tmp_path / "default_pipeline.star").write_text(LEDGER)
    ledger = read_ledger(tmp_path)
    states = [past_job(tmp_path, ledger, process, None).status for process in ledger.processes]
    assert states == ["Running", "Scheduled", "Succeeded", "Failed", "Aborted"]
    assert states == [one.value for one in Status]
    (tmp_path / "default_pipeline.star").write_text(LEDGER.replace("Aborted", "Pending"))
    with pytest.raises(FileFormatError, match="Pending"):
        read_ledger(tmp_path)


@pytest.mark.parametrize(
    ("status", "alive", "reason"),
    [
        ("Aborted", False, "job002 aborted; what it had finished is kept"),
        ("Scheduled", False, "job002 was interrupted"),
        ("Running", False, "job002 was interrupted"),
        ("Failed", False, "job002 failed"),
        ("Scheduled", True, None),
        ("Running", True, None),
    ],
)
def test_bug_35_every_state_means_something(status: str, alive: bool, reason: str | None) -> None:
    """B35: a job in the queue was not waited for, and an aborted one not gone on with."""
    before = past(1, "importmovies")
    job = replace(
        past(2, "fsMotionAndCtf", ("External/job001/tilt_series.star",)),
        status=status,
        alive=alive,
    )
    if reason is None:
        with pytest.raises(PlanError, match="is running in External/job002"):
            plan([before, job], [wanted("fsMotionAndCtf")])
        return
    (planned,) = plan([before, job], [wanted("fsMotionAndCtf")]).jobs
    assert planned.continue_of == "External/job002/"
    assert reason in planned.reason
