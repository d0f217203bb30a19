"""One tilt at a time: what fails, with which reason, and what gain and skipped frames do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crboost.cpu.ctf import Optics
from crboost.cpu.frames import FrameSettings, TiltMovie, process_tilt, used_frames
from crboost.cpu.io import read_mrc, write_mrc, write_tiff_movie
from crboost.errors import FileFormatError

SETTINGS = FrameSettings(
    pixel_size_angstrom=4.0,
    optics=Optics(300, 2.7, 0.1),
    dose_per_tilt_e_per_a2=3.0,
    gain_reference=None,
    gain_flip_x=False,
    gain_flip_y=False,
    gain_transpose=False,
    eer_fractions_per_frame=None,
    motion_bfactor_a2=-500,
    motion_resolution_angstrom=(500, 10),
    ctf_window_px=512,
    ctf_resolution_angstrom=(30, 6),
    ctf_defocus_um=(1.1, 8.0),
    skip_first_frames=0,
    skip_last_frames=0,
    write_halves=True,
)


def tilt(path: Path) -> TiltMovie:
    return TiltMovie("TS_01_001_0.0", path, 0.0, 3.0)


def noise(frames: int = 3) -> np.ndarray:
    return np.random.default_rng(1).poisson(8, (frames, 128, 160)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.tif", None, "missing"),
        ("empty.tif", b"", "empty"),
        ("junk.mrc", b"junk" * 600, "cannot be read|not a readable"),
    ],
)
def test_a_movie_that_cannot_be_read_fails_with_its_name(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    entry = process_tilt(tilt(tmp_path / name), SETTINGS, tmp_path)
    assert entry["status"] == "failed"
    assert name in entry["reason"]
    assert any(word in entry["reason"] for word in reason.split("|"))
    assert entry["shifts_px"] is None and entry["average"] is None
    assert not list(tmp_path.glob("TS_01*"))


def test_a_blank_movie_fails(tmp_path: Path) -> None:
    write_tiff_movie(tmp_path / "blank.tif", np.zeros((3, 128, 128), np.uint8), 4.0)
    entry = process_tilt(tilt(tmp_path / "blank.tif"), SETTINGS, tmp_path)
    assert entry["status"] == "failed"
    assert "blank.tif: every pixel of every frame is 0" in entry["reason"]


def test_an_image_too_small_for_a_ctf_fails_and_says_why(tmp_path: Path) -> None:
    write_tiff_movie(tmp_path / "tiny.tif", noise()[:, :40, :40], 4.0)
    entry = process_tilt(tilt(tmp_path / "tiny.tif"), SETTINGS, tmp_path)
    assert entry["status"] == "failed"
    assert "tiny.tif" in entry["reason"] and "radial bins" in entry["reason"]


def test_images_without_halves(tmp_path: Path) -> None:
    write_tiff_movie(tmp_path / "m.tif", noise(), 4.0)
    entry = process_tilt(tilt(tmp_path / "m.tif"), replace(SETTINGS, write_halves=False), tmp_path)
    assert entry["status"] == "done" and entry["even"] is None and entry["odd"] is None
    assert {path.name for path in tmp_path.glob("TS_*")} == {
        "TS_01_001_0.0.mrc",
        "TS_01_001_0.0_PS.mrc",
    }
    assert entry["size_px"] == [160, 128]


def test_gain_is_applied_turned_as_asked(tmp_path: Path) -> None:
    movie = noise(4)
    write_tiff_movie(tmp_path / "m.tif", movie, 4.0)
    gain = np.random.default_rng(2).uniform(0.5, 2.0, (160, 128)).astype(np.float32)
    write_mrc(tmp_path / "gain.mrc", gain, 4.0)
    turned = replace(
        SETTINGS, gain_reference=tmp_path / "gain.mrc", gain_transpose=True, gain_flip_y=True
    )
    entry = process_tilt(tilt(tmp_path / "m.tif"), turned, tmp_path)
    assert entry["status"] == "done", entry["reason"]
    average = read_mrc(tmp_path / "TS_01_001_0.0.mrc")[0].astype(float)
    expected = movie.sum(axis=0) * gain.T[::-1]
    assert entry["mean_counts_per_px"] == pytest.approx(expected.mean(), rel=1e-3)
    assert np.corrcoef(average.ravel(), expected.ravel())[0, 1] > 0.9
    wrong = replace(SETTINGS, gain_reference=tmp_path / "gain.mrc")
    entry = process_tilt(tilt(tmp_path / "m.tif"), wrong, tmp_path)
    assert entry["status"] == "failed" and "gain reference 128 x 160" in entry["reason"]


def test_skipped_frames(tmp_path: Path) -> None:
    frames = np.arange(6)[:, None, None] * np.ones((1, 2, 2))
    assert used_frames(frames, 1, 2, Path("m"))[:, 0, 0].tolist() == [1, 2, 3]
    assert len(used_frames(frames, 0, 0, Path("m"))) == 6
    with pytest.raises(FileFormatError, match=r"m: has 6 frames; .* leave none"):
        used_frames(frames, 4, 2, Path("m"))
    with pytest.raises(FileFormatError, match="leave none"):
        used_frames(frames, 2, 9, Path("m"))
    write_tiff_movie(tmp_path / "m.tif", noise(5), 4.0)
    skipping = replace(SETTINGS, skip_first_frames=1, skip_last_frames=1)
    entry = process_tilt(tilt(tmp_path / "m.tif"), skipping, tmp_path)
    assert entry["frame_count"] == 5 and len(entry["shifts_px"]) == 3
    assert entry["mean_counts_per_px"] == pytest.approx(24, abs=0.5)
