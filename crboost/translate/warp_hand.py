"""What `WarpTools ts_defocus_hand --check` says, and which defocus hand follows from it.

It correlates the defocus gradient that was measured across each tilt image with the one that the
tilt makes, taking the angles as they are. Negative: the angles are the wrong way round for the
defocus, AreAnglesInverted, 'flip' (`DefocusHandTiltseries.cs`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

_CORRELATION = re.compile(r"^Average correlation: (-?\d+(?:\.\d+)?)\s*$", re.MULTILINE)


def correlation_in(text: str) -> float | None:
    """The correlation that WarpTools printed, in [-1, 1]; None if it printed none."""
    found = _CORRELATION.search(text)
    return float(found.group(1)) if found else None


def is_flipped(correlations: Sequence[float]) -> bool | None:
    """AreAnglesInverted, as the mean of the tilt series' correlations says; None: it does not."""
    mean = fmean(correlations) if correlations else 0.0
    return mean < 0 if mean else None
