"""On which file system a directory is, and whether other hosts write there too."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.file_systems import file_system_of, is_network_file_system, shared_file_system

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:35 / /scratch rw,relatime shared:2 - lustre mds@tcp:/scratch rw
41 22 0:36 / /home rw,relatime shared:3 master:4 - nfs4 filer:/home rw,vers=4.2
42 40 0:37 / /scratch/local\040disk rw - xfs /dev/sdb1 rw
43 22 0:38 / /mnt/usb rw - fuseblk /dev/sdc1 rw
44 22 0:52 / /microscope rw - autofs systemd-1 rw
45 22 0:53 / /microscope rw - cifs //microscope/frames rw
46 22 0:54 / /home/me/mnt rw - fuse.sshfs me@host:/ rw
a line of no such file
"""


@pytest.mark.parametrize(
    ("directory", "kind", "shared"),
    [
        ("/data/project", "ext4", False),
        ("/scratch", "lustre", True),
        ("/scratch/project", "lustre", True),
        ("/scratch/local disk/project", "xfs", False),
        ("/scratchy/project", "ext4", False),
        ("/home/me/project", "nfs4", True),
        ("/home/me/mnt/project", "fuse.sshfs", True),
        ("/mnt/usb/project", "fuseblk", False),
        ("/microscope/today", "cifs", True),  # the later mount is on top
    ],
)
def test_the_mounts_tell(directory: str, kind: str, shared: bool) -> None:
    assert file_system_of(Path(directory), MOUNTS) == kind
    assert is_network_file_system(kind) is shared


def test_without_mounts_nothing_is_shared() -> None:
    assert file_system_of(Path("/data"), "") == ""
    assert not is_network_file_system("")
    assert shared_file_system(Path("/proc")) is None
