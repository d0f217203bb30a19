"""A private Prefect server for one local run: quick to start, gone with its parent.

`crboost run` without `PREFECT_API_URL` needs a server for a few minutes. This one keeps its
database with the project, answers only to the process that started it (a random password on
the loopback interface: a headnode has other users), runs no service that a single local flow
does not need, and starts while its parent is still importing Prefect. Nothing here imports
Prefect, for that reason.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import importlib.resources
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from crboost.file_systems import file_system_of, is_network_file_system
from crboost.process import dying_with_us

SCHEMA = "prefect_schema.sql"

#: Environment of a local run: no telemetry, nothing on the terminal.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect keeps the log; what a terminal shows is the caller's business.
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}

# What a single flow in a single process never uses; the task-run recorder stays.
_UNUSED_SERVICES = (
    "SCHEDULER", "LATE_RUNS", "FOREMAN", "TRIGGERS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP",
    "REPOSSESSOR", "CLEANUP_RECONCILER", "EVENT_PERSISTER",
)  # fmt: skip


class LocalServerError(RuntimeError):
    """The local Prefect server did not start; the message ends with its own last words."""


def local_home(project_directory: Path, mounts: str | None = None) -> Path:
    """Where Prefect's files of a local run go: inside the project wherever SQLite can work.

    Args:
        project_directory: the project; its `.crboost/prefect` is the first choice.
        mounts: the text of `/proc/self/mountinfo`, read when not given.

    Returns:
        `<project>/.crboost/prefect`, or, for a project on a network file system, a directory
        of its own under the temporary directory. Losing it loses no science.
    """
    directory = project_directory.resolve()
    if mounts is None:
        with contextlib.suppress(OSError):
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    if not is_network_file_system(file_system_of(directory, mounts or "")):
        return directory / ".crboost" / "prefect"
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"crboost-{os.getuid()}" / name


def server_environment(environment: Mapping[str, str], home: Path, secret: str) -> dict[str, str]:
    """The environment in which the local server and its clients run.

    Every Prefect setting of the caller is left out: a database URL or a profile that belongs
    to the facility's server must never reach this one.
    """
    kept = {key: value for key, value in environment.items() if not key.startswith("PREFECT_")}
    return {
        **kept,
        **QUIET,
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNUSED_SERVICES},
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
        "PREFECT_SERVER_API_AUTH_STRING": f"crboost:{secret}",
        "PREFECT_API_AUTH_STRING": f"crboost:{secret}",
        # Block types are for saved blocks, which a local run has none of: a second of start-up.
        "PREFECT_SERVER_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }


def prepare_database(home: Path) -> bool:
    """Give a new home a database whose migrations have already run.

    Prefect's own first start runs every migration since 2022 (5 s); the schema that they end
    in is kept as text beside this module. A newer Prefect migrates on from there by itself.

    Returns:
        True when a database was made, False when there was one.
    """
    home.mkdir(parents=True, exist_ok=True)
    database = home / "prefect.db"
    if database.exists():
        return False
    schema = importlib.resources.files("flows").joinpath(SCHEMA).read_text(encoding="utf-8")
    handle, name = tempfile.mkstemp(prefix=".prefect.db.", dir=home)
    os.close(handle)
    temporary = Path(name)
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.executescript(schema)
            connection.commit()
        # A link, not a rename: another run may have made its database meanwhile.
        os.link(temporary, database)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def dump_schema(database: Path) -> str:
    """The SQL text that recreates the schema of a freshly migrated Prefect database."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return "\n".join(line.rstrip() for line in connection.iterdump()) + "\n"


class LocalServer:
    """One Prefect server process: `start`, `wait` until it answers, `stop`."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home.resolve()
        self.log = self.home / "server.log"
        self._secret = secrets.token_urlsafe(24)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        base = os.environ if environment is None else environment
        self.environment = server_environment(base, self.home, self._secret)

    @property
    def api_url(self) -> str:
        """The server's API address; known once it has been started."""
        return f"http://127.0.0.1:{self._port}/api"

    def start(self) -> None:
        """Start the server process and return at once."""
        prepare_database(self.home)
        # The server gets its socket ready made: no other process can take the port meanwhile.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        self.environment["PREFECT_API_URL"] = self.api_url
        command = [
            sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
            "--fd", str(listener.fileno()), "--log-level", "error", "--lifespan", "on",
        ]  # fmt: skip
        with listener, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**self.environment, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"},
                cwd=self.home,  # a prefect.toml or .env in the caller's directory is not ours
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
                # Ctrl-C in a terminal reaches the whole process group: the server must live
                # until the flow has told it how the run ended.
                start_new_session=True,
                preexec_fn=dying_with_us(),
            )

    def wait(self, timeout_seconds: float = 120.0) -> None:
        """Wait until the server answers.

        Raises:
            LocalServerError: it exited, or did not answer in time.
        """
        if self._process is None:
            raise LocalServerError("The local Prefect server has not been started.")
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LocalServerError(
                    f"The local Prefect server stopped while starting (exit code "
                    f"{self._process.returncode}).\n{self._last_words()}"
                )
            if _is_healthy(self._port, self._secret):
                return
            time.sleep(0.05)
        raise LocalServerError(
            f"The local Prefect server did not answer within {timeout_seconds:g} s; "
            f"see {self.log}.\n{self._last_words()}"
        )

    def stop(self) -> None:
        """End the server; returns when it has gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-15:])
        return ""


def _is_healthy(port: int, secret: str) -> bool:
    """Whether the server at `port` answers its health check."""
    token = base64.b64encode(f"crboost:{secret}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/api/health", headers={"Authorization": f"Basic {token}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
