"""Verification names everything that is wrong, and nothing that is on its way; what is damaged it puts away."""

import errno
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.agreement import Discrepancy, Fault
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.judging import put_damaged_away
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.verification import (
    EVERYTHING,
    Scope,
    Verification,
    VerificationCounts,
    finish_damaged,
)
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.durable.probe import PROBE_FOLDER
from support.archive_rig import ArchiveRig, check_kept, check_settled, read_all
from support.instances import HANGING_PROTOCOL_STORAGE, Instance, make_instance
from support.machine_with_catalog import MachineWithCatalog, damage, once_each, running_rig
from support.model_filesystem import Operation
from support.power_cuts import check_power_cuts

PLACES = {1: ("1.2.10", "1.2.10.1"), 2: ("1.2.10", "1.2.10.2"), 3: ("1.2.20", "1.2.20.1")}


@pytest.fixture
def rig() -> Iterator[ArchiveRig]:
    with running_rig(MachineWithCatalog(), slots=20) as rig:
        yield rig


def instance(number: int, content: int = 0) -> Instance:
    study, series = PLACES[number]
    return make_instance(number, study=study, series=series, content=content)


def fill(rig: ArchiveRig) -> dict[int, Receipt]:
    """Keep three instances in three series of two studies."""
    kept = {number: rig.keep(instance(number)) for number in PLACES}
    assert rig.finish() == []
    return kept


def machine(rig: ArchiveRig) -> MachineWithCatalog:
    assert isinstance(rig.files, MachineWithCatalog)
    return rig.files


def verify(
    rig: ArchiveRig, *, report_only: bool = False, scope: Scope = EVERYTHING
) -> tuple[list[Discrepancy], VerificationCounts]:
    verification = Verification(rig.files, rig.root, rig.database, report_only=report_only, scope=scope)
    return list(verification.run()), verification.counts


def found(
    rig: ArchiveRig, *, report_only: bool = False, scope: Scope = EVERYTHING
) -> list[tuple[Fault, str]]:
    return sorted((one.fault, one.path) for one in verify(rig, report_only=report_only, scope=scope)[0])


def path_of(rig: ArchiveRig, number: int) -> str:
    return str(next(row["path"] for row in rig.versions() if row["sop_instance_uid"] == f"1.2.3.{number}"))


def state_of(rig: ArchiveRig, number: int) -> str:
    return str(next(row["state"] for row in rig.versions() if row["sop_instance_uid"] == f"1.2.3.{number}"))


def test_an_archive_that_is_whole_is_found_whole_and_every_byte_was_read(rig: ArchiveRig) -> None:
    fill(rig)
    rig.keep(make_instance(4, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE))
    rig.finish()
    seen: list[int] = []
    verification = Verification(rig.files, rig.root, rig.database, progress=seen.append)
    sizes = [row["size"] for row in rig.versions()]
    assert verification.expected() == (4, sum(sizes))
    assert list(verification.run()) == []
    assert verification.counts == VerificationCounts(files=4, size=sum(sizes), whole=4)
    assert sum(seen) == sum(row["data_set_length"] for row in rig.versions())
    read = {operation.path for operation in machine(rig).log if operation.name == "drop_cache"}
    assert {rig.path(path) for path in rig.shelf()} <= read


# Damaged.


@pytest.mark.parametrize("offset", [0, 140, 1000, -1])
def test_a_damaged_file_is_marked_put_away_and_named(rig: ArchiveRig, offset: int) -> None:
    kept = fill(rig)
    path = path_of(rig, 2)
    content = read_all(rig.files, rig.path(path))
    damage(machine(rig), rig.path(path), offset % len(content))
    (one,), counts = verify(rig)
    assert (one.fault, one.path, one.sop_instance_uid) == (Fault.DAMAGED, path, "1.2.3.2")
    assert one.receipt_id == kept[2].receipt_id
    assert one.words
    assert rig.quarantine() == [one.moved_to]
    assert path not in rig.shelf()
    assert state_of(rig, 2) == "damaged"
    assert (counts.files, counts.whole) == (3, 2)
    note = read_all(rig.files, rig.path(f"{one.moved_to}.txt")).decode()
    assert path in note
    assert one.words in note
    check_settled(rig)


def test_damage_is_named_again_until_the_instance_comes_again(rig: ArchiveRig) -> None:
    fill(rig)
    damage(machine(rig), rig.path(path_of(rig, 2)), 1000)
    verify(rig)
    (again,), _ = verify(rig)
    assert (again.fault, again.sop_instance_uid) == (Fault.DAMAGED, "1.2.3.2")
    assert "found damaged on 20" in again.words
    receipt = rig.keep(instance(2))
    rig.finish()
    check_kept(rig, receipt, instance(2))
    assert found(rig) == []


def test_another_version_does_not_make_up_for_a_damaged_one(rig: ArchiveRig) -> None:
    fill(rig)
    rig.keep(instance(2, content=1))
    rig.finish()
    damage(machine(rig), rig.path(path_of(rig, 2)), 1000)
    verify(rig)
    assert [one.fault for one in verify(rig)[0]] == [Fault.DAMAGED]


def test_with_report_only_nothing_is_changed(rig: ArchiveRig) -> None:
    fill(rig)
    damage(machine(rig), rig.path(path_of(rig, 2)), 1000)
    before = machine(rig).print()
    (one,), _ = verify(rig, report_only=True)
    assert (one.fault, one.moved_to) == (Fault.DAMAGED, "")
    assert machine(rig).print() == before


def test_a_superseded_version_is_verified_too(rig: ArchiveRig) -> None:
    fill(rig)
    with rig.database.write() as transaction:
        catalog.mark_superseded(transaction, [1], removal_due_at="2099", reason="replaced")
    damage(machine(rig), rig.path(path_of(rig, 1)), 1000)
    assert [fault for fault, _ in found(rig)] == [Fault.DAMAGED]


def test_a_file_that_is_whole_the_second_time_stays(rig: ArchiveRig) -> None:
    fill(rig)
    path = rig.path(path_of(rig, 1))
    damage(machine(rig), path, 1000)
    reads: list[Operation] = []

    def heal(operation: Operation) -> None:
        if operation.name == "open_for_reading" and operation.path == path:
            reads.append(operation)
            if len(reads) == 2:
                damage(machine(rig), path, 1000)

    machine(rig).before_each = heal
    (one,), _ = verify(rig)
    assert (one.fault, state_of(rig, 1)) == (Fault.UNREADABLE, "kept")
    assert "second time" in one.words


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_a_file_that_cannot_be_read_is_left_and_told(rig: ArchiveRig, error: int) -> None:
    fill(rig)
    path = path_of(rig, 3)
    machine(rig).fail_next("read", rig.path(path), error)
    (one,), _ = verify(rig)
    assert (one.fault, one.path) == (Fault.UNREADABLE, path)
    assert state_of(rig, 3) == "kept"
    assert found(rig) == []


def test_a_damaged_file_that_cannot_be_moved_is_told_and_moved_next_time(rig: ArchiveRig) -> None:
    fill(rig)
    path = path_of(rig, 1)
    damage(machine(rig), rig.path(path), 1000)
    machine(rig).fail_next("link", "*/quarantine/*", errno.ENOSPC)
    (one,), _ = verify(rig)
    assert (one.moved_to, state_of(rig, 1)) == ("", "damaged")
    assert "could not be moved to quarantine: No space left on device" in one.words
    assert path in rig.shelf()
    _, counts = verify(rig)
    assert counts.finished == 1
    assert path not in rig.shelf()


# Missing.


def test_a_row_without_its_file_is_named(rig: ArchiveRig) -> None:
    fill(rig)
    path = path_of(rig, 1)
    rig.files.unlink(rig.path(path))
    (one,), _ = verify(rig)
    assert (one.fault, one.path, one.sop_instance_uid) == (Fault.MISSING, path, "1.2.3.1")
    receipt = rig.keep(instance(1))
    rig.finish()
    check_kept(rig, receipt, instance(1))
    assert found(rig) == []


def test_a_row_at_whose_place_another_file_stands_is_missing_its_own(rig: ArchiveRig) -> None:
    fill(rig)
    one, two = path_of(rig, 1), path_of(rig, 2)
    rig.files.unlink(rig.path(one))
    rig.files.link(rig.path(two), rig.path(one))
    assert found(rig) == [(Fault.MISSING, one)]


def test_a_row_that_says_something_else_than_its_file_is_named(rig: ArchiveRig) -> None:
    from sqlalchemy import update

    from stowkeeper.database.schema import versions

    fill(rig)
    with rig.database.write() as transaction:
        transaction.execute(update(versions).where(versions.c.version_key == 1).values(file_size=7))
    (one,), _ = verify(rig)
    assert (one.fault, one.words) == (Fault.DIFFERENT, "the catalog has another size, rebuild corrects it")


# Unlisted.


def test_a_file_without_a_row_is_named_with_what_it_is(rig: ArchiveRig) -> None:
    fill(rig)
    machine(rig).place("/archive/objects/1.2.10/1.2.10.1/stray.dcm", b"no file of ours")
    machine(rig).place("/archive/objects/notes.txt", b"")
    rig.files.link(rig.path(path_of(rig, 3)), "/archive/objects/1.2.20/other.dcm")
    ones, _ = verify(rig)
    assert {one.path: (one.fault, one.sop_instance_uid) for one in ones} == {
        "objects/1.2.10/1.2.10.1/stray.dcm": (Fault.UNLISTED, ""),
        "objects/notes.txt": (Fault.UNLISTED, ""),
        "objects/1.2.20/other.dcm": (Fault.UNLISTED, "1.2.3.3"),
    }
    assert "rebuild lists it" in next(one.words for one in ones if one.path.endswith("other.dcm"))


def test_the_folder_of_probes_is_passed_by(rig: ArchiveRig) -> None:
    machine(rig).place(f"/archive/objects/{PROBE_FOLDER}/1-2", b"bytes")
    assert found(rig) == []


def test_an_unlisted_file_that_cannot_be_read_is_named(rig: ArchiveRig) -> None:
    machine(rig).place("/archive/objects/x", b"bytes")
    machine(rig).fail_next("open_for_reading", "*/x", errno.EACCES)
    (one,), _ = verify(rig)
    assert (one.fault, one.words) == (
        Fault.UNLISTED,
        "no row knows it, and it cannot be read: Permission denied",
    )


def stop_before(operation: str) -> Callable[[Operation], None]:
    def stop(next_one: Operation) -> None:
        if next_one.name == operation and "depot" in next_one.path:
            raise KeyboardInterrupt

    return stop


def test_a_file_on_its_way_is_not_called_unlisted(rig: ArchiveRig) -> None:
    """Its name is on the shelf, its row is not there yet, its depot name is."""
    rig.keep(instance(1))
    (waiting,) = rig.waiting
    rig.finisher._place(waiting)
    assert len(rig.shelf()) == 1
    ones, counts = verify(rig)
    assert ones == []
    assert counts.in_flight == 1
    rig.finish()
    assert found(rig) == []


@pytest.mark.parametrize("step", ["list_directory", "status"])
def test_a_file_whose_row_comes_meanwhile_is_not_called_unlisted(rig: ArchiveRig, step: str) -> None:
    """The finisher goes on at every place between the looks that decide."""
    rig.keep(instance(1))
    (waiting,) = rig.waiting
    rig.finisher._place(waiting)

    def go_on(operation: Operation) -> None:
        if operation.name == step and ("depot" in operation.path or operation.path.endswith(".dcm")):
            machine(rig).before_each = None
            assert rig.finish() == []

    machine(rig).before_each = go_on
    assert found(rig) == []


def test_a_file_that_is_removed_meanwhile_is_not_missed(rig: ArchiveRig) -> None:
    from stowkeeper.archive.removal import Removal

    fill(rig)
    path = rig.path(path_of(rig, 1))

    def take_away(operation: Operation) -> None:
        if operation.name == "open_for_reading" and operation.path == path:
            machine(rig).before_each = None
            removal = Removal(rig.files, rig.root, rig.database)
            removal.carry_out(removal.plan("1.2.3.1"), "wrong patient")

    machine(rig).before_each = take_away
    assert found(rig) == []


# What was cut off.


def test_a_removal_that_was_cut_off_is_finished(rig: ArchiveRig) -> None:
    fill(rig)
    with rig.database.write() as transaction:
        catalog.mark_removing(transaction, [1, 2], reason="wrong patient")
    ones, counts = verify(rig, report_only=True)
    assert (ones, counts.unfinished) == ([], 2)
    assert len(rig.shelf()) == 3
    ones, counts = verify(rig)
    assert (ones, counts.finished, counts.unfinished) == ([], 2, 0)
    assert len(rig.shelf()) == 1
    check_settled(rig)


def test_a_removal_that_cannot_be_finished_is_named(rig: ArchiveRig) -> None:
    fill(rig)
    with rig.database.write() as transaction:
        catalog.mark_removing(transaction, [1], reason="wrong patient")
    path = path_of(rig, 1)
    machine(rig).fail_next("unlink", rig.path(path), errno.EACCES)
    assert found(rig) == [(Fault.UNREADABLE, path)]


def test_a_move_to_quarantine_that_was_cut_off_is_finished(rig: ArchiveRig) -> None:
    fill(rig)
    path = path_of(rig, 1)
    damage(machine(rig), rig.path(path), 1000)
    with rig.database.write() as transaction:
        catalog.mark_damaged(transaction, path, "its data set does not fit")
    ones, counts = verify(rig, report_only=True)
    assert [one.fault for one in ones] == [Fault.DAMAGED]
    assert counts.unfinished == 1
    assert finish_damaged(rig.files, rig.root, rig.database) == 1
    assert path not in rig.shelf()
    assert len(rig.quarantine()) == 1
    assert finish_damaged(rig.files, rig.root, rig.database) == 0


def test_only_a_damaged_file_itself_is_put_away(rig: ArchiveRig) -> None:
    """After it went, its name may be a newcomer's, which has its row or is about to get it."""
    first = rig.keep(instance(1))
    rig.finish()
    (path,) = rig.shelf()
    with rig.database.write() as transaction:
        catalog.mark_damaged(transaction, path, "its data set does not fit")
    rig.files.unlink(rig.path(path))

    def put_away() -> str:
        return put_damaged_away(
            rig.files, rig.root, rig.database, path=path, receipt_id=first.receipt_id, words="damaged"
        )

    assert put_away() == ""
    second = rig.keep(instance(1))
    not_yet = patch.object(rig.finisher, "_list", side_effect=DatabaseUnavailable("not yet"))
    with not_yet, pytest.raises(DatabaseUnavailable):
        rig.finish()
    assert rig.shelf() == [path]
    assert put_away() == ""
    rig.finish()
    assert put_away() == ""
    check_kept(rig, second, instance(1))
    check_settled(rig)
    damage(machine(rig), rig.path(path), 200)
    assert put_away() == "", "whatever is wrong with it, its own row has to say so first"


# Scopes.


@pytest.mark.parametrize(
    ("scope", "numbers"),
    [
        (Scope(study_instance_uid="1.2.10"), {1, 2}),
        (Scope(series_instance_uid="1.2.10.2"), {2}),
        (Scope(study_instance_uid="1.2.10", series_instance_uid="1.2.10.1"), {1}),
        (Scope(study_instance_uid="1.2.20", series_instance_uid="1.2.10.1"), set()),
        (Scope(study_instance_uid="1.2.99"), set()),
        (Scope(received_from="2000-01"), {1, 2, 3}),
        (Scope(received_from="2999-01"), set()),
    ],
)
def test_only_what_was_asked_for_is_verified(rig: ArchiveRig, scope: Scope, numbers: set[int]) -> None:
    fill(rig)
    for number in PLACES:
        path = rig.path(path_of(rig, number))
        damage(machine(rig), path, rig.files.status(path).size - 1)
        rig.files.link(rig.path(path_of(rig, number)), rig.path(path_of(rig, number)) + ".dcm")
    paths = {path_of(rig, number) for number in numbers}
    verification = Verification(rig.files, rig.root, rig.database, scope=scope)
    assert verification.expected()[0] == len(numbers)
    assert found(rig, scope=scope, report_only=True) == sorted(
        [(Fault.DAMAGED, path) for path in paths] + [(Fault.UNLISTED, f"{path}.dcm") for path in paths]
    )


def test_what_arrives_during_a_verification_does_not_lengthen_it(
    rig: ArchiveRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowkeeper.archive.verification.ROWS_PER_PAGE", 1)
    fill(rig)
    number = iter(range(100, 200))
    verification = Verification(rig.files, rig.root, rig.database)
    seen: list[int] = []
    for row in verification._rows((VersionState.KEPT,)):
        seen.append(row.version_key)
        rig.keep(make_instance(next(number)))
        rig.finish()
    assert seen == [1, 2, 3]


# Power cuts.


@pytest.mark.slow
def test_after_a_power_cut_at_any_step_a_damaged_file_is_still_there_and_found_again() -> None:
    world = MachineWithCatalog()
    with running_rig(world) as rig:
        receipts = fill(rig)
        path = path_of(rig, 2)
        damage(world, rig.path(path), 1000)
        evidence = read_all(world, rig.path(path))
        rig.folder.release()

        def run(tell: Callable[[str], None]) -> None:
            verify(rig)
            tell("verified")

        @once_each
        def check(state: MachineWithCatalog, promises: tuple[str, ...]) -> None:
            with running_rig(state) as after:
                if promises:
                    assert state_of(after, 2) == "damaged"
                    assert path not in after.shelf()
                assert evidence in [content for content in state.tree().values() if content]
                assert [one.fault for one in verify(after)[0]] == [Fault.DAMAGED]
                assert len(after.quarantine()) == 1
                assert read_all(state, after.path(after.quarantine()[0])) == evidence
                for number in (1, 3):
                    check_kept(after, receipts[number], instance(number))
                check_settled(after)

        assert check_power_cuts(world, run, check, states=8) > 40
