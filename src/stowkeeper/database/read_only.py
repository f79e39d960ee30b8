"""The database for whoever may read its files and not write them, or has them on a disk that is mounted read-only.

SQLite reads a database in WAL mode beside its log, also where it may write neither the log nor its index; and without
them, where nobody has the database open, only when it is told that the file does not change (`immutable`). It looks for
no change then, so we do: a file that did change under a reader is no snapshot, and what was read is not used.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self
from urllib.parse import quote

from sqlalchemy import Connection
from sqlalchemy.pool import NullPool

from stowkeeper.database import migrations
from stowkeeper.database.engine import Database, utc_now
from stowkeeper.database.errors import DatabaseForbidden, DatabaseUnavailable
from stowkeeper.database.limits import APPLICATION_ID, BUSY_SECONDS, READER_CACHE_BYTES


class ReadOnlyDatabase(Database):
    """A database that is only read, without the writer lock. Make one by `open_to_read`."""

    read_only = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.put_aside = []
        self.migrated_from = None
        self.backup = None
        self._clock = utc_now
        self._process = os.getpid()
        self._closed = False
        # A connection for each block: whether there is a log beside the file is looked at each time.
        self._reader_engine = self._make_engine(self._connect_reader, "BEGIN", NullPool)

    @classmethod
    def open_to_read(cls, path: str) -> Self:
        """Open the database at `path`, which exists and has the schema of this program.

        Raises DatabaseForeign, DatabaseForbidden and DatabaseUnavailable.
        """
        database = cls(path)
        database._check_may_read()
        with database.read() as connection:
            if connection.exec_driver_sql("PRAGMA application_id").scalar() != APPLICATION_ID:
                raise database._foreign()
            revision = migrations.current_revision(connection)
            if revision != migrations.HEAD:
                if revision is not None and not migrations.is_known(revision):
                    raise database._too_new(connection, revision)
                raise DatabaseForbidden(
                    f"{path} has to be brought to the schema of this version, and we may not write it: run"
                    " `stowkeeper ls` once as the user who owns the archive"
                )
        return database

    def write(self) -> NoReturn:
        """Refuse to write. Raises DatabaseForbidden."""
        raise DatabaseForbidden(
            f"{self.path} is open for reading only: run this as the user who owns the archive"
        )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin to read, as `Database.read` does. Raises DatabaseUnavailable, also at the end of the block."""
        self._check_open()
        before = self._state()
        with self._words(), self._reader_engine.connect() as connection, connection.begin():
            yield connection
        if not before[0] and self._state()[1] != before[1]:
            raise DatabaseUnavailable(f"{self.path} was changed while it was read: try again")

    def close(self) -> None:
        """Close the database. Twice is fine."""
        self._closed = True
        self._reader_engine.dispose()

    def _check_may_read(self) -> None:
        """Raise DatabaseForbidden where the rights are missing: SQLite's own words do not tell."""
        by_effective_user = os.access in os.supports_effective_ids
        try:
            os.stat(self.path)
            may_read = os.access(self.path, os.R_OK, effective_ids=by_effective_user)
        except PermissionError:
            may_read = False
        except OSError:  # told by whoever opens it
            return
        if not may_read:
            raise DatabaseForbidden(
                f"{self.path} cannot be read by this user: run this as the user who owns the archive, or have that user's group"
            )

    def _state(self) -> tuple[bool, Any]:
        """Return whether there is a log, and what changes with the file."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise DatabaseUnavailable(f"{self.path} cannot be opened: {error.strerror}") from error
        return os.path.exists(f"{self.path}-wal"), (found.st_ino, found.st_size, found.st_mtime_ns)

    def _connect_reader(self) -> sqlite3.Connection:
        how = "mode=ro" if os.path.exists(f"{self.path}-wal") else "immutable=1"
        connection = sqlite3.connect(
            f"file:{quote(os.path.abspath(self.path))}?{how}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for pragma in (
                "query_only = ON",
                f"cache_size = -{READER_CACHE_BYTES >> 10}",
                "trusted_schema = OFF",
            ):
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection
