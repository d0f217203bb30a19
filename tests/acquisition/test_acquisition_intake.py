"""Taking in what the watcher tells: links, parameters, the record; twice, and after a crash."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crboost.acquisition import intake
from crboost.acquisition.arrivals import Patience
from crboost.acquisition.arriving import (
    MOST_REJECTED,
    LeftOut,
    note_left_out,
    read_arriving,
    write_arriving,
)
from crboost.acquisition.facts import Fact, FileRejected, SeriesComplete, SeriesPartial
from crboost.acquisition.facts import SeriesReopened as Reopened
from crboost.acquisition.intake import take_in
from crboost.acquisition.taken import read_intake
from crboost.acquisition.watch import Watcher
from crboost.cpu.example_data import make_example_data
from crboost.errors import FileFormatError
from crboost.presets import Preset
from crboost.project import Project
from crboost.stages.import_movies import find_series

AT_ONCE = Patience(stable_seconds=0, mdoc_quiet_seconds=0, partial_after_seconds=0)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three series of five tilts, in their own directory; TS_02 lacks a movie."""
    directory = tmp_path_factory.mktemp("recorded")
    made = make_example_data(directory, size_px=128, frames=2, tilt_step_deg=30.0, workers=1)
    assert len(made.series) == 3
    return directory


@pytest.fixture
def raw(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "raw"))


@pytest.fixture
def project(tmp_path: Path, raw: Path) -> Project:
    return Project.create_empty(tmp_path / "P", watch=[raw])


def facts_in(project: Project, raw: Path) -> list[Fact]:
    """What is new, as a watcher tells it."""
    state = project.directory / ".crboost" / "arrivals.json"
    with Watcher([raw], AT_ONCE, state_file=state) as watcher:
        reports = watcher.look()
        watcher.acknowledge(reports)
    return [report.fact for report in reports]


def listing(project: Project) -> dict[str, str]:
    """Every link, and every other file with its time."""
    return {
        str(path): str(path.readlink()) if path.is_symlink() else str(path.stat().st_mtime_ns)
        for path in sorted(project.directory.rglob("*"))
        if path.suffix != ".lock"
    }


def links(project: Project, folder: str) -> list[str]:
    return sorted(path.name for path in (project.directory / folder).iterdir())


def names_of(raw: Path, series: str) -> list[str]:
    return sorted(path.name for path in (raw / "frames").glob(f"{series}_*"))


def test_complete_and_partial_series_are_linked_and_recorded(project: Project, raw: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    taken = take_in(project, [raw], facts_in(project, raw))
    assert links(project, "mdoc") == ["TS_01.mdoc", "TS_02.mdoc", "TS_03.mdoc"]
    assert links(project, "frames") == sorted(path.name for path in (raw / "frames").iterdir())
    assert {(one.name, one.state, one.usable, one.tilts) for one in taken.series} == {
        ("TS_01", "complete", 5, 5),
        ("TS_02", "partial", 4, 5),
        ("TS_03", "complete", 5, 5),
    }
    (partial,) = (one for one in taken.series if one.state == "partial")
    assert len(partial.missing) == 1
    assert partial.reasons == (f"movie {partial.missing[0]} is missing",)
    assert read_intake(project.directory) == {one.name: one for one in taken.series}
    assert sorted(taken.linked) == sorted(links(project, "frames") + links(project, "mdoc"))
    # The first series tell the parameters, as `crboost init` takes them.
    created = Project.create(
        project.directory.with_name("Q"), movies=[str(raw / "frames")], mdocs=[str(raw)]
    ).project.parameters()
    found = project.parameters()
    assert found.microscope == created.microscope
    assert found.acquisition == created.acquisition
    assert found.origin("microscope.pixel_size_angstrom").source == "mdoc"
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == before


def test_again_changes_nothing(project: Project, raw: Path) -> None:
    facts = facts_in(project, raw)
    first = take_in(project, [raw], facts)
    before = listing(project)
    again = take_in(project, [raw], facts)
    assert again.linked == []
    assert again.series == first.series
    assert listing(project) == before
    nothing = take_in(project, [raw], [])
    assert (nothing.linked, nothing.series, nothing.left_out, nothing.problems) == ([], [], [], [])
    assert listing(project) == before


@pytest.mark.parametrize("after_links", [0, 3, 8])
def test_killed_at_any_moment_it_comes_to_the_same_end(
    project: Project, raw: Path, monkeypatch: pytest.MonkeyPatch, after_links: int
) -> None:
    facts = facts_in(project, raw)
    made = []
    real = intake.make_link

    def dying(folder: Path, target: Path, **more: Any) -> bool:
        if len(made) == after_links:
            raise KeyboardInterrupt
        made.append(target)
        return real(folder, target, **more)

    monkeypatch.setattr(intake, "make_link", dying)
    with pytest.raises(KeyboardInterrupt):
        take_in(project, [raw], facts)
    # A series that the import would see has all its movies.
    for mdoc in links(project, "mdoc"):
        stem = mdoc.removesuffix(".mdoc")
        assert set(names_of(raw, stem)) <= set(links(project, "frames"))
    monkeypatch.setattr(intake, "make_link", real)
    taken = take_in(project, [raw], facts)
    assert len(taken.series) == 3
    assert links(project, "mdoc") == ["TS_01.mdoc", "TS_02.mdoc", "TS_03.mdoc"]
    assert len(links(project, "frames")) == 14
    assert project.parameters().origin("microscope.pixel_size_angstrom").source == "mdoc"
    assert len(read_intake(project.directory)) == 3


def test_a_growing_series_is_left_alone_and_a_late_movie_is_linked(
    project: Project, raw: Path
) -> None:
    late = sorted((raw / "frames").glob("TS_01*"))[2]
    late.rename(raw.parent / late.name)
    growing = raw / "TS_03.mdoc"
    growing.rename(raw.parent / growing.name)
    first = take_in(project, [raw], facts_in(project, raw))
    assert [(one.name, one.state) for one in first.series] == [
        ("TS_01", "partial"),
        ("TS_02", "partial"),
    ]
    assert not [name for name in links(project, "frames") if name.startswith("TS_03")]
    (raw.parent / late.name).rename(late)
    told = facts_in(project, raw)
    assert [type(fact) for fact in told] == [Reopened, SeriesComplete]
    # Only the first half has been told: nothing is linked while the movie may be written.
    reopened = take_in(project, [raw], told[:1])
    assert reopened.linked == []
    assert [(one.name, one.state) for one in reopened.series] == [("TS_01", "reopened")]
    assert read_intake(project.directory)["TS_01"].state == "reopened"
    assert f"{late.name} came" in read_intake(project.directory)["TS_01"].reasons[0]
    complete = take_in(project, [raw], told[1:])
    assert complete.linked == [late.name]
    assert [(one.name, one.state, one.missing) for one in complete.series] == [
        ("TS_01", "complete", ())
    ]
    assert complete.problems == []


def test_a_series_that_changed_again_waits_for_its_last_word(project: Project, raw: Path) -> None:
    facts = facts_in(project, raw)
    mdoc = str(raw / "TS_01.mdoc")
    taken = take_in(project, [raw], [*facts, Reopened("TS_01", mdoc, "the mdoc has changed", "x")])
    assert "TS_01.mdoc" not in links(project, "mdoc")
    # It was never taken in, so there is nothing to say of it.
    assert [one.name for one in taken.series] == ["TS_02", "TS_03"]


def test_awkward_names_become_the_names_of_the_tables(tmp_path: Path, recorded: Path) -> None:
    raw = tmp_path / "my data"
    (raw / "frames").mkdir(parents=True)
    for movie in (recorded / "frames").glob("TS_01*"):
        shutil.copy(movie, raw / "frames" / movie.name.replace("TS_01_", "TS 1 "))
    text = (recorded / "TS_01.mdoc").read_text().replace("TS_01_", "TS 1 ")
    (raw / "TS 1.mdoc").write_text(text)
    project = Project.create_empty(tmp_path / "P", watch=[raw])
    taken = take_in(project, [raw], facts_in(project, raw))
    assert [one.name for one in taken.series] == ["TS_1"]
    assert links(project, "mdoc") == ["TS_1.mdoc"]
    assert len(links(project, "frames")) == 5
    assert all(" " not in name for name in links(project, "frames"))


def test_a_series_without_a_usable_movie_is_left_out(project: Project, raw: Path) -> None:
    for movie in (raw / "frames").glob("TS_01*"):
        movie.write_bytes(b"")
    taken = take_in(project, [raw], facts_in(project, raw))
    assert "TS_01.mdoc" not in links(project, "mdoc")
    assert not [name for name in links(project, "frames") if name.startswith("TS_01")]
    (left_out,) = taken.left_out
    assert (left_out.name, left_out.mdoc) == ("TS_01", str(raw / "TS_01.mdoc"))
    assert "none of its 5 movies can be used (movie TS_01_" in left_out.reason
    assert "the file is empty" in left_out.reason


def test_a_broken_movie_is_linked_and_counted(project: Project, raw: Path) -> None:
    broken = sorted((raw / "frames").glob("TS_01*"))[1]
    broken.write_bytes(broken.read_bytes()[:1000])
    taken = take_in(project, [raw], facts_in(project, raw))
    record = next(one for one in taken.series if one.name == "TS_01")
    assert (record.state, record.usable, record.missing, record.broken) == ("partial", 4, (), 1)
    assert broken.name in links(project, "frames")
    assert f"movie {broken.name}: truncated" in record.reasons[0]


def test_what_has_gone_in_the_meantime_is_a_problem_and_not_the_end(
    project: Project, raw: Path
) -> None:
    facts = facts_in(project, raw)
    (raw / "TS_01.mdoc").unlink()
    (raw / "TS_02.mdoc").write_text("[ZValue = 0]\nTiltAngle = up\n")
    gone = sorted((raw / "frames").glob("TS_03*"))[0]
    gone.unlink()
    taken = take_in(project, [raw], facts)
    assert [(one.name, one.state, one.missing) for one in taken.series] == [
        ("TS_03", "partial", (gone.name,))
    ]
    first, second = map(str, taken.left_out)
    assert first.startswith("TS_01 is left out") and "has gone" in first
    assert second.startswith("TS_02 is left out")


def test_a_disk_that_is_away_is_tried_again(
    project: Project, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = facts_in(project, raw)
    with monkeypatch.context() as away:
        away.setattr(intake, "scan", lambda root: ({}, [f"{root} cannot be read: stale"]))
        with pytest.raises(OSError, match="stale"):
            take_in(project, [raw], facts)
    assert links(project, "mdoc") == []
    assert read_intake(project.directory) == {}
    assert len(take_in(project, [raw], facts).series) == 3


def test_copies_do_not_stop_anything_and_moved_data_are_found_again(
    project: Project, raw: Path
) -> None:
    copies = raw / "backup"
    shutil.copytree(raw / "frames", copies)
    first = take_in(project, [raw], facts_in(project, raw))
    assert len(first.series) == 3
    target = {path.resolve().parent.name for path in (project.directory / "frames").iterdir()}
    assert target == {"backup"}  # the first by path, as the watcher has it
    shutil.rmtree(copies)
    moved = raw / "archive"
    (raw / "frames").rename(moved)
    shutil.move(raw / "TS_01.mdoc", moved / "TS_01.mdoc")
    facts: list[Fact] = [
        SeriesComplete("TS_01", str(moved / "TS_01.mdoc"), 5, "f"),
        FileRejected("x", "y"),
    ]
    again = take_in(project, [raw], facts)
    assert len(again.linked) == 6
    assert {
        path.resolve().parent.name for path in (project.directory / "frames").glob("TS_01*")
    } == {"archive"}
    assert (project.directory / "mdoc/TS_01.mdoc").resolve().parent == moved


def test_two_mdocs_of_one_name_are_not_mixed(project: Project, raw: Path) -> None:
    take_in(project, [raw], facts_in(project, raw))
    other = raw / "other"
    other.mkdir()
    shutil.copy(raw / "TS_01.mdoc", other / "TS_01.mrc.mdoc")
    before = listing(project)
    taken = take_in(
        project, [raw], [SeriesComplete("TS_01", str(other / "TS_01.mrc.mdoc"), 5, "f")]
    )
    assert taken.series == []
    assert "are both tilt series TS_01" in taken.left_out[0].reason
    assert listing(project) == before


def test_grids_in_directories_of_their_own_may_have_series_of_one_name(
    tmp_path: Path, recorded: Path
) -> None:
    raw = tmp_path / "raw"
    for grid, series in (("grid 1", "TS_01"), ("grid 2", "TS_03")):
        (raw / grid / "frames").mkdir(parents=True)
        shutil.copy(recorded / f"{series}.mdoc", raw / grid / "Position_1.mdoc")
        for movie in (recorded / "frames").glob(f"{series}*"):
            shutil.copy(movie, raw / grid / "frames")
    project = Project.create_empty(tmp_path / "P", watch=[raw])
    facts = facts_in(project, raw)
    taken = take_in(project, [raw], facts)
    assert (taken.left_out, taken.problems) == ([], [])
    assert {(one.name, one.usable) for one in taken.series} == {
        ("Position_1", 5),
        ("grid_2_Position_1", 5),
    }
    found = find_series(project.directory, {"Position_1", "grid_2_Position_1"})
    for name, series in (("Position_1", "TS_01"), ("grid_2_Position_1", "TS_03")):
        assert len(found[name].movies) == 5
        assert all(movie.startswith(series) for movie in found[name].movies)
    assert facts_in(project, raw) == []
    before = listing(project)
    again = take_in(project, [raw], facts)
    assert (again.linked, again.series) == ([], taken.series)
    assert listing(project) == before


def test_chosen_values_stay_and_contradictions_are_told(tmp_path: Path, raw: Path) -> None:
    values = {
        "microscope.acceleration_voltage_kv": 200.0,
        "acquisition.tilt_axis_degrees": 85.0,
    }
    preset = Preset("odd", Path("odd.toml"), parameters=values)
    project = Project.create_empty(
        tmp_path / "P", watch=[raw], preset=preset, values={"microscope.pixel_size_angstrom": "3"}
    )
    taken = take_in(project, [raw], facts_in(project, raw))
    parameters = project.parameters()
    assert parameters.microscope.acceleration_voltage_kv == 200
    assert parameters.microscope.pixel_size_angstrom == 3
    assert parameters.origin("acquisition.dose_per_tilt_e_per_a2").source == "mdoc"
    told = "\n".join(taken.problems)
    assert "microscope.acceleration_voltage_kv stays 200.0 (preset (odd))" in told
    assert "microscope.pixel_size_angstrom stays 3.0 (user" in told
    assert "tilt_axis" not in told


def test_a_later_series_that_does_not_fit_is_told_and_changes_no_parameter(
    project: Project, raw: Path
) -> None:
    other = raw / "TS_03.mdoc"
    text = other.read_text()
    other.rename(raw.parent / other.name)
    take_in(project, [raw], facts_in(project, raw))
    assert project.parameters().microscope.pixel_size_angstrom == 4
    other.write_text(text.replace("PixelSpacing = 4", "PixelSpacing = 8"))
    taken = take_in(project, [raw], facts_in(project, raw))
    assert [one.name for one in taken.series] == ["TS_03"]
    (problem,) = (one for one in taken.problems if "pixel_size" in one)
    assert "TS_03.mdoc" in problem
    assert "says 8" in problem
    assert "gets an optics group of its own" in problem
    assert project.parameters().microscope.pixel_size_angstrom == 4


def test_a_gain_reference_that_has_gone_costs_no_other_parameter(tmp_path: Path, raw: Path) -> None:
    gain = tmp_path / "gain.mrc"
    project = Project.create_empty(
        tmp_path / "P", watch=[raw], values={"data.gain_reference": str(gain)}
    )
    taken = take_in(project, [raw], facts_in(project, raw))
    assert len(taken.series) == 3
    assert any("data.gain_reference: " in one and "gain.mrc" in one for one in taken.problems)
    assert project.parameters().origin("microscope.pixel_size_angstrom").source == "mdoc"


def test_a_damaged_record_is_named(project: Project, raw: Path) -> None:
    take_in(project, [raw], facts_in(project, raw))
    record = project.directory / ".crboost" / "intake.json"
    record.write_text('{"TS_01": {"states": "complete"}}')
    with pytest.raises(FileFormatError, match=r"intake\.json: not a record of tilt series"):
        read_intake(project.directory)


def test_how_series_stand_at_the_microscope_is_written_when_it_changes(
    project: Project, raw: Path
) -> None:
    assert read_arriving(project.directory) is None
    patience = Patience(stable_seconds=0, mdoc_quiet_seconds=1000, partial_after_seconds=1000)
    with Watcher([raw], patience) as watcher:
        watcher.look()
        standing = watcher.standing()
        assert standing["TS_02"].state == "growing"
        assert (standing["TS_02"].movies, standing["TS_02"].tilts) == (4, 5)
        assert write_arriving(project.directory, standing, NOW)
        assert not write_arriving(project.directory, standing, NOW.replace(year=2027))
    arriving = read_arriving(project.directory)
    assert arriving is not None
    assert arriving.at == NOW
    assert arriving.series == standing
    with Watcher([raw], AT_ONCE) as watcher:
        watcher.look()
        shutil.rmtree(raw / "frames")  # cleared away, as facilities do
        watcher.look()
        after = watcher.standing()
    assert (after["TS_01"].state, after["TS_01"].movies) == ("complete", 5)
    assert write_arriving(project.directory, after, NOW)
    rejected = {f"/raw/{number:04d}.mdoc": "a montage" for number in range(1000)}
    assert write_arriving(project.directory, after, NOW, rejected)
    left = [LeftOut("TS_09", "/raw/TS_09.mdoc", "no movie"), LeftOut("TS_08", "/raw/8", "it is")]
    assert note_left_out(project.directory, left, {"/raw/TS_09.mdoc", "/raw/8"}, NOW)
    assert not note_left_out(project.directory, left[:1], {"/raw/TS_09.mdoc"}, NOW)
    assert not write_arriving(project.directory, after, NOW, rejected)
    shown = read_arriving(project.directory)
    assert shown is not None
    assert (shown.series, shown.left_out) == (after, (left[1], left[0]))
    assert (len(shown.rejected), shown.rejected_count) == (MOST_REJECTED, 1000)
    assert shown.rejected["/raw/0000.mdoc"] == "a montage"
    assert note_left_out(project.directory, [], {"/raw/TS_09.mdoc"}, NOW)  # it has been taken in
    shown = read_arriving(project.directory)
    assert shown is not None and shown.left_out == (left[1],)
    (project.directory / ".crboost/arriving.json").write_text("{")
    assert read_arriving(project.directory) is None


def test_a_partial_fact_counts_movies_that_cannot_be_used(project: Project, raw: Path) -> None:
    """The numbers are the watcher's, but for movies that have gone since."""
    movies = names_of(raw, "TS_01")
    fact = SeriesPartial(
        "TS_01", str(raw / "TS_01.mdoc"), 5, 3, (movies[0],), ("...",), "fingerprint"
    )
    (raw / "frames" / movies[0]).unlink()
    (raw / "frames" / movies[1]).unlink()
    (record,) = take_in(project, [raw], [fact]).series
    assert (record.tilts, record.usable, len(record.missing), record.broken) == (5, 2, 2, 1)
