"""The one seam between the archive and the disk.

Everything kept is written, synced, linked and read through a `FileSystem`. The class itself is a thin layer of calls
of `os`; tests put a model in its place that cuts the power or fails an operation. What it owns: which flags a call
takes, how a short write goes on, and how a system says "write it down now". What it must never know: slots,
receipts, shelves.

Rules of the seam:

- Errors are `OSError` with the path in them where the call had one. Nothing is tried again here: an operation that
  fails is over, and a sync that failed is never trusted later.
- `synchronize` covers the bytes and the size of a file, not its names. `synchronize_directory` covers the names in
  one folder, not that folder's own name.
- No call follows a symbolic link in the last component of a name it creates or opens.
- What is opened for reading is a file: a pipe or a device under its name would keep the reader waiting for ever.

It asks for POSIX. On Windows the package imports, and `lock_directory` refuses.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from stowkeeper.durable.limits import BUFFERS_PER_WRITE, ZEROS_PER_WRITE
from stowkeeper.durable.mounts import Mount, mount_of

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # a module or nothing, asked for where it is used

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_CREATE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY | _CLOSE_ON_EXEC | _NO_FOLLOW
_WRITE_FLAGS = os.O_WRONLY | _CLOSE_ON_EXEC | _NO_FOLLOW
_READ_FLAGS = os.O_RDONLY | _CLOSE_ON_EXEC | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY_FLAGS = os.O_RDONLY | _CLOSE_ON_EXEC | getattr(os, "O_DIRECTORY", 0)
_BOOT_IDENTITY = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One name in a folder; a symbolic link is not a directory, whatever it leads to."""

    name: str
    is_directory: bool
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """What a name leads to: size in bytes, count of names, permission bits, owner's user id."""

    size: int
    inode: int
    links: int
    mode: int
    owner: int
    is_directory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSpace:
    """What this process may still use: bytes, and inodes (None where the file system has no limit on them)."""

    bytes: int
    inodes: int | None


class FileSystem:
    """The calls of the operating system that the archive makes; without state, safe for any thread."""

    __slots__ = ()

    def create(self, path: str, mode: int) -> int:
        """Create a file that must not exist and return its descriptor for writing.

        The mode is the file's mode whatever the umask says. Raises FileExistsError for a name in use.
        """
        descriptor = os.open(path, _CREATE_FLAGS, mode)
        try:
            os.fchmod(descriptor, mode)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def open_for_writing(self, path: str) -> int:
        """Open an existing file for writing; its bytes stay."""
        return os.open(path, _WRITE_FLAGS)

    def open_for_reading(self, path: str) -> int:
        """Open an existing file for reading. Raises OSError (ENXIO) for what is no regular file."""
        # Without O_NONBLOCK the opening of a pipe would itself wait for somebody who writes.
        descriptor = os.open(path, _READ_FLAGS)
        try:
            _check_regular(descriptor, path)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        """Write all buffers, one after the other, at an offset.

        A memoryview must be contiguous and of single bytes. After an error any part may have been written.
        """
        written = 0
        if len(buffers) <= BUFFERS_PER_WRITE:
            written = os.pwritev(descriptor, buffers, offset)
            if written == sum(map(len, buffers)):
                return
        _write_rest(descriptor, buffers, offset, written)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Read that many bytes at an offset; fewer only at the end of the file."""
        data = os.pread(descriptor, length, offset)
        if len(data) == length or not data:
            return data
        parts, size = [data], len(data)
        while size < length and (data := os.pread(descriptor, length - size, offset + size)):
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    def read_into(self, descriptor: int, view: memoryview, offset: int) -> int:
        """Fill a view of single bytes from an offset and return how many were read; fewer only at the end."""
        size = os.preadv(descriptor, [view], offset)
        if size == len(view) or size == 0:
            return size
        while size < len(view) and (more := os.preadv(descriptor, [view[size:]], offset + size)):
            size += more
        return size

    def synchronize(self, descriptor: int) -> None:
        """Return when the bytes and the size of the file are on the medium.

        An error is final for the file: a later call that succeeds proves nothing, since the system may have
        dropped the pages it could not write.
        """
        if hasattr(os, "fdatasync"):
            os.fdatasync(descriptor)
        else:
            _full_synchronize(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor; it is closed even if this raises."""
        os.close(descriptor)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError when the name is in use: nothing is ever replaced."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        """Take one name away from a file."""
        os.unlink(path)

    def make_directory(self, path: str, mode: int = 0o755) -> bool:
        """Make a folder; False when it was there. What else is there is an error.

        The mode is the folder's mode whatever the umask says. False says nothing of durability: whoever made the folder
        may not yet have synced the one above it.
        """
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                return False
            raise
        got = stat.S_IMODE(os.lstat(path).st_mode)
        if got & 0o777 != mode:
            os.chmod(path, mode | got & ~0o777)  # a group that is handed down stays so
        return True

    def remove_directory(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def synchronize_directory(self, path: str) -> None:
        """Return when the names in the folder are on the medium; errors are as final as those of a file."""
        descriptor = os.open(path, _DIRECTORY_FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def list_directory(self, path: str) -> list[DirectoryEntry]:
        """List a folder, in no order."""
        with os.scandir(path) as entries:
            return [
                DirectoryEntry(
                    name=entry.name,
                    is_directory=entry.is_dir(follow_symlinks=False),
                    inode=entry.inode(),
                )
                for entry in entries
            ]

    def status(self, path: str) -> FileStatus:
        """Describe what a name leads to, without following a symbolic link."""
        found = os.lstat(path)
        return FileStatus(
            size=found.st_size,
            inode=found.st_ino,
            links=found.st_nlink,
            mode=stat.S_IMODE(found.st_mode),
            owner=found.st_uid,
            is_directory=stat.S_ISDIR(found.st_mode),
        )

    def drop_cache(self, descriptor: int) -> None:
        """Ask that the next read comes from the medium; works on synced pages only, where the system has it."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def free_space(self, path: str) -> FreeSpace:
        """Tell what an unprivileged process may still use on the file system of a path."""
        found = os.statvfs(path)
        # btrfs makes inodes as it goes and reports none of them, neither in all nor free.
        inodes = found.f_favail if found.f_files else None
        return FreeSpace(bytes=found.f_bavail * found.f_frsize, inodes=inodes)

    def preallocate(self, path: str, size: int) -> None:
        """Create a file that holds that many bytes of the disk; synced, its name as well. On error none is left."""
        descriptor = self.create(path, 0o600)
        try:
            try:
                _allocate(descriptor, size)
                self.synchronize(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            os.unlink(path)
            raise
        self.synchronize_directory(os.path.dirname(path) or ".")

    def mount(self, path: str) -> Mount:
        """Look up the mount a path stands on; its type is "" where the system does not tell."""
        return mount_of(os.path.realpath(path))

    def file_system_type(self, path: str) -> str:
        """Name the type of the file system a path stands on, such as "ext4"; "" where unknown."""
        return self.mount(path).type

    def boot_identity(self) -> str:
        """Tell this run of the system from every other one; "" where the system does not say.

        What was written and not synced before it is on the medium now or nowhere.
        """
        try:
            with open(_BOOT_IDENTITY, encoding="ascii") as stream:
                return stream.read().strip()
        except OSError:
            return ""

    def lock_directory(self, path: str) -> int | None:
        """Lock a folder for this process by `flock` on its own descriptor, and return that.

        None when another holds it, or when the name no longer leads to the folder that was locked: it was removed
        or made anew in between. The lock ends with `unlock_directory`, or with the process however that ends.
        The descriptor is closed on exec; a child by fork has to close it.
        """
        flock = getattr(fcntl, "flock", None)
        if flock is None:
            raise OSError(errno.ENOTSUP, "this system has no flock, by which a process owns its folder", path)
        try:
            descriptor = os.open(path, _DIRECTORY_FLAGS | _NO_FOLLOW)
        except FileNotFoundError:
            return None
        try:
            flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def unlock_directory(self, descriptor: int) -> None:
        """Give a lock of `lock_directory` back, at once even if a copy of the descriptor lives elsewhere."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


class NoSyncFileSystem(FileSystem):
    """A file system that never waits for the medium: fast, and without the promise (`--no-sync`).

    It survives the end of the process and loses what the system had not yet written when the power goes.
    """

    __slots__ = ()

    def synchronize(self, descriptor: int) -> None:
        """Do nothing."""

    def synchronize_directory(self, path: str) -> None:
        """Do nothing."""


def _check_regular(descriptor: int, path: str) -> None:
    """Raise OSError for what is no regular file."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.ENXIO, "it is no regular file", path)


def _write_rest(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int, written: int) -> None:
    """Write what is left of the buffers after `written` bytes, in as many calls as it takes."""
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    first = 0
    while True:
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            offset += len(views[first])
            first += 1
        if first == len(views):
            return
        views[first] = views[first][written:]
        offset += written
        written = os.pwritev(descriptor, views[first : first + BUFFERS_PER_WRITE], offset)
        if not written:
            raise OSError(errno.EIO, "the system took none of the bytes and gave no reason")


def _full_synchronize(descriptor: int) -> None:
    """Synchronize where there is no fdatasync; on macOS only F_FULLFSYNC reaches past the drive's own cache."""
    command = getattr(fcntl, "F_FULLFSYNC", None)
    if command is not None:
        try:
            fcntl.fcntl(descriptor, command)
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.EINVAL}:  # a file system without it
                raise
        else:
            return
    os.fsync(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Have blocks set aside for a new file, by writing zeros where they cannot be reserved."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                raise
        else:
            return
    zeros = memoryview(bytes(min(size, ZEROS_PER_WRITE)))
    for offset in range(0, size, ZEROS_PER_WRITE):
        _write_rest(descriptor, [zeros[: size - offset]], offset, 0)
