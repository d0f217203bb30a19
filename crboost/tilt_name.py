"""How tilt images are called, everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

#: What RELION's STAR files and shell commands take without quoting; anything else becomes `_`.
_AWKWARD = re.compile(r"[^\w.+\-]", re.UNICODE)


def tilt_name(row: Mapping[str, Any]) -> str:
    """A tilt image's name: its movie's file name without the last extension.

    `TS_01_001_0.0.eer` keeps its dots; two movies of one project never share a file name, since
    the project links them into one directory.
    """
    name = PurePosixPath(str(row["rlnMicrographMovieName"])).name
    return name.rpartition(".")[0] or name


def plain_name(name: str) -> str:
    """A file or tilt-series name without blanks, quotes and shell characters.

    Raw data may be called anything; its link in the project is called this, so that no RELION
    program ever has to read a quoted name.
    """
    return _AWKWARD.sub("_", name)
