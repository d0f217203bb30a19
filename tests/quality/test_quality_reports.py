"""The summary pictures, drawn from real files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mrcfile
import numpy as np
import pytest
from PIL import Image

from crboost.errors import FileFormatError
from crboost.quality import write_reports
from crboost.quality.pictures import (
    central_slice,
    contrast_limits,
    draw,
    limits_of,
    remarks,
    scale_bar_nm,
)
from crboost.quality.series import SeriesReport, TiltReport

if TYPE_CHECKING:
    from conftest import Files


def pixels(picture: Path) -> np.ndarray:
    """Grey values, [row, column]."""
    with Image.open(picture) as image:
        return np.asarray(image.convert("L"), np.float32)


def test_one_picture_per_series(project: Files) -> None:
    pictures = write_reports(project)
    assert pictures == [project.directory / f"Reports/TS_0{i}.png" for i in (1, 2)]
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.size == (1200, 800)
            assert image.format == "PNG"


def test_the_tomogram_is_in_the_picture(project: Files) -> None:
    whole, stopped = (pixels(picture) for picture in write_reports(project))
    box = np.s_[130:510, 50:560]  # inside the left half
    assert whole[box].std() > 20  # beads and noise
    assert stopped[box].std() < 10  # an empty frame with a word in it


def test_pictures_that_are_up_to_date_are_not_written_again(project: Files) -> None:
    def state() -> list[tuple[int, int]]:
        return [(p.stat().st_mtime_ns, p.stat().st_ino) for p in write_reports(project)]

    first = state()
    assert state() == first
    project.write("tsAlignment", "TS_02", status="failed", reason="another reason")
    second = state()
    assert second[0] == first[0]
    assert second[1] != first[1]


def test_a_picture_of_a_job_that_is_not_the_newest_any_more_is_redrawn(project: Files) -> None:
    """Files that are older than the picture can still be other files."""
    project.add("tsReconstruct", "External/job005/")
    project.write("tsReconstruct", "TS_01", metrics={"tilts": 9})
    without = write_reports(project)[0].read_bytes()
    project.past.pop()
    assert write_reports(project)[0].read_bytes() != without


def test_a_tomogram_that_cannot_be_read_costs_only_the_slice(project: Files) -> None:
    tomogram = project.directory / "External/job004/cpu/TS_01/TS_01.mrc"
    tomogram.write_bytes(b"not an MRC file")
    assert pixels(write_reports(project)[0])[200:400, 100:500].std() < 10
    tomogram.unlink()
    assert len(write_reports(project)) == 2


def test_a_series_after_the_import_alone_has_a_picture(project: Files) -> None:
    del project.past[1:]
    assert [picture.name for picture in write_reports(project)] == ["TS_01.png", "TS_02.png"]


def test_no_jobs_no_pictures(project: Files) -> None:
    project.past.clear()
    assert write_reports(project) == []
    assert not (project.directory / "Reports").exists()


def test_names_with_underscores_dots_and_dollars_are_drawn_as_they_are() -> None:
    report = SeriesReport("Pos_1$x_{2}.b", warnings=("movie a$b_$c is missing",), problem="50 % $")
    assert draw(report, None)[:4] == b"\x89PNG"


def test_drawing_needs_no_display_and_chooses_no_backend(tmp_path: Path) -> None:
    code = (
        "import sys; from crboost.quality.pictures import draw;"
        "from crboost.quality.series import SeriesReport;"
        "draw(SeriesReport('TS_01'), None);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)


def test_a_slice_is_the_mean_of_ten_nanometres_in_the_middle(tmp_path: Path) -> None:
    volume = np.arange(20, dtype=np.float32)[:, None, None] * np.ones((1, 4, 6), np.float32)
    path = tmp_path / "volume.mrc"
    with mrcfile.new(path, volume) as file:
        file.voxel_size = 25.0
    middle = central_slice([path])
    assert middle.image.shape == (4, 6)
    assert np.allclose(middle.image, 9.5)  # slices 8 to 11
    assert (middle.pixel_size_angstrom, middle.thickness_nm) == (25.0, 10.0)


def test_a_volume_without_a_pixel_size_has_no_scale(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    with mrcfile.new(path, np.zeros((5, 4, 4), np.float32)) as file:
        file.voxel_size = 0.0
    middle = central_slice([path])
    assert (middle.pixel_size_angstrom, middle.thickness_nm) == (None, None)


@pytest.mark.parametrize("content", [b"", b"x" * 2000])
def test_what_is_no_volume_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mrc"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"broken\.mrc"):
        central_slice([path])


def test_an_image_is_no_tomogram(tmp_path: Path) -> None:
    path = tmp_path / "image.mrc"
    with mrcfile.new(path, np.zeros((4, 4), np.float32)):
        pass
    with pytest.raises(FileFormatError, match="not an MRC volume"):
        central_slice([path])


def test_contrast_ignores_a_few_extreme_and_all_undefined_values() -> None:
    image = np.random.default_rng(0).normal(0, 1, (100, 100)).astype(np.float32)
    image[0, 0], image[0, 1] = 1e6, np.nan
    low, high = contrast_limits(image)
    assert (low, high) == pytest.approx((-5, 5), abs=0.1)


@pytest.mark.parametrize("value", [0.0, np.nan, 7.0])
def test_a_flat_image_has_a_range(value: float) -> None:
    low, high = contrast_limits(np.full((4, 4), value, np.float32))
    assert low < high


def test_a_tilt_that_is_not_used_does_not_flatten_the_others() -> None:
    used = [(TiltReport(f"t{i}", float(i), i), 3.0 + 0.1 * i) for i in range(5)]
    dead = (TiltReport("dead", 9.0, 9, state="excluded"), 626.0)
    assert limits_of([*used, dead], at_least=0.2) == limits_of(used, at_least=0.2)
    assert limits_of(used, at_least=0.2) == pytest.approx((2.96, 3.44))
    assert limits_of(used[:1], at_least=0.2) == pytest.approx((2.9, 3.1))
    assert limits_of([dead], at_least=1.0) == (625.5, 626.5)
    assert limits_of([], at_least=1.0) == (-0.5, 0.5)


@pytest.mark.parametrize(
    ("width", "length"), [(205.0, 20.0), (819.0, 100.0), (1000.0, 200.0), (3.0, 0.5)]
)
def test_scale_bars_are_round(width: float, length: float) -> None:
    assert scale_bar_nm(width) == pytest.approx(length)


def test_remarks_say_how_many_did_not_fit() -> None:
    report = SeriesReport("TS", warnings=tuple(f"warning {i}" for i in range(9)), problem="bad")
    lines = remarks(report, lines=5)
    assert lines[0] == "• bad"
    assert len(lines) == 5
    assert lines[-1] == "  and 6 more: see crboost status"
    assert remarks(SeriesReport("TS", warnings=("one",))) == ["• one"]


def test_the_png_says_what_it_is_made_from() -> None:
    with Image.open(io.BytesIO(draw(SeriesReport("TS_01"), None, source="abc"))) as image:
        assert image.info["Source"] == "abc"
