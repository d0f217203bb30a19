"""Accuracy and speed of the embedded CPU tools on example data with a known truth.

Simulates three tilt series, runs motion correction, CTF, alignment and reconstruction on them,
prints the errors against the truth beside the figures to hold, and exits 1 if one is missed.

    python benchmarks/accuracy.py                  # as `crboost demo`: 512 px, 41 tilts
    python benchmarks/accuracy.py --size 256 --frames 3 --step 6
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from crboost.cpu.workers import SINGLE_THREADED

# Before numpy is imported: threads of the numerical libraries slow the worker processes down.
for variable, value in SINGLE_THREADED.items():
    os.environ.setdefault(variable, value)

from crboost.cpu.accuracy import Accuracy, measure, run_chain  # noqa: E402
from crboost.cpu.example_data import make_example_data  # noqa: E402
from crboost.files import read_json  # noqa: E402

#: Column title, attribute of `Accuracy`, format, and the figure that it must stay below.
COLUMNS = (
    ("drift RMS px", "drift_rms_px", ".3f", 0.15),
    ("defocus median %", "defocus_median_percent", ".2f", 1.0),
    ("defocus max %", "defocus_max_percent", ".2f", 5.0),
    ("tilt axis deg", "axis_deg", "+.3f", 0.2),
    ("shift RMS px", "shift_rms_px", ".3f", 0.4),
    ("shift max px", "shift_max_px", ".3f", 1.0),
    ("bead RMS A", "bead_rms_angstrom", ".2f", 3.0),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--size", type=int, default=512, help="image size, px (default 512)")
    parser.add_argument("--frames", type=int, default=5, help="frames per movie (default 5)")
    parser.add_argument("--step", type=float, default=3.0, help="tilt step, deg (default 3)")
    parser.add_argument("--seed", type=int, default=2026, help="of the simulation")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--keep", type=Path, help="work here and keep the files")
    given = parser.parse_args()
    if given.keep is not None:
        return run(given, given.keep)
    with tempfile.TemporaryDirectory(prefix="crboost_accuracy_") as directory:
        return run(given, Path(directory))


def run(given: argparse.Namespace, directory: Path) -> int:
    start = time.monotonic()
    example = make_example_data(
        directory / "example",
        seed=given.seed,
        size_px=given.size,
        frames=given.frames,
        tilt_step_deg=given.step,
        workers=given.workers,
    )
    simulated = time.monotonic()
    results = []
    for truth in read_json(example.truth)["series"]:
        where = run_chain(example, truth, directory / "results", workers=given.workers)
        results.append(measure(truth, where))
    finished = time.monotonic()
    good = [print_row(None), *(print_row(result) for result in results)]
    print(
        f"\nsimulated in {simulated - start:.1f} s, processed in {finished - simulated:.1f} s, "
        f"{given.workers} processes"
    )
    return 0 if all(good) else 1


def print_row(result: Accuracy | None) -> bool:
    """Print the titles (None) or one series; True if every figure is held."""
    if result is None:
        titles = [title for title, *_ in COLUMNS] + ["beads", "z flipped"]
        print("series  " + "  ".join(titles))
        limits = [f"< {limit:g}".rjust(len(title)) for title, _, _, limit in COLUMNS]
        print("limit   " + "  ".join([*limits, "  all", "at most half"]))
        return True
    cells = []
    good = result.beads_found == result.beads and result.flipped_found <= result.beads / 2
    for title, attribute, form, limit in COLUMNS:
        value = getattr(result, attribute)
        held = abs(value) < limit
        good = good and held
        cells.append((format(value, form) + ("" if held else " !")).rjust(len(title)))
    cells.append(f"{result.beads_found}/{result.beads}".rjust(5))
    cells.append(f"{result.flipped_found}/{result.beads}".rjust(9))
    print(f"{result.tilt_series:<6}  " + "  ".join(cells))
    return good


if __name__ == "__main__":
    sys.exit(main())
