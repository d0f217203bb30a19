"""The RELION image: a Debian sid root with RELION and our stand-ins, packed as a SIF."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from bringup.layout import Layout
from bringup.packages import mirror
from bringup.shell import output, run, say

#: RELION makes its PDFs with ghostscript; the stand-ins run on the image's Python, with the
#: project's own CTF fit.
PACKAGES = ("relion", "ghostscript", "python3", "python3-numpy", "python3-scipy")
#: Not needed at run time; LLVM and HIP come with OpenMPI's transport for AMD's GPUs.
LEFT_OUT = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/llvm-*",
    "/usr/lib/*/libamd_comgr*",
    "/usr/lib/*/libamdhip64*",
    "/usr/lib/*/libz3.so*",
)
REPOSITORY = Path(__file__).parents[3]
STAND_INS = Path(__file__).parents[1] / "standins"
#: What the stand-ins import of the project.
MODULES = ("__init__.py", "cpu/__init__.py", "cpu/arrays.py", "cpu/ctf.py", "cpu/fourier.py")


def make_rootfs(layout: Layout) -> None:
    """Bootstrap the image's files, unless they are there for the same packages."""
    stamp = layout.rootfs.with_suffix(".stamp")
    wanted = " ".join(PACKAGES + LEFT_OUT)
    if stamp.exists() and stamp.read_text() == wanted and layout.rootfs.is_dir():
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(layout.rootfs, ignore_errors=True)
    run(
        [
            "mmdebstrap",
            *("--variant=minbase", "--mode=root", "--architectures=amd64", "--components=main"),
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=Acquire::Languages "none"',
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            f"--include={','.join(PACKAGES)}",
            *("sid", str(layout.rootfs), mirror()),
        ],
        layout.log("rootfs"),
        nice=True,
    )
    stamp.write_text(wanted)
    say("image: files bootstrapped")


def pack(layout: Layout) -> None:
    """Put the stand-ins in and pack the SIF, unless it is there with the same ones."""
    stamp = layout.image.with_suffix(".stamp")
    wanted = _fingerprint(layout)
    if layout.image.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    _put_stand_ins(layout.rootfs)
    fresh = layout.image.with_suffix(".new.sif")
    run(
        [
            *(layout.apptainer_command, "build", "--force"),
            *("--mksquashfs-args", "-comp zstd -Xcompression-level 1"),
            *(fresh, layout.rootfs),
        ],
        layout.log("image"),
        nice=True,
    )
    fresh.rename(layout.image)  # jobs that run in the old one keep it
    stamp.write_text(wanted)
    say(f"image: {layout.image.stat().st_size / 1e6:.0f} MB")


def relion_version(layout: Layout) -> str | None:
    """What RELION in the image says of its version, None when it says nothing.

    Raises:
        TestbedError: the image cannot be run, with Apptainer's words.
    """
    ask: list[str | Path] = [
        layout.apptainer_command,
        "exec",
        layout.image,
        "relion_refine",
        "--version",
    ]
    said = output(ask)
    if said is None:
        run(ask, layout.log("image"))
    lines = (said or "").splitlines()
    return lines[0].removeprefix("RELION version:").strip() if lines else None


def _put_stand_ins(rootfs: Path) -> None:
    package = rootfs / "opt/crboost-standins/crboost"
    shutil.rmtree(package, ignore_errors=True)
    for module in MODULES:
        target = package / module
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / "crboost" / module, target)
    for source in sorted(STAND_INS.glob("*_standin.py")):
        target = rootfs / "usr/local/bin" / source.stem.removesuffix("_standin")
        shutil.copyfile(source, target)
        target.chmod(0o755)


def _fingerprint(layout: Layout) -> str:
    digest = hashlib.sha256(layout.rootfs.with_suffix(".stamp").read_bytes())
    digest.update(str(layout.rootfs.stat().st_ino).encode())
    sources = [REPOSITORY / "crboost" / module for module in MODULES]
    for source in sources + sorted(STAND_INS.glob("*_standin.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()
