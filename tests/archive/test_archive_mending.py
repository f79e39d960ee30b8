"""A rebuild beside servers lists and mends what nobody else does, and takes nothing from anybody's hands."""

import errno
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import delete, text, update

from stowkeeper.archive import catalog
from stowkeeper.archive.agreement import Discrepancy, Fault
from stowkeeper.archive.catalog_values import Version, VersionState
from stowkeeper.archive.holding import commitment_hold_reason
from stowkeeper.archive.mending import Mending
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.relisting import RebuildCounts
from stowkeeper.archive.removal import Removal
from stowkeeper.archive.verification import Verification
from stowkeeper.database import schema
from support.archive_rig import ArchiveRig, check_kept, check_settled, read_all
from support.instances import make_instance
from support.machine_with_catalog import MachineWithCatalog, damage, running_rig
from support.model_filesystem import Operation

pytestmark = pytest.mark.slow


@pytest.fixture
def rig() -> Iterator[ArchiveRig]:
    with running_rig(MachineWithCatalog(), slots=20) as rig:
        yield rig


def machine(rig: ArchiveRig) -> MachineWithCatalog:
    assert isinstance(rig.files, MachineWithCatalog)
    return rig.files


def fill(rig: ArchiveRig) -> dict[int, Receipt]:
    kept = {}
    for number in (1, 2, 3):
        kept[number] = rig.keep(make_instance(number))
        assert rig.finish() == []
    return kept


def mend(rig: ArchiveRig) -> tuple[list[Discrepancy], RebuildCounts]:
    mending = Mending(rig.files, rig.root, rig.database)
    return list(mending.run()), mending.counts


def versions_of(rig: ArchiveRig, number: int) -> list[Version]:
    uid = f"1.2.3.{number}"
    with rig.database.read() as connection:
        return catalog.find_versions(connection, [uid], tuple(VersionState)).get(uid, [])


def path_of(rig: ArchiveRig, number: int) -> str:
    return versions_of(rig, number)[-1].path


def forget(rig: ArchiveRig, *numbers: int) -> None:
    """Lose the rows of some instances, as a catalog from a backup has lost them."""
    with rig.database.write() as transaction:
        transaction.execute(text("PRAGMA defer_foreign_keys = ON"))
        for number in numbers:
            for table in (schema.changes, schema.receipts, schema.versions):
                transaction.execute(delete(table).where(table.c.version_key == number))
            transaction.execute(delete(schema.instances).where(schema.instances.c.instance_key == number))


def move(rig: ArchiveRig, path: str, to: str) -> None:
    rig.files.link(rig.path(path), rig.path(to))
    rig.files.unlink(rig.path(path))


def remove(rig: ArchiveRig, uid: str) -> None:
    removal = Removal(rig.files, rig.root, rig.database)
    removal.carry_out(removal.plan(uid), "a wish")


# What it mends.


def test_where_rows_and_files_agree_nothing_is_read_to_its_end_and_nothing_written(rig: ArchiveRig) -> None:
    fill(rig)
    before = machine(rig).print()
    machine(rig).log.clear()
    found, counts = mend(rig)
    assert (found, counts) == ([], RebuildCounts(files=3, known=3))
    assert machine(rig).print() == before
    assert {"drop_cache", "lock_directory", "link", "unlink"}.isdisjoint(
        operation.name for operation in machine(rig).log
    )


def test_whole_files_that_no_row_knows_are_listed(rig: ArchiveRig) -> None:
    kept = fill(rig)
    forget(rig, 1, 3)
    found, counts = mend(rig)
    assert (found, counts.listed, counts.known) == ([], 2, 1)
    for number, receipt in kept.items():
        check_kept(rig, receipt, make_instance(number))
    check_settled(rig)
    assert mend(rig)[1] == RebuildCounts(files=3, known=3)


def test_a_newer_file_of_a_held_instance_is_listed_beside_it(rig: ArchiveRig) -> None:
    fill(rig)
    rig.keep(make_instance(1, content=1))
    rig.finish()
    forget(rig, 4)
    with rig.database.write() as transaction:
        catalog.hold(transaction, [1], commitment_hold_reason("2.25.1", "CT"))
    assert mend(rig)[1].listed == 1
    assert [(version.is_current, version.conflict) for version in versions_of(rig, 1)] == [
        (True, True),
        (False, True),
    ]


def test_a_row_that_says_something_else_is_corrected(rig: ArchiveRig) -> None:
    fill(rig)
    with rig.database.write() as transaction:
        row = schema.versions.c.version_key == 1
        transaction.execute(update(schema.versions).where(row).values(file_size=7))
    found, counts = mend(rig)
    assert (found, counts.corrected, counts.known) == ([], 1, 2)
    assert list(Verification(rig.files, rig.root, rig.database).run()) == []


@pytest.mark.parametrize("what", ["bytes", "class", "syntax"])
def test_of_a_held_version_no_file_changes_what_was_promised(rig: ArchiveRig, what: str) -> None:
    fill(rig)
    before = versions_of(rig, 1)[0]
    # The row and not the file, which is the same to who compares both.
    with rig.database.write() as transaction:
        if what == "bytes":
            row = schema.receipts.c.receipt_key == 1
            transaction.execute(update(schema.receipts).where(row).values(digest="0" * 64))
        else:
            column = "sop_class_uid" if what == "class" else "transfer_syntax_uid"
            row = schema.versions.c.version_key == 1
            transaction.execute(update(schema.versions).where(row).values({column: "1.2.840.10008.1.2"}))
        catalog.hold(transaction, [1], commitment_hold_reason("2.25.1", "CT"))
    promised = versions_of(rig, 1)[0]
    assert promised.content != before.content
    (found,), counts = mend(rig)
    assert (found.fault, found.path, counts.corrected) == (Fault.DIFFERENT, before.path, 0)
    assert "release the holds" in found.words
    assert versions_of(rig, 1)[0] == promised
    with rig.database.write() as transaction:
        catalog.release_hold(transaction, [1], commitment_hold_reason("2.25.1", "CT"))
    assert mend(rig)[1].corrected == 1
    assert versions_of(rig, 1)[0].content == before.content


def test_a_file_that_was_moved_gets_its_row_moved(rig: ArchiveRig) -> None:
    fill(rig)
    move(rig, path_of(rig, 1), "objects/elsewhere.dcm")
    found, counts = mend(rig)
    assert (found, counts.moved) == ([], 1)
    assert path_of(rig, 1) == "objects/elsewhere.dcm"
    check_settled(rig)


def test_two_files_that_were_exchanged_are_listed_where_they_are(rig: ArchiveRig) -> None:
    fill(rig)
    one, two = path_of(rig, 1), path_of(rig, 2)
    move(rig, one, "objects/between")
    move(rig, two, one)
    move(rig, "objects/between", two)
    assert mend(rig)[0] == []
    assert (path_of(rig, 1), path_of(rig, 2)) == (two, one)
    check_settled(rig)


def test_what_was_removed_and_is_there_again_is_kept_again(rig: ArchiveRig) -> None:
    fill(rig)
    path = path_of(rig, 1)
    rig.files.link(rig.path(path), rig.path("quarantine-elsewhere"))
    remove(rig, "1.2.3.1")
    rig.files.link(rig.path("quarantine-elsewhere"), rig.path(path))
    assert mend(rig)[1].restored == 1
    assert versions_of(rig, 1)[0].state is VersionState.KEPT


# What it names and leaves.


def test_damaged_files_are_named_and_left(rig: ArchiveRig) -> None:
    fill(rig)
    forget(rig, 2)
    path = next(path for path in rig.shelf() if "1.2.3.2_" in path)
    damage(machine(rig), rig.path(path), 1)
    (one,), counts = mend(rig)
    assert (one.fault, one.path, counts.listed) == (Fault.DAMAGED, path, 0)
    assert path in rig.shelf()


def test_a_file_that_cannot_be_read_is_named(rig: ArchiveRig) -> None:
    fill(rig)
    path = path_of(rig, 2)
    for _ in range(3):
        machine(rig).fail_next("open_for_reading", rig.path(path), errno.EACCES)
    (one,), _ = mend(rig)
    assert (one.fault, one.path) == (Fault.UNREADABLE, path)


def test_a_row_without_its_file_is_named(rig: ArchiveRig) -> None:
    fill(rig)
    path = path_of(rig, 2)
    rig.files.unlink(rig.path(path))
    (one,), _ = mend(rig)
    assert (one.fault, one.path, one.sop_instance_uid) == (Fault.MISSING, path, "1.2.3.2")
    assert versions_of(rig, 2)[0].state is VersionState.KEPT


# Beside others.


STEPS = ("list_directory", "open_for_reading", "read", "status", "lock_directory", "drop_cache")


class PausedFinisher:
    """Finishes what waits, on a thread of its own, and stands still between the names and their rows."""

    def __init__(self, rig: ArchiveRig) -> None:
        self.has_placed = threading.Event()
        self._may_list = threading.Event()
        self._left: list[object] = []
        self._thread = threading.Thread(target=self._finish, args=(rig,))
        self._thread.start()
        assert self.has_placed.wait(30)

    def _finish(self, rig: ArchiveRig) -> None:
        write_rows = rig.finisher._list

        def wait(*arguments: Any) -> set[str]:
            self.has_placed.set()
            assert self._may_list.wait(30)
            return write_rows(*arguments)

        with patch.object(rig.finisher, "_list", wait):
            self._left += rig.finish()

    def go_on(self, seconds: float = 20.0) -> None:
        """Let it write its rows, and wait until it is done; less long where it may have to wait for who calls."""
        self._may_list.set()
        self._thread.join(seconds)

    def is_done(self) -> bool:
        self.go_on()
        return not self._thread.is_alive() and not self._left


@pytest.mark.parametrize("step", STEPS)
def test_what_the_finisher_is_about_to_list_is_left_to_it(rig: ArchiveRig, step: str) -> None:
    """A name is on the shelf, durably, and the row not there yet; the finisher goes on at every place."""
    kept = fill(rig)
    went_on = 0
    for number in range(10, 22):
        receipt = rig.keep(make_instance(number))
        forget(rig, *(version.version_key for version in versions_of(rig, 2)))  # so that something is listed
        finisher = PausedFinisher(rig)
        left = [number - 9]

        def go_on(operation: Operation, left: list[int] = left, finisher: PausedFinisher = finisher) -> None:
            if operation.name == step and left[0] > 0:
                left[0] -= 1
                if left[0] == 0:
                    finisher.go_on(0.5)

        machine(rig).before_each = go_on
        found, counts = mend(rig)
        assert (found, counts.listed) == ([], 1)
        went_on += left[0] == 0
        machine(rig).before_each = None
        assert finisher.is_done()
        row = next(row for row in rig.receipts() if row["receipt_id"] == receipt.receipt_id)
        assert row["answer"] == "known", "it was listed by the rebuild, which knows of no answer"
        check_settled(rig)
        remove(rig, f"1.2.3.{number}")
    check_kept(rig, kept[2], make_instance(2))
    assert went_on


@pytest.mark.parametrize("step", ["drop_cache", "close"])
def test_what_is_removed_between_its_reading_and_its_listing_stays_removed(
    rig: ArchiveRig, step: str
) -> None:
    fill(rig)
    with rig.database.write() as transaction:
        row = schema.versions.c.version_key == 1
        transaction.execute(update(schema.versions).where(row).values(file_size=7))
    path = rig.path(path_of(rig, 1))
    read: list[str] = []

    def take_away(operation: Operation) -> None:
        if operation.path == path and operation.name == "drop_cache":
            read.append(path)
        if operation.path == path and operation.name == step and read:
            machine(rig).before_each = None
            remove(rig, "1.2.3.1")

    machine(rig).before_each = take_away
    found, counts = mend(rig)
    assert (found, counts.restored, counts.corrected) == ([], 0, 0)
    assert versions_of(rig, 1)[0].state is VersionState.REMOVED
    check_settled(rig)


def test_a_name_that_a_newcomer_got_meanwhile_is_the_newcomers(rig: ArchiveRig) -> None:
    """A file without a row is read; then it is taken away by hand, and the same instance comes again to its name."""
    fill(rig)
    forget(rig, 1)
    path = next(path for path in rig.shelf() if "1.2.3.1_" in path)
    receipts: list[Receipt] = []

    def exchange(operation: Operation) -> None:
        if operation.path == rig.path(path) and operation.name == "drop_cache":
            machine(rig).before_each = None
            rig.files.unlink(rig.path(path))
            receipts.append(rig.keep(make_instance(1)))
            assert rig.finish() == []

    machine(rig).before_each = exchange
    assert mend(rig)[1].listed == 0
    check_kept(rig, receipts[0], make_instance(1))
    check_settled(rig)


def test_a_row_whose_file_is_removed_meanwhile_is_not_missed(rig: ArchiveRig) -> None:
    fill(rig)
    mending = Mending(rig.files, rig.root, rig.database)
    is_there = mending._is_there

    def be_overtaken(version: Version) -> bool:
        if version.sop_instance_uid == "1.2.3.1":
            remove(rig, "1.2.3.1")
        return is_there(version)

    with patch.object(mending, "_is_there", be_overtaken):
        assert list(mending.run()) == []


class StopError(Exception):
    pass


def test_a_pass_that_is_broken_off_anywhere_is_made_good_by_the_next(rig: ArchiveRig) -> None:
    fill(rig)
    evidence = {path: read_all(rig.files, rig.path(path)) for path in rig.shelf()}

    def stop_after(steps: int) -> Callable[[int], None]:
        left = [steps]

        def progress(_count: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise StopError

        return progress

    for steps in range(8):
        known = {version.version_key for number in (1, 2, 3) for version in versions_of(rig, number)}
        forget(rig, *known)
        with pytest.raises(StopError):
            list(Mending(rig.files, rig.root, rig.database, progress=stop_after(steps)).run())
        assert mend(rig)[0] == []
        check_settled(rig)
        assert {path: read_all(rig.files, rig.path(path)) for path in rig.shelf()} == evidence
