"""housekeeping: old flow runs leave Prefect's database; the disks are looked at.

Only Prefect's own records go: no project, no job directory and no raw data is touched.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from pydantic import Field

#: The flows whose runs are ours to delete.
FLOWS = (
    "process-project", "import", "preprocess", "align", "reconstruct", "plan-project",
    "ingest", "housekeeping",
)  # fmt: skip
_PAGE = 200


@dataclass(frozen=True)
class Disk:
    """Space on the file system of a directory, in bytes.

    Attributes:
        missing: there is no such directory; the numbers are 0.
    """

    directory: Path
    total: int = 0
    free: int = 0
    missing: bool = False

    @property
    def free_percent(self) -> float:
        """Share of the file system that is free."""
        return 100 * self.free / self.total if self.total else 0.0


@flow(name="housekeeping", persist_result=False)
def housekeeping(
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 90,
    directories: list[str] = [],  # noqa: B006
    warn_below_percent: Annotated[int, Field(ge=0, le=100)] = 10,
    dry_run: bool = False,
) -> dict[str, int]:
    """Delete old runs from Prefect's database and report the disks.

    No project, no job directory and no raw data is touched.

    Args:
        keep_days: Finished runs of crboost's flows that ended more days ago are deleted,
            apart from those whose plan, results or pictures are the newest of their project.
        directories: Report the space on the disks of these directories; none: those of the
            service and of the projects that Prefect's runs and active sessions name.
        warn_below_percent: Warn about a disk with less free space than this.
        dry_run: Only count.
    """
    log = get_run_logger()
    before = datetime.now(UTC) - timedelta(days=keep_days)
    with get_client(sync_client=True) as client:
        newest = runs_with_newest_artifacts(client)
        runs = [run for run in old_runs(client, before) if run not in newest]
        wanted = [Path(one) for one in directories] or known_directories(client)
        if not dry_run:
            delete(client, runs)
    verb = "would be deleted" if dry_run else "deleted"
    log.info("%d runs that ended before %s %s", len(runs), before.date(), verb)
    disks = disks_of(wanted)
    for disk in disks:
        if disk.missing:
            log.warning("%s: there is no such directory", disk.directory)
        elif disk.free_percent < warn_below_percent:
            log.warning("%s: only %.0f %% free", disk.directory, disk.free_percent)
    if disks:
        create_table_artifact(disk_rows(disks), key="disks", description="Space on disks")
    return {"runs": len(runs)}


def old_runs(client: SyncPrefectClient, before: datetime) -> list[UUID]:
    """Runs of our flows that ended before a date."""
    found: list[UUID] = []
    while True:
        page = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
                end_time=FlowRunFilterEndTime(before_=before),
            ),
            limit=_PAGE,
            offset=len(found),
        )
        found += [run.id for run in page]
        if len(page) < _PAGE:
            return found


def runs_with_newest_artifacts(client: SyncPrefectClient) -> set[UUID]:
    """Runs that made the newest artifact of some key: what a project's page shows.

    Prefect forgets the artifacts of a run that is deleted.
    """
    found: set[UUID] = set()
    offset = 0
    while True:
        body = {"limit": _PAGE, "offset": offset}
        page = client.request("POST", "/artifacts/latest/filter", json=body).json()
        found |= {UUID(one["flow_run_id"]) for one in page if one["flow_run_id"]}
        offset += len(page)
        if len(page) < _PAGE:
            return found


def delete(client: SyncPrefectClient, runs: Iterable[UUID]) -> None:
    """Delete these runs; what somebody else has deleted meanwhile is as good."""
    for run in runs:
        with contextlib.suppress(ObjectNotFound):
            client.delete_flow_run(run)


def known_directories(client: SyncPrefectClient) -> list[Path]:
    """The service's directory, and the projects of active sessions and of Prefect's latest runs.

    Projects that have gone since are left out.
    """
    from crboost.session import active_sessions
    from crboost.settings import load_settings

    service = load_settings().service.directory
    sessions = [one.project for one in active_sessions(service, get_run_logger().warning)]
    latest = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        sort=FlowRunSort.START_TIME_DESC,
        limit=_PAGE,
    )
    named = [Path(str(run.parameters["project_dir"])) for run in latest
             if run.parameters.get("project_dir")]  # fmt: skip
    return [one for one in dict.fromkeys([service, *sessions, *named]) if one.is_dir()]


def disks_of(directories: Sequence[Path]) -> list[Disk]:
    """The disks of these directories, each once; what is not there is told as missing."""
    found: dict[object, Disk] = {}
    for directory in directories:
        try:
            device = directory.stat().st_dev
        except OSError:
            found[directory] = Disk(directory, missing=True)
            continue
        if device not in found:
            usage = shutil.disk_usage(directory)
            found[device] = Disk(directory, usage.total, usage.free)
    return list(found.values())


def disk_rows(disks: Sequence[Disk]) -> list[dict[str, str | float]]:
    """The disks as a table; sizes in GB (10^9 bytes)."""
    return [
        {
            "directory": f"{disk.directory}{' (missing)' if disk.missing else ''}",
            "size GB": round(disk.total / 1e9, 1),
            "free GB": round(disk.free / 1e9, 1),
            "free %": round(disk.free_percent, 1),
        }
        for disk in disks
    ]
