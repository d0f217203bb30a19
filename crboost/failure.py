"""Why a job did not succeed: classes of failure, and which of them another try may mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

FailureKind = Literal[
    "bad_input",
    "tool_error",
    "killed",
    "out_of_memory",
    "time_limit",
    "node_failure",
    "preempted",
    "aborted",
    "schemer",
    "no_space",
    "bug",
]

#: Failures that another try may mend. The others would fail again.
RETRYABLE: frozenset[FailureKind] = frozenset(
    {"killed", "out_of_memory", "time_limit", "node_failure", "preempted"}
)

#: How the schemer begins what it writes into a job's run.err.
SCHEMER_SAYS = "crboost schemer: "
#: Its words for a job that did not end by itself.
_STOPPED_FROM_OUTSIDE = ("killed by", "process is gone")


@dataclass(frozen=True)
class Failure:
    """Why a job did not succeed.

    Attributes:
        message: the job's own words, first line first.
        log_tail: the end of its error output.
    """

    kind: FailureKind
    message: str
    log_tail: str = ""


def classify(said: tuple[str, str] | None, log_tail: str, job: str) -> Failure:
    """The failure of a job with a failure marker.

    Args:
        said: (kind, message) that the driver left; None if it could not.
        log_tail: the end of run.err.
        job: the job's name, for a message where there is none.
    """
    if said is not None:
        kind, message = said
        known = cast("FailureKind", kind if kind in get_args(FailureKind) else "tool_error")
        return Failure(known, message, log_tail)
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
    schemer = next((line for line in reversed(lines) if line.startswith(SCHEMER_SAYS)), "")
    own = next((line for line in reversed(lines) if not line.startswith(SCHEMER_SAYS)), "")
    words = schemer.removeprefix(SCHEMER_SAYS)
    if any(phrase in words for phrase in _STOPPED_FROM_OUTSIDE):
        return Failure("killed", words, log_tail)
    message = "\n".join(text for text in (own, words) if text) or f"{job} failed and said nothing"
    return Failure("tool_error", message, log_tail)
