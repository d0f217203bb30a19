"""A facility in small: a service of its own, a microscope that writes, and a scientist's eyes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crboost.acquisition.microscope_simulation import Mishaps, Pace, run, schedule
from crboost.files import read_json
from crboost.project import Project
from crboost.relion.star import read_star
from crboost.service.api import Api, ApiError

SPEED = 50
EXPECTED_TILTS = 9
PRESET = f"""
description = "The simulated microscope, {SPEED} times faster than a real one"
[session]
batch_seconds = 2
poll_seconds = 0.5
[session.patience]
stable_seconds = 1
mdoc_quiet_seconds = 3
partial_after_seconds = 20
expected_tilts = {EXPECTED_TILTS}
"""


def cluster_settings(relion: Path, apptainer: Path) -> str:
    """RELION in its image, jobs to Slurm's partition `cpu`; TOML."""
    return f"""
[containers]
executable = {json.dumps(str(apptainer))}
[tools.relion]
image = {json.dumps(str(relion))}
[scheduler]
kind = "slurm"
poll_s = 1.0
setup = ["export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"]
[scheduler.defaults]
partition = "cpu"
cpus = 2
memory_gb = 2
time_limit_minutes = 10
"""


@dataclass
class Facility:
    """One headnode.

    Attributes:
        directory: of everything.
        port: of the service's pages.
        sections: more of the settings file, in TOML.
    """

    directory: Path
    port: int
    sections: str = ""

    def __post_init__(self) -> None:
        (self.directory / "presets").mkdir(parents=True)
        (self.directory / "presets" / "simulated.toml").write_text(PRESET)
        self.settings.write_text(
            f"python = {json.dumps(sys.executable)}\n{self.sections}\n"
            f"[service]\ndirectory = {json.dumps(str(self.service))}\nport = {self.port}\n"
            f"presets = {json.dumps(str(self.directory / 'presets'))}\n"
        )

    @property
    def settings(self) -> Path:
        return self.directory / "settings.toml"

    @property
    def service(self) -> Path:
        return self.directory / "service"

    @property
    def environment(self) -> dict[str, str]:
        """Of a user of this headnode."""
        kept = {name: value for name, value in os.environ.items() if name[:8] != "PREFECT_"}
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {**kept, "CRBOOST_SETTINGS": str(self.settings), "HOME": str(home)}

    def crboost(self, *arguments: str, timeout: float = 180) -> str:
        """Run a command; what it printed. It must succeed."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "crboost", *arguments], cwd=self.directory,
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"crboost {' '.join(arguments)}: {done.stdout}"
        return done.stdout

    @property
    def login(self) -> str:
        return (self.service / "auth").read_text().strip()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask Prefect's API."""
        for _ in range(40):
            try:
                return Api(f"{self.url}/api", self.login, timeout_s=30).post(path, body)
            except ApiError as error:
                if error.status != 503:  # SQLite is busy
                    raise
            time.sleep(0.5)
        raise AssertionError(f"{path}: the server is always busy")

    def flow_runs(self) -> list[dict[str, Any]]:
        """Runs of `process-project`, oldest first."""
        flows = {"name": {"any_": ["process-project"]}}
        return list(self.call("/flow_runs/filter", {"flows": flows, "sort": "START_TIME_ASC"}))

    def pids(self) -> dict[str, int]:
        """The parts of the service that are processes."""
        parts = self.status()["parts"]
        return {one["name"]: one["process"]["pid"] for one in parts if one.get("process")}

    def status(self) -> dict[str, Any]:
        return dict(read_json(self.service / "status.json"))

    def flow_processes(self, project: Path) -> list[int]:
        """Processes that run a flow of the project: they hold its turn."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                opened = {str(one.readlink()) for one in (entry / "fd").iterdir()}
            except OSError:
                continue
            if str(project / ".crboost" / "flow.lock") in opened:
                found.append(int(entry.name))
        return found


class Microscope(threading.Thread):
    """Writes a recorded session, in the order of its acquisition."""

    def __init__(self, recorded: Path, out: Path, mishaps: Mishaps) -> None:
        super().__init__(daemon=True)
        mdocs = sorted(recorded.glob("*.mdoc"))
        self._actions = schedule(mdocs, recorded / "frames", Pace(), mishaps)
        self._out = out

    def run(self) -> None:
        run(self._actions, self._out, speed=SPEED)


def movies(recorded: Path, series: str) -> list[str]:
    """Names of a series' movies in the order of acquisition."""
    return sorted(file.name for file in (recorded / "frames").glob(f"{series}_*"))


def tilts(project: Path, job: str, series: str) -> list[str]:
    """The movies in a job's table of a series."""
    file = project / job / "tilt_series" / f"{series}.star"
    if not file.is_file():
        return []
    names = read_star(file).blocks[0].column("rlnMicrographMovieName")
    return [Path(name).name for name in names]


def computed(project: Path, job: str) -> Counter[str]:
    """How often a job has computed each tilt series, as its log tells."""
    log = (project / job / "run.out").read_text(errors="replace")
    return Counter(re.findall(r"^\[\d+/\d+\] (\S+) (?:done|failed)", log, re.MULTILINE))


def warnings_of(project: Path, job: str, series: str) -> str:
    """What a job noted on a tilt series."""
    return " ".join(read_json(project / job / "results" / f"{series}.json")["warnings"])


def job_of(project: Path, node: str) -> str | None:
    """The newest job of a node."""
    past = [one for one in Project.open(project).history() if one.node == node]
    return past[-1].job if past else None


def kill(pid: int) -> None:
    """As a power cut would."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for something; what it is."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    return value
