"""The text by which a user makes optics groups."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from crboost.errors import ParameterError
from crboost.parameters import ImportMovies, ProjectParameters
from crboost.parameters.optics_groups import OpticsGroup, group_of, parse_optics_groups

PROJECT = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
GROUPS = "jobs.importmovies.optics_groups"


def test_patterns_names_and_values() -> None:
    text = "TS_1*: first ; TS_2?:second amplitude_contrast=.07 pixel_size_angstrom=2.70"
    assert parse_optics_groups(text) == (
        OpticsGroup("TS_1*", "first", {}),
        OpticsGroup("TS_2?", "second", {"pixel_size_angstrom": 2.7, "amplitude_contrast": 0.07}),
    )
    assert parse_optics_groups("") == ()


def test_there_is_one_spelling() -> None:
    job = PROJECT.with_values({GROUPS: "a*:x;b: y pixel_size_angstrom=2.0;"}).jobs["importmovies"]
    assert isinstance(job, ImportMovies)
    assert job.optics_groups == "a*: x; b: y pixel_size_angstrom=2"


def test_the_first_pattern_that_fits_counts() -> None:
    groups = parse_optics_groups("TS_01: one; TS_*: other")
    found = [group_of(name, groups) for name in ("TS_01", "TS_02", "X")]
    assert [one and one.name for one in found] == ["one", "other", None]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("second", "must be"),
        ("TS_2*:", "must be"),
        (": second", "must be"),
        ("TS 2: second", "must be"),
        ("TS_2*: a/b", "a group's name has letters"),
        ("TS_2*: second 2.7", "must be"),
        ("TS_2*: second pixel_size=2.7", "did you mean pixel_size_angstrom?"),
        ("TS_2*: second dose=3", "known are pixel_size_angstrom, accel"),
        ("TS_2*: second pixel_size_angstrom=big", "must be a number"),
        ("TS_2*: second pixel_size_angstrom=0.1", "must be 0.5 to 10 Å"),
        ("TS_2*: second pixel_size_angstrom=nan", "must be 0.5 to 10 Å"),
        ("a*: x pixel_size_angstrom=2; b*: x", "two groups are called x"),
        ("a*: opticsGroup1 pixel_size_angstrom=2", "take another name"),
    ],
)
def test_what_cannot_be_is_said(text: str, told: str) -> None:
    with pytest.raises(ParameterError) as caught:
        PROJECT.with_values({GROUPS: text})
    assert told in str(caught.value)
