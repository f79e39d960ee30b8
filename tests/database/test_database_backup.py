"""A backup is one moment's copy, whole and durable under its name, or there is none; and nobody waits for it."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from stowkeeper.database import backup as backup_module
from stowkeeper.database import migrations
from stowkeeper.database.backup import BackupRefusedError, back_up
from stowkeeper.database.engine import Database
from stowkeeper.database.errors import DatabaseDamaged
from stowkeeper.database.read_only import ReadOnlyDatabase
from stowkeeper.database.schema import audit, peers
from support.catalog_rows import open_database
from support.older_databases import make_database_of
from support.small_filesystem import small_filesystem

pytestmark = pytest.mark.slow


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "place").mkdir()
    with open_database(tmp_path / "place") as opened:
        add(opened, *range(200))
        yield opened


def add(database: Database, *numbers: int) -> None:
    """Write a row into each of two tables for each number, in one transaction."""
    with database.write() as transaction:
        at = transaction.at
        for number in numbers:
            line = {"at": at, "who": "anna", "action": "a", "subject": f"{number}", "detail": "x" * 500}
            transaction.execute(insert(audit).values(line))
            peer = {"name": f"{number}", "definition": "{}", "changed_at": at, "changed_by": "anna"}
            transaction.execute(insert(peers).values(peer))


def rows_of(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(connection.iterdump())
    finally:
        connection.close()


def counts_of(path: Path) -> tuple[int, int]:
    connection = sqlite3.connect(path)
    try:
        (first,) = connection.execute("SELECT count(*) FROM audit").fetchone()
        (second,) = connection.execute("SELECT count(*) FROM peers").fetchone()
    finally:
        connection.close()
    return first, second


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".new" in path.name)


def test_a_copy_holds_the_same_rows_in_one_file_for_its_owner_alone(
    database: Database, tmp_path: Path
) -> None:
    target = tmp_path / "copy.sqlite"
    made = back_up(database, str(target))
    assert (made.path, made.size, made.revision) == (str(target), target.stat().st_size, migrations.HEAD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.sqlite", "place"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert rows_of(target) == rows_of(Path(database.path))


def test_a_copy_can_be_opened_in_the_place_of_the_database(database: Database, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    back_up(database, str(tmp_path / "other/catalog.sqlite"))
    with open_database(tmp_path / "other") as restored:
        add(restored, 1000)
        with restored.read() as connection:
            assert connection.execute(select(func.count()).select_from(audit)).scalar_one() == 201


def test_others_write_meanwhile_and_the_copy_is_of_one_moment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "BACKUP_PAGES", 3)
    target = tmp_path / "copy.sqlite"
    steps: list[tuple[int, int]] = []

    def write(left: int, total: int) -> None:
        steps.append((left, total))
        add(database, 1000 + len(steps))

    back_up(database, str(target), progress=write)
    assert len(steps) > 5
    assert steps[-1][0] == 0
    assert counts_of(target) == (200, 200), "what came after its beginning is not in it"
    assert counts_of(Path(database.path)) == (200 + len(steps), 200 + len(steps))
    assert rows_of(target)


def test_a_checkpoint_of_another_process_does_not_come_into_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "BACKUP_PAGES", 3)
    target = tmp_path / "copy.sqlite"
    other = sqlite3.connect(database.path, isolation_level=None)

    def write_and_checkpoint(_left: int, _total: int) -> None:
        add(database, 5000 + len(os.listdir(tmp_path)) + other.total_changes)
        other.execute("DELETE FROM audit WHERE subject IN (SELECT subject FROM audit LIMIT 3)")
        other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    back_up(database, str(target), progress=write_and_checkpoint)
    other.close()
    assert counts_of(target) == (200, 200)
    assert rows_of(target)


@pytest.mark.slow
def test_copies_made_while_threads_write_are_each_of_one_moment(database: Database, tmp_path: Path) -> None:
    ending = threading.Event()

    def write(first: int) -> None:
        number = first
        while not ending.is_set():
            add(database, number)
            number += 1

    threads = [threading.Thread(target=write, args=(1000 * number,)) for number in (1, 50)]
    for thread in threads:
        thread.start()
    sizes = []
    for number in range(8):
        target = tmp_path / f"copy{number}.sqlite"
        back_up(database, str(target))
        assert rows_of(target)
        first, second = counts_of(target)
        assert first == second
        sizes.append(first)
    ending.set()
    for thread in threads:
        thread.join()
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0], "nobody wrote meanwhile"


def test_who_may_only_read_can_copy(database: Database, tmp_path: Path) -> None:
    reader = ReadOnlyDatabase(database.path)
    back_up(reader, str(tmp_path / "beside.sqlite"))
    assert counts_of(tmp_path / "beside.sqlite") == (200, 200)
    database.close()
    back_up(reader, str(tmp_path / "after.sqlite"))
    reader.close()
    assert counts_of(tmp_path / "after.sqlite") == (200, 200)


def test_an_older_schema_is_copied_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    make_database_of("0001", path)
    with Database.open_as_it_is(str(path), lock_path=f"{path}.lock") as database:
        made = back_up(database, str(tmp_path / "copy.sqlite"))
    assert made.revision == "0001"


# Nothing is replaced, nothing half done stays.


def test_a_name_in_use_is_refused_before_anything_is_copied(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"
    target.write_bytes(b"precious")
    with pytest.raises(BackupRefusedError, match="replaces nothing"):
        back_up(database, str(target))
    target.unlink()
    target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BackupRefusedError, match="replaces nothing"):
        back_up(database, str(target))
    assert left_over(tmp_path) == []


def test_a_name_that_somebody_takes_meanwhile_stays_theirs(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"

    def take(left: int, _total: int) -> None:
        if left == 0:
            target.write_bytes(b"theirs")

    with pytest.raises(BackupRefusedError, match="by now"):
        back_up(database, str(target), progress=take)
    assert target.read_bytes() == b"theirs"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("place", ["missing/copy.sqlite", "file/copy.sqlite"])
def test_where_it_cannot_be_written_the_words_say_so(database: Database, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupRefusedError, match=r"cannot be written .*see that its folder is there"):
        back_up(database, str(tmp_path / place))


@pytest.mark.slow
def test_on_a_full_disk_nothing_is_left_and_the_words_say_so(database: Database, tmp_path: Path) -> None:
    with small_filesystem(tmp_path, size=128 << 10, inodes=20) as small:
        with pytest.raises(BackupRefusedError, match="full"):
            back_up(database, str(small / "copy.sqlite"))
        assert list(small.iterdir()) == []


def test_who_breaks_it_off_leaves_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "BACKUP_PAGES", 3)

    class StopError(Exception):
        pass

    def stop(_left: int, _total: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        back_up(database, str(tmp_path / "copy.sqlite"), progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    add(database, 1000)  # nobody is left reading or locking


def test_a_database_that_is_damaged_gives_no_backup(database: Database, tmp_path: Path) -> None:
    path = Path(database.path)
    database.close()
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    for page in range(pages - 3, pages):
        content[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(content)
    with (
        Database.open_as_it_is(str(path), lock_path=f"{path}.lock") as damaged,
        pytest.raises(DatabaseDamaged, match="not whole"),
    ):
        back_up(damaged, str(tmp_path / "copy.sqlite"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["place"]


def test_the_bytes_are_synced_before_the_name_and_the_name_before_it_returns(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def note_fsync(descriptor: int) -> None:
        done.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_link(source: str, target: str, **more: Any) -> None:
        done.append(("link", target))
        link(source, target, **more)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    back_up(database, str(tmp_path / "copy.sqlite"))
    (what, file), named, folder = done
    assert (what, file.startswith(f"{tmp_path}/copy.sqlite.")) == ("fsync", True)
    assert [named, folder] == [("link", f"{tmp_path}/copy.sqlite"), ("fsync", str(tmp_path))]


def test_a_disk_without_links_gets_it_by_a_rename(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    back_up(database, str(tmp_path / "copy.sqlite"))
    assert counts_of(tmp_path / "copy.sqlite") == (200, 200)
    assert left_over(tmp_path) == []
