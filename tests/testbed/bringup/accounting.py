"""Accounting for `sacct`: slurmdbd on a MariaDB of its own, on loopback."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

from bringup import daemons
from bringup.layout import Layout
from bringup.shell import TestbedError, output, run, say, wait_until
from bringup.slurm import (
    ACCOUNTING_PORT,
    CONFIGURATION,
    MARK,
    start_munge,
)

DATABASE_PORT = 16821


def start(layout: Layout) -> None:
    """Start MariaDB and slurmdbd unless they run.

    Raises:
        TestbedError: one of them does not come up.
    """
    log = layout.log("accounting")
    (layout.slurm / "run").mkdir(parents=True, exist_ok=True)
    (layout.slurm / "log").mkdir(parents=True, exist_ok=True)
    start_munge(layout, log)
    if daemons.running(layout.slurm / "run/slurmdbd.pid", "slurmdbd") and _answers():
        return
    _start_database(layout, log)
    password = secrets.token_hex(16)
    _sql(
        layout,
        "drop database if exists slurm_acct_db; create database slurm_acct_db;"
        f"create or replace user slurm@'127.0.0.1' identified by '{password}';"
        f"create or replace user slurm@localhost identified by '{password}';"
        "grant all on slurm_acct_db.* to slurm@'127.0.0.1';"
        "grant all on slurm_acct_db.* to slurm@localhost;",
        log,
    )
    CONFIGURATION.mkdir(exist_ok=True)
    configuration = CONFIGURATION / "slurmdbd.conf"
    configuration.touch(mode=0o600)
    configuration.chmod(0o600)
    configuration.write_text(
        f"""\
{MARK}
AuthType=auth/munge
DbdHost=localhost
DbdPort={ACCOUNTING_PORT}
SlurmUser=root
LogFile={layout.slurm}/log/slurmdbd.log
PidFile={layout.slurm}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""
    )
    run(["slurmdbd"], log)
    wait_until("slurmdbd answers", _slurmdbd_listens, 60, layout.slurm / "log/slurmdbd.log")
    say("accounting: slurmdbd answers")


def stop(layout: Layout) -> None:
    """Stop slurmdbd and the database, keep the database's files for the next start."""
    daemons.stop(layout.slurm / "run/slurmdbd.pid", "slurmdbd")
    daemons.stop(layout.database / "pid", "mariadbd", str(layout.database))
    configuration = CONFIGURATION / "slurmdbd.conf"
    if configuration.exists() and configuration.read_text().startswith(MARK):
        configuration.unlink()


def _answers() -> bool:
    return output(["sacctmgr", "-n", "list", "cluster"]) is not None


def _slurmdbd_listens() -> bool:
    # sacctmgr needs a slurm.conf that may not be written yet.
    return output(["bash", "-c", f": </dev/tcp/127.0.0.1/{ACCOUNTING_PORT}"]) is not None


def _start_database(layout: Layout, log: Path) -> None:
    data = layout.database / "data"
    if not (data / "mysql").is_dir():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        run(
            [
                *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}"),
                *("--auth-root-authentication-method=socket", "--skip-test-db"),
            ],
            log,
        )
    if daemons.running(layout.database / "pid", "mariadbd", str(layout.database)):
        return
    socket = layout.database / "socket"
    with log.open("ab") as out:
        subprocess.Popen(
            [
                "mariadbd",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                f"--socket={socket}",
                f"--pid-file={layout.database}/pid",
                "--bind-address=127.0.0.1",
                f"--port={DATABASE_PORT}",
                "--innodb-buffer-pool-size=64M",
                "--innodb-flush-log-at-trx-commit=0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )

    def answers() -> bool:
        return output(["mariadb", "--no-defaults", "-S", socket, "-e", "select 1"]) is not None

    wait_until("MariaDB answers", answers, 60, log)


def _sql(layout: Layout, statements: str, log: Path) -> None:
    done = subprocess.run(
        ["mariadb", "--no-defaults", "-S", str(layout.database / "socket")],
        input=statements.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise TestbedError(f"MariaDB: {done.stderr.decode(errors='replace')} (log: {log})")
