"""Migrations: what they make is what the schema says, whole or not at all."""

import re
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import stowkeeper
from stowkeeper.database import engine, migrations
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import metadata
from support.catalog_rows import open_database


def definitions(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
    )
    found = {name: re.sub(r"[\s\"]+", "", sql) for name, sql in rows}
    connection.close()
    return found


def test_a_migrated_database_is_what_the_schema_says(tmp_path: Path) -> None:
    open_database(tmp_path, "migrated.sqlite").close()
    fresh = create_engine(f"sqlite:///{tmp_path}/fresh.sqlite", poolclass=NullPool)
    metadata.create_all(fresh)
    assert definitions(tmp_path / "migrated.sqlite") == definitions(tmp_path / "fresh.sqlite")


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


def make_database_of(revision: str, path: Path) -> None:
    """Make a database as an older version left it: of this schema revision, by that version's migrations."""
    with pytest.MonkeyPatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _revision: upgrade(config, revision))
        Database.open(str(path), lock_path=f"{path}.lock").close()


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
