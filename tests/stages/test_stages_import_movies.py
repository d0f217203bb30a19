"""The import of a session: partial series are marked, and a late movie redoes its series alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.acquisition.arrivals import Patience
from crboost.acquisition.facts import Fact, SeriesComplete, SeriesPartial, SeriesReopened
from crboost.acquisition.intake import take_in
from crboost.acquisition.taken import SeriesIntake
from crboost.acquisition.watch import Watcher
from crboost.cpu.example_data import make_example_data
from crboost.overview import read_overview
from crboost.plan import Plan
from crboost.project import Project
from crboost.results import SeriesResult, read_results
from crboost.run import Run
from crboost.settings import Settings
from crboost.stages.import_movies import find_series, series_fingerprints, taken_as

pytestmark = pytest.mark.slow

AT_ONCE = Patience(stable_seconds=0, mdoc_quiet_seconds=0, partial_after_seconds=0)
CHAIN = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
LATE = "TS_01_003_-20.0.tif"


@dataclass(frozen=True)
class Stay:
    """A session that was processed twice: before and after a late movie of TS_01.

    Attributes:
        second: what the second run was to do.
        before, after: job -> tilt series -> result.
    """

    project: Project
    linked: list[str]
    second: Plan
    before: dict[str, dict[str, SeriesResult]]
    after: dict[str, dict[str, SeriesResult]]


def take_in_news(project: Project, raw: Path) -> list[str]:
    """What the service's watcher does."""
    state = project.directory / ".crboost" / "arrivals.json"
    with Watcher([raw], AT_ONCE, state_file=state) as watcher:
        reports = watcher.look()
        taken = take_in(project, [raw], [report.fact for report in reports])
        watcher.acknowledge(reports)
    return taken.linked


def run(project: Project) -> Plan:
    """What a run in mode `continue` does, with the local schemer."""
    plan = project.plan(CHAIN, mode="continue")
    made = Run.create(project, plan, project.parameters(), Settings(), now=datetime.now(UTC))
    code = "import sys; from crboost.cli import main; main()"
    argv = [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name]
    subprocess.run(argv, check=True, capture_output=True)
    assert [made.job_state(node).phase for node in made.nodes] == ["succeeded"] * len(made.nodes)
    return plan


def results(project: Project) -> dict[str, dict[str, SeriesResult]]:
    return {
        node: read_results(project.directory / f"External/job00{number}")
        for number, node in enumerate(CHAIN, start=1)
    }


@pytest.fixture(scope="module")
def stay(tmp_path_factory: pytest.TempPathFactory) -> Stay:
    base = tmp_path_factory.mktemp("stay")
    raw = base / "raw"
    make_example_data(raw, size_px=192, frames=2, tilt_step_deg=20.0)
    late = raw / "frames" / LATE
    late.rename(base / LATE)
    project = Project.create_empty(
        base / "P",
        watch=[raw],
        values={"acquisition.sample_thickness_nm": "80", "computing.workers": "2"},
    )
    take_in_news(project, raw)
    run(project)
    before = results(project)
    (base / LATE).rename(late)
    linked = take_in_news(project, raw)
    second = run(project)
    return Stay(project, linked, second, before, results(project))


def test_a_partial_series_is_processed_and_marked(stay: Stay) -> None:
    for name, lost in (("TS_01", LATE), ("TS_02", "TS_02_002_20.0.mrc")):
        imported = stay.before["importmovies"][name]
        assert imported.status == "done"
        assert (imported.metrics["tilts"], imported.metrics["tilts_total"]) == (6, 7)
        assert imported.warnings[0] == "partial: 6 of 7 tilts were there"
        assert sum(f"movie {lost} is missing" in warning for warning in imported.warnings) == 1
    assert not [w for w in stay.before["importmovies"]["TS_03"].warnings if "partial" in w]
    assert {one.status for one in stay.before["tsReconstruct"].values()} == {"done"}


def test_a_late_movie_continues_the_same_jobs_with_its_series_alone(stay: Stay) -> None:
    assert stay.linked == [LATE]
    assert [job.node for job in stay.second.jobs] == CHAIN
    assert [job.continue_of for job in stay.second.jobs] == [
        f"External/job00{number}/" for number in (1, 2, 3, 4)
    ]
    assert stay.second.jobs[0].reason == "TS_01 changed since External/job001"
    for node in CHAIN:
        for name in ("TS_02", "TS_03"):
            assert stay.after[node][name] == stay.before[node][name]
        assert stay.after[node]["TS_01"].fingerprint != stay.before[node]["TS_01"].fingerprint
        assert stay.after[node]["TS_01"].status == "done"
    imported = stay.after["importmovies"]["TS_01"]
    assert (imported.metrics["tilts"], imported.metrics["tilts_total"]) == (7, 7)
    assert not [warning for warning in imported.warnings if "partial" in warning]
    assert stay.project.plan(CHAIN, mode="continue").is_empty
    assert stay.project.ledger().counter == 5


def test_the_table_tells_what_is_partial_and_how_far_each_is(stay: Stay) -> None:
    overview = read_overview(stay.project)
    assert overview.stages == tuple(CHAIN)
    assert {row.name: row.arrival for row in overview.rows} == {
        "TS_01": "complete 7/7",
        "TS_02": "partial 6/7",
        "TS_03": "complete 7/7",
    }
    assert all(set(row.stages.values()) == {"done"} and row.is_through for row in overview.rows)


def test_an_interrupted_series_says_so_though_its_mdoc_looks_whole() -> None:
    taken = SeriesIntake("TS_01", "partial", 12, 11, ("a.tif",), ("movie a.tif is missing",
        "12 tilts of 41"))  # fmt: skip
    assert taken_as(taken) == ("partial: 11 of 12 tilts were there; 12 tilts of 41",)
    assert taken_as(SeriesIntake("TS_01", "complete", 41, 41)) == ()
    assert taken_as(SeriesIntake("TS_01", "reopened", 41, 41, (), ("the mdoc has changed",))) == ()
    assert taken_as(None) == ()


@pytest.fixture
def copy(tmp_path: Path, stay: Stay) -> Project:
    """The processed project to change, with raw data of its own in `raw` beside it."""
    raw = tmp_path / "raw"
    shutil.copytree(stay.project.directory.parent / "raw", raw)
    shutil.copytree(stay.project.directory, tmp_path / "P", symlinks=True)
    for folder, target in (("frames", raw / "frames"), ("mdoc", raw)):
        for link in (tmp_path / "P" / folder).iterdir():
            link.unlink()
            link.symlink_to(target / link.name)
    return Project(tmp_path / "P")


def test_a_movie_mended_without_a_change_of_its_size_makes_another_series(copy: Project) -> None:
    raw = copy.directory.parent / "raw"
    before = series_fingerprints(copy.directory)
    broken: list[Fact] = [
        SeriesPartial("TS_03", str(raw / "TS_03.mdoc"), 7, 6, (), ("movie x: truncated",), "f")
    ]
    take_in(copy, [raw], broken)
    after = series_fingerprints(copy.directory)
    assert after["TS_03"] != before["TS_03"]
    assert {**after, "TS_03": ""} == {**before, "TS_03": ""}


def test_a_series_that_grows_again_is_left_alone_until_it_is_told(copy: Project) -> None:
    raw = copy.directory.parent / "raw"
    mdoc = raw / "TS_03.mdoc"
    before = series_fingerprints(copy.directory)
    mdoc.write_text(mdoc.read_text() + "\n[ZValue = 99]\nTiltAngle = 50\n")
    take_in(copy, [raw], [SeriesReopened("TS_03", str(mdoc), "the mdoc has changed", "f")])
    assert series_fingerprints(copy.directory) == before
    assert copy.plan(CHAIN, mode="continue").is_empty
    take_in(copy, [raw], [SeriesComplete("TS_03", str(mdoc), 7, "g")])
    assert copy.plan(CHAIN, mode="continue").jobs[0].reason == "TS_03 changed since External/job001"


def test_raw_data_that_are_cleared_away_undo_nothing(copy: Project) -> None:
    raw = copy.directory.parent / "raw"
    for movie in (raw / "frames").glob("TS_01*"):
        movie.unlink()
    (raw / "TS_03.mdoc").unlink()
    assert copy.plan(CHAIN, mode="continue").is_empty
    # Other parameters of a later stage need no raw data.
    copy.set_values({"acquisition.reconstruction_binning": "2"})
    assert "importmovies" not in [job.node for job in copy.plan(CHAIN, mode="continue").jobs]
    shutil.rmtree(raw)
    assert "importmovies" not in [job.node for job in copy.plan(CHAIN, mode="continue").jobs]
    # An import from scratch says what is gone.
    found = find_series(copy.directory, {"TS_02"})["TS_02"]
    assert found.problem is not None
    assert "raw/TS_02.mdoc cannot be read: No such file" in found.problem
