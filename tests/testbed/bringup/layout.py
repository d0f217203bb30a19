"""Where everything is, below one directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

#: The environment variable that names the directory.
DIRECTORY_VARIABLE = "CRBOOST_TESTBED"


def default_directory() -> Path:
    """`CRBOOST_TESTBED`, or `crboost-testbed` in the user's cache."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "crboost-testbed"


@dataclass(frozen=True)
class Layout:
    """Paths of one testbed."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def description(self) -> Path:
        """`testbed.json`: there only while everything is up."""
        return self.root / "testbed.json"

    @property
    def mirror_failure(self) -> Path:
        """Why the package mirror could not deliver, when it could not."""
        return self.root / "mirror-failure.txt"

    def log(self, name: str) -> Path:
        """Log of one step."""
        return self.root / "log" / f"{name}.log"

    @property
    def apptainer(self) -> Path:
        return self.root / "apptainer"

    @property
    def apptainer_command(self) -> Path:
        return self.apptainer / "usr/bin/apptainer"

    @property
    def rootfs(self) -> Path:
        """The image's files before they are packed."""
        return self.root / "rootfs"

    @property
    def image(self) -> Path:
        return self.root / "relion.sif"

    @property
    def slurm(self) -> Path:
        """Slurm's state, spool, logs and fake devices."""
        return self.root / "slurm"

    @property
    def database(self) -> Path:
        return self.root / "database"

    @property
    def private_apt(self) -> Path:
        return self.root / "apt"
