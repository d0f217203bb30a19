"""`crboost session` and `crboost status --live`, as a user calls them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from crboost.acquisition.arrivals import Patience, SeriesState, Standing
from crboost.acquisition.arriving import note_left_out, write_arriving
from crboost.acquisition.intake import take_in
from crboost.acquisition.watch import Watcher
from crboost.cli.session import app, rules_of, spread
from crboost.cpu.example_data import ExampleData
from crboost.project import Project

Crboost = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def raw(tmp_path: Path, example: ExampleData) -> Path:
    return Path(shutil.copytree(example.directory, tmp_path / "raw data"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Where a session makes its project."""
    return tmp_path / "my project"


def arrive(project: Path, raw: Path) -> None:
    """What the service's watcher does, once; all that is there has ended."""
    opened = Project.open(project)
    with Watcher([raw], Patience(0, 0, 0)) as watcher:
        taken = take_in(opened, [raw], [report.fact for report in watcher.look()])
        now = datetime.now(UTC)
        note_left_out(opened.directory, taken.left_out, [], now)
        write_arriving(opened.directory, watcher.standing(), now, watcher.rejected())


def test_values_of_lists_need_no_repeated_option() -> None:
    lists = ("--watch", "--jobs")
    assert spread(["--watch", "a", "b", "--project", "p", "--jobs", "x"], lists) == [
        "--watch", "a", "--watch", "b", "--project", "p", "--jobs", "x",
    ]  # fmt: skip
    assert spread(["--watch=a", "--set", "k=v"], ("--watch",)) == ["--watch=a", "--set", "k=v"]


def test_only_options_that_were_given_differ_from_the_preset() -> None:
    assert rules_of({"jobs": None, "quiet_minutes": None}, {"expected_tilts": None}) == {}
    assert rules_of(
        {"quiet_minutes": 0.0, "failed_series_threshold": 0, "batch_seconds": 0.0},
        {"expected_tilts": 41},
    ) == {
        "quiet_minutes": None,
        "failed_series_threshold": None,
        "batch_seconds": 0.0,
        "patience": {"expected_tilts": 41},
    }


def test_from_start_to_stop(crboost: Crboost, project: Path, raw: Path, tmp_path: Path) -> None:
    other = tmp_path / "more"
    other.mkdir()
    words = [
        "session", "start", "--watch", raw, other, "--project", project, "--preset", "krios-k3",
        "--expected-tilts", 9, "--partial-after", 30, "--jobs", "importmovies", "fsMotionAndCtf",
        "--set", "acquisition.sample_thickness_nm=80",
    ]  # fmt: skip
    started = crboost(*words)
    assert started.returncode == 0, started.stderr
    assert "is active" in started.stdout
    assert "after 30 min without news" in started.stdout
    assert "importmovies, fsMotionAndCtf" in started.stdout
    assert "The service is not up: nothing is taken in before `crboost up`" in started.stdout
    again = crboost(*words)
    assert again.returncode == 0, again.stderr
    (raw / "backup").mkdir()
    shutil.copy(raw / "TS_01.mdoc", raw / "backup")
    lost = (raw / "TS_03.mdoc").read_text().replace("TS_03", "TS_04")
    (raw / "TS_04.mdoc").write_text(lost)
    arrive(project, raw)

    listed = json.loads(crboost("session", "list", "--json").stdout)
    assert [one["project"] for one in listed] == [str(project)]
    assert listed[0]["watch"] == [str(raw), str(other)]
    assert listed[0]["patience"]["expected_tilts"] == 9
    assert listed[0]["id"] in started.stdout
    assert {name: one["state"] for name, one in listed[0]["tilt_series"].items()} == {
        "TS_01": "complete",
        "TS_02": "partial",
        "TS_03": "complete",
    }
    assert "2 complete, 1 partial, 1 left out" in crboost("session", "list").stdout
    shown = crboost("session", "show", project).stdout
    assert re.search(r"TS_02 +partial 8/9", shown)
    assert re.search(r"TS_04 +left out 0/9", shown)
    for text in (shown, crboost("status", project).stdout):
        assert "Not used: 1 tilt series, 1 file" in text
        assert "TS_04 is left out: none of its 9 movies can be used (movie TS_04_" in text
        assert f"a copy of {raw}/TS_01.mdoc, which is used" in text
    for told in (
        json.loads(crboost("status", project, "--json").stdout),
        json.loads(crboost("session", "show", project, "--json").stdout),
    ):
        assert [one["name"] for one in told["left_out"]] == ["TS_04"]
        assert list(told["rejected"]) == [str(raw / "backup" / "TS_01.mdoc")]
        assert told["rejected_count"] == 1
    status = crboost("status", project).stdout
    assert re.search(r"tilt series +microscope\nTS_01 +complete 9/9", status)

    refused = crboost("session", "start", "--watch", other, "--project", project)
    assert refused.returncode == 2
    assert "has an active session" in refused.stderr
    assert "crboost session stop" in refused.stderr
    draining = crboost("session", "stop", project)
    assert draining.returncode == 0, draining.stderr
    assert "is draining: 2 complete, 1 partial" in draining.stdout
    assert "nothing has come for 180 s and no series is open, or after 30 min" in draining.stdout
    assert " draining " in crboost("session", "list").stdout
    assert re.match(r"Session \S+: draining, stopped 2", crboost("session", "show", project).stdout)
    assert "is draining: " in crboost("status", project).stdout
    stopped = crboost("session", "stop", project, "--now")
    assert stopped.returncode == 0, stopped.stderr
    assert "has ended: 2 complete, 1 partial" in stopped.stdout
    assert crboost("session", "list").stdout == "No session is active.\n"
    assert crboost("session", "stop", project).returncode == 2


def test_what_is_wrong_is_said_before_anything_is_made(
    crboost: Crboost, project: Path, raw: Path
) -> None:
    for words, says in (
        (["--preset", "krios-k9"], "did you mean krios-k3?"),
        (["--set", "microscope.pixel_size=1"], "no such parameter"),
        (["--partial-after", "1"], "partial_after_seconds = 60 must not be less"),
        (["--poll", "0"], "poll_seconds = 0"),
    ):
        refused = crboost("session", "start", "--watch", raw, "--project", project, *words)
        assert refused.returncode == 2
        assert says in " ".join(refused.stderr.split())
        assert not project.exists()
    inside = crboost("session", "start", "--watch", raw, "--project", raw / "P")
    assert "lie in each other" in inside.stderr
    assert crboost("session", "show", project).returncode == 2


def test_presets_are_listed_with_what_they_set(crboost: Crboost, tmp_path: Path) -> None:
    listed = crboost("session", "presets")
    assert re.search(r"krios-k3 +Titan Krios \(300 kV\) with Gatan K3", listed.stdout)
    assert "acquisition.eer_frames_per_fraction = 32" in listed.stdout
    values = {
        one["name"]: one for one in json.loads(crboost("session", "presets", "--json").stdout)
    }
    assert values["krios-k3"]["session"]["patience"]["mdoc_quiet_seconds"] == 180


def test_the_documentation_names_the_options_there_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text(encoding="utf-8")
    _, _, table = text.partition("## Options of a session")
    documented = set(re.findall(r"^\| `(--[a-z-]+)", table.partition("## ")[0], re.MULTILINE))
    start = typer.main.get_command(app).commands["start"]  # type: ignore[attr-defined]
    options = {name for one in start.params for name in one.opts if name.startswith("--")}
    elsewhere = {"--watch", "--project", "--preset", "--set", "--name", "--gain", "--help"}
    assert documented == options - elsewhere
    assert {"--watch", "--preset", "--gain", "--set"} <= set(re.findall(r"--[a-z-]+", text))


class Terminal:
    """`crboost status --live` on a terminal of 100 x 24, until Ctrl-C."""

    def __init__(self, project: Path, home: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        dropped = ("PREFECT_", "CRBOOST_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crboost", "status", str(project), "--live"],
            stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True,
            env={**environment, "HOME": str(home), "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def wait_for(self, pattern: str, seconds: float = 30.0) -> None:
        """Until the terminal shows it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._master], [], [], 0.2)
            if ready:
                data = os.read(self._master, 65536).decode(errors="replace")
                self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data)
            if re.search(pattern, self.text):
                return
        raise AssertionError(f"{pattern!r} did not come: {self.text[-3000:]}")

    def close(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            os.close(self._master)


@pytest.mark.slow
def test_the_live_table_follows_the_microscope(
    crboost: Crboost, project: Path, raw: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for one in [*(raw / "frames").glob("TS_03*"), raw / "TS_03.mdoc"]:
        shutil.move(one, hidden / one.name)
    started = crboost(
        "session", "start", "--watch", raw, "--project", project, "--preset", "krios-k3"
    )
    assert started.returncode == 0, started.stderr
    arrive(project, raw)
    terminal = Terminal(project, tmp_path)
    try:
        terminal.wait_for(r"session active, nothing is at work, last news")
        terminal.wait_for(r"TS_01 +complete 9/9")
        terminal.wait_for(r"TS_02 +partial 8/9")
        assert "TS_03" not in terminal.text
        opened = Project.open(project)
        with Watcher([raw], Patience(0, 0, 0)) as watcher:
            watcher.look()
            standing = watcher.standing()
        growing = Standing(SeriesState.GROWING, 4, 3)
        write_arriving(opened.directory, {**standing, "TS_03": growing}, datetime.now(UTC))
        terminal.wait_for(r"TS_03 +growing 3/4")
    finally:
        code = terminal.close()
    assert code == 0
    assert "Traceback" not in terminal.text


@pytest.mark.slow
@pytest.mark.prefect
def test_the_live_table_works_without_a_session_and_without_a_terminal(
    done: Path, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "crboost", "status", str(done), "--live"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while not (lines and lines[-1].startswith("TS_03")):
            line = process.stdout.readline()
            assert line, lines
            lines.append(line)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "nothing is at work" in lines[0]
    stages = ["importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct"]
    assert lines[1].split() == ["tilt", "series", *stages]
    assert lines[2].split() == ["TS_01", "done", "done", "done", "done"]
