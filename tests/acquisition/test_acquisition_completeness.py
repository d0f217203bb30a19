"""When a tilt series counts as complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.acquisition.completeness import CompletenessState, assess
from crboost.acquisition.mdoc import parse_mdoc
from crboost.acquisition.tilt_series import tilt_series_from_mdoc


@pytest.fixture
def series(mdoc_text):
    def build(**changes):
        return tilt_series_from_mdoc(parse_mdoc(mdoc_text(**changes).encode(), Path("TS_01.mdoc")))

    return build


NAMES = ("TS_01_000_0.0.mrc", "TS_01_001_3.0.mrc", "TS_01_002_-3.0.mrc")
ALL = dict.fromkeys(NAMES, 1000)


def test_complete(series):
    found = assess(series(), ALL)
    assert found.complete
    assert found.reasons == ()
    assert len(found.usable) == 3


def test_case_of_names_does_not_matter(series):
    assert assess(series(), {name.upper(): 1 for name in NAMES}).complete


def test_missing_movie_is_named_with_its_tilt(series):
    found = assess(series(), {name: 1000 for name in NAMES if "-3.0" not in name})
    assert found.state is CompletenessState.MISSING_MOVIES
    assert [tilt.movie_name for tilt in found.missing] == ["TS_01_002_-3.0.mrc"]
    assert found.reasons == ("tilt 2 (-3.0 deg): movie TS_01_002_-3.0.mrc is missing",)
    assert not found.complete


@pytest.mark.parametrize(
    ("sizes", "problems", "reason"),
    [
        ({NAMES[1]: 0}, {}, "empty"),
        ({}, {NAMES[1]: "truncated: 5 bytes"}, "truncated: 5 bytes"),
    ],
)
def test_movies_that_cannot_be_used(series, sizes, problems, reason):
    found = assess(series(), ALL | sizes, problems=problems)
    assert found.state is CompletenessState.MISSING_MOVIES
    assert reason in found.broken[NAMES[1]]
    assert len(found.usable) == 2
    assert found.missing == ()


def test_unfinished_mdoc_comes_first(series):
    found = assess(series(sections={2: {"DateTime": None}}), {})
    assert found.state is CompletenessState.INCOMPLETE_MDOC
    assert "DateTime" in found.reasons[0]
    assert len(found.missing) == 2


def test_fewer_tilts_than_expected(series):
    found = assess(series(), ALL, expected_tilts=41)
    assert found.state is CompletenessState.PARTIAL
    assert found.reasons == ("3 tilts of 41",)
    assert assess(series(), ALL, expected_tilts=3).complete


def test_movies_of_other_series_do_not_count(series):
    assert assess(series(), ALL | {"TS_02_000_0.0.mrc": 0}).complete
