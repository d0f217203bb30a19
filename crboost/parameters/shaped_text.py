"""Parameters that are text with a shape: ranges ("500:10"), grids ("1x1x3") and sizes.

They stay text in files and forms, as the users of Warp and RELION write them; each is checked
when it is set and brought to one spelling, so that "30:6.0" and "30:6" are the same value.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from crboost.parameters.base import SchemaKeywords, number_text

_NUMBER = r"\+?(?=[0-9.]*[1-9])(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
RANGE_PATTERN = rf"^\s*{_NUMBER}\s*:\s*{_NUMBER}\s*$"
"""Two numbers above zero with a colon between them; which is the larger no pattern can say."""

WHOLE_NUMBER = "0*[1-9][0-9]*"
"""Part of a pattern: a whole number above zero."""


def size_pattern(count: int) -> str:
    """The pattern of `count` whole numbers above zero with an x between them."""
    return r"^\s*" + r"\s*[xX]\s*".join([WHOLE_NUMBER] * count) + r"\s*$"


def parse_range(text: str) -> tuple[float, float]:
    """The two numbers of "a:b".

    Raises:
        ValueError: not two finite numbers above zero with a colon between them.
    """
    try:
        first, second = (float(part) for part in text.split(":"))
    except ValueError:
        raise ValueError('must be two numbers with a colon between them, like "30:6"') from None
    if not (math.isfinite(first) and math.isfinite(second) and first > 0 and second > 0):
        raise ValueError("both numbers must be above zero")
    if not re.search(RANGE_PATTERN, text):  # "1_0:2" is two numbers for Python alone
        raise ValueError('must be two numbers with a colon between them, like "30:6"')
    return first, second


def parse_size(text: str, count: int) -> tuple[int, ...]:
    """The whole numbers of "4096x4096x2048".

    Raises:
        ValueError: not `count` whole numbers above zero with an x between them.
    """
    parts = [part.strip() for part in re.split("[xX]", text)]
    if not re.search(size_pattern(count), text):
        if len(parts) == count and any(re.fullmatch("0+", part) for part in parts):
            raise ValueError("every number must be at least 1")
        like = "x".join(["4096", "4096", "2048"][:count])
        raise ValueError(f'must be {count} whole numbers with an x between them, like "{like}"')
    return tuple(int(part) for part in parts)


def _resolution_range(text: str) -> str:
    coarse, fine = _range_of(text, '"coarsest:finest" resolution in Å, like "500:10"')
    if coarse <= fine:
        raise ValueError(
            f"must be the coarsest resolution first, then the finest, in Å{_swapped(fine, coarse)}"
        )
    return f"{number_text(coarse)}:{number_text(fine)}"


def _defocus_range(text: str) -> str:
    low, high = _range_of(text, '"minimum:maximum" defocus in µm, like "1.1:8"')
    if low >= high:
        raise ValueError(
            f"must be the smaller defocus first, then the larger, in µm{_swapped(high, low)}"
        )
    if high > 100:
        raise ValueError(f"{number_text(high)} µm is no defocus: the unit is µm, not Å")
    return f"{number_text(low)}:{number_text(high)}"


def _swapped(first: float, second: float) -> str:
    if first == second:
        return ""
    return f': did you mean "{number_text(first)}:{number_text(second)}"?'


def _range_of(text: str, form: str) -> tuple[float, float]:
    try:
        return parse_range(text)
    except ValueError as error:
        raise ValueError(f"must be {form}: {error}") from None


def _three(text: str) -> str:
    return "x".join(str(number) for number in parse_size(text, 3))


def _two_numbers(value: Any) -> Any:
    """Accept "4096x4096", "4096,4096" and "4096 4096" for a pair; leave the rest to pydantic."""
    if isinstance(value, str):
        parts = [part for part in re.split(r"[xX,;\s\[\]()]+", value) if part]
        if len(parts) != 2:
            raise ValueError('must be two whole numbers, like "4096x4096"')
        return tuple(parts)
    return value


_RANGE = SchemaKeywords(pattern=RANGE_PATTERN)
_SIZE = SchemaKeywords(pattern=size_pattern(3))

ResolutionRange = Annotated[str, AfterValidator(_resolution_range), _RANGE]
"""Text "coarsest:finest" in Å, the larger number first."""

DefocusRange = Annotated[str, AfterValidator(_defocus_range), _RANGE]
"""Text "minimum:maximum" in µm, the smaller number first."""

Grid = Annotated[str, AfterValidator(_three), _SIZE]
"""Text "XxYxZ" (or "XxYxT") of three whole numbers."""

VolumeSize = Annotated[str, AfterValidator(_three), _SIZE]
"""Text "XxYxZ" in unbinned pixels."""

_Pixels = Annotated[int, Field(ge=1)]
ImageSize = Annotated[tuple[_Pixels, _Pixels], BeforeValidator(_two_numbers)]
"""Two whole numbers (x, y) in px; text like "4096x4096" is understood."""
