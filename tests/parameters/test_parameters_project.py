"""A project's parameters: file, provenance, inheritance, changes, fingerprints."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.errors import FileFormatError, ParameterError
from crboost.parameters import (
    DEFAULT_JOBS,
    JOB_MODELS,
    ImportMovies,
    Origin,
    ProjectParameters,
    TsAlignment,
    TsReconstruct,
    read_parameters,
    write_parameters,
)
from crboost.parameters.base import field_facts
from crboost.parameters.groups import GROUPS

CREATED = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)
PIXEL = "microscope.pixel_size_angstrom"


@pytest.fixture
def project() -> ProjectParameters:
    return ProjectParameters.new("demo", CREATED)


def fingerprints(parameters: ProjectParameters) -> dict[str, str]:
    return {node: parameters.fingerprint(node) for node in DEFAULT_JOBS}


def changed_jobs(before: ProjectParameters, changes: dict[str, Any]) -> set[str]:
    old, new = fingerprints(before), fingerprints(before.with_values(changes))
    return {node for node in DEFAULT_JOBS if old[node] != new[node]}


# -- file ------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was_written(tmp_path: Path, project: ProjectParameters) -> None:
    path = tmp_path / "project_params.json"
    changed = project.with_job("tsAlignment__2").with_values(
        {PIXEL: 1.7, "data.movies": ["frames/*.eer"], "jobs.tsAlignment__2.patch_x": 3}
    )
    write_parameters(path, changed)
    assert read_parameters(path) == changed
    assert list(json.loads(path.read_text())) == [
        "schema_version",
        "project_name",
        "created",
        "data",
        "microscope",
        "acquisition",
        "computing",
        "jobs",
        "origins",
    ]


def changes() -> st.SearchStrategy[dict[str, Any]]:
    """Values for some parameters, each within its bounds."""
    values: dict[str, st.SearchStrategy[Any]] = {}
    heads = {**GROUPS, **{f"jobs.{node}": JOB_MODELS[node] for node in DEFAULT_JOBS}}
    for head, model in heads.items():
        for name in model.model_fields:
            facts, path = field_facts(model, name), f"{head}.{name}"
            low, high = facts.minimum, facts.maximum
            if facts.choices:
                values[path] = st.sampled_from(facts.choices)
            elif facts.kind is bool:
                values[path] = st.booleans()
            elif facts.kind is int and name != "do_at_most":
                values[path] = st.integers(
                    None if low is None else int(low), None if high is None else int(high)
                )
            elif facts.kind is float:
                values[path] = st.floats(low, high, allow_nan=False, allow_infinity=False)
            elif facts.kind is tuple:
                values[path] = st.tuples(st.integers(1, 20000), st.integers(1, 20000))
    # Keep pixel size times binning within the 2 to 50 Å of the jobs that follow it.
    values[PIXEL] = st.floats(0.5, 6)
    values["acquisition.reconstruction_binning"] = st.integers(4, 8)
    values["acquisition.camera_name"] = st.text(min_size=1).filter(
        lambda text: text.strip().lower() not in ("none", "null", "default", "") and "{" not in text
    )
    return st.fixed_dictionaries({}, optional=values)


@settings(max_examples=60, deadline=None)
@given(changes(), st.sampled_from(["user", "mdoc"]))
def test_dump_and_load_are_inverse(values: dict[str, Any], source: Any) -> None:
    before = ProjectParameters.new("demo", CREATED)
    after = before.with_values(values, source=source, detail="here")
    again = ProjectParameters.load(json.loads(json.dumps(after.dump())))
    assert again == after
    assert fingerprints(again) == fingerprints(after)
    for path in again.paths():
        expected = source if path in values else "default"
        assert again.origin(path).source == expected, path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"project_params.json: no such file"):
        read_parameters(tmp_path / "project_params.json")


def test_broken_json_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "project_params.json"
    path.write_text('{\n "project_name": demo\n}')
    with pytest.raises(FileFormatError, match=r"project_params.json:2: not valid JSON"):
        read_parameters(path)


def test_every_problem_of_an_edited_file_is_listed(
    tmp_path: Path, project: ProjectParameters
) -> None:
    raw = project.dump()
    raw["microscope"]["pixel_size_angstrom"] = 0.1
    raw["microscope"]["voltage"] = 300
    raw["jobs"]["tsAlignment"]["patchx"] = 4
    raw["jobs"]["tsAlign"] = {}
    raw["acquistion"] = {}
    path = tmp_path / "project_params.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ParameterError) as caught:
        read_parameters(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: 5 parameters are wrong\n")
    assert "  microscope.pixel_size_angstrom = 0.1 Å: must be at least 0.5 Å\n" in text
    assert "  microscope.voltage: no such parameter; did you mean acceleration_voltage_kv?" in text
    assert "  jobs.tsAlignment.patchx: no such parameter; did you mean patch_x?\n" in text
    assert "  jobs.tsAlign: no such job type; did you mean tsAlignment?" in text
    assert "  acquistion: no such parameter; did you mean acquisition?" in text


def test_a_file_of_a_newer_version_is_refused(project: ProjectParameters) -> None:
    with pytest.raises(ParameterError, match="schema_version = 2: written by a newer crboost"):
        ProjectParameters.load({**project.dump(), "schema_version": 2})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"project_name": ""}, 'project_name = "": must not be empty'),
        ({"project_name": 3}, "project_name = 3: must be a text"),
        ({"schema_version": "x"}, 'schema_version = "x": must be 1'),
        ({"jobs": []}, "jobs = []: must be a group of parameters, { ... }"),
        ({"jobs": {"tsAlignment": 3}}, "jobs.tsAlignment = 3: must be a group of parameters"),
        ({"microscope": [1]}, "microscope = [1]: must be a group of parameters"),
        (
            {"origins": {"data.mdocs": {"source": "me"}}},
            "must be 'default', 'mdoc', 'preset' or 'user'",
        ),
    ],
)
def test_a_part_of_the_wrong_shape_is_refused(
    project: ProjectParameters, part: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        ProjectParameters.load({**project.dump(), **part}, where="file.json")
    assert str(caught.value).startswith("file.json: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("raw", [[], None, "text"])
def test_a_file_that_is_no_object_is_refused(raw: Any) -> None:
    with pytest.raises(ParameterError, match="must be an object"):
        ProjectParameters.load(raw)


def test_a_time_without_zone_is_refused(project: ProjectParameters) -> None:
    with pytest.raises(ParameterError, match=r'created = "2026-05-01T10:00:00": .*time zone'):
        ProjectParameters.load({**project.dump(), "created": "2026-05-01T10:00:00"})


def test_a_missing_name_is_said(project: ProjectParameters) -> None:
    raw = project.dump()
    del raw["project_name"]
    with pytest.raises(ParameterError, match=r"^project_name: is missing$"):
        ProjectParameters.load(raw)


def test_a_job_that_was_taken_out_of_the_file_takes_its_origins_along(
    project: ProjectParameters,
) -> None:
    raw = project.with_values({"jobs.tsAlignment.patch_x": 4, PIXEL: 2}).dump()
    del raw["jobs"]["tsAlignment"]
    assert list(ProjectParameters.load(raw).origins) == [PIXEL]


# -- origins ---------------------------------------------------------------------------------


def test_origins_tell_default_mdoc_and_user(project: ProjectParameters) -> None:
    changed = project.with_values(
        {PIXEL: "1.7"}, source="mdoc", detail="TS_01.mdoc: PixelSpacing"
    ).with_values({"acquisition.tilt_axis_degrees": 85})
    assert changed.origin(PIXEL) == Origin(
        source="mdoc", detail="TS_01.mdoc: PixelSpacing", value=1.7
    )
    assert changed.origin("acquisition.tilt_axis_degrees").source == "user"
    assert changed.origin("microscope.amplitude_contrast").source == "default"
    assert set(changed.origins) == {PIXEL, "acquisition.tilt_axis_degrees"}


def test_a_value_edited_in_the_file_is_the_users(project: ProjectParameters) -> None:
    raw = project.with_values({PIXEL: 1.7}, source="mdoc", detail="TS_01.mdoc").dump()
    raw["microscope"]["pixel_size_angstrom"] = 1.8
    raw["acquisition"]["detector_dimensions_px"] = [5760, 4092]
    edited = ProjectParameters.load(raw)
    assert edited.origin(PIXEL) == Origin(source="user", detail="edited in the file", value=1.8)
    assert edited.origin("acquisition.detector_dimensions_px").source == "user"


def test_an_mdoc_value_edited_back_to_the_default_is_the_users(project: ProjectParameters) -> None:
    raw = project.with_values({PIXEL: 1.7}, source="mdoc").dump()
    raw["microscope"]["pixel_size_angstrom"] = 1.35
    assert ProjectParameters.load(raw).origin(PIXEL).source == "user"


def test_an_mdoc_may_say_what_the_default_says(project: ProjectParameters) -> None:
    assert project.with_values({PIXEL: 1.35}, source="mdoc").origin(PIXEL).source == "mdoc"


@pytest.mark.parametrize("restore", [None, "none", "null", "default", " Default "])
def test_the_default_comes_back(project: ProjectParameters, restore: str | None) -> None:
    changed = project.with_values({PIXEL: 1.7, "acquisition.camera_name": "K3"})
    restored = changed.with_values({PIXEL: restore, "acquisition.camera_name": restore})
    assert restored == project


def test_a_whole_group_goes_back_to_its_defaults(project: ProjectParameters) -> None:
    changed = project.with_values({PIXEL: 1.7, "jobs.tsAlignment.patch_x": 3})
    assert changed.with_values({"microscope": "default", "jobs.tsAlignment": None}) == project


# -- changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        (PIXEL, "1.35", 1.35),
        ("acquisition.invert_tilt_angles", "true", True),
        ("acquisition.invert_defocus_hand", "no", False),
        ("acquisition.detector_dimensions_px", "5760x4092", (5760, 4092)),
        ("acquisition.detector_dimensions_px", "5760, 4092", (5760, 4092)),
        ("acquisition.detector_dimensions_px", "[5760, 4092]", (5760, 4092)),
        ("acquisition.eer_frames_per_fraction", "12", 12),
        ("acquisition.camera_name", "K3 [2]", "K3 [2]"),
        ("acquisition.camera_name", '"none"', "none"),
        ("acquisition.camera_name", "300", "300"),
        ("acquisition.camera_name", " K3 ", "K3"),
        ("data.movies", "frames/*.eer", ["frames/*.eer"]),
        ("data.movies", '["a/*.tif", "b/*.tif"]', ["a/*.tif", "b/*.tif"]),
        ("data.movies", "[ab]*.eer", ["[ab]*.eer"]),
        ("jobs.fsMotionAndCtf.c_range_min_max", " 30:6.0", "30:6"),
        ("jobs.fsMotionAndCtf.m_grid", "1X1x05", "1x1x5"),
        ("jobs.tsReconstruct.tomo_dimensions", "4096x4096x2048", "4096x4096x2048"),
        ("jobs.tsReconstruct.halfmap_frames", "0", False),
        ("jobs.importmovies.do_at_most", "3", 3),
    ],
)
def test_text_is_read_as_the_field_wants_it(
    project: ProjectParameters, path: str, text: str, value: Any
) -> None:
    assert project.with_values({path: text}).value(path) == value


def test_groups_may_be_set_by_mapping_or_json(project: ProjectParameters) -> None:
    nested = project.with_values({"jobs": {"tsAlignment": {"patch_x": 4}}})
    as_text = project.with_values({"jobs.tsAlignment": '{"patch_x": 4}'})
    assert nested == as_text == project.with_values({"jobs.tsAlignment.patch_x": "4"})


def test_a_change_is_made_entirely_or_not_at_all(project: ProjectParameters) -> None:
    before = project.dump()
    with pytest.raises(ParameterError):
        project.with_values({"acquisition.tilt_axis_degrees": 85, PIXEL: 0.1})
    assert project.dump() == before


def test_setting_a_second_instance_creates_it(project: ProjectParameters) -> None:
    changed = project.with_values({"jobs.tsAlignment__2.alignment_mode": "coarse"})
    assert changed.effective("tsAlignment__2").job_as(TsAlignment).alignment_mode == "coarse"
    assert changed.effective("tsAlignment").job_as(TsAlignment).alignment_mode == "auto"
    assert "tsAlignment__2" not in project.jobs


def test_a_job_gets_its_defaults(project: ProjectParameters) -> None:
    bare = ProjectParameters.new("demo", CREATED, jobs=[])
    assert bare.jobs == {}
    assert bare.with_job("tsReconstruct").jobs == {"tsReconstruct": TsReconstruct()}
    assert bare.with_job("tsReconstruct").with_job("tsReconstruct").origins == {}
    assert bare.fingerprint("tsReconstruct") == project.fingerprint("tsReconstruct")


def test_the_wrong_model_for_a_job_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"jobs.tsAlignment: needs TsAlignment parameters"):
        ProjectParameters.load(
            {"project_name": "x", "created": CREATED, "jobs": {"tsAlignment": ImportMovies()}}
        )


def test_the_time_zone_of_creation_is_kept() -> None:
    created = CREATED.astimezone(timezone(timedelta(hours=2)))
    project = ProjectParameters.new("demo", created)
    assert ProjectParameters.load(project.dump()).created == created
    assert project.dump()["created"] == "2026-05-01T12:00:00+02:00"


# -- inheritance -----------------------------------------------------------------------------


def test_a_job_follows_the_project_until_it_says_otherwise(project: ProjectParameters) -> None:
    changed = project.with_values({PIXEL: 1.7, "acquisition.sample_thickness_nm": 120})
    job = changed.effective("tsReconstruct").job_as(TsReconstruct)
    assert job.tomogram_pixel_size_angstrom == 6.8
    assert job.thickness_nm == 120
    assert changed.value("jobs.tsReconstruct.rescale_angpixs") is None
    own = changed.with_values({"jobs.tsReconstruct.rescale_angpixs": 10})
    assert own.effective("tsReconstruct").job_as(TsReconstruct).rescale_angpixs == 10
    assert own.effective("tsAlignment").job_as(TsAlignment).alignment_pixel_size_angstrom == 6.8


def test_a_product_has_no_rounding_error(project: ProjectParameters) -> None:
    changed = project.with_values({PIXEL: 1.1, "acquisition.reconstruction_binning": 3})
    assert changed.effective("tsReconstruct").job_as(TsReconstruct).rescale_angpixs == 3.3


def test_no_value_that_follows_is_left_open_in_an_effective_job(project: ProjectParameters) -> None:
    for node, model in JOB_MODELS.items():
        job = project.effective(node).job
        for name in model.model_fields:
            if field_facts(model, name).follows:
                assert getattr(job, name) is not None


def test_an_unresolved_job_refuses_to_give_a_number() -> None:
    with pytest.raises(ValueError, match="rescale_angpixs still follows the project"):
        _ = TsReconstruct().tomogram_pixel_size_angstrom


def test_the_gain_reference_follows_the_data_sources(project: ProjectParameters) -> None:
    changed = project.with_values({"data.gain_reference": "/data/gain.tif"})
    assert changed.effective("fsMotionAndCtf").acquisition.gain_reference_path == "/data/gain.tif"
    own = changed.with_values({"acquisition.gain_reference_path": "gain.mrc"})
    assert own.effective("fsMotionAndCtf").acquisition.gain_reference_path == "gain.mrc"


def test_the_origin_of_a_followed_value_is_that_of_what_it_follows(
    project: ProjectParameters,
) -> None:
    changed = project.with_values({PIXEL: 1.7}, source="mdoc", detail="TS_01.mdoc: PixelSpacing")
    seen = changed.effective("tsReconstruct")
    origin = seen.origin("job.rescale_angpixs")
    assert origin.source == "mdoc"
    assert PIXEL in origin.detail
    assert "TS_01.mdoc: PixelSpacing" in origin.detail
    assert seen.origin("jobs.tsReconstruct.deconv").source == "default"
    assert seen.origin(PIXEL).source == "mdoc"
    with pytest.raises(ParameterError, match="did you mean"):
        seen.origin("job.rescale_angpix")


def test_a_followed_value_outside_the_jobs_bounds_is_refused(project: ProjectParameters) -> None:
    with pytest.raises(ParameterError) as caught:
        project.with_values({"acquisition.reconstruction_binning": 1})
    text = str(caught.value)
    assert "jobs.tsReconstruct.rescale_angpixs = 1.35 Å: must be at least 2 Å" in text
    assert f"it is {PIXEL} × acquisition.reconstruction_binning" in text
    assert "set jobs.tsReconstruct.rescale_angpixs, or change" in text
    accepted = project.with_values(
        {
            "acquisition.reconstruction_binning": 1,
            "jobs.tsReconstruct.rescale_angpixs": 2,
            "jobs.tsAlignment.rescale_angpixs": 2,
        }
    )
    assert accepted.effective("tsAlignment").job_as(TsAlignment).rescale_angpixs == 2


def test_a_job_without_parameters_is_checked_when_it_is_used() -> None:
    bare = ProjectParameters.new("demo", CREATED, jobs=[]).with_values(
        {"acquisition.reconstruction_binning": 1}
    )
    with pytest.raises(ParameterError, match=r"tsAlignment.rescale_angpixs = 1.35 Å"):
        bare.effective("tsAlignment")


def test_an_effective_job_is_what_it_says(project: ProjectParameters) -> None:
    with pytest.raises(TypeError, match="tsAlignment has TsAlignment, not TsReconstruct"):
        project.effective("tsAlignment").job_as(TsReconstruct)


# -- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "nodes"),
    [
        ("data.gain_reference", {"fsMotionAndCtf", "motionCorr"}),
        ("acquisition.gain_reference_path", {"fsMotionAndCtf", "motionCorr"}),
        ("jobs.motionCorr.defect_file", {"motionCorr"}),
        (
            "acquisition.mtf_file",
            {"importmovies", "subtomoExtraction", "reconstructParticle", "class3d", "refine3d"},
        ),
        ("jobs.templateMatching.template_path", {"templateMatching"}),
        ("jobs.templateMatching__2.mask_path", {"templateMatching__2"}),
        ("jobs.membraneSegmentation.model_path", {"membraneSegmentation"}),
        ("jobs.class3d.input_reference", {"class3d"}),
        ("jobs.class3d.input_mask", {"class3d"}),
        ("jobs.tsAlignment.input_tilt_series", {"tsAlignment"}),
    ],
)
def test_the_files_of_a_job_are_known(
    project: ProjectParameters, path: str, nodes: set[str]
) -> None:
    changed = project.with_values({path: "/elsewhere/a.mrc"})
    assert changed.files() == ("/elsewhere/a.mrc",)
    every = {*JOB_MODELS, "templateMatching__2"}
    assert {node for node in every if changed.effective(node).files()} == nodes


def test_without_files_there_are_none(project: ProjectParameters) -> None:
    assert project.files() == ()
    assert project.effective("fsMotionAndCtf").files() == ()


def test_every_parameter_that_is_called_a_file_says_so() -> None:
    """A container would not see it."""
    models = {*JOB_MODELS.values(), *GROUPS.values()}
    for model in models:
        for name in model.model_fields:
            facts = field_facts(model, name)
            if facts.kind is str and re.search("_(path|file|reference|mask)$|^input_", name):
                assert facts.file, (model.__name__, name)


# -- fingerprints ----------------------------------------------------------------------------

ALL = set(DEFAULT_JOBS)


@pytest.mark.parametrize(
    ("path", "value", "jobs"),
    [
        (PIXEL, 1.7, ALL),
        ("microscope.acceleration_voltage_kv", 200, {"importmovies", "fsMotionAndCtf"}),
        ("microscope.spherical_aberration_mm", 0.01, {"importmovies", "fsMotionAndCtf"}),
        ("microscope.amplitude_contrast", 0.07, {"importmovies", "fsMotionAndCtf"}),
        ("microscope.microscope_type", "Glacios", set()),
        ("acquisition.dose_per_tilt_e_per_a2", 2, ALL - {"tsAlignment"}),
        ("acquisition.dose_calibration_factor", 1.5, ALL - {"tsAlignment"}),
        ("acquisition.tilt_axis_degrees", 85, {"importmovies", "tsAlignment"}),
        ("acquisition.invert_defocus_hand", False, {"importmovies"}),
        ("acquisition.eer_frames_per_fraction", 8, {"fsMotionAndCtf"}),
        ("acquisition.gain_flip_x", True, {"fsMotionAndCtf"}),
        ("acquisition.sample_thickness_nm", 150, {"tsAlignment", "tsReconstruct"}),
        ("acquisition.reconstruction_binning", 8, {"tsAlignment", "tsReconstruct"}),
        ("acquisition.camera_name", "K3", set()),
        ("data.movies", ["frames/*.eer"], set()),
        ("data.mdocs", ["*.mdoc"], set()),
        ("data.gain_reference", "/data/gain.tif", {"fsMotionAndCtf"}),
        ("computing.workers", 2, set()),
        ("computing.partition", "gpu", set()),
        ("jobs.tsAlignment.patch_x", 4, {"tsAlignment"}),
        ("jobs.tsAlignment.array_throttle", 4, set()),
        ("jobs.fsMotionAndCtf.perdevice", 4, set()),
        ("jobs.tsReconstruct.dose_weight", False, {"tsReconstruct"}),
    ],
)
def test_a_change_reaches_exactly_the_jobs_that_use_it(
    project: ProjectParameters, path: str, value: Any, jobs: set[str]
) -> None:
    assert changed_jobs(project, {path: value}) == jobs


def test_a_job_that_overrides_a_value_is_not_reached(project: ProjectParameters) -> None:
    own = project.with_values({"jobs.tsAlignment.sample_thickness_nm": 180})
    assert changed_jobs(own, {"acquisition.sample_thickness_nm": 150}) == {"tsReconstruct"}


def test_following_and_saying_the_same_are_the_same(project: ProjectParameters) -> None:
    assert changed_jobs(project, {"jobs.tsReconstruct.rescale_angpixs": 5.4}) == set()
    assert changed_jobs(project, {"jobs.fsMotionAndCtf.c_range_min_max": "30.0:6.00"}) == set()


def test_a_fingerprint_does_not_depend_on_who_said_it(project: ProjectParameters) -> None:
    thickness = "acquisition.sample_thickness_nm"
    by_mdoc = project.with_values({thickness: 150}, source="mdoc", detail="TS_01.mdoc")
    assert fingerprints(by_mdoc) == fingerprints(project.with_values({thickness: "150"}))


def test_who_said_it_matters_where_the_mdoc_of_each_series_gives_way_to_the_user(
    project: ProjectParameters,
) -> None:
    by_mdoc = project.with_values({"acquisition.tilt_axis_degrees": 85}, source="mdoc")
    assert changed_jobs(by_mdoc, {"acquisition.tilt_axis_degrees": 85}) == {"importmovies"}
    decisive = by_mdoc.effective("importmovies").decisive()
    assert "acquisition.tilt_axis_degrees set by the user" not in decisive
    decisive = project.with_values({"acquisition.tilt_axis_degrees": 85})
    assert decisive.effective("importmovies").decisive()[
        "acquisition.tilt_axis_degrees set by the user"
    ]


def test_what_decides_a_result_is_told_by_name(project: ProjectParameters) -> None:
    decisive = project.effective("tsReconstruct").decisive()
    assert decisive["tool"] == "cpu"
    assert decisive["rescale_angpixs"] == 5.4
    assert decisive[PIXEL] == 1.35
    assert "perdevice" not in decisive
    json.dumps(decisive)


def test_fingerprints_are_sixteen_hexadecimal_digits(project: ProjectParameters) -> None:
    for each in fingerprints(project).values():
        assert len(each) == 16
        int(each, 16)


def test_every_global_that_a_job_uses_exists(project: ProjectParameters) -> None:
    for model in JOB_MODELS.values():
        assert model.uses <= set(project.paths())
        assert model.yields_to_mdoc <= model.uses


# -- warnings --------------------------------------------------------------------------------


def test_an_unusual_voltage_is_warned_about_not_refused(project: ProjectParameters) -> None:
    assert project.warnings() == []
    assert project.with_values({"microscope.acceleration_voltage_kv": 120}).warnings() == []
    (warning,) = project.with_values({"microscope.acceleration_voltage_kv": 160}).warnings()
    assert warning.startswith("microscope.acceleration_voltage_kv = 160 kV: unusual")


def test_a_value_that_the_tool_ignores_is_warned_about(project: ProjectParameters) -> None:
    changed = project.with_values({"jobs.tsAlignment.patch_x": 4})
    assert changed.warnings() == ["jobs.tsAlignment.patch_x: the tool cpu does not use it"]
