"""Debian packages: on the host, and from sid by the host's own mirror."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bringup.layout import Layout
from bringup.shell import TestbedError, output, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NOT_INTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}
# A mirror may be a snapshot of some day, whose Release file has expired since.
APT_OPTIONS = ("-o", "Acquire::Check-Valid-Until=false", "-o", "DPkg::Lock::Timeout=120")


def mirror() -> str:
    """The Debian mirror of this machine's apt configuration (not the security one).

    Raises:
        TestbedError: there is none.
    """
    codename = _os_release().get("VERSION_CODENAME", "")
    fields = "$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    listed = output(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    for line in (listed or "").splitlines():
        words = line.split()
        if words[1:] == [codename, "main", "Debian"]:
            return words[0]
    # Before the first `apt-get update` apt knows its sources only.
    uris = output(["apt-get", "update", "--print-uris"])
    found = re.search(rf"'(\S+)/dists/{codename}/InRelease'", uris or "")
    if found:
        return found.group(1)
    raise TestbedError(
        f"apt's configuration names no mirror for Debian {codename} main; "
        "see `apt-get update --print-uris` and add one to /etc/apt/sources.list.d/"
    )


def check_host() -> None:
    """Refuse a machine where this cannot work, with the reason.

    Raises:
        TestbedError: not Debian 12 on x86-64, or without Debian's keyring.
    """
    release = _os_release()
    if (release.get("ID"), release.get("VERSION_ID")) != ("debian", "12"):
        raise TestbedError(
            f"the testbed is made for Debian 12, this is {release.get('PRETTY_NAME', 'unknown')}"
        )
    architecture = output(["dpkg", "--print-architecture"])
    if architecture != "amd64":
        raise TestbedError(f"the testbed is made for amd64, this is {architecture}")
    if not KEYRING.exists():
        raise TestbedError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")


def install(commands: dict[str, str], log: Path) -> None:
    """Install the packages whose commands are missing.

    Args:
        commands: command (name or absolute path) -> Debian package.
        log: where apt's words go.
    """
    missing = sorted({package for command, package in commands.items() if not _have(command)})
    if not missing:
        return
    if not _known(missing):
        run(["apt-get", *APT_OPTIONS, "-qq", "update"], log, environment=NOT_INTERACTIVE)
    run(
        ["apt-get", *APT_OPTIONS, "-qq", "-y", "--no-install-recommends", "install", *missing],
        log,
        environment=NOT_INTERACTIVE,
    )


def download_from_sid(packages: Sequence[str], target: Path, layout: Layout, log: Path) -> None:
    """Download packages from sid without telling the host's apt about sid.

    Args:
        packages: names; dependencies are not followed.
        target: directory for the .deb files.
    """
    apt = layout.private_apt
    shutil.rmtree(apt, ignore_errors=True)
    for directory in ("lists/partial", "cache/archives/partial", "preferences.d"):
        (apt / directory).mkdir(parents=True)
    (apt / "status").touch()
    source = f"deb [signed-by={KEYRING}] {mirror()} sid main\n"
    (apt / "sources.list").write_text(source)
    options = [
        *APT_OPTIONS,
        *("-o", f"Dir::State={apt}"),
        *("-o", f"Dir::State::lists={apt}/lists"),
        *("-o", f"Dir::State::status={apt}/status"),
        *("-o", f"Dir::Cache={apt}/cache"),
        *("-o", f"Dir::Etc::sourcelist={apt}/sources.list"),
        *("-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::Etc::preferencesparts={apt}/preferences.d"),
        *("-o", "APT::Sandbox::User=root"),
        *("-o", "Acquire::Languages=none"),
    ]
    target.mkdir(parents=True, exist_ok=True)
    run(["apt-get", *options, "-qq", "update"], log)
    run(["apt-get", *options, "-qq", "download", *packages], log, directory=target)
    shutil.rmtree(apt)


def _have(command: str) -> bool:
    return Path(command).exists() if command.startswith("/") else _which(command) is not None


def _which(command: str) -> str | None:
    return shutil.which(command, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")


def _known(packages: Sequence[str]) -> bool:
    """Whether apt's lists are there and know these packages."""
    return output(["apt-cache", "show", "--no-all-versions", *packages]) is not None


def _os_release() -> dict[str, str]:
    pairs = (
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    return {key: value.strip('"') for key, value in pairs}


@contextmanager
def no_services_started() -> Iterator[None]:
    """Keep packages from starting their services; the testbed starts its own."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)
