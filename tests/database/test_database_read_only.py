"""Reading a database that we may not write: beside a server, after one, and after one that was killed."""

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from stowkeeper.database.engine import Database
from stowkeeper.database.errors import DatabaseForbidden, DatabaseForeign, DatabaseUnavailable
from stowkeeper.database.read_only import ReadOnlyDatabase
from stowkeeper.database.schema import patients
from support.catalog_rows import open_database

NOBODY = 65534
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as another user"
)


def add_patient(database: Database, patient_id: str) -> None:
    with database.write() as transaction:
        transaction.execute(
            insert(patients).values(
                patient_id=patient_id,
                issuer_of_patient_id="",
                study_instance_uid="",
                described_at="",
                described_by="",
            )
        )


def read_all(path: Path) -> list[str]:
    database = ReadOnlyDatabase.open_to_read(str(path))
    try:
        return patient_ids(database)
    finally:
        database.close()


def patient_ids(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(connection.execute(select(patients.c.patient_id)).scalars())


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that anybody may look into, and only its owner write."""
    with tempfile.TemporaryDirectory(prefix="read-only-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class Nobody:
    """This process as a user who may read and not write."""

    def __enter__(self) -> None:
        os.seteuid(NOBODY)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)


@needs_root
@pytest.mark.parametrize("shut", [".", "catalog.sqlite"])
def test_who_may_not_read_is_told_so(place: Path, shut: str) -> None:
    with open_database(place):
        pass
    (place / shut).chmod(0o700 if shut == "." else 0o600)
    words = f"{place / 'catalog.sqlite'} cannot be read by this user: run this as the user who owns"
    with Nobody(), pytest.raises(DatabaseForbidden, match=re.escape(words)):
        ReadOnlyDatabase.open_to_read(str(place / "catalog.sqlite"))


@needs_root
def test_it_is_read_beside_who_writes_it_and_after_that_one_ended(place: Path) -> None:
    path = place / "catalog.sqlite"
    with open_database(place) as database:
        add_patient(database, "1")
        with Nobody():
            assert read_all(path) == ["1"]
    assert sorted(os.listdir(place)) == ["catalog.sqlite", "catalog.sqlite.lock", "catalog.sqlite.lock.turn"]
    with Nobody():
        assert read_all(path) == ["1"]


@needs_root
def test_the_log_of_one_that_was_killed_is_read_too(place: Path) -> None:
    killed = place / "killed"
    killed.mkdir()
    with open_database(place) as database:
        add_patient(database, "1")
        for ending in ("", "-wal", "-shm"):
            shutil.copy(place / f"catalog.sqlite{ending}", killed)
    with Nobody():
        assert read_all(killed / "catalog.sqlite") == ["1"]


def test_it_is_never_written(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    path = tmp_path / "catalog.sqlite"
    before = path.read_bytes()
    database = ReadOnlyDatabase.open_to_read(str(path))
    with pytest.raises(DatabaseForbidden, match="as the user who owns"):
        database.write()
    with database.read() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(text("DELETE FROM patients"))
    database.close()
    database.close()
    with pytest.raises(RuntimeError, match="was closed"), database.read():
        pass
    assert path.read_bytes() == before


def test_what_changed_while_it_was_read_is_not_believed(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    reader = ReadOnlyDatabase.open_to_read(str(tmp_path / "catalog.sqlite"))

    def read_beside_a_writer() -> None:
        with reader.read(), open_database(tmp_path) as database:
            add_patient(database, "1")

    with pytest.raises(DatabaseUnavailable, match="changed while it was read: try again"):
        read_beside_a_writer()
    assert patient_ids(reader) == ["1"]
    reader.close()


def test_what_is_no_catalog_of_this_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE things (name)")
    connection.close()
    with pytest.raises(DatabaseForeign, match="of another program"):
        ReadOnlyDatabase.open_to_read(str(path))
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        ReadOnlyDatabase.open_to_read(str(tmp_path / "missing"))
    for revision, kind, words in (
        ("0042", DatabaseForeign, "or later"),
        ("", DatabaseForbidden, "run .*stowkeeper ls"),
    ):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        with open_database(tmp_path) as database, database.write() as transaction:
            transaction.execute(text("DELETE FROM alembic_version"))
            if revision:
                transaction.execute(
                    text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision}
                )
        with pytest.raises(kind, match=words):
            ReadOnlyDatabase.open_to_read(str(tmp_path / "catalog.sqlite"))
