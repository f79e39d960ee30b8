"""Catalogs that older versions really made come up under this one; nobody's schema is changed under another process."""

import functools
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.database import engine, migrations, sole_use
from stowkeeper.database.engine import Database
from stowkeeper.database.errors import DatabaseForeign, DatabaseInUse
from stowkeeper.database.limits import APPLICATION_ID, HOLDERS_NAMED_MAX
from support.catalog_rows import open_database
from support.older_databases import make_database_of

Rows = dict[str, list[dict[str, Any]]]


def open_(path: Path) -> Database:
    return Database.open(str(path), lock_path=f"{path}.lock")


def make_as_dumped(revision: str, path: Path) -> None:
    """Make a database of what an older version left, not of what the migrations say today that it left."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / f"schema_{revision}.sql").read_text())
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def rows_of(path: Path) -> Rows:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('alembic_version', 'archive')"
            )
        ]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}


def definitions(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: re.sub(r"[\s\"]+", "", sql) for name, sql in rows}


def revision_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["0002", "0006"])
def test_what_an_older_version_made_has_all_its_rows_and_the_schema_of_today(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "old.sqlite"
    make_as_dumped(revision, path)
    before = rows_of(path)
    assert [len(before[name]) for name in ("instances", "receipts", "requests")] == [2, 3, 3]
    open_(path).close()
    after = rows_of(path)
    for name, rows in before.items():
        known = [{column: row[column] for column in was} for was, row in zip(rows, after[name], strict=True)]
        assert known == rows, name
    open_database(tmp_path, "new.sqlite").close()
    assert definitions(path) == definitions(tmp_path / "new.sqlite")


# Schemas of before the first release


@pytest.mark.slow
def test_an_index_that_an_early_version_did_not_make_is_made(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    make_database_of("0001", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX versions_damaged")
    open_(path).close()
    open_database(tmp_path, "new.sqlite").close()
    assert definitions(path) == definitions(tmp_path / "new.sqlite")


@pytest.mark.slow
def test_a_schema_that_is_not_what_its_number_says_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    make_database_of("0003", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE jobs RENAME COLUMN faults TO other")
    with pytest.raises(
        DatabaseForeign, match=r"has no jobs\.faults.*stowkeeper rebuild.*nothing was changed"
    ):
        open_(path)
    assert revision_of(path) == "0003"
    assert list(tmp_path.glob("*.before-*")) == []


# Beside others


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nobody."""
    look = functools.partial(sole_use.see_that_nobody_else_has_it, seconds=0)
    monkeypatch.setattr(engine, "see_that_nobody_else_has_it", look)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.sqlite"
    make_as_dumped("0006", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return path


@pytest.fixture
def older_server(old: Path) -> Iterator[sqlite3.Connection]:
    """What a server of an older version has: a connection that does nothing now."""
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM instances").fetchall()
        yield connection


@pytest.mark.usefixtures("hasty")
def test_no_schema_is_changed_while_others_have_the_database(
    old: Path, older_server: sqlite3.Connection
) -> None:
    with pytest.raises(DatabaseInUse, match=r"another process has it open.*nothing was changed"):
        open_(old)
    assert revision_of(old) == "0006"
    assert list(old.parent.glob("*.before-*")) == []
    older_server.execute("DELETE FROM peers")  # it goes on, and so does whoever comes after it
    older_server.close()
    with open_(old) as database:
        assert database.migrated_from == "0006"
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_who_just_looks_is_waited_for(
    old: Path, older_server: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            older_server.close()

    monkeypatch.setattr(sole_use.time, "sleep", wait)
    with open_(old) as database:
        assert database.migrated_from == "0006"
    assert waits == [sole_use.ALONE_POLL_SECONDS] * 2


@pytest.mark.usefixtures("hasty")
def test_who_has_the_schema_of_this_version_needs_nobody_to_leave(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with open_(path), open_(path) as second:
        assert second.migrated_from is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([4711], "process 4711 has it open, "),
        ([4711, 4712], "processes 4711, 4712 have it open, "),
        (list(range(1, HOLDERS_NAMED_MAX + 4)), "processes 1, 2, 3, 4, 5, 6, 7, 8 and 3 more have it open, "),
    ],
)
@pytest.mark.usefixtures("hasty", "older_server")
def test_the_refusal_names_the_processes(
    old: Path, found: list[int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole_use, "processes_with", lambda _path: found)
    with pytest.raises(DatabaseInUse, match=words + ".*stop every server and command on this archive"):
        open_(old)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not tell who has files open")
@pytest.mark.usefixtures("hasty")
def test_another_process_is_named_by_its_id(old: Path) -> None:
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
        " connection.execute('SELECT count(*) FROM instances').fetchall(); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(old)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(
            DatabaseInUse, match=f"from schema 0006 to {migrations.HEAD}, .*process {other.pid} has"
        ):
            open_(old)
        other.communicate()
    open_(old).close()
