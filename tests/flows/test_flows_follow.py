from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.tasks.follow import LINE_LENGTH, Backlog, FileTail, pause_seconds


def lines_of(backlog: Backlog, *, final: bool = False) -> list[str]:
    batch = backlog.take(final=final)
    return batch.text("the file").split("\n") if batch else []


def test_a_few_lines_pass_as_they_are() -> None:
    backlog = Backlog()
    backlog.feed(b"one\ntwo\nthree\n")
    assert lines_of(backlog) == ["one", "two", "three"]
    assert lines_of(backlog) == []


def test_of_many_lines_the_first_and_the_last_pass_and_the_rest_is_counted() -> None:
    backlog = Backlog(head=2, tail=3)
    backlog.feed(b"".join(b"line %d\n" % number for number in range(1239)))
    assert lines_of(backlog) == [
        "line 0",
        "line 1",
        "... 1,234 lines left out, see the file",
        "line 1236",
        "line 1237",
        "line 1238",
    ]


def test_one_line_left_out_is_one_line() -> None:
    backlog = Backlog(head=1, tail=1)
    backlog.feed(b"a\nb\nc\n")
    assert lines_of(backlog) == ["a", "... 1 line left out, see the file", "c"]


def test_an_unfinished_line_waits_until_it_is_finished_or_the_file_is() -> None:
    backlog = Backlog()
    backlog.feed(b"whole\nha")
    assert lines_of(backlog) == ["whole"]
    backlog.feed(b"lf\nlast words")
    assert lines_of(backlog) == ["half"]
    assert lines_of(backlog, final=True) == ["last words"]
    assert lines_of(backlog, final=True) == []


def test_a_progress_bar_counts_as_what_is_on_screen() -> None:
    backlog = Backlog()
    backlog.feed(b"10%\r20%\r30%")
    backlog.feed(b"\r100%\r\ndone\r\n")
    assert lines_of(backlog) == ["100%", "done"]


def test_a_bar_that_never_ends_its_line_takes_no_memory() -> None:
    backlog = Backlog()
    for number in range(20_000):
        backlog.feed(b"%d of many\r" % number)
        backlog.feed(b"x" * 100)
    assert len(backlog._partial) <= 4 * LINE_LENGTH + 1
    assert lines_of(backlog, final=True) == ["x" * 100]


def test_an_endless_line_is_cut_and_says_so() -> None:
    backlog = Backlog()
    backlog.feed(b"y" * 1000 + b"\n")
    assert lines_of(backlog) == ["y" * LINE_LENGTH + "... (1,000 characters)"]


def test_a_character_split_between_two_reads_stays_whole() -> None:
    backlog = Backlog()
    text = "tilt 17 at -24.0°, 3.1 Å\n".encode()
    for byte in text:
        backlog.feed(bytes([byte]))
    assert lines_of(backlog) == ["tilt 17 at -24.0°, 3.1 Å"]


def test_bytes_that_are_no_text_do_not_stop_the_log() -> None:
    backlog = Backlog()
    backlog.feed(b"\xff\xfe binary\nafter\n")
    assert lines_of(backlog)[-1] == "after"


@given(
    lines=st.lists(st.text(alphabet="abc 123", min_size=1, max_size=9), max_size=80),
    cuts=st.lists(st.integers(0, 800), max_size=8),
    head=st.integers(1, 5),
    tail=st.integers(1, 5),
)
def test_nothing_is_lost_without_being_counted(
    lines: list[str], cuts: list[int], head: int, tail: int
) -> None:
    lines = [line.strip() or "x" for line in lines]
    data = "".join(f"{line}\n" for line in lines).encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    backlog = Backlog(head, tail)
    for start, end in itertools.pairwise(edges):
        backlog.feed(data[start:end])
    batch = backlog.take(final=True)
    if not lines:
        assert batch is None
        return
    assert batch is not None
    assert len(batch.head) + batch.left_out + len(batch.tail) == len(lines)
    assert list(batch.head) == lines[: len(batch.head)]
    assert list(batch.tail) == lines[len(lines) - len(batch.tail) :]
    assert len(batch.head) <= head
    assert len(batch.tail) <= tail


def test_a_file_is_followed_as_it_appears_grows_and_is_started_anew(log_file: Path) -> None:
    tail = FileTail(log_file, source="External/job003/run.out")
    assert tail.read() is None
    log_file.write_text("a\n")
    assert tail.read() == "a"
    with log_file.open("a") as stream:
        stream.write("b\nc")
    assert tail.read() == "b"
    assert tail.read() is None
    assert tail.read(final=True) == "c"
    log_file.write_text("n\n")
    assert tail.read() == "n"


def test_what_an_earlier_run_of_the_job_wrote_is_not_told_again(log_file: Path) -> None:
    log_file.write_text("old\n")
    size = log_file.stat().st_size
    log_file.write_text("old\nnew\n")
    assert FileTail(log_file, begin=size).read() == "new"
    log_file.write_text("x\n")  # begun anew after all
    assert FileTail(log_file, begin=size).read() == "x"


def test_a_retry_sees_only_what_its_own_attempt_prints(log_file: Path) -> None:
    log_file.write_text("first attempt\n")
    tail = FileTail(log_file, skip_present=True)
    assert tail.read() is None
    with log_file.open("a") as stream:
        stream.write("second attempt\n")
    assert tail.read() == "second attempt"


def test_a_big_log_becomes_one_small_record_in_bounded_memory(log_file: Path) -> None:
    import tracemalloc

    log_file.write_bytes(b"a line of a log that grows too fast\n" * 600_000)
    tail = FileTail(log_file, source="run.out")
    tracemalloc.start()
    text = tail.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert text is not None
    assert "... 599,976 lines left out, see run.out" in text.split("\n")
    assert len(text.split("\n")) == 25
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("running", "pause"), [(0, 2), (60, 2), (480, 4), (3600, 30), (36_000, 30)]
)
def test_the_longer_a_job_runs_the_rarer_its_records(running: float, pause: float) -> None:
    assert pause_seconds(running) == pause
