"""Which file systems are shared between hosts.

SQLite's write-ahead log and locks do not work there, and the kernel tells a watcher of what this
machine writes, not of what another one does.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

# How the kernel's names of them begin: "nfs4", "smb3", "fuse.sshfs".
_SHARED = (
    "nfs", "cifs", "smb", "ncpfs", "afs", "9p", "virtiofs", "ceph", "lustre", "gpfs", "mmfs",
    "beegfs", "fhgfs", "glusterfs", "gfs2", "ocfs2", "panfs", "pvfs", "orangefs", "wekafs", "acfs",
    "davfs", "vboxsf", "vmhgfs", "prl_fs", "fuse",
)  # fmt: skip
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system_of(directory: PurePath, mounts: str) -> str:
    """The type of the file system that holds `directory`, from the text of a mountinfo file.

    Args:
        directory: absolute, without symbolic links.
        mounts: `/proc/self/mountinfo`; see proc(5).

    Returns:
        The kernel's name ("ext4", "nfs4", "fuse.sshfs"), or "" when nothing matches.
    """
    best, kind = 0, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = PurePath(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        depth = len(point.parts)
        # Of two mounts on one point the later one is on top.
        if directory.is_relative_to(point) and depth >= best:
            best, kind = depth, right.split()[0]
    return kind


def is_network_file_system(kind: str) -> bool:
    """Whether a file system of this type is shared between hosts."""
    return kind.startswith(_SHARED) and kind != "fuseblk"  # that is a disk of this machine


def shared_file_system(directory: Path) -> str | None:
    """The type of the file system of an absolute path, if other hosts share it."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    kind = file_system_of(directory.resolve(), mounts)
    return kind if is_network_file_system(kind) else None
