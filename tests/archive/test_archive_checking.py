"""A version that is not what its receipt says is never called whole, whatever happened to it and whatever is cached."""

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import delete, text, update

from stowkeeper.archive import catalog
from stowkeeper.archive.agreement import Fault
from stowkeeper.archive.catalog_values import Version, VersionState
from stowkeeper.archive.checking import (
    CheckLevel,
    CheckResult,
    CheckStoppedError,
    check_version,
    check_versions,
    choose_versions,
)
from stowkeeper.archive.choosing import Asker
from stowkeeper.archive.examine import examine
from stowkeeper.archive.holding import commitment_hold_reason
from stowkeeper.archive.judging import condemn, judge
from stowkeeper.archive.limits import CHECKS_PER_LOOK
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.removal import Removal
from stowkeeper.database import schema
from support.archive_rig import ArchiveRig, check_kept, check_settled, read_all
from support.instances import make_instance
from support.machine_with_catalog import MachineWithCatalog, damage, running_rig
from support.model_filesystem import Operation
from support.model_inodes import SIZE

DIGEST, EXISTS, INDEX = CheckLevel.DIGEST, CheckLevel.EXISTS, CheckLevel.INDEX


class CachingMachine(MachineWithCatalog):
    """A machine whose cache gives the bytes that it had, until it is dropped, whatever is on the medium by now."""

    def __init__(self) -> None:
        super().__init__()
        self.cached: dict[int, bytes] = {}

    def warm(self, path: str) -> None:
        """Have the whole file in the cache."""
        self.cached[self.status(path).inode] = read_all(self, path)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        held = self.cached.get(self._opened(descriptor).inode)
        found = super().read(descriptor, length, offset)
        return found if held is None else held[offset : offset + length]

    def drop_cache(self, descriptor: int) -> None:
        super().drop_cache(descriptor)
        self.cached.pop(self._opened(descriptor).inode, None)


@pytest.fixture
def machine() -> CachingMachine:
    return CachingMachine()


@pytest.fixture
def rig(machine: CachingMachine) -> Iterator[ArchiveRig]:
    with running_rig(machine, slots=20) as rig:
        yield rig


def fill(rig: ArchiveRig) -> dict[int, Receipt]:
    kept = {number: rig.keep(make_instance(number)) for number in (1, 2, 3)}
    assert rig.finish() == []
    return kept


def version_of(rig: ArchiveRig, number: int = 1) -> Version:
    uid = f"1.2.3.{number}"
    with rig.database.read() as connection:
        return catalog.find_versions(connection, [uid], tuple(VersionState))[uid][-1]


def check(
    rig: ArchiveRig, version: Version, level: CheckLevel = DIGEST, stopping: threading.Event | None = None
) -> CheckResult:
    return check_version(rig.files, rig.root, rig.database, version, level, stopping)


def chosen(rig: ArchiveRig, number: int = 1) -> Version:
    uid = f"1.2.3.{number}"
    with rig.database.read() as connection:
        version = choose_versions(connection, [uid], Asker(ae_title="SCANNER"))[uid].version
    assert version is not None
    return version


# What is whole.


@pytest.mark.parametrize("level", list(CheckLevel))
def test_what_is_whole_is_found_whole(rig: ArchiveRig, level: CheckLevel) -> None:
    fill(rig)
    assert check(rig, version_of(rig), level) == CheckResult(is_whole=True)


def test_a_digest_check_reads_every_byte_behind_the_cache(rig: ArchiveRig, machine: CachingMachine) -> None:
    """A kept file was synced before its Success, so none of its pages waits to be written when they are dropped."""
    fill(rig)
    path = rig.path(version_of(rig).path)
    machine.log.clear()
    check(rig, version_of(rig))
    assert [operation.name for operation in machine.log if operation.path == path] == [
        "open_for_reading",
        "drop_cache",
        "status",
        "read",
        "close",
    ]


def test_nothing_is_condemned_without_a_look_at_what_was_synced(
    rig: ArchiveRig, machine: CachingMachine
) -> None:
    fill(rig)
    version = version_of(rig)
    flip_data_set(rig, rig.path(version.path))
    machine.log.clear()
    check(rig, version)
    looks = [operation.name for operation in machine.log if operation.path == rig.path(version.path)]
    second = looks[looks.index("close") + 1 :]
    assert second[:3] == ["open_for_reading", "synchronize", "drop_cache"]


@pytest.mark.parametrize(("level", "looked"), [(INDEX, set()), (EXISTS, {"status"})])
def test_lower_levels_look_at_no_byte(
    rig: ArchiveRig, machine: CachingMachine, level: CheckLevel, looked: set[str]
) -> None:
    fill(rig)
    machine.log.clear()
    check(rig, version_of(rig), level)
    assert {operation.name for operation in machine.log} == looked


@pytest.mark.slow
def test_many_are_checked_in_their_order(rig: ArchiveRig) -> None:
    count = CHECKS_PER_LOOK + 3
    for start in range(0, count, 10):
        for number in range(start, min(start + 10, count)):
            rig.keep(make_instance(number))
        rig.finish()
    versions = [version_of(rig, number) for number in range(count)]
    flip_data_set(rig, rig.path(versions[1].path))
    rig.files.unlink(rig.path(versions[-1].path))
    seen: list[int] = []
    found = list(check_versions(rig.files, rig.root, rig.database, versions, DIGEST, None, seen.append))
    assert [version for version, _ in found] == versions
    results = [result for _, result in found if isinstance(result, CheckResult)]
    assert [index for index, result in enumerate(results) if not result.is_whole] == [1, count - 1]
    assert sum(seen) >= sum(version.data_set_length for version in versions[:-1])


# What is not. `harm` does it to the file of instance 1.


def delete_it(rig: ArchiveRig, path: str) -> None:
    rig.files.unlink(path)


def change_size(machine: CachingMachine, path: str, by: int) -> None:
    inode = machine._find(path)
    inode.current[SIZE] = inode.medium[SIZE] = inode.size + by


def truncate(rig: ArchiveRig, path: str) -> None:
    change_size(machine_of(rig), path, -7)


def lengthen(rig: ArchiveRig, path: str) -> None:
    change_size(machine_of(rig), path, 1)


def flip_preamble(rig: ArchiveRig, path: str) -> None:
    damage(machine_of(rig), path, 5)


def flip_meta(rig: ArchiveRig, path: str) -> None:
    damage(machine_of(rig), path, 170)


def flip_receipt(rig: ArchiveRig, path: str) -> None:
    damage(machine_of(rig), path, 700)


def flip_data_set(rig: ArchiveRig, path: str) -> None:
    damage(machine_of(rig), path, rig.files.status(path).size - 1, bit=7)


def replace_by_another(rig: ArchiveRig, path: str) -> None:
    rig.files.unlink(path)
    rig.files.link(rig.path(version_of(rig, 2).path), path)


def take_the_permission(rig: ArchiveRig, path: str) -> None:
    machine_of(rig).fail_next("open_for_reading", path, errno.EACCES)
    machine_of(rig).fail_next("status", path, errno.EACCES)


def fail_to_read(rig: ArchiveRig, path: str) -> None:
    machine_of(rig).fail_next("read", path, errno.EIO)


def forget_the_row(rig: ArchiveRig, path: str) -> None:
    with rig.database.write() as transaction:
        transaction.execute(text("PRAGMA defer_foreign_keys = ON"))
        for table in (schema.changes, schema.receipts, schema.versions):
            transaction.execute(delete(table).where(table.c.version_key == 1))
        transaction.execute(delete(schema.instances).where(schema.instances.c.instance_key == 1))


def make_the_row_differ(rig: ArchiveRig, path: str) -> None:
    with rig.database.write() as transaction:
        other = {"digest": "0" * 64}
        transaction.execute(update(schema.receipts).where(schema.receipts.c.receipt_key == 1).values(other))


def machine_of(rig: ArchiveRig) -> CachingMachine:
    assert isinstance(rig.files, CachingMachine)
    return rig.files


CONDEMNED: dict[str, Callable[[ArchiveRig, str], None]] = {
    "truncated": truncate,
    "lengthened": lengthen,
    "a bit of the preamble": flip_preamble,
    "a bit of the file meta information": flip_meta,
    "a bit of the receipt": flip_receipt,
    "a bit of the data set": flip_data_set,
}
MISSING: dict[str, Callable[[ArchiveRig, str], None]] = {
    "deleted": delete_it,
    "replaced by another instance's file": replace_by_another,
    "without its row": forget_the_row,
}
UNSAID: dict[str, Callable[[ArchiveRig, str], None]] = {
    "without permission": take_the_permission,
    "not given by the medium": fail_to_read,
}


@pytest.mark.parametrize("is_warm", [False, True], ids=["fresh", "warm"])
@pytest.mark.parametrize("harm", CONDEMNED)
def test_damage_is_found_marked_and_put_away(
    rig: ArchiveRig, machine: CachingMachine, harm: str, is_warm: bool
) -> None:
    fill(rig)
    version = version_of(rig)
    path = rig.path(version.path)
    assert check(rig, version).is_whole
    if is_warm:
        machine.warm(path)
    CONDEMNED[harm](rig, path)
    result = check(rig, version)
    assert (result.is_whole, result.is_missing) == (False, False)
    assert result.words
    assert version_of(rig).state is VersionState.DAMAGED
    assert version.path not in rig.shelf()
    assert len(rig.quarantine()) == 1
    assert not check(rig, version).is_whole
    check_settled(rig)


@pytest.mark.parametrize("is_warm", [False, True], ids=["fresh", "warm"])
@pytest.mark.parametrize("harm", MISSING)
def test_what_is_missing_is_said_to_be_missing_and_nothing_is_condemned(
    rig: ArchiveRig, machine: CachingMachine, harm: str, is_warm: bool
) -> None:
    fill(rig)
    version = version_of(rig)
    if is_warm:
        machine.warm(rig.path(version.path))
    MISSING[harm](rig, rig.path(version.path))
    for _ in range(2):
        result = check(rig, version)
        assert (result.is_whole, result.is_missing) == (False, True)
        assert result.words
    assert rig.quarantine() == []


@pytest.mark.parametrize("harm", UNSAID)
def test_what_cannot_be_read_now_is_an_error_in_words_and_nothing_is_condemned(
    rig: ArchiveRig, harm: str
) -> None:
    fill(rig)
    version = version_of(rig)
    UNSAID[harm](rig, rig.path(version.path))
    with pytest.raises(OSError, match=r"cannot be read: (Permission denied|Input/output error)"):
        check(rig, version)
    assert version_of(rig).state is VersionState.KEPT
    assert rig.quarantine() == []


def test_a_row_that_says_something_else_is_not_whole_and_the_file_stays(rig: ArchiveRig) -> None:
    fill(rig)
    stale = version_of(rig)
    make_the_row_differ(rig, stale.path)
    assert check(rig, stale) == CheckResult(is_whole=False, words="its row changed since it was chosen")
    result = check(rig, version_of(rig))
    assert (result.is_whole, result.is_missing) == (False, False)
    assert "another digest" in result.words
    assert version_of(rig).state is VersionState.KEPT


@pytest.mark.slow
def test_one_bit_anywhere_in_a_file_is_seen(rig: ArchiveRig) -> None:
    fill(rig)
    version = version_of(rig)
    path = rig.path(version.path)
    size = rig.files.status(path).size
    machine = machine_of(rig)
    machine.before_each = None
    unseen = []
    for offset in range(size):
        damage(machine, path, offset, bit=offset % 8)
        judgement = judge(machine, rig.root, version, examine(machine, path))
        if judgement.fault not in {Fault.DAMAGED, Fault.MISSING}:
            unseen.append(offset)
        damage(machine, path, offset, bit=offset % 8)
    assert unseen == []
    assert judge(machine, rig.root, version, examine(machine, path)).fault is None


def test_damage_that_is_not_there_the_second_time_is_left_alone(
    rig: ArchiveRig, machine: CachingMachine
) -> None:
    fill(rig)
    version = version_of(rig)
    path = rig.path(version.path)
    damage(machine, path, 1000)
    opened: list[Operation] = []

    def heal(operation: Operation) -> None:
        if operation.name == "open_for_reading" and operation.path == path:
            opened.append(operation)
            if len(opened) == 2:
                damage(machine, path, 1000)

    machine.before_each = heal
    with pytest.raises(OSError, match="whole the second time"):
        check(rig, version)
    assert version_of(rig).state is VersionState.KEPT


def test_what_is_removed_while_it_is_read_is_not_called_whole(rig: ArchiveRig) -> None:
    """The file was whole when it was read; its row says otherwise by then."""
    fill(rig)
    version = version_of(rig)
    path = rig.path(version.path)

    def take_away(operation: Operation) -> None:
        if operation.name == "close" and operation.path == path:
            machine_of(rig).before_each = None
            removal = Removal(rig.files, rig.root, rig.database)
            removal.carry_out(removal.plan("1.2.3.1"), "wrong patient")

    machine_of(rig).before_each = take_away
    result = check(rig, version)
    assert (result.is_whole, result.is_missing) == (False, True)
    assert "removed" in result.words


@pytest.mark.parametrize("how", ["removing", "forgotten", "another's"])
def test_nothing_is_condemned_whose_row_says_something_else_by_now(rig: ArchiveRig, how: str) -> None:
    fill(rig)
    version = version_of(rig)
    if how == "removing":
        with rig.database.write() as transaction:
            catalog.mark_removing(transaction, [1], reason="asked for")
    elif how == "forgotten":
        forget_the_row(rig, "")
    else:
        version = replace(version, version_key=99)
    with rig.database.read() as connection:
        before = [
            version.state for version in catalog.find_versions(connection, ["1.2.3.1"]).get("1.2.3.1", [])
        ]
    assert condemn(rig.files, rig.root, rig.database, version, "one bit") is None
    with rig.database.read() as connection:
        after = [
            version.state for version in catalog.find_versions(connection, ["1.2.3.1"]).get("1.2.3.1", [])
        ]
    assert after == before
    assert rig.quarantine() == []


# Levels that look at less.


@pytest.mark.parametrize(
    ("level", "harm", "is_whole"),
    [
        (INDEX, delete_it, True),
        (INDEX, flip_data_set, True),
        (INDEX, forget_the_row, False),
        (EXISTS, flip_data_set, True),
        (EXISTS, delete_it, False),
        (EXISTS, truncate, False),
        (EXISTS, lengthen, False),
        (EXISTS, forget_the_row, False),
    ],
)
def test_a_lower_level_says_what_it_looked_at(
    rig: ArchiveRig, level: CheckLevel, harm: Callable[[ArchiveRig, str], None], is_whole: bool
) -> None:
    fill(rig)
    version = version_of(rig)
    harm(rig, rig.path(version.path))
    assert check(rig, version, level).is_whole is is_whole


def test_a_wrong_length_is_condemned_after_a_second_look_only(rig: ArchiveRig) -> None:
    fill(rig)
    version = version_of(rig)
    truncate(rig, rig.path(version.path))
    assert check(rig, version, EXISTS).is_whole is False
    assert version_of(rig).state is VersionState.DAMAGED
    assert len(rig.quarantine()) == 1


def test_a_row_with_the_wrong_length_condemns_no_whole_file(rig: ArchiveRig) -> None:
    fill(rig)
    with rig.database.write() as transaction:
        row = schema.versions.c.version_key == 1
        transaction.execute(update(schema.versions).where(row).values(file_size=7))
    result = check(rig, version_of(rig), EXISTS)
    assert (result.is_whole, result.is_missing) == (False, False)
    assert version_of(rig).state is VersionState.KEPT
    assert rig.quarantine() == []


@pytest.mark.parametrize("level", list(CheckLevel))
def test_what_is_not_kept_is_not_whole_at_any_level(rig: ArchiveRig, level: CheckLevel) -> None:
    fill(rig)
    version = version_of(rig)
    with rig.database.write() as transaction:
        catalog.mark_superseded(transaction, [1], removal_due_at="2099", reason="replaced")
    result = check(rig, version, level)
    assert (result.is_whole, result.is_missing) == (False, True)


# Repair.


@pytest.mark.parametrize("harm", [*CONDEMNED, "deleted", "replaced by another instance's file"])
def test_a_resend_repairs_and_the_next_check_is_whole(rig: ArchiveRig, harm: str) -> None:
    fill(rig)
    version = chosen(rig)
    with rig.database.write() as transaction:
        catalog.hold(transaction, [version.version_key], commitment_hold_reason("2.25.1", "WORKSTATION"))
    {**CONDEMNED, **MISSING}[harm](rig, rig.path(version.path))
    assert not check(rig, version).is_whole
    receipt = rig.keep(make_instance(1))
    assert rig.finish() == []
    repaired = chosen(rig)
    assert repaired.version_key != version.version_key
    assert check(rig, repaired) == CheckResult(is_whole=True)
    assert repaired.is_held, "the promise was of these bytes"
    assert repaired.is_current
    check_kept(rig, receipt, make_instance(1))
    if harm != "replaced by another instance's file":  # of that one the older row is mended by a rebuild
        check_settled(rig)


# Stopping.


@pytest.mark.parametrize("level", [DIGEST, EXISTS])
def test_a_check_that_is_told_to_stop_begins_nothing(
    rig: ArchiveRig, machine: CachingMachine, level: CheckLevel
) -> None:
    fill(rig)
    version = version_of(rig)
    stopping = threading.Event()
    stopping.set()
    machine.log.clear()
    with pytest.raises(CheckStoppedError):
        check(rig, version, level, stopping)
    assert machine.log == []


@pytest.mark.slow
def test_a_check_stops_in_the_middle_of_a_file(rig: ArchiveRig, machine: CachingMachine) -> None:
    rig.keep(make_instance(1, size=5_000_000))
    rig.finish()
    stopping = threading.Event()
    blocks: list[Operation] = []

    def stop(operation: Operation) -> None:
        if operation.name == "read":
            blocks.append(operation)
            if len(blocks) == 3:
                stopping.set()

    machine.before_each = stop
    with pytest.raises(CheckStoppedError):
        check(rig, version_of(rig), DIGEST, stopping)
    assert len(blocks) == 3
    assert version_of(rig).state is VersionState.KEPT
