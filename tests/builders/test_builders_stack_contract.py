"""What AreTomo2, AreTomo3 and IMOD accept."""

from __future__ import annotations

import pytest

from crboost.builders.stack_contract import check, contract, parsed


def test_every_program_names_its_source() -> None:
    known = contract()
    assert set(known["source"]) == set(known["programs"])
    for source in known["source"].values():
        assert source["repository"].startswith("https://")
        assert len(source["commit"]) == 40
    for program in known["programs"].values():
        for option in program["options"].values():
            least, most = option["values"]
            assert most is None or most >= least
            assert ("type" in option) == (most != 0)


@pytest.mark.parametrize(
    "argv",
    [
        "AreTomo2 -InMrc a.st -OutMrc b.mrc -TiltAxis -85.3 -1 -DarkTol .7 -Gpu 0 1 2",
        "/opt/AreTomo3 -InPrefix TS_01 -InSuffix .st -kV 300 -AtPatch 4 4 -CorrCTF 0 0",
        "newstack -mode 2 -shrink 2.5 a.mrc b.mrc c.st",
        "newstack -ModeToOutput 2 -input a.mrc -input b.mrc -output c.st",
        "batchruntomo -directive a.adoc -root TS_01 -end 5",
        "submfg -t -n 5 align.com",
    ],
)
def test_a_right_command_passes(argv: str) -> None:
    assert check(argv.split()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("AreTomo2 -InMrc a -OutMrc b -Patches 4 4", "AreTomo2 has no option -Patches"),
        ("AreTomo2 -InMrc a -OutMrc b -AtPatch 4 4", "AreTomo2 has no option -AtPatch"),
        ("AreTomo2 -OutMrc b", "AreTomo2 needs -InMrc"),
        ("AreTomo2 -InMrc a -OutMrc b -AlignZ 1.5", "-AlignZ = '1.5' is not of type int"),
        ("AreTomo2 -InMrc a -OutMrc b -AlignZ", "-AlignZ takes a value, not 0"),
        ("AreTomo2 -InMrc a -OutMrc b -VolZ 1 2", "AreTomo2: '2' belongs to no option"),
        ("AreTomo2 -InMrc a -OutMrc b -DarkTol nan", "-DarkTol = 'nan' is not of type float"),
        ("AreTomo2 -InMrc a -InMrc c -OutMrc b", "-InMrc is given twice"),
        ("AreTomo3 -InSuffix .st", "AreTomo3 needs -InPrefix"),
        ("newstack -mode 2 a.mrc", "newstack needs 2 files or more, not 1"),
        ("newstack -size 12;12 a b", "-size = '12;12' is not of type numbers"),
        ("batchruntomo -RootName x", "batchruntomo needs -DirectiveFile"),
        ("submfg -x align.com", "submfg has no option -x"),
        ("tilt -a b", "neither AreTomo nor IMOD has a program 'tilt' that is known here"),
        ("", "neither AreTomo nor IMOD has a program ''"),
    ],
)
def test_a_wrong_command_is_told(argv: str, message: str) -> None:
    found = check(argv.split())
    assert any(message in problem for problem in found), found


def test_every_problem_is_told_at_once() -> None:
    assert len(check(["AreTomo2", "-InMrc", "a", "-AlignZ", "x", "-Nope", "1", "2"])) == 3


def test_options_come_apart_from_words() -> None:
    argv = ["newstack", "-shrink", "2", "-input", "a.mrc", "-input", "b.mrc", "x.mrc", "y.st"]
    options, words = parsed(argv)
    assert options == {"-ShrinkByFactor": ["2"], "-InputFile": ["a.mrc", "b.mrc"]}
    assert words == ["x.mrc", "y.st"]
