"""Names that Prefect accepts: artifact keys are lower-case letters, digits and dashes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def artifact_key(project_directory: Path, *parts: str) -> str:
    """The key of one artifact of one project: `<project>-<6 hex digits>-<part>-...`.

    The digits keep two projects of the same name in different places apart; the same project
    always gets the same key, so that Prefect shows its history.
    """
    directory = project_directory.resolve()
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:6]
    return "-".join(slug for slug in (_slug(directory.name), digest, *map(_slug, parts)) if slug)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
