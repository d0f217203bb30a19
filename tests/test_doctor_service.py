"""What is said of the service, from what was seen of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from crboost.doctor.service import ServiceFacts, judge_service, service_facts
from crboost.relion.lock import ProcessId
from crboost.service.directory import ServiceDirectory
from crboost.service.status import Part, ServiceStatus
from crboost.settings import ServiceSettings

ME = ProcessId.of(os.getpid())
GONE = replace(ME, start_ticks=ME.start_ticks - 1)
STATUS = ServiceStatus(
    "up", "http://127.0.0.1:4200", ME, "then", "now", {"prefect": "3.8.8"}, fingerprint="f",
    parts=tuple(Part(name, "running", ME) for name in ("server", "worker", "watcher")),
)  # fmt: skip
WELL = ServiceFacts(
    ServiceDirectory(Path("/service")), auth=True, supervised=True, status=STATUS, healthy=True,
    stranger=401, deployments=["ingest", "process-project"], deployed="f", fingerprint="f",
    workers=["crboost@node"],
)  # fmt: skip


def said(facts: ServiceFacts) -> dict[str, str]:
    found = judge_service(facts, wanted=True)
    assert all(one.fix for one in found if one.status in ("failed", "warning"))
    return {one.check.removeprefix("service."): one.status for one in found}


def with_part(name: str, process: ProcessId | None, state: str = "running") -> ServiceStatus:
    parts = tuple(
        Part(name, state, process, message="it died") if part.name == name else part  # type: ignore[arg-type]
        for part in STATUS.parts
    )
    return replace(STATUS, parts=parts)


def test_a_service_that_is_well() -> None:
    assert set(said(WELL).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "check", "status"),
    [
        (replace(WELL, healthy=False), "server", "failed"),
        (replace(WELL, healthy=False), "deployments", "skipped"),
        (replace(WELL, stranger=200), "login", "failed"),
        (replace(WELL, stranger=200, auth=False), "login", "ok"),
        (replace(WELL, deployments=[]), "deployments", "failed"),
        (replace(WELL, deployed="other"), "deployments", "warning"),
        (replace(WELL, fingerprint="new"), "supervisor", "warning"),
        (replace(WELL, workers=[]), "worker", "failed"),
        (replace(WELL, channels=["chat"]), "notify", "ok"),
        (replace(WELL, channels=["chat"], deaf=["no address"]), "notify", "warning"),
        (replace(WELL, status=with_part("worker", GONE)), "worker", "failed"),
        (replace(WELL, status=with_part("watcher", None, "waiting")), "watcher", "failed"),
        (replace(WELL, status=with_part("watcher", ME, "starting")), "watcher", "warning"),
        (replace(WELL, status=replace(STATUS, state="failed", message="x")), "supervisor",
         "failed"),
    ],
)  # fmt: skip
def test_what_is_wrong(facts: ServiceFacts, check: str, status: str) -> None:
    assert said(facts)[check] == status


def test_what_a_part_died_of_is_told() -> None:
    facts = replace(WELL, status=with_part("watcher", None, "waiting"))
    assert any("it died" in one.found for one in judge_service(facts, wanted=True))


def test_no_service_is_a_failure_only_where_one_is_wanted(tmp_path: Path) -> None:
    facts = service_facts(ServiceSettings(directory=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    (missing,) = judge_service(facts, wanted=True)
    (optional,) = judge_service(facts, wanted=False)
    assert (missing.status, missing.fix) == ("failed", "crboost up")
    assert optional.status == "skipped"
