"""What `ts_export_particles` writes -> RELION's particles: which images, in which order."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from crboost.errors import FileFormatError
from crboost.translate.warp_particles import (
    ExportedParticle,
    keep_visible,
    merged,
    optics_row,
    read_export,
    relion_particle,
    rows_in_warps_order,
    visible_by_tilt,
)
from crboost.translate.warp_tilt_series import WarpTilt, WarpTiltSeries

# The columns are those of WarpTools' source (RelionParticleSeries, Construct2DOpticsTable).
STACKS = """
data_general

_rlnTomoSubTomosAre2DStacks 1

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnTomoTiltSeriesPixelSize #3
_rlnCtfDataAreCtfPremultiplied #4
_rlnImageSize #5
1 opticsGroup1 1.35000 {premultiplied} 64

data_particles

loop_
_rlnTomoName #1
_rlnTomoParticleId #2
_rlnCoordinateX #3
_rlnCoordinateY #4
_rlnCoordinateZ #5
_rlnImageName #6
_rlnTomoVisibleFrames #7
TS_01.tomostar 1 10.000 20.000 30.500 w/TS_01_2.70A_000001.mrcs [1,1,0]
TS_01.tomostar 3 11.000 21.000 31.000 w/TS_01_2.70A_000003.mrcs [1,1,1]
"""
#: In the order of the `.tomostar`; the last was recorded first.
SERIES = WarpTiltSeries(
    "TS_01",
    (WarpTilt("f/c.tif", -3.0, 6.0), WarpTilt("f/b.tif", 0.0, 3.0), WarpTilt("f/a.tif", 3.0, 0.0)),
)


@pytest.mark.parametrize("premultiplied", [True, False])
def test_an_export_is_read(tmp_path: Path, premultiplied: bool) -> None:
    star = tmp_path / "particles.star"
    star.write_text(STACKS.format(premultiplied=int(premultiplied)))
    export = read_export(star, 2.7)
    assert (export.premultiplied, export.box_px) == (premultiplied, 64)
    first, third = export.particles
    # A particle that too few tilts show is left out: the others keep their numbers.
    assert (first.candidate, third.candidate) == (0, 2)
    assert first.position_angstrom == pytest.approx((27.0, 54.0, 82.35))
    assert first.visible == (True, True, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [(("_rlnTomoVisibleFrames", "_rlnX"), "has no column rlnTomoVisibleFrames"),
     (("[1,1,0]", "[a]"), "something else than numbers")],
)  # fmt: skip
def test_a_damaged_export_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    star = tmp_path / "particles.star"
    star.write_text(STACKS.format(premultiplied=1).replace(*change))
    with pytest.raises(FileFormatError, match=said):
        read_export(star, 2.7)
    with pytest.raises(FileFormatError, match="no such file"):
        read_export(tmp_path / "absent.star", 2.7)


def test_the_tilt_images_get_warps_order() -> None:
    rows = [{"rlnMicrographMovieName": f"frames/{name}.tif"} for name in "abc"]
    assert rows_in_warps_order(rows, SERIES) == rows[::-1]


def test_fewer_tilts_are_those_of_the_lowest_dose() -> None:
    assert visible_by_tilt((True, False, True), SERIES) == {"c": True, "b": False, "a": True}
    assert visible_by_tilt((False, True), SERIES) == {"c": False, "b": False, "a": True}
    with pytest.raises(ValueError, match="4 tilt images exported"):
        visible_by_tilt((True,) * 4, SERIES)


def write_stack(path: Path, count: int) -> np.ndarray:
    data = (np.arange(count)[:, None, None] + np.zeros((count, 4, 6))).astype(np.float16)
    with mrcfile.new(path, overwrite=True) as made:
        made.set_data(data)
        made.set_image_stack()
        made.voxel_size = 2.7
    return data


def test_images_that_do_not_show_a_particle_leave_its_stack(tmp_path: Path) -> None:
    """WarpTools up to 2.0.0dev36 writes them; RELION would take each for the next."""
    stack = tmp_path / "a.mrcs"
    data = write_stack(stack, 4)
    for _ in range(2):  # the second time nothing is left to do
        keep_visible(stack, (True, False, True, True))
        with mrcfile.open(stack) as read:  # strict
            assert np.array_equal(read.data, data[[0, 2, 3]])
            assert read.voxel_size.x == pytest.approx(2.7)
    with pytest.raises(FileFormatError, match="holds 3 images; 5 tilts, 4 visible"):
        keep_visible(stack, (True, True, True, True, False))
    with pytest.raises(FileFormatError, match="was not written"):
        keep_visible(tmp_path / "absent.mrcs", (True,))
    (tmp_path / "short.mrcs").write_bytes(b"x" * 100)
    with pytest.raises(FileFormatError, match="is no MRC stack"):
        keep_visible(tmp_path / "short.mrcs", (True,))


def test_a_particle_keeps_what_is_its_own() -> None:
    candidate = {
        "rlnTomoName": "TS_01", "rlnTomoParticleName": "TS_01/7", "rlnLCCmax": 0.4,
        "rlnCenteredCoordinateXAngst": 10.0, "rlnCenteredCoordinateYAngst": -5.0,
        "rlnCenteredCoordinateZAngst": 0.0, "rlnOriginXAngst": 2.0, "rlnImageName": "old.mrc",
        "rlnOpticsGroup": 9, "rlnTomoTiltSeriesPixelSize": 1.35,
    }  # fmt: skip
    exported = ExportedParticle(6, "w/a.mrcs", None, (0.0, 0.0, 0.0), (True, False))
    row = relion_particle(candidate, exported, "TS_01", "External/job009/warp/TS_01", (False, True))
    assert row == {
        "rlnTomoName": "TS_01", "rlnTomoParticleName": "TS_01/7", "rlnLCCmax": 0.4,
        "rlnCenteredCoordinateXAngst": 8.0, "rlnCenteredCoordinateYAngst": -5.0,
        "rlnCenteredCoordinateZAngst": 0.0,
        "rlnOriginXAngst": 0.0, "rlnOriginYAngst": 0.0, "rlnOriginZAngst": 0.0,
        "rlnImageName": "External/job009/warp/TS_01/w/a.mrcs", "rlnTomoVisibleFrames": "[0,1]",
    }  # fmt: skip


def test_tilt_series_of_the_same_optics_are_one_group() -> None:
    microscope = {"rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    optics = [
        optics_row(
            {**microscope, "rlnTomoTiltSeriesPixelSize": pixel},
            binning=2,
            box_px=64,
            stacks=True,
            premultiplied=True,
        )
        for pixel in (1.35, 1.35, 1.7)
    ]
    particles = [[{"rlnTomoName": name}] for name in ("A", "B", "C")]
    groups, rows = merged(list(zip(optics, particles, strict=True)))
    assert [group["rlnOpticsGroup"] for group in groups] == [1, 2]
    assert [row["rlnOpticsGroup"] for row in rows] == [1, 1, 2]
    assert [group["rlnImagePixelSize"] for group in groups] == [2.7, 3.4]
