"""The real command on real, small data: 128 px, 7 tilts, 2 frames."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crboost.cpu.example_data import ExampleData, make_example_data

Crboost = Callable[..., subprocess.CompletedProcess[str]]
Files = Callable[[Path], dict[Path, tuple[int, int]]]


def environment(home: Path) -> dict[str, str]:
    """A user without settings, without a Prefect server, with an empty home."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "CRBOOST_", "XDG_"))
    }
    return {**kept, "HOME": str(home), "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}


def call(home: Path, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `crboost` as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "crboost", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(home),
        cwd=cwd or home,
        timeout=300,
        check=False,
    )


@pytest.fixture
def crboost(tmp_path: Path) -> Crboost:
    """The command, in an empty home directory."""
    home = tmp_path / "home"
    home.mkdir()

    def run(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return call(home, *words, cwd=cwd)

    return run


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> ExampleData:
    """Three tilt series; the directory's name needs quoting."""
    return make_example_data(
        tmp_path_factory.mktemp("session's data"), size_px=192, frames=3, tilt_step_deg=15.0
    )


@pytest.fixture
def project(tmp_path: Path, example: ExampleData, crboost: Crboost) -> Path:
    """A new project; nothing has run."""
    directory = tmp_path / "my project"
    made = crboost(
        "init", directory, "--movies", example.directory / "frames/*", "--mdocs",
        example.directory / "*.mdoc",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, example: ExampleData
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project after `crboost run`, and what the command said. For looking, not for changing."""
    base = tmp_path_factory.mktemp("finished")
    call(
        base, "init", base / "project", "--movies", example.directory / "frames/*", "--mdocs",
        example.directory / "*.mdoc",
    )  # fmt: skip
    return base / "project", call(base, "run", base / "project")


@pytest.fixture
def done(finished: tuple[Path, object], tmp_path: Path) -> Path:
    """A copy of the finished project, to be changed."""
    copy = tmp_path / "copy of it"
    shutil.copytree(finished[0], copy, symlinks=True)
    return copy


@pytest.fixture
def files() -> Files:
    """Every file below a directory, with its time and size."""

    def look(directory: Path) -> dict[Path, tuple[int, int]]:
        found = (path for path in directory.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    return look
