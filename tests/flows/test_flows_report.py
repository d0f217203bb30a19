from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crboost.overview import Overview, Row
from flows.tasks.report import (
    PICTURE_WIDTH_PX,
    data_uri,
    pictures_markdown,
    progress_rows,
    rest_markdown,
    table_rows,
)


def test_a_table_has_plain_rounded_values_and_gaps() -> None:
    rows = [
        {"tilt series": "TS_01", "tilts": 41, "defocus_um": 3.04999, "residual_px": None},
        {"tilt series": "TS_02", "tilts": 40, "defocus_um": math.nan, "beads": np.float64(0.5)},
    ]
    assert table_rows(rows) == [
        {"tilt series": "TS_01", "tilts": 41, "defocus_um": 3.05, "residual_px": ""},
        {"tilt series": "TS_02", "tilts": 40, "defocus_um": "", "beads": 0.5},
    ]


def test_numbers_that_are_not_finite_never_reach_json() -> None:
    (row,) = table_rows([{"a": math.inf, "b": -math.inf, "c": np.int64(3), "d": True}])
    assert row == {"a": "inf", "b": "-inf", "c": 3, "d": "yes"}


def test_how_far_each_series_is_has_a_row_as_in_the_terminal() -> None:
    rows = (
        Row("TS_01", "complete 41/41", {"importmovies": "done"}, True),
        Row("TS_02", "", {"importmovies": "-"}, False),
    )
    overview = Overview("demo", Path("/p"), None, None, ("importmovies",), rows, (), None)
    assert progress_rows(overview) == [
        {"tilt series": "TS_01", "microscope": "complete 41/41", "importmovies": "done"},
        {"tilt series": "TS_02", "microscope": "-", "importmovies": "-"},
    ]


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_a_picture_becomes_a_small_jpeg(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "TS_01.png"
    noise = rng.integers(0, 255, (1500, 3000), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    uri = data_uri(path)
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (PICTURE_WIDTH_PX, PICTURE_WIDTH_PX // 2)
    assert len(uri) < 1_000_000


def test_pictures_are_shown_with_their_path_and_the_rest_is_named() -> None:
    shown = pictures_markdown([(Path("/p/report/TS_01.png"), "data:image/jpeg;base64,AA")])
    assert "![TS_01](data:image/jpeg;base64,AA)" in shown
    assert "`/p/report/TS_01.png`" in shown
    assert rest_markdown([]) == ""
    assert "1 more" in rest_markdown([Path("/p/report/TS_09.png")])
