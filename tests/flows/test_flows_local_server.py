from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from flows.local_server import (
    LocalServer,
    LocalServerError,
    local_home,
    prepare_database,
    server_environment,
)

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /scratch rw,relatime shared:2 - lustre mds@tcp:/scratch rw
41 22 0:36 / /home rw,relatime shared:3 master:4 - nfs4 filer:/home rw
42 40 0:37 / /scratch/local\\040disk rw - xfs /dev/sdb1 rw
43 22 0:38 / /mnt/usb rw - fuseblk /dev/sdc1 rw
"""


def test_prefects_files_stay_in_the_project_unless_sqlite_cannot_work_there() -> None:
    project = Path("/data/project")
    assert local_home(project, MOUNTS) == project / ".crboost" / "prefect"
    elsewhere = local_home(Path("/home/me/project"), MOUNTS)
    assert not elsewhere.is_relative_to("/home/me")
    assert elsewhere != local_home(Path("/home/me/project2"), MOUNTS)
    assert elsewhere == local_home(Path("/home/me/project"), MOUNTS)


def test_the_facilitys_prefect_settings_do_not_reach_the_local_server(tmp_path: Path) -> None:
    given = {
        "PATH": "/bin",
        "PREFECT_API_KEY": "secret",
        "PREFECT_PROFILE": "site-profile",
        "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://site-host/prefect",
    }
    environment = server_environment(given, tmp_path, "word")
    assert environment["PATH"] == "/bin"
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE"} & set(environment)
    assert not [value for value in environment.values() if "site-" in value]
    assert environment["PREFECT_HOME"] == str(tmp_path)
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_home_gets_a_migrated_database_once(tmp_path: Path) -> None:
    assert prepare_database(tmp_path) is True
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master")}
        assert {"flow_run", "task_run", "log", "artifact", "alembic_version"} <= tables
        connection.execute("create table mine (x)")
        connection.commit()
    assert prepare_database(tmp_path) is False
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as connection:
        assert connection.execute("select count(*) from mine").fetchone() == (0,)
    assert [path.name for path in tmp_path.iterdir()] == ["prefect.db"]


def _shape(database: Path) -> dict[str, object]:
    """Tables, columns, foreign keys and indexes, in an order that does not depend on luck."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        names = connection.execute(
            "select type, name, tbl_name from sqlite_master where name not like 'sqlite_%'"
        ).fetchall()
        shape: dict[str, object] = {"names": sorted(names)}
        for kind, name, _ in names:
            if kind == "table":
                columns = connection.execute(f"pragma table_xinfo('{name}')").fetchall()
                keys = connection.execute(f"pragma foreign_key_list('{name}')").fetchall()
                shape[name] = ([c[1:] for c in columns], sorted(key[2:] for key in keys))
        shape["revision"] = connection.execute("select * from alembic_version").fetchall()
        return shape


@pytest.mark.prefect
@pytest.mark.slow
def test_the_ready_made_database_is_what_prefects_migrations_make(tmp_path: Path) -> None:
    """With a newer Prefect the ready-made one lags behind: then it is what migrates on."""
    fresh, ready = tmp_path / "fresh", tmp_path / "ready"
    fresh.mkdir()
    prepare_database(ready)
    migrate = (
        "import asyncio\n"
        "from prefect.server.database import provide_database_interface\n"
        "asyncio.run(provide_database_interface().create_db())\n"
    )
    for home in (fresh, ready):
        subprocess.run(
            [sys.executable, "-c", migrate],
            env=server_environment(os.environ, home, "word"),
            check=True,
            timeout=300,
        )
    assert _shape(ready / "prefect.db") == _shape(fresh / "prefect.db")


@pytest.mark.prefect
def test_it_answers_its_owner_and_nobody_else(prefect_server: LocalServer) -> None:
    address = f"{prefect_server.api_url}/flows/count"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(address, data=b"{}"), timeout=10)
    assert refused.value.code == 401
    assert "127.0.0.1" in address


@pytest.mark.prefect
def test_it_goes_with_its_owner_even_when_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from flows.local_server import LocalServer\n"
        "server = LocalServer(Path(sys.argv[1]))\nserver.start()\nserver.wait()\n"
        "print(server._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    os.kill(server, 0)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and Path(f"/proc/{server}").exists():
        if "Z" in Path(f"/proc/{server}/stat").read_text().split(")")[1].split()[0]:
            return  # gone; nobody in this container reaps it
        time.sleep(0.1)
    assert not Path(f"/proc/{server}").exists()


@pytest.mark.prefect
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_bytes(b"this is no database, it only looks like a file\n" * 99)
    server = LocalServer(tmp_path)
    server.start()
    try:
        with pytest.raises(LocalServerError, match="not a database"):
            server.wait(timeout_seconds=60)
    finally:
        server.stop()
