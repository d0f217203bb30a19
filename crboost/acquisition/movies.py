"""Movies on disk: which there are, what they are, and which tilt each belongs to.

Only headers are read. A microscope may still be writing a movie, so a file that is empty,
too short for its header or unreadable is described, with its problem, and raises nothing.
"""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from crboost.errors import ProjectError

MovieFormat = Literal["EER", "TIFF", "MRC"]

MOVIE_SUFFIXES = (".eer", ".tif", ".tiff", ".mrc", ".mrcs")

MRC_HEADER_BYTES = 1024
# Bits per pixel of each MRC mode, https://www.ccpem.ac.uk/mrc_format/mrc2014.php and IMOD's 101.
_MRC_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, 101: 4}
_LARGEST_SIDE_PX = 100_000

# The compressions of EER: 7 and 8 bits per event, and Falcon 4i's.
_EER_COMPRESSIONS = (65000, 65001, 65002)
_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True, slots=True)
class MovieFile:
    """A movie as its header tells it.

    Args:
        path: the file.
        format: None if it is no movie of a known kind.
        size_bytes: its length.
        width_px, height_px, frame_count: None where the header cannot be read; `frame_count`
            also where it was not asked for.
        problem: why the file cannot be used, or None.
    """

    path: Path
    format: MovieFormat | None
    size_bytes: int
    width_px: int | None = None
    height_px: int | None = None
    frame_count: int | None = None
    problem: str | None = None


def find_movies(patterns: Iterable[str | Path]) -> list[Path]:
    """The movies that patterns, directories and files name, sorted, each once.

    A directory means the movies directly in it; `**` in a pattern descends. Hidden files, and
    files that do not end in a movie's extension (in any case), are left out.
    """
    found: set[Path] = set()
    for pattern in patterns:
        candidates: Iterable[Path]
        if Path(pattern).is_dir():
            candidates = Path(pattern).iterdir()
        elif Path(pattern).exists():  # also a file with [brackets] in its name
            candidates = [Path(pattern)]
        else:
            # Path.glob takes no absolute patterns.
            names = glob.glob(str(pattern), recursive=True)  # noqa: PTH207
            candidates = [Path(name) for name in names]
        found.update(path for path in candidates if _is_movie_name(path.name) and path.is_file())
    return sorted(found)


def inspect_movie(path: Path, *, count_frames: bool = True) -> MovieFile:
    """Read a movie's header.

    The kind is decided by the content; EER, which is a TIFF, also by the extension.

    Args:
        path: the file.
        count_frames: also count the frames of a TIFF or EER, which takes one small read per
            frame, and see whether the last frame is whole. An MRC header tells both anyway.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            return MovieFile(path, None, 0, problem="the file is empty")
        start = stream.read(MRC_HEADER_BYTES)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _inspect_tiff(stream, path, size, count_frames)
        return _inspect_mrc(start, path, size)


class MovieIndex:
    """Finds movies by the name that an mdoc gives them.

    Args:
        paths: the movies.

    Raises:
        ProjectError: two different files have the same name, so that a name cannot say which
            is meant. Links to the same file are one file.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_name: dict[str, Path] = {}
        for path in paths:
            known = self._by_name.setdefault(path.name, path)
            if known != path and not _same_file(known, path):
                raise ProjectError(
                    f"two different movies have the name {path.name}: {known} and {path}",
                    hint="give movies from one session at a time, or rename one of them",
                )
        self._folded: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for name, path in self._by_name.items():
            self._folded.setdefault(name.casefold(), []).append(path)
            self._by_stem.setdefault(_stem(name).casefold(), []).append(path)

    @property
    def paths(self) -> list[Path]:
        """All movies, in the order given."""
        return list(self._by_name.values())

    def find(self, movie_name: str) -> Path | None:
        """The movie called `movie_name`, or None.

        The name as it is wins, then the one that differs only in upper and lower case, then the
        only one with another movie extension (frames may be compressed after acquisition).

        Raises:
            ProjectError: several movies would fit equally well.
        """
        if movie_name in self._by_name:
            return self._by_name[movie_name]
        for candidates in (
            self._folded.get(movie_name.casefold(), []),
            self._by_stem.get(_stem(movie_name).casefold(), []),
        ):
            if len(candidates) > 1:
                names = " and ".join(str(path) for path in candidates)
                raise ProjectError(
                    f"movie {movie_name} of the mdoc may be {names}",
                    hint="leave out the movies that are not meant",
                )
            if candidates:
                return candidates[0]
        return None


def _is_movie_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(MOVIE_SUFFIXES)


def _stem(name: str) -> str:
    for suffix in MOVIE_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _inspect_mrc(start: bytes, path: Path, size: int) -> MovieFile:
    header = parse_mrc_header(start)
    if header is None:
        named_mrc = path.name.lower().endswith((".mrc", ".mrcs"))
        if named_mrc and size < MRC_HEADER_BYTES:
            return MovieFile(path, "MRC", size, problem=f"truncated: {size} bytes, no MRC header")
        return MovieFile(path, None, size, problem="neither MRC, TIFF nor EER by its content")
    width, height, frames, expected = header
    problem = None
    if size < expected:
        problem = f"truncated: {size} bytes, the header implies {expected}"
    return MovieFile(path, "MRC", size, width, height, frames, problem)


def parse_mrc_header(start: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, sections and the length of the file in bytes, or None if it is no MRC.

    Args:
        start: the first 1024 bytes. Byte order is told by which one gives a sensible header;
            old writers leave out the `MAP ` mark.
    """
    if len(start) < MRC_HEADER_BYTES:
        return None
    for order in "<>":
        width, height, sections, mode = struct.unpack(f"{order}4i", start[:16])
        (extended,) = struct.unpack(f"{order}i", start[92:96])
        sensible = all(0 < side <= _LARGEST_SIDE_PX for side in (width, height, sections))
        if sensible and mode in _MRC_BITS and extended >= 0:
            row_bytes = (width * _MRC_BITS[mode] + 7) // 8
            return (
                width,
                height,
                sections,
                MRC_HEADER_BYTES + extended + (row_bytes * height * sections),
            )
    return None


def _inspect_tiff(stream: BinaryIO, path: Path, size: int, count_frames: bool) -> MovieFile:
    """Follow the chain of frame directories; a broken link means a truncated file."""
    tiff = _Tiff(stream, size)
    eer = path.name.lower().endswith(".eer")
    try:
        at = tiff.first_directory()
        tags, following = tiff.directory(at)
        width, height = tiff.value(tags, _WIDTH), tiff.value(tags, _HEIGHT)
        eer = eer or tiff.value(tags, _COMPRESSION) in _EER_COMPRESSIONS
    except _BrokenTiffError as error:
        return MovieFile(path, "EER" if eer else "TIFF", size, problem=f"truncated: {error}")
    kind: MovieFormat = "EER" if eer else "TIFF"
    frames = 1
    problem = None
    try:
        tiff.check_data(tags)
        seen = {at}
        while count_frames and following:
            if following in seen:
                raise _BrokenTiffError("its frames form a circle")
            seen.add(following)
            tags, following = tiff.directory(following)
            # EER keeps a gain or a thumbnail of another size at the end, with other pixels.
            if (tiff.value(tags, _WIDTH), tiff.value(tags, _HEIGHT)) == (width, height):
                frames += 1
            tiff.check_data(tags)
    except _BrokenTiffError as error:
        problem = f"truncated after {frames} frames: {error}"
    counted = frames if count_frames else None
    return MovieFile(path, kind, size, width, height, counted, problem)


class _BrokenTiffError(Exception):
    """A TIFF refers to something behind its end."""


class _Tiff:
    """The few things that a look at a TIFF needs; classic and BigTIFF, both byte orders."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        mark = self._bytes(0, 4)
        self._order = "<" if mark[:2] == b"II" else ">"
        self._big = b"+" in mark

    def first_directory(self) -> int:
        return self._unpack("Q", 8) if self._big else self._unpack("I", 4)

    def directory(self, at: int) -> tuple[dict[int, tuple[int, int, bytes]], int]:
        """The tags of one frame as tag -> (type, count, value field), and the next directory."""
        head, entry, pointer = (8, 20, "Q") if self._big else (2, 12, "I")
        count = self._unpack("Q" if self._big else "H", at)
        if count > 4096:
            raise _BrokenTiffError(f"no frame directory at byte {at}")
        raw = self._bytes(at + head, entry * count)
        tags: dict[int, tuple[int, int, bytes]] = {}
        layout = f"{self._order}HH{'Q' if self._big else 'I'}"
        for start in range(0, len(raw), entry):
            fields = raw[start : start + entry]
            used = struct.calcsize(layout)
            tag, kind, values = struct.unpack(layout, fields[:used])
            tags[tag] = (kind, values, fields[used:])
        return tags, self._unpack(pointer, at + head + entry * count)

    def values(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int) -> tuple[int, ...]:
        """The whole numbers of a tag; empty if it is absent or of another type."""
        kind, count, field = tags.get(tag, (0, 0, b""))
        if kind not in _TIFF_TYPES or count == 0:
            return ()
        layout = f"{self._order}{count}{_TIFF_TYPES[kind]}"
        length = struct.calcsize(layout)
        if length > len(field):
            field = self._bytes(struct.unpack(f"{self._order}{_pointer(field)}", field)[0], length)
        return struct.unpack(layout, field[:length])

    def value(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int) -> int | None:
        values = self.values(tags, tag)
        return values[0] if values else None

    def check_data(self, tags: Mapping[int, tuple[int, int, bytes]]) -> None:
        """Raise if the frame's pixels would reach behind the end of the file."""
        for offsets, lengths in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES)):
            pairs = zip(self.values(tags, offsets), self.values(tags, lengths), strict=False)
            end = max((offset + length for offset, length in pairs), default=0)
            if end > self._size:
                raise _BrokenTiffError(f"{self._size} bytes, a frame ends at byte {end}")

    def _unpack(self, code: str, at: int) -> int:
        length = struct.calcsize(code)
        value: int = struct.unpack(self._order + code, self._bytes(at, length))[0]
        return value

    def _bytes(self, at: int, length: int) -> bytes:
        if at + length > self._size:
            raise _BrokenTiffError(f"{self._size} bytes, something refers to byte {at + length}")
        self._stream.seek(at)
        return self._stream.read(length)


def _pointer(field: bytes) -> str:
    return "Q" if len(field) == 8 else "I"


def common_size(movies: Sequence[MovieFile]) -> tuple[int, int] | None:
    """Width and height of most of the movies, or None if no header tells."""
    counts: dict[tuple[int, int], int] = {}
    for movie in movies:
        if movie.width_px and movie.height_px:
            size = (movie.width_px, movie.height_px)
            counts[size] = counts.get(size, 0) + 1
    return max(counts, key=lambda size: counts[size]) if counts else None
