"""The writer lock: at most one write transaction or checkpoint at a time, over all processes and threads.

SQLite has locks of its own, and in WAL mode they let one connection checkpoint while another writes. From
3.7.0 to 3.51.2 that pair could start the log anew at the wrong moment and lose a committed transaction (the
WAL-reset bug). Whoever writes or checkpoints therefore holds this lock, an `flock` on a file beside the
database: the system gives it back when a process dies, however it dies.

`flock` is not fair: a process that writes in a loop takes the lock again before a waiting one wakes up. So
there is a second file, the turn. Whoever wants the lock takes the turn first and keeps it until it has the
lock; a process that just wrote finds the turn taken and waits behind.
"""

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stowkeeper.database.errors import DatabaseForbidden, DatabaseReadOnly, DatabaseUnavailable
from stowkeeper.database.limits import (
    DATABASE_MODE,
    WRITER_LOCK_POLL_SECONDS_MAX,
    WRITER_LOCK_POLL_SECONDS_MIN,
    WRITER_LOCK_SECONDS,
)

if sys.platform == "win32":  # pragma: no cover - written by the documentation, not tried
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class WriterLock:
    """The lock on `path`, shared by the threads of this process and contended by other processes.

    The turn is the file `path` + ".turn". Both are empty, never removed, and closed on exec. Raises
    DatabaseUnavailable when they cannot be made; `mode` is the mode they get then.
    """

    def __init__(self, path: str, *, seconds: float = WRITER_LOCK_SECONDS, mode: int = DATABASE_MODE) -> None:
        self._path = path
        self._seconds = seconds
        self._threads = threading.Lock()
        self._owner: int | None = None
        self._lock = _open(path, mode)
        try:
            self._turn = _open(f"{path}.turn", mode)
        except DatabaseUnavailable:
            os.close(self._lock)
            raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises DatabaseUnavailable when others kept it longer than the limit.

        Raises RuntimeError when this very thread holds it already: it would wait for itself.
        """
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def close(self) -> None:
        """Close both files. Nobody may hold or wait for the lock then."""
        os.close(self._turn)
        os.close(self._lock)

    def _acquire(self) -> None:
        if self._owner == threading.get_ident():
            msg = "a write transaction inside a write transaction of the same thread"
            raise RuntimeError(msg)
        deadline = time.monotonic() + self._seconds
        if not self._threads.acquire(timeout=self._seconds):
            raise self._too_late("another thread of this process")
        try:
            _wait_for(self._turn, deadline)
            try:
                _wait_for(self._lock, deadline)
            finally:
                _unlock(self._turn)
        except TimeoutError:
            self._threads.release()
            raise self._too_late("another process") from None
        except BaseException:
            self._threads.release()
            raise
        self._owner = threading.get_ident()

    def _release(self) -> None:
        self._owner = None
        try:
            _unlock(self._lock)
        finally:
            self._threads.release()

    def _too_late(self, who: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"{self._path}: {who} has been writing to the database for {self._seconds:g} seconds: see whether it hangs"
            " (`fuser` names the processes), it goes on when that one ends"
        )


def _open(path: str, mode: int) -> int:
    """Open a lock's file, and make it if need be: whoever may open it can hold everybody up, so by its mode not all may."""
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
    try:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            return os.open(path, flags | os.O_CREAT, mode)
        os.chmod(path, mode)  # whatever the umask says
    except PermissionError as error:
        raise DatabaseForbidden(
            f"{path} cannot be made or opened for writing ({error.strerror}): run this as the user who owns the archive;"
            " `stowkeeper ls` and `stowkeeper verify --report-only` need no more than to read"
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise DatabaseReadOnly(
                f"{path} cannot be opened for writing, since its disk is mounted read-only. After an error of the disk"
                " (`sudo dmesg | tail`) have it checked; then mount it to be written. `stowkeeper ls` and"
                " `stowkeeper verify --report-only` need no more than to read"
            ) from error
        msg = f"{path} cannot be made or opened ({error.strerror}): check that we may write in its folder"
        raise DatabaseUnavailable(msg) from error
    return descriptor


def _wait_for(descriptor: int, deadline: float) -> None:
    """Take one lock, looking again and again. Raises TimeoutError."""
    pause = WRITER_LOCK_POLL_SECONDS_MIN
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            raise TimeoutError
        time.sleep(pause)
        pause = min(2 * pause, WRITER_LOCK_POLL_SECONDS_MAX)
