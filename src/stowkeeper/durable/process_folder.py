"""A folder of the depot that belongs to one process for as long as that lives.

Ownership is an exclusive `flock` on the folder's own descriptor: the system ends it with the process, however that
ends, so no file has to be believed about who is alive. A process whose lock can be taken is dead, and whoever takes
the lock owns what it left.

The lock follows the inode, the name may have moved on. So a folder counts as owned only when, with the lock held,
its name still leads to the locked inode.
"""

import errno
import os
import secrets
import weakref
from contextlib import suppress

from stowkeeper.durable.errors import StorageUnfitError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import PROCESS_FOLDER_ATTEMPTS

DEPOT = "depot"
"""The folder of an archive in which each receiving process owns one."""

DEPOT_MODE = 0o700
"""Mode of the depot and of the folders in it: what is in them is on its way, and nobody else's."""

PROBE_NAME = "probe"
"""File the start-up probe writes in a process folder. It is no slot, and whoever adopts the folder removes it."""

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_held: "weakref.WeakSet[ProcessFolder]" = weakref.WeakSet()


class ProcessFolder:
    """An owned folder of the depot; made by `create` or `adopt`."""

    __slots__ = ("__weakref__", "_descriptor", "_files", "path")

    def __init__(self, files: FileSystem, path: str, descriptor: int) -> None:
        self._files = files
        self.path = path
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def create(cls, files: FileSystem, depot: str) -> "ProcessFolder":
        """Make, lock and sync a new folder in an existing depot; its name is the process id and a random part.

        Raises OSError, and StorageUnfitError where other processes keep taking the new folder away.
        """
        for _attempt in range(PROCESS_FOLDER_ATTEMPTS):
            path = f"{depot}/{os.getpid()}-{secrets.token_hex(4)}"
            if not files.make_directory(path, DEPOT_MODE):
                continue
            # Until the lock is held, another process may find the folder dead and remove it.
            descriptor = files.lock_directory(path)
            if descriptor is None:
                continue
            folder = cls(files, path, descriptor)
            try:
                files.synchronize_directory(depot)
            except OSError:
                folder.release()
                raise
            return folder
        raise StorageUnfitError(
            f"no process folder could be owned in {depot}: other processes took {PROCESS_FOLDER_ATTEMPTS} new ones "
            "for dead; see that locks (flock) work there and that all servers of this archive are of one version"
        )

    @classmethod
    def adopt(cls, files: FileSystem, path: str) -> "ProcessFolder | None":
        """Own the folder of a dead process; None when its process lives, or another adopted it, or it is gone."""
        descriptor = files.lock_directory(path)
        if descriptor is None:
            return None
        folder = cls(files, path, descriptor)
        with suppress(FileNotFoundError):
            files.unlink(f"{path}/{PROBE_NAME}")
        return folder

    def release(self) -> bool:
        """Remove the free slots and the folder, and give up the lock; tell whether the folder is gone.

        A folder that holds anything else stays for whoever adopts it. Releasing twice is fine. Raises OSError when
        the folder cannot be read or removed; it is given up even then.
        """
        if self._descriptor is None:
            return not _is_there(self._files, self.path)
        try:
            for entry in self._files.list_directory(self.path):
                name = f"{self.path}/{entry.name}"
                if not entry.is_directory and self._files.status(name).size == 0:
                    self._files.unlink(name)
            self._files.remove_directory(self.path)
        except FileNotFoundError:
            return not _is_there(self._files, self.path)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            return False
        finally:
            descriptor, self._descriptor = self._descriptor, None
            self._files.unlock_directory(descriptor)
        return True

    def close_in_child(self) -> None:
        """Close this process's copy of the lock; for a child by fork, in which it would outlive its owner."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                self._files.close(descriptor)  # not unlocked: that would end the parent's lock as well


def dead_folders(files: FileSystem, depot: str) -> list[str]:
    """List the folders of the depot whose lock can be had now; `adopt` each to look after it."""
    found = []
    for entry in files.list_directory(depot):
        path = f"{depot}/{entry.name}"
        if not entry.is_directory:
            continue
        descriptor = files.lock_directory(path)
        if descriptor is not None:
            files.unlock_directory(descriptor)
            found.append(path)
    return found


def _is_there(files: FileSystem, path: str) -> bool:
    """Tell whether a name leads to anything."""
    try:
        files.status(path)
    except FileNotFoundError:
        return False
    return True


def _close_in_child() -> None:
    """Let no child by fork hold the lock of its parent."""
    for folder in list(_held):
        folder.close_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
