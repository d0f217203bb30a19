"""The XML that Warp keeps per movie and per tilt series: what both kinds have in common.

Warp writes UTF-8 with a byte-order mark; old versions wrote UTF-16. Lists are one text, a
value a line; a grid is an element with its size and one `Node` per value; settings are `Param`s.
"""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crboost.errors import FileFormatError
from crboost.files import write_bytes


@dataclass(frozen=True)
class Grid:
    """Warp's `CubicGrid`: values on a regular grid, x fastest."""

    width: int
    height: int
    depth: int
    values: tuple[float, ...]

    @classmethod
    def per_tilt(cls, values: Sequence[float]) -> Grid:
        return cls(1, 1, len(values), tuple(values))

    def layers(self) -> list[float]:
        """The mean of each z: for a grid of one value per tilt, that value."""
        area = self.width * self.height
        return [sum(self.values[z * area : (z + 1) * area]) / area for z in range(self.depth)]

    @property
    def varies(self) -> bool:
        return any(value != self.values[0] for value in self.values)


def movie_stem(path: str) -> str:
    """A movie's name in Warp's files -> what crboost calls the tilt image (`tilt_name`)."""
    name = PurePosixPath(path.replace("\\", "/")).name
    return name.rpartition(".")[0] or name


class WarpXml:
    """One of Warp's XML files, read with the file and the element in every error."""

    def __init__(self, path: Path, root_name: str) -> None:
        """Read `path`.

        Raises:
            FileFormatError: the file is missing, no XML, or of another kind.
        """
        self.path = path
        try:
            self.root = ET.fromstring(_without_wrong_encoding(path.read_bytes()))
        except FileNotFoundError as error:
            raise FileFormatError(path, "no such file") from error
        except OSError as error:
            raise FileFormatError(path, f"cannot be read: {error.strerror}") from error
        except ET.ParseError as error:
            raise FileFormatError(
                path, f"not valid XML: {error.msg}", line=error.position[0]
            ) from error
        except (UnicodeError, ValueError, LookupError) as error:
            raise FileFormatError(path, f"not valid XML: {error}") from error
        if self.root.tag != root_name:
            raise FileFormatError(
                path, f"its root element is {self.root.tag}, {root_name} is expected"
            )

    def has(self, element: str) -> bool:
        return self.root.find(element) is not None

    def attribute(self, name: str, default: float) -> float:
        """A number among the root's attributes; `default` when absent or empty."""
        text = self.root.get(name)
        return self._number(f"attribute {name}", text) if text else default

    def flag(self, name: str) -> bool | None:
        """True, False or null (absent, empty or `null`) among the root's attributes."""
        text = (self.root.get(name) or "").strip()
        if text in ("", "null"):
            return None
        return self._flag(f"attribute {name}", text)

    def vector(self, name: str, length: int) -> tuple[float, ...] | None:
        """Numbers with commas among the root's attributes; None when absent or all zero."""
        text = self.root.get(name)
        if not text:
            return None
        words = [word for word in re.split(r"[,\s]+", text.strip()) if word]
        if len(words) != length:
            raise FileFormatError(
                self.path, f"attribute {name}: {length} numbers expected, found {text!r}"
            )
        values = tuple(self._number(f"attribute {name}", word) for word in words)
        return values if any(values) else None

    def texts(self, element: str) -> list[str] | None:
        """The lines of an element; None when it is absent."""
        node = self.root.find(element)
        if node is None:
            return None
        return [line.strip() for line in (node.text or "").strip().split("\n")]

    def numbers(self, element: str, count: int | None = None) -> list[float] | None:
        lines = self._counted(element, count)
        if lines is None:
            return None
        return [self._number(f"{element}, value {i}", line) for i, line in enumerate(lines, 1)]

    def flags(self, element: str, count: int) -> list[bool] | None:
        lines = self._counted(element, count)
        if lines is None:
            return None
        return [self._flag(f"{element}, value {i}", line) for i, line in enumerate(lines, 1)]

    def param(self, element: str, name: str) -> float | None:
        """A number among an element's `Param`s; None when it is absent."""
        for node in self.root.findall(f"{element}/Param"):
            if node.get("Name") == name:
                return self._number(f"{element}/{name}", node.get("Value") or "")
        return None

    def grid(self, element: str) -> Grid | None:
        """A grid; None when it is absent.

        Raises:
            FileFormatError: nodes are missing, or lie outside the grid's size.
        """
        node = self.root.find(element)
        if node is None:
            return None
        width, height, depth = (
            int(self._number(f"{element}, {name}", node.get(name, "1")))
            for name in ("Width", "Height", "Depth")
        )
        # The 4-D grids of a deforming volume have a fourth size; only their values matter.
        times = int(self._number(f"{element}, Duration", node.get("Duration", "1")))
        values: dict[tuple[int, int, int, int], float] = {}
        for child in node.findall("Node"):
            x, y, z, w = (
                int(self._number(f"{element}, Node {name}", child.get(name, "0")))
                for name in ("X", "Y", "Z", "W")
            )
            if not (0 <= x < width and 0 <= y < height and 0 <= z < depth and 0 <= w < times):
                raise FileFormatError(
                    self.path,
                    f"{element}: node X={x} Y={y} Z={z} lies outside its {width} x {height} x "
                    f"{depth} grid",
                )
            values[w, z, y, x] = self._number(
                f"{element}, Node X={x} Y={y} Z={z}", child.get("Value", "")
            )
        if not values or len(values) != width * height * depth * times:
            raise FileFormatError(
                self.path,
                f"{element}: {width * height * depth * times} nodes expected, found {len(values)}",
            )
        ordered = tuple(values[key] for key in sorted(values))
        return Grid(width, height, depth * times, ordered)

    def _counted(self, element: str, count: int | None) -> list[str] | None:
        lines = self.texts(element)
        if lines is not None and count is not None and len(lines) != count:
            raise FileFormatError(
                self.path, f"{element}: {count} values expected, found {len(lines)}"
            )
        return lines

    def _number(self, what: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            hint = None
            if re.fullmatch(r"-?\d+,\d+", text.strip()):
                hint = "a decimal comma: Warp ran under a locale that writes numbers so"
            raise FileFormatError(self.path, f"{what} is not a number: {text!r}", hint=hint)
        return value

    def _flag(self, what: str, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise FileFormatError(self.path, f"{what} is neither True nor False: {text!r}")
        return text.lower() == "true"


def write_xml(path: Path, root: ET.Element, *, encoding: str = "utf-8") -> None:
    """Write an XML file as Warp does: byte-order mark, declaration, indented with tabs.

    Args:
        encoding: `utf-8`, or `utf-16` as old versions of Warp.
    """
    ET.indent(root, space="\t")
    stream = io.StringIO()
    stream.write(f'<?xml version="1.0" encoding="{encoding}"?>\n')
    stream.write(ET.tostring(root, encoding="unicode"))
    codec = {"utf-8": "utf-8-sig", "utf-16": "utf-16"}[encoding]
    write_bytes(path, stream.getvalue().encode(codec))


def number_text(value: float) -> str:
    """A number as .NET writes a float: nine digits at most, no trailing zeros."""
    return f"{value + 0.0:.9g}"


def add_list(root: ET.Element, name: str, values: Sequence[str]) -> None:
    ET.SubElement(root, name).text = "\n".join(values)


def add_params(root: ET.Element, name: str, values: dict[str, str]) -> None:
    element = ET.SubElement(root, name)
    for key, value in values.items():
        ET.SubElement(element, "Param", {"Name": key, "Value": value})


def add_grid(root: ET.Element, name: str, grid: Grid) -> None:
    element = ET.SubElement(
        root,
        name,
        {
            "Width": str(grid.width),
            "Height": str(grid.height),
            "Depth": str(grid.depth),
            "MarginX": "0",
            "MarginY": "0",
            "MarginZ": "0",
        },
    )
    for index, value in enumerate(grid.values):
        ET.SubElement(
            element,
            "Node",
            {
                "X": str(index % grid.width),
                "Y": str(index // grid.width % grid.height),
                "Z": str(index // (grid.width * grid.height)),
                "Value": number_text(value),
            },
        )


def _without_wrong_encoding(data: bytes) -> bytes | str:
    """The text of a file whose declaration names UTF-16 while its bytes are UTF-8, or no mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16")
    elif data[:2] == b"<\0":
        text = data.decode("utf-16-le")
    elif data[:2] == b"\0<":
        text = data.decode("utf-16-be")
    else:
        text = data.decode("utf-8-sig")
    return re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1)
