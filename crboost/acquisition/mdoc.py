"""Reading `.mdoc` files: what SerialEM and Tomography 5 write beside their images.

An mdoc is IMOD's "autodoc" text: `key = value` lines, first global ones, then ones in
bracketed sections. Here it is read as it is, order, repetitions and line numbers included;
what the values mean is the business of `crboost.acquisition.tilt_series`.

Format: https://bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crboost.errors import FileFormatError

MdocKind = Literal["tilt series", "single movie", "montage", "images"]

# A tilt series of a thousand images is about a megabyte; anything near this is no mdoc.
LARGEST_MDOC_BYTES = 64 * 1024 * 1024

_SECTION = re.compile(r"^\[\s*(?P<type>[A-Za-z][A-Za-z0-9_]*)\s*=\s*(?P<name>.*?)\s*\]?$")
_TIME_OF_DAY = re.compile(r"\b\d\d:\d\d:\d\d$")
_PLAIN_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
# What C and .NET print for a value that was never measured.
_NOT_FINITE = re.compile(r"^[+-]?(nan(\(\w*\))?|inf(inity)?|1\.#\w+)$", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"^[+-]?\d*,\d+([eE][+-]?\d+)?$")

# A section while it is being read: type, name, line, entries.
_Draft = tuple[str, str, int, list["Entry"]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key = value` line; `value` is the text as written, `line` counts from 1."""

    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Title:
    """One `[T = ...]` line: free text in which the software hides its name and the tilt axis."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """One bracketed section, such as `[ZValue = 3]`, or the lines before the first one.

    Args:
        path: the file, for messages.
        type: `ZValue`, `FrameSet`, `MontSection`, `Image`; empty for the global lines.
        name: what stands after the `=`, for a ZValue its number as text.
        line: the line of the bracket.
        entries: the section's lines in order; a repeated key keeps every value.
    """

    path: Path
    type: str
    name: str
    line: int
    entries: tuple[Entry, ...]

    def entry(self, key: str) -> Entry | None:
        """The last entry of `key` that has a value, or None."""
        for entry in reversed(self.entries):
            if entry.key == key and entry.value:
                return entry
        return None

    def text(self, key: str) -> str | None:
        """The last value of `key`, or None where there is none."""
        entry = self.entry(key)
        return None if entry is None else entry.value

    def texts(self, key: str) -> tuple[str, ...]:
        """Every value of `key`, in the order of the file."""
        return tuple(entry.value for entry in self.entries if entry.key == key)

    def keys(self) -> frozenset[str]:
        """The keys that have a value."""
        return frozenset(entry.key for entry in self.entries if entry.value)

    def number(self, key: str) -> float | None:
        """The value of `key` as a number; None where it is absent, empty or not finite.

        Raises:
            FileFormatError: the value is no number; names the line.
        """
        values = self.numbers(key, count=1)
        return None if values is None else values[0]

    def integer(self, key: str) -> int | None:
        """The value of `key` as a whole number; None where it is absent.

        Raises:
            FileFormatError: the value is no whole number; names the line.
        """
        value = self.number(key)
        if value is None:
            return None
        if value != int(value):
            raise self._bad(key, "a whole number")
        return int(value)

    def numbers(self, key: str, *, count: int | None = None) -> tuple[float, ...] | None:
        """The value of `key` as numbers separated by blanks; None where it is absent.

        Args:
            count: how many there must be; None for any number of them.

        Raises:
            FileFormatError: the value is not `count` numbers; names the line.
        """
        entry = self.entry(key)
        if entry is None:
            return None
        values = parse_numbers(entry.value, count=count)
        if values is None:
            wanted = (
                "numbers" if count is None else "a number" if count == 1 else f"{count} numbers"
            )
            raise self._bad(key, wanted)
        return values if all(math.isfinite(value) for value in values) else None

    def _bad(self, key: str, wanted: str) -> FileFormatError:
        entry = self.entry(key)
        assert entry is not None
        return FileFormatError(
            self.path, f"{key} = {entry.value} should be {wanted}", line=entry.line
        )


@dataclass(frozen=True, slots=True)
class Mdoc:
    """An mdoc as written.

    Args:
        path: where it was read from.
        header: the global lines.
        titles: the `[T = ...]` lines, and the `T = ...` line of FrameSet files.
        sections: all other sections, in order; an unfinished last one is left out.
        incomplete: why the file looks as if it were still being written, or None.
        encoding: `utf-8` or `latin-1`.
    """

    path: Path
    header: Section
    titles: tuple[Title, ...]
    sections: tuple[Section, ...]
    incomplete: str | None
    encoding: str

    def of_type(self, section_type: str) -> tuple[Section, ...]:
        """The sections of one type, such as `ZValue`."""
        return tuple(section for section in self.sections if section.type == section_type)

    @property
    def kind(self) -> MdocKind:
        """What the file describes.

        `single movie`: a FrameSet section, as SerialEM writes beside each movie. `montage`: a
        map in pieces. `images`: pictures without movies (an `.idoc`). A tilt series taken as a
        one-piece montage is a tilt series.
        """
        if self.of_type("FrameSet"):
            return "single movie"
        images = self.of_type("ZValue")
        if not images:
            return "montage" if self.of_type("MontSection") else "images"
        places = {tuple(text.split()[:2]) for s in images if (text := s.text("PieceCoordinates"))}
        declared = bool(self.of_type("MontSection")) or self.header.text("Montage") == "1"
        if len(places) > 1 or (declared and not any(s.text("SubFramePath") for s in images)):
            return "montage"
        return "tilt series"


def read_mdoc(path: Path) -> Mdoc:
    """Read an mdoc.

    A file that is still being written gives what it has so far and says so in `incomplete`.

    Raises:
        FileFormatError: it is no mdoc (binary, empty, without sections, or with a line that is
            neither a section nor `key = value`); names the line.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    if size > LARGEST_MDOC_BYTES:
        raise FileFormatError(path, f"{size} bytes are too many for an mdoc")
    return parse_mdoc(path.read_bytes(), path)


def parse_mdoc(data: bytes, path: Path) -> Mdoc:
    """Parse the bytes of an mdoc; `path` is for messages. Raises like `read_mdoc`."""
    if not data.strip():
        raise FileFormatError(path, "the file is empty")
    if b"\0" in data:
        at_line = data[: data.index(b"\0")].count(b"\n") + 1
        raise FileFormatError(path, "binary data; an mdoc is text", line=at_line)
    text, encoding = _decode(data)
    # Only \n, \r\n and \r end a line here: str.splitlines also knows bytes that latin-1 text uses.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    finished = data.endswith(b"\n")
    if lines[-1] == "":
        lines.pop()

    titles: list[Title] = []
    header: list[Entry] = []
    drafts: list[_Draft] = []
    for at, raw in enumerate(lines, start=1):
        line = raw.strip()
        cut_off = at == len(lines) and not finished
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            match = _SECTION.match(line)
            if match is None or not line.endswith("]"):
                if cut_off:
                    break
                raise FileFormatError(path, f"bad section line: {_short(line)}", line=at)
            if match["type"] == "T":
                titles.append(Title(match["name"], at))
            else:
                drafts.append((match["type"], match["name"], at, []))
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            if cut_off:
                break
            raise FileFormatError(
                path, f"neither a section nor 'key = value': {_short(line)}", line=at
            )
        if not drafts and key == "T":
            titles.append(Title(value, at))
        else:
            (drafts[-1][3] if drafts else header).append(Entry(key, value, at))

    if not drafts:
        raise FileFormatError(
            path,
            "no [ZValue = ...] or [FrameSet = ...] section"
            + ("" if finished else "; the file ends in the middle of a line"),
            hint="this is no mdoc, or the microscope has not written its first image yet",
        )
    if not finished:
        _drop_cut_value(drafts, len(lines))
    sections = [Section(path, kind, name, where, tuple(rows)) for kind, name, where, rows in drafts]
    reason = _unfinished(sections, finished)
    if reason is not None and _lacks(sections[-1], sections[:-1]):
        sections.pop()
    return Mdoc(
        path=path,
        header=Section(path, "", "", 1, tuple(header)),
        titles=tuple(titles),
        sections=tuple(sections),
        incomplete=reason,
        encoding=encoding,
    )


def parse_numbers(text: str, *, count: int | None = None) -> tuple[float, ...] | None:
    """The numbers in `text`, or None if it is anything else.

    Blanks separate numbers; a comma inside a number is a decimal comma (`1,35`), unless
    `count` numbers are wanted and commas alone separate just as many (`4096,4096`).
    """
    tokens = text.replace(", ", " ").split()
    if count is not None and count > 1 and len(tokens) == 1 and tokens[0].count(",") == count - 1:
        tokens = tokens[0].split(",")
    if not tokens or (count is not None and len(tokens) != count):
        return None
    numbers = [_number(token) for token in tokens]
    return tuple(n for n in numbers if n is not None) if None not in numbers else None


def _number(token: str) -> float | None:
    if _PLAIN_NUMBER.match(token):
        return float(token)
    if _COMMA_NUMBER.match(token):
        return float(token.replace(",", "."))
    return math.nan if _NOT_FINITE.match(token) else None


def _decode(data: bytes) -> tuple[str, str]:
    """Text as UTF-8, or else as latin-1, which every byte string is."""
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":  # cut inside the last character
            return data[: error.start].decode("utf-8-sig"), "utf-8"
        return data.decode("latin-1"), "latin-1"


def _drop_cut_value(drafts: list[_Draft], last_line: int) -> None:
    """Forget the value in a last line without an end, unless it is plainly whole.

    It is when it ends in a time of day, or when an earlier section has the very same one:
    `NumSubFrames = 1` may be the start of 10, and a wrong number is worse than none.
    """
    entries = drafts[-1][3]
    if not entries or entries[-1].line != last_line:
        return
    cut = entries[-1]
    seen = {(e.key, e.value) for draft in drafts[:-1] for e in draft[3]}
    if not _TIME_OF_DAY.search(cut.value) and (cut.key, cut.value) not in seen:
        entries.pop()


def _unfinished(sections: list[Section], finished: bool) -> str | None:
    """Why the file looks as if its writer had not finished, or None."""
    last = sections[-1]
    where = f"[{last.type} = {last.name}] at line {last.line}"
    missing = _lacks(last, sections[:-1])
    if missing:
        return f"the last section, {where}, has no {', '.join(missing)} yet"
    if not finished:
        return f"the file ends in the middle of a line, in {where}; if it is whole, add a line end"
    return None


def _lacks(last: Section, earlier: Iterable[Section]) -> list[str]:
    """The keys that the last section should have and has not.

    They are the ones that all earlier sections of its type have; the first section of an
    image must at least say what was taken and when.
    """
    peers = [section.keys() for section in earlier if section.type == last.type]
    if peers:
        wanted = frozenset.intersection(*peers)
    elif last.type == "ZValue":
        wanted = frozenset({"TiltAngle", "DateTime"})
    else:
        wanted = frozenset({"DateTime"}) if last.type == "FrameSet" else frozenset()
    return sorted(wanted - last.keys())


def _short(line: str) -> str:
    printable = "".join(c if c.isprintable() else "?" for c in line)
    return repr(printable if len(printable) <= 60 else printable[:57] + "...")
