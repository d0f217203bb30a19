"""A step: one command of one tilt series, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """What the driver has to run.

    Attributes:
        name: for logs.
        argv: the command; never a shell string.
        files: text files to write before it runs, project-relative path to content.
        creates: project-relative files that must be there afterwards: the only proof of success.
        environment: variables to set on top of the driver's own.
    """

    name: str
    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    creates: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
