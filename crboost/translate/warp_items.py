"""`processed_items.json` and `failed_items.json`: what a WarpTools command says of its items.

The only place where Warp writes a processing status; an XML file exists for failed items too.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from crboost.errors import FileFormatError
from crboost.files import read_json
from crboost.translate.warp_xml import movie_stem


class ItemStatus(IntEnum):
    """WarpLib's `ProcessingStatus` (OptionsWarp.cs)."""

    PROCESSED = 1
    OUTDATED = 2
    UNPROCESSED = 3
    FILTERED_OUT = 4
    LEFT_OUT = 5


def read_items(path: Path) -> dict[str, ItemStatus]:
    """Item (file name without extension) -> its status; nothing when the file does not exist.

    Raises:
        FileFormatError: the file is no list of items with `Path` and `ProcessingStatus`.
    """
    if not path.exists():
        return {}
    items = read_json(path)
    if not isinstance(items, list):
        raise FileFormatError(path, "a list of items is expected")
    found: dict[str, ItemStatus] = {}
    for index, item in enumerate(items, start=1):
        try:
            found[movie_stem(str(item["Path"]))] = ItemStatus(item["ProcessingStatus"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                path, f"item {index} has no Path, or no ProcessingStatus from 1 to 5"
            ) from error
    return found
