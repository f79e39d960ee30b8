"""What kind of file system a path stands on is read from the system's table of mounts."""

import pytest

from stowkeeper.durable import mounts
from stowkeeper.durable.mounts import UNKNOWN_MOUNT, FileSystemKind, Mount, find_mount, mount_of

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw,nosuid - proc proc rw
40 22 0:33 / /data rw,noatime shared:7 master:2 - xfs /dev/sdb1 rw,nobarrier
41 40 0:34 / /data/my\040archive rw - nfs4 server:/export rw,vers=4.2
42 22 0:35 / /data2 rw - tmpfs none rw,size=1024k
43 40 0:36 / /data/over rw - btrfs /dev/sdc rw
44 43 0:37 / /data/over rw - overlay overlay rw,lowerdir=/a,volatile
broken line
45 22 0:38 / /short
"""


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/proc", "proc"),
        ("/data", "xfs"),
        ("/data/archive", "xfs"),
        ("/data/my archive/depot", "nfs4"),
        ("/data/my archives", "xfs"),
        ("/data2/x", "tmpfs"),
        ("/data22", "ext4"),
        ("/data/over/x", "overlay"),
    ],
)
def test_the_deepest_mount_above_a_path_counts_and_of_two_the_later(path: str, type_: str) -> None:
    assert find_mount(TABLE, path).type == type_


def test_the_options_of_mount_and_file_system_are_joined() -> None:
    assert find_mount(TABLE, "/data/a").options == {"rw", "noatime", "nobarrier"}


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("ext4", FileSystemKind.PROMISED),
        ("xfs", FileSystemKind.PROMISED),
        ("btrfs", FileSystemKind.PROMISED),
        ("tmpfs", FileSystemKind.MEMORY),
        ("overlay", FileSystemKind.LAYERED),
        ("nfs4", FileSystemKind.NETWORK),
        ("cifs", FileSystemKind.NETWORK),
        ("fuse.sshfs", FileSystemKind.NETWORK),
        ("vfat", FileSystemKind.OTHER),
        ("", FileSystemKind.UNKNOWN),
    ],
)
def test_a_type_tells_what_becomes_of_files(type_: str, kind: FileSystemKind) -> None:
    assert Mount(type=type_, options=frozenset()).kind is kind


def test_where_the_system_tells_nothing_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_mount("", "/a") == UNKNOWN_MOUNT
    monkeypatch.setattr(mounts, "_MOUNTINFO", "/none/such")
    assert mount_of("/") == UNKNOWN_MOUNT
