"""The archive put together: what it opens with, and what its keeper does by itself."""

import errno
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from stowkeeper.archive import archive as archive_module
from stowkeeper.archive import catalog
from stowkeeper.archive.archive import Archive, ArchiveReader, ArchiveRefusedError
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.limits import UNCATALOGUED_MAX
from stowkeeper.archive.outcome import Outcome
from stowkeeper.archive.removal import Removal
from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.durable.filesystem import FileSystem, NoSyncFileSystem
from stowkeeper.durable.probe import StorageReport
from stowkeeper.durable.process_folder import dead_folders
from stowkeeper.durable.server_lock import ArchiveInUseError
from support.archive_rig import ArchiveRig
from support.archive_server import open_archive, settle
from support.catalog_rows import open_database
from support.crash_checks import depot_folders, until
from support.instances import Instance, make_instance
from support.quiet_log import quiet_log


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


def synchronous(database: Database) -> set[int]:
    """Return how the writing connection and a reading one sync."""
    with database.write() as transaction, database.read() as connection:
        return {
            one.exec_driver_sql("PRAGMA synchronous").scalar_one()
            for one in (transaction.connection, connection)
        }


def test_an_archive_that_does_not_sync_does_not_sync_its_database_either(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for sync, expected in ((False, 0), (True, 2)):
        with closing(open_archive(root, sync=sync)) as archive:
            assert synchronous(archive.database) == {expected}
            assert isinstance(archive.files, NoSyncFileSystem) is not sync
    with closing(ArchiveReader(str(root))) as reader:
        assert synchronous(reader.database) == {2}


def died(root: Path, *instances: Instance) -> None:
    """Leave what a process leaves that ended after it had answered."""
    with open_database(root, sync=False) as database:
        rig = ArchiveRig(NoSyncFileSystem(), database, root=str(root), slots=len(instances) + 1)
        for instance in instances:
            rig.keep(instance)
        rig.folder.close_in_child()  # as the system does when a process ends


def keep(archive: Archive, instance: Instance) -> None:
    """Send an instance through intake, and wait for its Success."""
    outcomes: list[Outcome] = []
    incoming = archive.intake.begin(instance.arrival(), outcomes.append)
    incoming.write(memoryview(instance.data))
    incoming.commit()
    until(lambda: bool(outcomes))
    assert outcomes[0].refusal is None


def states(archive: Archive) -> dict[str, str]:
    """Return the state of each version of instance 1 by how it was received."""
    with archive.database.read() as connection:
        found = catalog.find_versions(connection, ["1.2.3.1"]).get("1.2.3.1", [])
        return {version.received_at: version.state.value for version in found}


@pytest.mark.parametrize("by_the_keeper", [True, False])
def test_what_a_dead_process_left_is_finished_by_the_policy_for_its_sender(
    tmp_path: Path, by_the_keeper: bool
) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    died(root, make_instance(1), make_instance(1, content=1))
    asked: list[tuple[str, str]] = []

    def duplicates_of(title: str, address: str) -> DuplicatePolicy:
        asked.append((title, address))
        return DuplicatePolicy.REPLACE

    with closing(open_archive(root, replace_grace_seconds=3600.0)) as archive:
        assert states(archive) == {}
        if by_the_keeper:
            archive.look_after_the_dead(duplicates_of)
            until(lambda: len(depot_folders(root)) == 1)
        else:
            archive.recover(duplicates_of)
        assert [state for _, state in sorted(states(archive).items())] == ["superseded", "kept"]
    assert set(asked) == {("SCANNER", "192.0.2.17")}


def test_a_damaged_file_that_an_earlier_run_left_on_its_shelf_is_put_away_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    died(root, make_instance(1))
    with closing(open_archive(root)) as archive:
        archive.recover()
        (path,) = (str(found.relative_to(root)) for found in root.glob("objects/**/*.dcm"))
        with archive.database.write() as transaction:
            catalog.mark_damaged(transaction, path, "a bit")
    tries: list[int] = []
    finish = archive_module.finish_damaged

    def finish_damaged(files: NoSyncFileSystem, root: str, database: Database) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise DatabaseUnavailable("others are writing")
        return finish(files, root, database)

    monkeypatch.setattr(archive_module, "finish_damaged", finish_damaged)
    looks: list[int] = []
    monkeypatch.setattr(archive_module, "remove_due", lambda *_: looks.append(1))
    monkeypatch.setattr(archive_module, "RECOVERY_SCAN_SECONDS", 0.0)
    monkeypatch.setattr(archive_module, "SPACE_CHECK_SECONDS", 0.001)
    with closing(open_archive(root)) as archive:
        assert (root / path).exists()
        archive.look_after_the_dead()
        until(lambda: len(looks) > 5)
        assert len(tries) == 2, "again after a failure, and not after that"
        assert not (root / path).exists()
        assert (root / "quarantine" / Path(path).name).exists()


def test_the_places_of_a_server_are_given_back_by_its_finisher(tmp_path: Path) -> None:
    with closing(open_archive(tmp_path / "archive", uncatalogued_max=1)) as archive:
        assert archive.options.uncatalogued_max < UNCATALOGUED_MAX
        for number in range(3):
            incoming = archive.intake.begin(make_instance(number).arrival(), lambda _: None)
            incoming.write(memoryview(make_instance(number).data))
            incoming.commit()
            assert archive.admission.is_behind or archive.finisher.uncatalogued() == 0
            until(lambda: not archive.admission.is_behind)


def test_a_catalog_that_does_not_fit_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """And never with what would do harm: to remove a catalog without its log, or one that is right."""
    root = tmp_path / "archive"
    open_archive(root).close()
    identity = (root / "archive.id").read_text()
    (root / "archive.id").unlink()
    with pytest.raises(ArchiveRefusedError) as refused:
        ArchiveReader(str(root))
    assert f"write that id into {root}/archive.id" in str(refused.value)
    assert identity.strip() in str(refused.value)
    (root / "archive.id").write_text("3f0b0c9e-2f0a-4c39-9d6a-0d5a3f6f9a11\n")
    with pytest.raises(ArchiveRefusedError, match=r"move catalog\.sqlite away, with its -wal and -shm files"):
        ArchiveReader(str(root))
    (root / "archive.id").write_text(identity)
    ArchiveReader(str(root)).close()


def test_an_archive_that_another_process_makes_at_this_moment_is_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "archive"
    others: list[Archive] = []
    read = archive_module.read_archive_id

    def read_and_be_overtaken(files: FileSystem, archive: str) -> str | None:
        found = read(files, archive)
        if not others:
            monkeypatch.setattr(archive_module, "read_archive_id", read)
            others.append(open_archive(root, exclusive=False))
        return found

    monkeypatch.setattr(archive_module, "read_archive_id", read_and_be_overtaken)
    with closing(open_archive(root, exclusive=False)) as archive, archive.database.read() as connection:
        assert catalog.archive_id(connection) == (root / "archive.id").read_text().strip()
    others[0].close()


def test_a_finisher_that_hangs_keeps_what_it_works_with(tmp_path: Path) -> None:
    """Another process that adopted its folder, or a database closed under it, would meet it at work."""
    root = tmp_path / "archive"
    archive = open_archive(root)
    hangs, go_on = threading.Event(), threading.Event()
    write_rows = archive.finisher._list

    def hang(*arguments: Any) -> set[str]:
        hangs.set()
        assert go_on.wait(30)
        return write_rows(*arguments)

    stop = archive.finisher.stop
    with (
        patch.object(archive.finisher, "_list", hang),
        patch.object(archive.finisher, "stop", lambda: stop(0.01)),
    ):
        keep(archive, make_instance(1))
        assert hangs.wait(30)
        archive.close()
        assert dead_folders(FileSystem(), str(root / "depot")) == []
        with pytest.raises(ArchiveInUseError):
            open_archive(root)
        with archive.database.read() as connection:
            assert catalog.archive_id(connection) is not None
        go_on.set()
        assert stop(10)
    assert set(states(archive).values()) == {"kept"}
    archive.database.close()
    assert archive._folder is not None
    archive._folder.release()
    archive._unlock()


@pytest.mark.slow
def test_a_removal_beside_an_identical_re_send_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    """It waits for the batch, and the folders that the batch syncs stay until then."""
    root = tmp_path / "archive"
    waits = threading.Event()

    class Watched(FileSystem):
        def lock_directory(self, path: str) -> int | None:
            found = super().lock_directory(path)
            if found is None:
                waits.set()
            return found

    with closing(open_archive(root)) as archive:
        keep(archive, make_instance(1))
        settle(archive)
        removal = Removal(Watched(), str(root), archive.database)
        removing = threading.Thread(target=removal.carry_out, args=(removal.plan("1.2.3.1"), "a wish"))
        synchronize = archive.finisher._shelf.synchronize

        def synchronize_beside() -> None:
            if not removing.ident:
                removing.start()
                assert waits.wait(30)
            synchronize()

        with patch.object(archive.finisher._shelf, "synchronize", synchronize_beside):
            keep(archive, make_instance(1))
            settle(archive)
        removing.join()
        assert archive.admission.failures == 0
        assert "kept" in states(archive).values()
        assert len(list((root / "objects").rglob("*.dcm"))) == 1


def test_nobody_else_syncs_a_folder_while_the_disk_is_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync of the probe that fails is told to the probe alone."""
    root = tmp_path / "archive"
    probe = archive_module.probe_storage
    probed: list[bool] = []

    def probe_alone(files: FileSystem, **options: Any) -> StorageReport:
        assert files.lock_directory(str(root / "depot")) is None
        probed.append(bool(others) and others[0].slots._making.locked())
        return probe(files, **options)

    others: list[Archive] = []
    monkeypatch.setattr(archive_module, "probe_storage", probe_alone)
    with closing(open_archive(root)) as archive:
        others.append(archive)
        archive.admission.distrust("a test")
        archive._probe()
        assert not archive.admission.distrusted
    assert probed == [False, True]


@pytest.mark.parametrize("idle", [True, False])
def test_a_catalog_that_was_taken_away_admits_nothing_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    monkeypatch.setattr(archive_module, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(archive_module, "SPACE_CHECK_SECONDS", 0.01)
    if not idle:  # the finisher has to notice it by itself
        monkeypatch.setattr(Archive, "_check_catalog", lambda _: None)
    root = tmp_path / "archive"
    with closing(open_archive(root)) as archive:
        archive.look_after_the_dead()
        with capture_logs() as logs:  # the keeper may notice at once
            (root / "catalog.sqlite").rename(root / "away")
            if not idle:
                keep(archive, make_instance(1))
            until(lambda: archive.admission.distrusted)
            with patch.object(archive.admission, "trust") as trust:
                before = len(logs)
                until(lambda: len(logs) > before + 10)
            assert not trust.called, "that the disk works says nothing of the catalog"
        assert archive.admission.refusal() == "the catalog is gone"
        (told,) = {line["reason"] for line in logs if line.get("what", "").startswith("the catalog is gone")}
        assert "stowkeeper rebuild" in told
        assert not (root / "catalog.sqlite").exists()
        (root / "away").rename(root / "catalog.sqlite")
        until(lambda: not archive.admission.distrusted)
        keep(archive, make_instance(1, content=1))
        settle(archive)
        assert set(states(archive).values()) == {"kept"}
        assert len(states(archive)) == (1 if idle else 2)


def test_a_filler_that_may_open_no_more_files_does_not_close_the_door(tmp_path: Path) -> None:
    class FewFiles(FileSystem):
        full = False

        def create(self, path: str, mode: int) -> int:
            if self.full:
                raise OSError(errno.EMFILE, "Too many open files", path)
            return super().create(path, mode)

    files = FewFiles()
    with closing(open_archive(tmp_path / "archive", files=files)) as archive, capture_logs() as logs:
        until(lambda: archive.slots.statistics.open > 0)
        files.full = True
        archive.slots.remove_free(100)
        archive.slots._wanted.set()
        until(lambda: any(line.get("what") == "too many files are open" for line in logs))
        assert archive.admission.refusal() == ""
        files.full = False
        keep(archive, make_instance(1))
        settle(archive)
