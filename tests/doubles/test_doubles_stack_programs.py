"""The double of newstack shrinks and trims as the real one: `getReducedSize` of newstack.f90."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from doubles.stack_programs import newstack

from crboost.translate.image_stack import ImageStack


@pytest.mark.parametrize(
    ("image", "shrink", "stack"),
    [((341, 480), 6.0, (56, 80)), ((409, 576), 7.407407, (55, 77)), ((300, 256), 1.0, (300, 256))],
)
def test_a_spot_is_where_the_stack_s_geometry_says(
    tmp_path: Path, image: tuple[int, int], shrink: float, stack: tuple[int, int]
) -> None:
    spot = (image[0] * 0.3, image[1] * 0.6)
    y, x = np.mgrid[: image[1], : image[0]]
    blob = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 15.0**2))
    with mrcfile.new(tmp_path / "a.mrc", blob.astype(np.float32)) as made:
        made.voxel_size = 2.0
    options = ["-shrink", str(shrink)] if shrink > 1 else []
    assert newstack(["-mode", "2", *options, str(tmp_path / "a.mrc"), str(tmp_path / "a.st")]) == 0
    with mrcfile.open(tmp_path / "a.st") as opened:
        small = np.array(opened.data[0])
    assert small.shape == stack[::-1]
    y, x = np.mgrid[: stack[1], : stack[0]]
    offset = [
        (small * index).sum() / small.sum() - (length - 1) / 2
        for index, length in zip((x, y), stack, strict=True)
    ]
    geometry = ImageStack.shrunk(image, 2.0, shrink, centre="middle")
    seen = geometry.shift_angstrom((offset[0], offset[1]))
    expected = [(at - size // 2) * 2.0 for at, size in zip(spot, image, strict=True)]
    assert seen == pytest.approx(expected, abs=0.1)
