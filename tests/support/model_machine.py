"""The machine under the model file system: its inodes, its faults, its log, and the cut of its power.

`model_filesystem.py` tells what it is for, and puts the calls of the archive on top.
"""

import errno
import fnmatch
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.mounts import Mount
from support.model_inodes import Inode, Part, UnsyncedChange, Value, read_blocks, write_blocks

ROOT = 1
FIRST_DESCRIPTOR = 1_000_000  # no number that the real system would give out

Chooser = Callable[[UnsyncedChange], bool]


class PowerCut(BaseException):
    """Raised by a test's hook to stop the program under test at a step; no handler of errors catches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of the file system: the machine's count of them, the method, and the path it is about."""

    number: int
    name: str
    path: str

    def __str__(self) -> str:
        return f"#{self.number} {self.name} {self.path}"


@dataclass(slots=True, kw_only=True)
class Fault:
    """What `fail_next` ordered."""

    operation: str
    pattern: str
    error: int
    times: int
    after: int
    clean_pages: bool
    written: int

    def raised(self, path: str) -> OSError:
        return OSError(self.error, os.strerror(self.error), path)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """What a descriptor stands for."""

    inode: int
    path: str
    writable: bool


class ModelMachine:
    """An empty file system with a root folder, and what tests do with it; paths are absolute.

    `capacity` and `inodes` limit it to so many bytes of file blocks and so many files and folders. `mounted` is what
    it says of its mount. Safe for any thread; the hook is called without a lock held.
    """

    def __init__(
        self,
        *,
        block_size: int = 512,
        capacity: int | None = None,
        inodes: int | None = None,
        mounted: Mount = Mount(type="ext4", options=frozenset({"rw"})),  # noqa: B008 - a frozen value
    ) -> None:
        self.block_size = block_size
        self.capacity = capacity
        self.inodes = inodes
        self.mounted = mounted
        self.boots = 1
        self.before_each: Callable[[Operation], None] | None = None
        self.log: list[Operation] = []
        self.survived: tuple[UnsyncedChange, ...] = ()
        self.lost: tuple[UnsyncedChange, ...] = ()
        self._all: dict[int, Inode] = {ROOT: Inode(ROOT, 0o755, is_directory=True)}
        self._all[ROOT].links = 1
        self._descriptors: dict[int, OpenFile] = {}
        self._faults: list[Fault] = []
        self._changes = 0
        self._next_inode = ROOT + 1
        self._next_descriptor = FIRST_DESCRIPTOR
        self._operations = 0
        self._lock = threading.RLock()

    # What tests do with it

    def fail_next(
        self,
        operation: str,
        path: str = "*",
        error: int = errno.EIO,
        times: int = 1,
        *,
        after: int = 0,
        clean_pages: bool = True,
        written: int = 0,
    ) -> None:
        """Let the next calls of a method fail whose path matches a pattern, after `after` that succeed.

        A sync that fails leaves clean pages behind: reads still find the bytes, a later sync says ok and brings
        nothing, and the power cut decides; with `clean_pages` false it has just not happened. A write that fails
        has written its first `written` bytes.
        """
        if not hasattr(FileSystem, operation):
            raise ValueError(f"a file system has no operation {operation!r}")
        with self._lock:
            self._faults.append(
                Fault(
                    operation=operation,
                    pattern=path,
                    error=error,
                    times=times,
                    after=after,
                    clean_pages=clean_pages,
                    written=written,
                )
            )

    def unsynced(self) -> list[UnsyncedChange]:
        """List the changes a power cut may undo, in the order they were made."""
        with self._lock:
            found = [
                change
                for inode in self._all.values()
                for changes in inode.unsynced.values()
                for change in changes
            ]
        return sorted(found, key=lambda change: change.number)

    def crash(self, choose: Chooser | random.Random) -> Self:
        """Return what is there after a power cut; this one is left as it is.

        `choose` tells of each unsynced change whether it survived, in the order they were made; a random source
        throws a coin. What no surviving name leads to is gone. The new one lists what `survived` and what was `lost`.
        """
        chooses = (lambda _: choose.random() < 0.5) if isinstance(choose, random.Random) else choose
        with self._lock:
            changes = self.unsynced()
            survived = {change.number for change in changes if chooses(change)}
            other = self._like()
            remains = {
                number: inode.after_power_cut(survived, self.block_size)
                for number, inode in self._all.items()
            }
        other.boots += 1
        other.survived = tuple(change for change in changes if change.number in survived)
        other.lost = tuple(change for change in changes if change.number not in survived)
        other._all = _reachable(remains)
        return other

    def kill(self) -> Self:
        """Return what another process finds after this one was killed: all that was written, synced or not."""
        other = self.copy()
        other._descriptors.clear()
        return other

    def copy(self) -> Self:
        """Return a copy with its own changes, descriptors and locks, without faults, hook and log."""
        with self._lock:
            other = self._like()
            other._all = {number: inode.copy() for number, inode in self._all.items()}
            other._descriptors = dict(self._descriptors)
        return other

    def place(self, path: str, data: bytes = b"", mode: int = 0o644) -> None:
        """Put a durable file there, with the folders above it, as if it had always been there; no operation."""
        with self._lock:
            above = self._place_folders(path.rpartition("/")[0])
            inode = self._new_inode(mode, is_directory=False)
            self._write(inode, data, 0, "place", path)
            self._enter(above, path, inode.number, "place")
            inode.synchronize()
            above.synchronize()

    def place_folder(self, path: str) -> None:
        """Put a durable folder there, with those above it; no operation."""
        with self._lock:
            self._place_folders(path)

    def tree(self) -> dict[str, bytes | None]:
        """Return every path as programs see it, with the bytes of a file and None for a folder."""
        found: dict[str, bytes | None] = {}

        def walk(folder: Inode, path: str) -> None:
            for name, number in sorted(folder.names().items()):
                inode = self._all[number]
                found[f"{path}/{name}"] = None if inode.is_directory else self._content(inode)
                if inode.is_directory:
                    walk(inode, f"{path}/{name}")

        with self._lock:
            walk(self._all[ROOT], "")
        return found

    def content(self, path: str) -> bytes:
        """Return the bytes of a file as programs see them; no operation."""
        with self._lock:
            return self._content(self._find(path))

    @property
    def open_paths(self) -> list[str]:
        """List what descriptors stand open for, folders under a lock as well."""
        with self._lock:
            return sorted(opened.path for opened in self._descriptors.values())

    # What the calls of the archive are made of

    def _begin(self, name: str, path: str, *, raises: bool = True) -> Fault | None:
        """Log an operation, call the hook, and raise the fault that was ordered for it, or return that."""
        with self._lock:
            self._operations += 1
            operation = Operation(number=self._operations, name=name, path=path)
        if self.before_each is not None:
            self.before_each(operation)
        with self._lock:
            self.log.append(operation)
            for fault in self._faults:
                if fault.operation != name or not fnmatch.fnmatchcase(path, fault.pattern):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                if raises:
                    raise fault.raised(path)
                return fault
        return None

    def _synchronize(self, name: str, path: str, number: int) -> None:
        """Sync an inode, or fail to."""
        fault = self._begin(name, path, raises=False)
        with self._lock:
            inode = self._all[number]
            if fault is None:
                inode.synchronize()
                return
            if fault.clean_pages:
                inode.abandon()
        raise fault.raised(path)

    def _like(self) -> Self:
        """Return an empty one of the same kind, whose counts go on where these are."""
        other = type(self)(
            block_size=self.block_size, capacity=self.capacity, inodes=self.inodes, mounted=self.mounted
        )
        other.boots = self.boots
        other._changes, other._next_inode = self._changes, self._next_inode
        other._next_descriptor, other._operations = self._next_descriptor, self._operations
        return other

    def _new_inode(self, mode: int, *, is_directory: bool) -> Inode:
        """Make an inode without a name; ENOSPC when there are none left."""
        if self.inodes is not None and self._usage()[1] >= self.inodes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inode = Inode(self._next_inode, mode, is_directory=is_directory)
        self._next_inode += 1
        self._all[inode.number] = inode
        return inode

    def _change(self, inode: Inode, part: Part, value: Value, operation: str, path: str) -> None:
        """Record a change of an inode."""
        self._changes += 1
        inode.change(
            UnsyncedChange(
                number=self._changes,
                inode=inode.number,
                part=part,
                value=value,
                operation=operation,
                path=path,
            )
        )

    def _write(self, inode: Inode, data: bytes, offset: int, operation: str, path: str) -> None:
        def changed(part: Part, value: Value) -> None:
            self._change(inode, part, value, operation, path)

        write_blocks(inode, data, offset, self.block_size, changed)

    def _enter(self, above: Inode, path: str, number: int, operation: str) -> None:
        """Let a name in a folder lead to an inode."""
        self._change(above, path.rpartition("/")[2], number, operation, path)
        self._all[number].links += 1

    def _leave(self, path: str, operation: str) -> None:
        """Take a name away."""
        self._find(path).links -= 1
        self._change(self._above(path), path.rpartition("/")[2], None, operation, path)

    def _find(self, path: str) -> Inode:
        """Walk to what a path leads to."""
        if not path.startswith("/"):
            raise ValueError(f"the model takes absolute paths, not {path!r}")
        inode = self._all[ROOT]
        for name in path.strip("/").split("/") if path != "/" else ():
            if not inode.is_directory:
                raise model_error(errno.ENOTDIR, path)
            number = inode.lookup(name)
            if number is None:
                raise model_error(errno.ENOENT, path)
            inode = self._all[number]
        return inode

    def _directory(self, path: str) -> Inode:
        inode = self._find(path)
        if not inode.is_directory:
            raise model_error(errno.ENOTDIR, path)
        return inode

    def _above(self, path: str) -> Inode:
        """Find the folder a path's last name is in."""
        return self._directory(path.rpartition("/")[0] or "/")

    def _content(self, inode: Inode) -> bytes:
        return read_blocks(inode, inode.size, 0, self.block_size)

    def _place_folders(self, path: str) -> Inode:
        if path in {"", "/"}:
            return self._all[ROOT]
        above = self._place_folders(path.rpartition("/")[0])
        name = path.rpartition("/")[2]
        number = above.lookup(name)
        if number is None:
            number = self._new_inode(0o755, is_directory=True).number
            self._enter(above, path, number, "place")
            above.synchronize()
        return self._all[number]

    def _open(self, path: str, *, writable: bool) -> int:
        with self._lock:
            inode = self._find(path)
            if inode.is_directory and writable:
                raise model_error(errno.EISDIR, path)
            return self._descriptor(inode, path, writable=writable)

    def _descriptor(self, inode: Inode, path: str, *, writable: bool) -> int:
        descriptor = self._next_descriptor
        self._next_descriptor += 1
        self._descriptors[descriptor] = OpenFile(inode=inode.number, path=path, writable=writable)
        return descriptor

    def _opened(self, descriptor: int) -> OpenFile:
        with self._lock:
            try:
                return self._descriptors[descriptor]
            except KeyError:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def _usage(self) -> tuple[int, int]:
        """Return the bytes and the count of inodes in use: what has a name or stands open."""
        opened = {found.inode for found in self._descriptors.values()}
        used = [inode for inode in self._all.values() if inode.links or inode.number in opened]
        return sum(inode.blocks for inode in used) * self.block_size, len(used)

    def _fitting(self, inode: Inode, length: int, offset: int) -> int:
        """Return how many bytes of a write there is room for."""
        if self.capacity is None:
            return length
        free = (self.capacity - self._usage()[0]) // self.block_size
        position = offset
        while position < offset + length:
            block = position // self.block_size
            if block not in inode.current:
                if not free:
                    return position - offset
                free -= 1
            position = (block + 1) * self.block_size
        return length


def _reachable(inodes: dict[int, Inode]) -> dict[int, Inode]:
    """Keep what a name leads to, and count the names."""
    found: dict[int, Inode] = {ROOT: inodes[ROOT]}
    inodes[ROOT].links = 1
    waiting = [inodes[ROOT]]
    while waiting:
        folder = waiting.pop()
        for number in folder.names().values():
            inode = inodes[number]
            inode.links += 1
            if number not in found:
                found[number] = inode
                if inode.is_directory:
                    waiting.append(inode)
    return found


def model_error(number: int, path: str) -> OSError:
    """Return the error the system would raise."""
    return OSError(number, os.strerror(number), path)
