"""What the tests on a cluster share: settings, projects, the flow in a process of its own.

The flow runs as users run it, in a process of its own with a private Prefect server; what it did
is read from files, from Slurm, and from that server's database.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crboost.files import read_json, write_text
from crboost.project import Project
from crboost.run import Run, runs

Sections = dict[str, Any]


# --- settings ------------------------------------------------------------------------------


def to_toml(sections: Mapping[str, Any], name: str = "") -> str:
    """Nested dictionaries of strings, numbers and lists of strings, as TOML."""
    lines = [f"[{name}]"] if name else []
    for key, value in sections.items():
        if not isinstance(value, Mapping):
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    inner = [
        to_toml(value, f"{name}.{key}" if name else key)
        for key, value in sections.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join([*lines, *inner]) + "\n"


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Sections:
    """Settings `one`, with what `other` says instead or besides."""
    result = dict(one)
    for key, value in other.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = merged(before, value) if both else value
    return result


@dataclass
class Site:
    """The settings file of a site.

    Attributes:
        sections: what it holds.
    """

    file: Path
    sections: Sections

    def set(self, **changes: Any) -> None:
        """Change the file: `set(scheduler={"poll_s": 1})`."""
        self.sections = merged(self.sections, changes)
        write_text(self.file, to_toml(self.sections))

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to use it, with Prefect's variables of this process left out."""
        kept = {name: value for name, value in os.environ.items() if name[:8] != "PREFECT_"}
        kept.pop("CRBOOST_SCHEMER", None)
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        return {**kept, **quiet, "CRBOOST_SETTINGS": str(self.file)}


#: For `containers`: without the host's /tmp, where all that these tests use lies.
ALONE: Sections = {"extra_args": ["--contain"]}


# --- data and projects ---------------------------------------------------------------------


def make_project(directory: Path, data: Path) -> Project:
    """A project on example data."""
    return Project.create(
        directory, movies=[str(data / "frames" / "*")], mdocs=[str(data / "*.mdoc")]
    ).project


def gain_elsewhere(directory: Path, size_px: int) -> Path:
    """A gain reference of ones, by a link, beside the project's and the data's directories."""
    import mrcfile
    import numpy as np

    for name in ("disk", "references"):
        (directory / name).mkdir()
    with mrcfile.new(directory / "disk" / "gain.mrc") as made:
        made.set_data(np.ones((size_px, size_px), dtype=np.float32))
    link = directory / "references" / "newest.mrc"
    link.symlink_to(directory / "disk" / "gain.mrc")
    return link


# --- the flow, as users run it -------------------------------------------------------------


@dataclass
class FlowProcess:
    """`python -m flows.local process PROJECT`, started."""

    process: subprocess.Popen[str]
    result_file: Path

    def finish(self, timeout_seconds: float = 240) -> dict[str, Any]:
        """Its result, with `code` and what it `printed`."""
        printed, _ = self.process.communicate(timeout=timeout_seconds)
        result = read_json(self.result_file) if self.result_file.is_file() else {}
        return {**result, "code": self.process.returncode, "printed": printed}


def start_flow(project: Project, site: Site, *options: str) -> FlowProcess:
    """Start the flow on a project."""
    result = project.directory.parent / f"result_{time.monotonic_ns()}.json"
    argv = [
        sys.executable, "-P", "-m", "flows.local", "process", str(project.directory),
        "--result", str(result), *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        argv,
        env=site.environment,
        cwd=project.directory.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return FlowProcess(process, result)


def run_flow(
    project: Project, site: Site, *options: str, timeout_seconds: float = 240
) -> dict[str, Any]:
    """Run the flow to its end."""
    return start_flow(project, site, *options).finish(timeout_seconds)


def prefect_rows(project: Project, query: str) -> list[tuple[Any, ...]]:
    """From the database of the private server that ran the project's flows."""
    file = project.directory / ".crboost" / "prefect" / "prefect.db"
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def task_runs(project: Project) -> list[tuple[str, str]]:
    """Name and final state of every task of the project's last flow run, by their start."""
    return prefect_rows(  # type: ignore[return-value]
        project,
        "select name, state_name from task_run where flow_run_id = "
        "(select id from flow_run order by start_time desc limit 1) order by start_time",
    )


def task_messages(project: Project, task: str) -> list[str]:
    """What the states of a task's runs said, in order."""
    rows = prefect_rows(
        project,
        "select s.message from task_run_state s join task_run t on s.task_run_id = t.id "
        f"where t.name = '{task}' and s.message != '' order by s.timestamp",
    )
    return [str(row[0]) for row in rows]


# --- jobs that do as a test wants ----------------------------------------------------------


INTERPRETER = """\
#!/bin/bash
# The compute nodes' Python: does what a test wants before the driver, or in its place.
arguments=("$@")
if [ "$4" = job ] && [ "$5" = run ]; then  # -P -m crboost job run
  while [ $# -gt 0 ]; do
    case "$1" in --o) job="${{2%/}}" ;; --node) node="$2" ;; esac
    shift
  done
  echo "$node" >> starts.txt
  tries=$(grep -cx "$node" starts.txt)
  if [ -f "behaviour/$node.sh" ]; then . "behaviour/$node.sh"; fi
fi
exec {python} "${{arguments[@]}}"
"""


@dataclass
class Bench:
    """A small project on a site, and the means to make its jobs end as a test wants."""

    project: Project
    site: Site
    flows: list[FlowProcess] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        """Of the project."""
        return self.project.directory

    def behave(self, node: str, script: str) -> None:
        """Let a job run shell lines (with $job, $node, $tries) before the driver."""
        write_text(self.directory / "behaviour" / f"{node}.sh", script)

    def starts(self) -> list[str]:
        """The nodes of all drivers started so far."""
        path = self.directory / "starts.txt"
        return path.read_text().split() if path.is_file() else []

    def start(self, *options: str) -> FlowProcess:
        """Start the flow."""
        self.flows.append(start_flow(self.project, self.site, *options))
        return self.flows[-1]

    def run(self, *options: str) -> dict[str, Any]:
        """Run the flow to its end."""
        return self.start(*options).finish()

    @property
    def last_run(self) -> Run:
        """The project's newest run."""
        return runs(self.project)[-1]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the newest run's record says of one kind of event."""
        return [event for event in self.last_run.record["events"] if event["event"] == kind]

    def clean_up(self) -> None:
        """End what is left of flows, schemers and jobs; nothing that others started."""
        for flow in self.flows:
            if flow.process.poll() is None:
                flow.process.kill()
                flow.process.communicate()
        for file in self.directory.glob("Schemes/*/schemer.pid"):
            pid = read_json(file)["pid"]
            line = Path(f"/proc/{pid}/cmdline")
            if line.exists() and str(self.directory).encode() in line.read_bytes():
                os.kill(pid, signal.SIGKILL)
        for number in slurm_jobs_below(self.directory):
            subprocess.run(["scancel", "--quiet", number], check=False, timeout=60)


def slurm_jobs_below(directory: Path) -> list[str]:
    """Slurm's jobs that wait or run in a project."""
    said = subprocess.run(
        ["squeue", "--noheader", "--format=%i %Z"], capture_output=True, text=True, timeout=60
    )
    pairs = (line.strip().split(" ", 1) for line in said.stdout.splitlines() if " " in line)
    return [number for number, where in pairs if Path(where).is_relative_to(directory)]


def sacct(number: str, *fields: str, seconds: float = 120) -> dict[str, str]:
    """Accounting's fields of a job that has ended.

    Accounting hears of a job some time after it began, and later still that it ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        said = subprocess.run(
            ["sacct", "--parsable2", "--noheader", "--allocations", f"--jobs={number}",
             f"--format={','.join(('End', *fields))}"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert said.returncode == 0, said.stderr
        end, *values = said.stdout.strip().split("|")
        if end not in ("", "Unknown"):
            return dict(zip(fields, values, strict=True))
        assert time.monotonic() < deadline, f"accounting knows no end of job {number}: {values}"
        time.sleep(0.5)
