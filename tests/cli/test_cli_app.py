"""What every command has in common: help, version, errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from crboost import __version__
from crboost.cli.app import app
from crboost.cli.commands import parse_changes
from crboost.errors import CrboostError

if TYPE_CHECKING:
    from conftest import Crboost

COMMANDS = [
    "demo", "example-data", "init", "set", "parameters", "schema", "plan", "run", "status", "log",
    "history", "schemer", "job",
]  # fmt: skip


def test_version(crboost: Crboost) -> None:
    done = crboost("--version")
    assert (done.returncode, done.stdout) == (0, f"crboost {__version__}\n")


def test_help_names_every_command_and_has_no_escape_codes(crboost: Crboost) -> None:
    done = crboost("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.stdout


def test_an_error_is_a_message_a_hint_and_exit_code_2(crboost: Crboost, tmp_path: Path) -> None:
    done = crboost("status", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    message, hint = done.stderr.splitlines()
    assert message.startswith(f"Error: {tmp_path}/nowhere does not exist")
    assert hint.startswith("  -> create one with `crboost init")


def test_debug_shows_the_traceback(crboost: Crboost, tmp_path: Path) -> None:
    done = crboost("--debug", "status", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ProjectError" in done.stderr


def test_an_unknown_command_is_refused(crboost: Crboost) -> None:
    done = crboost("strat")
    assert done.returncode == 2
    assert "strat" in done.stderr


def test_looking_leaves_nothing_in_the_home(crboost: Crboost, project: Path) -> None:
    home = project.parent / "home"
    for command in ("plan", "status", "history", "parameters"):
        assert crboost(command, project).returncode == 0
    assert list(home.iterdir()) == []


def test_changes_are_parsed_at_the_first_equals_sign() -> None:
    assert parse_changes(["a.b=1", " c.d = x=y "]) == {"a.b": "1", "c.d": "x=y"}
    assert parse_changes(None) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["a.b"], "'a.b' is not NAME=VALUE"), (["=1"], "not NAME=VALUE"), (["a=1", "a=2"], "twice")],
)
def test_changes_that_are_none_are_named(texts: list[str], message: str) -> None:
    with pytest.raises(CrboostError, match=message):
        parse_changes(texts)
