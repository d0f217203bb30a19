"""Which filesystem a directory is on, and whether it tells of changes that others make."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

# The kernel tells a watcher of what this machine writes, not of what another one does.
_NETWORK = """
    nfs nfs4 cifs smb2 smb3 smbfs ncpfs afs 9p virtiofs ceph lustre gpfs mmfs beegfs fhgfs glusterfs
    gfs2 ocfs2 panfs pvfs2 orangefs wekafs acfs davfs vboxsf vmhgfs prl_fs
"""
NETWORK_FILESYSTEMS = frozenset(_NETWORK.split())
_ESCAPED = re.compile(r"\\([0-7]{3})")


def filesystem_of(directory: PurePath, mounts: str) -> str | None:
    """The type of the filesystem that a directory is on, such as `ext4`; None if not told.

    Args:
        directory: absolute, without symbolic links.
        mounts: `/proc/self/mountinfo`; see proc(5).
    """
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        words, _, rest = line.partition(" - ")
        fields = words.split()
        if len(fields) < 5 or not rest:
            continue
        point = PurePath(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        depth = len(point.parts)
        # Of two mounts on one point the later one is on top.
        if directory.is_relative_to(point) and (best is None or depth >= best[0]):
            best = depth, rest.split()[0]
    return None if best is None else best[1]


def needs_polling(directory: Path) -> str | None:
    """The name of the network filesystem that the directory is on, or None if it is on none."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    kind = filesystem_of(directory.resolve(), mounts)
    network = kind is not None and (kind in NETWORK_FILESYSTEMS or kind.startswith("fuse"))
    return kind if network else None
