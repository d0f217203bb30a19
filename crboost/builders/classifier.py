"""An external classifier of tilt images: table in, verdicts out. Pure.

The command gets two more arguments: the CSV table to read and the one to write. It runs in the
project directory, and image paths are relative to it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from crboost.builders.step import Step

IN_TABLE = "classifier_input.csv"
OUT_TABLE = "classifier_output.csv"

#: Columns of the table that the classifier reads.
COLUMNS = (
    "tilt_series",
    "tilt",
    "image",
    "tilt_angle_deg",
    "defocus_um",
    "ctf_resolution_angstrom",
    "motion_angstrom",
    "dose_e_per_a2",
    "mean_counts_per_px",
)


def classify(
    argv: Sequence[str],
    tilts: Sequence[Mapping[str, object]],
    directory: str,
) -> Step:
    """Ask a classifier about the tilt images of one series.

    Args:
        argv: the configured command.
        tilts: one mapping per tilt image, with `COLUMNS`; None is left empty.
        directory: project-relative, for the tables.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if one[key] is None else one[key] for key in COLUMNS} for one in tilts
    )
    given, made = f"{directory}/{IN_TABLE}", f"{directory}/{OUT_TABLE}"
    return Step(
        name="classifier",
        argv=(*argv, given, made),
        files={given: text.getvalue()},
        creates=(made,),
    )
