"""A bad spec is refused with the file, the field and the value."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.cpu.spec import Fields, read_spec
from crboost.errors import FileFormatError, ParameterError


def test_values_come_out_typed() -> None:
    fields = Fields(
        {"n": 3, "x": 2, "t": "a", "b": True, "r": [1, 2.5], "c": "beads", "none": None}, "s.json"
    )
    assert fields.integer("n") == 3
    assert fields.number("x") == 2.0
    assert fields.text("t") == "a"
    assert fields.flag("b", default=False)
    assert fields.numbers("r", 2) == (1.0, 2.5)
    assert fields.choice("c", ("auto", "beads"), default="auto") == "beads"
    assert fields.choice("d", ("auto", "beads"), default="auto") == "auto"
    assert fields.optional_number("none") is None
    assert fields.optional_path("none") is None
    assert fields.path("t") == Path("a")
    assert not fields.has("none")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.number("missing"), r"s\.json: field 'missing' is missing"),
        (lambda f: f.number("t"), "field 't' is 'a', must be a number"),
        (lambda f: f.number("b"), "field 'b' is True, must be a number"),
        (lambda f: f.number("x", above=2), "field 'x' is 2, must be above 2"),
        (lambda f: f.number("x", at_least=3), "field 'x' is 2, must be at least 3"),
        (lambda f: f.integer("h"), "field 'h' is 2.5, must be a whole number"),
        (lambda f: f.integer("x", at_least=5), "field 'x' is 2, must be at least 5"),
        (lambda f: f.text("x"), "field 'x' is 2, must be a text"),
        (lambda f: f.flag("x", default=True), "field 'x' is 2, must be true or false"),
        (lambda f: f.numbers("r", 3), "must be a list of 3 numbers"),
        (lambda f: f.numbers("m", 2), "must be a list of 2 numbers"),
        (lambda f: f.choice("t", ("auto",), default="auto"), "must be one of auto"),
        (lambda f: f.objects("e"), "must be a list that is not empty"),
        (lambda f: f.objects("r"), r"s\.json: r\[0\]: must be an object, not int"),
    ],
)
def test_bad_values(call: object, message: str) -> None:
    fields = Fields(
        {"x": 2, "h": 2.5, "t": "a", "b": True, "r": [1, 2], "m": [1, "2"], "e": []}, "s.json"
    )
    with pytest.raises(ParameterError, match=message):
        call(fields)  # type: ignore[operator]


def test_nested_objects_say_where_they_are() -> None:
    tilts = Fields({"tilts": [{"name": "a"}, {}]}, "s.json").objects("tilts")
    assert tilts[0].text("name") == "a"
    with pytest.raises(ParameterError, match=r"s\.json: tilts\[1\]: field 'name' is missing"):
        tilts[1].text("name")


def test_a_spec_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"spec\.json: the spec is missing"):
        read_spec(tmp_path / "spec.json")
    (tmp_path / "spec.json").write_text("{\n oops")
    with pytest.raises(FileFormatError, match=r"spec\.json:2: not valid JSON"):
        read_spec(tmp_path / "spec.json")
