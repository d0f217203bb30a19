"""The service directory: where the service keeps its state, and who may read it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import CrboostError
from crboost.files import write_text

USER = "crboost"


@dataclass(frozen=True)
class ServiceDirectory:
    """The files of one service. Only its user can look into the directory.

    Attributes:
        path: absolute; on a local disk, if the database is in it.
    """

    path: Path

    @property
    def server(self) -> Path:
        """Home of Prefect's server: its SQLite database, its storage."""
        return self.path / "server"

    @property
    def logs(self) -> Path:
        """Logs of the supervisor and of what it keeps running."""
        return self.path / "logs"

    @property
    def sessions(self) -> Path:
        """One file for each active session."""
        return self.path / "sessions"

    @property
    def login_file(self) -> Path:
        """`user:password` of the server."""
        return self.path / "auth"

    @property
    def environment_file(self) -> Path:
        """Shell lines that make Prefect's commands talk to this service."""
        return self.path / "env"

    @property
    def status_file(self) -> Path:
        """What the supervisor says of itself; see `crboost.service.status`."""
        return self.path / "status.json"

    @property
    def pid_file(self) -> Path:
        """The supervisor's process."""
        return self.path / "supervisor.pid"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor as long as it lives."""
        return self.path / "supervisor.lock"

    def prepare(self) -> None:
        """Make the directory, closed to others.

        Raises:
            CrboostError: it is somebody else's.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.path.stat()
        if found.st_uid != os.getuid():
            raise CrboostError(
                f"service.directory = {self.path}: it belongs to another user (number "
                f"{found.st_uid})",
                hint="the service runs as one user: become that one, or set service.directory",
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            self.path.chmod(0o700)
        for directory in (self.server, self.logs, self.sessions):
            directory.mkdir(exist_ok=True, mode=0o700)

    def login(self) -> str | None:
        """`user:password`, if one has been made."""
        try:
            return self.login_file.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    def make_login(self) -> str:
        """The login; made on the first call, and the same ever after."""
        found = self.login()
        if found is None:
            found = f"{USER}:{secrets.token_urlsafe(24)}"
            write_text(self.login_file, found + "\n", mode=0o600)
        return found

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Write the file that a shell may read: a line `export NAME=VALUE` each."""
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
        write_text(self.environment_file, "".join(lines), mode=0o600)

    def supervised(self) -> bool:
        """Whether a supervisor lives."""
        try:
            with self.lock_file.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def supervising(self) -> Iterator[bool]:
        """Be the supervisor; False when there is one. The kernel ends it, however we end."""
        with self.lock_file.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
