"""A step: one command of one tilt series, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """What the driver has to run. Every path outside `argv` is project-relative.

    Attributes:
        name: for logs.
        argv: the command; never a shell string. Paths in it are as `directory` sees them.
        directory: where the command runs; made if it is not there.
        clears: files and directories that are removed before anything else: what an earlier
            attempt left must not pass for a result.
        links: symbolic links to make, link to what it leads to.
        files: text files to write before it runs, path to content.
        creates: files that must be there afterwards: the only proof of success. They are removed
            before it runs.
        environment: variables to set on top of the driver's own.
        tool: which of the installation's tools the program belongs to; None: the job's.
        stdout: file that its standard output goes to when it ends well; None: nowhere but the log.
        tilt_series: of a step that a job takes once, before all tilt series: the one that is left
            out of it when the step fails; None: the job fails.
    """

    name: str
    argv: tuple[str, ...]
    directory: str = "."
    clears: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    creates: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    tool: str | None = None
    stdout: str | None = None
    tilt_series: str | None = None
