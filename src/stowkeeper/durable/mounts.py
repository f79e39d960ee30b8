"""What kind of file system a path stands on, and what that means for the promise.

Linux tells it in `/proc/self/mountinfo` (proc_pid_mountinfo(5)); elsewhere nothing is known and nothing is judged.
"""

import re
from dataclasses import dataclass
from enum import Enum

_MOUNTINFO = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")


class FileSystemKind(Enum):
    """What a power cut, a restart or another machine does to files there."""

    PROMISED = "promised"
    """Carries the promise: a synced file behind a synced name survives."""
    MEMORY = "memory"
    """Gone with the power."""
    LAYERED = "layered"
    """The writable layer of a container: gone with the container."""
    NETWORK = "network"
    """On another machine: its locks, its syncs."""
    OTHER = "other"
    """Not tried."""
    UNKNOWN = "unknown"
    """The system does not say."""


_PROMISED = frozenset({"ext4", "xfs", "btrfs"})
_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_LAYERED = frozenset({"overlay", "overlayfs", "aufs", "fuse.fuse-overlayfs", "unionfs"})
_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "gpfs",
        "9p",
        "virtiofs",
        "vboxsf",
        "davfs",
        "fuse.sshfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.glusterfs",
        "fuse.davfs2",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.goofys",
        "fuse.gcsfuse",
        "fuse.blobfuse2",
        "fuse.juicefs",
        "fuse.mount-s3",
        "fuse.seaweedfs",
        "fuse.vmhgfs-fuse",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount a path stands on: its type ("" where unknown) and the options of mount and file system."""

    type: str
    options: frozenset[str]

    @property
    def kind(self) -> FileSystemKind:
        """Say what the type means for the promise."""
        if self.type in _PROMISED:
            return FileSystemKind.PROMISED
        if self.type in _MEMORY:
            return FileSystemKind.MEMORY
        if self.type in _LAYERED:
            return FileSystemKind.LAYERED
        if self.type in _NETWORK:
            return FileSystemKind.NETWORK
        return FileSystemKind.OTHER if self.type else FileSystemKind.UNKNOWN


UNKNOWN_MOUNT = Mount(type="", options=frozenset())


def find_mount(mountinfo: str, path: str) -> Mount:
    """Find the mount of an absolute path, free of symbolic links, in the text of a mountinfo file.

    The deepest mount point above the path counts, and of two on the same point the later one, which covers the
    other. A device number would be the shorter way but for btrfs, where a subvolume's is not the mount's.
    """
    found, depth = UNKNOWN_MOUNT, -1
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        place, source = left.split(" "), right.split(" ")
        if not dash or len(place) < 6 or len(source) < 3:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), place[4])
        if len(point) >= depth and (path == point or path.startswith(point.rstrip("/") + "/")):
            options = frozenset(place[5].split(",")) | frozenset(source[2].split(","))
            found, depth = Mount(type=source[0], options=options), len(point)
    return found


def mount_of(path: str) -> Mount:
    """Look up the mount of a path, as `find_mount` takes it; `UNKNOWN_MOUNT` where the system does not tell."""
    try:
        with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return find_mount(file.read(), path)
    except OSError:
        return UNKNOWN_MOUNT
