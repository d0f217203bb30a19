"""Movies, gains and MRC files through the real libraries, broken ones included."""

from __future__ import annotations

import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from crboost.cpu.io import (
    apply_gain,
    eer_gain,
    read_gain,
    read_movie,
    read_mrc,
    write_mrc,
    write_tiff_movie,
)
from crboost.errors import FileFormatError


@pytest.fixture
def movie() -> np.ndarray:
    return np.random.default_rng(5).poisson(6, (4, 40, 56)).astype(np.uint8)


def test_tiff_round_trip_and_row_order(tmp_path: Path, movie: np.ndarray) -> None:
    path = tmp_path / "movie.tif"
    write_tiff_movie(path, movie, 2.0)
    assert np.array_equal(read_movie(path), movie)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages.first.compression.name == "LZW"
    # Outside this package the top row comes first.
    assert np.array_equal(tifffile.imread(path)[0, 0], movie[0, -1])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32, np.float16])
def test_mrc_movies_of_every_usual_mode(
    tmp_path: Path, movie: np.ndarray, dtype: type[np.generic]
) -> None:
    path = tmp_path / "movie.mrc"
    write_mrc(path, movie.astype(dtype), 1.35)
    if dtype is np.float16:  # stored as float32 unless half precision is asked for
        assert read_movie(path).dtype == np.float32
    else:
        assert read_movie(path).dtype == dtype
    assert np.array_equal(read_movie(path), movie)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        assert float(mrc.voxel_size.x) == pytest.approx(1.35)
    assert mrcfile.validate(path)


def test_half_precision_is_mode_12_where_the_values_fit(tmp_path: Path) -> None:
    image = np.random.default_rng(1).normal(100, 5, (16, 16))
    for name, data, mode in (("small", image, 12), ("large", image * 1000, 2)):
        path = tmp_path / f"{name}.mrc"
        write_mrc(path, data, 3.0, half_precision=True)
        with mrcfile.open(path) as mrc:
            assert int(mrc.header.mode) == mode
            assert np.asarray(mrc.data, float) == pytest.approx(data, rel=1e-3)


def test_a_volume_is_marked_as_one(tmp_path: Path) -> None:
    write_mrc(tmp_path / "v.mrc", np.zeros((3, 4, 5), np.float32), 8.0, is_volume=True)
    with mrcfile.open(tmp_path / "v.mrc") as mrc:
        assert mrc.is_volume()
        assert [float(mrc.voxel_size[axis]) for axis in "xyz"] == pytest.approx([8, 8, 8])


def test_a_single_image_is_one_frame(tmp_path: Path, movie: np.ndarray) -> None:
    write_mrc(tmp_path / "one.mrc", movie[0].astype(np.float32), 1)
    tifffile.imwrite(tmp_path / "one.tif", movie[0])
    assert read_movie(tmp_path / "one.mrc").shape == (1, 40, 56)
    assert np.array_equal(read_movie(tmp_path / "one.tif")[0], movie[0, ::-1])


@pytest.mark.parametrize("suffix", ["tif", "mrc", "eer"])
def test_empty_truncated_and_missing_movies_name_the_file(
    tmp_path: Path, movie: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"TS_01_003_6.0.{suffix}"
    with pytest.raises(FileFormatError, match=r"TS_01_003_6\.0.*missing"):
        read_movie(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"TS_01_003_6\.0.*empty"):
        read_movie(path)
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "tif":
        write_tiff_movie(whole, movie, 1)
    elif suffix == "mrc":
        write_mrc(whole, movie.astype(np.int16), 1)
    else:
        write_eer(whole, [movie[0]] * 3)
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileFormatError, match=r"TS_01_003_6\.0"):
        read_movie(path)
    path.write_bytes(b"this is not a movie at all" * 50)
    with pytest.raises(FileFormatError, match=r"TS_01_003_6\.0"):
        read_movie(path)


def test_unknown_kind_of_movie(tmp_path: Path) -> None:
    (tmp_path / "movie.avi").write_bytes(b"x")
    with pytest.raises(FileFormatError, match=r"\.avi"):
        read_movie(tmp_path / "movie.avi")


def code_electrons(fraction: np.ndarray) -> bytes:
    """Seven bits of distance to the next electron, 127 for "further", then four of sub-pixel."""
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend((value >> bit) & 1 for bit in range(count))

    position = 0
    for electron in np.flatnonzero(fraction):
        distance = int(electron) - position
        while distance >= 127:
            put(127, 7)
            distance -= 127
        put(distance, 7)
        put(0, 4)
        position = int(electron) + 1
    rest = fraction.size - position
    for distance in [127] * (rest // 127) + [rest % 127]:
        put(distance, 7)
    coded = np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()
    return coded + b"\0" * (2 + len(coded) % 2)


def write_eer(path: Path, fractions: list[np.ndarray]) -> None:
    """A minimal EER: a BigTIFF with one directory per fraction, compression 65001."""
    content = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    metadata = b"<metadata></metadata>"
    metadata_at = len(content)
    content += metadata + b"\0" * (len(metadata) % 2)
    for fraction in fractions:
        coded = code_electrons(fraction)
        data_at = len(content)
        content += coded + b"\0" * (len(coded) % 2)
        height, width = fraction.shape
        entries = [
            (256, 4, 1, width),
            (257, 4, 1, height),
            (258, 3, 1, 8),
            (259, 3, 1, 65001),
            (262, 3, 1, 1),
            (273, 16, 1, data_at),
            (277, 3, 1, 1),
            (278, 4, 1, height),
            (279, 16, 1, len(coded)),
            (65001, 7, len(metadata), metadata_at),
        ]
        struct.pack_into("<Q", content, link, len(content))
        content += struct.pack("<Q", len(entries))
        for entry in entries:
            content += struct.pack("<HHQQ", *entry)
        link = len(content)
        content += struct.pack("<Q", 0)
    path.write_bytes(bytes(content))


def test_eer_fractions_are_grouped_and_the_remainder_dropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    fractions = [(rng.random((64, 64)) < 0.05).astype(np.uint8) for _ in range(23)]
    path = tmp_path / "movie.eer"
    write_eer(path, fractions)
    frames = read_movie(path, eer_fractions_per_frame=5)
    assert frames.shape == (4, 64, 64)
    for index in range(4):
        expected = np.sum(fractions[5 * index : 5 * index + 5], axis=0)
        assert np.array_equal(frames[index], expected)
    assert read_movie(path).shape[0] == 11
    with pytest.raises(FileFormatError, match="23 fractions, fewer than the 30"):
        read_movie(path, eer_fractions_per_frame=30)


def test_gain_is_transposed_then_flipped(tmp_path: Path) -> None:
    gain = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_mrc(tmp_path / "gain.mrc", gain, 1)
    assert np.array_equal(read_gain(tmp_path / "gain.mrc"), gain)
    assert np.array_equal(read_gain(tmp_path / "gain.mrc", flip_x=True), gain[:, ::-1])
    assert np.array_equal(read_gain(tmp_path / "gain.mrc", flip_y=True), gain[::-1])
    both = read_gain(tmp_path / "gain.mrc", transpose=True, flip_x=True)
    assert np.array_equal(both, gain.T[:, ::-1])


def test_tiff_gain_has_the_row_order_of_tiff_movies(tmp_path: Path) -> None:
    gain = np.arange(12, dtype=np.float32).reshape(3, 4)
    tifffile.imwrite(tmp_path / "gain.tif", gain[::-1])
    assert np.array_equal(read_gain(tmp_path / "gain.tif"), gain)
    tifffile.imwrite(tmp_path / "camera.gain.tif", gain)
    (tmp_path / "camera.gain.tif").rename(tmp_path / "camera.gain")
    assert np.array_equal(read_gain(tmp_path / "camera.gain"), gain)


def test_gain_of_a_wrong_size_says_both_sizes() -> None:
    with pytest.raises(FileFormatError, match=r"56 x 40 px .*40 x 56"):
        apply_gain(np.ones((2, 40, 56)), np.ones((56, 40)), Path("movie.tif"))
    assert apply_gain(np.full((2, 3, 3), 2), np.full((3, 3), 1.5), Path("m.tif")).max() == 3


def test_an_mrc_gain_for_eer_holds_divisors() -> None:
    gain = np.array([[2.0, 0.0]], np.float32)
    assert np.array_equal(eer_gain(gain, Path("gain.mrc")), [[0.5, 0.0]])
    assert np.array_equal(eer_gain(gain, Path("x.gain")), gain)


def test_broken_gain_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"gain\.mrc: the gain reference is missing"):
        read_gain(tmp_path / "gain.mrc")
    (tmp_path / "gain.tif").write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match=r"gain\.tif: the gain reference cannot be read"):
        read_gain(tmp_path / "gain.tif")
    write_mrc(tmp_path / "stack.mrc", np.zeros((2, 3, 4), np.float32), 1)
    with pytest.raises(FileFormatError, match="one image"):
        read_gain(tmp_path / "stack.mrc")


def test_missing_and_truncated_mrc(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"x\.mrc: the file is missing"):
        read_mrc(tmp_path / "x.mrc")
    write_mrc(tmp_path / "y.mrc", np.zeros((8, 8), np.float32), 1)
    content = (tmp_path / "y.mrc").read_bytes()
    (tmp_path / "y.mrc").write_bytes(content[:-40])
    with pytest.raises(FileFormatError, match=r"y\.mrc: not a readable MRC"):
        read_mrc(tmp_path / "y.mrc")
