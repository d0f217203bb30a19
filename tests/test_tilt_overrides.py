"""What a person says of tilt images, kept in the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.errors import FileFormatError
from crboost.tilt_overrides import (
    OVERRIDES_FILE,
    Override,
    change_overrides,
    override_fingerprint,
    read_overrides,
)


def test_words_come_back_as_they_were_said(tmp_path: Path) -> None:
    said = [
        Override("01", "001", "reject", 'it\'s "odd" # ice', "ada", "2026-05-01T10:00:00+00:00"),
        Override("01", "002", "keep"),
        Override("TS_2", "a b", "keep", "", "ada"),
    ]
    assert read_overrides(tmp_path) == {}
    change_overrides(tmp_path, add=said)
    read = read_overrides(tmp_path)
    assert [one for tilts in read.values() for one in tilts.values()] == said


def test_the_newer_word_counts_and_words_are_taken_back(tmp_path: Path) -> None:
    change_overrides(tmp_path, add=[Override("TS", "a", "keep"), Override("TS", "b", "keep")])
    change_overrides(tmp_path, add=[Override("TS", "a", "reject")], remove=[("TS", "b")])
    assert {name: one.word for name, one in read_overrides(tmp_path)["TS"].items()} == {
        "a": "reject"
    }
    change_overrides(tmp_path, remove=[("TS", "a"), ("TS", "nobody")])
    assert read_overrides(tmp_path).get("TS", {}) == {}


def test_only_the_word_counts_for_a_result() -> None:
    first = {"a": Override("TS", "a", "keep", "fine", "ada", "monday")}
    same = {"a": Override("TS", "a", "keep", "still", "eve", "tuesday")}
    other = {"a": Override("TS", "a", "reject")}
    assert override_fingerprint(first) == override_fingerprint(same)
    assert override_fingerprint(first) != override_fingerprint(other)


def test_a_word_that_is_none_is_told(tmp_path: Path) -> None:
    change_overrides(tmp_path, add=[Override("TS", "a", "keep")])
    path = tmp_path / OVERRIDES_FILE
    path.write_text(path.read_text().replace(" keep ", " maybe "))
    with pytest.raises(FileFormatError, match="row 1: crbVerdict is 'maybe'"):
        read_overrides(tmp_path)
