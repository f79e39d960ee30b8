"""Migrations: what they make is what the schema says, whole or not at all."""

import os
import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import stowkeeper
from stowkeeper.database import engine, migrations
from stowkeeper.database.backup import BackupRefusedError
from stowkeeper.database.engine import Database
from stowkeeper.database.errors import DatabaseForeign, DatabaseUnavailable
from stowkeeper.database.migration_plan import plan_migration
from stowkeeper.database.schema import metadata
from support.catalog_rows import open_database
from support.older_databases import make_database_of


def definitions(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    found = {name: re.sub(r"[\s\"]+", "", sql) for name, sql in rows}
    connection.close()
    return found


@pytest.mark.slow
def test_a_new_database_is_what_all_migrations_together_make(tmp_path: Path) -> None:
    open_database(tmp_path, "new.sqlite").close()
    make_database_of(migrations.HEAD, tmp_path / "migrated.sqlite")
    assert definitions(tmp_path / "new.sqlite") == definitions(tmp_path / "migrated.sqlite")
    for path in tmp_path.glob("*.sqlite"):
        with open_database(tmp_path, path.name) as database, database.read() as connection:
            assert migrations.current_revision(connection) == migrations.HEAD


@pytest.mark.slow
def test_alembic_finds_no_difference(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_head_is_the_newest_revision() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [migrations.HEAD]
    assert migrations.is_known(migrations.HEAD)
    assert not migrations.is_known("0042")


def test_every_column_that_is_not_plain_is_explained() -> None:
    plain = {
        "calling_ae_title",
        "called_ae_title",
        "peer_address",
        "association_id",
        "opened_at",
        "held_since",
    }
    unexplained = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if not column.comment and not column.name.endswith("_key") and column.name not in plain
    ]
    assert unexplained == []


def test_the_archive_row_says_who_made_it_and_who_changed_it_last(tmp_path: Path) -> None:
    with open_database(tmp_path) as database, database.read() as connection:
        row = connection.execute(text("SELECT * FROM archive")).mappings().one()
    assert row["created_by"] == row["migrated_by"] == stowkeeper.__version__
    assert row["archive_id"] is None


@pytest.mark.slow
def test_an_older_database_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    make_database_of("0001", path)
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO associations (association_id, receiver, opened_at, calling_ae_title, called_ae_title,"
        " peer_address, implementation_class_uid, implementation_version_name, contexts_accepted, contexts_refused,"
        " messages, bytes_received, ended, words) VALUES ('a1', '', '2026', 'A', 'B', '', '', '', 1, 0, 0, 0, '', '')"
    )
    connection.commit()
    connection.close()
    with open_database(tmp_path, "old.sqlite") as database, database.read() as reading:
        assert migrations.current_revision(reading) == migrations.HEAD
        row = reading.execute(text("SELECT * FROM associations")).mappings().one()
    assert (row["association_id"], row["user_identity_type"], row["user_identity_name"]) == ("a1", None, None)
    open_database(tmp_path, "new.sqlite").close()
    assert definitions(path) == definitions(tmp_path / "new.sqlite")


@pytest.mark.slow
def test_credentials_of_before_may_store_where_their_role_could(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    make_database_of("0003", path)
    before = [
        (3, "watch", "token", "read", "hash of watch", "2026-01-01", "ann"),
        (5, "run", "password", "operate", "hash of run", "2026-01-02", "ben"),
        (8, "root", "token", "admin", "hash of root", "2026-01-03", "cem"),
    ]
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO credentials (credential_key, name, kind, role, secret_hash, created_at, created_by)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        before,
    )
    connection.commit()
    connection.close()
    with open_database(tmp_path, "old.sqlite") as database, database.read() as reading:
        rows = reading.execute(text("SELECT * FROM credentials ORDER BY credential_key")).mappings().all()
    assert [row["may_store"] for row in rows] == [0, 1, 1]
    columns = ("credential_key", "name", "kind", "role", "secret_hash", "created_at", "created_by")
    assert [tuple(row[column] for column in columns) for row in rows] == before
    open_database(tmp_path, "new.sqlite").close()
    assert definitions(path) == definitions(tmp_path / "new.sqlite")


@pytest.mark.slow
def test_echoes_of_before_are_known_still(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    make_database_of("0004", path)
    connection = sqlite3.connect(path)
    connection.executemany(
        "INSERT INTO audit (at, who, action, subject, detail) VALUES (?, 'ann', ?, ?, ?)",
        [
            ("2026-01-01", "peer echo failed", "ct", "it was off"),
            ("2026-01-02", "peer echo answered", "ct", ""),
            ("2026-01-04", "peer echo answered", "ct", ""),
            ("2026-01-03", "peer echo failed", "mr", "refused"),
            ("2026-01-05", "peer echo failed", "mr", "it was away"),
            ("2026-01-06", "peer removed", "us", ""),
        ],
    )
    connection.commit()
    connection.close()
    with open_database(tmp_path, "old.sqlite") as database, database.read() as reading:
        rows = reading.execute(text("SELECT * FROM peer_echoes ORDER BY peer")).all()
        assert reading.execute(text("SELECT count(*) FROM audit")).scalar() == 6
    assert [tuple(row) for row in rows] == [
        ("ct", "2026-01-04", "2026-01-01", "it was off"),
        ("mr", None, "2026-01-05", "it was away"),
    ]
    open_database(tmp_path, "new.sqlite").close()
    assert definitions(path) == definitions(tmp_path / "new.sqlite")


def test_a_migration_cut_short_leaves_nothing_and_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "new.sqlite")
    with monkeypatch.context() as patched:
        patched.setattr(engine, "APPLICATION_ID", "not a number; it")  # fails after the schema was made
        with pytest.raises(Exception, match="syntax error"):
            Database.open(path, lock_path=path + ".lock")
    assert definitions(tmp_path / "new.sqlite") == {}
    with Database.open(path, lock_path=path + ".lock") as database, database.read() as connection:
        assert migrations.current_revision(connection) == migrations.HEAD


# The copy that is made before, and the dry run.


def open_(path: Path) -> Database:
    return Database.open(str(path), lock_path=f"{path}.lock")


def revision_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    return str(revision)


def add_association(path: Path, name: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO associations (association_id, receiver, opened_at, calling_ae_title, called_ae_title,"
        " peer_address, implementation_class_uid, implementation_version_name, contexts_accepted, contexts_refused,"
        " messages, bytes_received, ended, words) VALUES (?, '', '2026', 'A', 'B', '', '', '', 1, 0, 0, 0, '', '')",
        (name,),
    )
    connection.commit()
    connection.close()


def associations_of(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute("SELECT association_id FROM associations ORDER BY 1")]
    finally:
        connection.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of the first schema with one row."""
    path = tmp_path / "old.sqlite"
    make_database_of("0001", path)
    add_association(path, "a1")
    return path


@pytest.mark.slow
def test_before_a_schema_is_changed_the_database_is_copied_beside_itself(old: Path) -> None:
    copy = old.with_name(f"old.sqlite.before-{migrations.HEAD}")
    with open_(old) as database:
        assert database.migrated_from == "0001"
        assert database.backup is not None
        assert database.backup.path == str(copy)
    assert (revision_of(copy), associations_of(copy)) == ("0001", ["a1"])
    assert (revision_of(old), associations_of(old)) == (migrations.HEAD, ["a1"])
    assert copy.stat().st_mode & 0o777 == 0o600
    with open_(old) as database:
        assert (database.migrated_from, database.backup) == (None, None)
    assert sorted(path.name for path in old.parent.glob("old.sqlite.before*")) == [copy.name]


def test_a_new_database_is_copied_nowhere(tmp_path: Path) -> None:
    with open_(tmp_path / "new.sqlite") as database:
        assert database.backup is None
    assert list(tmp_path.glob("*.before*")) == []


@pytest.mark.slow
def test_the_copy_put_back_in_place_is_the_database_of_before(old: Path) -> None:
    with open_(old) as database:
        assert database.backup is not None
        copy = Path(database.backup.path)
    add_association(old, "a2")
    for path in old.parent.glob("old.sqlite*"):
        if path != copy and ".lock" not in path.name:
            path.unlink()
    copy.rename(old)
    assert (revision_of(old), associations_of(old)) == ("0001", ["a1"])
    with open_(old) as database, database.read() as connection:
        assert migrations.current_revision(connection) == migrations.HEAD


@pytest.mark.slow
def test_an_earlier_copy_is_not_replaced(old: Path) -> None:
    earlier = old.with_name(f"old.sqlite.before-{migrations.HEAD}")
    earlier.write_bytes(b"precious")
    with open_(old) as database:
        assert database.backup is not None
        assert database.backup.path == f"{earlier}.2"
    assert earlier.read_bytes() == b"precious"


@pytest.mark.slow
def test_a_migration_that_fails_in_its_middle_changes_nothing_and_leaves_no_copy(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOffError(Exception):
        pass

    def change_and_fail(connection: Connection) -> None:
        connection.execute(text("DROP TABLE associations"))
        raise CutOffError

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "upgrade", change_and_fail)
            with pytest.raises(CutOffError):
                open_(old)
    assert (revision_of(old), associations_of(old)) == ("0001", ["a1"])
    assert list(old.parent.glob("*.before*")) == []


def test_where_no_copy_can_be_made_nothing_is_changed(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", fail)
        with pytest.raises(BackupRefusedError, match="No space left on device"):
            open_(old)
    assert revision_of(old) == "0001"
    assert [path.name for path in old.parent.iterdir() if "before" in path.name] == []


@pytest.mark.slow
def test_a_dry_run_tells_the_steps_the_copy_and_the_room_and_does_nothing(old: Path) -> None:
    before = old.read_bytes()
    with Database.open_as_it_is(str(old), lock_path=f"{old}.lock") as database:
        plan = plan_migration(database)
    assert (plan.revision, plan.head, plan.is_newer) == ("0001", migrations.HEAD, False)
    assert [step.revision for step in plan.steps] == ["0002", "0003", "0004", "0005", "0006", "0007", "0008"]
    assert plan.steps[-1].revision == migrations.HEAD
    assert plan.steps[0].words == "The ledger tells on whose behalf a peer called."
    assert plan.backup == f"{old}.before-{migrations.HEAD}"
    assert (plan.size, plan.free > 0) == (len(before), True)
    assert old.read_bytes() == before
    with open_(old) as database:
        assert database.backup is not None
        assert database.backup.path == plan.backup


def test_nothing_is_due_where_the_schema_is_ours(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    path = tmp_path / "catalog.sqlite"
    with Database.open_as_it_is(str(path), lock_path=f"{path}.lock") as database:
        plan = plan_migration(database)
    assert (plan.steps, plan.backup, plan.revision) == ((), None, migrations.HEAD)


def test_a_schema_of_a_later_version_is_told_as_that(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    path = tmp_path / "catalog.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '0042'")
    connection.commit()
    connection.close()
    with Database.open_as_it_is(str(path), lock_path=f"{path}.lock") as database:
        plan = plan_migration(database)
    assert (plan.is_newer, plan.steps, plan.backup) == (True, (), None)


def test_what_is_opened_as_it_is_makes_nothing_and_takes_no_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    with pytest.raises(DatabaseUnavailable, match="not there"):
        Database.open_as_it_is(str(path), lock_path=f"{path}.lock")
    assert not path.exists()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(DatabaseForeign, match="another program"):
        Database.open_as_it_is(str(path), lock_path=f"{path}.lock")
