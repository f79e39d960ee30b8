"""A pace for code that reads much: how fast at most, and when to stop."""

import threading
import time
from collections.abc import Callable

from stowkeeper.jobs.kind import JobInterrupted


class Pace:
    """Called with the bytes of each block that was read, by several threads; waits where that was too fast.

    Raises JobInterrupted as soon as `stopping` is set, also out of its waiting. Without a rate it only looks at that. What
    was saved up by standing still is not given.
    """

    def __init__(
        self,
        stopping: threading.Event,
        bytes_per_second: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stopping = stopping
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """Account for bytes that were read, 0 between two looks, and wait until more may be."""
        seconds = 0.0
        if self._bytes_per_second is not None and count:
            with self._lock:
                now = self._clock()
                self._next = max(self._next, now) + count / self._bytes_per_second
                seconds = self._next - now
        is_to_stop = self._stopping.wait(seconds) if seconds > 0 else self._stopping.is_set()
        if is_to_stop:
            raise JobInterrupted("it was asked to stop")
