"""Log lines on their way out: a thread that writes them, to the terminal and to a file that rotates.

Whoever logs only puts a line into a queue, so that no event loop waits for a disk or a terminal. The queue is
bounded: when the outlets stand still, lines are dropped and counted, and the count is logged when it goes on.
Lines that wait when the process is killed are lost.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, TextIO

from stowkeeper.app.limits import LOG_CLOSE_SECONDS, LOG_GATHER_SECONDS, LOG_LINES_WAITING_MAX

if sys.platform != "win32":
    import fcntl

LOG_FILE_NAME = "stowkeeper.log"

_FILE_MODE = 0o640
_FOLDER_MODE = 0o750


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


class RotatingFile:
    """A log file with numbered older ones. Several processes may write and rotate the same one.

    Lines are appended whole. Before each write it is made sure that the name still leads to the open file, so
    that a rotation by another process, or by logrotate, is followed. Rotation is done under a lock on the folder.
    """

    brief = False

    def __init__(self, path: str, *, max_size: int, backups: int) -> None:
        self.name = path
        self._path = path
        self._folder = os.path.dirname(path)
        self._max_size = max_size
        self._backups = backups
        self._descriptor: int | None = None
        self._torn = False
        """Whether the last write may have ended within a line, which the next must not continue."""

    def open(self) -> None:
        """Open the file, and make it and its folder where they are missing. Raises OSError."""
        if self._descriptor is None:
            os.makedirs(self._folder, mode=_FOLDER_MODE, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(self._path, flags, _FILE_MODE)

    def close(self) -> None:
        """Close the file; the next write opens what then has its name."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def write(self, lines: Sequence[str]) -> None:
        """Append lines, and rotate where the next one would make the file too large. Raises OSError."""
        pending = bytearray()
        size = self._follow()
        for line in lines:
            data = line.encode("utf-8", "backslashreplace") + b"\n"
            if size and size + len(data) > self._max_size:
                self._append(pending)
                pending.clear()
                size = self._rotate()
            pending += data
            size += len(data)
        self._append(pending)

    def _follow(self) -> int:
        """Open the file that has the name now, and return its size."""
        if self._descriptor is not None and not self._is_named():
            self.close()
        self.open()
        return self._size()

    def _is_named(self) -> bool:
        assert self._descriptor is not None  # noqa: S101 - for the type checker; callers looked
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _size(self) -> int:
        return 0 if self._descriptor is None else os.fstat(self._descriptor).st_size

    def _append(self, data: bytearray) -> None:
        if self._torn:
            data = bytearray(b"\n") + data
        with memoryview(data) as view:
            written = 0
            while written < len(view) and self._descriptor is not None:
                self._torn = True
                written += os.write(self._descriptor, view[written:])
            self._torn = False

    def _rotate(self) -> int:
        with self._folder_lock():
            if self._descriptor is not None and self._is_named():
                self.close()  # before the renames: some systems rename no open file
                self._shift()
        return self._follow()

    def _shift(self) -> None:
        if not self._backups:
            os.unlink(self._path)
            return
        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")

    @contextlib.contextmanager
    def _folder_lock(self) -> Iterator[None]:
        if sys.platform == "win32":  # there one process rotates its file alone
            yield
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


Line = tuple[str, str]
"""A line, whole and brief."""


class LogWriter:
    """Takes lines from any thread and writes them to the outlets from a thread of its own.

    `notice` makes a line of its own about lost lines, from the name of the outlet or of the queue, a sentence and
    the count.
    """

    def __init__(self, outlets: Sequence[Outlet], notice: Callable[[str, str, int], str]) -> None:
        self._outlets = tuple(outlets)
        self._notice = notice
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
                self._tell_others(outlet, error)

    def _tell_others(self, silent: Outlet, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else "it is closed"
        line = self._notice(silent.name, f"log lines cannot be written: {reason}", self._lost[silent.name])
        for outlet in self._outlets:
            if outlet is not silent:
                with contextlib.suppress(OSError, ValueError):
                    outlet.write([line])
