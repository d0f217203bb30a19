"""The defocus hand, from what WarpTools prints."""

from __future__ import annotations

import pytest

from crboost.translate.warp_hand import correlation_in, is_flipped

#: As `DefocusHandTiltseries.cs` prints it, behind the options.
SAID = """Running command ts_defocus_hand with:
check = True

Checking defocus handedness for all tilt series...
0/1
Average correlation: -0.512
The average correlation is negative, which means that the defocus handedness should be set to 'flip'
"""


def test_the_correlation_is_read() -> None:
    assert correlation_in(SAID) == -0.512
    assert correlation_in(SAID.replace("-0.512", "0.071")) == 0.071
    assert correlation_in(SAID.replace("-0.512", "NaN")) is None
    assert correlation_in("No input items found\n") is None


@pytest.mark.parametrize(
    ("correlations", "flipped"),
    [([-0.5], True), ([0.5], False), ([0.6, -0.2, -0.1], False), ([0.1, -0.6], True)],
)
def test_the_mean_decides_not_the_majority(correlations: list[float], flipped: bool) -> None:
    assert is_flipped(correlations) is flipped


def test_nothing_follows_from_nothing() -> None:
    assert is_flipped([]) is None
    assert is_flipped([0.0]) is None
