"""A classifier's table: what it says, and what of it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.errors import FileFormatError
from crboost.tilt_rules import Classified
from crboost.translate.tilt_filter import read_classified


def test_a_table_of_verdicts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_bytes(
        b'\xef\xbb\xbftilt,verdict,probability,reason\r\na,Keep,0.9,\r\nb,bad,,"ice, thick"\r\n'
    )
    assert read_classified(path) == {
        "a": Classified(True, 0.9, ""),
        "b": Classified(False, None, "ice, thick"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "has no column tilt"),
        (b"tilt,verdict\n\xff\xfe,keep\n", "not a text file: byte 13 is not UTF-8"),
        (b"tilt,verdict\na,\0keep\n", "not a text file"),
        (b"tilt,score\na,1\n", "has no column verdict"),
        (b"tilt,verdict\na,maybe\n", ":2: verdict 'maybe'"),
        (b"tilt,verdict\na\n", ":2: verdict None"),
        (b"tilt,verdict\n,keep\n", ":2: names no tilt image"),
        (b"tilt,verdict\na,keep\na,keep\n", ":3: a comes twice"),
        (b"tilt,verdict,probability\na,keep,nan\n", ":2: probability 'nan' is not 0 to 1"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "verdicts.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"verdicts\.csv.*{message}"):
        read_classified(path)
