"""A real disk some of whose files never come, until they are let go: as a file server that is away, or a dying drive."""

import threading

from stowkeeper.durable.filesystem import FileSystem

RELEASE_SECONDS_MAX = 60.0


class StuckDisk(FileSystem):
    """Opening a path that is in `stuck` takes until `release`. `begun` counts how often one was begun."""

    __slots__ = ("_released", "begun", "stuck")

    def __init__(self, *stuck: str) -> None:
        self.stuck = set(stuck)
        self.begun = 0
        self._released = threading.Event()

    def release(self) -> None:
        """Let everything that hangs go on."""
        self.stuck = set()
        self._released.set()

    def open_for_reading(self, path: str) -> int:
        if path in self.stuck:
            self.begun += 1
            self._released.wait(RELEASE_SECONDS_MAX)
        return super().open_for_reading(path)
