"""The service of this headnode: is each part of it there, and at work?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crboost.doctor.findings import Finding, failed, ok, skipped, warning
from crboost.errors import CrboostError
from crboost.service.api import Api, ApiError
from crboost.service.channels import PROBLEM_VARIABLE, channel_problems
from crboost.service.deployed import VARIABLE, deployment_fingerprint
from crboost.service.directory import ServiceDirectory
from crboost.service.status import Part, ServiceStatus, read_status
from crboost.settings import ServiceSettings, settings_file

POOL = "headnode"
UP = "crboost up"
AGAIN = "crboost down, then crboost up"


@dataclass(frozen=True)
class ServiceFacts:
    """What was seen of the service.

    Attributes:
        supervised: a supervisor lives.
        status: what it says of itself; None: nothing.
        healthy: the server answers.
        stranger: what the server answers without the login: an HTTP status; None: no answer.
        deployments: their names; None: the server would not say.
        deployed: fingerprint of what they were made of.
        fingerprint: of what is installed now.
        workers: names of the workers that are online; None: the server would not say.
        channels: names of those who are told what happens.
        deaf: why somebody of them hears nothing.
    """

    directory: ServiceDirectory
    auth: bool
    supervised: bool
    status: ServiceStatus | None = None
    problem: str = ""
    healthy: bool = False
    stranger: int | None = None
    deployments: Sequence[str] | None = None
    deployed: str | None = None
    fingerprint: str = ""
    workers: Sequence[str] | None = None
    channels: Sequence[str] = ()
    deaf: Sequence[str] = ()


def service_facts(service: ServiceSettings) -> ServiceFacts:
    """Look at the service, from outside; changes nothing."""
    directory = ServiceDirectory(service.directory)
    supervised = directory.supervised()
    try:
        status = read_status(directory)
    except CrboostError as error:
        return ServiceFacts(directory, service.auth, supervised, problem=error.message)
    if not supervised or status is None:
        return ServiceFacts(directory, service.auth, supervised, status)
    url = f"{status.url}/api"
    api = Api(url, directory.login() if service.auth else None, timeout_s=5.0)
    healthy = api.healthy()
    return ServiceFacts(
        directory,
        service.auth,
        supervised,
        status,
        healthy=healthy,
        stranger=_stranger(url) if healthy else None,
        deployments=_deployments(api) if healthy else None,
        deployed=_variable(api, VARIABLE) if healthy else None,
        fingerprint=deployment_fingerprint(service),
        workers=_workers(api) if healthy else None,
        channels=[one.name for one in service.notify],
        deaf=_deaf(service, api if healthy else None),
    )


def _deaf(service: ServiceSettings, api: Api | None) -> list[str]:
    found = list(channel_problems(service.notify).values())
    unmade = _variable(api, PROBLEM_VARIABLE) if api is not None else None
    return [*found, f"Prefect's automations were not made: {unmade}"] if unmade else found


def _stranger(url: str) -> int | None:
    try:
        Api(url, None, timeout_s=5.0).get("/admin/version")
    except ApiError as error:
        return error.status
    return 200


def _deployments(api: Api) -> list[str] | None:
    try:
        found = api.post("/deployments/filter", {})
        flows = {one["id"]: one["name"] for one in api.post("/flows/filter", {})}
    except ApiError:
        return None
    return sorted(flows[one["flow_id"]] for one in found if "crboost" in one["tags"])


def _variable(api: Api, name: str) -> str | None:
    try:
        return str(api.get(f"/variables/name/{name}")["value"])
    except ApiError:
        return None


def _workers(api: Api) -> list[str] | None:
    try:
        found = api.post(f"/work_pools/{POOL}/workers/filter", {})
    except ApiError:
        return None
    return [one["name"] for one in found if one["status"] == "ONLINE"]


def judge_service(facts: ServiceFacts, *, wanted: bool) -> list[Finding]:
    """Findings on the service.

    Args:
        wanted: it should be up; else it is as well that there is none.
    """
    if facts.problem:
        return [failed("service.supervisor", facts.problem, AGAIN)]
    if not facts.supervised:
        said = f"not running (service.directory = {facts.directory.path})"
        if wanted:
            return [failed("service.supervisor", said, UP)]
        return [skipped("service.supervisor", f"{said}; `crboost run` works without it", UP)]
    status = facts.status
    if status is None:
        return [warning("service.supervisor", "it has just been started", "look again")]
    return [
        _judge_supervisor(facts, status),
        _judge_server(facts, status),
        _judge_login(facts),
        _judge_deployments(facts, status),
        _judge_worker(facts, status),
        _judge_watcher(status),
        judge_channels(facts),
    ]


def _judge_supervisor(facts: ServiceFacts, status: ServiceStatus) -> Finding:
    check = "service.supervisor"
    said = f"{status.state} since {status.since} (process {status.process.pid})"
    if status.state == "failed":
        return failed(check, status.message, UP)
    if status.fingerprint != facts.fingerprint:
        how = "systemctl --user restart crboost" if status.foreground else UP
        return warning(check, f"{said}; crboost or its settings have changed since", how)
    return ok(check, said)


def _judge_server(facts: ServiceFacts, status: ServiceStatus) -> Finding:
    check = "service.server"
    if facts.healthy:
        return ok(check, f"Prefect {status.versions.get('prefect', '')} answers at {status.url}")
    return failed(
        check, f"{status.url} does not answer{_why(status.part('server'))}", _log(facts, "server")
    )


def _judge_login(facts: ServiceFacts) -> Finding:
    check = "service.login"
    if facts.stranger is None:
        return skipped(check, "the server does not answer")
    if not facts.auth:
        return ok(check, "none: every user of this machine can start runs as the service's user")
    if facts.stranger in (401, 403):
        return ok(check, "the server refuses requests without it")
    return failed(check, f"the server lets strangers in (HTTP {facts.stranger})", AGAIN)


def _judge_deployments(facts: ServiceFacts, status: ServiceStatus) -> Finding:
    check = "service.deployments"
    if not facts.healthy:
        return skipped(check, "the server does not answer")
    if not facts.deployments:
        why = _why(status.part("deployments"))
        return failed(check, f"there are none{why}", _log(facts, "deployments"))
    names = ", ".join(facts.deployments)
    if facts.deployed != facts.fingerprint:
        return warning(check, f"{names}; not those of this installation", UP)
    return ok(check, names)


def _judge_worker(facts: ServiceFacts, status: ServiceStatus) -> Finding:
    check = "service.worker"
    part = status.part("worker")
    if part is None or part.process is None or not part.process.alive():
        return failed(check, f"not running{_why(part)}", _log(facts, "worker"))
    if facts.healthy and not facts.workers:
        return failed(
            check, "it runs, but the server has not heard of it lately", _log(facts, "worker")
        )
    return ok(check, f"process {part.process.pid}{_restarts(part)}")


def _judge_watcher(status: ServiceStatus) -> Finding:
    check = "service.watcher"
    part = status.part("watcher")
    if part is None or part.state == "absent":
        return skipped(check, "this version of crboost has none")
    if part.process is None or not part.process.alive():
        return failed(check, f"not running{_why(part)}", "see the log that it names")
    if part.state != "running":
        return warning(check, f"{part.state}{_why(part)}", "look again in a minute")
    return ok(check, f"process {part.process.pid}{_restarts(part)}")


def judge_channels(facts: ServiceFacts) -> Finding:
    """Whether people can be told what happens; never a reason to process nothing."""
    check = "service.notify"
    if facts.deaf:
        how = f"correct it in {settings_file()}, then {UP}; crboost notify --test tries it"
        return warning(check, "; ".join(facts.deaf), how)
    return ok(check, ", ".join(facts.channels) or "nobody is told of failures")


def _why(part: Part | None) -> str:
    return f": {part.message}" if part is not None and part.message else ""


def _restarts(part: Part) -> str:
    return f", started {part.starts} times" if part.starts > 1 else ""


def _log(facts: ServiceFacts, name: str) -> str:
    return f"see {facts.directory.logs / f'{name}.log'}"
