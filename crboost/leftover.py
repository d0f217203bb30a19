"""What a run leaves undone at its own end, so that nobody starts it over and over by itself.

A run that data have started and that ended, well or in a failure, would come to the same end
again. It is worth another run only if something has changed since: data, parameters, the
installation, or what has run. What was killed from outside is worth some more tries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crboost import __version__
from crboost.errors import FileFormatError
from crboost.failure import RETRYABLE
from crboost.files import read_json, write_json
from crboost.plan import Plan
from crboost.results import fingerprint_of
from crboost.stages.import_movies import series_fingerprints

if TYPE_CHECKING:
    from crboost.project import Project
    from crboost.settings import Settings

LEFTOVER_FILE = Path(".crboost") / "leftover.json"
#: How often in all a run is started by itself that was ended from outside.
TRIES = 3


@dataclass(frozen=True)
class Leftover:
    """What the last run left undone.

    Attributes:
        digest: of all that another run would begin with.
        reason: why it is left, for people.
        tries: how often a run came to this end.
        final: another try will not help.
    """

    digest: str
    reason: str
    tries: int = 1
    final: bool = True

    @property
    def leave_alone(self) -> bool:
        """Whether to wait for a change."""
        return self.final or self.tries >= TRIES


def digest_of_inputs(project: Project, jobs: Sequence[str], settings: Settings) -> str:
    """What a run begins with, history apart: data, parameters, installation."""
    parameters = (project.directory / "project_params.json").read_bytes()
    return fingerprint_of(
        [
            series_fingerprints(project.directory),
            hashlib.sha256(parameters).hexdigest(),
            json.loads(settings.model_dump_json()),
            sorted(jobs),
            __version__,
        ]
    )


def digest_of(inputs: str, plan: Plan) -> str:
    """What a run begins with: `digest_of_inputs`, and what it would have to do."""
    todo = [[job.node, job.fingerprint, job.reason, job.continue_of or ""] for job in plan.jobs]
    return fingerprint_of([inputs, todo])


def after_run(
    before: Leftover | None, digest: str, plan: Plan, *, failure: tuple[str, str] | None
) -> Leftover | None:
    """What to remember after a run.

    Args:
        before: what was remembered.
        digest: from what the run began with, and what would still have to be done.
        plan: what would still have to be done.
        failure: (kind, message) of the job that failed; None if the run came through.
    """
    if plan.is_empty:
        return None
    kind, message = failure or ("", "")
    tries = before.tries + 1 if before is not None and before.digest == digest else 1
    reason = message.splitlines()[0] if message else "the last run came through without it"
    return Leftover(digest, reason, tries, final=kind not in {*RETRYABLE, "no_space", "schemer"})


def read_leftover(project: Path) -> Leftover | None:
    """What the last run left; None if nothing, or if the file is damaged: then it is tried."""
    try:
        return Leftover(**read_json(project / LEFTOVER_FILE))
    except (FileNotFoundError, FileFormatError, TypeError):
        return None


def write_leftover(project: Path, leftover: Leftover | None) -> None:
    """Remember it, or that nothing is left."""
    if leftover is None:
        (project / LEFTOVER_FILE).unlink(missing_ok=True)
    else:
        write_json(project / LEFTOVER_FILE, asdict(leftover))
