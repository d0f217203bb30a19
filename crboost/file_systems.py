"""Which file systems are shared between hosts."""

from __future__ import annotations

from pathlib import Path

# SQLite's write-ahead log needs shared memory and locks that these do not give.
_NETWORK_FILE_SYSTEMS = (
    "nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse", "9p", "afs",
    "pvfs", "orangefs", "wekafs", "panfs",
)  # fmt: skip


def file_system_of(directory: Path, mounts: str) -> str:
    """The type of the file system that holds `directory`, from the text of a mountinfo file.

    Returns:
        The kernel's name ("ext4", "nfs4", "fuse.sshfs"), or "" when nothing matches.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if not separator or len(fields) < 5:
            continue
        point = fields[4].replace("\\040", " ")
        inside = directory == Path(point) or Path(point) in directory.parents
        if inside and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind


def is_network_file_system(kind: str) -> bool:
    """Whether a file system of this type is shared between hosts."""
    return kind.startswith(_NETWORK_FILE_SYSTEMS) and kind != "fuseblk"


def shared_file_system(directory: Path) -> str | None:
    """The type of the file system of an absolute path, if other hosts share it."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    kind = file_system_of(directory.resolve(), mounts)
    return kind if is_network_file_system(kind) else None
