"""The job types' models and the names of nodes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from crboost.errors import ParameterError
from crboost.parameters import (
    JOB_MODELS,
    FsMotionAndCtf,
    ImportMovies,
    TsAlignment,
    TsReconstruct,
    field_facts,
    job_type_of,
    unused_by_tool,
)


@pytest.mark.parametrize("node", ["tsAlignment", "tsAlignment__2", "tsAlignment__10"])
def test_a_node_has_the_job_type_of_its_name(node: str) -> None:
    assert job_type_of(node) == "tsAlignment"


@pytest.mark.parametrize(
    "node",
    [
        "",
        "tsAlign",
        "tsAlignment__",
        "tsAlignment__1",
        "tsAlignment__0",
        "tsAlignment__x",
        "tsAlignment__02",
        "tsAlignment__2__2",
        "tsAlignment_2",
        "tsAlignment__٢",
    ],
)
def test_other_names_are_no_jobs(node: str) -> None:
    with pytest.raises(ParameterError, match="no such job"):
        job_type_of(node)


def test_defaults_are_those_that_users_know() -> None:
    frames = FsMotionAndCtf()
    assert frames.motion_resolution_angstrom == (500, 10)
    assert frames.ctf_resolution_angstrom == (30, 6)
    assert frames.ctf_defocus_um == (1.1, 8)
    assert frames.motion_grid == (1, 1, 3)
    assert frames.ctf_grid == (2, 2, 1)
    assert (frames.m_bfac, frames.c_window, frames.out_average_halves) == (-500, 512, True)
    assert ImportMovies().optics_group_name == "opticsGroup1"
    assert TsAlignment().imod_patch_size == 200
    assert TsReconstruct().tomo_dimensions_px is None
    assert TsReconstruct(tomo_dimensions="4096x4096x2048").tomo_dimensions_px == (4096, 4096, 2048)


def test_defaults_pass_their_own_checks() -> None:
    for model in JOB_MODELS.values():
        assert model.model_validate(model().model_dump()) == model()


def test_an_assignment_is_checked() -> None:
    job = TsAlignment()
    with pytest.raises(ValidationError):
        job.patch_x = -1
    assert job.patch_x == 0


def test_what_the_cpu_tool_does_not_use_is_known() -> None:
    assert unused_by_tool(ImportMovies()) == []
    unused = ["warp_arguments", "deconv", "invert_contrast", "perdevice"]
    assert unused_by_tool(TsReconstruct()) == unused
    assert "patch_x" in unused_by_tool(TsAlignment())
    assert "fiducial_diameter_nm" not in unused_by_tool(TsAlignment())


def test_every_field_has_a_title_and_a_description() -> None:
    for model in JOB_MODELS.values():
        for name in model.model_fields:
            facts = field_facts(model, name)
            assert facts.title != name
            assert facts.description.endswith((".", '"'))
