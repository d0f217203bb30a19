"""RELION 5's two kinds of tilt-series table, read and written with starfile.

A *global* table (`data_global`) has one row per tilt series; its `rlnTomoTiltSeriesStarFile`
names that series' own table (`data_<name>`), with one row per tilt image. Rows are plain dicts,
RELION label to value. Paths in them are relative to the project directory.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crboost.errors import FileFormatError
from crboost.files import write_text

Row = dict[str, Any]

#: Columns that hold names: `01` must stay `01`.
TEXT_COLUMNS = (
    "rlnTomoName",
    "rlnTomoTiltSeriesStarFile",
    "rlnOpticsGroupName",
    "rlnMtfFileName",
    "rlnMicrographMovieName",
    "rlnMicrographName",
    "rlnMicrographNameEven",
    "rlnMicrographNameOdd",
    "rlnMicrographMetadata",
    "rlnCtfPowerSpectrum",
    "rlnCtfImage",
    "rlnTomoReconstructedTomogram",
    "rlnTomoReconstructedTomogramDenoised",
    "rlnTomoReconstructedTomogramHalf1",
    "rlnTomoReconstructedTomogramHalf2",
)


#: What a value is where some rows of a table have it and others do not.
WITHOUT: Row = {"rlnPhaseShift": 0.0}


def read_table(path: Path) -> list[Row]:
    """The rows of a STAR file that holds one table.

    Raises:
        FileFormatError: the file is missing, is no STAR file, or holds no table or several.
    """
    blocks = read_blocks(path)
    if len(blocks) != 1:
        found = ", ".join(blocks) or "none"
        raise FileFormatError(path, f"one table expected, found: {found}")
    (rows,) = blocks.values()
    return rows


def read_blocks(path: Path) -> dict[str, list[Row]]:
    """The tables of a STAR file by name; a list of values is a table of one row.

    Raises:
        FileFormatError: the file is missing, or is no STAR file.
    """
    import pandas as pd
    import starfile

    try:
        if not path.is_file():
            raise FileFormatError(path, "no such file")
    except OSError as error:  # a name that no file can have
        raise FileFormatError(path, f"cannot be read: {error.strerror}") from error
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=list(TEXT_COLUMNS))
    except Exception as error:  # starfile raises whatever its parser stumbles over
        raise FileFormatError(path, f"not a readable STAR file: {error}") from error
    return {
        name: [{str(k): v for k, v in row.items()} for row in frame.to_dict(orient="records")]
        for name, block in blocks.items()
        for frame in [block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])]
    }


def read_tilt_series(path: Path, project: Path) -> dict[str, tuple[Row, list[Row]]]:
    """A global table and the tables that it names: tilt series -> (its row, its tilt images).

    Raises:
        FileFormatError: a file or a column is missing; a tilt series appears twice.
    """
    series: dict[str, tuple[Row, list[Row]]] = {}
    for row in read_table(path):
        for column in ("rlnTomoName", "rlnTomoTiltSeriesStarFile"):
            if column not in row:
                raise FileFormatError(path, f"has no column {column}")
        name = str(row["rlnTomoName"])
        if name in series:
            raise FileFormatError(path, f"names the tilt series {name} twice")
        series[name] = (row, read_table(project / str(row["rlnTomoTiltSeriesStarFile"])))
    return series


def write_table(path: Path, block: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one STAR loop; see `write_blocks`."""
    write_blocks(path, {block: rows})


def write_blocks(
    path: Path, blocks: Mapping[str, Sequence[Mapping[str, Any]] | Mapping[str, Any]]
) -> None:
    """Write several blocks: a list of rows becomes a loop, a mapping a list of values.

    A loop has the columns that any row has, in first-seen order. A number that a row lacks would be
    written as `<NA>`, which RELION reads as 0: such a column is left out, unless 0 is what it means
    (`WITHOUT`).

    The file appears whole or not at all, and is the same for the same values.
    """
    import pandas as pd
    import starfile

    frames: dict[str, Any] = {}
    for name, block in blocks.items():
        if isinstance(block, Mapping):
            frames[name] = dict(block)
        else:
            rows, columns = _even(block)
            frames[name] = pd.DataFrame(rows, columns=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".star", dir=path.parent) as directory:
        draft = Path(directory) / "draft.star"
        starfile.write(frames, draft, float_format="%.6f")
        text = draft.read_text(encoding="utf-8")
    # starfile's first line holds the time of writing; RELION's says which version wrote it.
    _, _, body = text.partition("\n")
    write_text(path, f"\n# version 50001\n{body}")


def _even(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """The rows with the columns that all of them can have."""
    filled = [
        {column: WITHOUT.get(column) if _is_missing(value) else value for column, value in one}
        for one in (({**dict.fromkeys(WITHOUT), **row}).items() for row in rows)
    ]
    columns = [
        column
        for column in dict.fromkeys(column for row in rows for column in row)
        if column in TEXT_COLUMNS or not any(_is_missing(row.get(column)) for row in filled)
    ]
    return filled, columns


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
