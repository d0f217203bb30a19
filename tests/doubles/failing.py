"""Which items a double fails on: DOUBLES_FAIL=TS_02,TS_03_004 names parts of their names."""

from __future__ import annotations

import os


def is_to_fail(name: str) -> bool:
    """Whether the environment wants this item to fail."""
    return any(part and part in name for part in os.environ.get("DOUBLES_FAIL", "").split(","))
