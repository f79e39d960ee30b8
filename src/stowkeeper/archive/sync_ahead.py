"""A sync of an instance that is still arriving, on a worker thread, while its next bytes are read and written."""

import threading
from collections.abc import Callable

from stowkeeper.durable.filesystem import FileSystem


class SyncAhead:
    """One sync of one open file. Whoever began it waits for its end before the descriptor is closed.

    `failed` is called at once, on the worker's thread, when the disk fails. The error is kept for `wait` too: the system tells
    of it once, so a later sync of the same file proves nothing.
    """

    __slots__ = ("_descriptor", "_ended", "_error", "_failed", "_files")

    def __init__(self, files: FileSystem, descriptor: int, failed: Callable[[OSError], None]) -> None:
        self._files = files
        self._descriptor = descriptor
        self._failed = failed
        self._ended = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        """Sync; called by a worker thread."""
        try:
            self._files.synchronize(self._descriptor)
        except OSError as error:
            self._error = error
            self._failed(error)
        except Exception as error:
            self._error = error
            raise
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Wait until the sync is over. Raises what it raised: OSError when the disk failed."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
