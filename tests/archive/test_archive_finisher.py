"""The finisher: names, then rows, then the depot name goes; and whatever fails in between loses nothing."""

import errno
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stowkeeper.archive import catalog, finisher, ledger, listing
from stowkeeper.archive.finisher import Finisher
from stowkeeper.archive.ledger import RequestRecord
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.removal import Removal, RemovalResult
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.dicom.attributes import extract
from support.archive_rig import ArchiveRig, catalog_fails, check_kept, check_settled, model_rig
from support.instances import Instance, make_instance
from support.machine_with_catalog import damage
from support.model_filesystem import ModelFileSystem, Operation, PowerCut
from support.quiet_log import quiet_log

WAIT_SECONDS_MAX = 20.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture
def model() -> ModelFileSystem:
    return ModelFileSystem()


@pytest.fixture
def rig(tmp_path: Path, model: ModelFileSystem) -> ArchiveRig:
    return model_rig(tmp_path, model, slots=8)


@pytest.fixture
def running(rig: ArchiveRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finisher]:
    """Start the finisher's own thread, which tries again at once."""
    monkeypatch.setattr(finisher, "FINISHER_RETRY_SECONDS", 0.001)
    rig.finisher.start()
    yield rig.finisher
    rig.finisher.stop(WAIT_SECONDS_MAX)


def submitted(rig: ArchiveRig, *instances: Instance) -> list[Receipt]:
    """Receive instances and hand them to the finisher's thread."""
    receipts = [rig.keep(instance) for instance in instances]
    for received in rig.waiting:
        rig.finisher.submit(received)
    rig.waiting = []
    return receipts


def version_of(rig: ArchiveRig, receipt: Receipt) -> dict[str, object]:
    (row,) = (row for row in rig.versions() if row["receipt_id"] == receipt.receipt_id)
    return row


# The order of the steps


def test_names_are_durable_before_the_rows_and_rows_before_the_depot_name_goes(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """Looked at before each operation: what the medium holds by then, and what the catalog says."""
    receipts = [rig.keep(make_instance(number)) for number in (1, 2)]
    depot = [received.depot_path for received in rig.waiting]

    def look(_: Operation) -> None:
        after_a_cut = model.crash(lambda _: False)
        tree = after_a_cut.tree()
        listed = {row["receipt_id"]: row["path"] for row in rig.versions()}
        for receipt, path in zip(receipts, depot, strict=True):
            if receipt.receipt_id in listed:
                assert rig.path(listed[receipt.receipt_id]) in tree
            if receipt.receipt_id not in listed:
                assert path in tree
                assert path in model.tree()

    model.before_each = look
    assert rig.finish() == []
    model.before_each = None
    assert rig.depot() == []
    check_settled(rig)


def test_a_batch_of_every_kind_is_finished_at_once(rig: ArchiveRig) -> None:
    first, second = make_instance(1), make_instance(1, content=1)
    receipts = [(rig.keep(instance), instance) for instance in (first, first, second, second, first)]
    assert rig.finish() == []
    for receipt, instance in receipts:
        check_kept(rig, receipt, instance)
    check_settled(rig)
    assert [row["outcome"] for row in rig.receipts()] == [
        "stored",
        "identical",
        "conflict",
        "identical",
        "identical",
    ]
    assert len(rig.shelf()) == 2


# The same instance again


def test_a_damaged_older_copy_is_replaced_and_goes_to_quarantine(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    damaged = str(version_of(rig, older)["path"])
    damage(model, rig.path(damaged), 1800)
    evidence = model.content(rig.path(damaged))
    newer = rig.keep(make_instance(1))
    assert rig.finish() == []
    check_kept(rig, newer, make_instance(1))
    assert version_of(rig, older)["state"] == "damaged"
    assert version_of(rig, newer)["current"]
    (kept,) = rig.quarantine()
    assert model.content(rig.path(kept)) == evidence
    assert "re-send" in model.content(rig.path(f"{kept}.txt")).decode()
    check_settled(rig)


@pytest.mark.parametrize("moment", ["mark_damaged", "find_version_by_path"])
def test_a_newcomer_under_the_name_of_a_damaged_file_is_left_alone(
    rig: ArchiveRig, model: ModelFileSystem, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another process puts the damaged file away, and a third gives its name to a file, before this one does."""
    older = rig.keep(make_instance(1))
    rig.finish()
    damaged = str(version_of(rig, older)["path"])
    damage(model, rig.path(damaged), 1800)
    rig.keep(make_instance(1))
    called = getattr(finisher.catalog, moment)

    def others_first(transaction: object, *arguments: object) -> object:
        result = called(transaction, *arguments)
        model.unlink(rig.path(damaged))
        model.link(str(newcomer), rig.path(damaged))
        return result

    newcomer = rig.path("newcomer")
    model.close(model.create(newcomer, 0o644))
    monkeypatch.setattr(finisher.catalog, moment, others_first)
    rig.finish()
    assert model.status(rig.path(damaged)).inode == model.status(newcomer).inode
    assert rig.quarantine() == []


@pytest.mark.parametrize("failing", ["link", "unlink", "synchronize_directory"])
def test_a_quarantine_that_fails_is_made_up_for_by_whoever_recovers(
    rig: ArchiveRig, model: ModelFileSystem, failing: str
) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    damaged = str(version_of(rig, older)["path"])
    damage(model, rig.path(damaged), 1800)
    newer = rig.keep(make_instance(1))
    place = rig.path(damaged) if failing == "unlink" else rig.path("quarantine*")
    model.fail_next(failing, place)
    rig.finish()
    assert len(rig.depot()) == 1
    again = recovered(rig, model)
    check_kept(again, newer, make_instance(1))
    check_settled(again)
    assert again.depot() == []
    assert len(again.quarantine()) == 1
    assert damaged not in again.shelf()


def test_an_instance_identical_to_one_that_is_being_removed_is_kept_by_itself(rig: ArchiveRig) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    path = str(version_of(rig, older)["path"])
    mark_removing(rig, older)
    newer = rig.keep(make_instance(1))
    assert len(rig.finish()) == 1
    assert rig.finish() == []
    assert version_of(rig, newer)["path"] != path
    finish_removal(rig, older)
    assert path not in rig.shelf()
    check_kept(rig, newer, make_instance(1))
    check_settled(rig)


def mark_removing(rig: ArchiveRig, receipt: Receipt) -> None:
    with rig.database.write() as transaction:
        catalog.mark_removing(transaction, [version_key(rig, receipt)], reason="a test")


def finish_removal(rig: ArchiveRig, receipt: Receipt) -> None:
    removal = Removal(rig.files, rig.root, rig.database)
    removal.finish([version_key(rig, receipt)], "", RemovalResult())


def version_key(rig: ArchiveRig, receipt: Receipt) -> int:
    with rig.database.read() as connection:
        version = catalog.find_version_by_receipt(connection, receipt.receipt_id)
    assert version is not None
    return version.version_key


def test_a_name_that_a_cut_off_removal_left_free_goes_to_the_newcomer(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """Its row says removing, its file is gone: the newcomer gets the name, and the removal is done with that."""
    older = rig.keep(make_instance(1))
    rig.finish()
    mark_removing(rig, older)
    model.unlink(rig.path(str(version_of(rig, older)["path"])))
    newer, other = rig.keep(make_instance(1)), rig.keep(make_instance(2))
    assert rig.finish() == []
    finish_removal(rig, older)
    check_kept(rig, newer, make_instance(1))
    check_kept(rig, other, make_instance(2))
    check_settled(rig)
    assert [row["number_of_study_related_instances"] for row in listing.studies(rig.database)] == [2]


def test_a_file_without_a_row_gets_one_when_the_same_comes_again(
    rig: ArchiveRig, model: ModelFileSystem, tmp_path: Path
) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    (tmp_path / "anew").mkdir()
    without_rows = model_rig(tmp_path / "anew", model.kill())
    newer = without_rows.keep(make_instance(1))
    assert len(without_rows.finish()) == 1
    assert without_rows.finish() == []
    assert [row["receipt_id"] for row in without_rows.versions()] == [older.receipt_id]
    check_kept(without_rows, newer, make_instance(1))
    check_settled(without_rows)


def test_a_file_that_another_process_is_about_to_list_is_left_to_that_one(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """Its rows would be without a file if that process had to take the name back."""
    other = ArchiveRig(model, rig.database, slots=2)
    receipt = other.keep(make_instance(1))
    with catalog_fails(other), pytest.raises(DatabaseUnavailable):
        other.finish()
    newer = rig.keep(make_instance(1))
    for _ in range(3):
        assert len(rig.finish()) == 1
    assert rig.versions() == []
    assert other.finish() == []
    assert rig.finish() == []
    assert [row["answer"] for row in rig.receipts()] == ["known", "known"]
    for kept in (receipt, newer):
        check_kept(rig, kept, make_instance(1))
    check_settled(rig)


# Cut off in the middle


def cut_before(model: ModelFileSystem, name: str, pattern: str) -> Callable[[], None]:
    """Stop the program before an operation, as a power cut would; return what takes the hook away."""

    def look(operation: Operation) -> None:
        if operation.name == name and fnmatch(operation.path, pattern):
            raise PowerCut

    model.before_each = look

    def undo() -> None:
        model.before_each = None

    return undo


def recovered(rig: ArchiveRig, model: ModelFileSystem) -> ArchiveRig:
    """Start a new process on what a kill left, with the catalog of the old one, and recover."""
    found = model.kill()
    again = ArchiveRig(found, rig.database, slots=2)
    again.recover()
    return again


def test_what_was_listed_and_removed_since_does_not_come_back(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """Cut off between the rows and the removal of the depot name; `rm` came before recovery."""
    receipt = rig.keep(make_instance(1))
    undo = cut_before(model, "unlink", "*/depot/*")
    with pytest.raises(PowerCut):
        rig.finish()
    undo()
    for finished in (False, True):
        mark_removing(rig, receipt)
        if finished:
            finish_removal(rig, receipt)
        again = recovered(rig, model)
        assert again.depot() == []
        assert (again.shelf() == []) == finished
        assert [row["state"] for row in again.versions()] == ([] if finished else ["removing"])


def test_an_identical_one_is_decided_again_and_kept_when_the_other_went_bad(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    identical = rig.keep(make_instance(1))
    undo = cut_before(model, "unlink", "*/depot/*")
    with pytest.raises(PowerCut):
        rig.finish()
    undo()
    assert [row["outcome"] for row in rig.receipts()] == ["stored", "identical"]
    damage(model, rig.path(str(version_of(rig, older)["path"])), 1800)
    again = recovered(rig, model)
    assert again.depot() == []
    assert len(again.quarantine()) == 1
    for receipt in (older, identical):
        check_kept(again, receipt, make_instance(1))
    check_settled(again)
    assert [row["outcome"] for row in rig.receipts()] == ["stored", "stored"]
    assert version_of(again, identical)["current"]


def test_an_identical_one_takes_the_place_of_the_other_when_that_is_gone(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    identical = rig.keep(make_instance(1))
    undo = cut_before(model, "unlink", "*/depot/*")
    with pytest.raises(PowerCut):
        rig.finish()
    undo()
    path = str(version_of(rig, older)["path"])
    model.unlink(rig.path(path))
    again = recovered(rig, model)
    assert version_of(again, identical)["path"] == path
    check_kept(again, identical, make_instance(1))
    check_settled(again)


def test_a_listed_file_that_lost_its_name_gets_it_back(rig: ArchiveRig, model: ModelFileSystem) -> None:
    receipt = rig.keep(make_instance(1))
    undo = cut_before(model, "unlink", "*/depot/*")
    with pytest.raises(PowerCut):
        rig.finish()
    undo()
    path = str(version_of(rig, receipt)["path"])
    model.unlink(rig.path(path))
    again = recovered(rig, model)
    assert again.shelf() == [path]
    check_kept(again, receipt, make_instance(1))


def test_a_name_whose_sync_failed_just_before_the_process_died_is_made_anew(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    """The system believes it written, and a sync by the next process would say so too."""
    rig.keep(make_instance(2))
    rig.finish()
    receipt = rig.keep(make_instance(1))
    model.fail_next("synchronize_directory", rig.path("objects/1.2.10/1.2.10.1"))
    undo = cut_before(model, "unlink", "*/objects/*")
    with pytest.raises(PowerCut):
        rig.finish()
    undo()
    assert len(rig.shelf()) == 2
    again = recovered(rig, model)
    check_kept(again, receipt, make_instance(1))
    assert isinstance(again.files, ModelFileSystem)
    after_a_cut = again.files.crash(lambda _: False)
    assert rig.path(str(version_of(again, receipt)["path"])) in after_a_cut.tree()


# What fails


def test_a_batch_whose_rows_cannot_be_written_is_finished_later(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    receipt = rig.keep(make_instance(1))
    with catalog_fails(rig):
        with pytest.raises(DatabaseUnavailable):
            rig.finish()
        assert len(rig.depot()) == 1
        rig.finish()
    check_kept(rig, receipt, make_instance(1))
    check_settled(rig)


def test_a_depot_file_that_is_gone_holds_up_none_but_itself(rig: ArchiveRig, model: ModelFileSystem) -> None:
    receipts = [rig.keep(make_instance(number)) for number in (1, 2, 3)]
    model.unlink(rig.waiting[1].depot_path)
    with capture_logs() as logs:
        (left,) = rig.finish()
    assert left.receipt == receipts[1]
    assert [line["reason"] for line in logs if line["event"] == "error"] == ["its depot file is gone"]
    for receipt, number in ((receipts[0], 1), (receipts[2], 3)):
        check_kept(rig, receipt, make_instance(number))
    after_a_cut = model.crash(lambda _: False)
    assert all(after_a_cut.status(rig.path(path)).links for path in rig.shelf())


def test_a_depot_name_that_cannot_be_removed_stays_for_recovery(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    receipt = rig.keep(make_instance(1))
    model.fail_next("unlink", "*/depot/*")
    assert rig.finish() == []
    assert len(rig.depot()) == 1
    again = recovered(rig, model)
    assert again.depot() == []
    check_kept(again, receipt, make_instance(1))
    check_settled(again)


@pytest.mark.parametrize(("error", "told"), [(errno.ENOSPC, True), (errno.EIO, True), (errno.EACCES, False)])
def test_only_an_error_of_the_disk_is_told_as_one(
    rig: ArchiveRig, model: ModelFileSystem, error: int, told: bool
) -> None:
    """A study folder of another user, say, must not close the door for all others."""
    rig.keep(make_instance(1))
    other = rig.keep(make_instance(2, study="1.2.11"))
    model.fail_next("make_directory", "*/1.2.10", error)
    assert len(rig.finish()) == 1
    assert len(rig.failures) == told
    check_kept(rig, other, make_instance(2, study="1.2.11"))
    assert rig.finish() == []


# Its thread


def test_an_acknowledged_instance_is_listed_soon(rig: ArchiveRig, running: Finisher) -> None:
    (receipt,) = submitted(rig, make_instance(1))
    assert running.uncatalogued() <= 1
    assert running.wait_until_idle(WAIT_SECONDS_MAX)
    assert running.uncatalogued() == 0
    check_kept(rig, receipt, make_instance(1))


@pytest.mark.parametrize(
    ("error", "told"), [(errno.EIO, True), (errno.ENOENT, False), (errno.ETIMEDOUT, False)]
)
def test_a_batch_that_failed_tells_of_the_disk_only_where_the_disk_failed(
    rig: ArchiveRig, model: ModelFileSystem, running: Finisher, error: int, told: bool
) -> None:
    model.fail_next("synchronize_directory", "*/1.2.10", error)
    (receipt,) = submitted(rig, make_instance(1))
    assert running.wait_until_idle(WAIT_SECONDS_MAX)
    assert len(rig.failures) == told
    check_kept(rig, receipt, make_instance(1))


def test_a_defect_stops_nothing_but_what_meets_it(
    rig: ArchiveRig, running: Finisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = threading.Semaphore(0)

    def defective(values: dict[int, bytes], little_endian: bool) -> object:
        if values[0x00080018].startswith(b"1.2.3.2"):
            met.release()
            raise RuntimeError("a defect")
        return extract(values, little_endian)

    monkeypatch.setattr("stowkeeper.archive.finisher.extract", defective)
    receipts = submitted(rig, *(make_instance(number) for number in (1, 2, 3)))
    later = submitted(rig, make_instance(4))
    for _ in range(4):
        assert met.acquire(timeout=WAIT_SECONDS_MAX)
    for receipt, number in ((receipts[0], 1), (receipts[2], 3), (later[0], 4)):
        check_kept(rig, receipt, make_instance(number))
    assert running.uncatalogued() == 1
    monkeypatch.setattr("stowkeeper.archive.finisher.extract", extract)
    assert running.wait_until_idle(WAIT_SECONDS_MAX)
    check_kept(rig, receipts[1], make_instance(2))
    check_settled(rig)


def a_request(number: int = 1) -> RequestRecord:
    return RequestRecord(
        association_id="a-1",
        message_id=number,
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2",
        requested_at="2026-01-02T03:04:05.000000Z",
        status=0xA700,
        outcome="refused",
    )


def requests_written(rig: ArchiveRig) -> list[int]:
    with rig.database.read() as connection:
        return [row.message_id for row in ledger.requests_of(connection, "a-1")]


def test_rows_of_the_ledger_wait_for_the_catalog_and_a_defective_one_is_dropped(
    rig: ArchiveRig, running: Finisher
) -> None:
    def defective() -> RequestRecord:
        raise RuntimeError("a defect")

    with catalog_fails(rig, times=2) as failed:
        running.record(a_request)
        running.record(defective)
        (receipt,) = submitted(rig, make_instance(1))
        running.record(lambda: a_request(2))
        assert running.wait_until_idle(WAIT_SECONDS_MAX)
    assert len(failed) == 2
    assert sorted(requests_written(rig)) == [1, 2]
    check_kept(rig, receipt, make_instance(1))


def test_a_failing_catalog_slows_the_senders_and_then_refuses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finisher, "FINISHER_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(finisher, "THROTTLE_SECONDS_MAX", 0.01)
    rig = model_rig(tmp_path, slots=8)
    rig.finisher = Finisher(
        rig.files, rig.root, rig.database, uncatalogued_max=4, on_disk_failure=rig.failures.append
    )
    rig.finisher.start()
    with catalog_fails(rig, times=1 << 30):
        receipts = submitted(rig, *(make_instance(number) for number in range(4)))
        assert rig.finisher.uncatalogued() == 4
    assert rig.finisher.wait_until_idle(WAIT_SECONDS_MAX)
    for number, receipt in enumerate(receipts):
        check_kept(rig, receipt, make_instance(number))
    assert rig.finisher.stop(WAIT_SECONDS_MAX)


# The stop


def test_a_stop_finishes_what_is_there(rig: ArchiveRig) -> None:
    rig.finisher.start()
    receipts = submitted(rig, *(make_instance(number) for number in range(5)))
    rig.finisher.record(a_request)
    assert rig.finisher.stop(WAIT_SECONDS_MAX)
    for number, receipt in enumerate(receipts):
        check_kept(rig, receipt, make_instance(number))
    assert requests_written(rig) == [1]
    assert rig.depot() == []


def test_a_stop_beside_a_failing_catalog_ends_and_says_that_something_is_left(
    rig: ArchiveRig, model: ModelFileSystem
) -> None:
    with catalog_fails(rig, times=1 << 30):
        rig.finisher.start()
        receipts = submitted(rig, *(make_instance(number) for number in range(3)))
        assert not rig.finisher.stop(WAIT_SECONDS_MAX)
    assert (rig.finisher.uncatalogued(), rig.finisher.submitted()) == (3, 3)
    assert len(rig.depot()) == 3
    again = recovered(rig, model)
    for number, receipt in enumerate(receipts):
        check_kept(again, receipt, make_instance(number))
    check_settled(again)


def test_a_stop_finishes_the_others_of_one_that_cannot_be(rig: ArchiveRig, model: ModelFileSystem) -> None:
    stuck, *receipts = (rig.keep(make_instance(number)) for number in range(4))
    model.unlink(rig.waiting[0].depot_path)
    for received in rig.waiting:
        rig.finisher.submit(received)
    rig.finisher.start()
    assert not rig.finisher.stop(WAIT_SECONDS_MAX)
    assert rig.finisher.uncatalogued() == 1
    for number, receipt in enumerate(receipts, 1):
        check_kept(rig, receipt, make_instance(number))
    assert stuck.receipt_id not in {row["receipt_id"] for row in rig.receipts()}


def test_a_stop_decides_an_identical_one_again(rig: ArchiveRig) -> None:
    older = rig.keep(make_instance(1))
    rig.finish()
    mark_removing(rig, older)
    (newer,) = submitted(rig, make_instance(1))
    rig.finisher.start()
    assert rig.finisher.stop(WAIT_SECONDS_MAX)
    assert rig.depot() == []
    check_kept(rig, newer, make_instance(1))
