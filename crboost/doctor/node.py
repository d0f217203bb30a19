"""What the first trial job does on the compute node: `python -m crboost.doctor.node --o JOB/`.

It looks at what every driver needs there and writes that into the job's directory; judging is done
by whoever reads it (`trial`).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crboost import __version__
from crboost.doctor.programs import PROGRAMS
from crboost.doctor.tools import programs_of
from crboost.files import write_json
from crboost.relion.markers import Marker, write_marker
from crboost.settings import Settings, ToolSettings

REPORT = "node.json"
LOCK = "doctor.lock"
SETTINGS = "doctor-settings.json"


def main(argv: Sequence[str] | None = None) -> None:
    """Look, write the report, and end the job."""
    parser = argparse.ArgumentParser(prog="python -m crboost.doctor.node")
    parser.add_argument("--o", required=True, type=Path)
    given, _ = parser.parse_known_args(argv)
    settings = Settings.model_validate_json(Path(SETTINGS).read_text(encoding="utf-8"))
    write_json(given.o / REPORT, look(settings, Path(LOCK)))
    write_marker(given.o, Marker.SUCCESS)


def look(settings: Settings, lock: Path) -> dict[str, Any]:
    """What this machine has of what drivers need."""
    return {
        "host": socket.gethostname(),
        "user": os.getuid(),
        "python": sys.version.split()[0],
        "crboost": __version__,
        "unix_time": time.time(),
        "directory": str(Path.cwd()),
        "cpus": len(os.sched_getaffinity(0)),
        "lock_seen": is_held(lock),
        "absent": absent(settings),
        "problems": images_that_do_not_start(settings),
        "refusal": refusal(settings),
    }


def is_held(lock: Path) -> bool | None:
    """Whether the lock that doctor holds is seen here; None: locks do not work at all."""
    with lock.open("r") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
    return False


def absent(settings: Settings) -> list[str]:
    """Images, programs and binds of the settings that are not on this machine, by setting."""
    found: list[str] = []
    containers = settings.containers
    images = containers.engine != "none"
    if images and any(tool.image for tool in settings.tools.values()):
        if shutil.which(containers.command) is None:
            found.append(f"containers.executable: {containers.command}")
        found += [
            f"containers.binds: {bind.source}"
            for bind in containers.binds
            if not bind.source.exists()
        ]
    for name, tool in settings.tools.items():
        if tool.image is not None and images:
            if not tool.image.exists():
                found.append(f"tools.{name}.image: {tool.image}")
            found += [
                f"tools.{name}.binds: {bind.source}"
                for bind in tool.binds
                if not bind.source.exists()
            ]
        elif not _is_inside(name, settings):
            found += _absent_programs(name, tool)
    return found


def _is_inside(name: str, settings: Settings) -> bool:
    """ctffind is called by RELION's own jobs: in RELION's container, where there is one."""
    relion = settings.tools.get("relion")
    return name == "ctffind" and relion is not None and relion.image is not None


def _absent_programs(name: str, tool: ToolSettings) -> list[str]:
    programs = programs_of(name, tool.executable) if name in PROGRAMS else []
    return [f"tools.{name}: {one.name}" for one in programs if shutil.which(one.name) is None]


def images_that_do_not_start(settings: Settings) -> list[str]:
    """What the container engine says of images in which nothing runs, by tool."""
    from crboost.containers import clean_environment, wrap
    from crboost.doctor.probe import last_words, run

    found: list[str] = []
    if settings.containers.engine == "none":
        return found
    for name, tool in settings.tools.items():
        if tool.image is None or not tool.image.exists():
            continue
        argv = wrap(["true"], name, settings, cwd=Path("/"))
        answer = run(argv, timeout_s=60, environ=clean_environment(os.environ))
        if answer.code != 0:
            found.append(f"tools.{name}: {last_words(answer)}")
    return found


def refusal(settings: Settings) -> str | None:
    """Why a job cannot submit an array from here, in sbatch's words; empty: it can.

    None where there is no Slurm. Nothing is submitted.
    """
    if settings.scheduler.kind != "slurm":
        return None
    from crboost.array_directory import submission_environment
    from crboost.doctor.probe import last_words, run
    from crboost.doctor.requests import requests
    from crboost.doctor.submission import script_of
    from crboost.doctor.trial import small

    request = requests(settings.scheduler)[0]
    request = replace(request, resources=small(request.resources))
    script = script_of(request, settings, Path.cwd())
    argv = [*shlex.split(settings.scheduler.submit), "--test-only", "--array=0-1%1"]
    answer = run(argv, timeout_s=60, given=script, environ=submission_environment(os.environ))
    return last_words(answer) if answer.code != 0 else ""


if __name__ == "__main__":
    main()
