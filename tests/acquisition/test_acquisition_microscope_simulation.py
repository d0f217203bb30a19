"""The simulated microscope: what is written when, and that it is the recorded session."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.acquisition.mdoc import parse_mdoc
from crboost.acquisition.microscope_simulation import Mishaps, Pace, perform, run, schedule
from crboost.acquisition.tilt_series import read_tilt_series
from crboost.errors import ParameterError

NAMES = ["TS_01_000_0.0.mrc", "TS_01_001_3.0.mrc", "TS_01_002_-3.0.mrc"]


@pytest.fixture
def session(tmp_path: Path, mdoc_text) -> Path:  # type: ignore[no-untyped-def]
    """Two tilt series of three movies; the bytes of a movie say where they belong."""
    for series in ("TS_01", "TS_02"):
        (tmp_path / f"{series}.mdoc").write_text(mdoc_text(stem=series))
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode() * 10)
        other = name.replace("TS_01", "TS_02")
        (tmp_path / other).write_bytes(other.encode() * 10)
    return tmp_path


def mdocs(session: Path) -> list[Path]:
    return sorted(session.glob("*.mdoc"))


def test_what_is_written_in_the_end_is_the_session(session: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(schedule(mdocs(session), session), out, speed=1e9)
    for mdoc in mdocs(session):
        assert (out / mdoc.name).read_bytes() == mdoc.read_bytes()
    for movie in session.glob("*.mrc"):
        assert (out / "frames" / movie.name).read_bytes() == movie.read_bytes()


def test_the_mdoc_and_the_movies_grow_in_the_order_of_acquisition(
    session: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tilts: list[int] = []
    sizes: dict[str, list[int]] = {}
    for action in schedule(mdocs(session)[:1], session, Pace(pieces=4)):
        perform(action, out)
        if action.target.suffix == ".mdoc" and action.data.startswith(b"[ZValue"):
            text = (out / action.target).read_bytes()
            found = parse_mdoc(text, out / action.target).of_type("ZValue")
            tilts.append(len(found))
            assert found[-1].number("TiltAngle") == (0.0, 3.0, -3.0)[len(found) - 1]
        elif action.source is not None:
            size = (out / action.target).stat().st_size
            sizes.setdefault(action.target.name, []).append(size)
    assert tilts == [1, 2, 3]
    assert list(sizes) == NAMES
    assert all(len(set(seen)) == 4 and seen == sorted(seen) for seen in sizes.values())


def test_mishaps_happen_as_ordered(session: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pace = Pace(tilt_seconds=10, series_seconds=100, write_seconds=6, pieces=2)
    mishaps = Mishaps({NAMES[0]: 500.0}, frozenset({NAMES[2]}), {"TS_02": 1})
    actions = schedule(mdocs(session), session, pace, mishaps)
    late = [a.at_seconds for a in actions if a.target.name == NAMES[0]]
    # The session ends at 30 + 100 + 10 + 100 s.
    assert late == [743.0, 746.0]
    run(actions, out, speed=1e9)
    assert sorted(path.name for path in (out / "frames").iterdir()) == [
        NAMES[0],
        NAMES[1],
        NAMES[0].replace("TS_01", "TS_02"),
    ]
    assert len(read_tilt_series(out / "TS_01.mdoc").tilts) == 3
    assert len(read_tilt_series(out / "TS_02.mdoc").tilts) == 1


def test_time_passes_as_many_times_faster_as_asked(session: Path, tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(tilt_seconds=10, series_seconds=100, write_seconds=6)
    actions = schedule(mdocs(session), session, pace)
    run(actions, tmp_path / "out", speed=50, sleep=sleep, clock=lambda: now[0])
    # The last movie is begun at 30 + 100 + 20 s and takes 6 s.
    assert now[0] == pytest.approx(156 / 50)


def test_what_cannot_be_is_refused(session: Path, tmp_path: Path) -> None:
    for mishaps, text in (
        (Mishaps({"x.mrc": 1.0}, frozenset(), {}), "no tilt series has a movie x.mrc"),
        (Mishaps({}, frozenset(), {"TS_09": 1}), "no tilt series TS_09"),
        (Mishaps({}, frozenset(), {"TS_01": 0}), "after 0 tilts"),
    ):
        with pytest.raises(ParameterError, match=text):
            schedule(mdocs(session), session, mishaps=mishaps)
    with pytest.raises(ParameterError, match="speed is 0"):
        run([], tmp_path / "out", speed=0)
    with pytest.raises(ParameterError, match="pieces is 0"):
        Pace(pieces=0)
    with pytest.raises(ParameterError, match="takes some time"):
        Pace(tilt_seconds=0)
