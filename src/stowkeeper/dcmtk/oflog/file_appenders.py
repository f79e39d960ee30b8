"""Appenders that write to a file, and put it away when it is large or old."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from stowkeeper.dcmtk.oflog.appenders import Appender
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.times import Schedule

ROLLING_BYTES_MIN: Final = 200 << 10
"""What MaxFileSize cannot go below."""

_MODE: Final = 0o666
_BUFFER_BYTES: Final = 8192


def put_away(name_of: Callable[[int], str], last: int) -> None:
    """Give the file of name 0 the name 1, after that of name 1 has got the name 2, and so on up to the last.

    Nothing moves behind the first name that is free; if none is, the file of the last name is replaced. Raises OSError.
    """
    free = 1
    while free < last and os.path.lexists(name_of(free)):
        free += 1
    for number in range(free, 0, -1):
        os.replace(name_of(number - 1), name_of(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How a file is written.

    `starts_anew` empties it at the start. With `flushes` every message is written at once, else when `buffer_bytes` have
    come together, of which 0 stands for a usual number. A file that could not be written is opened anew with the first
    message after `reopen_seconds`.
    """

    path: str
    starts_anew: bool = False
    flushes: bool = True
    buffer_bytes: int = 0
    reopen_seconds: int = 1


class FileAppender(Appender):
    """Appends to a file. While it cannot be written, messages are dropped."""

    def __init__(self, place: str, complaints: Complaints, options: FileOptions) -> None:
        super().__init__(place, complaints)
        self._options = options
        self._path = options.path
        self._reopen_at = 0.0
        self._file: BinaryIO | None = None
        self._open(os.O_TRUNC if options.starts_anew else 0)

    def append(self, record: logging.LogRecord) -> None:
        """Write a message, or drop it."""
        if self._file is None and time.monotonic() >= self._reopen_at:
            self._open()
        if self._file is None:
            return
        data = _encoded(self.layout.text(record))
        try:
            self._file.write(data)
            if self._options.flushes or self.lock_file is not None:
                self._file.flush()
        except OSError as error:
            self._give_up("written", error)
        else:
            self.forget_complaint("file")

    def flush(self) -> None:
        """Write what is held back, or drop it."""
        self.acquire()
        try:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.flush()
        finally:
            self.release()

    def let_go(self) -> None:
        """Write what is held back and close the file."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _open(self, flags: int = 0) -> None:
        self.let_go()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, _MODE)
            self._file = os.fdopen(descriptor, "ab", self._options.buffer_bytes or _BUFFER_BYTES)
        except OSError as error:
            self._give_up("opened", error)

    def _give_up(self, what: str, error: OSError) -> None:
        self.let_go()
        self._reopen_at = time.monotonic() + self._options.reopen_seconds
        self.complain_once("file", f"'{self._path}' cannot be {what}: {error.strerror}")

    def _roll_over(self, name_of: Callable[[int], str], last: int) -> None:
        """Put the file away and begin a new one, unless another process has done so before.

        A file that cannot be put away is gone on with.
        """
        try:
            if self._is_at_its_place():
                put_away(name_of, last)
        except OSError as error:
            self.complain_once("name", f"'{self._path}' cannot be put away: {error.strerror}")
        else:
            self.forget_complaint("name")
        self._open()

    def _is_at_its_place(self) -> bool:
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


class RollingFileAppender(FileAppender):
    """Puts its file away as `FILE.1`, and older ones as `FILE.2` and so on, when it has become longer than so much."""

    def __init__(
        self, place: str, complaints: Complaints, options: FileOptions, *, size_max: int, backups: int
    ) -> None:
        super().__init__(place, complaints, options)
        self._size_max = size_max
        self._backups = backups

    def append(self, record: logging.LogRecord) -> None:
        """Write a message; then put the file away if it is too long."""
        super().append(record)
        if self._size() > self._size_max:
            self._roll_over(self._name_of, self._backups)

    def _size(self) -> int:
        try:
            return 0 if self._file is None else self._file.tell()
        except OSError:  # a pipe has no length
            return 0

    def _name_of(self, number: int) -> str:
        return f"{self._path}.{number}" if number else self._path


class DailyRollingFileAppender(FileAppender):
    """Puts its file away with the first message of a new period, as `FILE.PERIOD` by the name of the one that is over.

    Where that is there already, it becomes `FILE.PERIOD.1`, and older ones `FILE.PERIOD.2` and so on.
    """

    def __init__(
        self,
        place: str,
        complaints: Complaints,
        options: FileOptions,
        *,
        schedule: Schedule,
        backups: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(place, complaints, options)
        self._schedule = schedule
        self._backups = backups
        self._begin_period(clock())

    def append(self, record: logging.LogRecord) -> None:
        """Put the file away if its period is over; then write a message."""
        if record.created >= self._next_start:
            self._roll_over(self._name_of, self._backups + 1)
            self._begin_period(record.created)
        super().append(record)

    def _begin_period(self, now: float) -> None:
        self._period = self._schedule.name_at(now)
        self._next_start = self._schedule.next_start(now)

    def _name_of(self, number: int) -> str:
        if number == 0:
            return self._path
        name = f"{self._path}.{self._period}"
        return name if number == 1 else f"{name}.{number - 1}"


def _encoded(text: str) -> bytes:
    """Return the bytes of a text, in which bytes of file names that are no text stand for themselves."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")
