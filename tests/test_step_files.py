"""What a step needs around it: nothing old, its links, its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.builders.step import Step
from crboost.errors import ProjectError
from crboost.step_files import prepare

WORK = "External/job002/warp/TS_01"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one movie, which is a link to raw data."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.eer").write_text("movie")
    directory = tmp_path / "project"
    (directory / "frames").mkdir(parents=True)
    (directory / "frames" / "a.eer").symlink_to(raw / "a.eer")
    return directory


def step(**values: object) -> Step:
    return Step("test", ("true",), **values)  # type: ignore[arg-type]


def test_directory_links_and_files_are_there(project: Path) -> None:
    made = step(
        directory=WORK,
        links={f"{WORK}/frames/a.eer": "frames/a.eer"},
        files={f"{WORK}/mdoc/TS_01.mdoc": "text"},
    )
    for _ in range(2):
        prepare(project, made)
    link = project / WORK / "frames" / "a.eer"
    assert link.read_text() == "movie"
    assert str(link.readlink()) == "../../../../../frames/a.eer"
    moved = project.rename(project.with_name("moved"))
    assert (moved / WORK / "frames" / "a.eer").read_text() == "movie"
    assert (moved / WORK / "mdoc" / "TS_01.mdoc").read_text() == "text"


def test_bug_b8_nothing_old_is_left(project: Path) -> None:
    """B8: settings that were there already were kept, and new parameters had no effect."""
    old = project / WORK
    (old / "frames").mkdir(parents=True)
    (old / "frames" / "a.eer").symlink_to(project / "frames" / "a.eer")
    (old / "x.settings").write_text("old")
    (old / "out").mkdir()
    (old / "out" / "a.xml").write_text("old")
    prepare(
        project,
        step(
            directory=WORK,
            clears=(f"{WORK}/frames", f"{WORK}/out", f"{WORK}/never_there"),
            creates=(f"{WORK}/x.settings",),
        ),
    )
    assert list(old.iterdir()) == []
    assert (project.parent / "raw" / "a.eer").read_text() == "movie"


def test_a_link_that_leads_elsewhere_is_made_anew(project: Path) -> None:
    link = project / "work" / "a.eer"
    link.parent.mkdir()
    link.symlink_to("nowhere")
    prepare(project, step(links={"work/a.eer": "frames/a.eer"}))
    assert link.read_text() == "movie"


def test_a_file_is_not_replaced_by_a_link(project: Path) -> None:
    (project / "a.eer").write_text("mine")
    with pytest.raises(ProjectError, match=r"a\.eer is a file, where a link"):
        prepare(project, step(links={"a.eer": "frames/a.eer"}))


@pytest.mark.parametrize(
    "values", [{"clears": ("../raw",)}, {"creates": ("/etc/x",)}, {"directory": ".."}]
)
def test_nothing_outside_the_project_is_touched(project: Path, values: dict[str, object]) -> None:
    with pytest.raises(ProjectError, match="must be inside the project"):
        prepare(project, step(**values))
    assert (project.parent / "raw" / "a.eer").exists()
