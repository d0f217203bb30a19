"""`crboost up` with a real PostgreSQL server, where Debian's `postgresql` is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from crboost.service.api import Api, ApiError
from crboost.service.directory import ServiceDirectory

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def program(name: str) -> str | None:
    """A program of PostgreSQL; Debian has the server's where no PATH leads."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))


def as_somebody(argv: Sequence[str]) -> list[str]:
    """PostgreSQL's server does not run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv] \
        if os.getuid() == 0 else list(argv)  # fmt: skip


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database."""
    initdb, postgres, createdb = program("initdb"), program("postgres"), program("createdb")
    if initdb is None or postgres is None or createdb is None:
        pytest.skip("no PostgreSQL (Debian: apt-get install postgresql)")
    directory = Path(tempfile.mkdtemp(prefix="crboost-pg-"))  # short: it will hold a socket
    if os.getuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(directory, user.pw_uid, user.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = directory / "data"
    server = None
    try:
        subprocess.run(
            as_somebody([initdb, "-D", str(data), "-U", "prefect", "-A", "trust", "--no-sync"]),
            check=True, capture_output=True, cwd=directory,
        )  # fmt: skip
        where = ["-h", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(
            as_somebody([postgres, "-D", str(data), "-k", str(directory), "-F", *where]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        make = [createdb, *where, "-U", "prefect", "prefect"]
        while subprocess.run(make, capture_output=True, check=False).returncode != 0:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.3)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        if server is not None:
            server.terminate()
            server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def test_the_service_keeps_its_state_in_postgresql(database: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = ServiceDirectory(tmp_path / "state")
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'[service]\ndirectory = "{directory.path}"\nport = {port}\ndatabase_url = "{database}"\n'
    )
    kept = {key: one for key, one in os.environ.items() if not key.startswith("PREFECT_")}

    def crboost(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "crboost", *argv], text=True, capture_output=True,
            env={**kept, "CRBOOST_SETTINGS": str(settings)}, timeout=400, check=False,
        )  # fmt: skip

    try:
        done = crboost("up")
        assert done.returncode == 0, done.stderr
        checked = crboost("up", "--check")
        assert checked.returncode == 0 and "FAILED" not in checked.stdout, checked.stdout
        api = Api(f"http://127.0.0.1:{port}/api", directory.login())
        flows = {one["id"]: one["name"] for one in api.post("/flows/filter", {})}
        (deployment,) = (
            one["id"] for one in api.post("/deployments/filter", {})
            if flows[one["flow_id"]] == "housekeeping"
        )  # fmt: skip
        body = {"parameters": {"dry_run": True}, "state": {"type": "SCHEDULED"}}
        run = api.post(f"/deployments/{deployment}/create_flow_run", body)["id"]
        deadline = time.monotonic() + 120
        state = ""
        while state != "COMPLETED":
            assert state not in ("FAILED", "CRASHED") and time.monotonic() < deadline, state
            time.sleep(0.3)
            with suppress(ApiError):
                state = api.get(f"/flow_runs/{run}")["state"]["type"]
    finally:
        assert crboost("down").returncode == 0
    assert not list(directory.server.glob("*.db"))
