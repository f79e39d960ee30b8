"""Backups: a whole copy of the database, made while others write, with a durable name that appears when all is behind it.

SQLite copies the pages of one snapshot, the write-ahead log's among them; nobody waits for it, but the log cannot start
anew meanwhile. The copy is written under a name of its own, read again, synced and then linked: no name is ever replaced,
and what was cut off is no backup. It is one file without a log beside it.

To restore one, move the database away with its `-wal` and `-shm` files, which would be brought into whatever has that name,
and put the copy in its place.
"""

import errno
import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from stowkeeper.database import migrations
from stowkeeper.database.errors import DatabaseDamaged, DatabaseError, translate
from stowkeeper.database.limits import APPLICATION_ID, BACKUP_PAGES, DATABASE_MODE

if TYPE_CHECKING:  # which makes one before it migrates
    from stowkeeper.database.engine import Database

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


class BackupRefusedError(DatabaseError):
    """The copy cannot be made where it was asked for; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A copy that was made: its absolute path, its bytes, and the revision of its schema (None of an empty database)."""

    path: str
    size: int
    revision: str | None


def back_up(
    database: "Database",
    target: str,
    *,
    mode: int = DATABASE_MODE,
    progress: Callable[[int, int], None] | None = None,
) -> Backup:
    """Copy a database to a file that does not exist yet; durable, its name too, when this returns.

    `progress` is told the pages that are left and those there are in all; it may raise. Raises BackupRefusedError where
    the target is in use or cannot be written, DatabaseDamaged where what was read is not whole, and DatabaseUnavailable.
    """
    path = os.path.abspath(target)
    if os.path.lexists(path):
        raise BackupRefusedError(f"{path} exists, and a backup replaces nothing: name another place")
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.new"
    try:
        revision = _copy(database, temporary, mode, progress)
        _check(temporary, database.path)
        size = os.path.getsize(temporary)
        _synchronize(temporary)
        _give_name(temporary, path)
        _synchronize(os.path.dirname(path))
    except OSError as error:
        raise BackupRefusedError(
            f"{error.filename or path}: the backup cannot be written ({error.strerror}): see that its folder is there, that we"
            " may write in it, and that there is room"
        ) from error
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(temporary + ending)
    return Backup(path=path, size=size, revision=revision)


def _copy(
    database: "Database", temporary: str, mode: int, progress: Callable[[int, int], None] | None
) -> str | None:
    """Copy one snapshot to a new file, and return the revision of its schema."""
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode))
    os.chmod(temporary, mode)

    def told(_status: int, left: int, total: int) -> None:
        if progress is not None:
            progress(left, total)

    with database.read() as connection, closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
        # The first look begins the snapshot, of which all pages are: a copy page by page would begin again at each write.
        revision = migrations.current_revision(connection)
        source = connection.connection.driver_connection
        try:
            # Nobody sees the file until it is whole and synced by us.
            copy.execute("PRAGMA journal_mode = OFF").close()
            copy.execute("PRAGMA synchronous = OFF").close()
            source.backup(copy, pages=BACKUP_PAGES, progress=told)  # type: ignore[union-attr]  # it is open: we just read
        except sqlite3.Error as error:
            raise _translated(error, source=database.path, target=temporary) from error
    return revision


def _translated(error: sqlite3.Error, *, source: str, target: str) -> Exception:
    """Return an error in words, about the file that it is about: what is not whole was read, the rest was to be written."""
    about_source = getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
    translated = translate(error, source if about_source else target)
    if translated is None or about_source:
        return translated or error
    return BackupRefusedError(f"the backup cannot be written: {translated}")


def _check(temporary: str, source: str) -> None:
    """Read the copy again. Raises DatabaseDamaged where it is not whole."""
    uri = f"file:{quote(temporary)}?immutable=1"
    words = ""
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as copy:
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            (application_id,) = copy.execute("PRAGMA application_id").fetchone()
            if found != "ok":
                words = str(found)
            elif application_id not in (APPLICATION_ID, 0):
                words = "it is of another program"
    except sqlite3.Error as error:
        words = str(error)
    if words:
        raise DatabaseDamaged(
            f"the copy of {source} is not whole ({words}): check disk and memory, and the database by `stowkeeper verify`;"
            " what was copied was removed again"
        )


def _give_name(temporary: str, path: str) -> None:
    """Let a file have its name, which is never taken from another."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise BackupRefusedError(
            f"{path} exists by now, and a backup replaces nothing: name another place"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LINKS or os.path.lexists(path):
            raise
        os.rename(temporary, path)  # a file system without links, as on a removable disk


def _synchronize(path: str) -> None:
    """Make the bytes of a file, or the names in a folder, durable."""
    if os.name == "nt" and os.path.isdir(path):  # pragma: no cover - it cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
