"""Log lines on their way out: a thread that writes them, to the terminal and to files.

Whoever logs only puts a line into a queue, so that no event loop waits for a disk or a terminal. The queue is
bounded: when the outlets stand still, lines are dropped and counted, and the count is logged when it goes on.
Lines that wait when the process is killed are lost.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, TextIO

from stowkeeper.app.limits import LOG_CLOSE_SECONDS, LOG_GATHER_SECONDS, LOG_LINES_WAITING_MAX

LOG_FILE_NAME = "stowkeeper.log"


class Outlet(Protocol):
    """Where lines go. `write` raises OSError or ValueError when they do not get there.

    A `brief` outlet gets the brief version of a line that has one, and nothing of one whose brief version is empty.
    """

    name: str
    brief: bool

    def write(self, lines: Sequence[str]) -> None:
        """Write whole lines, each without its line break."""

    def close(self) -> None:
        """Let go of what is open. The next `write` opens it again."""


class Console:
    """Standard error, or another text stream. Never closed: it is not ours."""

    name = "console"
    brief = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, lines: Sequence[str]) -> None:
        """Write and flush."""
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def close(self) -> None:
        """Do nothing."""


Line = tuple[str, str]
"""A line, whole and brief."""


class LogWriter:
    """Takes lines from any thread and writes them to the outlets from a thread of its own.

    `notice` makes a line of its own about lost lines, from the name of the outlet or of the queue, a sentence and
    the count. Where no other outlet can be told that one fails, `last_resort` is.
    """

    def __init__(
        self,
        outlets: Sequence[Outlet],
        notice: Callable[[str, str, int], str],
        last_resort: Outlet | None = None,
    ) -> None:
        self._outlets = tuple(outlets)
        self._notice = notice
        self._last_resort = last_resort
        self._queue: SimpleQueue[Line | Callable[[], None]] = SimpleQueue()
        self._dropped = 0
        self._lost: dict[str, int] = {}
        self._hurry = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str, brief: str | None = None) -> None:
        """Queue a line, and how brief outlets put it: as it is, in other words, or, if these are empty, not at all.

        Drop and count it when too many wait. Never blocks.
        """
        if self._queue.qsize() >= LOG_LINES_WAITING_MAX:
            self._dropped += 1  # threads may race here: then the count is a little low
            return
        self._queue.put((line, line if brief is None else brief))

    def replace_outlets(self, outlets: Sequence[Outlet]) -> None:
        """Write to other outlets from the next line on, and close those before."""

        def replace() -> None:
            for outlet in self._outlets:
                outlet.close()
            self._outlets = tuple(outlets)
            self._lost.clear()

        self._queue.put(replace)

    def flush(self, seconds: float = LOG_CLOSE_SECONDS) -> bool:
        """Wait until all lines put so far are written; return whether that was in time."""
        written = threading.Event()
        self._queue.put(written.set)
        self._hurry.set()
        return written.wait(seconds)

    def close(self, seconds: float = LOG_CLOSE_SECONDS) -> None:
        """Write what waits, close the outlets, and end the thread, or give up after a time. Repeatable."""
        self._queue.put(self._stop)
        self._hurry.set()
        self._thread.join(seconds)

    def _stop(self) -> None:
        self._closing = True

    def _run(self) -> None:
        while not self._closing:
            entries = [self._queue.get()]
            self._hurry.wait(LOG_GATHER_SECONDS)
            self._hurry.clear()
            with contextlib.suppress(Empty):
                while len(entries) < LOG_LINES_WAITING_MAX:
                    entries.append(self._queue.get_nowait())
            self._work_off(entries)
        for outlet in self._outlets:
            if count := self._lost.get(outlet.name):
                self._tell_others(outlet, self._notice(outlet.name, "log lines were lost", count))
            outlet.close()

    def _work_off(self, entries: Sequence[Line | Callable[[], None]]) -> None:
        lines: list[Line] = []
        for entry in entries:
            if isinstance(entry, tuple):
                lines.append(entry)
                continue
            self._write(lines)
            lines = []
            entry()
        self._write(lines)

    def _write(self, lines: list[Line]) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            notice = self._notice("queue", "log lines came faster than they could be written", dropped)
            lines.append((notice, notice))
        if lines:
            for outlet in self._outlets:
                self._write_to(
                    outlet,
                    [brief for _, brief in lines if brief] if outlet.brief else [line for line, _ in lines],
                )

    def _write_to(self, outlet: Outlet, lines: Sequence[str]) -> None:
        if not lines:
            return
        lost = self._lost.get(outlet.name, 0)
        try:
            if lost:
                outlet.write([self._notice(outlet.name, "log lines could not be written", lost), *lines])
                del self._lost[outlet.name]
            else:
                outlet.write(lines)
        except (OSError, ValueError) as error:
            self._lost[outlet.name] = lost + len(lines)
            with contextlib.suppress(OSError):
                outlet.close()
            if not lost:
                reason = error.strerror if isinstance(error, OSError) else "it is closed"
                words = f"log lines cannot be written: {reason}"
                self._tell_others(outlet, self._notice(outlet.name, words, len(lines)))

    def _tell_others(self, silent: Outlet, line: str) -> None:
        is_told = False
        for outlet in self._outlets:
            if outlet is not silent:
                with contextlib.suppress(OSError, ValueError):
                    outlet.write([line])
                    is_told = True
        if not is_told and self._last_resort is not None:
            with contextlib.suppress(OSError, ValueError):
                self._last_resort.write([line])
