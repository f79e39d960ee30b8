"""A sync of an instance that is still arriving, on a worker thread, while its next bytes are read and written."""

import threading

from stowkeeper.durable.filesystem import FileSystem


class SyncAhead:
    """One sync of one open file. Whoever began it waits for its end before the descriptor is closed.

    An error is kept for `wait`: the system tells of it once, so a later sync of the same file proves nothing.
    """

    __slots__ = ("_descriptor", "_ended", "_error", "_files")

    def __init__(self, files: FileSystem, descriptor: int) -> None:
        self._files = files
        self._descriptor = descriptor
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Sync; called by a worker thread."""
        try:
            self._files.synchronize(self._descriptor)
        except BaseException as error:  # noqa: BLE001 - whatever it was, it is raised where it is waited for
            self._error = error
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Wait until the sync is over; raise what it raised, OSError where the disk failed."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
