"""A file on its way into a directory: under a hidden name until it is whole, then under its own in one step.

So nobody ever sees a part of a file, and one that comes again takes the place of the old one only when it is whole. What
a process that died leaves behind is nobody's file: the next start removes it.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import shutil
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import BinaryIO, Final

from stowkeeper.dcmtk.limits import HIDDEN_NAME_TRIES_MAX, LEFT_OVER_SECONDS, PIECES_PER_WRITE_MAX

HIDDEN_PREFIX: Final = ".stowkeeper-"
"""What the names of unfinished files begin with; the number of their process and one of their own follow."""

_HIDDEN_NAME: Final = re.compile(rf"{re.escape(HIDDEN_PREFIX)}\d+-\d+", re.ASCII)

_MODE: Final = 0o666
"""Who may read and write files is for the process's umask to say."""

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

_NO_LINKS: Final = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
"""What file systems without hard links answer."""

Buffer = bytes | bytearray | memoryview

_counter = itertools.count(1)
_unfinished: set["IncomingFile"] = set()
_being_made: list[str] = []
"""The path of a file that is there, or will be in a moment, and is not among the unfinished yet."""


class IncomingFile:
    """A new file in `directory`. `discard` removes it unless `finish` came to its end.

    With `synchronizes` it is on the medium when `finish` returns, and so is its name. Everything raises OSError.
    """

    def __init__(self, directory: str, *, synchronizes: bool) -> None:
        self._directory = directory
        self._synchronizes = synchronizes
        self._descriptor: int | None
        self._descriptor, self._path = _open_hidden(directory)
        _unfinished.add(self)
        _being_made.clear()

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Append pieces."""
        descriptor = self._open_descriptor()
        for start in range(0, len(pieces), PIECES_PER_WRITE_MAX):
            portion = pieces[start : start + PIECES_PER_WRITE_MAX]
            count = os.writev(descriptor, portion)
            if count == sum(map(len, portion)):
                continue
            rest = list(portion)
            while rest and count >= len(rest[0]):
                count -= len(rest.pop(0))
            while rest:  # the system took a part: a signal came, or the disk is about to be full
                view = memoryview(rest[0])[count:]
                count = os.write(descriptor, view)
                if count == len(view):
                    rest.pop(0)
                    count = 0
                else:
                    rest[0] = view

    def open_at(self, offset: int) -> BinaryIO:
        """Open the file for reading and writing from an offset on; the caller closes what it gets."""
        copy = os.dup(self._open_descriptor())
        os.lseek(copy, offset, os.SEEK_SET)  # which the duplicate shares
        return open(copy, "r+b")

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the file is closed already", self._path)
        return self._descriptor

    def finish(self, path: str, *, replaces: bool = True) -> None:
        """Give the whole file its name, in place of any file of that name.

        Unless it `replaces`, raises FileExistsError when the name is taken; the file then waits for another. Where it raises
        anything else, the name is what it was before, but for a disk that fails to sync the directory behind it.
        """
        if self._synchronizes and self._descriptor is not None:
            os.fsync(self._descriptor)
        self._close()  # first: some file systems say only now that there was no room
        try:
            (os.replace if replaces else rename_to_free_name)(self._path, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_to_other_disk(path, replaces=replaces)
        _unfinished.discard(self)
        if self._synchronizes:
            synchronize_directory(os.path.dirname(path))

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _copy_to_other_disk(self, path: str, *, replaces: bool) -> None:
        """Get the file to where a subdirectory is a mount of its own."""
        copy = IncomingFile(os.path.dirname(path), synchronizes=self._synchronizes)
        try:
            with open(self._path, "rb") as source, copy.open_at(0) as target:
                shutil.copyfileobj(source, target)
            copy.finish(path, replaces=replaces)
        finally:
            copy.discard()
        os.unlink(self._path)

    def is_in_place(self) -> bool:
        """Tell whether the file is still where it was made: its directory may have been moved, or made anew."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._open_descriptor()))
        except OSError:
            return False

    def discard(self) -> None:
        """Remove the file, unless it is finished. Repeatable."""
        if self not in _unfinished:
            return
        _unfinished.discard(self)
        with contextlib.suppress(OSError):  # the next start removes it
            os.unlink(self._path)
        with contextlib.suppress(OSError):
            self._close()


class IncomingFiles:
    """Makes the incoming files of a directory, one of them ahead of its time when there is nothing else to do.

    To make a file costs more than all else that is done with a small one, and a sender that waits for its answer leaves
    time for it. What was made ahead is put back when an association ends.
    """

    def __init__(self, directory: str, *, synchronizes: bool) -> None:
        self._directory = directory
        self._synchronizes = synchronizes
        self._ready: IncomingFile | None = None

    def take(self) -> IncomingFile:
        """Return a new file. Raises OSError."""
        ready, self._ready = self._ready, None
        if ready is not None and not ready.is_in_place():
            ready.discard()
            ready = None
        return ready or IncomingFile(self._directory, synchronizes=self._synchronizes)

    def prepare(self) -> None:
        """Make a file ahead, if that can be: why it cannot shows when one is needed."""
        if self._ready is not None:
            return
        try:  # noqa: SIM105 - as in _open_hidden
            self._ready = IncomingFile(self._directory, synchronizes=self._synchronizes)
        except OSError:
            pass

    def put_back(self) -> None:
        """Remove what was made ahead."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.discard()


def _open_hidden(directory: str) -> tuple[int, str]:
    """Make a file under a hidden name and lock it, so that nobody takes it for a left-over one."""
    for _ in range(HIDDEN_NAME_TRIES_MAX):
        path = f"{_hidden_start(directory)}{os.getpid()}-{next(_counter)}"
        _being_made[:] = (path,)  # a signal may come before anybody knows the file
        try:
            descriptor = os.open(path, _NEW, _MODE)
        except FileExistsError:
            continue
        except OSError:
            _being_made.clear()
            raise
        try:  # noqa: SIM105 - an object for it takes longer than all else here, for every instance
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # the file system has no locks: the file's age speaks for it then
            pass
        return descriptor, path
    _being_made.clear()
    raise FileExistsError(errno.EEXIST, "too many unfinished files are in the way", directory)


@lru_cache(maxsize=8)
def _hidden_start(directory: str) -> str:
    return os.path.join(directory, HIDDEN_PREFIX)


def synchronize_directory(directory: str) -> None:
    """Get the names in a directory to the medium. Raises OSError."""
    descriptor = os.open(directory or os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_to_free_name(old: str, new: str) -> None:
    """Rename a file, never in place of another one. Raises FileExistsError when the name is taken, and OSError.

    Where the file system has no links, the name is looked at first, and chance has to do for the moment between.
    """
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        os.rename(old, new)
    else:
        os.unlink(old)


def discard_unfinished() -> None:
    """Remove every file that is neither finished nor discarded: the process ends."""
    for file in list(_unfinished):
        file.discard()
    for path in _being_made:
        with contextlib.suppress(OSError):
            if not os.stat(path).st_size:  # one that has bytes is another's, of whom the name was taken
                os.unlink(path)


def remove_left_over(directory: str) -> int:
    """Remove the unfinished files of processes that died, and return how many there were.

    One that is locked, or young and of a living process, belongs to somebody. What cannot be looked at stays.
    """
    count = 0
    with contextlib.suppress(OSError), os.scandir(directory or os.curdir) as entries:
        for entry in entries:
            if _HIDDEN_NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    count += _remove_if_dead(entry.path)
    return count


def _remove_if_dead(path: str) -> bool:
    """Remove a file whose lock is free, when its process is not there any more, or its age says so.

    In another container the process may be there all the same: then its lock is held, and only between the making of a file
    and its lock, some microseconds, is it at risk.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_old = time.time() - os.fstat(descriptor).st_mtime >= LEFT_OVER_SECONDS
        if not is_old and _is_running(path):
            return False
        os.unlink(path)
        return True
    finally:
        os.close(descriptor)


def _is_running(path: str) -> bool:
    """Tell whether the process is there that the name of a file speaks of; only its life counts, not whose it is."""
    number = os.path.basename(path).removeprefix(HIDDEN_PREFIX).partition("-")[0]
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
