"""The engine: one writing connection and a few reading ones on one SQLite file in WAL mode.

What it promises, each pinned by a test:

- A transaction that ended is durable: `synchronous=FULL` syncs the log at each commit.
- Every write transaction, and the checkpoints that commits make, happen under the writer lock
  (`writer_lock.py`). So does closing, since SQLite checkpoints when the last connection closes.
- Readers see one snapshot, never wait for writers, and cannot write.
- Several processes and threads may use one file. A forked child must open its own `Database`.

Nothing but SQLite opens the file: a descriptor closed beside SQLite's own would drop its POSIX locks.
"""

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, count
from typing import Any, Self

import sqlalchemy.exc
from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Executable,
    Table,
    create_engine,
    event,
    insert,
    text,
)
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.pool import NullPool, QueuePool
from sqlalchemy.sql import ClauseElement

from stowkeeper import __version__
from stowkeeper.database import migrations
from stowkeeper.database.backup import Backup, back_up
from stowkeeper.database.errors import (
    DatabaseDamaged,
    DatabaseError,
    DatabaseForeign,
    DatabaseGone,
    DatabaseInUse,
    DatabaseUnavailable,
    translate,
)
from stowkeeper.database.left_over_log import put_log_aside
from stowkeeper.database.limits import (
    APPLICATION_ID,
    BUSY_SECONDS,
    CHECKPOINT_PAGES,
    DATABASE_MODE,
    LOG_SIZE_KEPT,
    PAGE_SIZE,
    READER_CACHE_BYTES,
    READER_SECONDS,
    READERS_KEPT,
    READERS_MAX,
    SQLITE_VERSION_MIN,
    WRITER_CACHE_BYTES,
)
from stowkeeper.database.sole_use import see_that_nobody_else_has_it
from stowkeeper.database.writer_lock import WriterLock

__all__ = [
    "Database",
    "DatabaseDamaged",
    "DatabaseError",
    "DatabaseForeign",
    "DatabaseGone",
    "DatabaseInUse",
    "DatabaseUnavailable",
    "Transaction",
    "compile_insert",
    "compile_statement",
]

_ROWS_AT_ONCE = (32, 16, 8, 4, 2)
"""How many rows one INSERT takes. A version has 25 values and more; SQLite binds 32,766. More rows at once made no clear difference."""

_INSERT_OF_ONE_ROW = re.compile(
    r"(?P<head>INSERT INTO [^?]* VALUES )(?P<row>\(\?(?:, \?)*\))(?P<tail>[^?]*)", re.DOTALL
)

_STATEMENTS_REMEMBERED = 256
"""Compiled statements that are remembered for each number of rows, here and by the driver: a few for each table."""


class Transaction:
    """One write transaction. `at` is the time it began; all rows that say when they were written say this."""

    __slots__ = ("_cursor", "at", "connection")

    def __init__(self, connection: Connection, at: str) -> None:
        self.connection = connection
        self.at = at
        driver = connection.connection.driver_connection
        self._cursor: sqlite3.Cursor = driver.cursor()  # type: ignore[union-attr]  # it is open: we just began on it

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:  # noqa: ANN401 - as SQLAlchemy takes them
        """Run an ordinary statement."""
        return self.connection.execute(statement, parameters)

    def executemany(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a compiled statement for each row, in their order: the hot path.

        One statement inserts several rows where there are several. At each step the driver lets go of the interpreter, and to get it
        back from threads that are busy takes longer than to insert a row.
        """
        waiting = list(rows)
        done = 0
        for number in _ROWS_AT_ONCE:
            if number > len(waiting) - done:
                continue
            repeated = _for_rows(statement, number)
            if repeated is None:
                break
            while number <= len(waiting) - done:
                values = tuple(chain.from_iterable(waiting[done : done + number]))
                self._cursor.execute(repeated, values)
                done += number
        self._cursor.executemany(statement, waiting[done:])

    def fetch_one(self, statement: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """Run a compiled query that finds one row at most. 2 µs, where an ordinary statement takes 100."""
        row: tuple[Any, ...] | None = self._cursor.execute(statement, parameters).fetchone()
        return row


def compile_statement(statement: ClauseElement, parameters: Sequence[str]) -> str:
    """Compile a statement once for the driver; its bind parameters have to stand in the order named.

    Raises ValueError where they don't: the rows for `Transaction.executemany` are tuples in that order.
    """
    compiled = statement.compile(
        dialect=sqlite_dialect.dialect(paramstyle="qmark"), column_keys=list(parameters)
    )
    order = getattr(compiled, "positiontup", None) or []
    if list(order) != list(parameters):
        msg = f"the parameters stand in the order {order}"
        raise ValueError(msg)
    return str(compiled)


@lru_cache(_STATEMENTS_REMEMBERED)
def _for_rows(statement: str, number: int) -> str | None:
    """Return a compiled INSERT of one row as one of several; None for a statement that is no such INSERT."""
    found = _INSERT_OF_ONE_ROW.fullmatch(statement)
    return None if found is None else f"{found['head']}{', '.join([found['row']] * number)}{found['tail']}"


def compile_insert(table: Table, columns: Sequence[str]) -> str:
    """Compile an INSERT of some columns, named in the order that they have in the table."""
    return compile_statement(insert(table), columns)


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at a path from every other one; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def free_backup_path(path: str) -> str:
    """Return where a database is copied to before its schema is changed to the newest: beside it, under a free name."""
    base = f"{path}.before-{migrations.HEAD}"
    names = (base if number == 1 else f"{base}.{number}" for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def utc_now() -> str:
    """Return the time as UTC in ISO 8601 with microseconds and a Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Database:
    """An open database. Make one by `Database.open`, close it with `close` or a with block.

    `put_aside` names the log of an earlier database that was in the way of a new one. `migrated_from` is the revision of
    the schema that it had when it was opened, and `backup` the copy that was made before that was changed; both are None
    where it was not.
    """

    read_only = False

    def __init__(self, path: str, lock: WriterLock, *, sync: bool, clock: Callable[[], str]) -> None:
        self.path = path
        self.put_aside: list[str] = []
        self.migrated_from: str | None = None
        self.backup: Backup | None = None
        self._file: tuple[int, int] | None = None
        self._lock = lock
        self._sync = sync
        self._clock = clock
        self._process = os.getpid()
        self._closed = False
        self._writer_engine = self._make_engine(self._connect_writer, "BEGIN IMMEDIATE", NullPool)
        self._reader_engine = self._make_engine(
            self._connect_reader,
            "BEGIN",
            QueuePool,
            pool_size=READERS_KEPT,
            max_overflow=READERS_MAX - READERS_KEPT,
            pool_timeout=READER_SECONDS,
        )
        self._writer: Connection | None = None
        self._close_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str,
        *,
        lock_path: str,
        sync: bool = True,
        mode: int = DATABASE_MODE,
        clock: Callable[[], str] = utc_now,
    ) -> Self:
        """Open the database at `path`, make it when there is none, and bring its schema up to date.

        Before a schema that is there is changed, the database is copied beside itself. It is not changed while another process
        has the database open.

        `lock_path` is the writer lock's file, the same for every process. `mode` is the mode of files that are made,
        whatever the umask says; SQLite gives its -wal and -shm files that of the database. With `sync` false commits are not
        synced: a power cut can lose the last ones, or with bad luck the database. The caller has made sure
        that the file system is a local one. Raises DatabaseForeign, DatabaseInUse, DatabaseUnavailable and BackupRefusedError.
        """
        if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
            needed = ".".join(map(str, SQLITE_VERSION_MIN))
            msg = f"SQLite here is {sqlite3.sqlite_version}, {needed} or later is needed: use a newer Python"
            raise DatabaseUnavailable(msg)
        lock = WriterLock(lock_path, mode=mode)
        database = cls(path, lock, sync=sync, clock=clock)
        try:
            with lock.held(), database._words():
                database._make_file(mode)
                database._file = _identity(path)
                database._prepare(mode)
                database._file = _identity(path)
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open_as_it_is(cls, path: str, *, lock_path: str) -> Self:
        """Open the database at `path` and leave its schema alone, older than ours or newer: to copy it, or to look what is due.

        Raises DatabaseForeign and DatabaseUnavailable.
        """
        if not os.path.exists(path):
            raise DatabaseUnavailable(f"{path} is not there")
        database = cls(path, WriterLock(lock_path), sync=True, clock=utc_now)
        try:
            database._file = _identity(path)
            with database._lock.held(), database._words():
                database._refuse_foreign(database._open_writer())
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Begin a write transaction; it is durable when the block ends, rolled back when the block raises.

        Waits for other writers, of this and of other processes. Raises DatabaseUnavailable, and then nothing
        was written. After a failed commit whose sync failed a crash may still bring it back: write so that a
        second time changes nothing.
        """
        self._check_open()
        with self._lock.held(), self._words():
            self.check_in_place()
            connection = self._open_writer()
            try:
                with connection.begin():
                    yield Transaction(connection, self._clock())
            except (sqlalchemy.exc.DBAPIError, sqlite3.Error):
                # After a failed sync or a full disk the connection's own view is not worth keeping.
                self._close_writer()
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin to read: one snapshot of the database for the length of the block.

        Keep it short: while a snapshot is in use the write-ahead log cannot start anew. Raises
        DatabaseUnavailable.
        """
        self._check_open()
        self.check_in_place()
        with self._words(), self._reader_engine.connect() as connection, connection.begin():
            yield connection

    def check_in_place(self) -> None:
        """See that the path still leads to the file that is open; a new connection would make another one there.

        For who does not read or write now: `read` and `write` look too. Raises DatabaseGone.
        """
        if _identity(self.path) == self._file:
            return
        raise DatabaseGone(
            f"{self.path} was removed or replaced while it was open: put the very same file back (`mv`, no copy); if it is"
            " gone, stop all servers and commands on this archive and run `stowkeeper rebuild`, which makes it anew from"
            " the files"
        )

    def close(self) -> None:
        """Close all connections. No block of `write` or `read` may be open. Twice is fine."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        try:
            # The last connection to close checkpoints the log, and that is a write.
            with self._lock.held():
                self._dispose()
        except DatabaseUnavailable:
            # Others are writing and stay connected, so ours is not the last.
            self._dispose()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Connections.

    def _make_engine(
        self, connect: Callable[[], sqlite3.Connection], begin: str, pool: type, **pool_options: float
    ) -> Engine:
        engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=pool, **pool_options)

        # The driver begins nothing by itself (isolation_level None): we say which transaction we mean.
        @event.listens_for(engine, "begin")
        def begin_transaction(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _connect(self, cache_bytes: int, *more: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS_REMEMBERED,
        )
        try:
            for pragma in (
                # Before anything else, since it counts only as long as the file is empty.
                f"page_size = {PAGE_SIZE}",
                f"synchronous = {'FULL' if self._sync else 'OFF'}",
                "fullfsync = ON",  # macOS: an fsync that reaches the medium
                "checkpoint_fullfsync = ON",
                "foreign_keys = ON",
                f"cache_size = -{cache_bytes >> 10}",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                f"journal_size_limit = {LOG_SIZE_KEPT}",
                "trusted_schema = OFF",
                *more,
            ):
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:  # it is no database, or cannot be read
            connection.close()
            raise
        return connection

    def _connect_writer(self) -> sqlite3.Connection:
        return self._connect(WRITER_CACHE_BYTES)

    def _connect_reader(self) -> sqlite3.Connection:
        return self._connect(READER_CACHE_BYTES, "query_only = ON")

    def _open_writer(self) -> Connection:
        if self._writer is None:
            self._writer = self._writer_engine.connect()
        return self._writer

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except (sqlalchemy.exc.DBAPIError, sqlite3.Error):
                writer.invalidate()

    def _dispose(self) -> None:
        self._reader_engine.dispose()
        self._close_writer()
        self._writer_engine.dispose()

    def _check_open(self) -> None:
        if self._closed:
            msg = f"{self.path} was closed"
            raise RuntimeError(msg)
        if self._process != os.getpid():
            msg = f"{self.path} was opened by the process that forked this one: open it anew here"
            raise RuntimeError(msg)

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Turn what the driver raises into our errors, with words; leave defects of the program alone."""
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
            translated = translate(error, self.path)
            if translated is None:
                raise
            raise translated from error

    # Opening.

    def _make_file(self, mode: int) -> None:
        """Make the empty file of a new database, and let it not get the log of one that was removed.

        Called under the writer lock, before SQLite has the file open.
        """
        if os.path.exists(self.path):
            return
        try:
            self.put_aside = put_log_aside(self.path)
        except OSError as error:
            msg = (
                f"{error.filename}: it is the log of a database that is gone, and cannot be renamed ({error.strerror}):"
                " check that we may write in its folder"
            )
            raise DatabaseUnavailable(msg) from error
        with suppress(OSError):  # SQLite says it with its own words
            descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode
            )
            try:
                os.chmod(self.path, mode)
            finally:
                os.close(descriptor)

    def _prepare(self, mode: int) -> None:
        """Make or migrate the schema where that is due. Called under the writer lock."""
        connection = self._open_writer()
        driver = connection.connection.driver_connection
        # Outside of a transaction, where alone the journal mode can be changed; it is kept in the file.
        self._refuse_foreign(connection)
        journal = driver.execute("PRAGMA journal_mode = WAL").fetchone()[0]  # type: ignore[union-attr]  # it is open
        if journal != "wal":
            msg = (
                f"{self.path} cannot have a write-ahead log ({journal}): its file system lacks shared memory"
            )
            raise DatabaseUnavailable(msg)
        with connection.begin():
            revision = migrations.current_revision(connection)
            if revision == migrations.HEAD:
                return
            if revision is not None and not migrations.is_known(revision):
                raise self._too_new(connection, revision)
            if revision is None:
                migrations.create(connection)
                self._note_version(connection)
                return
        see_that_nobody_else_has_it(
            driver,  # type: ignore[arg-type]  # it is open
            self.path,
            purpose=f"has to be brought from schema {revision} to {migrations.HEAD}",
        )
        # Nobody else writes until the writer lock is free, so what is copied is what is changed then.
        backup = back_up(self, free_backup_path(self.path), mode=mode)
        try:
            with connection.begin():
                self._migrate(connection)
        except BaseException:
            # Nothing was changed, and a start that is tried again and again must not fill the disk with copies.
            with suppress(OSError):
                os.unlink(backup.path)
            raise
        self.migrated_from, self.backup = revision, backup

    def _refuse_foreign(self, connection: Connection) -> None:
        with connection.begin():
            application_id = connection.exec_driver_sql("PRAGMA application_id").scalar()
            tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        if application_id != APPLICATION_ID and (application_id or tables):
            raise self._foreign()

    def _foreign(self) -> DatabaseForeign:
        return DatabaseForeign(
            f"{self.path} is a SQLite database of another program: move it away, with its -wal and -shm files if it has"
            " any, and run `stowkeeper rebuild`, or give the right archive"
        )

    def _too_new(self, connection: Connection, revision: str) -> DatabaseForeign:
        version = connection.execute(text("SELECT migrated_by FROM archive")).scalar()
        return DatabaseForeign(
            f"{self.path} was brought to schema {revision} by Stowkeeper {version}; this is {__version__} and knows"
            f" schemas up to {migrations.HEAD}: use Stowkeeper {version} or later, or restore the backup made before"
        )

    def _migrate(self, connection: Connection) -> None:
        migrations.upgrade(connection)
        missing = migrations.complete(connection)
        if missing:
            raise DatabaseForeign(
                f"{self.path} was made by a version before the first release, whose schema was another (it has no {missing[0]}):"
                " move it away, with its -wal and -shm files if it has any, and run `stowkeeper rebuild`, which makes it anew"
                " from the files of the archive; nothing was changed"
            )
        self._note_version(connection)

    def _note_version(self, connection: Connection) -> None:
        # In the same transaction as the schema: no crash leaves a file that is half ours.
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        now = self._clock()
        connection.execute(
            text(
                "INSERT INTO archive (archive_key, created_at, created_by, migrated_at, migrated_by)"
                " VALUES (1, :at, :by, :at, :by)"
                " ON CONFLICT (archive_key) DO UPDATE SET migrated_at = :at, migrated_by = :by"
            ),
            {"at": now, "by": __version__},
        )
