from __future__ import annotations

import threading
import time
from pathlib import Path

from flows.tasks.waker import Waker


def test_a_new_file_wakes_at_once_and_silence_does_not(tmp_path: Path) -> None:
    with Waker(settle_seconds=0.0) as waker:
        waker.watch([tmp_path])
        assert waker.wait(1.0) is False
        threading.Timer(0.2, (tmp_path / "RELION_JOB_EXIT_SUCCESS").touch).start()
        began = time.monotonic()
        assert waker.wait(20.0) is True
        assert time.monotonic() - began < 5.0


def test_a_directory_that_is_not_there_yet_leaves_the_poll(tmp_path: Path) -> None:
    with Waker() as waker:
        waker.watch([tmp_path / "External" / "job001"])
        began = time.monotonic()
        assert waker.wait(0.3) is False
        assert time.monotonic() - began >= 0.3


def test_it_follows_to_other_directories(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    with Waker(settle_seconds=0.0) as waker:
        waker.watch([first])
        waker.watch([second])
        waker.wait(1.0)
        (second / "run.out").write_text("x")
        assert waker.wait(20.0) is True


def test_a_busy_log_does_not_wake_all_the_time(tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with (tmp_path / "run.out").open("w") as stream:
            while not stop.wait(0.002):
                stream.write("x\n")
                stream.flush()

    writer = threading.Thread(target=write)
    with Waker(settle_seconds=0.25) as waker:
        waker.watch([tmp_path])
        writer.start()
        began, wakes = time.monotonic(), 0
        while time.monotonic() - began < 1.5:
            wakes += waker.wait(1.0)
        stop.set()
        writer.join()
    assert 1 <= wakes <= 7
