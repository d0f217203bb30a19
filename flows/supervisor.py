"""`python -m flows.supervisor`: keeps Prefect's server, a worker and the watcher running.

`crboost up` starts it. It holds the lock of the service directory, starts again what dies, tells
in `status.json` how everything stands, and ends flow runs whose process has gone. What it started
does not outlive it; the jobs of the runs do, because they are not its children.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from crboost.errors import CrboostError
from crboost.relion.lock import ProcessId
from crboost.service.address import listen, url_of, with_address
from crboost.service.api import Api, ApiError
from crboost.service.deployed import VARIABLE, deployment_fingerprint, versions
from crboost.service.directory import ServiceDirectory
from crboost.service.status import Part, ServiceStatus, State, write_status
from crboost.settings import ServiceSettings, load_settings
from flows.child import Child
from flows.deploy import POOL
from flows.local_server import prepare_database
from flows.service_environment import Access, client_environment, exported, server_environment
from flows.stale_runs import StaleRuns

TICK_S = 0.2
LOOK_S = 5.0
STALE_S = 10.0
#: A watcher that lives so long has read its sessions.
WATCHER_READY_S = 3.0
#: A server that has not answered for so long is ended and started again.
HUNG_S = 120.0
#: So often may the server die before it has ever answered.
ATTEMPTS = 3
LOG_BYTES = 20_000_000

STOPPED = (
    "crboost down stopped the service. Its jobs go on: run process-project again to follow them."
)


class Supervisor:
    """One service; `run` returns when it has been told to stop.

    Args:
        listener: the listening socket of the server.
        foreground: for `status.json`: systemd or a person started it, not `crboost up`.
    """

    def __init__(
        self,
        directory: ServiceDirectory,
        service: ServiceSettings,
        listener: socket.socket,
        *,
        foreground: bool = False,
    ) -> None:
        self._directory = directory
        self._service = service
        self._foreground = foreground
        self._since = _now()
        self._state: State = "starting"
        self._message = ""
        self._told: Any = None
        self._stop = False
        self._server_since = datetime.now(UTC)
        self._answered_at: float | None = None
        self._fingerprint = deployment_fingerprint(service)
        login = directory.make_login() if service.auth else None
        access = Access(url_of(service.host, service.port), login)
        self.url = access.url
        self._api = Api(access.api_url, login, timeout_s=5.0)
        self._stale = StaleRuns(self._api, access.api_url, POOL, directory.path / "flow_runs.json")
        directory.write_environment(exported(access))
        client = client_environment(os.environ, directory, access)
        server = server_environment(os.environ, directory, access, service.database_url)
        python = [sys.executable, "-P", "-m"]
        self.worker_name = f"crboost@{socket.gethostname()}"

        def child(name: str, argv: Sequence[str], **options: Any) -> Child:
            return Child(
                name,
                [*python, *argv],
                options.pop("environment", client),
                directory.server,  # a prefect.toml or .env in the caller's directory is not ours
                directory.logs / f"{name}.log",
                first_pause_s=service.restart_seconds,
                **options,
            )

        self._server = child(
            "server",
            ["uvicorn", "--factory", "prefect.server.api.server:create_app",
             "--fd", str(listener.fileno()), "--log-level", "warning", "--lifespan", "on",
             "--timeout-graceful-shutdown", "5"],
            environment=server,
            pass_fds=[listener.fileno()],
        )  # fmt: skip
        self._deploy = child(
            "deployments",
            ["flows.deploy", "--runs-at-once", str(service.runs_at_once)],
            once=True,
        )
        self._worker = child(
            "worker",
            ["prefect", "worker", "start", "--pool", POOL, "--type", "process",
             "--name", self.worker_name],
        )  # fmt: skip
        self._watcher: Child | None = None
        if importlib.util.find_spec("flows.watcher") is not None:
            argv = ["flows.watcher"]
            self._watcher = child("watcher", argv)

    @property
    def _children(self) -> list[Child]:
        every = (self._server, self._deploy, self._worker, self._watcher)
        return [child for child in every if child is not None]

    def stop(self, *_: object) -> None:
        """Tell it to stop; may be a signal's handler."""
        self._stop = True

    def run(self) -> int:
        """Keep everything running until `stop`; returns the exit code."""
        say(f"crboost {versions()['crboost']}: {self.url}")
        if self._service.database_url is None:
            prepare_database(self._directory.server)
        self._server.start()
        self._tell()
        next_look = next_stale = 0.0
        try:
            while not self._stop:
                self._look_after_children()
                if self._state == "failed":
                    return 1
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + (LOOK_S if self._state == "up" else 0.5)
                    self._go_on()
                    self._keep_logs_short()
                if self._server.state == "running" and time.monotonic() >= next_stale:
                    next_stale = time.monotonic() + STALE_S
                    self._end_stale_runs()
                self._tell()
                time.sleep(TICK_S)
        finally:
            self._shut_down()
        return 0

    # --- what it does again and again --------------------------------------------------------

    def _look_after_children(self) -> None:
        for child in self._children:
            happened = child.look()
            if happened is None:
                continue
            say(f"{child.name}: {happened}")
            if child is self._server:
                self._server_since = datetime.now(UTC)
                if self._answered_at is None and child.starts >= ATTEMPTS:
                    self._state = "failed"
                    database = self._service.database_url is not None
                    which = " with the database of service.database_url" if database else ""
                    self._message = f"the server does not start{which}:\n{child.last_words()}"

    def _go_on(self) -> None:
        """One step further on the way to a service that is up, or see that it still is."""
        if self._server.pid is None:
            return
        if not Api.healthy(self._api):
            self._end_hung_server()
            return
        self._answered_at = time.monotonic()
        if self._server.state == "starting":
            self._server.ready()
            self._server_since = datetime.now(UTC)
        if self._deploy.state == "stopped":
            self._make_deployments()
        if self._deploy.state != "running":
            return
        for child in (self._worker, self._watcher):
            if child is not None and child.state == "stopped":
                child.start()
        if self._watcher is not None and self._watcher.lived_s > WATCHER_READY_S:
            self._watcher.ready()
        if self._worker.state == "starting" and self._worker_online():
            self._worker.ready()
        if self._state == "starting" and all(one.state == "running" for one in self._children):
            self._state = "up"
            say("up")

    def _end_hung_server(self) -> None:
        answered_at = self._answered_at
        if answered_at is not None and time.monotonic() - answered_at > HUNG_S:
            say(f"server: no answer for {HUNG_S:.0f} s; ending it")
            self._server.kill()
            self._answered_at = time.monotonic()

    def _make_deployments(self) -> None:
        """Make the deployments where they are not those of this installation.

        Not always: deploying again sets schedules back that somebody has resumed.
        """
        try:
            found = self._api.get(f"/variables/name/{VARIABLE}")["value"]
        except ApiError as error:
            if error.status != 404:
                return  # asked again at the next look
            found = None
        if found == self._fingerprint:
            self._deploy.state = "running"
        else:
            self._deploy.start()

    def _worker_online(self) -> bool:
        with contextlib.suppress(ApiError):
            workers = self._api.post(f"/work_pools/{POOL}/workers/filter", {})
            since = datetime.fromisoformat(self._worker.since)
            return any(
                one["name"] == self.worker_name
                and one["status"] == "ONLINE"
                and datetime.fromisoformat(one["last_heartbeat_time"].replace("Z", "+00:00"))
                >= since
                for one in workers
            )
        return False

    def _end_stale_runs(self) -> None:
        try:
            for line in self._stale.look(self._server_since, self._worker.pid):
                say(line)
        except ApiError as error:
            say(f"flow runs were not looked at: {error}")

    def _keep_logs_short(self) -> None:
        for log in self._directory.logs.glob("*.log"):
            if log.stat().st_size > LOG_BYTES:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)  # they are open for appending: writers go on at the start

    # --- the end -----------------------------------------------------------------------------

    def _shut_down(self) -> None:
        failed = self._state == "failed"
        if not failed:
            self._state = "stopping"
            say("stopping")
        self._tell()
        for child, grace_s in ((self._watcher, 15.0), (self._deploy, 1.0), (self._worker, 5.0)):
            if child is not None:
                child.stop(grace_s)
        try:
            for line in self._stale.abandon(STOPPED):
                say(line)
        except ApiError as error:
            if self._answered_at is not None:
                say(f"flow runs could not be ended: {error}")
        self._server.stop(15.0)
        if not failed:
            self._state = "down"
        self._tell()
        say("down" if not failed else self._message)

    def _tell(self) -> None:
        """Write `status.json`, if there is anything new, or now and then."""
        parts = [child.part for child in self._children]
        if self._watcher is None:
            parts.append(Part("watcher", "absent", message="this version has none"))
        new = (self._state, self._message, parts, int(time.monotonic() // 30))
        if new == self._told:
            return
        self._told = new
        status = ServiceStatus(
            state=self._state,
            url=self.url,
            process=ProcessId.of(os.getpid()),
            since=self._since,
            looked=_now(),
            versions=versions(),
            fingerprint=self._fingerprint,
            foreground=self._foreground,
            message=self._message,
            parts=parts,
        )
        write_status(self._directory, status)


def say(text: str) -> None:
    """A line of the supervisor's log."""
    print(f"{_now()} {text}", flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fail(directory: ServiceDirectory, service: ServiceSettings, error: CrboostError) -> int:
    """Leave the reason where `crboost up` finds it."""
    me = ProcessId.of(os.getpid())
    url = url_of(service.host, service.port)
    status = ServiceStatus("failed", url, me, _now(), _now(), versions(), message=str(error))
    write_status(directory, status)
    say(str(error))
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.supervisor", description=__doc__)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--foreground", action="store_true", help="not started by `crboost up`")
    arguments = parser.parse_args(argv)
    try:
        service = with_address(load_settings().service, arguments.host, arguments.port)
        directory = ServiceDirectory(service.directory)
        directory.prepare()
    except CrboostError as error:
        say(str(error))
        return 2
    with directory.supervising() as alone:
        if not alone:
            say(f"{directory.path}: another supervisor is at work")
            return 3
        directory.pid_file.write_text(f"{os.getpid()}\n")
        try:
            listener = listen(service)
        except CrboostError as error:
            return _fail(directory, service, error)
        with listener:
            supervisor = Supervisor(directory, service, listener, foreground=arguments.foreground)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, supervisor.stop)
            return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
