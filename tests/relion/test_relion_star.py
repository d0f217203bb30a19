"""STAR control files: byte for byte what RELION 5.1 wrote, and nothing converted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from crboost.errors import FileFormatError
from crboost.relion.star import (
    StarDocument,
    format_float,
    format_star,
    list_block,
    loop_block,
    parse_star,
    quote,
    read_star,
)

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("default_pipeline.star", "job_pipeline.star", "scheme.star", "job.star")
FILES = sorted(
    path
    for name in NAMES
    for path in GOLDEN.rglob(name)
    # The schemes' job.star were written by hand, with RELION's layout only after a --copy.
    if name != "job.star" or "Schemes" not in path.parts or "x2" in path.parts
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(GOLDEN)))
def test_relions_own_files_survive_byte_for_byte(path: Path) -> None:
    assert format_star(read_star(path)) == path.read_text()


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.star")), ids=str)
def test_reads_the_same_values_as_starfile(path: Path) -> None:
    expected = starfile.read(path, always_dict=True, parse_as_string=["rlnPipeLineJobCounter"])
    document = read_star(path)
    assert [block.name for block in document.blocks] == list(expected)
    for block in document.blocks:
        table = expected[block.name]
        if block.is_list:
            assert {k: str(v) for k, v in table.items()}.keys() == block.pairs().keys()
        else:
            assert list(table.columns) == list(block.columns)
            assert len(table) == len(block.rows)


def test_values_are_never_converted() -> None:
    text = "data_a\n\nloop_\n_rlnA #1\n_rlnB #2\n01 1e5\n007 nan\n"
    block = parse_star(text).blocks[0]
    assert block.column("rlnA") == ("01", "007")
    assert block.column("rlnB") == ("1e5", "nan")


def test_a_row_may_begin_like_a_block() -> None:
    text = "data_a\n\nloop_ \n_rlnA #1 \n_rlnB #2 \ndata_x.star 1 \nloop_.mrc 2 \n \n"
    text += "\ndata_b\n_rlnC 3\n"
    document = parse_star(text)
    assert [block.name for block in document.blocks] == ["a", "b"]
    assert document.blocks[0].rows == (("data_x.star", "1"), ("loop_.mrc", "2"))


def test_comments_are_not_values() -> None:
    text = "# version 30001\ndata_a\n_rlnA 1 # one\n_rlnB #2x\nloop_\n_rlnC #1\nx#y # z\n"
    document = parse_star(text)
    assert document.version == "30001"
    assert document.blocks[0].pairs() == {"rlnA": "1", "rlnB": ""}
    assert document.blocks[1].rows == (("x#y",),)


def test_a_cut_row_is_an_error_with_file_and_line() -> None:
    with pytest.raises(FileFormatError, match=r"some\.star:6: block a: a row of 2 values for 3"):
        parse_star("data_a\nloop_\n_a #1\n_b #2\n_c #3\n1 2\n", "some.star")


@pytest.mark.parametrize("text", ["hello\n", "<html>", "_rlnA 1\n", 'data_a\n_rlnA "open\n'])
def test_what_is_not_star_is_refused(text: str) -> None:
    with pytest.raises(FileFormatError, match=r"x\.star:\d: "):
        parse_star(text, "x.star")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("", '""'),
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("'single", '"\'single"'),
        ('say "hi" now', '"say "hi\a" now"'),
        ('in"side', 'in"side'),
    ],
)
def test_quotes_as_relion(value: str, quoted: str) -> None:
    assert quote(value) == quoted


TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, blacklist_characters="\x7f\x85\xa0"),
    max_size=20,
)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5), TEXT)
def test_any_value_survives(rows: list[tuple[str, str, str]], value: str) -> None:
    document = StarDocument(
        (list_block("pairs", {"rlnA": value}), loop_block("loop", ("a", "b", "c"), rows))
    )
    assert parse_star(format_star(document)) == document


def test_a_line_break_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="line break"):
        quote("a\nb")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0.000000"),
        (180, "180.000000"),
        (-1.5, "-1.50000"),
        (0.0001, "1.000000e-04"),
        (250000, "2.500000e+05"),
        (100000, "100000.00000"),
    ],
)
def test_numbers_as_relion(number: float, text: str) -> None:
    assert format_float(number) == text


REAL = Path(os.environ.get("CRBOOST_REAL_FIXTURES", "/nonexistent"))


@pytest.mark.skipif(not REAL.is_dir(), reason="CRBOOST_REAL_FIXTURES is not set")
def test_real_files_read_and_survive() -> None:
    files = sorted(REAL.rglob("*.star"))
    assert files
    refused = []
    for path in files:
        try:
            document = read_star(path)
        except FileFormatError as error:
            refused.append(str(error))
            continue
        kept = StarDocument(tuple(block for block in document.blocks if block.rows), "50001")
        assert parse_star(format_star(kept)).blocks == kept.blocks, path
    assert len(refused) <= len(files) // 50, refused
