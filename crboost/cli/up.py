"""`crboost up` and `crboost down`: the service of a headnode, and all of it in one command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from crboost.cli.commands import AsJson
from crboost.cli.terminal import command, print_json
from crboost.errors import CrboostError

if TYPE_CHECKING:
    from crboost.service.directory import ServiceDirectory
    from crboost.service.status import Part, ServiceStatus
    from crboost.settings import ServiceSettings

Seconds = Annotated[float, typer.Option("--timeout", help="How long to wait, seconds.", min=1)]


def up(
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether it is up; exit code 1 if not.")
    ] = False,
    env: Annotated[
        bool,
        typer.Option("--env", help='Print what a shell needs: eval "$(crboost up --env)"'),
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, for systemd and the like.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: service.host.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port. Default: service.port.", min=1, max=65535)
    ] = None,
    timeout_s: Seconds = 300.0,
    as_json: AsJson = False,
) -> None:
    """Start the service: Prefect's server, a worker, the deployments, the watcher.

    Repeat it at any time: after an upgrade it starts the new version. Jobs go on meanwhile.
    """
    from crboost.service.directory import ServiceDirectory
    from crboost.settings import load_settings

    service = load_settings().service
    directory = ServiceDirectory(service.directory)
    if env:
        _print_environment(directory)
    elif check:
        _check(service, as_json)
    else:
        status = _start(service, directory, host, port, foreground, timeout_s)
        if as_json:
            print_json({"url": status.url, "state": status.state, "versions": status.versions})
        else:
            _print_access(status, directory, service)
        _warn_of_channels(service)


def down(timeout_s: Seconds = 60.0) -> None:
    """Stop the service. Jobs stay at work."""
    from crboost.service.control import at_work, stop
    from crboost.service.directory import ServiceDirectory
    from crboost.settings import load_settings

    directory = ServiceDirectory(load_settings().service.directory)
    stopped = stop(directory, timeout_s)
    typer.echo("The service is down." if stopped else "The service was not running.")
    left = at_work()
    if left:
        typer.echo("Still at work, as jobs do not depend on it:")
        for one in left:
            typer.echo(f"  {one.run}  {command('crboost', 'status', one.project)}")


def _start(
    service: ServiceSettings,
    directory: ServiceDirectory,
    host: str | None,
    port: int | None,
    foreground: bool,
    timeout_s: float,
) -> ServiceStatus:
    """Have the service up; only returns when it is, or never, in the foreground."""
    from crboost.service.address import listen, with_address
    from crboost.service.control import (
        check_disk,
        end_leftovers,
        start,
        supervisor_argv,
        wait_until_up,
    )

    wanted = with_address(service, host, port)
    if directory.supervised():
        if foreground:
            raise CrboostError(
                f"{directory.path}: the service is running already", hint="crboost down"
            )
        running = _running(directory, wanted, service, host, port, timeout_s)
        if running is not None:
            return running
    directory.prepare()
    check_disk(service)
    end_leftovers(directory)
    listen(wanted).close()
    argv = supervisor_argv(host, port, foreground=foreground)
    if foreground:
        os.execv(argv[0], argv)
    typer.echo("Starting", err=True)
    return wait_until_up(directory, start(directory, argv), timeout_s, _tell)


def _running(
    directory: ServiceDirectory,
    wanted: ServiceSettings,
    service: ServiceSettings,
    host: str | None,
    port: int | None,
    timeout_s: float,
) -> ServiceStatus | None:
    """The service that is running; None when it was another version's and has been stopped."""
    from crboost.service.address import url_of
    from crboost.service.control import stop, wait_until_up
    from crboost.service.deployed import deployment_fingerprint

    status = wait_until_up(directory, None, timeout_s, lambda _: None)
    url = url_of(wanted.host, wanted.port)
    if (host is not None or port is not None) and url != status.url:
        raise CrboostError(
            f"the service is up at {status.url}, not at {url}",
            hint="crboost down first, to move it",
        )
    if status.fingerprint == deployment_fingerprint(service):
        return status
    if status.foreground:
        raise CrboostError(
            "crboost or its settings have changed since the service was started, and it was not "
            "started by `crboost up`",
            hint="systemctl --user restart crboost",
        )
    typer.echo("crboost or its settings have changed: starting the service anew", err=True)
    stop(directory, timeout_s)
    return None


def _tell(part: Part) -> None:
    said = {"starting": "starting", "running": "ready", "waiting": f"died: {part.message}"}
    if part.state in said:
        typer.echo(f"  {part.name}: {said[part.state]}", err=True)


def _print_access(
    status: ServiceStatus, directory: ServiceDirectory, service: ServiceSettings
) -> None:
    from urllib.parse import urlsplit

    from crboost.service.address import tunnel_line

    address = urlsplit(status.url)
    host, port = address.hostname or service.host, address.port or service.port
    typer.echo(f"The service is up: {status.url}")
    login = directory.login() if service.auth else None
    if login is not None:
        typer.echo(f"  login          {login}")
    typer.echo(f"  from elsewhere {tunnel_line(host, port)}")
    typer.echo('  in a shell     eval "$(crboost up --env)"')
    typer.echo(f"  logs           {directory.logs}")


def _warn_of_channels(service: ServiceSettings) -> None:
    """Say so where people will not be told what happens."""
    if not service.notify:
        return
    from crboost.doctor.service import judge_channels, service_facts

    found = judge_channels(service_facts(service))
    if found.status != "ok":
        typer.echo(f"warning: {found.found}\n  -> {found.fix}", err=True)


def _print_environment(directory: ServiceDirectory) -> None:
    from crboost.service.status import is_up

    if not is_up(directory):
        raise CrboostError("the service is not up", hint="crboost up")
    typer.echo(directory.environment_file.read_text(encoding="utf-8"), nl=False)


def _check(service: ServiceSettings, as_json: bool) -> None:
    from crboost.cli.doctor import show
    from crboost.doctor.findings import exit_code
    from crboost.doctor.service import judge_service, service_facts

    findings = judge_service(service_facts(service), wanted=True)
    if as_json:
        print_json(
            {
                "exit_code": exit_code(findings),
                "findings": [finding.to_dict() for finding in findings],
            }
        )
    else:
        show(findings)
    raise typer.Exit(exit_code(findings))
