"""What the database room says when it cannot do its part. It is never the peer's doing."""

import sqlite3

import sqlalchemy.exc


class DatabaseError(Exception):
    """The database cannot be used; the text says what happened, to which file, and what to do."""


class DatabaseUnavailable(DatabaseError):  # noqa: N818 - names a state that can pass, like a busy line
    """The database cannot be used now. Nothing of the transaction was written; it can be tried again."""


class DatabaseDamaged(DatabaseUnavailable):
    """The bytes of the database are not what SQLite wrote. It does not touch the files of the archive."""


class DatabaseForbidden(DatabaseUnavailable):
    """We may not write the database, or the folder it is in."""


class DatabaseReadOnly(DatabaseUnavailable):
    """The file system that the database is on cannot be written."""


class DatabaseGone(DatabaseUnavailable):
    """The file that is open has lost its name: what is written to it would go with the process."""


class DatabaseInUse(DatabaseUnavailable):
    """Others have the database open, and what is to be done with it wants nobody else."""


class DatabaseForeign(DatabaseError):  # noqa: N818 - says what the file is, like NotADirectory
    """The file is not a database of this program, or its schema is newer than this program knows."""


# SQLite's primary result codes (the low byte of an extended code).
_PERMISSION, _BUSY, _LOCKED, _NO_MEMORY, _READ_ONLY = 3, 5, 6, 7, 8
_IO_ERROR, _CORRUPT, _FULL, _CANNOT_OPEN, _PROTOCOL, _NOT_A_DATABASE = 10, 11, 13, 14, 15, 26

_LOCKED_WORDS = "another program holds it locked: end that program's transaction (a shell, a backup tool), it goes on then"
_WORDS = {
    _PERMISSION: "access is denied: check who owns it and its folder",
    _BUSY: _LOCKED_WORDS,
    _LOCKED: _LOCKED_WORDS,
    _NO_MEMORY: "memory ran out: give the process more, or the machine fewer of them",
    _READ_ONLY: "it cannot be written: check the owner and mode of the file, of its -wal and -shm files and of"
    " its folder, and whether the file system is mounted read-only",
    _IO_ERROR: "the disk or file system reports an error: see the system's log, then check the disk",
    _FULL: "the disk is full: free space or move the archive to a larger disk, it goes on by itself then",
    _CANNOT_OPEN: "it cannot be opened: check that its folder is there and that we may write in it",
    _PROTOCOL: "its locks do not work: the file system must give working file locks (network file systems"
    " often do not)",
}


def translate(error: BaseException, path: str) -> DatabaseError | None:
    """Turn a failure of the driver into words; None for a defect of the program, like a wrong statement."""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return DatabaseUnavailable(
            f"{path}: every reading connection is in use: try again, or with fewer readers"
        )
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        return None
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    name = getattr(cause, "sqlite_errorname", "")
    if code == _NOT_A_DATABASE:
        return DatabaseForeign(
            f"{path} is not a SQLite database: move it away, with its -wal and -shm files if it has any, and run"
            " `stowkeeper rebuild`, or give the right archive"
        )
    if code == _CORRUPT:
        return DatabaseDamaged(
            f"{path} is damaged ({name}): restore it from a backup, or move it away with its -wal and -shm files and"
            " run `stowkeeper rebuild`, which restores it from the files of the archive"
        )
    words = _WORDS.get(code)
    return None if words is None else DatabaseUnavailable(f"{path}: {words} ({name})")
