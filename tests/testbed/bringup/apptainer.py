"""Apptainer: Debian 12 has none, so sid's, with a glibc of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from bringup.layout import Layout
from bringup.packages import download_from_sid
from bringup.shell import TestbedError, output, run, say

LIBRARIES = ("libc6", "libseccomp2", "libsqlite3-0")


def install(layout: Layout) -> None:
    """Unpack Apptainer below `layout.apptainer`, unless it is there and answers.

    Raises:
        TestbedError: the unpacked command does not answer.
    """
    if version(layout) is not None:
        return
    log = layout.log("apptainer")
    debs = layout.root / "apptainer-debs"
    fresh = layout.apptainer.with_name("apptainer.new")
    for directory in (debs, fresh, layout.apptainer):
        shutil.rmtree(directory, ignore_errors=True)
    download_from_sid(("apptainer", *LIBRARIES), debs, layout, log)
    # patchelf writes the final path into the binaries.
    prefix = layout.apptainer
    libraries = prefix / "libraries"
    libraries.mkdir(parents=True)
    for deb in sorted(debs.iterdir()):
        into = prefix if deb.name.startswith("apptainer_") else libraries
        run(["dpkg-deb", "-x", deb, into], log)
    shutil.rmtree(debs)
    _use_own_libraries(prefix, libraries, log)
    _relocate(prefix)
    _configure(prefix / "etc/apptainer/apptainer.conf")
    if version(layout) is None:
        raise TestbedError(f"{layout.apptainer_command} does not answer (log: {log})")
    say(f"Apptainer {version(layout)}")


def version(layout: Layout) -> str | None:
    """Version of the installed Apptainer, None without one."""
    said = output([layout.apptainer_command, "--version"])
    found = re.search(r"\d+\.\d+\.\d+", said or "")
    return found.group() if found else None


def _use_own_libraries(prefix: Path, libraries: Path, log: Path) -> None:
    loaders = list(libraries.rglob("ld-linux-x86-64.so.2"))
    glibc = list(libraries.rglob("libc.so.6"))
    if not loaders or not glibc:
        raise TestbedError(f"no loader in sid's libc6 (log: {log})")
    search = ":".join(sorted({str(path.parent) for path in libraries.rglob("*.so.*")}))
    for path in sorted(prefix.rglob("*")):
        if libraries in path.parents or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_mode & 0o100 and _is_dynamic(path):
            run(
                [
                    *("patchelf", "--force-rpath"),
                    *("--set-interpreter", str(loaders[0]), "--set-rpath", search),
                    path,
                ],
                log,
            )


def _is_dynamic(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return False
    return output(["patchelf", "--print-interpreter", path]) is not None


def _relocate(prefix: Path) -> None:
    """The commands look for etc and var beside usr/bin, the starter beside usr/lib."""
    for name in ("etc", "var"):
        for link, target in (("usr", f"../{name}"), ("usr/lib", f"../../{name}")):
            path = prefix / link / name
            if not path.is_symlink() and not path.exists():
                path.symlink_to(target)
    (prefix / "var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)


def _configure(configuration: Path) -> None:
    """As root Apptainer asks for every capability; root in a container may lack some."""
    text = configuration.read_text()
    changed = re.sub(
        r"^root default capabilities = full$",
        "root default capabilities = no",
        text,
        flags=re.MULTILINE,
    )
    configuration.write_text(changed)
