"""Back-projection puts things where RELION's projection matrix says they are."""

from __future__ import annotations

import numpy as np
import pytest

from crboost.cpu.geometry import TiltAlignment, projection_matrix
from crboost.cpu.projector import Projector, ramp_filter
from crboost.cpu.reconstruct import TiltImage, TomogramGrid, reconstruct, tomogram_grid

PIXEL = 4.0


def series(
    voxel: tuple[float, float, float],
    tomogram: tuple[int, int, int],
    image_size: tuple[int, int],
    axis_deg: float = 85.0,
) -> list[TiltImage]:
    """Images of one dark dot at an unbinned voxel (x, y, z), by RELION's matrix alone."""
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[: image_size[1], : image_size[0]]
    tilts = []
    for angle in range(-60, 61, 4):
        alignment = TiltAlignment(0, angle, axis_deg, *rng.normal(0, 20, 2))
        matrix = projection_matrix(alignment, PIXEL, tomogram, image_size)
        x, y = (matrix @ np.array([*voxel, 1.0]))[:2]
        dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
        tilts.append(TiltImage(100 - 30 * dot, alignment))
    return tilts


@pytest.mark.parametrize("binning", [1.0, 2.0, 4.0, 1.5, 2.7])
@pytest.mark.parametrize(
    ("tomogram", "image"), [((128, 128, 64), (128, 128)), ((150, 121, 73), (161, 140))]
)
def test_a_dot_comes_back_at_its_voxel(
    binning: float, tomogram: tuple[int, int, int], image: tuple[int, int]
) -> None:
    voxel = (tomogram[0] // 2 + 22.0, tomogram[1] // 2 - 17.0, tomogram[2] // 2 + 13.0)
    volume = reconstruct(series(voxel, tomogram, image), TomogramGrid(tomogram, binning), PIXEL)
    assert volume.shape == (
        int(tomogram[2] / binning),
        int(tomogram[1] / binning + 0.5),
        int(tomogram[0] / binning + 0.5),
    )
    darkness = np.clip(-volume - 0.5 * (-volume).max(), 0, None)
    z, y, x = ((np.indices(volume.shape) * darkness).sum(axis=(1, 2, 3))) / darkness.sum()
    assert np.array([x, y, z]) * binning == pytest.approx(np.array(voxel), abs=0.35)


def test_dense_things_stay_dark_and_the_background_is_flat() -> None:
    volume = reconstruct(
        series((64, 64, 32), (128, 128, 64), (128, 128)), TomogramGrid((128, 128, 64), 2), PIXEL
    )
    assert volume.min() == volume[16, 32, 32]
    assert -volume.min() > 4 * volume.max()


def test_dose_weighting_dims_the_late_tilts() -> None:
    tilts = series((64, 64, 32), (128, 128, 64), (128, 128))
    weighted = [
        TiltImage(tilt.image, tilt.alignment, exposure_e_per_a2=3.0 * index)
        for index, tilt in enumerate(tilts)
    ]
    grid = TomogramGrid((128, 128, 64), 2)
    plain, dimmed = (reconstruct(one, grid, PIXEL)[16, 32, 32] for one in (tilts, weighted))
    assert plain < 0.95 * dimmed < 0


def test_an_x_tilt_and_an_empty_series_are_refused() -> None:
    image = np.ones((32, 32))
    grid = TomogramGrid((32, 32, 16), 1)
    with pytest.raises(ValueError, match="x_tilt_deg is 2"):
        reconstruct([TiltImage(image, TiltAlignment(2, 0, 85, 0, 0))], grid, PIXEL)
    with pytest.raises(ValueError, match="no tilt images"):
        reconstruct([], grid, PIXEL)


def test_grid_from_image_and_thickness() -> None:
    upright = tomogram_grid((512, 384), 5.0, 4.0, 16.0, 100.0, None)
    assert upright == TomogramGrid((512, 384, 248), 4.0)
    sideways = tomogram_grid((512, 384), 85.0, 4.0, 16.0, 100.0, None)
    assert sideways.size_px == (384, 512, 248)
    assert sideways.shape == (62, 128, 96)
    given = tomogram_grid((512, 384), 85.0, 4.0, 10.0, 100.0, (500, 300, 200))
    assert given == TomogramGrid((500, 300, 200), 2.5)
    assert tomogram_grid((512, 384), 85.0, 4.0, 2.0, 100.0, None).binning == 1.0


def test_projector_is_the_adjoint_of_summing_along_the_beam() -> None:
    """<back_project(lines), voxel> is the line's value where the voxel projects to."""
    projector = Projector(np.arange(20.0) - 10, np.arange(10.0) - 5, [0.0, 30.0], 24)
    lines = np.zeros((2, 3, 24), np.float32)
    lines[0, 1, 12 + 4] = 1
    volume = projector.back_project(lines)
    assert volume.shape == (10, 3, 20)
    assert volume[:, 1, 14].tolist() == [1] * 10
    assert volume.sum() == 10
    lines[:] = np.arange(24)
    # At z = 4, x = 3 the 30 degree line is read at 3 cos 30 + 4 sin 30 + 12.
    value = projector.back_project(lines)[9, 0, 13]
    assert value == pytest.approx(15 + 12 + 3 * np.cos(np.pi / 6) + 2, rel=1e-5)


def test_ramp_filter_removes_the_constant() -> None:
    lines = np.ones((1, 2, 64), np.float32)
    assert np.abs(ramp_filter(lines)[0, :, 20:44]).max() < 0.02
