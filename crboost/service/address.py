"""Where the service is found: its URL, its socket, and the way to it from another machine."""

from __future__ import annotations

import errno
import getpass
import socket

from pydantic import ValidationError

from crboost.errors import CrboostError, ParameterError
from crboost.settings import ServiceSettings, is_loopback, settings_file

_ALL = ("0.0.0.0", "::", "")


def url_of(host: str, port: int) -> str:
    """The web page's URL as this machine uses it."""
    if host in _ALL:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def tunnel_line(host: str, port: int, name: str | None = None) -> str:
    """The command that brings the page to another machine: `ssh -L ...`.

    Args:
        name: of this machine; asked for when not given.
    """
    if name is None:
        full = socket.getfqdn()
        name = socket.gethostname() if full.startswith("localhost") else full
    target = "127.0.0.1" if host in _ALL or is_loopback(host) else host
    return f"ssh -L {port}:{target}:{port} {getpass.getuser()}@{name}"


def with_address(service: ServiceSettings, host: str | None, port: int | None) -> ServiceSettings:
    """The settings with another address, where one is given.

    Raises:
        ParameterError: the address is not allowed.
    """
    given = {"host": host, "port": port}
    values = service.model_dump() | {name: one for name, one in given.items() if one is not None}
    try:
        return ServiceSettings.model_validate(values)
    except ValidationError as error:
        what = "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
        raise ParameterError(f"--host {values['host']} --port {values['port']}: {what}") from None


def listen(service: ServiceSettings) -> socket.socket:
    """The listening socket of the server.

    Raises:
        CrboostError: somebody else has the port, or the address is not this machine's.
    """
    host, port = service.host, service.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise CrboostError(
            f"service.host = {host!r}: {error.strerror}", hint=_other_host()
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # From now on whoever connects waits, also while the server is being started again.
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> CrboostError:
    if error.errno == errno.EADDRINUSE:
        return CrboostError(
            f"port {port} of {host} is in use by another program, or by another user's service",
            hint=f"crboost up --port {port + 1 if port < 65535 else 4200}, or service.port in "
            f"{settings_file()}; `ss -ltnp 'sport = {port}'` shows who has it",
        )
    if error.errno == errno.EACCES:
        return CrboostError(
            f"port {port} is not for ordinary users", hint="choose one above 1023: service.port"
        )
    return CrboostError(
        f"cannot listen on {host}, port {port}: {error.strerror}", hint=_other_host()
    )


def _other_host() -> str:
    return f"service.host in {settings_file()}: 127.0.0.1, or an address of this machine"
