"""The command: bring up, take down, say what is up."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bringup import accounting, apptainer, description, image, packages, slurm
from bringup.layout import DIRECTORY_VARIABLE, Layout, default_directory
from bringup.shell import MirrorError, TestbedError, say

BUILD_COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "patchelf": "patchelf",
    # A plain user's Apptainer mounts an image with it.
    "squashfuse": "squashfuse",
    "fusermount3": "fuse3",
}
SLURM_COMMANDS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
}
ACCOUNTING_COMMANDS = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
NO_MIRROR = 75  # EX_TEMPFAIL: not our fault, another day it works


def main() -> int:
    """0 done, 1 failed, 75 the package mirror could not deliver."""
    arguments = _parser().parse_args()
    layout = Layout((arguments.dir or default_directory()).absolute())
    try:
        if arguments.command == "up":
            up(
                layout,
                with_accounting=arguments.with_sacct,
                memory=arguments.memory_limit,
            )
        elif arguments.command == "down":
            down(layout, purge=arguments.purge)
        else:
            return status(layout)
    except MirrorError as error:
        layout.description.unlink(missing_ok=True)
        text = f"The package mirror could not deliver; RELION and Slurm tests skip.\n{error}"
        layout.mirror_failure.write_text(text + "\n")
        banner = "*" * 78
        print(f"{banner}\n{text}\n{banner}", file=sys.stderr)
        return NO_MIRROR
    except TestbedError as error:
        layout.description.unlink(missing_ok=True)
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


def up(layout: Layout, *, with_accounting: bool, memory: str) -> None:
    """Everything up, steps whose result is there skipped, independent ones side by side.

    Accounting that is already up stays up.

    Raises:
        MirrorError, TestbedError: see `shell`.
    """
    if os.geteuid() != 0:
        raise TestbedError("run as root: it installs packages and starts Slurm")
    packages.check_host()
    slurm.refuse_other_slurm(layout)
    with _locked(layout):
        before = description.read(layout) or {}
        known = before.get("slurm")
        if isinstance(known, dict) and known.get("accounting"):
            with_accounting = True
        layout.mirror_failure.unlink(missing_ok=True)
        packages.install(BUILD_COMMANDS, layout.log("packages"))

        def start_slurm() -> None:
            commands = SLURM_COMMANDS | (ACCOUNTING_COMMANDS if with_accounting else {})
            with packages.no_services_started():
                packages.install(commands, layout.log("packages"))
            if with_accounting:
                accounting.start(layout)
            slurm.start(layout, accounting=with_accounting, memory=memory)

        _side_by_side(
            lambda: image.make_rootfs(layout), lambda: apptainer.install(layout), start_slurm
        )
        image.pack(layout)
        description.write(layout, accounting=with_accounting, memory=memory)
    say(f"up: {layout.description}")


def down(layout: Layout, *, purge: bool) -> None:
    """Stop what `up` started and remove its run-time state; `purge` removes all files too."""
    if not layout.root.exists():
        return
    with _locked(layout):
        layout.description.unlink(missing_ok=True)
        slurm.stop(layout)
        accounting.stop(layout)
        slurm.stop_munge(layout)
        shutil.rmtree(layout.slurm, ignore_errors=True)
        if purge:
            shutil.rmtree(layout.root)


def status(layout: Layout) -> int:
    """Print what is up; 0 when all of it is, 1 otherwise."""
    described = description.read(layout)
    if described is None:
        why = (
            layout.mirror_failure.read_text()
            if layout.mirror_failure.exists()
            else "not brought up"
        )
        print(f"{layout.root}: down ({why.strip()})")
        return 1
    print(json.dumps(described, indent=2))
    if not slurm.is_up():
        print("Slurm does not answer: python tests/testbed up", file=sys.stderr)
        return 1
    return 0


def _side_by_side(*steps: Callable[[], None]) -> None:
    """Run steps in threads; the worst failure is raised when all have ended."""

    def told(step: Callable[[], None]) -> None:
        try:
            step()
        except TestbedError as error:
            say(f"failed: {str(error).splitlines()[0]}")
            raise

    with ThreadPoolExecutor(len(steps)) as pool:
        futures: list[Future[None]] = [pool.submit(told, step) for step in steps]
    errors = [error for future in futures if (error := future.exception()) is not None]
    # What is broken here matters more than a mirror that does not deliver.
    errors.sort(key=lambda error: isinstance(error, MirrorError))
    if errors:
        raise errors[0]


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    layout.root.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("w") as lock:
        end = time.monotonic() + 600
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TestbedError(f"{layout.lock}: held by another for 600 s") from None
                time.sleep(0.5)
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/testbed",
        description="RELION in a SIF, Apptainer and Slurm on this Debian 12 machine, for tests.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "bring up what is not up (needs root)"),
        ("down", "stop the daemons, remove their state"),
        ("status", "say what is up"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--dir",
            type=Path,
            help=f"where all files are (default: ${DIRECTORY_VARIABLE} or {default_directory()})",
        )
        if name == "up":
            command.add_argument(
                "--with-sacct", action="store_true", help="with accounting (MariaDB, slurmdbd)"
            )
            command.add_argument(
                "--memory-limit",
                choices=slurm.MEMORY_LIMITS,
                default=slurm.memory_limit_of_this_machine(),
                help="who holds jobs to their memory (default here: %(default)s)",
            )
        if name == "down":
            command.add_argument("--purge", action="store_true", help="remove all files as well")
    return parser
