"""Log files: one that rotates by size, one that rotates by the day, and two that are used in turn.

Several processes may write to the same files, and somebody may take the folder away: before each write it is made
sure that the name still leads to the open file. Lines are appended whole. What turns files over does so under a
lock on their folder.
"""

import contextlib
import datetime as dt
import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence

if sys.platform != "win32":
    import fcntl

FILE_MODE = 0o640
FOLDER_MODE = 0o750

TWO_FILE_NAMES = ("stowkeeper1.log", "stowkeeper2.log")

COMMANDS_FILE_NAME = "commands.log"
"""Where other commands write of a fault of the program: in the server's log is nothing of them."""

_FLAGS = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)


class LogFile:
    """A file to which lines are appended, made with its folder where they are missing, whatever the umask says."""

    brief = False

    def __init__(self, path: str, *, file_mode: int = FILE_MODE, folder_mode: int = FOLDER_MODE) -> None:
        self.name = path
        self._path = path
        self._folder = os.path.dirname(path)
        self._file_mode = file_mode
        self._folder_mode = folder_mode
        self._descriptor: int | None = None
        self._disk: int | None = None
        """The device on which the folder was found first."""
        self._mount_point = ""
        """Where that is mounted. A disk that was away may come back as another device, as those of a network do."""
        self._torn = False
        """Whether the last write may have ended within a line, which the next must not continue."""

    @property
    def path(self) -> str:
        """The file that is written to now."""
        return self._path

    def open(self) -> None:
        """Open the file, and make it and its folder where they are missing. Raises OSError."""
        if self._descriptor is None:
            self._make_folder()
            self._descriptor = self._open_or_make()

    def close(self) -> None:
        """Close the file; the next write opens what then has its name."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def write(self, lines: Sequence[str]) -> None:
        """Append lines. Raises OSError."""
        raise NotImplementedError

    def _open_or_make(self) -> int:
        for _attempt in range(2):  # it may come and go in between
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, self._file_mode)
                if hasattr(os, "fchmod"):
                    os.fchmod(descriptor, self._file_mode)
                return descriptor
            with contextlib.suppress(FileNotFoundError):
                return os.open(self._path, _FLAGS)
        return os.open(self._path, _FLAGS | os.O_CREAT, self._file_mode)

    def _make_folder(self) -> None:
        """Make the folder at the start with all above it, later itself alone, and only on the disk on which it was.

        The place where a disk was mounted is none to write a log to.
        """
        folder = self._folder or os.curdir
        if self._disk is None:
            _make_folders(folder, self._folder_mode)
            self._disk, self._mount_point = os.stat(folder).st_dev, _mount_point_of(folder)
            return
        is_there = os.path.isdir(folder)
        standing = folder if is_there else os.path.dirname(folder) or os.curdir
        device = os.stat(standing).st_dev
        if device != self._disk:
            if _mount_point_of(standing) != self._mount_point:
                raise OSError(errno.ENODEV, "the disk of the log folder is gone", folder)
            self._disk = device
        if not is_there:
            _make_one_folder(folder, self._folder_mode)

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
                written += os.write(self._descriptor, view[written:])
                self._torn = True
            self._torn = False

    @contextlib.contextmanager
    def _folder_lock(self) -> Iterator[None]:
        if sys.platform == "win32":  # there one process rotates its file alone
            yield
            return
        folder = os.open(self._folder or os.curdir, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _fill(self, lines: Sequence[str], max_size: int, turn: Callable[[], int]) -> None:
        """Append lines; where the next one would make the file too large `turn` gives another, and returns its size."""
        pending = bytearray()
        size = self._follow()
        for line in lines:
            data = _bytes_of(line)
            if size and size + len(data) > max_size:
                self._append(pending)
                pending.clear()
                size = turn()
            pending += data
            size += len(data)
        self._append(pending)


class RotatingFile(LogFile):
    """A log file with older ones, numbered from 1 for the newest of them."""

    def __init__(
        self,
        path: str,
        *,
        max_size: int,
        backups: int,
        file_mode: int = FILE_MODE,
        folder_mode: int = FOLDER_MODE,
    ) -> None:
        super().__init__(path, file_mode=file_mode, folder_mode=folder_mode)
        self._max_size = max_size
        self._backups = backups

    def write(self, lines: Sequence[str]) -> None:
        """Append lines, and rotate where the next one would make the file too large. Raises OSError."""
        self._fill(lines, self._max_size, self._rotate)

    def _rotate(self) -> int:
        with self._folder_lock():
            if self._descriptor is not None and self._is_named():
                self.close()  # before the renames: some systems rename no open file
                if self._backups:
                    self._shift()
                else:
                    os.unlink(self._path)
        return self._follow()

    def _shift(self) -> None:
        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.replace(self._path, f"{self._path}.1")


class DailyFile(RotatingFile):
    """A log file that gets the day in its name when that has ended (UTC): `stowkeeper-2026-03-02.log`.

    A day that fills more than `max_size` gets several: `stowkeeper-2026-03-02.2.log` is the second. The newest `backups`
    of them are kept. A day is that of the first line: after a restart, that on which the file was last written to.
    """

    def __init__(
        self,
        path: str,
        *,
        max_size: int,
        backups: int,
        file_mode: int = FILE_MODE,
        folder_mode: int = FOLDER_MODE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            path, max_size=max_size, backups=backups, file_mode=file_mode, folder_mode=folder_mode
        )
        self._clock = clock
        self._day = ""
        stem, extension = os.path.splitext(os.path.basename(path))
        self._stem, self._extension = stem, extension
        self._older = re.compile(
            rf"{re.escape(stem)}-(\d{{4}}-\d\d-\d\d)(?:\.(\d{{1,9}}))?{re.escape(extension)}"
        )

    def open(self) -> None:
        """Open the file, and know of which day it is. Raises OSError."""
        if self._descriptor is not None:
            return
        super().open()
        self._day = _day_of(os.stat(self._path).st_mtime if self._size() else self._clock())

    def write(self, lines: Sequence[str]) -> None:
        """Append lines, and rotate when the day has ended or the file would be too large. Raises OSError."""
        size = self._follow()
        if self._day != _day_of(self._clock()):
            if size:
                self._rotate()
            else:
                self._day = _day_of(self._clock())
        super().write(lines)

    def _shift(self) -> None:
        number = 1 + max((number for day, number, _ in self._earlier() if day == self._day), default=0)
        part = f".{number}" if number > 1 else ""
        os.rename(self._path, os.path.join(self._folder, f"{self._stem}-{self._day}{part}{self._extension}"))
        for _, _, name in sorted(self._earlier())[: -self._backups]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, name))

    def _earlier(self) -> Iterator[tuple[str, int, str]]:
        for name in os.listdir(self._folder or os.curdir):
            if found := self._older.fullmatch(name):
                yield found[1], int(found[2] or 1), name


class TwoFiles(LogFile):
    """Two log files used in turn: when one is full the other is erased, and the log goes on there.

    The one that is in use is the one that was written to last. That holds whatever becomes of the clock, since each
    write leaves the other one with an earlier time of change.
    """

    def __init__(
        self,
        paths: tuple[str, str],
        *,
        max_size: int,
        file_mode: int = FILE_MODE,
        folder_mode: int = FOLDER_MODE,
    ) -> None:
        super().__init__(used_last(paths), file_mode=file_mode, folder_mode=folder_mode)
        self.name = paths[0]
        self._paths = paths
        self._max_size = max_size

    def open(self) -> None:
        """Open the file that is in use. Raises OSError."""
        if self._descriptor is None:
            self._path = used_last(self._paths)
            super().open()

    def write(self, lines: Sequence[str]) -> None:
        """Append lines, and go over to the other file where the next one would make this too large. Raises OSError."""
        self._make_folder()
        with self._folder_lock():
            if used_last(self._paths) != self._path:
                self.close()
            self._fill(lines, self._max_size, self._go_over)
            self._be_the_newer()

    def _go_over(self) -> int:
        self.close()
        other = self._other()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(other)
        self._path = other
        LogFile.open(self)
        self._be_the_newer()
        return 0

    def _other(self) -> str:
        return self._paths[1] if self._path == self._paths[0] else self._paths[0]

    def _be_the_newer(self) -> None:
        """Set the other file's time of change back where it is not before that of the file in use."""
        assert self._descriptor is not None  # noqa: S101 - for the type checker; callers opened it
        own = os.fstat(self._descriptor).st_mtime_ns
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._other()).st_mtime_ns >= own:
                earlier = own - _COARSEST_CLOCK_NANOSECONDS
                os.utime(self._other(), ns=(earlier, earlier))


_COARSEST_CLOCK_NANOSECONDS = 2_000_000_000
"""The coarsest times of change that a file system keeps: two seconds, on FAT."""


def used_last(paths: tuple[str, str]) -> str:
    """Return which of two files was written to last: the first where there is neither."""
    first, second = (_time_of_change(path) for path in paths)
    return paths[1] if second > first else paths[0]


def _time_of_change(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _bytes_of(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _day_of(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).date().isoformat()


def _mount_point_of(folder: str) -> str:
    """Return the folder at which the file system of another one is mounted."""
    place = os.path.realpath(folder)
    while not os.path.ismount(place):
        place = os.path.dirname(place)
    return place


def _make_folders(folder: str, mode: int) -> None:
    if os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    if above and above != folder:
        _make_folders(above, mode)
    _make_one_folder(folder, mode)


def _make_one_folder(folder: str, mode: int) -> None:
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
        return  # another process made it
    got = os.stat(folder).st_mode & 0o7777
    if got & 0o777 != mode:
        os.chmod(folder, mode | got & ~0o777)  # a group that is handed down stays so
