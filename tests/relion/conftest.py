"""Projects made from the golden files: RELION 5.1's own runs of two small External jobs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from relion_golden import GOLDEN

from crboost.relion.scheme import read_scheme, write_scheme

# Stands in for a scheduler: reads the #SBATCH lines that the templates use, runs the script
# detached, and answers as sbatch does. Refuses the partition "nope".
SBATCH = """#!/bin/bash
out=$(sed -n 's/^#SBATCH --output=//p' "$1"); err=$(sed -n 's/^#SBATCH --error=//p' "$1")
if grep -q '^#SBATCH --partition=nope' "$1"; then
  echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1
fi
SLURM_JOB_ID=25 setsid bash "$1" </dev/null >>"$out" 2>>"$err" &
echo "Submitted batch job 25"
"""
# The golden runs slept for 12 s; a second is as good.
SLEEP = '#!/bin/bash\n[ "$1" = 12 ] && exec /bin/sleep 1\nexec /bin/sleep "$@"\n'


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the front of PATH."""
    directory = tmp_path_factory.mktemp("bin")
    for name, text in (("sbatch", SBATCH), ("sleep", SLEEP)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def environ(tools: Path) -> dict[str, str]:
    """The environment of the jobs."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RELION_")}
    return {**clean, "PATH": f"{tools}:{clean['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    """`project("scenario")`: that golden project as it was before RELION ran in it."""

    def make(scenario: str) -> Path:
        source, target = GOLDEN / scenario, tmp_path / scenario
        for path in [*source.glob("*.sh"), *source.glob("Schemes/*/*/job.star")]:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            if path.suffix == ".sh":
                copy.chmod(0o755)
        for path in source.glob("Schemes/*/scheme.star"):
            copy = target / path.relative_to(source)
            shutil.copy(path, copy)
            scheme = read_scheme(target, copy.parent.name)
            scheme.reset()
            write_scheme(target, scheme)
        return target

    return make
