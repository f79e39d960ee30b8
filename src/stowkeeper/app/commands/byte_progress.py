"""Progress in bytes on a terminal, and a limit on their rate: for commands that read a whole archive."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress


class ByteProgress:
    """A bar on standard error for the length of a with block; nothing where that is no terminal.

    `total` is in bytes, None while nobody knows it.
    """

    def __init__(self, what: str, total: int | None = None, *, as_json: bool = False) -> None:
        self._what = what
        self._total = total
        # JSON lines on the same terminal would be torn apart by the bar.
        self._is_shown = sys.stderr.isatty() and not (as_json and sys.stdout.isatty())
        self._progress: Progress | None = None

    def expect(self, total: int) -> None:
        """Know the bytes in all, before the block begins."""
        self._total = total

    def __enter__(self) -> Self:
        if self._is_shown:
            self._progress = _bar()
            self._progress.add_task(self._what, total=self._total)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def advance(self, count: int) -> None:
        """Know of bytes that were read."""
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0], count)


def _bar() -> "Progress":
    from rich.console import Console  # noqa: PLC0415 - a command that shows none does not pay for it
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # What is printed meanwhile goes above the bar, but results that go to a file or a pipe stay there.
        redirect_stdout=sys.stdout.isatty(),
    )


class RateLimit:
    """Holds back who reads faster than so many bytes a second, be it with several threads.

    What was saved up by standing still is not given.
    """

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        """Account for bytes that were read, and wait until more may be."""
        with self._lock:
            now = self._clock()
            self._next = max(self._next, now) + count / self._bytes_per_second
            seconds = self._next - now
        if seconds > 0:
            self._sleep(seconds)


def human_size(count: float) -> str:
    """Write a number of bytes for people: 1234567 as "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def human_rate(count: int, seconds: float) -> str:
    """Say how much was read, in which time and how fast."""
    return f"{human_size(count)} in {seconds:.1f} s, {human_size(count / max(seconds, 0.001))}/s"
