from __future__ import annotations

import pytest

from crboost.errors import CrboostError
from flows.local import parse_overrides


def test_overrides_are_names_and_values() -> None:
    assert parse_overrides(
        [
            "microscope.pixel_size_angstrom=1.35",
            "jobs.tsAlignment.patch_x = 4",
            "jobs.tsAlignment.method=auto",
            "jobs.tsReconstruct.halves=true",
            "data.movies=frames/a=b_*.eer",
        ]
    ) == {
        "microscope.pixel_size_angstrom": "1.35",
        "jobs.tsAlignment.patch_x": "4",
        "jobs.tsAlignment.method": "auto",
        "jobs.tsReconstruct.halves": "true",
        "data.movies": "frames/a=b_*.eer",
    }


@pytest.mark.parametrize("text", ["patch_x", "=4", " = "])
def test_an_override_without_a_name_or_a_value_is_refused(text: str) -> None:
    with pytest.raises(CrboostError, match="NAME=VALUE"):
        parse_overrides([text])


def test_an_override_given_twice_is_refused() -> None:
    with pytest.raises(CrboostError, match="given twice"):
        parse_overrides(["jobs.tsAlignment.patch_x=4", "jobs.tsAlignment.patch_x=5"])
