"""A sync of an instance that is still arriving, on a thread of its own, while its next bytes are read and written."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import structlog

from stowkeeper.durable.filesystem import FileSystem

log = structlog.get_logger("stowkeeper.archive")


class SyncAhead:
    """One sync of one open file. Whoever began it waits for its end before the descriptor is closed.

    `failed` is called at once, on that thread, when the disk fails. The error is kept for `wait` too: the system tells
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
        """Sync; called by a thread of intake."""
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


class SyncThreads:
    """Threads for syncs: apart from the workers of intake, who wait for them."""

    def __init__(self, count: int) -> None:
        self._queue: SimpleQueue[SyncAhead | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"sync-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them after the syncs that are queued."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def put(self, sync: SyncAhead) -> None:
        """Have a sync done."""
        self._queue.put(sync)

    def _work(self) -> None:
        while (sync := self._queue.get()) is not None:
            try:
                sync.run()
            except Exception:
                log.exception("error", what="a sync met a fault")  # who waits for it is told as well
        self._queue.put(None)
