"""How fast the command answers: `python benchmarks/cli_start.py [PROJECT]`.

Without a project it makes one of a small simulated session. Prints the median wall and processor
time of several starts of each command, and which expensive packages it imports; the aim is under
0.5 s. A benchmark and not a test, because a busy machine would fail it: there the processor time
is the one to look at.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AIM_SECONDS = 0.5
HEAVY = ("prefect", "pandas", "numpy", "scipy", "matplotlib", "starfile", "mrcfile", "tifffile")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path, nargs="?", help="a project to look at")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        project = arguments.project or make_project(Path(scratch))
        print(f"{'command':12} {'wall':>8} {'cpu':>8}  heavy imports (aim: {AIM_SECONDS} s)")
        for words in (["--version"], ["--help"], ["plan", project], ["status", project]):
            times = [measure(words) for _ in range(arguments.repeats)]
            heavy = ", ".join(heavy_imports(words)) or "none"
            name = str(words[0])
            wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"{name:12} {wall:7.3f}s {cpu:7.3f}s  {heavy}")


def make_project(scratch: Path) -> Path:
    """A project of three small tilt series, in which nothing has run."""
    from crboost.cpu.example_data import make_example_data
    from crboost.project import Project

    data = make_example_data(scratch / "data", size_px=128, frames=2)
    movies = [str(data.frames_directory / "*")]
    Project.create(scratch / "project", movies=movies, mdocs=[str(one) for one in data.mdocs])
    return scratch / "project"


def measure(words: list[str | Path]) -> tuple[float, float]:
    """Wall and processor time of one start, seconds."""
    before, began = _processor_seconds(), time.perf_counter()
    subprocess.run(command(words), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, _processor_seconds() - before


def _processor_seconds() -> float:
    """What all processes that have ended here have used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def heavy_imports(words: list[str | Path]) -> list[str]:
    """Which of the expensive packages the command imports."""
    done = subprocess.run(
        command(words, "-X", "importtime"), check=True, capture_output=True, text=True
    )
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return [name for name in HEAVY if name in names]


def command(words: list[str | Path], *options: str) -> list[str]:
    """The command line of one start."""
    return [sys.executable, *options, "-m", "crboost", *map(str, words)]


if __name__ == "__main__":
    main()
