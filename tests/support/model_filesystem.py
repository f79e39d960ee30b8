"""A file system in memory that forgets what was not synced.

It has the interface of `stowkeeper.durable.filesystem.FileSystem` and stands in its place in tests. Beside what
programs see, it keeps what is on the medium and each change in between by itself: every name, every block of a file
(512 bytes or what is set), every size. `crash` cuts the power: any subset of the unsynced changes survives, a name
without the bytes behind it, bytes without the size that reaches them, a folder without its contents. A sync of a
file brings its bytes and its size to the medium and none of its names; a sync of a folder brings its names, not the
folder's own.

That is more than any journalling file system may lose, so that what holds here leans on none of their habits.

Tests let operations fail (`fail_next`), read the log of them, and are called before each (`before_each`). `kill`
ends the process and keeps the power on: nothing is lost but descriptors and locks.
"""

import errno
import os
from collections.abc import Sequence

from stowkeeper.durable.filesystem import DirectoryEntry, FileStatus, FileSystem, FreeSpace
from stowkeeper.durable.mounts import Mount
from support.model_inodes import UnsyncedChange, read_blocks
from support.model_machine import ModelMachine, Operation, PowerCut, model_error

__all__ = ["ModelFileSystem", "Operation", "PowerCut", "UnsyncedChange"]


class ModelFileSystem(ModelMachine, FileSystem):
    """The model, with the interface of a file system; made as `ModelMachine` says."""

    def create(self, path: str, mode: int) -> int:
        self._begin("create", path)
        with self._lock:
            above = self._above(path)
            if above.lookup(path.rpartition("/")[2]) is not None:
                raise model_error(errno.EEXIST, path)
            inode = self._new_inode(mode, is_directory=False)
            self._enter(above, path, inode.number, "create")
            return self._descriptor(inode, path, writable=True)

    def open_for_writing(self, path: str) -> int:
        self._begin("open_for_writing", path)
        return self._open(path, writable=True)

    def open_for_reading(self, path: str) -> int:
        self._begin("open_for_reading", path)
        return self._open(path, writable=False)

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        opened = self._opened(descriptor)
        fault = self._begin("write", opened.path, raises=False)
        data = b"".join(buffers)
        with self._lock:
            if not opened.writable:
                raise model_error(errno.EBADF, opened.path)
            inode = self._all[opened.inode]
            fits = self._fitting(inode, len(data), offset)
            if fault is not None:
                self._write(inode, data[: min(fits, fault.written)], offset, "write", opened.path)
                raise fault.raised(opened.path)
            self._write(inode, data[:fits], offset, "write", opened.path)
            if fits < len(data):
                raise model_error(errno.ENOSPC, opened.path)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        opened = self._opened(descriptor)
        self._begin("read", opened.path)
        with self._lock:
            if opened.writable:
                raise model_error(errno.EBADF, opened.path)
            return read_blocks(self._all[opened.inode], length, offset, self.block_size)

    def read_into(self, descriptor: int, view: memoryview, offset: int) -> int:
        data = self.read(descriptor, len(view), offset)
        view[: len(data)] = data
        return len(data)

    def synchronize(self, descriptor: int) -> None:
        opened = self._opened(descriptor)
        self._synchronize("synchronize", opened.path, opened.inode)

    def close(self, descriptor: int) -> None:
        opened = self._opened(descriptor)
        fault = self._begin("close", opened.path, raises=False)
        with self._lock:
            self._descriptors.pop(descriptor, None)  # closed even by a close that fails
        if fault is not None:
            raise fault.raised(opened.path)

    def link(self, source: str, target: str) -> None:
        self._begin("link", target)
        with self._lock:
            inode = self._find(source)
            if inode.is_directory:
                raise model_error(errno.EPERM, source)
            above = self._above(target)
            if above.lookup(target.rpartition("/")[2]) is not None:
                raise model_error(errno.EEXIST, target)
            self._enter(above, target, inode.number, "link")

    def unlink(self, path: str) -> None:
        self._begin("unlink", path)
        with self._lock:
            if self._find(path).is_directory:
                raise model_error(errno.EISDIR, path)
            self._leave(path, "unlink")

    def make_directory(self, path: str, mode: int = 0o755) -> bool:
        self._begin("make_directory", path)
        with self._lock:
            above = self._above(path)
            number = above.lookup(path.rpartition("/")[2])
            if number is not None:
                if self._all[number].is_directory:
                    return False
                raise model_error(errno.EEXIST, path)
            inode = self._new_inode(mode, is_directory=True)
            self._enter(above, path, inode.number, "make_directory")
            return True

    def remove_directory(self, path: str) -> None:
        self._begin("remove_directory", path)
        with self._lock:
            inode = self._find(path)
            if not inode.is_directory:
                raise model_error(errno.ENOTDIR, path)
            if inode.names():
                raise model_error(errno.ENOTEMPTY, path)
            self._leave(path, "remove_directory")

    def synchronize_directory(self, path: str) -> None:
        with self._lock:
            number = self._directory(path).number
        self._synchronize("synchronize_directory", path, number)

    def list_directory(self, path: str) -> list[DirectoryEntry]:
        self._begin("list_directory", path)
        with self._lock:
            return [
                DirectoryEntry(name=name, is_directory=self._all[number].is_directory, inode=number)
                for name, number in self._directory(path).names().items()
            ]

    def status(self, path: str) -> FileStatus:
        self._begin("status", path)
        with self._lock:
            inode = self._find(path)
            return FileStatus(
                size=inode.size,
                inode=inode.number,
                links=inode.links,
                mode=inode.mode,
                owner=os.geteuid(),
                is_directory=inode.is_directory,
            )

    def drop_cache(self, descriptor: int) -> None:
        opened = self._opened(descriptor)
        self._begin("drop_cache", opened.path)
        with self._lock:
            self._all[opened.inode].drop_cache()

    def free_space(self, path: str) -> FreeSpace:
        self._begin("free_space", path)
        with self._lock:
            self._find(path)
            taken, count = self._usage()
            size = (1 << 40) if self.capacity is None else self.capacity - taken
            return FreeSpace(bytes=size, inodes=None if self.inodes is None else self.inodes - count)

    def preallocate(self, path: str, size: int) -> None:
        self._begin("preallocate", path)
        with self._lock:
            above = self._above(path)
            if above.lookup(path.rpartition("/")[2]) is not None:
                raise model_error(errno.EEXIST, path)
            inode = self._new_inode(0o600, is_directory=False)
            if self._fitting(inode, size, 0) < size:
                raise model_error(errno.ENOSPC, path)
            self._write(inode, bytes(size), 0, "preallocate", path)
            self._enter(above, path, inode.number, "preallocate")
            inode.synchronize()
            above.synchronize()

    def mount(self, path: str) -> Mount:
        self._begin("mount", path)
        return self.mounted

    def boot_identity(self) -> str:
        return f"boot {self.boots}"

    def lock_directory(self, path: str) -> int | None:
        self._begin("lock_directory", path)
        with self._lock:
            try:
                inode = self._directory(path)
            except FileNotFoundError:
                return None
            if any(opened.inode == inode.number for opened in self._descriptors.values()):
                return None
            return self._descriptor(inode, path, writable=False)

    def unlock_directory(self, descriptor: int) -> None:
        opened = self._opened(descriptor)
        self._begin("unlock_directory", opened.path)
        with self._lock:
            self._descriptors.pop(descriptor, None)
