"""What was found at one point of an installation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One point, looked at.

    Attributes:
        check: its name, which stays: `scheduler.partition`.
        status: warning: runs will work, but something is lost. skipped: not looked at.
        found: what is there, for a person.
        fix: what to do; empty where nothing is to be done.
    """

    check: str
    status: Status
    found: str
    fix: str = ""

    @property
    def subject(self) -> str:
        """The part of the installation: what stands before the first dot of `check`."""
        return self.check.partition(".")[0]

    def to_dict(self) -> dict[str, str]:
        """Plain values, for programs."""
        return asdict(self)


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    """Runs work, but not as well as they could."""
    return Finding(check, "warning", found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    """Runs will fail."""
    return Finding(check, "failed", found, fix)


def skipped(check: str, why: str, fix: str = "") -> Finding:
    """Not looked at."""
    return Finding(check, "skipped", why, fix)


def counts(findings: Iterable[Finding]) -> dict[Status, int]:
    """How many there are of each status."""
    found = [finding.status for finding in findings]
    statuses: tuple[Status, ...] = ("ok", "warning", "failed", "skipped")
    return {status: found.count(status) for status in statuses}


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if anything failed, else 0."""
    return int(any(finding.status == "failed" for finding in findings))
