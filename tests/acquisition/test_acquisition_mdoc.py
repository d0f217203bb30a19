"""The mdoc reader: encodings, numbers, damaged and unfinished files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crboost.acquisition.mdoc import Mdoc, parse_mdoc, parse_numbers, read_mdoc
from crboost.errors import FileFormatError

PATH = Path("TS_01.mdoc")


def parse(text: str | bytes) -> Mdoc:
    return parse_mdoc(text if isinstance(text, bytes) else text.encode(), PATH)


def test_header_titles_sections_and_line_numbers(mdoc_text):
    mdoc = parse(mdoc_text())
    assert mdoc.header.number("PixelSpacing") == 1.35
    assert mdoc.header.entry("Voltage").line == 2
    assert [title.line for title in mdoc.titles] == [7, 9]
    assert mdoc.titles[1].text.startswith("Tilt axis angle = 85.3")
    assert [(s.type, s.name) for s in mdoc.sections] == [("ZValue", str(z)) for z in range(3)]
    assert mdoc.sections[0].line == 11
    assert mdoc.sections[0].entries[0].key == "TiltAngle"
    assert mdoc.sections[0].entry("TiltAngle").line == 12
    assert mdoc.sections[0].numbers("StagePosition") == (20.7936, 155.287)
    assert mdoc.incomplete is None
    assert mdoc.kind == "tilt series"


@pytest.mark.parametrize("newline", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark_change_nothing(mdoc_text, newline, mark):
    text = mdoc_text()
    # The last line keeps a \n: without one a file counts as unfinished.
    text = text[:-1].replace("\n", newline) + "\n"
    mdoc, plain = parse(mark + text.encode()), parse(mdoc_text())
    assert mdoc.sections == plain.sections
    assert mdoc.header.entries == plain.header.entries


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_names_beyond_ascii(mdoc_text, encoding):
    text = mdoc_text(section={"NavigatorLabel": "Gitter Größe µ"})
    mdoc = parse(text.encode(encoding))
    assert mdoc.encoding == encoding
    assert mdoc.sections[1].text("NavigatorLabel") == "Gitter Größe µ"


def test_latin1_bytes_that_unicode_calls_line_ends(mdoc_text):
    text = mdoc_text(section={"Note": "a\x85b"})  # 0x85 in latin-1; str.splitlines would cut here
    assert parse(text.encode("latin-1")).sections[0].text("Note") == "a\x85b"


def test_utf8_cut_inside_a_character_stays_utf8(mdoc_text):
    data = mdoc_text(section={"Note": "Größe"}).encode() + "Note2 = µ".encode()[:-1]
    assert parse(data).sections[0].text("Note") == "Größe"


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("1.35", 1, (1.35,)),
        ("1,35", 1, (1.35,)),
        ("-0,5 1,25", 2, (-0.5, 1.25)),
        ("1.0 2.0", None, (1.0, 2.0)),
        ("4096 4096", 2, (4096.0, 4096.0)),
        ("4096,4096", 2, (4096.0, 4096.0)),
        ("4096, 4096", 2, (4096.0, 4096.0)),
        ("0 7  0 3", None, (0.0, 7.0, 0.0, 3.0)),
        ("1e-3", 1, (0.001,)),
        ("1.0 2.0", 1, None),
        ("1.2.3", 1, None),
        ("1,234.5", 1, None),
        ("information", 1, None),
        ("0x10", 1, None),
        ("1_000", 1, None),
        ("", None, None),
    ],
)
def test_numbers(text, count, expected):
    assert parse_numbers(text, count=count) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back_with_point_or_comma(value):
    assert parse_numbers(repr(value), count=1) == (value,)
    assert parse_numbers(repr(value).replace(".", ","), count=1) == (value,)


@pytest.mark.parametrize("text", ["nan", "-nan(ind)", "1.#QNAN", "INF", "-1.#IND"])
def test_unmeasured_values_are_none(mdoc_text, text):
    assert math.isnan(parse_numbers(text, count=1)[0])
    assert parse(mdoc_text(section={"Defocus": text})).sections[0].number("Defocus") is None


def test_repeated_keys_keep_every_value_and_the_last_wins():
    section = parse("[ZValue = 0]\nTiltAngle = 1\nNote = a\nNote = b\nDateTime = x\n").sections[0]
    assert section.texts("Note") == ("a", "b")
    assert section.text("Note") == "b"


def test_a_bad_number_names_file_line_key_and_value():
    section = parse("[ZValue = 0]\nTiltAngle = 1\nDateTime = x\nBinning = two\n").sections[0]
    with pytest.raises(FileFormatError, match=r"TS_01.mdoc:4: Binning = two should be a number"):
        section.number("Binning")
    with pytest.raises(FileFormatError, match="should be 2 numbers"):
        section.numbers("TiltAngle", count=2)


def test_whole_numbers_only_where_wanted():
    section = parse("[ZValue = 0]\nTiltAngle = 1.5\nDateTime = x\nNumSubFrames = 8.0\n").sections[0]
    assert section.integer("NumSubFrames") == 8
    with pytest.raises(FileFormatError, match="whole number"):
        section.integer("TiltAngle")


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"", None, "empty"),
        (b" \n\n", None, "empty"),
        (b"PixelSpacing = 1\n", None, "section"),
        (b"[ZValue = 0]\nTiltAngle = 1\nabc\0def\n", 3, "binary"),
        (b"[ZValue = 0]\nTiltAngle = 1\nwhat is this\nDateTime = x\n", 3, "what is this"),
        (b"hello\n[ZValue = 0]\n", 1, "hello"),
        (b"[ZValue = 0]\n= 3\nDateTime = x\n", 2, "= 3"),
        (b"[ZValue 0]\nTiltAngle = 1\n", 1, "bad section line"),
        (b"[ZValue = 0\nTiltAngle = 1\n", 1, "bad section line"),
    ],
)
def test_what_is_no_mdoc_is_refused_with_its_line(data, line, message):
    with pytest.raises(FileFormatError, match=message) as caught:
        parse(data)
    assert caught.value.line == line
    assert caught.value.path == PATH


def test_an_mrc_stack_is_refused(tmp_path):
    path = tmp_path / "TS_01.mrc.mdoc"
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(FileFormatError, match="binary"):
        read_mdoc(path)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "movie.mdoc"
    with path.open("wb") as stream:
        stream.truncate(65 * 1024 * 1024)
    with pytest.raises(FileFormatError, match="too many for an mdoc"):
        read_mdoc(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    try:
        mdoc = parse_mdoc(data, PATH)
    except FileFormatError:
        return
    assert mdoc.sections or mdoc.incomplete


@given(st.text(alphabet="[]=ZValue T\n\r0123#,.-µ", max_size=200))
def test_any_text_like_an_mdoc_is_read_or_refused(text):
    try:
        mdoc = parse(text)
    except FileFormatError:
        return
    assert mdoc.sections or mdoc.incomplete


class TestUnfinished:
    def test_last_section_lacking_a_key_is_left_out_and_told(self, mdoc_text):
        mdoc = parse(mdoc_text(sections={2: {"DateTime": None, "NumSubFrames": None}}))
        assert "[ZValue = 2]" in mdoc.incomplete
        assert "DateTime, NumSubFrames" in mdoc.incomplete
        assert len(mdoc.sections) == 2

    def test_a_key_that_only_some_sections_have_is_not_missed(self, mdoc_text):
        assert parse(mdoc_text(sections={0: {"NavigatorLabel": "7"}})).incomplete is None

    def test_one_section_must_have_angle_and_time(self, mdoc_text):
        assert parse(mdoc_text((0.0,))).incomplete is None
        assert "DateTime" in parse(mdoc_text((0.0,), section={"DateTime": None})).incomplete

    def test_no_final_newline_after_a_whole_value_keeps_the_section(self, mdoc_text):
        mdoc = parse(mdoc_text()[:-1])
        assert "middle of a line" in mdoc.incomplete
        assert len(mdoc.sections) == 3

    def test_a_number_that_may_be_cut_is_not_believed(self, mdoc_text):
        text = mdoc_text(section={"Zeta": "100"})  # comes last
        mdoc = parse(text[:-2])  # Zeta = 10
        assert "no Zeta yet" in mdoc.incomplete
        assert len(mdoc.sections) == 2

    def test_cut_at_every_byte_never_changes_what_is_told(self, mdoc_text):
        data = mdoc_text(section={"Note": "µ"}).replace("\n", "\r\n").encode()
        check_every_cut(data, step=1)


def check_every_cut(data: bytes, step: int) -> None:
    """Cut anywhere, a file is refused, called incomplete, or ends after a whole section.

    The sections that it gives are the whole file's. Where all of them have the same keys, only
    the file that ends where a section ended passes as complete: nothing in it is missing.
    """
    whole = parse_mdoc(data, PATH)
    uniform = len({(section.type, section.keys()) for section in whole.sections}) == 1
    for length in range(0, len(data), step):
        try:
            cut = parse_mdoc(data[:length], PATH)
        except FileFormatError:
            continue
        count = len(cut.sections)
        assert cut.sections[:-1] == whole.sections[: max(count - 1, 0)], length
        if count:
            last, original = cut.sections[-1], whole.sections[count - 1]
            assert last.entries == original.entries[: len(last.entries)], length
        if cut.incomplete is None:
            assert data[:length].endswith(b"\n"), length
            if uniform and count > 1:
                assert cut.sections == whole.sections[:count], length
                assert data[length:].lstrip()[:1] in (b"[", b""), length


class TestKinds:
    def test_single_movie(self):
        text = "T = SerialEM: x\nVoltage = 300\n\n[FrameSet = 0]\nTiltAngle = 1\nDateTime = x\n"
        mdoc = parse(text)
        assert mdoc.kind == "single movie"
        assert mdoc.titles[0].text == "SerialEM: x"
        assert mdoc.header.text("T") is None

    def test_a_movie_of_a_whole_tilt_series_is_a_single_movie(self):
        text = (
            "Voltage = 300\n[FrameSet = 0]\nDateTime = x\n"
            "[ZValue = 0]\nTiltAngle = 1\nExposureDose = 2\nDateTime = x\n"
        )
        assert parse(text).kind == "single movie"

    def test_montage_by_its_pieces(self, mdoc_text):
        pieces = {z: {"PieceCoordinates": f"0 {3400 * z} 0"} for z in range(3)}
        assert parse(mdoc_text(sections=pieces)).kind == "montage"

    def test_montage_by_its_header(self, mdoc_text):
        text = mdoc_text(header={"Montage": "1"}, section={"SubFramePath": None})
        assert parse(text).kind == "montage"

    def test_a_tilt_series_taken_as_a_one_piece_montage(self, mdoc_text):
        pieces = {z: {"PieceCoordinates": f"0 0 {z}"} for z in range(3)}
        mdoc = parse(mdoc_text(header={"Montage": "1"}, sections=pieces))
        assert mdoc.kind == "tilt series"

    def test_images(self):
        assert parse("[Image = a.tif]\nTiltAngle = 3\n").kind == "images"


class TestRealFiles:
    def test_read_whole(self, real_mdoc):
        mdoc = read_mdoc(real_mdoc)
        assert mdoc.incomplete is None
        assert mdoc.sections

    def test_cut_anywhere(self, real_mdoc):
        data = real_mdoc.read_bytes()
        check_every_cut(data, step=max(1, len(data) // 400))

    def test_agrees_with_mdocfile(self, real_mdoc):
        """mdocfile is right about the sections' numbers (not about paths and headers)."""
        from mdocfile.data_models import Mdoc as Oracle

        oracle = Oracle.from_file(real_mdoc)
        mdoc = read_mdoc(real_mdoc)
        assert len(mdoc.sections) == len(oracle.section_data)
        for section, expected in zip(mdoc.sections, oracle.section_data, strict=True):
            for key in ("TiltAngle", "ExposureDose", "DoseRate", "Defocus", "TargetDefocus"):
                assert section.number(key) == getattr(expected, key), key
            for key in ("ExposureTime", "RotationAngle", "Binning", "PixelSpacing", "StageZ"):
                assert section.number(key) == getattr(expected, key), key
            for key in ("NumSubFrames", "Magnification", "PriorRecordDose"):
                assert section.number(key) == getattr(expected, key), key
            for key in ("StagePosition", "ImageShift", "MinMaxMean", "PieceCoordinates"):
                assert section.numbers(key) == getattr(expected, key), key
            assert section.text("DateTime") == expected.DateTime
            if expected.ZValue is not None:
                assert int(section.name) == expected.ZValue
