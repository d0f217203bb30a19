"""Reading movies and gain references, reading and writing MRC images; arrays are [frame, y, x].

Row 0 is the *bottom* of the picture, as in MRC. TIFF stores the top row first, so TIFF frames and
TIFF gain references are flipped on reading, as RELION and IMOD do; EER and `.gain` files are not,
as RELION does (`rwTIFF.h`, `renderEER.h`).
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile

from crboost.cpu.arrays import Floats, Movie
from crboost.errors import FileFormatError

TIFF_SUFFIXES = {".tif", ".tiff"}
MRC_SUFFIXES = {".mrc", ".mrcs", ".st"}
EER_COMPRESSIONS = {65000, 65001, 65002}
#: An EER movie without a grouping is summed into this many frames.
DEFAULT_EER_FRAMES = 10
#: Half precision (MRC mode 12) keeps 3 digits up to here.
HALF_PRECISION_LIMIT = 30000.0


def read_movie(path: Path, *, eer_fractions_per_frame: int | None = None) -> Movie:
    """Read a movie; a single image becomes one frame.

    Args:
        path: MRC, TIFF (LZW and others that imagecodecs knows) or EER, told by the suffix.
        eer_fractions_per_frame: EER only: how many of the camera's fractions make one frame; the
            remainder is dropped, as RELION does. By default as many as give ten frames.

    Returns:
        [frame, y, x], with the file's number type (EER: uint16 counts).

    Raises:
        FileFormatError: the file is missing, empty, truncated or not what its name says.
    """
    if not path.exists():
        raise FileFormatError(path, "the movie is missing")
    if path.stat().st_size == 0:
        raise FileFormatError(path, "the movie is empty (0 bytes)")
    suffix = path.suffix.lower()
    try:
        if suffix == ".eer":
            frames = _read_eer(path, eer_fractions_per_frame)
        elif suffix in TIFF_SUFFIXES:
            frames = _read_tiff(path)
        elif suffix in MRC_SUFFIXES:
            frames = read_mrc(path)[0]
        else:
            raise FileFormatError(
                path, f"not a known kind of movie ({suffix!r})", hint="use .eer, .tif or .mrc"
            )
    except FileFormatError:
        raise
    except Exception as error:  # the decoders raise whatever they like on a broken file
        raise FileFormatError(path, f"the movie cannot be read: {error}") from error
    if frames.ndim == 2:
        frames = frames[None]
    if frames.ndim != 3 or frames.size == 0:
        raise FileFormatError(path, f"not a stack of images but of shape {frames.shape}")
    return frames


def _check_directories(path: Path) -> None:
    """Follow a TIFF's chain of directories to its end.

    tifffile takes a chain that leads out of the file for its end, so that a movie that is still
    being copied looks like a shorter one.

    Raises:
        FileFormatError: the chain leads out of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        order = {b"II": "<", b"MM": ">"}.get(stream.read(2))
        if order is None:
            raise FileFormatError(path, "not a TIFF")
        (version,) = struct.unpack(f"{order}H", stream.read(2))
        big = version == 43
        count_format, pointer_format = (
            (order + "Q", order + "Q") if big else (order + "H", order + "I")
        )
        entry_size = 20 if big else 12
        stream.seek(8 if big else 4)
        directories = 0
        while True:
            pointer = stream.read(struct.calcsize(pointer_format))
            if len(pointer) < struct.calcsize(pointer_format):
                break
            (offset,) = struct.unpack(pointer_format, pointer)
            if offset == 0:
                return
            stream.seek(offset)
            count = stream.read(struct.calcsize(count_format))
            if len(count) < struct.calcsize(count_format) or offset >= size:
                break
            stream.seek(struct.unpack(count_format, count)[0] * entry_size, os.SEEK_CUR)
            directories += 1
    raise FileFormatError(path, f"truncated after {directories} frames, or still being written")


def _read_tiff(path: Path) -> Movie:
    _check_directories(path)
    with tifffile.TiffFile(path) as tiff:
        pages = [page.asarray() for page in tiff.pages]
        expected = _frames_promised(tiff)
    if len({page.shape for page in pages}) != 1:
        raise FileFormatError(path, "its frames differ in size")
    if expected is not None and expected > len(pages):
        raise FileFormatError(path, f"truncated: {len(pages)} of {expected} frames")
    stack = np.stack(pages) if pages[0].ndim == 2 else np.concatenate(pages)
    return stack[:, ::-1]


def _frames_promised(tiff: tifffile.TiffFile) -> int | None:
    """How many frames the file says it has, where its writer said so (tifffile's own shape tag)."""
    metadata = tiff.shaped_metadata
    shape = metadata[0].get("shape") if metadata else None
    return int(shape[0]) if shape and len(shape) == 3 else None


def _read_eer(path: Path, fractions_per_frame: int | None) -> Movie:
    _check_directories(path)
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if page.aspage().compression in EER_COMPRESSIONS]
        if not pages:
            raise FileFormatError(path, "no EER frames in it")
        group = fractions_per_frame or max(1, len(pages) // DEFAULT_EER_FRAMES)
        count = len(pages) // group
        if count == 0:
            raise FileFormatError(
                path,
                f"has {len(pages)} fractions, fewer than the {group} that make one frame",
                hint="lower eer_fractions_per_frame",
            )
        shape = pages[0].aspage().shape
        frames = np.zeros((count, *shape), np.uint16)
        for index in range(count):
            for page in pages[index * group : (index + 1) * group]:
                frames[index] += page.asarray()
    return frames


def read_gain(
    path: Path, *, flip_x: bool = False, flip_y: bool = False, transpose: bool = False
) -> Floats:
    """Read a gain reference as factors to *multiply* a frame with; 0 marks a defect.

    Transposed first, then flipped left-right (`flip_x`) and upside down (`flip_y`).

    Raises:
        FileFormatError: the file cannot be read, or is not one image.
    """
    if not path.exists():
        raise FileFormatError(path, "the gain reference is missing")
    suffix = path.suffix.lower()
    try:
        if suffix in MRC_SUFFIXES:
            gain = read_mrc(path)[0]
        elif suffix == ".gain":
            gain = tifffile.imread(path)
        elif suffix in TIFF_SUFFIXES:
            gain = tifffile.imread(path)[::-1]
        else:
            raise FileFormatError(
                path, f"not a known kind of gain reference ({suffix!r})", hint="use .mrc or .tif"
            )
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(path, f"the gain reference cannot be read: {error}") from error
    gain = np.asarray(gain, np.float32).squeeze()
    if gain.ndim != 2:
        raise FileFormatError(path, f"a gain reference is one image, this has shape {gain.shape}")
    if transpose:
        gain = gain.T
    if flip_x:
        gain = gain[:, ::-1]
    if flip_y:
        gain = gain[::-1]
    return np.ascontiguousarray(gain)


def eer_gain(gain: Floats, path: Path) -> Floats:
    """A gain reference for EER as factors: an MRC holds divisors (RELION's convention)."""
    if path.suffix.lower() not in MRC_SUFFIXES:
        return gain
    return np.divide(1.0, gain, out=np.zeros_like(gain), where=gain != 0)


def apply_gain(frames: Movie, gain: Floats, movie: Path) -> Floats:
    """Multiply every frame with the gain reference.

    Raises:
        FileFormatError: movie and gain reference differ in size.
    """
    if frames.shape[1:] != gain.shape:
        raise FileFormatError(
            movie,
            f"is {frames.shape[2]} x {frames.shape[1]} px (x, y), its gain reference "
            f"{gain.shape[1]} x {gain.shape[0]}",
            hint="turn the reference with gain_transpose, or give the one of this camera mode",
        )
    corrected: Floats = frames.astype(np.float32) * gain.astype(np.float32)
    return corrected


def read_mrc(path: Path) -> tuple[Any, float]:
    """Read an MRC image, stack or volume.

    Returns:
        the array as stored, and its pixel size in Angstrom (0 if the header has none).

    Raises:
        FileFormatError: the file is missing, truncated or no MRC.
    """
    try:
        with mrcfile.open(path, permissive=False) as mrc:
            return np.array(mrc.data), float(mrc.voxel_size.x)
    except FileNotFoundError as error:
        raise FileFormatError(path, "the file is missing") from error
    except (ValueError, OSError) as error:
        raise FileFormatError(path, f"not a readable MRC: {error}") from error


def write_mrc(
    path: Path,
    data: Movie,
    pixel_size_angstrom: float,
    *,
    half_precision: bool = False,
    is_volume: bool = False,
) -> None:
    """Write an MRC under a temporary name, then rename it.

    Args:
        path: of the file.
        data: [y, x] or [z, y, x]; floats are stored as float32, integers as they are.
        pixel_size_angstrom: for the header.
        half_precision: store as float16 (mode 12, RELION 5's own default for averages) where the
            values allow it.
        is_volume: mark a 3-D array as a volume rather than a stack of images.
    """
    array = data
    if np.issubdtype(data.dtype, np.floating):
        half = half_precision and float(np.abs(data).max(initial=0)) < HALF_PRECISION_LIMIT
        array = data.astype(np.float16 if half else np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".mrc", dir=path.parent)
    os.close(handle)
    try:
        with mrcfile.new(temporary, data=np.ascontiguousarray(array), overwrite=True) as mrc:
            if array.ndim == 3:
                mrc.set_volume() if is_volume else mrc.set_image_stack()
            mrc.voxel_size = pixel_size_angstrom
        _publish(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_tiff_movie(path: Path, frames: Movie, pixel_size_angstrom: float) -> None:
    """Write a movie as LZW-compressed TIFF, top row first, under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tif", dir=path.parent)
    os.close(handle)
    pixels_per_cm = 1e8 / pixel_size_angstrom
    try:
        tifffile.imwrite(
            temporary,
            frames[:, ::-1],
            compression="lzw",
            photometric="minisblack",
            resolution=(pixels_per_cm, pixels_per_cm),
            resolutionunit="CENTIMETER",
        )
        _publish(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _publish(temporary: str, path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    Path(temporary).chmod(0o666 & ~umask)
    Path(temporary).replace(path)
