"""`backup` copies the catalog beside a server, and what was copied can be put back; `migrate` says what it does."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive import audit, catalog
from stowkeeper.archive.holding import commitment_hold_reason, reasons_of
from stowkeeper.database import migrations
from stowkeeper.durable.server_lock import ServerLock
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep, run, serving, write_part10
from support.instances import make_instance
from support.older_databases import make_database_of

STUDY = "1.2.10"
PROMISE = commitment_hold_reason("2.25.7", "CT")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(archive, make_instance(1), make_instance(2), make_instance(2, content=1))
    return archive


@pytest.fixture
def stow(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(Path(shutil.copytree(template, tmp_path / "archive")), capsys)


def promise(stow: CommandLine) -> None:
    """Hold the older one of two versions, and leave a line in the audit trail: what no file can tell."""
    with open_database(stow.archive) as database, database.write() as transaction:
        catalog.hold(transaction, [2], PROMISE)
        audit.note(transaction, "anna", "job cancelled", "2.25.7")


def check_promise(stow: CommandLine) -> None:
    with open_database(stow.archive) as database, database.read() as connection:
        assert reasons_of(connection, [2]) == {2: (PROMISE,)}
        assert [entry.who for entry in audit.list_audit(connection)] == ["anna"]


def lose_catalog(stow: CommandLine) -> None:
    for path in stow.archive.glob("catalog.sqlite*"):
        path.unlink()


def uids(stow: CommandLine) -> set[str]:
    return {row["sop_instance_uid"] for row in stow.list("instances")}


def test_the_copy_is_a_file_and_the_line_says_where(stow: CommandLine, tmp_path: Path) -> None:
    ended = stow("backup", tmp_path / "copy.sqlite")
    assert ended.code == ExitCode.OK
    assert ended.out.startswith(f"{tmp_path}/copy.sqlite: ")
    ended = stow("backup", tmp_path / "again.sqlite", "--json")
    (line,) = ended.lines
    assert (line["path"], line["schema"]) == (f"{tmp_path}/again.sqlite", migrations.HEAD)
    assert line["bytes"] == (tmp_path / "again.sqlite").stat().st_size
    assert (tmp_path / "again.sqlite").stat().st_mode & 0o777 == 0o600


def test_in_a_folder_the_copy_gets_a_name_with_the_time(stow: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    ended = stow("backup", tmp_path / "backups", "--json")
    (made,) = (tmp_path / "backups").iterdir()
    assert ended.lines[0]["path"] == str(made)
    assert made.name.startswith("catalog-20")
    assert made.suffix == ".sqlite"


def test_nothing_is_replaced(stow: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "copy.sqlite").write_bytes(b"precious")
    ended = stow("backup", tmp_path / "copy.sqlite")
    assert ended.code == ExitCode.IO_ERROR
    assert "replaces nothing: name another place" in ended.err
    assert (tmp_path / "copy.sqlite").read_bytes() == b"precious"


def test_where_there_is_no_archive_the_words_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = CommandLine(tmp_path, capsys)("backup", tmp_path / "copy.sqlite")
    assert (ended.code, list(tmp_path.iterdir())) == (ExitCode.NO_INPUT, [])
    assert "--archive" in ended.err
    assert CommandLine(tmp_path, capsys)("migrate", "--dry-run").code == ExitCode.NO_INPUT


@pytest.mark.slow
def test_what_was_copied_can_be_put_back_and_a_rebuild_brings_what_came_after(
    stow: CommandLine, tmp_path: Path
) -> None:
    promise(stow)
    assert stow("backup", tmp_path / "copy.sqlite").code == ExitCode.OK
    keep(stow.archive, make_instance(3), make_instance(1, content=5))
    lose_catalog(stow)
    shutil.copy(tmp_path / "copy.sqlite", stow.archive / "catalog.sqlite")
    ended = stow("rebuild", "--json")
    assert (ended.code, ended.summary["listed"]) == (ExitCode.OK, 2)
    assert uids(stow) == {"1.2.3.1", "1.2.3.2", "1.2.3.3"}
    check_promise(stow)
    assert [
        row["current"]
        for row in stow.list("instances", "--conflicts")
        if row["sop_instance_uid"] == "1.2.3.2"
    ] == [
        True,
        False,
    ]
    assert stow("verify").code == ExitCode.OK


def test_without_a_backup_a_rebuild_knows_no_promises(stow: CommandLine) -> None:
    """Why one makes backups; and that the test above would see it."""
    promise(stow)
    lose_catalog(stow)
    assert stow("rebuild").code == ExitCode.OK
    with pytest.raises(AssertionError):
        check_promise(stow)


@pytest.mark.slow
def test_beside_a_server_that_receives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "archive"
    for number in range(60):
        write_part10(tmp_path / f"in{number // 20}/{number:02}.dcm", make_instance(number, study=STUDY))
    stow = CommandLine(archive, capsys)
    with serving(archive, tmp_path / "server.log") as (server, port):

        def send(folder: str, expected: int) -> None:
            assert run(["send", f"STOWKEEPER@127.0.0.1:{port}", str(tmp_path / folder)]) == ExitCode.OK
            server.wait_until(lambda: len(uids(stow)) == expected, "before all was listed")

        send("in0", 20)
        promise(stow)
        assert stow("backup", tmp_path / "copy.sqlite").code == ExitCode.OK
        send("in1", 40)
        assert stow("rm", "--reason", "a test", "1.2.3.25").code == ExitCode.OK
    connection = sqlite3.connect(tmp_path / "copy.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM receipts").fetchone() == (20,)
    connection.close()
    lose_catalog(stow)
    os.rename(tmp_path / "copy.sqlite", archive / "catalog.sqlite")
    assert stow("rebuild").code == ExitCode.OK
    with serving(archive, tmp_path / "server-again.log") as (server, port):
        assert run(["send", f"STOWKEEPER@127.0.0.1:{port}", str(tmp_path / "in2")]) == ExitCode.OK
        server.wait_until(lambda: len(uids(stow)) == 59, "before all was listed")
    check_promise(stow)
    assert stow("verify").code == ExitCode.OK


# Migration.


@pytest.fixture
def old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """An archive whose catalog an older version made."""
    archive = tmp_path / "archive"
    (archive / "objects").mkdir(parents=True)
    make_database_of("0002", archive / "catalog.sqlite")
    return CommandLine(archive, capsys)


def revision_of(path: Path) -> str:
    connection = sqlite3.connect(path)
    (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    return str(revision)


@pytest.mark.slow
def test_a_dry_run_of_a_migration_says_all_and_does_nothing(old: CommandLine) -> None:
    before = (old.archive / "catalog.sqlite").read_bytes()
    ended = old("migrate", "--dry-run")
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert f"would be brought from schema 0002 to {migrations.HEAD}:" in ended.out
    assert "  0003  Jobs, storage commitment, peers and credentials" in ended.out
    assert "  0004  Permission to store by HTTP for each credential" in ended.out
    assert "  0005  What the last echo of each peer came to" in ended.out
    assert f"It would be copied first to {old.archive}/catalog.sqlite.before-{migrations.HEAD}" in ended.out
    (line,) = old("migrate", "--dry-run", "--json").lines
    assert [step["schema"] for step in line["steps"]] == ["0003", "0004", "0005", "0006", "0007", "0008"]
    assert (line["schema"], line["dry_run"], line["bytes"]) == ("0002", True, len(before))
    assert (old.archive / "catalog.sqlite").read_bytes() == before
    assert list(old.archive.glob("*.before*")) == []


@pytest.mark.slow
def test_a_migration_changes_the_schema_after_a_copy_and_a_second_has_nothing_to_do(old: CommandLine) -> None:
    ended = old("migrate", "--json")
    (line,) = ended.lines
    copy = old.archive / f"catalog.sqlite.before-{migrations.HEAD}"
    assert (ended.code, line["backup"], line["dry_run"]) == (ExitCode.OK, str(copy), False)
    assert revision_of(copy) == "0002"
    assert revision_of(old.archive / "catalog.sqlite") == migrations.HEAD
    again = old("migrate")
    assert (again.code, again.out) == (
        ExitCode.OK,
        f"{old.archive}/catalog.sqlite has the schema of this version, {migrations.HEAD}: nothing is to be done.\n",
    )


@pytest.mark.slow
def test_any_command_that_opens_an_older_catalog_copies_it_first_and_says_where(old: CommandLine) -> None:
    ended = old("ls", "studies")
    copy = old.archive / f"catalog.sqlite.before-{migrations.HEAD}"
    assert ended.code == ExitCode.OK
    assert f"backup={copy}" in ended.err
    assert revision_of(copy) == "0002"


def test_a_backup_of_an_older_catalog_changes_nothing(old: CommandLine, tmp_path: Path) -> None:
    assert old("backup", tmp_path / "copy.sqlite").code == ExitCode.OK
    assert revision_of(tmp_path / "copy.sqlite") == revision_of(old.archive / "catalog.sqlite") == "0002"


def test_no_schema_is_changed_under_a_server(old: CommandLine) -> None:
    lock = ServerLock(str(old.archive / "server.lock"), shared=True)
    try:
        ended = old("migrate")
        assert ended.code == ExitCode.TRY_AGAIN
        assert "is in use: stop its server, and migrate then" in ended.err
        assert "shared" not in ended.err
        assert old("migrate", "--dry-run").code == ExitCode.OK
    finally:
        lock.release()
    assert revision_of(old.archive / "catalog.sqlite") == "0002"


def test_a_catalog_of_a_later_version_is_left_to_that(old: CommandLine) -> None:
    connection = sqlite3.connect(old.archive / "catalog.sqlite")
    connection.execute("UPDATE alembic_version SET version_num = '0042'")
    connection.commit()
    connection.close()
    for arguments in ((), ("--dry-run",)):
        ended = old("migrate", *arguments)
        assert ended.code == ExitCode.NO_INPUT
        assert "has schema 0042" in ended.err
