"""Movie headers (against the writers tifffile and mrcfile), truncation, matching, gain."""

from __future__ import annotations

import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.acquisition.gain import GainReference, fit_gain, read_gain
from crboost.acquisition.movies import (
    MovieIndex,
    find_movies,
    inspect_movie,
    parse_mrc_header,
)
from crboost.errors import FileFormatError, ProjectError


def write_mrc(path: Path, shape=(5, 48, 64), dtype=np.int8) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.zeros(shape, dtype))
    return path


def write_tiff(path: Path, shape=(5, 48, 64), **options) -> Path:
    pixels = np.random.default_rng(1).poisson(1.0, shape).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None, **options)
    return path


def write_eer(path: Path, frames: int = 7, side: int = 64) -> Path:
    """A BigTIFF with EER's compression tag, one frame per page; its pixels are not events."""
    write_tiff(path, (frames, side, side), bigtiff=True)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            tag = page.tags["Compression"]
            data[tag.valueoffset : tag.valueoffset + 2] = struct.pack("<H", 65001)
    path.write_bytes(data)
    return path


class TestHeaders:
    @pytest.mark.parametrize(
        "dtype", [np.int8, np.int16, np.uint16, np.float32, np.float16, np.complex64]
    )
    def test_mrc_of_every_mode(self, tmp_path, dtype):
        movie = inspect_movie(write_mrc(tmp_path / "a.mrc", dtype=dtype))
        assert (movie.format, movie.width_px, movie.height_px) == ("MRC", 64, 48)
        assert movie.frame_count == 5
        assert movie.problem is None

    def test_mrc_with_an_extended_header(self, tmp_path):
        with mrcfile.new(tmp_path / "a.mrc") as file:
            file.set_data(np.zeros((2, 8, 8), np.float32))
            file.set_extended_header(np.zeros(640, "V1"))
        movie = inspect_movie(tmp_path / "a.mrc")
        assert movie.problem is None
        data = (tmp_path / "a.mrc").read_bytes()
        (tmp_path / "b.mrc").write_bytes(data[:-1])
        assert "truncated" in inspect_movie(tmp_path / "b.mrc").problem

    def test_mrc_of_the_other_byte_order_and_without_map_mark(self):
        header = struct.pack(">4i", 64, 48, 5, 1).ljust(1024, b"\0")
        assert parse_mrc_header(header) == (64, 48, 5, 1024 + 64 * 48 * 5 * 2)

    def test_four_bit_mrc_rounds_up_rows(self):
        header = struct.pack("<4i", 5, 4, 3, 101).ljust(1024, b"\0")
        assert parse_mrc_header(header) == (5, 4, 3, 1024 + 3 * 4 * 3)

    @pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"bigtiff": True}])
    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("strips", [{}, {"rowsperstrip": 5}, {"tile": (16, 16)}])
    def test_tiff(self, tmp_path, options, byteorder, strips):
        path = write_tiff(tmp_path / "a.tif", **options, **strips, byteorder=byteorder)
        movie = inspect_movie(path)
        assert (movie.format, movie.width_px, movie.height_px) == ("TIFF", 64, 48)
        assert movie.frame_count == 5
        assert movie.problem is None

    def test_eer(self, tmp_path):
        movie = inspect_movie(write_eer(tmp_path / "a.eer"))
        assert (movie.format, movie.frame_count) == ("EER", 7)
        assert (movie.width_px, movie.height_px) == (64, 64)

    def test_content_decides_not_the_extension(self, tmp_path):
        assert inspect_movie(write_tiff(tmp_path / "a.mrc")).format == "TIFF"
        assert inspect_movie(write_eer(tmp_path / "b.tif")).format == "EER"
        movie = write_mrc(tmp_path / "c.mrc").rename(tmp_path / "c.tif")
        assert inspect_movie(movie).format == "MRC"

    def test_frames_are_counted_only_where_asked(self, tmp_path):
        movie = inspect_movie(write_tiff(tmp_path / "a.tif"), count_frames=False)
        assert movie.frame_count is None
        assert movie.width_px == 64

    def test_a_circle_of_frames_ends(self, tmp_path):
        path = write_tiff(tmp_path / "a.tif", (1, 8, 8))
        data = bytearray(path.read_bytes())
        (first,) = struct.unpack("<I", data[4:8])
        (count,) = struct.unpack("<H", data[first : first + 2])
        second = len(data)
        data += data[first : first + 2 + 12 * count] + struct.pack("<I", second)
        at = first + 2 + 12 * count
        data[at : at + 4] = struct.pack("<I", second)
        path.write_bytes(data)
        assert "circle" in inspect_movie(path).problem


class TestDamage:
    def test_empty_file(self, tmp_path):
        path = tmp_path / "a.eer"
        path.touch()
        movie = inspect_movie(path)
        assert movie.problem == "the file is empty"
        assert movie.size_bytes == 0

    def test_mrc_shorter_than_its_header_says(self, tmp_path):
        path = write_mrc(tmp_path / "a.mrc")
        path.write_bytes(path.read_bytes()[:5000])
        assert (
            inspect_movie(path).problem
            == f"truncated: 5000 bytes, the header implies {1024 + 5 * 48 * 64}"
        )

    def test_mrc_shorter_than_a_header(self, tmp_path):
        path = tmp_path / "a.mrc"
        path.write_bytes(b"\0" * 100)
        assert "no MRC header" in inspect_movie(path).problem

    def test_something_else(self, tmp_path):
        path = tmp_path / "a.mrc"
        path.write_bytes(b"<html>" * 500)
        movie = inspect_movie(path)
        assert movie.format is None
        assert "neither" in movie.problem

    @pytest.mark.parametrize("options", [{"compression": "lzw"}, {"bigtiff": True}])
    def test_tiff_cut_anywhere_is_noticed(self, tmp_path, options):
        data = write_tiff(tmp_path / "a.tif", (3, 16, 16), **options).read_bytes()
        whole = inspect_movie(tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            end = max(
                offset + count
                for page in tiff.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            )
        assert whole.problem is None
        for length in range(end):  # behind the last pixel there may be padding
            (tmp_path / "b.tif").write_bytes(data[:length])
            assert inspect_movie(tmp_path / "b.tif").problem is not None, length

    @given(st.binary(max_size=3000))
    @settings(max_examples=150, deadline=None)
    def test_any_bytes_are_described(self, tmp_path_factory, data):
        path = tmp_path_factory.getbasetemp() / "any.mrc"
        for start in (b"", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10"):
            path.write_bytes(start + data)
            assert inspect_movie(path).size_bytes == len(start + data)


class TestFinding:
    def test_patterns_directories_and_files(self, tmp_path):
        names = ["a.eer", "b.tif", "c.tiff", "d.mrc", "e.mrcs", "F.TIF", "[g]_1.tif"]
        for name in [*names, ".hidden.tif", "a.mdoc", "gain.dm4", "a.tif.tmp"]:
            (tmp_path / name).touch()
        (tmp_path / "deep.tif").mkdir()
        (tmp_path / "deep.tif" / "h.tif").touch()

        def found(*patterns):
            return sorted(path.name for path in find_movies(patterns))

        assert found(tmp_path) == sorted(names)
        assert found(f"{tmp_path}/*") == sorted(names)
        assert found(f"{tmp_path}/*.tif") == ["[g]_1.tif", "b.tif"]
        assert found(f"{tmp_path}/**/*.tif") == ["[g]_1.tif", "b.tif", "h.tif"]
        assert found(f"{tmp_path}/[g]_1.tif") == ["[g]_1.tif"]
        assert found(f"{tmp_path}/*.mdoc", f"{tmp_path}/none*") == []
        assert found(f"{tmp_path}/*.tif", tmp_path / "b.tif") == ["[g]_1.tif", "b.tif"]

    def test_a_dead_link_is_no_movie(self, tmp_path):
        (tmp_path / "a.tif").symlink_to(tmp_path / "nowhere.tif")
        assert find_movies([tmp_path]) == []


class TestMatching:
    def test_exact_name_wins_over_other_case(self, tmp_path):
        paths = [tmp_path / "A.tif", tmp_path / "a.tif"]
        index = MovieIndex(paths)
        assert index.find("a.tif") == paths[1]
        assert index.find("A.tif") == paths[0]

    def test_other_case(self, tmp_path):
        assert MovieIndex([tmp_path / "TS_1.TIF"]).find("ts_1.tif") == tmp_path / "TS_1.TIF"

    def test_other_movie_extension(self, tmp_path):
        index = MovieIndex([tmp_path / "TS_1_0.0.tif"])
        assert index.find("TS_1_0.0.mrc") == tmp_path / "TS_1_0.0.tif"
        assert index.find("TS_1_0.mrc") is None

    def test_no_such_movie(self, tmp_path):
        assert MovieIndex([tmp_path / "a.tif"]).find("b.tif") is None

    def test_ambiguity_is_an_error_that_names_both(self, tmp_path):
        index = MovieIndex([tmp_path / "A.tif", tmp_path / "a.TIF"])
        with pytest.raises(ProjectError, match=r"A\.tif and .*a\.TIF"):
            index.find("a.tif")
        index = MovieIndex([tmp_path / "a.tif", tmp_path / "a.eer"])
        with pytest.raises(ProjectError, match=r"a\.tif and .*a\.eer"):
            index.find("a.mrc")

    def test_two_movies_of_one_name_are_an_error_that_names_both(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.tif").write_text(name)
        with pytest.raises(ProjectError, match=r"one/a\.tif and .*two/a\.tif"):
            MovieIndex([tmp_path / "one" / "a.tif", tmp_path / "two" / "a.tif"])

    def test_a_link_to_the_same_movie_is_the_same_movie(self, tmp_path):
        (tmp_path / "links").mkdir()
        (tmp_path / "a.tif").write_text("x")
        (tmp_path / "links" / "a.tif").symlink_to(tmp_path / "a.tif")
        index = MovieIndex([tmp_path / "a.tif", tmp_path / "links" / "a.tif"])
        assert index.paths == [tmp_path / "a.tif"]


class TestGain:
    def test_mrc_tiff_and_falcon_gain(self, tmp_path):
        mrc = write_mrc(tmp_path / "gain.mrc", (48, 64), np.float32)
        tiff = write_tiff(tmp_path / "gain.gain", (48, 64))
        assert read_gain(mrc) == GainReference(mrc, "MRC", 64, 48)
        assert read_gain(tiff) == GainReference(tiff, "TIFF", 64, 48)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("none.mrc", "no such"),
            ("stack.mrc", "this has 5"),
            ("text.mrc", "not a gain"),
            ("a.dm4", "DigitalMicrograph"),
        ],
    )
    def test_what_is_none(self, tmp_path, name, message):
        write_mrc(tmp_path / "stack.mrc")
        (tmp_path / "text.mrc").write_text("not a gain reference " * 100)
        (tmp_path / "a.dm4").touch()
        with pytest.raises(FileFormatError, match=message):
            read_gain(tmp_path / name)

    @pytest.mark.parametrize(
        ("gain", "fits", "transpose", "message"),
        [
            ((5760, 4092), True, False, None),
            ((4092, 5760), True, True, "transpose"),
            ((11520, 8184), False, False, "binned by 2"),
            ((8184, 11520), False, True, "binned by 2"),
            ((2880, 2046), False, False, "movies are in super resolution"),
            ((4096, 4096), False, False, "does not belong"),
        ],
    )
    def test_fit(self, gain, fits, transpose, message):
        found = fit_gain(GainReference(Path("g.mrc"), "MRC", *gain), (5760, 4092))
        assert (found.fits, found.transpose) == (fits, transpose)
        assert found.message is None if message is None else message in found.message
