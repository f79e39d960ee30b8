"""The engine: durable transactions, snapshots, and errors that say what to do."""

import errno
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, insert, select, text
from sqlalchemy.exc import IntegrityError

import stowkeeper
from stowkeeper.database import engine, limits, migrations
from stowkeeper.database.engine import (
    Database,
    DatabaseDamaged,
    DatabaseForeign,
    DatabaseGone,
    DatabaseUnavailable,
    Transaction,
    compile_insert,
    compile_statement,
)
from stowkeeper.database.errors import translate
from stowkeeper.database.schema import holds, patients
from stowkeeper.database.writer_lock import WriterLock
from support.catalog_rows import open_database
from support.small_filesystem import small_filesystem

LONG_TEXT = "x" * 3000


def add_patient(transaction: Transaction, patient_id: str, comments: str = "") -> None:
    transaction.execute(
        insert(patients).values(
            patient_id=patient_id,
            issuer_of_patient_id="",
            study_instance_uid="",
            patient_comments=comments,
            described_at="",
            described_by="",
        )
    )


def add_patients(database: Database, names: Iterable[str], *, fail: bool = False) -> None:
    with database.write() as transaction:
        for name in names:
            add_patient(transaction, name, LONG_TEXT)
        _ = 1 / (0 if fail else 1)


def fill(database: Database) -> None:
    for number in itertools.count():
        add_patients(database, [f"{number:06d}"])


def patient_ids(database: Database) -> list[str]:
    with database.read() as connection:
        return list(
            connection.execute(select(patients.c.patient_id).order_by(patients.c.patient_id)).scalars()
        )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path) as opened:
        yield opened


def test_pragmas_are_what_the_promise_needs(database: Database) -> None:
    def read_back(connection: Connection) -> dict[str, object]:
        names = (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "page_size",
            "wal_autocheckpoint",
            "query_only",
        )
        values = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
        values["cache"] = connection.exec_driver_sql("PRAGMA cache_size").scalar()
        values["busy"] = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
        values["log"] = connection.exec_driver_sql("PRAGMA journal_size_limit").scalar()
        return values

    full = 2
    expected = {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "page_size": limits.PAGE_SIZE,
        "wal_autocheckpoint": limits.CHECKPOINT_PAGES,
        "busy": int(limits.BUSY_SECONDS * 1000),
        "log": limits.LOG_SIZE_KEPT,
    }
    with database.write() as transaction:
        assert read_back(transaction.connection) == {
            **expected,
            "query_only": 0,
            "cache": -limits.WRITER_CACHE_BYTES // 1024,
        }
    with database.read() as connection:
        assert read_back(connection) == {
            **expected,
            "query_only": 1,
            "cache": -limits.READER_CACHE_BYTES // 1024,
        }


def test_without_sync_the_log_is_not_synced(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with (
        Database.open(str(path), lock_path=f"{path}.lock", sync=False) as database,
        database.write() as transaction,
    ):
        assert transaction.connection.exec_driver_sql("PRAGMA synchronous").scalar() == 0


def test_a_block_that_ends_is_kept_and_one_that_raises_is_not(database: Database) -> None:
    with database.write() as transaction:
        add_patient(transaction, "kept")
    with pytest.raises(ZeroDivisionError):
        add_patients(database, ["lost"], fail=True)
    with database.write() as transaction:
        add_patient(transaction, "later")
    assert patient_ids(database) == ["kept", "later"]


def test_a_defect_of_the_program_is_not_called_a_failing_disk(database: Database) -> None:
    with database.write() as transaction:
        add_patient(transaction, "1")
    with pytest.raises(IntegrityError), database.write() as transaction:
        add_patient(transaction, "1")
    with pytest.raises(sqlite3.IntegrityError), database.write() as transaction:
        transaction.executemany(
            compile_insert(holds, ("version_key", "reason", "held_since")), [(7, "no such version", "")]
        )
    assert patient_ids(database) == ["1"]


def test_all_rows_of_a_transaction_can_say_when_it_began(tmp_path: Path) -> None:
    times = iter(["migrated", "first", "second"])
    path = str(tmp_path / "catalog.sqlite")
    with Database.open(path, lock_path=path + ".lock", clock=lambda: next(times)) as database:
        for expected in ("first", "second"):
            with database.write() as transaction:
                assert transaction.at == expected


def test_a_reader_sees_one_moment_and_waits_for_no_writer(database: Database) -> None:
    with database.read() as connection:
        count = select(patients.c.patient_key)
        assert connection.execute(count).all() == []
        with database.write() as transaction:
            add_patient(transaction, "1")
            with database.read() as other:
                assert other.execute(count).all() == []
        assert connection.execute(count).all() == []
    assert patient_ids(database) == ["1"]


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be written"), database.read() as connection:
        connection.execute(text("DELETE FROM patients"))


def test_readers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "READER_SECONDS", 0.01)
    with open_database(tmp_path) as database, ExitStack() as open_readers:
        for _ in range(limits.READERS_MAX):
            open_readers.enter_context(database.read())
        with pytest.raises(DatabaseUnavailable, match="every reading connection"), database.read():
            pass


def test_a_transaction_inside_another_is_refused_instead_of_waiting_for_ever(database: Database) -> None:
    with database.write(), pytest.raises(RuntimeError, match="inside a write transaction"), database.write():
        pass
    with database.write() as transaction:
        add_patient(transaction, "1")


@pytest.mark.slow
def test_threads_write_in_turns(database: Database) -> None:
    def write(name: int) -> None:
        for number in range(20):
            with database.write() as transaction:
                add_patient(transaction, f"{name} {number:02d}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(patient_ids(database)) == 80


def test_a_forked_child_must_open_its_own(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="open it anew"), database.write():
        pass
    with pytest.raises(RuntimeError, match="open it anew"), database.read():
        pass


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    database.close()
    database.close()
    with pytest.raises(RuntimeError, match="was closed"), database.write():
        pass


def test_closing_checkpoints_and_that_is_under_the_writer_lock(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with database.write() as transaction:
        add_patient(transaction, "1")
    other = WriterLock(f"{tmp_path}/catalog.sqlite.lock")
    closing = threading.Thread(target=database.close)
    with other.held():
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        assert (tmp_path / "catalog.sqlite-wal").stat().st_size > 0
    closing.join()
    other.close()
    assert not (tmp_path / "catalog.sqlite-wal").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_taken_away_is_noticed_and_no_other_is_made(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "catalog.sqlite"
    with open_database(tmp_path) as database:
        add_patients(database, ["1"])
        path.rename(tmp_path / "away")
        if replaced:
            path.write_bytes(b"")
        before = sorted(tmp_path.iterdir())
        for use in (database.read, database.write):
            with (
                pytest.raises(DatabaseGone, match=r"put the very same file back.*stowkeeper rebuild"),
                use(),
            ):
                pytest.fail("what is written there is lost")
        with pytest.raises(DatabaseGone):
            database.check_in_place()
        assert sorted(tmp_path.iterdir()) == before
        (tmp_path / "away").rename(path)
        database.check_in_place()
        add_patients(database, ["2"])
        assert patient_ids(database) == ["1", "2"]


@pytest.mark.parametrize("name", ["a b.sqlite", "50%.sqlite", "what?mode=ro#.sqlite", "Bücher'.sqlite"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Database.open(str(path), lock_path=str(tmp_path / "lock")).close()
    assert path.exists()


def test_a_new_database_does_not_get_the_log_of_one_that_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    for number in (1, 2):
        left_over = {ending: f"{number}{ending}".encode() for ending in ("-wal", "-shm", "-journal")}
        for ending, content in left_over.items():
            Path(f"{path}{ending}").write_bytes(content)
        with Database.open(str(path), lock_path=f"{path}.lock") as database:
            assert database.put_aside == [f"{path}.old{number}{ending}" for ending in left_over]
        with Database.open(str(path), lock_path=f"{path}.lock") as database:
            assert database.put_aside == []
        for ending, content in left_over.items():
            assert Path(f"{path}.old{number}{ending}").read_bytes() == content
        path.unlink()


def test_a_log_that_cannot_be_put_aside_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.sqlite"
    Path(f"{path}-wal").write_bytes(b"")

    def refuse(source: str, _target: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", source)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(DatabaseUnavailable, match=r"catalog\.sqlite-wal: it is the log .* we may write"):
        Database.open(str(path), lock_path=f"{path}.lock")
    assert not path.exists()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE things (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseForeign, match=r"of another program.*stowkeeper rebuild"):
        Database.open(str(path), lock_path=f"{path}.lock")
    assert path.read_bytes() == before


def open_files() -> list[str]:
    return [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing that SQLite wrote\n" * 1000)
    with pytest.raises(DatabaseForeign, match="not a SQLite database") as refused:
        Database.open(str(path), lock_path=f"{path}.lock")
    # Closed at once, and not when the error that refers to it is forgotten.
    assert refused.value.__traceback__ is not None
    assert not [link for link in open_files() if link.startswith(str(tmp_path))]


def test_a_newer_schema_is_refused_with_the_version_to_use(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, database.write() as transaction:
        transaction.execute(text("UPDATE alembic_version SET version_num = '0042'"))
        transaction.execute(text("UPDATE archive SET migrated_by = '7.1'"))
    with pytest.raises(DatabaseForeign) as refused:
        open_database(tmp_path)
    for part in ("0042", "Stowkeeper 7.1", stowkeeper.__version__, migrations.HEAD):
        assert part in str(refused.value)


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 33, 0))
    with pytest.raises(DatabaseUnavailable, match=r"3\.34\.0 or later is needed"):
        open_database(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"missing/lock.*check that we may write"):
        Database.open(str(tmp_path / "catalog.sqlite"), lock_path=str(tmp_path / "missing" / "lock"))
    with pytest.raises(DatabaseUnavailable, match=r"missing/catalog.*cannot be opened"):
        Database.open(str(tmp_path / "missing" / "catalog.sqlite"), lock_path=str(tmp_path / "lock"))


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(database: Database) -> None:
    with database.write() as transaction:
        add_patient(transaction, "before")
        pages = transaction.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        transaction.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DatabaseUnavailable, match="disk is full: free space"):
        add_patients(database, [f"too much {number}" for number in range(10)])
    assert patient_ids(database) == ["before"]
    # After a failure the connection is a new one, here without the limit.
    add_patients(database, [f"later {number}" for number in range(10)])
    assert len(patient_ids(database)) == 11


@pytest.mark.slow
def test_a_disk_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    with small_filesystem(tmp_path, size=1 << 20, inodes=20) as folder:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(200 << 10))
        with open_database(folder) as database:
            with pytest.raises(DatabaseUnavailable, match=r"disk is full|reports an error"):
                fill(database)
            kept = patient_ids(database)
            assert kept == [f"{number:06d}" for number in range(len(kept))]
            ballast.unlink()
            with database.write() as transaction:
                add_patient(transaction, "later")
            assert patient_ids(database) == [*kept, "later"]


def test_a_database_that_another_program_locks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.01)
    with open_database(tmp_path) as database:
        shell = sqlite3.connect(database.path, isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="another program holds it locked"), database.write():
            pass
        shell.execute("ROLLBACK")
        shell.close()
        with database.write() as transaction:
            add_patient(transaction, "1")


def test_damage_names_the_cure(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, database.write() as transaction:
        for number in range(200):
            add_patient(transaction, str(number), LONG_TEXT)
    path = tmp_path / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    data[2 * limits.PAGE_SIZE :] = b"\xff" * (len(data) - 2 * limits.PAGE_SIZE)
    path.write_bytes(data)
    with pytest.raises(DatabaseDamaged, match="stowkeeper rebuild"), open_database(tmp_path) as database:
        patient_ids(database)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "disk is full"),
        (sqlite3.SQLITE_IOERR_FSYNC, "disk or file system reports an error"),
        (sqlite3.SQLITE_BUSY, "another program holds it locked"),
        (sqlite3.SQLITE_READONLY, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_PERM, "access is denied"),
        (sqlite3.SQLITE_NOMEM, "memory ran out"),
        (sqlite3.SQLITE_PROTOCOL, "its locks do not work"),
        (sqlite3.SQLITE_CORRUPT, "is damaged"),
        (sqlite3.SQLITE_NOTADB, "not a SQLite database"),
    ],
)
def test_each_failure_has_its_words(code: int, words: str) -> None:
    error = sqlite3.OperationalError("text of the driver")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "NAME"
    translated = translate(error, "/archive/catalog.sqlite")
    assert translated is not None
    assert words in str(translated)
    assert "/archive/catalog.sqlite" in str(translated)


@pytest.mark.parametrize("error", [sqlite3.ProgrammingError("closed"), ValueError("no")])
def test_a_defect_has_no_words(error: Exception) -> None:
    assert translate(error, "path") is None


def test_rows_in_the_wrong_order_are_refused_when_the_statement_is_compiled() -> None:
    assert compile_insert(holds, ("version_key", "reason")).startswith(
        "INSERT INTO holds (version_key, reason)"
    )
    with pytest.raises(ValueError, match="stand in the order"):
        compile_insert(holds, ("reason", "version_key"))
    query = select(holds).where(
        holds.c.reason == bindparam("reason"), holds.c.version_key == bindparam("key")
    )
    with pytest.raises(ValueError, match="stand in the order"):
        compile_statement(query, ("key", "reason"))


# Several processes.

WRITER = """
import sys
from sqlalchemy import text
from stowkeeper.database.engine import Database

path, rounds, ending = sys.argv[1], int(sys.argv[2]), sys.argv[3]
database = Database.open(path, lock_path=path + ".lock")
for _ in range(rounds):
    with database.write() as transaction:
        value = transaction.execute(text("SELECT archive_id FROM archive")).scalar()
        transaction.execute(text("UPDATE archive SET archive_id = :value"), {"value": str(int(value or 0) + 1)})
if ending == "hang":
    with database.write() as transaction:
        transaction.execute(text("UPDATE archive SET archive_id = 'half done'"))
        print("inside", flush=True)
        sys.stdin.read()
database.close()
"""


def start_writer(path: str, rounds: int, ending: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(rounds), ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def counted(database: Database) -> object:
    with database.read() as connection:
        return connection.execute(text("SELECT archive_id FROM archive")).scalar()


@pytest.mark.slow
def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        writers = [start_writer(database.path, 200, "close") for _ in range(2)]
        for _ in range(100):
            with database.write() as transaction:
                value = transaction.execute(text("SELECT archive_id FROM archive")).scalar()
                transaction.execute(
                    text("UPDATE archive SET archive_id = :v"), {"v": str(int(value or 0) + 1)}
                )
        assert [writer.wait() for writer in writers] == [0, 0]
        for writer in writers:
            writer.communicate()
        assert counted(database) == "500"


@pytest.mark.slow
def test_a_writer_killed_in_a_transaction_leaves_neither_rows_nor_lock(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        writer = start_writer(database.path, 5, "hang")
        assert writer.stdout is not None
        assert writer.stdout.readline() == "inside\n"
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert counted(database) == "5"
        with database.write() as transaction:
            add_patient(transaction, "1")
    with open_database(tmp_path) as database:
        assert counted(database) == "5"
        assert patient_ids(database) == ["1"]


@pytest.mark.slow
def test_two_processes_make_one_database(tmp_path: Path) -> None:
    path = str(tmp_path / "new.sqlite")
    writers = [start_writer(path, 20, "close") for _ in range(2)]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    with Database.open(path, lock_path=path + ".lock") as database:
        assert counted(database) == "40"


@pytest.mark.parametrize("number", [0, 1, 2, 3, 31, 32, 33, 70])
def test_rows_go_in_each_once_and_in_their_order_however_many(database: Database, number: int) -> None:
    rows = [(number - row, f"row {row}") for row in range(number)]
    with database.write() as transaction:
        transaction.execute(text("CREATE TEMP TABLE names (place, name)"))
        transaction.executemany("INSERT INTO names (place, name) VALUES (?, ?)", iter(rows))
        found = transaction.execute(text("SELECT place, name FROM names ORDER BY rowid"))
        assert [tuple(row) for row in found] == rows


def test_of_several_rows_for_one_key_the_last_one_counts(database: Database) -> None:
    put_in = (
        "INSERT INTO names (place, name) VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET name = excluded.name"
    )
    with database.write() as transaction:
        transaction.execute(text("CREATE TEMP TABLE names (place PRIMARY KEY, name)"))
        transaction.executemany(put_in, [(row % 3, f"row {row}") for row in range(7)])
        transaction.executemany("UPDATE names SET name = name || ? WHERE place = ?", [(" a", 1), (" b", 1)])
        found = transaction.execute(text("SELECT place, name FROM names ORDER BY place"))
        assert [tuple(row) for row in found] == [(0, "row 6"), (1, "row 4 a b"), (2, "row 5")]
