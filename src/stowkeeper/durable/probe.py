"""One instance's whole path, run in the real folders before anything is promised.

At start, and again after a sync has failed, `probe_storage` does what an instance will need: a file in the process
folder, bytes, a sync, a read from the medium, a second name on the shelf, the syncs of the folders, and the removal
of both. It finds what no setting tells: a file system without hard links, a quota, depot and objects on two file
systems, a disk mounted read-only, folders of another user.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from stowkeeper.durable.errors import RAISE_OPEN_FILES, StorageUnfitError, is_out_of_open_files
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import PROBE_ATTEMPTS, PROBE_SIZE
from stowkeeper.durable.mounts import FileSystemKind, Mount
from stowkeeper.durable.process_folder import PROBE_NAME
from stowkeeper.durable.slots import SLOT_MODE

PROBE_FOLDER = ".probe"
"""Folder among the shelves in which probes make their second name. No study has it: a UID has no such character."""

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_NO_ACCESS = frozenset({errno.EACCES, errno.EPERM})
_NO_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
_IGNORES_SYNC = frozenset({"nobarrier", "barrier=0", "volatile"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageReport:
    """What the probe saw: the mounts of depot and shelf, and warnings a person should read."""

    depot: Mount
    shelf: Mount
    warnings: tuple[str, ...]

    @property
    def on_network(self) -> bool:
        """Tell whether any of it is on another machine, where SQLite is not to be trusted."""
        return FileSystemKind.NETWORK in {self.depot.kind, self.shelf.kind}


def probe_storage(
    files: FileSystem, *, process_folder: str, shelf: str, mode: int = SLOT_MODE
) -> StorageReport:
    """Run the whole path once, from a process folder of the depot to the shelf's root; both exist.

    `mode` is the slots' mode. Raises StorageUnfitError, which names the step that failed, the path, and what to do.
    """
    slot = f"{process_folder}/{PROBE_NAME}"
    folder = f"{shelf}/{PROBE_FOLDER}"
    target = f"{folder}/{process_folder.rpartition('/')[2]}"
    try:
        _write_slot(files, slot, mode)
        _put_on_shelf(files, slot, folder, target)
        _check_shelved(files, slot, target)
        with _explained(files, "remove a file", slot):
            files.unlink(slot)
        with _explained(files, "read a file's second name after the first is gone", target):
            _check_content(files, target)
        with _explained(files, "remove a file", target):
            files.unlink(target)
    finally:
        _clear(files, slot, target, folder)
    for path in (process_folder, shelf):
        with _explained(files, "sync a folder", path):
            files.synchronize_directory(path)
    depot_mount, shelf_mount = files.mount(process_folder), files.mount(shelf)
    warnings = [*_warnings("depot", process_folder, depot_mount)]
    if shelf_mount != depot_mount:
        warnings += _warnings("shelf", shelf, shelf_mount)
    return StorageReport(depot=depot_mount, shelf=shelf_mount, warnings=tuple(warnings))


def _write_slot(files: FileSystem, slot: str, mode: int) -> None:
    """Make a slot as the pool does, and fill and sync it as an instance does."""
    process_folder = slot.rpartition("/")[0]
    with suppress(OSError):
        files.unlink(slot)  # left by a probe that failed
    with _explained(files, "create a file", slot):
        files.close(files.create(slot, mode))
    with _explained(files, "sync a folder", process_folder):
        files.synchronize_directory(process_folder)
    with _explained(files, "open a file for writing", slot):
        descriptor = files.open_for_writing(slot)
    try:
        with _explained(files, "write a file", slot):
            files.write(descriptor, [_content()], 0)
        with _explained(files, "sync a file", slot):
            files.synchronize(descriptor)
    finally:
        with _explained(files, "close a file", slot):
            files.close(descriptor)
    with _explained(files, "read a file", slot):
        _check_content(files, slot)


def _put_on_shelf(files: FileSystem, slot: str, folder: str, target: str) -> None:
    """Give the slot its second name and sync the folders on the way to it."""
    shelf = folder.rpartition("/")[0]
    for attempt in range(PROBE_ATTEMPTS):
        with _explained(files, "make a folder", folder):
            files.make_directory(folder, 0o700)
        with suppress(FileNotFoundError):
            files.unlink(target)
        try:
            with _explained(files, "link a file", slot, target):
                files.link(slot, target)
            break
        except StorageUnfitError as error:
            # Another process that ended its probe just now may have removed the folder before our file was in it.
            if not isinstance(error.__cause__, FileNotFoundError) or attempt == PROBE_ATTEMPTS - 1:
                raise
    for path in (folder, shelf):
        with _explained(files, "sync a folder", path):
            files.synchronize_directory(path)


def _check_shelved(files: FileSystem, slot: str, target: str) -> None:
    """See that the link is one, and that a second one replaces nothing."""
    with _explained(files, "look at a file", target):
        first, second = files.status(slot), files.status(target)
    if first.inode != second.inode or second.links != 2:
        raise StorageUnfitError(
            f"a link from {slot} to {target} made another file instead of a second name: this file system has no "
            "hard links; put the archive on ext4, xfs or btrfs"
        )
    try:
        with _explained(files, "link a file", slot, target):
            files.link(slot, target)
    except StorageUnfitError as error:
        if isinstance(error.__cause__, FileExistsError):
            return
        raise
    raise StorageUnfitError(
        f"a link onto {target}, a name in use, was not refused: this file system would replace kept files; put the "
        "archive on ext4, xfs or btrfs"
    )


def _check_content(files: FileSystem, path: str) -> None:
    """Read what was written, from the medium."""
    descriptor = files.open_for_reading(path)
    try:
        files.drop_cache(descriptor)
        found = files.read(descriptor, PROBE_SIZE + 1, 0)
    finally:
        files.close(descriptor)
    if found != _content():
        raise StorageUnfitError(
            f"{path} does not read as it was written, after a sync without an error: do not use this disk before it "
            "is checked"
        )


def _content() -> bytes:
    """Return bytes without a pattern, the same every time."""
    return hashlib.shake_128(b"stowkeeper").digest(PROBE_SIZE)


def _clear(files: FileSystem, slot: str, target: str, folder: str) -> None:
    """Remove what the probe made, and what probes of dead processes left on the shelf."""
    depot = slot.rpartition("/")[0].rpartition("/")[0]
    with suppress(OSError):
        files.unlink(slot)
    with suppress(OSError):
        files.unlink(target)
    with suppress(OSError):
        left = files.list_directory(
            folder
        )  # before the depot: whoever is not there after it was here is dead
        living = {entry.name for entry in files.list_directory(depot)}
        for entry in left:
            if entry.name not in living:
                files.unlink(f"{folder}/{entry.name}")
        files.remove_directory(folder)  # refused, and rightly, while another process probes


@contextmanager
def _explained(files: FileSystem, step: str, path: str, target: str | None = None) -> Iterator[None]:
    """Turn an error of the system into a sentence on what failed and what to do."""
    try:
        yield
    except OSError as error:
        place = path if target is None else f"{path} to {target}"
        reason = error.strerror or type(error).__name__
        advice = _advice(files, step, path, target, error)
        raise StorageUnfitError(f"cannot {step} ({place}): {reason}; {advice}") from error


def _advice(files: FileSystem, step: str, path: str, target: str | None, error: OSError) -> str:
    """Say what a person can do about an error at a step."""
    number = error.errno
    if number == errno.EXDEV and target is not None:
        return (
            f"depot ({_type(files, path)}) and objects ({_type(files, target)}) are on two file systems, and a file "
            "has names on one only: put both on the same"
        )
    if step == "link a file" and number in _NO_LINKS and _is_own(files, path):
        return (
            f"this file system ({_type(files, path)}) refuses hard links, by which an instance gets its name: put "
            "the archive on ext4, xfs or btrfs"
        )
    if number in _NO_ACCESS:
        return _ownership(files, target or path)
    if number == errno.EROFS:
        return (
            "the file system is mounted read-only: mount it for writing, and look in the system's log for why"
        )
    if number == errno.ENOSPC:
        return f"{_room(files, path)}: make room on the disk"
    if number == errno.EDQUOT:
        return f"the quota of user {os.geteuid()} is used up: raise it or make room"
    if number == errno.ENOENT:
        return "a folder on this path is missing: has something else removed it, or is a disk not mounted?"
    if is_out_of_open_files(error):
        return f"too many files are open: {RAISE_OPEN_FILES}"
    if step.startswith("sync") and number in _NO_SYNC:
        return (
            f"this file system ({_type(files, path)}) cannot say when a name or a file is on the disk: put the "
            "archive on ext4, xfs or btrfs"
        )
    return (
        f"the file system is {_type(files, path)}: see the system's log, and check the disk before it is used"
    )


def _type(files: FileSystem, path: str) -> str:
    """Name the type of the file system around a path that may not exist."""
    return files.file_system_type(path.rpartition("/")[0] or "/") or "of unknown type"


def _is_own(files: FileSystem, path: str) -> bool:
    """Tell whether a file belongs to this process's user, who may link it wherever links exist."""
    with suppress(OSError):
        return files.status(path).owner == os.geteuid()
    return False


def _ownership(files: FileSystem, path: str) -> str:
    """Name owner and mode of the nearest folder above a path that can be seen, and who we are."""
    while True:
        above = path.rpartition("/")[0] or "/"
        with suppress(OSError):
            status = files.status(above)
            return (
                f"{above} belongs to user {status.owner} with mode {status.mode:04o}, and this process runs as user "
                f"{os.geteuid()}: give the archive's folders to that user"
            )
        if above == path:
            return f"this process runs as user {os.geteuid()}: give the archive's folders to that user"
        path = above


def _room(files: FileSystem, path: str) -> str:
    """Say how much is left around a path."""
    try:
        space = files.free_space(path.rpartition("/")[0] or "/")
    except OSError:
        return "bytes or inodes ran out"
    inodes = "no limit on inodes" if space.inodes is None else f"{space.inodes} inodes"
    return f"{space.bytes} bytes and {inodes} are left"


def _warnings(what: str, path: str, mount: Mount) -> Iterator[str]:
    """Say what is weaker than the promise where a path stands."""
    name = mount.type or "an unknown file system"
    match mount.kind:
        case FileSystemKind.MEMORY:
            yield f"{what} {path} is in memory ({name}): nothing there survives a power cut"
        case FileSystemKind.LAYERED:
            yield f"{what} {path} is in a container's own layer ({name}), and goes with the container: mount a volume"
        case FileSystemKind.NETWORK:
            yield (
                f"{what} {path} is on another machine ({name}): its locks and syncs are as good as that machine's, "
                "and SQLite is refused there"
            )
        case FileSystemKind.OTHER | FileSystemKind.UNKNOWN:
            yield f"{what} {path} is on {name}: power cuts were thought through for ext4, xfs and btrfs only"
        case FileSystemKind.PROMISED:
            pass
    for option in sorted(mount.options & _IGNORES_SYNC):
        yield f"{what} {path} is mounted with {option}: syncs do not reach the medium, remove that option"
