"""The environments of server, worker and watcher: nothing of the caller's Prefect reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crboost.service.directory import ServiceDirectory

#: A flow run says so often that it lives; Prefect allows no less.
HEARTBEAT_S = 30


@dataclass(frozen=True)
class Access:
    """What a client of the service must know.

    Attributes:
        url: of the page, without the `/api`.
        login: `user:password`; None: the server asks for none.
    """

    url: str
    login: str | None

    @property
    def api_url(self) -> str:
        """The address of Prefect's API."""
        return f"{self.url}/api"


def exported(access: Access) -> dict[str, str]:
    """Variables for a shell whose Prefect and crboost commands are to use the service."""
    login = {} if access.login is None else {"PREFECT_API_AUTH_STRING": access.login}
    return {
        "PREFECT_API_URL": access.api_url,
        **login,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
    }


def client_environment(
    environment: Mapping[str, str], directory: ServiceDirectory, access: Access
) -> dict[str, str]:
    """Of worker, watcher and whatever talks to the server.

    Every Prefect setting of the caller is left out, and Prefect's home is the service's: the
    user's own profile is neither read nor written.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith("PREFECT_")}
    return {
        **kept,
        **_no_proxy(environment),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_HOME": str(directory.server),
        "PREFECT_PROFILES_PATH": str(directory.server / "profiles.toml"),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        **exported(access),
    }


def server_environment(
    environment: Mapping[str, str],
    directory: ServiceDirectory,
    access: Access,
    database_url: str | None,
) -> dict[str, str]:
    """Of the server itself."""
    login = {} if access.login is None else {"PREFECT_SERVER_API_AUTH_STRING": access.login}
    return {
        **client_environment(environment, directory, access),
        **login,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url or sqlite_url(directory.server),
        # Relative: the page works behind any tunnel and under any name of the host.
        "PREFECT_SERVER_UI_API_URL": "/api",
        # A page of somebody else's, open in the same browser, gets nothing done here.
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": access.url,
        # Prefect copies its page when it starts; the installed package may be read-only.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(directory.server / "page"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # In memory, a restart of the server would crash healthy runs that hold a limit's slot.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        "PREFECT__SERVER_FINAL": "1",
    }


def sqlite_url(home: Path) -> str:
    """The address of the SQLite database in a directory."""
    return f"sqlite+aiosqlite:///{home}/prefect.db"


def _no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The site's HTTP proxy is not asked for this machine."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = ",".join([*filter(None, given.split(",")), "127.0.0.1", "localhost", "::1"])
    return {"no_proxy": hosts, "NO_PROXY": hosts}
