"""crboost init and crboost example-data."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crboost.cli.init import spread

if TYPE_CHECKING:
    from conftest import Crboost

    from crboost.cpu.example_data import ExampleData


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("P --movies a --mdocs b", "P --movies a --mdocs b"),
        ("P --movies a b c --mdocs d e", "P --movies a --movies b --movies c --mdocs d --mdocs e"),
        ("--movies a b --mdocs c d P", "--movies a --movies b --mdocs c --mdocs d P"),
        ("--movies a --mdocs c P", "--movies a --mdocs c P"),
        ("--movies a --name n P --mdocs b c", "--movies a --name n P --mdocs b --mdocs c"),
        ("--name n --movies a b P --mdocs c d", "--name n --movies a --movies b --movies P "
         "--mdocs c d"),
        ("P --movies=a b --gain g --mdocs=c", "P --movies a --movies b --gain g --mdocs c"),
        ("P --movies a --movies b --mdocs c", "P --movies a --movies b --mdocs c"),
        ("P --movies --mdocs c", "P --mdocs c"),
        ("P --movies a --mdocs b --gain", "P --movies a --mdocs b --gain"),
        ("--movies a --mdocs c -- P", "--movies a --mdocs c -- P"),
        ("--help", "--help"),
    ],
)  # fmt: skip
def test_lists_that_the_shell_expanded(typed: str, meant: str) -> None:
    assert spread(typed.split()) == meant.split()


def test_quoted_patterns(crboost: Crboost, project: Path, example: ExampleData) -> None:
    parameters = json.loads((project / "project_params.json").read_text())
    assert parameters["microscope"]["pixel_size_angstrom"] == 4.0
    origin = parameters["origins"]["microscope.pixel_size_angstrom"]
    assert origin["source"] == "mdoc"
    assert "TS_01.mdoc" in origin["detail"]
    links = sorted((project / "frames").iterdir())
    assert len(links) == sum(len(series.movies) for series in example.series)
    assert all(link.is_symlink() for link in links)


def test_files_instead_of_patterns_and_the_project_last(
    crboost: Crboost, tmp_path: Path, example: ExampleData
) -> None:
    movies = sorted(example.frames_directory.iterdir())
    made = crboost("init", "--movies", *movies, "--mdocs", *example.mdocs, tmp_path / "p")
    assert made.returncode == 0, made.stderr
    assert "3 tilt series: TS_01, TS_02, TS_03" in made.stdout
    assert "Warning: TS_02.mdoc: 1 of 9 movies are missing" in made.stderr


def test_the_next_commands_can_be_pasted(
    crboost: Crboost, tmp_path: Path, example: ExampleData
) -> None:
    directory = tmp_path / 'it\'s "mine" $HOME'
    made = crboost(
        "init", directory, "--movies", example.directory / "frames/*", "--mdocs",
        *example.mdocs, "--name", "named",
    )  # fmt: skip
    lines = [line for line in made.stdout.splitlines() if line.startswith("  crboost")]
    assert [shlex.split(line)[1] for line in lines] == ["parameters", "plan", "run"]
    for line in lines[:2]:
        done = crboost(*shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
    assert json.loads((directory / "project_params.json").read_text())["project_name"] == "named"


def test_nothing_that_fits_is_refused_and_nothing_is_made(crboost: Crboost, tmp_path: Path) -> None:
    made = crboost("init", tmp_path / "p", "--movies", "*.eer", "--mdocs", "*.mdoc")
    assert made.returncode == 2
    assert "no movie fits *.eer" in made.stderr
    assert not (tmp_path / "p").exists()


def test_a_second_project_in_the_same_place_is_refused(
    crboost: Crboost, project: Path, example: ExampleData
) -> None:
    again = crboost(
        "init", project, "--movies", example.directory / "frames/*", "--mdocs", *example.mdocs
    )
    assert again.returncode == 2
    assert "already holds a project" in again.stderr


def test_example_data_says_how_to_go_on(crboost: Crboost, tmp_path: Path) -> None:
    directory = tmp_path / "two words"
    made = crboost("example-data", directory, "--size", 128, "--frames", 2, "--series", 1)
    assert made.returncode == 0, made.stderr
    assert "\x1b" not in made.stdout
    assert (directory / "truth.json").is_file()
    following = shlex.split(made.stdout.splitlines()[-1])
    assert crboost(*following[1:]).returncode == 0
    again = crboost("example-data", directory)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_the_demo_mixes_with_nothing(crboost: Crboost, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = crboost("demo", "--keep", tmp_path)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
