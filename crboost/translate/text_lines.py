"""Text files of numbers, one record a line: read with the line in every error."""

from __future__ import annotations

import math
from pathlib import Path

from crboost.errors import FileFormatError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without line ends of any system.

    Raises:
        FileFormatError: the file is missing, cannot be read, or is not text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise FileFormatError(path, "no such file") from error
    except OSError as error:
        raise FileFormatError(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(path, f"not a text file: byte {error.start} is not UTF-8") from error
    if "\0" in text:
        raise FileFormatError(path, "not a text file: it holds zero bytes")
    return text.splitlines()


def number(path: Path, line: int, what: str, text: str) -> float:
    """A finite number of a line.

    Raises:
        FileFormatError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FileFormatError(path, f"{what} is not a number: {text!r}", line=line)
    return value


def whole(path: Path, line: int, what: str, text: str) -> int:
    """A whole number of a line.

    Raises:
        FileFormatError: it is none.
    """
    try:
        return int(text)
    except ValueError as error:
        raise FileFormatError(path, f"{what} is not a whole number: {text!r}", line=line) from error
