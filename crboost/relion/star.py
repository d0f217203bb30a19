"""RELION's control files (ledger, scheme, job, output nodes) as text: read them, write them.

A STAR file is a list of named blocks; a block is a list of label-value pairs or a loop of rows.
Every value stays the string that stood in the file: `01` is not 1 and `1e5` is not 100000.
`starfile` and pandas serve the large data tables; here start-up time and byte-exact output count.

The layout written is RELION 5's: `# version 50001` before each block, strings right-justified
to 10 characters, values that RELION holds as numbers to 12 (`MetaDataTable::write`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crboost.errors import FileFormatError
from crboost.files import write_text

VERSION = "50001"

_REREAD_S = 0.2
_REREADS = 5
_LATELY_S = 60.0
_Content = TypeVar("_Content")

_STRING_WIDTH = 10
_NUMBER_WIDTH = 12

# The labels of control files that RELION holds as int, bool or double.
_NUMBER_LABELS = frozenset(
    {
        "rlnPipeLineJobCounter",
        "rlnPipeLineNodeTypeLabelDepth",
        "rlnPipeLineNodeType",
        "rlnPipeLineProcessType",
        "rlnPipeLineProcessStatus",
        "rlnJobType",
        "rlnJobIsContinue",
        "rlnJobIsTomo",
        "rlnSchemeFloatVariableValue",
        "rlnSchemeFloatVariableResetValue",
        "rlnSchemeBooleanVariableValue",
        "rlnSchemeBooleanVariableResetValue",
        "rlnSchemeJobHasStarted",
        "rlnSchemeEdgeIsFork",
    }
)


@dataclass(frozen=True, slots=True)
class Block:
    """One `data_` block: `columns` without the leading underscore, `rows` of as many strings.

    A block of pairs (`is_list`) has exactly one row.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_list: bool = False

    def has(self, column: str) -> bool:
        """Whether the block has this column."""
        return column in self.columns

    def column(self, column: str) -> tuple[str, ...]:
        """All values of one column.

        Raises:
            KeyError: there is no such column.
        """
        if column not in self.columns:
            raise KeyError(column)
        index = self.columns.index(column)
        return tuple(row[index] for row in self.rows)

    def records(self) -> list[dict[str, str]]:
        """One dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def pairs(self) -> dict[str, str]:
        """The first row as a dictionary: the whole content of a block of pairs."""
        return dict(zip(self.columns, self.rows[0], strict=True)) if self.rows else {}


@dataclass(frozen=True, slots=True)
class StarDocument:
    """A STAR file's blocks in order; `version` is RELION's number (None in files before 3.1)."""

    blocks: tuple[Block, ...]
    version: str | None = VERSION

    def get(self, name: str) -> Block | None:
        """The block called `name`, or None."""
        return next((block for block in self.blocks if block.name == name), None)

    def records(self, name: str) -> list[dict[str, str]]:
        """The rows of the block called `name`; empty when there is no such block.

        RELION leaves out blocks that have no rows.
        """
        block = self.get(name)
        return block.records() if block is not None else []


def list_block(name: str, pairs: Mapping[str, str]) -> Block:
    """A block of label-value pairs."""
    return Block(name, tuple(pairs), (tuple(pairs.values()),), is_list=True)


def loop_block(name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Block:
    """A loop; every row must have one value per column."""
    checked = tuple(tuple(row) for row in rows)
    for row in checked:
        if len(row) != len(columns):
            raise ValueError(f"{name}: {len(row)} values for {len(columns)} columns: {row}")
    return Block(name, tuple(columns), checked)


# --- writing -------------------------------------------------------------------------------


def format_star(document: StarDocument) -> str:
    """The text of a STAR file as RELION 5 lays it out; blocks without rows are left out."""
    return "".join(_format_block(block) for block in document.blocks if block.rows)


def write_star(path: Path, blocks: Iterable[Block]) -> None:
    """Write a STAR file atomically."""
    write_text(path, format_star(StarDocument(tuple(blocks))))


def format_float(value: float) -> str:
    """A number as RELION writes doubles: 12 characters, 6 decimals, exponents at the extremes."""
    magnitude = abs(value)
    digits = 5 if value < 0 else 6
    if 0 < magnitude < 0.001 or magnitude > 100000:
        return f"{value:12.{digits}e}"[:12].strip()
    return f"{value:12.{digits}f}"[:12].strip()


def quote(value: str) -> str:
    """A value as it must stand in a STAR file: quoted when empty or with spaces or quotes,
    or when it would be read as a label or a comment.

    A quote inside that would be taken for the closing one is marked with a bell character, as
    RELION does (`escapeStringForSTAR`).

    Raises:
        ValueError: the value has a line break; RELION has no way to write one.
    """
    if "\n" in value or "\r" in value:
        raise ValueError(f"a STAR value cannot hold a line break: {value!r}")
    if value == "":
        return '""'
    if value[0] not in "\"'#_" and " " not in value and "\t" not in value:
        return value
    escaped = []
    for index, character in enumerate(value):
        following = value[index + 1 : index + 2]
        if character == '"' and following in ("", " ", "\t"):
            escaped.append("\a")
        escaped.append(character)
    return f'"{"".join(escaped)}"'


def _format_block(block: Block) -> str:
    lines = ["", f"# version {VERSION}", "", f"data_{block.name}", ""]
    if block.is_list:
        widest = max(10, *(len(label) for label in block.columns))
        for label, value in zip(block.columns, block.rows[0], strict=True):
            width = _NUMBER_WIDTH if label in _NUMBER_LABELS else 0
            gap = " " * (12 + widest - len(label))
            lines.append(f"_{label}{gap}{quote(value):>{width}}")
    else:
        lines.append("loop_ ")
        lines.extend(f"_{label} #{index} " for index, label in enumerate(block.columns, 1))
        widths = [
            _NUMBER_WIDTH if label in _NUMBER_LABELS else _STRING_WIDTH for label in block.columns
        ]
        for row in block.rows:
            cells = (f"{quote(value):>{w}} " for value, w in zip(row, widths, strict=True))
            lines.append("".join(cells))
    lines.append(" ")
    return "\n".join(lines) + "\n"


# --- reading -------------------------------------------------------------------------------


def read_star(path: Path) -> StarDocument:
    """Read a STAR file.

    Raises:
        FileFormatError: not a STAR file, or a row does not fit its columns; names the line.
        FileNotFoundError: there is no such file.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return parse_star(text, path)


def read_whole(path: Path, parse: Callable[[StarDocument, Path], _Content]) -> _Content:
    """What `parse` makes of a file that RELION may be writing.

    We replace files in one step; RELION writes in place, so that a reader may meet an empty file or
    half of one. What cannot be read is read again for up to a second, unless it has been like that
    for a while.

    Raises:
        FileFormatError: the file is damaged.
        FileNotFoundError: there is no such file.
    """
    for _ in range(_REREADS):
        try:
            return parse(read_star(path), path)
        except FileFormatError:
            if abs(time.time() - path.stat().st_mtime) > _LATELY_S:
                raise
        time.sleep(_REREAD_S)
    return parse(read_star(path), path)


def parse_star(text: str, path: Path | str = "<text>") -> StarDocument:
    """The document in `text`; `path` is only for error messages.

    Raises:
        FileFormatError: see `read_star`.
    """
    return _Parser(text, path).document()


class _Parser:
    """Reads line by line, keeping the line number for messages."""

    def __init__(self, text: str, path: Path | str) -> None:
        self._lines = text.split("\n")
        self._path = path
        self._number = 0
        self._version: str | None = None
        self._blocks: list[Block] = []
        self._block: str | None = None
        self._pairs: dict[str, str] = {}

    def document(self) -> StarDocument:
        while self._number < len(self._lines):
            line = self._next()
            if line.lstrip().startswith("# version "):
                number = line.split()[2]
                self._version = self._version or (number if number.isdigit() else None)
                continue
            tokens = self._tokens(line)
            if not tokens:
                continue
            first = tokens[0]
            if first.startswith("data_"):
                self._close_list()
                self._block = first[len("data_") :]
            elif self._block is None:
                raise self._error(
                    f"expected a line that starts with data_, found {line.strip()[:60]!r}",
                    hint="this is not a STAR file, or its beginning is missing",
                )
            elif first == "loop_":
                self._close_list()
                self._loop()
            elif first.startswith("_"):
                if len(tokens) > 2:
                    raise self._error(f"{first} has {len(tokens) - 1} values, expected one")
                self._pairs[first[1:]] = tokens[1] if len(tokens) == 2 else ""
            else:
                raise self._error(f"expected a label or loop_, found {line.strip()[:60]!r}")
        self._close_list()
        return StarDocument(tuple(self._blocks), self._version)

    def _next(self) -> str:
        line = self._lines[self._number]
        self._number += 1
        return line.rstrip("\r")

    def _close_list(self) -> None:
        if self._pairs and self._block is not None:
            self._blocks.append(list_block(self._block, self._pairs))
            self._pairs = {}

    def _loop(self) -> None:
        assert self._block is not None
        columns: list[str] = []
        rows: list[tuple[str, ...]] = []
        after_blank = False
        while self._number < len(self._lines):
            line = self._next()
            tokens = self._tokens(line)
            if not tokens:
                after_blank = True
                if line.lstrip().startswith("# version "):
                    break
                continue
            first = tokens[0]
            if line.lstrip().startswith("_") and not rows:
                columns.append(first[1:])
                continue
            # A row may begin with data_ or loop_ (a file's name); a new block follows a blank
            # line, or stands alone on its line.
            if (first.startswith("data_") or first == "loop_") and (
                after_blank or (len(tokens) == 1 and len(columns) > 1)
            ):
                self._number -= 1
                break
            after_blank = False
            rows.append(self._row(columns, tokens))
        self._blocks.append(Block(self._block, tuple(columns), tuple(rows)))

    def _row(self, columns: list[str], tokens: list[str]) -> tuple[str, ...]:
        if len(tokens) == len(columns):
            return tuple(tokens)
        if len(tokens) < len(columns) == 2:
            return (*tokens, "")  # RELION takes "name <nothing>" in two-column loops
        raise self._error(
            f"block {self._block}: a row of {len(tokens)} values for {len(columns)} columns",
            hint="a value with spaces must be quoted; an incomplete line was cut while written",
        )

    def _tokens(self, line: str) -> list[str]:
        if '"' not in line and "'" not in line:
            tokens = line.split()
            for index, token in enumerate(tokens):
                if token.startswith("#"):
                    return tokens[:index]
            return tokens
        return self._quoted_tokens(line)

    def _quoted_tokens(self, line: str) -> list[str]:
        tokens: list[str] = []
        position, length = 0, len(line)
        while position < length:
            if line[position] in " \t":
                position += 1
                continue
            start = line[position]
            if start == "#":
                break
            if start in "\"'":
                value, position = self._quoted(line, position)
            else:
                end = position
                while end < length and line[end] not in " \t":
                    end += 1
                value, position = line[position:end], end
            tokens.append(value)
        return tokens

    def _quoted(self, line: str, position: int) -> tuple[str, int]:
        closing = line[position]
        value: list[str] = []
        index = position + 1
        while index < len(line):
            character = line[index]
            if (
                character == closing
                and (line[index - 1] != "\a" or index == position + 1)
                and line[index + 1 : index + 2] in ("", " ", "\t")
            ):
                return "".join(value), index + 1
            if character != "\a":
                value.append(character)
            index += 1
        raise self._error(f"a quote is not closed: {line.strip()[:60]!r}")

    def _error(self, problem: str, *, hint: str | None = None) -> FileFormatError:
        return FileFormatError(self._path, problem, line=self._number, hint=hint)
