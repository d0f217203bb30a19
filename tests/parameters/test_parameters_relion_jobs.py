"""The models of RELION's own job types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crboost.errors import ParameterError
from crboost.parameters import (
    DEFAULT_JOBS,
    JOB_MODELS,
    Class3d,
    ProjectParameters,
    ReconstructTomograms,
    RelionJobParameters,
    describe,
    job_type_of,
    json_schema,
)

NATIVE = [name for name, model in JOB_MODELS.items() if issubclass(model, RelionJobParameters)]


def project(**values: Any) -> ProjectParameters:
    return ProjectParameters.new("demo", datetime(2026, 5, 1, tzinfo=UTC)).with_values(values)


def test_a_new_project_has_the_built_in_jobs_only() -> None:
    assert list(project().jobs) == list(DEFAULT_JOBS)
    assert not set(NATIVE) & set(DEFAULT_JOBS)


def test_relions_job_types_are_known() -> None:
    assert NATIVE == [
        "motionCorr",
        "ctfFind",
        "reconstructTomograms",
        "subtomoExtraction",
        "reconstructParticle",
        "class3d",
        "refine3d",
    ]
    assert job_type_of("class3d__2") == "class3d"


@pytest.mark.parametrize("node", NATIVE)
def test_a_native_job_is_described_and_comes_back(node: str) -> None:
    with_job = project().with_job(node)
    assert ProjectParameters.load(with_job.dump()) == with_job
    rows = {row.path for row in describe(with_job)}
    assert f"jobs.{node}.other_args" in rows
    assert with_job.effective(node).job.tool == "relion"
    assert node in json_schema()["properties"]["jobs"]["properties"]


@pytest.mark.parametrize("node", ["importmovies", "tsAlignment"])
def test_a_tool_of_another_job_is_refused(node: str) -> None:
    with pytest.raises(ParameterError, match="tool"):
        project(**{f"jobs.{node}.tool": "relion"})
    with pytest.raises(ParameterError, match="tool"):
        project(**{"jobs.motionCorr.tool": "cpu"})


def test_the_tomogram_follows_the_project() -> None:
    seen = project(
        **{"microscope.pixel_size_angstrom": 2.0, "acquisition.sample_thickness_nm": 150}
    ).effective("reconstructTomograms")
    job = seen.job_as(ReconstructTomograms)
    assert (job.tomogram_pixel_size_angstrom, job.thickness_nm) == (8.0, 150)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jobs.motionCorr.do_save_ps": False}, "do_float16 needs do_save_ps"),
        ({"jobs.reconstructTomograms.do_fourier": True}, "exclude each other"),
        ({"jobs.ctfFind.dfmin_um": 6}, "dfmin_um must be smaller than dfmax_um"),
        ({"jobs.subtomoExtraction.crop_size": 400}, "must not be larger than box_size"),
        ({"jobs.subtomoExtraction.box_size": 385}, "must be even"),
        ({"jobs.subtomoExtraction.crop_size": 0}, "must be -1"),
        ({"jobs.reconstructParticle.do_helix": True}, "do_helix needs helical_rise"),
        ({"jobs.class3d.symmetry": "C1; rm -rf ."}, "must be a point group"),
        ({"jobs.class3d.relax_symmetry": "C2"}, "needs local searches"),
        ({"jobs.class3d.other_args": "--x 'open"}, "cannot be split"),
        ({"jobs.class3d.pad": 3}, "pad"),
    ],
)
def test_what_relion_would_refuse_is_refused_before(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        project(**values)


@pytest.mark.parametrize(
    ("text", "group"), [("c1", "C1"), (" D7 ", "D7"), ("o", "O"), ("I2", "I2")]
)
def test_point_groups(text: str, group: str) -> None:
    assert Class3d(symmetry=text).symmetry == group


@pytest.mark.parametrize(
    ("path", "value", "jobs"),
    [
        ("acquisition.gain_flip_x", True, {"motionCorr"}),
        ("acquisition.eer_frames_per_fraction", 8, {"motionCorr"}),
        ("acquisition.detector_dimensions_px", "512x512", {"motionCorr", "reconstructTomograms"}),
        ("acquisition.sample_thickness_nm", 100, {"reconstructTomograms"}),
        (
            "microscope.pixel_size_angstrom",
            2.0,
            {"motionCorr", "reconstructTomograms", "subtomoExtraction"},
        ),
        ("computing.gpu_count", 0, set()),
        ("jobs.class3d.use_gpu", False, set()),
        ("jobs.class3d.pad", 1, {"class3d"}),
    ],
)
def test_a_change_reaches_the_native_jobs_that_use_it(
    path: str, value: Any, jobs: set[str]
) -> None:
    before, after = project(), project(**{path: value})
    assert {node for node in NATIVE if before.fingerprint(node) != after.fingerprint(node)} == jobs
