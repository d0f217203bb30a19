"""Sessions: start and end, the register of the service, and what is refused."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crboost.errors import FileFormatError, ParameterError, ProjectError
from crboost.project import Project
from crboost.session import (
    ActiveSession,
    Session,
    active_sessions,
    end_draining,
    end_session,
    forget_session,
    read_session,
    served_sessions,
    session_file,
    start_session,
)
from crboost.settings import Settings

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(service={"directory": tmp_path / "service"})  # type: ignore[arg-type]


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    (tmp_path / "microscope").mkdir()
    return tmp_path / "microscope"


def start(project: Path, watched: Path, settings: Settings, **more: Any) -> Session:
    given = {"preset": None, "now": NOW, **more}
    return start_session(project, watch=[watched], settings=settings, **given)


def test_a_session_makes_its_project_and_is_known_to_the_service(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    session = start(
        tmp_path / "P",
        watched,
        settings,
        preset="krios-falcon4i-eer",
        rules={"jobs": ["importmovies", "tsAlignment__2"], "patience": {"expected_tilts": 41}},
        values={"acquisition.sample_thickness_nm": "120"},
        name="lamella 3",
    )
    assert session.active
    assert session.watch == [watched]
    assert session.jobs == ["importmovies", "tsAlignment__2"]
    assert session.id.startswith("20260501T100000Z-")
    # The preset's patience, but for what was given.
    patience = session.watcher_patience
    assert (patience.expected_tilts, patience.mdoc_quiet_seconds) == (41, 240)
    project = Project.open(tmp_path / "P")
    assert read_session(project) == session
    assert project.name == "lamella 3"
    parameters = project.parameters()
    assert parameters.acquisition.sample_thickness_nm == 120
    assert str(parameters.origin("acquisition.sample_thickness_nm")) == (
        "user (crboost session start)"
    )
    assert str(parameters.origin("acquisition.eer_frames_per_fraction")) == (
        "preset (krios-falcon4i-eer)"
    )
    assert project.ledger().counter == 1
    assert active_sessions(settings.service.directory) == [
        ActiveSession(session.id, project.directory)
    ]
    assert settings.service.directory.stat().st_mode & 0o077 == 0


def test_what_is_written_is_read_again(tmp_path: Path, watched: Path, settings: Settings) -> None:
    session = start(
        tmp_path / "P", watched, settings, rules={"quiet_minutes": None, "poll_seconds": 0.5}
    )
    project = Project.open(tmp_path / "P")
    assert read_session(project) == session
    assert session.rhythm.poll_seconds == 0.5
    value = json.loads(session_file(project).read_text())
    assert value["quiet_minutes"] is None
    for change, says in (
        ({"wach": []}, "wach: there is no such field"),
        ({"watch": ["raw"]}, "watch.*must be an absolute path"),
        ({"started": "2026-05-01T10:00:00"}, "started.*timezone"),
    ):
        session_file(project).write_text(json.dumps({**value, **change}))
        with pytest.raises(FileFormatError, match=says) as caught:
            read_session(project)
        assert "session.json" in caught.value.message


def test_the_same_start_again_changes_nothing_and_another_is_refused(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    session = start(tmp_path / "P", watched, settings)
    (entry,) = (settings.service.directory / "sessions").iterdir()
    entry.unlink()  # killed before it could tell the service
    again = start(tmp_path / "P", watched, settings, now=NOW.replace(hour=12))
    assert again == session
    assert [one.id for one in active_sessions(settings.service.directory)] == [session.id]
    (tmp_path / "other").mkdir()
    with pytest.raises(ProjectError, match=r"has an active session.*whose watch is .*microscope"):
        start(tmp_path / "P", tmp_path / "other", settings)
    with pytest.raises(ProjectError, match=r"whose patience is .*expected_tilts none.*not"):
        start(tmp_path / "P", watched, settings, rules={"patience": {"expected_tilts": 9}})
    assert read_session(Project.open(tmp_path / "P")) == session


def test_two_starts_at_once_make_one_session(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = {
            one.id for one in pool.map(lambda _: start(tmp_path / "P", watched, settings), range(8))
        }
    assert len(ids) == 1
    assert [one.id for one in active_sessions(settings.service.directory)] == list(ids)


def test_a_session_drains_then_ends_and_another_one_may_follow(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    project = tmp_path / "P"
    first = start(project, watched, settings)
    opened = Project.open(project)
    known = [ActiveSession(first.id, opened.directory)]
    stopped = end_session(opened, now=NOW.replace(hour=18))
    assert (stopped.id, stopped.ended, stopped.state) == (
        first.id, NOW.replace(hour=18), "draining",
    )  # fmt: skip
    assert not stopped.active and stopped.is_watched
    assert end_session(opened, now=NOW.replace(hour=19)) == stopped
    # Its data are still taken in, and for the watcher alone to say.
    assert active_sessions(settings.service.directory) == known

    end_draining(opened, first.model_copy(update={"id": "another"}))
    assert read_session(opened) == stopped
    end_draining(opened, first)
    ended = read_session(opened)
    assert ended is not None
    assert (ended.state, ended.ended) == ("ended", stopped.ended)
    # What it brought is still to be processed.
    assert active_sessions(settings.service.directory) == []
    assert served_sessions(settings.service.directory) == known
    forget_session(opened, ended, settings=settings)
    assert served_sessions(settings.service.directory) == []
    with pytest.raises(ProjectError, match="ended at 2026-05-01 18:00 UTC"):
        end_session(opened, now=NOW)

    opened.set_values({"microscope.spherical_aberration_mm": "0.01"})
    notices: list[str] = []
    second = start(project, watched, settings, preset="krios-k3", name="new", notice=notices.append)
    assert second.id != first.id
    assert opened.parameters().microscope.spherical_aberration_mm == 0.01
    assert opened.parameters().microscope.microscope_type == "Krios_G3"
    assert any("its name is left as it is" in one for one in notices)
    assert any("spherical_aberration_mm keeps the user's value" in one for one in notices)


def test_a_session_may_be_ended_at_once_also_while_it_drains(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    start(tmp_path / "P", watched, settings)
    opened = Project.open(tmp_path / "P")
    end_session(opened, now=NOW)
    assert end_session(opened, now=NOW.replace(hour=19), drain=False).ended == NOW
    assert active_sessions(settings.service.directory) == []
    start(tmp_path / "Q", watched, settings)
    assert end_session(Project.open(tmp_path / "Q"), now=NOW, drain=False).state == "ended"


def test_a_session_that_drains_makes_way_for_the_next_one(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    first = start(tmp_path / "P", watched, settings)
    end_session(Project.open(tmp_path / "P"), now=NOW)
    notices: list[str] = []
    second = start(tmp_path / "P", watched, settings, notice=notices.append)
    assert [one.id for one in served_sessions(settings.service.directory)] == [second.id]
    assert notices == [f"session {first.id} has been waiting for its last tilt series"]


def test_entries_without_a_project_are_skipped_and_told(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    kept = start(tmp_path / "P", watched, settings)
    start(tmp_path / "Q", watched, settings)
    shutil.rmtree(tmp_path / "Q")
    (settings.service.directory / "sessions" / "x.json").write_text("[]")
    start(tmp_path / "R", watched, settings)
    session_file(Project.open(tmp_path / "R")).write_text("{}")
    notices: list[str] = []
    found = active_sessions(settings.service.directory, notices.append)
    assert [one.id for one in found] == [kept.id]
    assert len(notices) == 3
    assert any("Q does not exist" in one for one in notices)
    assert any("x.json" in one for one in notices)
    assert any("not a session" in one for one in notices)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"preset": "krios"}, ParameterError, "no preset 'krios'; did you mean"),
        ({"values": {"microscope.voltage": "3"}}, ParameterError, "no such parameter"),
        (
            {"rules": {"jobs": ["tsAlignmen"]}},
            ParameterError,
            r"tsAlignmen: .*did you mean tsAlignment\?\n  -> job types are importmovies, .*ts",
        ),
        ({"rules": {"jobs": ["tsAlignment__1"]}}, ParameterError, "the first .* just tsAlignment"),
        ({"rules": {"jobs": ["tsAlignment__b"]}}, ParameterError, "a second .* tsAlignment__2"),
        ({"rules": {"batch_seconds": -1}}, ParameterError, "session: batch_seconds = -1"),
        ({"gain": Path("no.mrc")}, ProjectError, "no.mrc: no such file"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path,
    watched: Path,
    settings: Settings,
    given: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        start(tmp_path / "P", watched, settings, **given)
    assert not (tmp_path / "P").exists()
    assert active_sessions(settings.service.directory) == []


def test_a_gain_reference_that_cannot_be_read_is_refused_at_once(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    gain = tmp_path / "gain.mrc"
    gain.write_text("not an image")
    with pytest.raises(FileFormatError, match=r"gain\.mrc: not a gain reference"):
        start(tmp_path / "P", watched, settings, gain=gain)
    assert not (tmp_path / "P").exists()


def test_a_project_and_its_raw_data_must_lie_apart(
    tmp_path: Path, watched: Path, settings: Settings
) -> None:
    (tmp_path / "link").symlink_to(watched)
    for project, watch in (
        (watched / "P", watched),
        (tmp_path, watched),
        (tmp_path / "link" / "P", watched),
    ):
        with pytest.raises(ProjectError, match="lie in each other"):
            start(project, watch, settings)
    with pytest.raises(ProjectError, match="nowhere is not a directory"):
        start(tmp_path / "P", tmp_path / "nowhere", settings)
    assert list(watched.iterdir()) == []


def test_while_a_session_is_active_patterns_link_nothing(
    tmp_path: Path, example_data: Path, watched: Path, settings: Settings
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(example_data, raw)
    late = raw / "TS_03.mdoc"
    late.rename(tmp_path / late.name)
    project = Project.create(
        tmp_path / "P", movies=[str(raw / "frames/*")], mdocs=[str(raw / "*.mdoc")]
    ).project
    start(project.directory, raw, settings)
    (tmp_path / late.name).rename(late)
    assert project.new_data() == []
    assert project.link_new_data() == []
    end_session(project, now=NOW)
    assert project.new_data() == []
    end_session(project, now=NOW, drain=False)
    assert late in project.new_data()
    assert late.name in project.link_new_data()
