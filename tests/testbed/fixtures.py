"""Fixtures on the testbed: `testbed`, `apptainer`, `relion_sif`, `slurm`.

Where it is not up, tests that ask for one of them skip and say how to bring it up; with
`CRBOOST_TESTBED_REQUIRED=1` (as in CI, once `up` has succeeded) they fail instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

REQUIRED_VARIABLE = "CRBOOST_TESTBED_REQUIRED"
DIRECTORY_VARIABLE = "CRBOOST_TESTBED"
#: Slurm's words for a job that may still change.
UNFINISHED = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}


@dataclass(frozen=True)
class Testbed:
    """What `testbed.json` says."""

    __test__ = False  # not a test class, whatever its name

    directory: Path
    description: Mapping[str, Any]


@dataclass(frozen=True)
class Apptainer:
    """The Apptainer of the testbed."""

    command: Path
    version: str

    def argv(
        self,
        image: Path,
        command: Sequence[str],
        *,
        directory: Path,
        binds: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> list[str]:
        """`apptainer exec` of a command in `directory`, with nothing of the host's environment."""
        words = [str(self.command), "exec", "--cleanenv", "--pwd", str(directory)]
        for bind in (str(directory), *binds):
            words += ["--bind", bind]
        for name, value in (environment or {}).items():
            words += ["--env", f"{name}={value}"]
        return [*words, str(image), *command]


@dataclass(frozen=True)
class RelionImage:
    """RELION in its image.

    Attributes:
        image: the SIF.
        version: of RELION.
        submission_binds: what a container needs of the host for sbatch to work inside.
        submission_environment: what must be set for it.
        stand_ins: name -> path inside the image of programs that only stand in for the real one.
    """

    image: Path
    version: str
    apptainer: Apptainer
    submission_binds: tuple[str, ...]
    submission_environment: Mapping[str, str]
    stand_ins: Mapping[str, str]

    def argv(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        submits: bool = False,
        binds: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The command that runs `command` in the image, able to use sbatch if it `submits`."""
        extra = dict(environment or {})
        if submits:
            binds = [*self.submission_binds, *binds]
            extra = {**self.submission_environment, **extra}
        return self.apptainer.argv(
            self.image, command, directory=directory, binds=binds, environment=extra
        )

    def run(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        submits: bool = False,
        binds: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 120,
        check: bool = True,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the image; a failure shows what it said."""
        done = subprocess.run(
            self.argv(command, directory, submits=submits, binds=binds, environment=environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done


@dataclass
class SlurmCluster:
    """The Slurm of the testbed; what a test submits is cancelled when the test ends."""

    partitions: tuple[str, ...]
    default_partition: str
    accounting: bool
    memory_limit: str
    configuration: Path
    submitted: list[int] = field(default_factory=list)

    def submit(self, command: str, directory: Path, *options: str) -> int:
        """`sbatch --wrap`; output goes to `<directory>/slurm-<id>.out`."""
        argv = ["sbatch", "--parsable", f"--chdir={directory}", *options, f"--wrap={command}"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        if said.returncode:
            pytest.fail(f"{argv}: {said.stderr}")
        job = int(said.stdout.strip().split(";")[0])
        self.submitted.append(job)
        return job

    def fields(self, job: int) -> dict[str, str]:
        """`scontrol show job` as a dictionary; values with blanks in them are cut there."""
        said = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", str(job)],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        words = (word.partition("=") for word in said.stdout.split() if "=" in word)
        return {key: value for key, _, value in words}

    def wait(self, job: int, *, until: str | None = None, timeout_seconds: float = 60) -> str:
        """Wait until the job is in state `until`, or without it has ended; returns its state."""
        end = time.monotonic() + timeout_seconds
        while True:
            state = self.fields(job)["JobState"]
            if state == until or (until is None and state not in UNFINISHED):
                return state
            if time.monotonic() > end:
                pytest.fail(f"job {job} is {state} after {timeout_seconds:g} s: {self.fields(job)}")
            time.sleep(0.1)

    def expire(self, job: int) -> None:
        """Let a running job's time limit be over now; Slurm acts within 30 s, state TIMEOUT.

        A limit of its own cannot be shorter than a minute.
        """
        subprocess.run(
            ["scontrol", "update", f"jobid={job}", "EndTime=now"], check=True, timeout=30
        )

    def cancel_all(self) -> None:
        """Cancel what was submitted here."""
        if self.submitted:
            subprocess.run(
                ["scancel", "--quiet", *map(str, self.submitted)], check=False, timeout=30
            )


@pytest.fixture(scope="session")
def testbed() -> Testbed:
    """The testbed's description."""
    directory = _directory()
    file = directory / "testbed.json"
    if not file.exists():
        failure = directory / "mirror-failure.txt"
        why = failure.read_text().strip() if failure.exists() else f"no testbed in {directory}"
        _absent(why)
    return Testbed(directory, json.loads(file.read_text()))


@pytest.fixture(scope="session")
def apptainer(testbed: Testbed) -> Apptainer:
    """A real Apptainer."""
    described = testbed.description
    command = Path(described["apptainer"])
    if not command.exists():
        _absent(f"{command} is gone")
    return Apptainer(command, described["versions"]["apptainer"])


@pytest.fixture(scope="session")
def relion_sif(testbed: Testbed, apptainer: Apptainer) -> RelionImage:
    """A real RELION in an image."""
    described = testbed.description
    image = Path(described["image"])
    if not image.exists():
        _absent(f"{image} is gone")
    return RelionImage(
        image=image,
        version=described["versions"]["relion"],
        apptainer=apptainer,
        submission_binds=tuple(described["submission_binds"]),
        submission_environment=described["submission_environment"],
        stand_ins=described["stand_ins"],
    )


@pytest.fixture(scope="session")
def _slurm_answers(testbed: Testbed) -> Mapping[str, Any]:
    try:
        said = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=30
        )
        answers = said.returncode == 0
    except FileNotFoundError:
        answers = False
    if not answers:
        _absent("Slurm's controller does not answer")
    described: Mapping[str, Any] = testbed.description["slurm"]
    return described


@pytest.fixture
def slurm_memory_limit(slurm: SlurmCluster) -> None:
    """Skips where Slurm cannot tell that a job had too much memory."""
    if not slurm.memory_limit.startswith("cgroup"):
        pytest.skip("no writable cgroup on this machine: Slurm calls a job out of memory FAILED")


@pytest.fixture
def slurm(_slurm_answers: Mapping[str, Any]) -> Iterator[SlurmCluster]:
    """A real Slurm; the test's own jobs are cancelled at its end."""
    described = _slurm_answers
    cluster = SlurmCluster(
        partitions=tuple(described["partitions"]),
        default_partition=described["default_partition"],
        accounting=described["accounting"],
        memory_limit=described["memory_limit"],
        configuration=Path(described["configuration"]),
    )
    yield cluster
    cluster.cancel_all()


def _directory() -> Path:
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "crboost-testbed"


def _absent(why: str) -> NoReturn:
    text = (
        f"{why}; to bring it up, on Debian 12 as root: python tests/testbed up --dir DIR, "
        f"then set {DIRECTORY_VARIABLE}=DIR"
    )
    if os.environ.get(REQUIRED_VARIABLE) == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
