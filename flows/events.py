"""What crboost tells Prefect: events of tilt series, files and sessions.

An event's id follows from what it tells: whoever tells it again, after a crash, tells the same
event, and Prefect keeps it once. Sent over HTTP, so that it is known whether the server has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from prefect.client.orchestration import SyncPrefectClient

from crboost.acquisition.facts import (
    FileRejected,
    Report,
    SeriesComplete,
    SeriesPartial,
    SeriesReopened,
)
from crboost.acquisition.intake import Intake
from crboost.acquisition.taken import SeriesIntake
from crboost.tilt_name import plain_name

COMPLETE = "crboost.tilt-series.complete"
PARTIAL = "crboost.tilt-series.partial"
REOPENED = "crboost.tilt-series.reopened"
LEFT_OUT = "crboost.tilt-series.left-out"
REJECTED = "crboost.file.rejected"
#: What a deployment's trigger listens to: one of these per batch.
ARRIVED = "crboost.tilt-series.arrived"
FAILED_TOO_MANY = "crboost.tilt-series.failed-too-many"
QUIET = "crboost.session.quiet"
STUCK = "crboost.session.stuck"
STARTED = "crboost.session.started"
FINISHED = "crboost.session.finished"

_NAMESPACE = UUID("5b0a5d4e-7c55-5a0e-9d6f-3f1c1f0c9a52")
#: Prefect refuses an event of more than 1.5 MB; of a long list the beginning will do.
MOST_NAMES = 200


@dataclass(frozen=True)
class Event:
    """An event of a project.

    Args:
        key: what it tells, in words that nothing else is told with.
        name: one of this module's.
        project_dir: absolute.
        project: what people call it.
        payload: what else there is to say.
    """

    key: str
    name: str
    project_dir: Path
    project: str
    payload: Mapping[str, Any]

    @property
    def id(self) -> UUID:
        """The same for the same key of the same project."""
        return uuid5(_NAMESPACE, f"{self.project_dir}\n{self.name}\n{self.key}")

    def to_json(self, now: datetime) -> dict[str, Any]:
        """As Prefect's server takes it.

        Args:
            now: when it is sent. Prefect's triggers pass over an event that occurred before one
                that they have acted on, so it is not the time at which the fact was found.
        """
        return {
            "id": str(self.id),
            "event": self.name,
            "occurred": now.astimezone(UTC).isoformat(),
            "resource": {
                "prefect.resource.id": resource_id(self.project_dir),
                "prefect.resource.name": self.project,
            },
            "related": [],
            "payload": {
                "project_dir": str(self.project_dir),
                "project": self.project,
                **self.payload,
            },
        }


def resource_id(project_dir: Path) -> str:
    """What Prefect knows a project by: `crboost.project.<12 hexadecimal digits>`."""
    digest = hashlib.sha1(str(project_dir.absolute()).encode()).hexdigest()
    return f"crboost.project.{digest[:12]}"


def send(client: SyncPrefectClient, events: Iterable[Event]) -> None:
    """Give events to the server; returns when it has taken all of them.

    Raises:
        httpx.HTTPError, PrefectException: it has not, or nobody knows. Send them again.
    """
    now = datetime.now(UTC)
    body = [event.to_json(now) for event in events]
    if body:
        client.request("POST", "/events", json=body).raise_for_status()


def events_of(
    reports: Sequence[Report],
    taken: Intake,
    project_dir: Path,
    project: str,
    jobs: Sequence[str],
) -> list[Event]:
    """The events of a batch of reports; the last one starts a run, if there is anything to run.

    Args:
        reports: from the watcher.
        taken: what has become of them. A series is told complete or partial as it was taken in,
            and only then; one that changed again in the same batch will be told when it ends.
        project_dir: absolute.
        project: what people call it.
        jobs: the jobs of the session; empty: all.
    """
    events = []
    names = taken.names
    records = {one.name: one for one in taken.series if one.state != "reopened"}
    left_out = {one.mdoc: one.reason for one in taken.left_out}
    last = {one.fact.name: one for one in reports if not isinstance(one.fact, FileRejected)}
    for report in reports:
        fact = report.fact
        if isinstance(fact, SeriesComplete | SeriesPartial):
            record = records.get(plain_name(fact.name))
            if last[fact.name] is not report:
                continue
            if fact.mdoc in left_out:
                name, payload = LEFT_OUT, _series(fact, reason=left_out[fact.mdoc])
            elif record is not None:
                name, payload = _taken(fact, record)
            else:
                continue
        elif isinstance(fact, SeriesReopened):
            name, payload = REOPENED, _series(fact, reason=fact.reason)
        else:
            name, payload = REJECTED, {"path": fact.path, "reason": fact.reason}
        events.append(Event(report.key, name, project_dir, project, payload))
    if names:
        arrived = {
            "names": sorted(names)[:MOST_NAMES],
            "count": len(names),
            "mode": "continue",
            "jobs": list(jobs),
        }
        key = " ".join(report.key for report in reports)
        events.append(Event(key, ARRIVED, project_dir, project, arrived))
    return events


def _series(fact: SeriesComplete | SeriesPartial | SeriesReopened, **more: Any) -> dict[str, Any]:
    return {"tilt_series": plain_name(fact.name), "mdoc": fact.mdoc, **more}


def _taken(
    fact: SeriesComplete | SeriesPartial, record: SeriesIntake
) -> tuple[str, dict[str, Any]]:
    """The event's name, and what it says: a movie may have gone since the series was told."""
    numbers = {
        "tilts": record.tilts,
        "usable": record.usable,
        "missing": list(record.missing)[:MOST_NAMES],
    }
    if record.state == "complete":
        return COMPLETE, _series(fact, **numbers)
    return PARTIAL, _series(fact, **numbers, reasons=list(record.reasons)[:MOST_NAMES])
