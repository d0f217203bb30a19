"""What the doubles of pytom-match-pick's two programs share: orientations, maps, failures.

Orientations, rotation and the order of axes are pytom's: volumes are [x, y, z], and the orientation
(z1, x, z2) takes a point t of the template to Rz(z2) Rx(x) Rz(z1) t.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import NoReturn

import mrcfile
import numpy as np


def refuse(program: str, message: str) -> NoReturn:
    """End as argparse does."""
    print(f"usage: {program} [-h]\n{program}: error: {message}", file=sys.stderr)
    sys.exit(2)


def orientations(search: str, order: int) -> np.ndarray:
    """The list that both programs must agree on, from the step or the file that was given."""
    if search.endswith(".txt"):
        lines = Path(search).read_text().splitlines()
        listed = np.array(sorted(tuple(map(float, line.split())) for line in lines))
    else:
        step = math.radians(float(search))
        turns = np.arange(0, 2 * math.pi - 1e-6, step)
        tilts = np.arange(step / 2, math.pi, step)
        listed = np.array([(a, b, c) for a in turns for b in tilts for c in turns])
    return listed[listed[:, 0] < 2 * math.pi / order]


def volume(path: str | Path) -> np.ndarray:
    """A map as [x, y, z]."""
    with mrcfile.open(path, permissive=True) as opened:
        return np.array(opened.data, np.float32).T


def voxel_size_angstrom(path: str | Path) -> float:
    """What the header says."""
    with mrcfile.open(path, permissive=True, header_only=True) as opened:
        return float(opened.voxel_size.x)


def save(path: Path, data: np.ndarray, voxel: float, *, half: bool = False) -> None:
    """A map [x, y, z] as a file."""
    with mrcfile.new(path, overwrite=True) as made:
        made.set_data(np.ascontiguousarray(data.T.astype(np.float16 if half else np.float32)))
        made.voxel_size = voxel


def gpus() -> int | None:
    """How many GPUs CUDA would see; None where nothing says so, and any will do."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else len([one for one in visible.split(",") if one])
