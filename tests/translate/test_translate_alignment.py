"""Alignments become rows; stacks of tools have centres and pixels of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crboost.cpu.geometry import TiltAlignment as RelionTilt
from crboost.cpu.geometry import specimen_rotation
from crboost.errors import CrboostError
from crboost.translate.alignment import TiltAlignment, aligned_output, mean_axis_deg
from crboost.translate.image_stack import Centre, ImageStack
from crboost.translate.tables import Row

ALIGNED = TiltAlignment(0.0, 3.0, 85.0, 12.0, -7.0)


def row(name: str, angle: float) -> Row:
    return {
        "rlnMicrographMovieName": f"frames/{name}.tif",
        "rlnTomoNominalStageTiltAngle": angle,
        "rlnDefocusU": 30000.0,
    }


def test_rows_keep_their_columns_and_order_and_lose_what_is_excluded() -> None:
    table = [row("a", 0.0), row("b", 3.0), row("c", -3.0)]
    output = aligned_output(
        table, {"c": ALIGNED, "a": "AreTomo took it for a dark image"}, "AreTomo2", residual_px=1.5
    )
    assert output.rows == [{**table[2], **ALIGNED.columns()}]
    assert output.global_columns == {"rlnTomoZRot": pytest.approx(85.0)}
    assert [(t["name"], t["status"], t["reason"]) for t in output.tilts] == [
        ("a", "excluded", "AreTomo took it for a dark image"),
        ("b", "excluded", "the tool left it out"),
        ("c", "aligned", None),
    ]
    assert output.warnings == [
        "tilt image a (+0.0 deg): excluded: AreTomo took it for a dark image",
        "tilt image b (+3.0 deg): excluded: the tool left it out",
    ]
    assert output.metrics == {
        "tilts": 1,
        "tilts_total": 3,
        "alignment_method": "AreTomo2",
        "alignment_residual_px": 1.5,
        "tilt_axis_deg": pytest.approx(85.0),
    }


def test_nothing_aligned_is_told_and_no_crash() -> None:
    output = aligned_output([row("a", 0.0)], {}, "AreTomo2", hand=-1.0)
    assert output.rows == []
    assert output.global_columns == {"rlnTomoHand": -1.0}
    assert output.metrics["tilt_axis_deg"] is None


def test_mean_axis_across_the_half_turn() -> None:
    assert mean_axis_deg([179.0, -179.0]) == pytest.approx(180.0)
    assert mean_axis_deg([]) is None


@given(st.floats(-180, 180), st.floats(-180, 180), st.floats(-180, 180))
def test_rotation_is_relion_s(x_tilt: float, y_tilt: float, z_rot: float) -> None:
    ours = TiltAlignment(x_tilt, y_tilt, z_rot, 0, 0).rotation()
    relion = specimen_rotation(RelionTilt(x_tilt, y_tilt, z_rot, 0, 0))
    assert np.array(ours) == pytest.approx(relion, abs=1e-12)


@pytest.mark.parametrize(
    ("centre", "size", "factor", "origin_px"),
    [
        # by hand: the middle of the image, half a stack pixel ahead for AreTomo, minus n // 2
        ("middle", 200, 2.0, 99.5 - 100),
        ("half", 200, 2.0, 99.5 + 1 - 100),
        ("middle", 1023, 6.0, 0.0),
        ("half", 1023, 6.0, 3.0),
        ("middle", 4092, 7.407407, -0.5),
        ("half", 4092, 1.0, 0.0),
    ],
)
def test_where_a_tool_s_centre_lies(
    centre: Centre, size: int, factor: float, origin_px: float
) -> None:
    stack = ImageStack.shrunk((size, size), 1.5, factor, centre=centre)
    assert stack.origin_angstrom == pytest.approx((origin_px * 1.5,) * 2)
    assert stack.pixel_size_angstrom == factor * 1.5


@given(
    shift=st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)),
    image=st.tuples(st.integers(64, 8192), st.integers(64, 8192)),
    factor=st.floats(1, 12),
    centre=st.sampled_from(["middle", "half"]),
)
def test_shifts_come_back(
    shift: tuple[float, float], image: tuple[int, int], factor: float, centre: Centre
) -> None:
    geometry = ImageStack.shrunk(image, 1.35, factor, centre=centre)
    assert geometry.shift_angstrom(geometry.offset_px(shift)) == pytest.approx(shift, abs=1e-6)


@pytest.mark.parametrize(("size", "factor"), [((0, 10), 1.0), ((10, 10), 0.5)])
def test_sizes_that_cannot_be(size: tuple[int, int], factor: float) -> None:
    with pytest.raises(CrboostError, match="sizes must be positive"):
        ImageStack.shrunk(size, 1.0, factor, centre="half")
