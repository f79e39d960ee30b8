"""A catalog that is lost comes back from the files as it was, and one that is there loses nothing."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import delete, select, update

from stowkeeper.archive import catalog, changes, ledger, listing
from stowkeeper.archive.agreement import Discrepancy, Fault
from stowkeeper.archive.archive import ArchiveReader, ArchiveRefusedError
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.examine import Examination
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.archive.rebuilding import NEW_CATALOG, UNTOLD, RebuildCounts, Rebuilding
from stowkeeper.archive.removal import Removal
from stowkeeper.archive.verification import Verification
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.database.errors import DatabaseForeign
from stowkeeper.durable.filesystem import NoSyncFileSystem
from stowkeeper.durable.server_lock import ArchiveInUseError, ServerLock
from support.archive_rig import ArchiveRig, ArchiveView, check_settled
from support.catalog_rows import open_database
from support.instances import HANGING_PROTOCOL_STORAGE, encode_element, make_instance

pytestmark = pytest.mark.slow

FILES = NoSyncFileSystem()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with versions, conflicts, identical receipts, two studies and an instance outside of them."""
    folder = tmp_path_factory.mktemp("template")
    with open_database(folder, sync=False) as database:
        rig = ArchiveRig(FILES, database, root=str(folder), slots=20)
        for number, content in ((3, 0), (1, 0), (2, 0), (1, 1), (2, 0), (1, 2), (5, 0), (1, 1)):
            rig.keep(make_instance(number, content=content, study=f"1.2.{30 - number}"))
            rig.finish()
        rig.keep(make_instance(7, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE))
        rig.finish()
        rig.folder.release()
    ArchiveReader(str(folder)).close()  # which gives it an identity
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A copy of that archive."""
    return Path(shutil.copytree(template, tmp_path / "archive"))


def dump(root: Path, *, identical: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Return all that `ls` shows, without what no file can tell."""
    archive = ArchiveReader(str(root), files=FILES)
    try:
        database = archive.database
        shown = {
            "studies": list(listing.studies(database)),
            "series": list(listing.series(database)),
            "instances": list(listing.instances(database)),
            "versions": list(listing.instances(database, all_versions=True)),
            "receipts": [
                row for row in listing.receipts(database) if identical or row["outcome"] != "identical"
            ],
        }
    finally:
        archive.close()
    for row in shown["receipts"]:
        del row["answer"]
    return shown


def rebuild(
    root: Path, progress: Callable[[int], None] | None = None
) -> tuple[list[Discrepancy], RebuildCounts]:
    with Rebuilding(str(root), files=FILES, progress=progress) as rebuilding:
        count, size = rebuilding.look()
        found = list(rebuilding.run())
        assert rebuilding.counts.files <= count
        assert rebuilding.counts.size <= size
    return found, rebuilding.counts


def lose_catalog(root: Path) -> None:
    for name in root.glob("catalog.sqlite*"):
        if "lock" not in name.name:
            name.unlink()


def database_of(root: Path) -> Database:
    return open_database(root, sync=False)


def path_of(root: Path, instance: int) -> str:
    with database_of(root) as database, database.read() as connection:
        uids = select(schema.instances.c.current_version_key).where(
            schema.instances.c.sop_instance_uid == f"1.2.3.{instance}"
        )
        query = select(schema.versions.c.path).where(schema.versions.c.version_key.in_(uids))
        return str(connection.execute(query).scalar_one())


# A lost catalog.


def test_a_lost_catalog_comes_back_as_it_was(root: Path) -> None:
    before = dump(root, identical=False)
    assert len(before["versions"]) == 7
    assert {row["outcome"] for row in before["receipts"]} == {"stored", "conflict"}
    assert sum(row["conflict"] for row in before["versions"]) == 3
    tree = {path: path.read_bytes() for path in (root / "objects").rglob("*.dcm")}
    lose_catalog(root)
    found, counts = rebuild(root)
    assert found == []
    assert (counts.listed, counts.known, counts.files) == (7, 0, 7)
    assert counts.size == sum(map(len, tree.values()))
    assert dump(root) == before
    assert {path: path.read_bytes() for path in (root / "objects").rglob("*.dcm")} == tree
    assert not list(root.glob(f"{NEW_CATALOG}*"))


def test_the_catalog_of_any_archive_has_its_identity(root: Path) -> None:
    identity = (root / "archive.id").read_text()
    lose_catalog(root)
    rebuild(root)
    assert (root / "archive.id").read_text() == identity
    lose_catalog(root)
    (root / "archive.id").unlink()
    rebuild(root)
    assert (root / "archive.id").read_text() != identity
    dump(root)


def test_verdicts_come_back(root: Path) -> None:
    with database_of(root) as database:
        rig = ArchiveRig(FILES, database, root=str(root))
        whole = make_instance(8)
        patient = encode_element(0x00100020, b"LO", b"P1")
        misplaced = encode_element(0x00080070, b"LO", b"Maker")
        rig.keep(replace(whole, data=whole.data.replace(patient, patient + misplaced)))
        malformed = whole.data.replace(b"1.2.3.8\0", b"01.2.3.8")
        rig.keep(replace(whole, sop_instance_uid="01.2.3.8", data=malformed))
        rig.finish()
        rig.folder.release()
    before = dump(root, identical=False)
    (remark,), (verdict,) = (row["verdicts"] for row in before["receipts"][-2:])
    assert "not in ascending order" in remark
    assert "SOPInstanceUID is malformed" in verdict
    lose_catalog(root)
    rebuild(root)
    assert dump(root) == before


def test_what_a_dead_process_left_in_the_depot_is_listed_too(root: Path) -> None:
    before = dump(root, identical=False)
    with database_of(root) as database:
        rig = ArchiveRig(FILES, database, root=str(root))
        patient, misplaced = (
            encode_element(0x00100020, b"LO", b"P1"),
            encode_element(0x00080070, b"LO", b"Maker"),
        )
        odd = make_instance(51)
        odd = replace(odd, data=odd.data.replace(patient, patient + misplaced))
        receipts = [rig.keep(instance) for instance in (make_instance(50), odd)]
        rig.finisher._place(rig.waiting[0])
        rig.folder.close_in_child()  # the lock goes as it does with the process
    lose_catalog(root)
    found, counts = rebuild(root)
    assert (found, counts.recovered.finished) == ([], 2)
    after = dump(root)
    assert [
        row for row in after["versions"] if row["sop_instance_uid"] not in {"1.2.3.50", "1.2.3.51"}
    ] == before["versions"]
    verdicts = {row["receipt_id"]: row["verdicts"] for row in after["receipts"]}
    assert verdicts[receipts[0].receipt_id] == []
    assert "not in ascending order" in verdicts[receipts[1].receipt_id][0]
    assert list((root / "depot").iterdir()) == []


def test_a_damaged_file_is_named_and_not_listed(root: Path) -> None:
    path = path_of(root, 3)
    content = bytearray((root / path).read_bytes())
    content[-1] ^= 1
    (root / path).write_bytes(content)
    lose_catalog(root)
    (one,), counts = rebuild(root)
    assert (one.fault, one.path, one.sop_instance_uid) == (Fault.DAMAGED, path, "1.2.3.3")
    assert counts.listed == 6
    assert (root / path).read_bytes() == content
    assert "1.2.3.3" not in {row["sop_instance_uid"] for row in dump(root)["versions"]}


def test_a_file_that_is_none_of_ours_is_named_and_left(root: Path) -> None:
    (root / "objects/readme.txt").write_text("none")
    (root / "objects/link").symlink_to("readme.txt")
    lose_catalog(root)
    found, _ = rebuild(root)
    assert sorted((one.fault, one.path) for one in found) == [
        (Fault.DAMAGED, "objects/readme.txt"),
        (Fault.UNREADABLE, "objects/link"),
    ]
    assert (root / "objects/readme.txt").read_text() == "none"


def test_a_file_that_was_moved_by_hand_is_listed_where_it_is(root: Path) -> None:
    path = path_of(root, 5)
    os.renames(root / path, root / "objects/elsewhere/file")
    lose_catalog(root)
    assert rebuild(root)[0] == []
    assert path_of(root, 5) == "objects/elsewhere/file"


def test_files_in_quarantine_are_counted(root: Path) -> None:
    (root / "quarantine").mkdir()
    (root / "quarantine/a.dcm").write_text("damaged")
    (root / "quarantine/a.dcm.txt").write_text("a note")
    lose_catalog(root)
    assert rebuild(root)[1].quarantined == 1


def test_a_rebuild_that_was_cut_off_leaves_an_archive_without_catalog(root: Path) -> None:
    before = dump(root, identical=False)
    lose_catalog(root)

    class Stop(BaseException):
        pass

    def stop(_count: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        rebuild(root, progress=stop)
    assert not [path for path in root.glob("catalog.sqlite*") if "lock" not in path.name]
    with pytest.raises(ArchiveRefusedError, match="stowkeeper rebuild"):
        ArchiveReader(str(root))
    # As a kill leaves it: half a catalog, under its own name.
    (root / NEW_CATALOG).write_bytes(b"half")
    (root / f"{NEW_CATALOG}-wal").write_bytes(b"half")
    rebuild(root)
    assert dump(root) == before
    assert not list(root.glob(f"{NEW_CATALOG}*"))


def test_a_kill_after_the_new_catalog_got_its_name_does_no_harm(root: Path) -> None:
    before = dump(root)
    os.link(root / "catalog.sqlite", root / NEW_CATALOG)
    rebuild(root)
    assert not (root / NEW_CATALOG).exists()
    assert dump(root) == before


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_the_log_of_the_lost_catalog_does_not_come_into_the_new_one(root: Path, ending: str) -> None:
    """SQLite takes a log by its name, whatever database it was of."""
    before = dump(root, identical=False)
    lose_catalog(root)
    left_over = root / f"catalog.sqlite{ending}"
    left_over.write_bytes(b"of the lost one")
    rebuild(root)
    assert not left_over.exists()
    assert (root / f"catalog.sqlite.old1{ending}").read_bytes() == b"of the lost one"
    assert dump(root) == before


def test_a_catalog_that_was_removed_without_its_log_comes_back_whole(root: Path, tmp_path: Path) -> None:
    before = dump(root, identical=False)
    with database_of(root) as database:
        with database.write() as transaction:
            transaction.execute(update(schema.versions).values(file_size=1))
        for ending in ("wal", "shm"):  # as a process leaves them that is killed
            shutil.copy(root / f"catalog.sqlite-{ending}", tmp_path / ending)
    for ending in ("wal", "shm"):
        shutil.copy(tmp_path / ending, root / f"catalog.sqlite-{ending}")
    (root / "catalog.sqlite").unlink()
    rebuild(root)
    assert dump(root) == before
    with database_of(root) as database, database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


# A catalog that is there.


def test_a_catalog_that_is_there_loses_nothing(root: Path) -> None:
    with database_of(root) as database, database.write() as transaction:
        ledger.record_associations(
            transaction, [AssociationRecord(association_id="a-1", opened_at="2026", peer_address="192.0.2.1")]
        )
        refused = RequestRecord(
            association_id="a-1",
            message_id=1,
            sop_class_uid="1.2",
            sop_instance_uid="1.2.3",
            transfer_syntax_uid="1.2",
            requested_at="2026",
            status=0xA700,
            outcome="refused",
        )
        ledger.record_requests(transaction, [refused])
        catalog.hold(transaction, [1], "storage commitment")
        catalog.mark_superseded(transaction, [2], removal_due_at="2099", reason="replaced")
    before = sql_of(root)
    found, counts = rebuild(root)
    assert (found, counts.listed, counts.known, counts.restored) == ([], 0, 7, 0)
    assert sql_of(root) == before


def sql_of(root: Path) -> list[str]:
    connection = sqlite3.connect(root / "catalog.sqlite")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_what_an_older_catalog_lacks_is_added(root: Path) -> None:
    """The catalog was restored from a backup made before the last instances came."""
    backup = root.parent / "backup.sqlite"
    shutil.copyfile(root / "catalog.sqlite", backup)
    with database_of(root) as database:
        rig = ArchiveRig(FILES, database, root=str(root))
        rig.keep(make_instance(60))
        rig.keep(make_instance(3, content=9, study="1.2.27"))
        rig.finish()
        rig.folder.release()
    after = dump(root)
    lose_catalog(root)
    shutil.copyfile(backup, root / "catalog.sqlite")
    found, counts = rebuild(root)
    assert (found, counts.listed, counts.known) == ([], 2, 7)
    assert dump(root) == after


def test_a_row_without_a_file_is_named_and_stays(root: Path) -> None:
    path = path_of(root, 3)
    (root / path).unlink()
    (one,), _ = rebuild(root)
    assert (one.fault, one.path, one.sop_instance_uid) == (Fault.MISSING, path, "1.2.3.3")
    assert path_of(root, 3) == path


def test_a_file_that_was_moved_gets_its_row_moved(root: Path) -> None:
    path = path_of(root, 5)
    os.renames(root / path, root / "objects/elsewhere/file")
    found, counts = rebuild(root)
    assert (found, counts.moved) == ([], 1)
    assert path_of(root, 5) == "objects/elsewhere/file"


def test_a_second_name_of_a_file_is_named(root: Path) -> None:
    os.link(root / path_of(root, 5), root / "objects/second.dcm")
    (one,), counts = rebuild(root)
    assert (one.fault, one.path, counts.known) == (Fault.UNLISTED, "objects/second.dcm", 7)
    assert path_of(root, 5) in one.words


def test_a_removed_study_that_was_put_back_from_a_backup_is_listed_again(root: Path) -> None:
    before = dump(root)
    shutil.copytree(root / "objects", root.parent / "backup")
    with database_of(root) as database:
        removal = Removal(FILES, str(root), database)
        assert removal.carry_out(removal.plan("1.2.29"), "by mistake").removed == 3
        with database.read() as connection:
            assert len(connection.execute(select(schema.patients)).all()) == 1
    shutil.copytree(root.parent / "backup", root / "objects", dirs_exist_ok=True)
    found, counts = rebuild(root)
    assert (found, counts.restored) == ([], 3)
    after = dump(root)
    for name in ("studies", "series", "instances", "versions", "receipts"):
        assert after[name] == before[name], name
    with database_of(root) as database:
        with database.read() as connection:
            last = changes.changes_after(connection, 0)[-1]
        assert (last.kind, last.sop_instance_uid) == ("current", "1.2.3.1")
        assert list(Verification(FILES, str(root), database).run()) == []


def test_what_is_removed_between_its_reading_and_its_listing_stays_removed(root: Path) -> None:
    with Rebuilding(str(root), files=FILES) as rebuilding:
        rebuilding.look()
        examine = rebuilding._examine
        removed: list[int] = []
        lock = threading.Lock()

        def examine_and_be_overtaken(path: str) -> Examination:
            examination = examine(path)
            with lock, database_of(root) as database:
                if not removed:
                    removal = Removal(FILES, str(root), database)
                    removed.append(removal.carry_out(removal.plan("1.2.29"), "a wish").removed)
            return examination

        with patch.object(rebuilding, "_examine", examine_and_be_overtaken):
            assert list(rebuilding.run()) == []
    assert removed == [3]
    assert rebuilding.counts.restored == 0
    with database_of(root) as database:
        check_settled(ArchiveView(FILES, database, str(root)))


def test_a_damaged_version_whose_whole_file_was_put_back_is_kept_again(root: Path) -> None:
    path = path_of(root, 3)
    whole = (root / path).read_bytes()
    (root / path).write_bytes(whole[:-1] + b"X")
    with database_of(root) as database:
        assert [one.fault for one in Verification(FILES, str(root), database).run()] == [Fault.DAMAGED]
    (root / path).write_bytes(whole)
    found, counts = rebuild(root)
    assert (found, counts.restored, counts.quarantined) == ([], 1, 1)
    assert next(row["state"] for row in dump(root)["versions"] if row["path"] == path) == "kept"


def test_a_removal_that_was_cut_off_is_not_undone(root: Path) -> None:
    with database_of(root) as database, database.write() as transaction:
        catalog.mark_removing(transaction, [1], reason="wrong patient")
    found, counts = rebuild(root)
    assert (found, counts.known, counts.restored) == ([], 7, 0)
    with database_of(root) as database, database.read() as connection:
        states = connection.execute(select(schema.versions.c.state)).scalars().all()
    assert states.count(VersionState.REMOVING) == 1


@pytest.mark.parametrize("batch", [1, 512])
@pytest.mark.parametrize("state", [VersionState.KEPT, VersionState.REMOVING])
def test_a_row_at_whose_place_another_file_stands_makes_way(
    root: Path, state: VersionState, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowkeeper.archive.rebuilding.FINISHER_BATCH_MAX", batch)
    path, other = path_of(root, 3), path_of(root, 5)
    os.replace(root / other, root / path)
    with database_of(root) as database, database.write() as transaction:
        version = catalog.find_version_by_path(transaction.connection, path)
        assert version is not None
        if state is VersionState.REMOVING:
            catalog.mark_removing(transaction, [version.version_key], reason="wrong patient")
    found, counts = rebuild(root)
    assert (found, counts.moved) == ([], 1)
    assert path_of(root, 5) == path
    with database_of(root) as database:
        check_settled(ArchiveRig(FILES, database, root=str(root)))


@pytest.mark.parametrize("batch", [1, 512])
def test_two_files_that_were_exchanged_are_listed_where_they_are(
    root: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowkeeper.archive.rebuilding.FINISHER_BATCH_MAX", batch)
    path, other = path_of(root, 3), path_of(root, 5)
    os.rename(root / path, root / "objects/between")
    os.rename(root / other, root / path)
    os.rename(root / "objects/between", root / other)
    assert rebuild(root)[0] == []
    assert (path_of(root, 3), path_of(root, 5)) == (other, path)
    with database_of(root) as database:
        assert list(Verification(FILES, str(root), database).run()) == []


def test_a_row_that_differs_from_its_file_is_corrected(root: Path) -> None:
    before = dump(root)
    with database_of(root) as database, database.write() as transaction:
        transaction.execute(
            update(schema.versions)
            .where(schema.versions.c.version_key == 1)
            .values(sop_class_uid="1.2", file_size=1)
        )
        transaction.execute(
            update(schema.receipts).where(schema.receipts.c.receipt_key == 2).values(digest="00")
        )
    found, counts = rebuild(root)
    assert (found, counts.corrected) == ([], 2)
    assert dump(root) == before


def test_a_row_of_another_instance_is_named(root: Path) -> None:
    with database_of(root) as database, database.write() as transaction:
        transaction.execute(
            update(schema.instances)
            .where(schema.instances.c.instance_key == 1)
            .values(sop_instance_uid="9.9", uid_hash=schema.uid_hash("9.9"))
        )
    assert [one.fault for one in rebuild(root)[0]] == [Fault.DIFFERENT]


def test_a_file_of_an_identical_receipt_is_named(root: Path) -> None:
    with database_of(root) as database, database.write() as transaction:
        first = listing.receipts(database)
        identical = next(row["receipt_id"] for row in first if row["outcome"] == "identical")
        transaction.execute(delete(schema.changes))
        transaction.execute(
            update(schema.receipts).where(schema.receipts.c.receipt_id == identical).values(receipt_id="x")
        )
        kept = transaction.execute(select(schema.receipts.c.receipt_id).limit(1)).scalar()
        transaction.execute(
            update(schema.receipts).where(schema.receipts.c.receipt_id == kept).values(receipt_id="y")
        )
        transaction.execute(
            update(schema.receipts).where(schema.receipts.c.receipt_id == "x").values(receipt_id=kept)
        )
    assert [one.fault for one in rebuild(root)[0]] == [Fault.UNLISTED]


# What is refused.


def test_a_running_server_keeps_a_rebuild_off_and_the_other_way_round(root: Path) -> None:
    server = ServerLock(str(root / "server.lock"), shared=True)
    with pytest.raises(ArchiveInUseError, match="stop its server"):
        Rebuilding(str(root))
    server.release()
    with Rebuilding(str(root)), pytest.raises(ArchiveInUseError):
        ServerLock(str(root / "server.lock"), shared=True)
    ServerLock(str(root / "server.lock"), shared=False).release()


def test_a_foreign_catalog_is_refused_with_what_to_do(root: Path) -> None:
    (root / "archive.id").write_text("3f0b0c9e-2f0a-4c39-9d6a-0d5a3f6f9a11\n")
    for _ in range(2):  # the lock was given back
        with pytest.raises(
            ArchiveRefusedError, match=r"move catalog\.sqlite away, with its -wal and -shm files"
        ):
            Rebuilding(str(root))
    (root / "archive.id").unlink()
    with pytest.raises(ArchiveRefusedError, match=r"write that id into .*archive\.id"):
        Rebuilding(str(root))
    lose_catalog(root)
    sqlite3.connect(root / "catalog.sqlite").execute("CREATE TABLE theirs (x)").connection.close()
    with pytest.raises(DatabaseForeign, match="move it away"):
        Rebuilding(str(root))


def test_without_objects_there_is_nothing_to_rebuild_from(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefusedError, match="its disk is mounted"):
        Rebuilding(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_no_file_can_tell_is_named() -> None:
    told = " ".join(UNTOLD)
    for word in ("refused", "answered", "identical", "holds", "removed", "associations"):
        assert word in told
