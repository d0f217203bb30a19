"""`status.json`: what the supervisor says of the service, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from crboost.errors import CrboostError, FileFormatError
from crboost.files import read_json, write_json
from crboost.relion.lock import ProcessId
from crboost.service.directory import ServiceDirectory

#: waiting: it died, and is started again after a pause. absent: this version has none.
PartState = Literal["starting", "running", "waiting", "stopped", "failed", "absent"]
State = Literal["starting", "up", "stopping", "down", "failed"]


@dataclass(frozen=True)
class Part:
    """Server, worker or watcher; `deployments` too, which is no process.

    Attributes:
        process: None when there is none now.
        since: ISO time, UTC, of its last change of state.
        starts: how often it has been started.
        message: why it is not running, or what it last died of.
    """

    name: str
    state: PartState
    process: ProcessId | None = None
    since: str = ""
    starts: int = 0
    message: str = ""


@dataclass(frozen=True)
class ServiceStatus:
    """The service as its supervisor sees it.

    Attributes:
        url: of the web page; the API is below it, at `/api`.
        since, looked: ISO times, UTC: when the supervisor started, when it wrote this.
        fingerprint: of what the deployments were made of; see `deployment_fingerprint`.
        foreground: it was not started by `crboost up` but by systemd or the like.
        message: why it failed.
    """

    state: State
    url: str
    process: ProcessId
    since: str
    looked: str
    versions: Mapping[str, str]
    fingerprint: str = ""
    foreground: bool = False
    message: str = ""
    parts: Sequence[Part] = field(default_factory=tuple)

    def part(self, name: str) -> Part | None:
        """One part by name."""
        return next((part for part in self.parts if part.name == name), None)


def write_status(directory: ServiceDirectory, status: ServiceStatus) -> None:
    """Write `status.json`."""
    write_json(directory.status_file, asdict(status))


def read_status(directory: ServiceDirectory) -> ServiceStatus | None:
    """Read `status.json`; None if there never was a service here.

    Raises:
        FileFormatError: it is not what a supervisor writes.
    """
    try:
        value: dict[str, Any] = read_json(directory.status_file)
    except FileNotFoundError:
        return None
    try:
        parts = [Part(**{**part, "process": _process(part["process"])}) for part in value["parts"]]
        return ServiceStatus(
            **{**value, "process": ProcessId(**value["process"]), "parts": tuple(parts)}
        )
    except (KeyError, TypeError) as error:
        raise FileFormatError(
            directory.status_file,
            f"not a status of this version of crboost: {error}",
            hint="crboost down, then crboost up",
        ) from None


def _process(value: Mapping[str, Any] | None) -> ProcessId | None:
    return ProcessId(**value) if value is not None else None


def is_up(directory: ServiceDirectory) -> bool:
    """Whether the service is there and ready for runs."""
    if not directory.supervised():
        return False
    try:
        status = read_status(directory)
    except CrboostError:
        return False
    return status is not None and status.state == "up"
