"""The array types that the CPU tools pass around."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Floating-point array of any shape; functions say which.
Floats = npt.NDArray[np.floating[Any]]
#: Complex array of any shape.
Complexes = npt.NDArray[np.complexfloating[Any, Any]]
#: Movie as read: (frame, y, x), integer counts or floats.
Movie = npt.NDArray[Any]
