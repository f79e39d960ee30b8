"""Appenders: where messages go. Here what they have in common, and those without files and networks."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from typing import TextIO

from stowkeeper.dcmtk.oflog.complaints import Complaints, write_to
from stowkeeper.dcmtk.oflog.layouts import Layout, SimpleLayout


class LockFile:
    """A file whose lock one process at a time holds, as DCMTK's programs do that write to the same log file."""

    def __init__(self, path: str) -> None:
        """Open the file. Raises OSError or ValueError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock and hold it, or go on without it where it cannot be had."""
        with contextlib.suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file. Repeatable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Appender(logging.Handler):
    """Takes messages of its level (the threshold) and above that pass its filters, one at a time, and never raises.

    `layout` and `lock_file` are set behind the making. A record comes with its arguments put into the message.
    """

    def __init__(self, place: str, complaints: Complaints) -> None:
        super().__init__()
        self.layout: Layout = SimpleLayout()
        self.lock_file: LockFile | None = None
        self._place = place
        self._complaints = complaints
        self._complaints_made: set[str] = set()
        self._is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message. `logging` calls this with the handler's lock held, when level and filters let it pass."""
        if self._is_closed:
            return
        lock = contextlib.nullcontext() if self.lock_file is None else self.lock_file.held()
        try:
            with lock:
                self.append(record)
        except Exception as error:  # noqa: BLE001 - whoever logs must not fail because of it
            self.complain_once("message", f"a message could not be written: {error}")

    def append(self, record: logging.LogRecord) -> None:
        """Write a message that passed."""

    def complain_once(self, what: str, text: str) -> None:
        """Report what fails, the first time only; `forget_complaint` makes it the first time again."""
        if what not in self._complaints_made:
            self._complaints_made.add(what)
            self._complaints.error(f"{self._place}: {text}")

    def forget_complaint(self, what: str) -> None:
        """Report the next failure of this kind again."""
        self._complaints_made.discard(what)

    def close(self) -> None:
        """Let go of everything; what comes later is dropped. Repeatable."""
        self.acquire()
        try:
            if not self._is_closed:
                self._is_closed = True
                self.let_go()
                if self.lock_file is not None:
                    self.lock_file.close()
        finally:
            self.release()
        super().close()

    def let_go(self) -> None:
        """Let go of what an appender of this kind holds, once."""


class NullAppender(Appender):
    """Drops every message."""


class ConsoleAppender(Appender):
    """Writes to standard output or standard error, every message at once."""

    def __init__(self, place: str, complaints: Complaints, stream: TextIO) -> None:
        super().__init__(place, complaints)
        self._stream = stream

    def append(self, record: logging.LogRecord) -> None:
        """Write a message."""
        write_to(self._stream, self.layout.text(record))
