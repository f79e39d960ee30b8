"""Disk space kept back for the day the disk is full.

A preallocated file stands in the archive. When the finisher or the database meets "no space left", the reserve is
released, which lets what was already answered reach its shelf; it is made again when there is room. Processes of one
archive share one reserve: any of them may release it.
"""

import threading
from contextlib import suppress

from stowkeeper.durable.errors import is_out_of_space
from stowkeeper.durable.filesystem import FileSystem, FreeSpace
from stowkeeper.durable.limits import RESERVE_MARGIN, RESERVE_SIZE


class Reserve:
    """The reserve file at `path`, of `size` bytes; any thread may call it."""

    def __init__(
        self, files: FileSystem, path: str, *, size: int = RESERVE_SIZE, margin: int = RESERVE_MARGIN
    ) -> None:
        self._files = files
        self._path = path
        self._size = size
        self._margin = margin
        self._lock = threading.Lock()

    def is_held(self) -> bool:
        """Tell whether the reserve stands ready, as the disk has it now."""
        try:
            return self._files.status(self._path).size == self._size
        except FileNotFoundError:
            return False

    def make(self) -> bool:
        """Make the reserve if it is not there; False when there is no room for it. Raises OSError for the rest.

        A file of another size, left by a crash or by an older setting, is made anew.
        """
        with self._lock:
            if self.is_held():
                return True
            with suppress(FileNotFoundError):
                self._files.unlink(self._path)
            try:
                self._files.preallocate(self._path, self._size)
            except FileExistsError:  # another process was faster
                return True
            except OSError as error:
                if is_out_of_space(error):
                    return False
                raise
            return True

    def make_again(self, space: FreeSpace) -> bool:
        """Make a released reserve once the disk has room for it and for the margin besides; tell whether it stands."""
        if self.is_held():
            return True
        return space.bytes >= self._size + self._margin and self.make()

    def release(self) -> bool:
        """Give the space back to the file system; False when there was none to give. Raises OSError.

        The sync of the folder is part of it: a journalling file system gives freed blocks out again only when the
        removal is written down.
        """
        with self._lock:
            try:
                self._files.unlink(self._path)
            except FileNotFoundError:
                return False
            self._files.synchronize_directory(self._path.rpartition("/")[0] or "/")
            return True
