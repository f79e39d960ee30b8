"""A real disk that takes a moment for what is asked of it most, so that work on few files takes a while."""

import time

from stowkeeper.durable.filesystem import FileSystem


class SlowDisk(FileSystem):
    """Waits before each block that is read, each file that is opened and each name that goes; `moments` counts that."""

    __slots__ = ("_moment_seconds", "moments")

    def __init__(self, moment_seconds: float) -> None:
        self._moment_seconds = moment_seconds
        self.moments = 0

    def _wait(self) -> None:
        self.moments += 1
        time.sleep(self._moment_seconds)

    def open_for_reading(self, path: str) -> int:
        self._wait()
        return super().open_for_reading(path)

    def read_into(self, descriptor: int, view: memoryview, offset: int) -> int:
        self._wait()
        return super().read_into(descriptor, view, offset)

    def unlink(self, path: str) -> None:
        self._wait()
        super().unlink(path)
