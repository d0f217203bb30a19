"""`python -m crboost.cpu COMMAND --spec SPEC.json --out DIR [--workers N]`.

Exits 0 when `result.json` is complete, 2 on bad input, 1 on anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from crboost.cpu.workers import SINGLE_THREADED
from crboost.errors import CrboostError

EXIT_OK, EXIT_UNEXPECTED, EXIT_BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m crboost.cpu",
        description="Small CPU tools for tilt series: for small data, teaching and tests.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("frames", "motion correction and CTF of one tilt series"),
        ("align", "alignment of one tilt series"),
        ("reconstruct", "weighted back-projection of one tilt series"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--spec", type=Path, required=True, help="JSON spec")
        command.add_argument("--out", type=Path, required=True, help="output directory")
        command.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    given = parser.parse_args(arguments)

    # Before numpy is imported, which reads them once.
    for variable, value in SINGLE_THREADED.items():
        os.environ.setdefault(variable, value)
    from crboost.cpu import commands as run

    functions = {
        "frames": run.run_frames,
        "align": run.run_align,
        "reconstruct": run.run_reconstruct,
    }
    try:
        functions[given.command](given.spec, given.out, max(1, given.workers), _report)
    except CrboostError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Exception:
        traceback.print_exc()
        return EXIT_UNEXPECTED
    return EXIT_OK


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
