"""What a user is told about a value that is not allowed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crboost.parameters import ParameterProblemsError, ProjectParameters

PROJECT = ProjectParameters.new("demo", datetime(2026, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("microscope.pixel_size_angstrom", 0.1, " = 0.1 Å: must be at least 0.5 Å"),
        ("microscope.pixel_size_angstrom", "0.1", " = 0.1 Å: must be at least 0.5 Å"),
        ("microscope.pixel_size_angstrom", 11, " = 11 Å: must be at most 10 Å"),
        ("microscope.pixel_size_angstrom", "1,35", ' = "1,35": must be a number, in Å'),
        ("microscope.pixel_size_angstrom", True, " = true: must be a number, not true or false"),
        ("microscope.pixel_size_angstrom", "nan", " = nan Å: must be a finite number"),
        ("microscope.acceleration_voltage_kv", 40, " = 40 kV: must be at least 80 kV"),
        ("acquisition.dose_per_tilt_e_per_a2", 90, " = 90 e/Å²: must be at most 9 e/Å²"),
        ("computing.threads", 2.5, " = 2.5: must be a whole number"),
        ("computing.threads", "many", ' = "many": must be a whole number'),
        ("acquisition.gain_flip_x", "maybe", ' = "maybe": must be true or false'),
        (
            "acquisition.acquisition_software",
            "serialem",
            ' = "serialem": must be one of SerialEM, Tomo5, unknown; did you mean SerialEM?',
        ),
        (
            "jobs.tsAlignment.tool",
            "aretomo",
            ' = "aretomo": must be one of cpu, warp, aretomo2, aretomo3, imod; did you mean are',
        ),
        ("jobs.importmovies.tool", "warp", ' = "warp": must be cpu'),
        (
            "acquisition.detector_dimensions_px",
            "5760",
            ' = 5760 px: must be two whole numbers, like "4096x4096"',
        ),
        ("acquisition.detector_dimensions_px", "0x5", " = 0 px: must be at least 1 px"),
        ("data.movies", [1], " = 1: must be a list of texts"),
        ("data.movies", "", ' = [""]: a pattern is empty; write something like'),
        ("jobs.importmovies.do_at_most", 0, " = 0: must be -1 (all) or at least 1"),
        ("jobs.tsReconstruct.rescale_angpixs", 60, " = 60 Å: must be at most 50 Å"),
        (
            "jobs.fsMotionAndCtf.m_range_min_max",
            "10:500",
            ' = "10:500": must be the coarsest resolution first, then the finest, in Å: '
            'did you mean "500:10"?',
        ),
        (
            "jobs.fsMotionAndCtf.c_range_min_max",
            "30-6",
            ' = "30-6": must be "coarsest:finest" resolution in Å, like "500:10": '
            "must be two numbers with a colon",
        ),
        ("jobs.fsMotionAndCtf.c_range_min_max", "30:nan", ": both numbers must be above zero"),
        (
            "jobs.fsMotionAndCtf.c_defocus_min_max",
            "8:1.1",
            ' = "8:1.1": must be the smaller defocus first, then the larger, in µm: '
            'did you mean "1.1:8"?',
        ),
        ("jobs.fsMotionAndCtf.c_defocus_min_max", "8:8", "must be the smaller defocus first"),
        ("jobs.fsMotionAndCtf.m_range_min_max", "10:10", "must be the coarsest resolution first"),
        (
            "jobs.fsMotionAndCtf.c_defocus_min_max",
            "11000:80000",
            ": 80000 µm is no defocus: the unit is µm, not Å",
        ),
        (
            "jobs.fsMotionAndCtf.m_grid",
            "1x3",
            ' = "1x3": must be 3 whole numbers with an x between them, like "4096x4096x2048"',
        ),
        ("jobs.fsMotionAndCtf.m_grid", "0x1x3", ' = "0x1x3": every number must be at least 1'),
        ("microscope.pixel_size", 1, ": no such parameter; did you mean pixel_size_angstrom?"),
        ("jobs.tsAlignment.patchx", 4, ": no such parameter; did you mean patch_x?"),
        ("microscope", 300, ": is a group of parameters, not a value"),
        (
            "jobs.tsalignment.patch_x",
            4,
            ": tsalignment: no such job type; did you mean tsAlignment?",
        ),
        ("jobs.tsAlignment__1.patch_x", 4, ": tsAlignment__1: no such job"),
        ("pixel_size", 1, ": no such parameter; did you mean microscope.pixel_size_angstrom?"),
        ("xyzzy", 1, ": no such parameter"),
        (
            "tsAlignment.rescale_angpix",
            8,
            ": no such parameter; did you mean jobs.tsAlignment.rescale_angpixs?",
        ),
        ("jobs.tsAlignment.m", 1, ": no such parameter\n"),
    ],
)
def test_the_message_names_field_value_bound_and_unit(path: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterProblemsError) as caught:
        PROJECT.with_values({path: value})
    (problem,) = caught.value.problems
    assert caught.value.message.startswith(path)
    assert message in f"{caught.value.message}\n"
    assert problem.path == path


def test_the_hint_tells_range_and_default() -> None:
    with pytest.raises(ParameterProblemsError) as caught:
        PROJECT.with_values({"microscope.pixel_size_angstrom": 0.1})
    assert caught.value.hint == "Pixel size: 0.5 to 10 Å, default 1.35 Å"


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ParameterProblemsError) as caught:
        PROJECT.with_values(
            {
                "jobs.tsAlignment.patchx": 4,
                "microscope.pixel_size_angstrom": 99,
                "jobs.tsReconstruct.deconv": "maybe",
            }
        )
    assert [each.path for each in caught.value.problems] == [
        "jobs.tsAlignment.patchx",
        "microscope.pixel_size_angstrom",
        "jobs.tsReconstruct.deconv",
    ]
    assert caught.value.message.startswith("3 parameters are wrong\n")
