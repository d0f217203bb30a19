"""Comparing a project with what RELION 5.1 left of the same schemes."""

from __future__ import annotations

import re
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"

# The environment of the golden runs whose job files have the extra submission options.
EXTRAS = {
    "RELION_QSUB_EXTRA_COUNT": "2",
    "RELION_QSUB_EXTRA1": "Nodes",
    "RELION_QSUB_EXTRA2": "Memory",
}


def mask_times(text: str) -> str:
    """The text with C-style dates such as `Sun Nov 22 19:00:30 2026` replaced."""
    return re.sub(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}", "<time>", text)


COMPARED = (
    "default_pipeline.star",
    "job_pipeline.star",
    "job.star",
    "scheme.star",
    "note.txt",
    "run_submit.script",
    "RELION_OUTPUT_NODES.star",
)


def assert_like_golden(project_dir: Path, scenario: str, skip: tuple[str, ...] = ()) -> None:
    """Every control file and marker that RELION left is here, the same apart from times.

    And no other: no more jobs, markers or schemes.
    """
    golden = GOLDEN / scenario

    def files(root: Path) -> dict[str, str]:
        found = {}
        for path in root.rglob("*"):
            name = str(path.relative_to(root))
            is_ours = path.name in COMPARED or path.name.startswith("RELION_JOB_")
            if path.is_file() and is_ours and name not in skip:
                found[name] = mask_times(path.read_text())
        return found

    expected, actual = files(golden), files(project_dir)
    assert len(expected) >= 8
    assert sorted(actual) == sorted(expected)
    for name, text in expected.items():
        assert actual[name] == text, name
