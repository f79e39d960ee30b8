"""One at a time changes the shelf, and what one could not prove the next takes back.

The system reports a folder sync that failed to one caller alone, and believes the entries written from then on: whoever
syncs the folder after that is told that all is well. So nobody, of whatever thread or process, may stand with an unproved
name in a folder that another syncs. Whoever links, unlinks or syncs on the shelf holds this lock from the first change
to the last sync: an `flock` on the folder `depot`, which is its owner's alone, and the lock ends with its process.

What is about to be made stands in a file first, the journal. It goes when the syncs have succeeded. While it is there
nothing in it counts: whoever made it takes it all back, or else the next who gets the lock, since a process may die, or
its disk refuse, before it comes to that. A folder made in one hold has names of that hold alone in it, so it is empty
then and goes as well, and all of it is made anew: only a new entry can be proved.

A power cut decides what is in doubt: what stands on the medium afterwards is proved, and a journal of an earlier run of the
system is not believed, so it does not need to be durable. Where the system does not tell its runs apart such a journal may
name what was listed since; so a name is taken back only while the depot has the file too, which is then placed again.
"""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from stowkeeper.archive.limits import (
    SHELF_LOCK_POLL_SECONDS_MAX,
    SHELF_LOCK_POLL_SECONDS_MIN,
    SHELF_LOCK_SECONDS,
)
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.process_folder import DEPOT, DEPOT_MODE

OBJECTS = "objects"
JOURNAL = "shelf.journal"

_JOURNAL_MODE = 0o600
_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class ShelfLock:
    """The lock on an archive's shelf and the journal of whoever holds it.

    Paths are relative to the archive. Who holds the writer lock of the database must not ask for this one: this one
    comes first.
    """

    def __init__(self, files: FileSystem, root: str, *, seconds: float = SHELF_LOCK_SECONDS) -> None:
        self._files = files
        self._journal = os.path.join(root, JOURNAL)
        self._depot = os.path.join(root, DEPOT)
        self._root = root
        self._seconds = seconds
        self._descriptor: int | None = None
        self._length = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a block, on a shelf on which everything is proved.

        What the block noted and did not `forget` is taken back at its end. Raises OSError when that cannot be done for
        an earlier holder, and TimeoutError when another kept the lock longer than the limit.
        """
        lock = self._acquire()
        try:
            self._take_back()
            try:
                yield
            except Exception:
                with suppress(OSError):  # the next holder tries again, and raises
                    self._take_back_own()
                raise
            self._take_back_own()
        finally:
            self._close()
            self._files.unlock_directory(lock)

    def note(self, paths: Iterable[str]) -> None:
        """Write down names that are about to be made and are free, and folders. Raises OSError."""
        lines = "".join(f"{path}\n" for path in paths).encode("utf-8", "surrogateescape")
        if self._descriptor is None:
            self._descriptor = self._files.create(self._journal, _JOURNAL_MODE)
            self._length = 0
            lines = self._first_line() + lines
        self._files.write(self._descriptor, [lines], self._length)
        self._length += len(lines)

    def forget(self) -> None:
        """Take note that all that was noted is durable. Raises OSError, and then nothing of it counts."""
        if self._descriptor is not None:
            self._files.unlink(self._journal)
            self._close()

    def _acquire(self) -> int:
        deadline = time.monotonic() + self._seconds
        pause = SHELF_LOCK_POLL_SECONDS_MIN
        while (lock := self._files.lock_directory(self._depot)) is None:
            self._files.make_directory(
                self._depot, DEPOT_MODE
            )  # an archive that was rebuilt elsewhere has none
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"others have kept the shelf locked for {self._seconds:g} seconds: see whether one of them hangs"
                    " (`fuser` names the processes)",
                    self._depot,
                )
            time.sleep(pause)
            pause = min(2 * pause, SHELF_LOCK_POLL_SECONDS_MAX)
        return lock

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # nothing in it has to last
                self._files.close(descriptor)

    def _take_back_own(self) -> None:
        if self._descriptor is not None:
            self._take_back()

    def _take_back(self) -> None:
        """Take away what the journal names, so that it can be made anew. Raises OSError, and goes on the next time."""
        noted = self._read()
        if noted is None:
            return
        depot = self._depot_inodes()
        for path in sorted(
            set(noted), key=lambda path: path.count("/"), reverse=True
        ):  # what is in a folder first
            absolute = os.path.join(self._root, path)
            try:
                status = self._files.status(absolute)
                if status.is_directory:
                    self._files.remove_directory(absolute)
                elif status.inode in depot:
                    self._files.unlink(absolute)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                if error.errno not in _NOT_EMPTY:
                    raise
        with suppress(FileNotFoundError):
            self._files.unlink(self._journal)
        self._close()

    def _read(self) -> list[str] | None:
        """Return what the journal names, if it is of this run of the system; None where there is none."""
        try:
            descriptor = self._files.open_for_reading(self._journal)
        except FileNotFoundError:
            return None
        try:
            content = self._files.read(descriptor, self._files.status(self._journal).size, 0)
        finally:
            self._files.close(descriptor)
        if not content.startswith(self._first_line()):
            return []
        lines = content.decode("utf-8", "surrogateescape").split("\n")[1:-1]
        return [line for line in lines if _is_on_shelf(line)]

    def _first_line(self) -> bytes:
        return f"{self._files.boot_identity()}\n".encode()

    def _depot_inodes(self) -> set[int]:
        """Return the inodes of all files in the depot; a folder of another user's that we may not read has none."""
        found: set[int] = set()
        for folder in self._files.list_directory(self._depot):
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                path = os.path.join(self._depot, folder.name)
                found.update(entry.inode for entry in self._files.list_directory(path))
        return found


def _is_on_shelf(path: str) -> bool:
    parts = path.split("/")
    return len(parts) > 1 and parts[0] == OBJECTS and not {"", ".", ".."} & set(parts) and "\0" not in path
