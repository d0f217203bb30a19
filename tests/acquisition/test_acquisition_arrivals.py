"""What arrives becomes facts, each once, in whatever order, across restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crboost.acquisition.arrivals import (
    Arrivals,
    MdocLook,
    MovieLook,
    Patience,
    SeriesState,
)
from crboost.acquisition.facts import (
    Fact,
    FileRejected,
    Report,
    SeriesComplete,
    SeriesPartial,
    SeriesReopened,
)
from crboost.errors import CrboostError, ParameterError

PATIENCE = Patience(stable_seconds=10, mdoc_quiet_seconds=30, partial_after_seconds=200)


@dataclass
class Disk:
    """Files with a content, and a clock; `Arrivals` sees them as a watcher would show them."""

    patience: Patience = PATIENCE
    now: float = 1000.0
    files: dict[str, tuple[int, int, MdocLook | MovieLook]] = field(default_factory=dict)
    told: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arrivals = Arrivals("ledger", self.patience)

    def write(
        self, path: str, look: MdocLook | MovieLook | None = None, size: int | None = None
    ) -> None:
        before = self.files.get(path, (0, 0, None))
        new_size = before[0] + 100 if size is None else size
        self.files[path] = (new_size, before[1] + 1, look or MovieLook())
        self.arrivals.seen(path, new_size, before[1] + 1, self.now)
        self.turn()

    def movie(self, name: str, size: int | None = None, problem: str | None = None) -> None:
        self.write(f"/data/frames/{name}", MovieLook(problem), size)

    def mdoc(
        self, name: str, *movies: str, incomplete: str | None = None, folder: str = "/data"
    ) -> None:
        digest = f"{name}{movies}{incomplete}"
        self.write(f"{folder}/{name}.mdoc", MdocLook(digest, name, movies, incomplete))

    def remove(self, path: str) -> None:
        del self.files[path]
        self.arrivals.gone(path)
        self.turn()

    def turn(self) -> None:
        for _ in range(2):
            for path in self.arrivals.to_look_at(self.now):
                size, mtime_ns, look = self.files[path]
                self.arrivals.looked(path, size, mtime_ns, look)
        self.told += self.arrivals.settle(self.now)

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        self.turn()
        while self.now < end:
            self.now = min(end, self.now + 5)
            self.turn()

    def restart(self, saved: str | None = None) -> None:
        """Begin again from a saved state (the present one) and a look at all files."""
        text = saved or json.dumps(self.arrivals.to_json())
        self.arrivals = Arrivals.from_json(json.loads(text), self.patience, self.now)
        present = {path: (size, mtime) for path, (size, mtime, _) in self.files.items()}
        self.arrivals.scanned("/data", present, self.now)
        self.turn()

    @property
    def facts(self) -> list[Fact]:
        return [report.fact for report in self.told]

    def kinds(self) -> list[str]:
        return [type(fact).__name__ for fact in self.facts]


def test_a_series_is_complete_when_all_movies_and_the_mdoc_are_quiet() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif", "b.tif")
    disk.movie("a.tif")
    disk.movie("b.tif")
    disk.wait(29)
    assert disk.facts == []
    assert disk.arrivals.states() == {"TS_01": SeriesState.GROWING}
    disk.wait(1)
    (fact,) = disk.facts
    assert isinstance(fact, SeriesComplete)
    assert (fact.name, fact.mdoc, fact.tilts) == ("TS_01", "/data/TS_01.mdoc", 2)
    disk.wait(500)
    assert disk.kinds() == ["SeriesComplete"]


def test_a_growing_movie_and_a_growing_mdoc_hold_it_up() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    for _ in range(10):
        disk.wait(9)
        disk.movie("a.tif")
    assert disk.facts == []
    disk.mdoc("TS_01", "a.tif", "b.tif")
    disk.movie("b.tif")
    disk.wait(29)
    assert disk.facts == []
    disk.wait(1)
    assert disk.kinds() == ["SeriesComplete"]


def test_a_partial_series_names_what_is_missing_and_a_late_movie_reopens_it() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif", "b.tif", "c.tif")
    disk.movie("a.tif")
    disk.movie("c.tif", problem="truncated: 3 bytes")
    disk.wait(199)
    assert disk.kinds() == ["FileRejected"]
    disk.wait(1)
    partial = disk.facts[-1]
    assert isinstance(partial, SeriesPartial)
    assert (partial.tilts, partial.usable, partial.missing) == (3, 1, ("b.tif",))
    assert partial.reasons == ("movie b.tif is missing", "movie c.tif: truncated: 3 bytes")
    disk.movie("b.tif")
    reopened = disk.facts[-1]
    assert isinstance(reopened, SeriesReopened)
    assert reopened.reason == "b.tif came"
    assert reopened.fingerprint == partial.fingerprint
    assert disk.arrivals.states() == {"TS_01": SeriesState.REOPENED}
    disk.movie("c.tif")
    disk.wait(10)
    complete = disk.facts[-1]
    assert isinstance(complete, SeriesComplete)
    assert complete.fingerprint != partial.fingerprint
    disk.wait(500)
    assert disk.kinds()[-3:] == ["SeriesPartial", "SeriesReopened", "SeriesComplete"]


def test_a_rewritten_movie_and_a_longer_mdoc_reopen_a_series() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    disk.wait(30)
    disk.movie("a.tif", size=100)  # as long as before, written later
    assert disk.facts[-1].reason == "a.tif changed"  # type: ignore[union-attr]
    disk.wait(30)
    disk.mdoc("TS_01", "a.tif", "b.tif")
    assert disk.facts[-1].reason == "the mdoc has changed"  # type: ignore[union-attr]
    disk.movie("b.tif")
    disk.wait(30)
    assert disk.kinds() == ["SeriesComplete", "SeriesReopened"] * 2 + ["SeriesComplete"]


def test_an_mdoc_saved_again_as_it_was_is_no_news() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    disk.wait(30)
    disk.mdoc("TS_01", "a.tif")
    disk.wait(300)
    assert disk.kinds() == ["SeriesComplete"]


def test_a_buffer_that_is_cleared_is_no_news() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    disk.wait(30)
    disk.remove("/data/frames/a.tif")
    disk.remove("/data/TS_01.mdoc")
    disk.wait(300)
    disk.restart()
    assert disk.kinds() == ["SeriesComplete"]
    assert disk.arrivals.states() == {"TS_01": SeriesState.COMPLETE}


def test_a_movie_that_goes_before_the_series_is_complete_is_missing() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    disk.wait(5)
    disk.remove("/data/frames/a.tif")
    disk.wait(200)
    assert isinstance(disk.facts[-1], SeriesPartial)
    assert disk.facts[-1].usable == 0


def test_fewer_tilts_than_expected_are_partial() -> None:
    disk = Disk(Patience(10, 30, 200, expected_tilts=3))
    disk.mdoc("TS_01", "a.tif", "b.tif")
    disk.movie("a.tif")
    disk.movie("b.tif")
    disk.wait(199)
    assert disk.facts == []
    disk.wait(1)
    assert isinstance(disk.facts[0], SeriesPartial)
    assert disk.facts[0].reasons == ("2 tilts of 3",)


def test_an_mdoc_that_is_cut_off_is_never_complete() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif", incomplete="the file ends in the middle of a line")
    disk.movie("a.tif")
    disk.wait(200)
    assert disk.kinds() == ["SeriesPartial"]


@pytest.mark.parametrize("first", ["original", "copy"])
def test_override_copies_are_rejected_whichever_comes_first(first: str) -> None:
    disk = Disk()
    names = ["TS_01", "TS_01_override"]
    for name in names if first == "original" else names[::-1]:
        disk.mdoc(name, "a.tif")
        disk.wait(40)
    disk.movie("a.tif")
    disk.wait(40)
    assert disk.kinds() == ["FileRejected", "SeriesComplete"]
    assert isinstance(disk.facts[0], FileRejected)
    assert disk.facts[0].path == "/data/TS_01_override.mdoc"
    assert "copy of TS_01" in disk.facts[0].reason


def test_mdocs_that_are_no_tilt_series_and_empty_movies_are_rejected_once() -> None:
    disk = Disk()
    disk.write("/data/frames/a.tif.mdoc", MdocLook("1", problem="describes one movie"))
    disk.write("/data/map.mdoc", MdocLook("2", problem="describes a montage"))
    disk.movie("a.tif", size=0)
    disk.wait(9)
    assert disk.facts == []
    disk.wait(300)
    disk.restart()
    assert sorted((f.path, f.reason) for f in disk.facts if isinstance(f, FileRejected)) == [
        ("/data/frames/a.tif", "the file is empty"),
        ("/data/frames/a.tif.mdoc", "describes one movie"),
        ("/data/map.mdoc", "describes a montage"),
    ]
    assert len(disk.facts) == 3


def test_a_second_file_of_the_same_name_is_rejected_and_the_first_stays() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif", folder="/data/x")
    disk.write("/data/x/a.tif")
    disk.wait(40)
    disk.mdoc("TS_01", "a.tif", folder="/data/b")
    disk.mdoc("TS_01", "a.tif", "other.tif", folder="/data/a")
    disk.write("/data/b/a.tif")
    disk.write("/data/c/a.tif", size=77)
    disk.wait(300)
    rejected = {f.path: f.reason for f in disk.facts if isinstance(f, FileRejected)}
    assert rejected == {
        "/data/b/TS_01.mdoc": "a copy of /data/x/TS_01.mdoc, which is used",
        "/data/a/TS_01.mdoc": "has the same name as /data/x/TS_01.mdoc, which is used, and names "
        "the same movies; if it is a tilt series of its own, it needs a session of its own",
        "/data/b/a.tif": "a copy of /data/x/a.tif, which is used",
        "/data/c/a.tif": "has the same name as /data/x/a.tif, which is used",
    }
    assert disk.kinds().count("SeriesComplete") == 1
    assert "SeriesReopened" not in disk.kinds()


def test_series_of_one_name_that_share_no_movie_are_two() -> None:
    disk = Disk()
    for grid in ("g2", "g1"):
        disk.mdoc("Position_1", f"{grid}_a.eer", f"{grid}_b.eer", folder=f"/data/{grid}")
        for tilt in "ab":
            disk.movie(f"{grid}_{tilt}.eer")
        if grid == "g2":
            disk.wait(60)  # told before the other one begins: it keeps its name
    disk.wait(60)
    assert [(one.name, one.mdoc) for one in disk.facts] == [
        ("Position_1", "/data/g2/Position_1.mdoc"),
        ("g1_Position_1", "/data/g1/Position_1.mdoc"),
    ]
    assert disk.arrivals.rejected() == {}
    disk.restart()
    disk.wait(60)
    assert len(disk.facts) == 2
    # A late movie reopens its own; copies are copies, wherever they lie.
    disk.movie("g1_a.eer", size=999)
    disk.wait(60)
    assert [type(one) for one in disk.facts[2:]] == [SeriesReopened, SeriesComplete]
    assert {one.name for one in disk.facts[2:]} == {"g1_Position_1"}
    disk.mdoc("Position_1", "g1_a.eer", "g1_b.eer", folder="/data/backup/x")
    disk.wait(60)
    assert disk.arrivals.rejected() == {
        "/data/backup/x/Position_1.mdoc": "a copy of /data/g1/Position_1.mdoc, which is used"
    }
    # One whose raw data are cleared away leaves its name to nobody.
    disk.remove("/data/g2/Position_1.mdoc")
    disk.remove("/data/frames/g2_a.eer")
    told = len(disk.facts)
    disk.mdoc("Position_1", "g3_a.eer", folder="/data/g3")
    disk.movie("g3_a.eer")
    disk.wait(60)
    assert [one.name for one in disk.facts[told:]] == ["g3_Position_1"]
    assert set(disk.arrivals.states()) == {"Position_1", "g1_Position_1", "g3_Position_1"}


def test_series_of_one_name_and_movies_of_one_name_cannot_be_told_apart() -> None:
    disk = Disk()
    for grid, movies in (("g1", ("a.eer", "b.eer")), ("g2", ("a.eer", "b.eer", "c.eer"))):
        disk.mdoc("Position_1", *movies, folder=f"/data/{grid}")
    for movie in ("a.eer", "b.eer", "c.eer"):
        disk.movie(movie)
    disk.wait(60)
    assert list(disk.arrivals.states()) == ["Position_1"]
    (reason,) = disk.arrivals.rejected().values()
    assert "it needs a session of its own" in reason


def test_a_file_that_was_rejected_and_is_written_after_all_completes_the_series() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif", size=0)
    disk.wait(40)
    disk.movie("a.tif")
    disk.wait(40)
    disk.movie("a.tif", size=0)
    disk.wait(40)
    assert disk.kinds() == ["FileRejected", "SeriesComplete", "SeriesReopened", "FileRejected"]


def test_a_movie_may_have_another_extension_or_case() -> None:
    disk = Disk()
    disk.mdoc("TS_01", "a.mrc", "b.tif")
    disk.movie("a.tif")
    disk.movie("B.TIF")
    disk.wait(40)
    assert disk.kinds() == ["SeriesComplete"]


def test_a_clock_that_was_ahead_does_not_hold_up_a_series() -> None:
    disk = Disk(now=1e9)
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    disk.now = 2000.0
    disk.restart()
    disk.wait(40)
    assert disk.kinds() == ["SeriesComplete"]


def test_a_clock_that_is_set_back_does_not_hold_up_a_series() -> None:
    disk = Disk(now=1e9)
    disk.mdoc("TS_01", "a.tif")
    disk.movie("a.tif")
    disk.now = 2000.0
    present = {path: (size, mtime) for path, (size, mtime, _) in disk.files.items()}
    disk.arrivals.scanned("/data", present, disk.now)
    disk.wait(40)
    assert disk.kinds() == ["SeriesComplete"]


def test_a_movie_that_can_never_be_read_is_named_by_a_partial_series() -> None:
    arrivals = Arrivals("ledger", PATIENCE)
    arrivals.seen("/data/TS_01.mdoc", 1, 1, 0.0)
    arrivals.looked("/data/TS_01.mdoc", 1, 1, MdocLook("x", "TS_01", ("a.tif",)))
    arrivals.seen("/data/a.tif", 1, 1, 0.0)
    assert arrivals.settle(199.0) == []
    assert not arrivals.due(199.5)
    assert arrivals.due(200.0)
    assert arrivals.to_look_at(200.0) == ["/data/a.tif"]
    (report,) = arrivals.settle(200.0)
    assert isinstance(report.fact, SeriesPartial)
    assert report.fact.reasons == ("movie a.tif: it could not be read",)


def test_reports_stay_until_acknowledged_and_their_keys_are_unique() -> None:
    disk = Disk()
    for name in ("TS_01", "TS_02"):
        disk.mdoc(name, f"{name}.tif")
        disk.movie(f"{name}.tif")
    disk.wait(40)
    disk.restart()
    assert disk.arrivals.pending == disk.told
    disk.arrivals.acknowledge(disk.told[:1])
    disk.restart()
    assert disk.arrivals.pending == disk.told[1:]
    assert [report.key for report in disk.told] == ["ledger-1", "ledger-2"]


def test_bad_times_and_bad_states_are_refused() -> None:
    with pytest.raises(ParameterError, match="stable_seconds is -1"):
        Patience(stable_seconds=-1)
    with pytest.raises(ParameterError, match="must not be less"):
        Patience(partial_after_seconds=5)
    with pytest.raises(ParameterError, match="expected_tilts is 0"):
        Patience(expected_tilts=0)
    for bad in ({}, [], {"version": 99}, {"version": 1, "ledger": "x", "number": "many"}):
        with pytest.raises(CrboostError, match=r"state|version"):
            Arrivals.from_json(bad, PATIENCE, 0.0)


# -- any order, any restart ------------------------------------------------------------------

Step = tuple[str, ...]
# Two whole series, one whose last movie never comes, one empty movie, and what is none.
STEPS: list[Step] = [
    ("mdoc", "TS_01", "a", "b"),
    ("movie", "a"),
    ("movie", "b"),
    ("mdoc", "TS_02", "c"),
    ("movie", "c"),
    ("movie", "c"),
    ("mdoc", "TS_03", "d", "never"),
    ("movie", "d"),
    ("mdoc", "TS_04", "e"),
    ("empty", "e"),
    ("mdoc", "TS_01_override", "a"),
]
FINAL = {
    "TS_01": SeriesState.COMPLETE,
    "TS_02": SeriesState.COMPLETE,
    "TS_03": SeriesState.PARTIAL,
    "TS_04": SeriesState.PARTIAL,
}
REJECTED = {"/data/frames/e.tif", "/data/TS_01_override.mdoc"}


def do(disk: Disk, step: Step) -> None:
    if step[0] == "mdoc":
        disk.mdoc(step[1], *(f"{movie}.tif" for movie in step[2:]))
    else:
        disk.movie(f"{step[1]}.tif", size=0 if step[0] == "empty" else None)


pauses = st.lists(
    st.sampled_from([0.0, 3.0, 15.0, 45.0, 250.0]), min_size=len(STEPS), max_size=len(STEPS)
)


def alternates(facts: list[Fact], name: str) -> bool:
    """Complete or partial, reopened, complete or partial, ..., never twice the same."""
    kinds = [
        "reopened" if isinstance(fact, SeriesReopened) else "told"
        for fact in facts
        if not isinstance(fact, FileRejected) and fact.name == name
    ]
    return kinds == [("told", "reopened")[i % 2] for i in range(len(kinds))]


def last_fingerprints(facts: list[Fact]) -> dict[str, str]:
    return {
        fact.name: fact.fingerprint
        for fact in facts
        if isinstance(fact, SeriesComplete | SeriesPartial)
    }


def reference() -> dict[str, str]:
    disk = Disk()
    for step in STEPS:
        do(disk, step)
    disk.wait(250)
    return last_fingerprints(disk.facts)


@settings(max_examples=25, deadline=None)
@given(st.permutations(STEPS), pauses)
def test_any_order_and_any_pauses_end_the_same(order: list[Step], waits: list[float]) -> None:
    disk = Disk()
    for step, seconds in zip(order, waits, strict=True):
        do(disk, step)
        disk.wait(seconds)
    disk.wait(250)
    assert disk.arrivals.states() == FINAL
    assert last_fingerprints(disk.facts) == reference()
    rejected = [fact.path for fact in disk.facts if isinstance(fact, FileRejected)]
    assert sorted(rejected) == sorted(REJECTED)
    assert all(alternates(disk.facts, name) for name in FINAL)


@settings(max_examples=25, deadline=None)
@given(st.permutations(STEPS), pauses, st.sets(st.integers(0, len(STEPS) - 1)))
def test_a_restart_between_any_two_events_tells_the_same_facts_once(
    order: list[Step], waits: list[float], restarts: set[int]
) -> None:
    through, broken = Disk(), Disk()
    for at, (step, seconds) in enumerate(zip(order, waits, strict=True)):
        for disk in (through, broken):
            do(disk, step)
        if at in restarts:
            broken.restart()
        for disk in (through, broken):
            disk.wait(seconds)
    for disk in (through, broken):
        disk.wait(250)
    assert broken.told == through.told


class Consumer:
    """Deals with pending reports as `Watcher.batches` has it, and may be killed at each point."""

    def __init__(self) -> None:
        self.got: dict[str, Fact] = {}

    def deliver(self, disk: Disk) -> Iterator[str]:
        """Yields the saved state after each step of the delivery."""
        pending = list(disk.arrivals.pending)
        saved = json.dumps(disk.arrivals.to_json())
        yield saved
        for report in pending:
            assert self.got.setdefault(report.key, report.fact) == report.fact
            yield saved
        disk.arrivals.acknowledge(pending)
        yield saved
        yield json.dumps(disk.arrivals.to_json())


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(STEPS),
    pauses,
    st.lists(st.sampled_from([None, 0, 1, 2, 3, "unsaved"]), min_size=11, max_size=11),
)
def test_a_kill_at_any_instant_loses_nothing_and_tells_nothing_twice(
    order: list[Step], waits: list[float], kills: list[int | str | None]
) -> None:
    disk, consumer = Disk(), Consumer()
    saved = json.dumps(disk.arrivals.to_json())
    for step, seconds, kill in zip(order, waits, kills, strict=True):
        do(disk, step)
        disk.wait(seconds)
        if kill == "unsaved":
            disk.restart(saved)
            continue
        for at, state in enumerate(consumer.deliver(disk)):
            saved = state
            if at == kill:
                disk.restart(saved)
                break
    disk.wait(450)
    list(consumer.deliver(disk))
    facts = list(consumer.got.values())
    assert disk.arrivals.states() == FINAL
    assert last_fingerprints(facts) == reference()
    assert all(alternates(facts, name) for name in FINAL)
    rejected = [fact.path for fact in facts if isinstance(fact, FileRejected)]
    assert sorted(rejected) == sorted(REJECTED)
