"""The contract of WarpTools' command line, and what it says of right and wrong commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from crboost.builders.contract import check, contract, known_version, number
from crboost.errors import ParameterError

DEV29, DEV36, NEWEST = "2.0.0dev29", "2.0.0dev36", "2.0.0dev39-92"
SETTINGS = ("WarpTools", "create_settings", "--output", "x.settings", "--folder_data", "frames")


def told(*argv: str, version: str | None = None) -> list[str]:
    return [str(problem) for problem in check(("WarpTools", *argv), version)]


def test_the_contract_has_every_command_and_names_its_source() -> None:
    known = contract()
    assert len(known.commands) == 30
    assert sum(len(options) for options in known.commands.values()) == 645
    assert list(known.versions) == [DEV29, DEV36, NEWEST]
    assert all(len(commit) == 40 for commit in known.versions.values())
    assert known.repository == "https://github.com/warpem/warp"
    for options in known.commands.values():
        for option in options.values():
            assert option.versions
            assert option.value_type in ("flag", "string", "int", "float")


@pytest.mark.skipif("CRBOOST_WARPTOOLS_CLI" not in os.environ, reason="no list of all options")
def test_the_contract_is_what_the_source_says() -> None:
    raw = json.loads(Path(os.environ["CRBOOST_WARPTOOLS_CLI"]).read_text(encoding="utf-8"))
    meta = raw.pop("_meta")
    known = contract()
    labels = {"v2.0.0dev29": DEV29, "v2.0.0dev36": DEV36, "HEAD": NEWEST}
    commits = {**meta["also_compared"], "HEAD": meta["commit"]}
    assert known.repository == meta["repository"]
    assert known.versions == {labels[label]: commit for label, commit in commits.items()}
    assert set(raw) == set(known.commands)
    for command, options in raw.items():
        assert set(options) == set(known.commands[command]), command
        for name, facts in options.items():
            ours = known.commands[command][name]
            assert (ours.type, ours.required, ours.default, ours.short, ours.versions) == (
                facts["type"],
                facts["required"],
                None if facts["type"] == "flag" else facts["default"],
                facts.get("short"),
                tuple(labels[label] for label in facts["in_versions"]),
            ), (command, name)


@pytest.mark.parametrize("version", [None, DEV29, DEV36, NEWEST])
def test_a_right_command_passes(version: str | None) -> None:
    assert check((*SETTINGS, "--angpix", "1.35", "--eer_ngroups", "-32"), version) == []
    assert check(("/opt/bin/WarpTools", *SETTINGS[1:], "--angpix=1.35"), version) == []
    assert check(("WarpTools", "create_settings", "-o", "x", *SETTINGS[4:], "--angpix", "1")) == []
    several = ("fs_motion_and_ctf", "--settings", "s", "--device_list", "0", "1", "--c_use_sum")
    assert check(("WarpTools", *several), version) == []


@pytest.mark.parametrize(
    ("argv", "message", "effect"),
    [
        (("ts_align", "--settings", "s"), "no command 'ts_align'; known are change_sel", "exits_0"),
        (("ts_aretom", "--settings", "s"), "did you mean ts_aretomo?", "exits_0"),
        ((), "no command is given", "exits_0"),
        (("ts_ctf", "--setings", "s"), "ts_ctf has no option --setings; did you mean --settings?",
         "exits_0"),
        (("ts_ctf", "--settings", "s", "-x", "1"), "no option -x", "exits_0"),
        (("ts_ctf", "--window", "512"), "ts_ctf needs --settings, which is missing", "exits_0"),
        (("ts_ctf", "--settings", "s", "--window"), "--window needs a value, and none", "exits_0"),
        (("ts_ctf", "--settings", "--window", "512"), "--settings needs a value", "exits_0"),
        (("ts_ctf", "--settings", "s", "--window", "512.0"),
         "--window = '512.0' must be a whole number", "exits_0"),
        (("ts_ctf", "--settings", "s", "--cs", "2,7"), "--cs = '2,7' must be a number", "exits_0"),
        (("ts_ctf", "--settings", "s", "--cs", "nan"), "must be a number", "exits_0"),
        (("ts_ctf", "--settings", "s", "--cs", "-.5"), "no option -.5", "exits_0"),
        (("ts_ctf", "--settings", "s", "--window", "512", "--window", "256"),
         "--window is given twice", "exits_0"),
        (("ts_ctf", "--settings", "s", "--window", "3000000000"), "whole number", "exits_0"),
        (("ts_ctf", "--settings", "s", "--device_list", "0", "a"),
         "--device_list = 'a'", "exits_0"),
        (("ts_ctf", "stray", "--settings", "s"), "'stray' before any option", "ignored"),
        (("ts_ctf", "--settings", "s", "t"), "'t' after the value of --settings", "ignored"),
        (("ts_defocus_hand", "--settings", "s"), "needs one of --check, --set_auto", "fails"),
        (("ts_defocus_hand", "--settings", "s", "--check", "--set_flip"),
         "--check and --set_flip exclude each other", "fails"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_told(argv: tuple[str, ...], message: str, effect: str) -> None:
    problems = check(("WarpTools", *argv))
    assert any(message in str(problem) and problem.effect == effect for problem in problems), (
        problems
    )
    assert all(problem.hint for problem in problems)


def test_every_problem_is_told_at_once() -> None:
    assert len(told("ts_ctf", "--window", "x", "--cs", "y", "--nope")) == 4


def test_bug_b3_gain_options_that_never_existed() -> None:
    """B3: --gain_reference and --gain_operations made create_settings print its help, exit 0."""
    wrong = (*SETTINGS, "--angpix", "1", "--gain_reference", "g.mrc", "--gain_operations", "flip_x")
    for version in contract().versions:
        first, second = check(wrong, version)
        assert (first.option, first.effect) == ("--gain_reference", "exits_0")
        assert (second.option, second.effect) == ("--gain_operations", "exits_0")


def test_bug_b4_do_at_most_is_no_option() -> None:
    """B4: with --do_at_most the command did nothing at all."""
    for command, options in contract().commands.items():
        assert "do_at_most" not in options, command
    assert "has no option --do_at_most" in told("ts_ctf", "--settings", "s", "--do_at_most", "1")[0]


@pytest.mark.parametrize("switch", ["halfmap_frames", "deconv"])
def test_bug_b5_a_switch_takes_no_value(switch: str) -> None:
    """B5: `--deconv 0` switches on."""
    argv = ("WarpTools", "ts_reconstruct", "--settings", "s", "--angpix", "10", f"--{switch}")
    assert check(argv) == []
    (problem,) = check((*argv, "0"))
    assert problem.effect == "ignored"
    assert f"to switch it off, leave --{switch} out" in problem.hint


def test_bug_b37_errors_that_the_tool_itself_hides_are_marked() -> None:
    """B37: WarpTools exits 0 on argument errors; those are the ones that nobody else will see."""
    assert check(("WarpTools", "ts_ctf"))[0].effect == "exits_0"


def test_options_come_and_go_with_the_versions() -> None:
    thumbnails = ("ts_aretomo", "--settings", "s", "--alignz", "1", "--thumbnails")
    assert told(*thumbnails, version=DEV36) == []
    assert "WarpTools 2.0.0dev29 has no option --thumbnails" in told(*thumbnails, version=DEV29)[0]
    assert "2.0.0dev29 has none; say in the settings" in told(*thumbnails)[0]
    workers = ("ts_aretomo", "--settings", "s", "--alignz", "1", "--workers", "node7:3000")
    assert told(*workers, version=DEV29) == []
    assert "has no option --workers" in told(*workers, version=NEWEST)[0]


def test_a_command_that_a_version_lacks() -> None:
    assert told("ts_aretomo3", "--settings", "s", version=DEV36) == []
    assert told("ts_aretomo3", "--settings", "s", version=DEV29) == [
        "WarpTools 2.0.0dev29 has no command ts_aretomo3; leave it out, or install another "
        "version and set tools.warp.version"
    ]


@pytest.mark.parametrize(
    ("configured", "version"),
    [
        (None, None),
        ("2.0.0dev29", DEV29),
        ("v2.0.0dev36", DEV36),
        ("2.0.0dev33", DEV29),
        ("2.0.0dev39", DEV36),
        ("v2.0.0dev39-92-ge3213444", NEWEST),
        ("2.0.0dev41", NEWEST),
        ("2.0.0", NEWEST),
        ("2.0", NEWEST),
    ],
)
def test_a_version_between_two_counts_as_the_older(
    configured: str | None, version: str | None
) -> None:
    assert known_version(configured) == version


@pytest.mark.parametrize("configured", ["1.0.9", "newest", "2.0.0dev3", ""])
def test_a_version_that_is_none(configured: str) -> None:
    with pytest.raises(ParameterError, match=r"tools\.warp\.version"):
        known_version(configured)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.35, "1.35"), (12.0, "12"), (-500, "-500"), (1e-05, "0.00001"), (1e20, "1" + "0" * 20),
     (0.1 + 0.2, "0.30000000000000004")],
)  # fmt: skip
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


def test_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="nan"):
        number(float("nan"))
