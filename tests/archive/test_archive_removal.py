"""Removal takes away what it was asked for and nothing else, in two durable steps that any crash may come between."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import select

from stowkeeper.archive import audit, catalog, changes
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.examine import read_receipt
from stowkeeper.archive.holding import reasons_of
from stowkeeper.archive.limits import REMOVAL_BATCH_MAX, REMOVAL_MARK_BATCH_MAX
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.removal import HeldVersion, Removal, RemovalPlan, RemovalResult, remove_due
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.database.schema import patients, receipts
from support.archive_rig import ArchiveRig, check_kept, check_settled, model_rig
from support.instances import Instance, make_instance
from support.machine_with_catalog import MachineWithCatalog, damage, once_each, running_rig
from support.model_filesystem import ModelFileSystem
from support.power_cuts import check_power_cuts

STUDY, OTHER = "1.2.10", "1.2.20"
REASON = "consent withdrawn"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ArchiveRig]:
    rig = model_rig(tmp_path, slots=20)
    with rig.database:
        yield rig


def fill(rig: ArchiveRig) -> dict[int, Receipt]:
    """Keep three instances of one study in two series, and one of another."""
    places = {1: (STUDY, "1.2.10.1"), 2: (STUDY, "1.2.10.1"), 3: (STUDY, "1.2.10.2"), 4: (OTHER, "1.2.20.1")}
    kept = {
        number: rig.keep(make_instance(number, study=study, series=series))
        for number, (study, series) in places.items()
    }
    assert rig.finish() == []
    return kept


def removal(rig: ArchiveRig) -> Removal:
    return Removal(rig.files, rig.root, rig.database)


def remove(rig: ArchiveRig, uid: str) -> RemovalResult:
    carried = removal(rig)
    return carried.carry_out(carried.plan(uid), REASON)


def state_of(rig: ArchiveRig, number: int) -> VersionState:
    with rig.database.read() as connection:
        found = catalog.find_versions(connection, [f"1.2.3.{number}"], tuple(VersionState))
    (version,) = found[f"1.2.3.{number}"]
    return version.state


def key_of(rig: ArchiveRig, receipt: Receipt) -> int:
    with rig.database.read() as connection:
        version = catalog.find_version_by_receipt(connection, receipt.receipt_id)
    assert version is not None
    return version.version_key


def folders(rig: ArchiveRig) -> list[str]:
    return [path for path in model(rig).tree() if path.startswith("/archive/objects/")]


def model(rig: ArchiveRig) -> ModelFileSystem:
    assert isinstance(rig.files, ModelFileSystem)
    return rig.files


# What goes and what stays.


@pytest.mark.parametrize(
    ("uid", "gone"),
    [(STUDY, {1, 2, 3}), ("1.2.10.1", {1, 2}), ("1.2.3.2", {2}), (OTHER, {4}), ("1.2.3.99", set())],
)
def test_a_study_a_series_or_an_instance_goes_and_nothing_else(
    rig: ArchiveRig, uid: str, gone: set[int]
) -> None:
    kept = fill(rig)
    plan = removal(rig).plan(uid)
    assert plan.found is bool(gone)
    assert (plan.versions, plan.instances) == (len(gone), len(gone))
    assert plan.size == sum(row["size"] for row in rig.versions() if int(row["sop_instance_uid"][6:]) in gone)
    assert remove(rig, uid) == RemovalResult(removed=len(gone))
    for number, receipt in kept.items():
        if number in gone:
            assert state_of(rig, number) is VersionState.REMOVED
        else:
            place = (
                ("1.2.20", "1.2.20.1") if number == 4 else (STUDY, "1.2.10.2" if number == 3 else "1.2.10.1")
            )
            check_kept(rig, receipt, make_instance(number, study=place[0], series=place[1]))
    check_settled(rig)


def test_folders_that_are_left_empty_go_too(rig: ArchiveRig) -> None:
    fill(rig)
    remove(rig, "1.2.10.1")
    assert "/archive/objects/1.2.10/1.2.10.1" not in folders(rig)
    assert "/archive/objects/1.2.10/1.2.10.2" in folders(rig)
    remove(rig, STUDY)
    assert not [path for path in folders(rig) if STUDY in path]
    remove(rig, OTHER)
    assert folders(rig) == []
    assert "/archive/objects" in model(rig).tree()


def test_a_line_stays_with_what_when_why_and_how_many(rig: ArchiveRig) -> None:
    kept = fill(rig)
    remove(rig, STUDY)
    with rig.database.read() as connection:
        told = [
            change
            for change in changes.changes_after(connection, 0)
            if change.kind in {"removing", "removed"}
        ]
        names = connection.execute(select(patients.c.patient_name)).scalars().all()
        assert len(connection.execute(select(receipts)).all()) == 4
    assert names == ["Test^Patient"]  # of the other study; it was the same patient
    for kind in ("removing", "removed"):
        lines = [change for change in told if change.kind == kind]
        assert {change.receipt_id for change in lines} == {kept[number].receipt_id for number in (1, 2, 3)}
        assert {change.detail for change in lines} == {REASON}
        assert {change.study_instance_uid for change in lines} == {STUDY}
        assert all(change.at for change in lines)


def test_held_versions_are_not_removed_and_the_reasons_are_told(rig: ArchiveRig) -> None:
    kept = fill(rig)
    with rig.database.write() as transaction:
        for reason in ("storage commitment 2.25.1", "research"):
            catalog.hold(transaction, [key_of(rig, kept[1])], reason)
    plan = removal(rig).plan(STUDY)
    ((uid, reasons),) = [(held.sop_instance_uid, held.reasons) for held in plan.held]
    assert (uid, set(reasons)) == ("1.2.3.1", {"storage commitment 2.25.1", "research"})
    assert plan.versions == 2
    assert remove(rig, STUDY).removed == 2
    assert state_of(rig, 1) is VersionState.KEPT
    check_settled(rig)


def test_what_becomes_held_after_the_plan_stays(rig: ArchiveRig) -> None:
    kept = fill(rig)
    carried = removal(rig)
    plan = carried.plan(STUDY)
    with rig.database.write() as transaction:
        catalog.hold(transaction, [key_of(rig, kept[2])], "storage commitment")
    result = carried.carry_out(plan, REASON)
    assert (result.removed, result.passed_over) == (2, 1)
    assert result.held == [
        HeldVersion(
            version_key=key_of(rig, kept[2]), sop_instance_uid="1.2.3.2", reasons=("storage commitment",)
        )
    ]
    assert state_of(rig, 2) is VersionState.KEPT


def test_every_version_of_an_instance_goes(rig: ArchiveRig) -> None:
    rig.keep(make_instance(1))
    rig.keep(make_instance(1, content=1))
    rig.finish()
    assert remove(rig, "1.2.3.1").removed == 2
    assert rig.shelf() == []


def test_a_file_that_is_missing_already_counts_as_removed(rig: ArchiveRig) -> None:
    fill(rig)
    rig.files.unlink(rig.path(rig.versions()[0]["path"]))
    assert remove(rig, "1.2.3.1") == RemovalResult(removed=1)
    assert state_of(rig, 1) is VersionState.REMOVED


def test_a_file_that_cannot_be_unlinked_stays_marked_and_is_told(rig: ArchiveRig) -> None:
    fill(rig)
    path = next(row["path"] for row in rig.versions() if row["sop_instance_uid"] == "1.2.3.1")
    model(rig).fail_next("unlink", f"*{path}", errno.EACCES)
    result = remove(rig, STUDY)
    assert (result.removed, result.left) == (2, [(path, "Permission denied")])
    assert state_of(rig, 1) is VersionState.REMOVING
    assert remove(rig, STUDY) == RemovalResult(removed=1)
    assert state_of(rig, 1) is VersionState.REMOVED


def test_a_failed_sync_leaves_the_rows_at_removing(rig: ArchiveRig) -> None:
    fill(rig)
    model(rig).fail_next("synchronize_directory", "*/1.2.20.1")
    with pytest.raises(OSError, match="Input/output error"):
        remove(rig, OTHER)
    assert state_of(rig, 4) is VersionState.REMOVING


# Damaged files are evidence.


def test_a_file_whose_head_is_damaged_goes_to_quarantine_instead(tmp_path: Path) -> None:
    with running_rig(MachineWithCatalog()) as rig:
        rig.keep(make_instance(1))
        rig.finish()
        path = rig.shelf()[0]
        assert isinstance(rig.files, MachineWithCatalog)
        damage(rig.files, rig.path(path), 200)
        assert read_receipt(rig.files, rig.path(path)) is None
        result = remove(rig, STUDY)
        assert (result.removed, result.quarantined) == (1, rig.quarantine())
        assert rig.shelf() == []
        assert len(rig.quarantine()) == 1


def test_the_row_of_a_damaged_version_is_closed_and_its_file_stays(rig: ArchiveRig) -> None:
    kept = fill(rig)
    path = next(row["path"] for row in rig.versions() if row["sop_instance_uid"] == "1.2.3.1")
    with rig.database.write() as transaction:
        catalog.mark_damaged(transaction, path, "its data set does not fit")
    rig.finisher._quarantine.put_away(path, "its data set does not fit")
    result = remove(rig, STUDY)
    assert (result.removed, result.closed, result.quarantined) == (2, 1, rig.quarantine())
    assert state_of(rig, 1) is VersionState.REMOVED
    assert removal(rig).plan(STUDY).found is False
    with rig.database.read() as connection:
        told = changes.changes_after(connection, 0)
    assert (kept[1].receipt_id, "removed", REASON) in [(c.receipt_id, c.kind, c.detail) for c in told]


def test_a_damaged_version_that_is_held_stays(rig: ArchiveRig) -> None:
    kept = fill(rig)
    with rig.database.write() as transaction:
        catalog.hold(transaction, [key_of(rig, kept[4])], "storage commitment")
        catalog.mark_damaged(
            transaction, next(row["path"] for row in rig.versions() if "1.2.20" in row["path"]), ""
        )
    plan = removal(rig).plan(OTHER)
    assert (plan.versions, len(plan.held)) == (0, 1)
    plan.damaged.append(key_of(rig, kept[4]))  # as a plan made before the hold
    assert removal(rig).carry_out(plan, REASON).closed == 0
    assert state_of(rig, 4) is VersionState.DAMAGED


# Holds that a person overrides.


def override(rig: ArchiveRig, uid: str) -> tuple[RemovalPlan, RemovalResult]:
    carried = Removal(rig.files, rig.root, rig.database, override_holds=True, who="anna")
    plan = carried.plan(uid)
    return plan, carried.carry_out(plan, REASON)


def hold(rig: ArchiveRig, receipt: Receipt, *reasons: str) -> None:
    with rig.database.write() as transaction:
        for reason in reasons:
            catalog.hold(transaction, [key_of(rig, receipt)], reason)


def test_an_override_removes_held_versions_and_the_audit_trail_says_who_and_why(rig: ArchiveRig) -> None:
    kept = fill(rig)
    hold(rig, kept[1], "commitment 2.25.1 asked by CT", "research")
    plan, result = override(rig, STUDY)
    assert (plan.versions, plan.held, len(plan.overridden)) == (3, [], 1)
    assert (result.removed, result.passed_over, result.held) == (3, 0, [])
    assert state_of(rig, 1) is VersionState.REMOVED
    with rig.database.read() as connection:
        (entry,) = audit.list_audit(connection)
        assert reasons_of(connection, [key_of(rig, kept[1])]) == {}
        told = changes.changes_after(connection, 0)
    assert (entry.who, entry.action, entry.subject) == ("anna", "hold overridden", "1.2.3.1")
    for words in (REASON, "commitment 2.25.1 asked by CT", "research"):
        assert words in entry.detail
    own = [(change.kind, change.at) for change in told if change.receipt_id == kept[1].receipt_id]
    kinds = [kind for kind, _ in own]
    assert kinds[-5:] == ["released", "released", "removing", "current", "removed"]
    assert {at for kind, at in own if kind in {"released", "removing"}} == {entry.at}, "one transaction"
    check_settled(rig)


def test_a_damaged_version_that_is_held_is_closed_by_an_override(rig: ArchiveRig) -> None:
    kept = fill(rig)
    hold(rig, kept[4], "commitment 2.25.1 asked by CT")
    with rig.database.write() as transaction:
        path = next(row["path"] for row in rig.versions() if "1.2.20" in row["path"])
        catalog.mark_damaged(transaction, path, "one bit")
    plan, result = override(rig, OTHER)
    assert (len(plan.overridden), result.closed) == (1, 1)
    assert state_of(rig, 4) is VersionState.REMOVED
    with rig.database.read() as connection:
        assert [entry.subject for entry in audit.list_audit(connection)] == ["1.2.3.4"]


def test_an_override_of_what_nobody_holds_leaves_no_line(rig: ArchiveRig) -> None:
    fill(rig)
    override(rig, STUDY)
    with rig.database.read() as connection:
        assert audit.list_audit(connection) == []


def test_an_override_releases_no_hold_that_came_after_the_plan(rig: ArchiveRig) -> None:
    """Nobody has seen that promise: the version stays, and what was to be overridden holds it still."""
    kept = fill(rig)
    hold(rig, kept[1], "research")
    carried = Removal(rig.files, rig.root, rig.database, override_holds=True, who="anna")
    plan = carried.plan(STUDY)
    hold(rig, kept[1], "commitment 2.25.1 asked by CT")
    hold(rig, kept[2], "commitment 2.25.1 asked by CT")
    result = carried.carry_out(plan, REASON)
    assert (result.removed, result.passed_over) == (1, 2)
    assert {held.sop_instance_uid: set(held.reasons) for held in result.held} == {
        "1.2.3.1": {"research", "commitment 2.25.1 asked by CT"},
        "1.2.3.2": {"commitment 2.25.1 asked by CT"},
    }
    assert [state_of(rig, number) for number in (1, 2)] == [VersionState.KEPT] * 2
    with rig.database.read() as connection:
        assert audit.list_audit(connection) == []
    assert override(rig, STUDY)[1].removed == 2, "with a new plan, which shows it, all goes"
    check_settled(rig)


def test_a_damaged_version_stays_with_a_hold_that_came_after_the_plan_of_an_override(rig: ArchiveRig) -> None:
    kept = fill(rig)
    with rig.database.write() as transaction:
        path = next(row["path"] for row in rig.versions() if "1.2.20" in row["path"])
        catalog.mark_damaged(transaction, path, "one bit")
    carried = Removal(rig.files, rig.root, rig.database, override_holds=True, who="anna")
    plan = carried.plan(OTHER)
    hold(rig, kept[4], "commitment 2.25.1 asked by CT")
    result = carried.carry_out(plan, REASON)
    assert (result.closed, result.passed_over, len(result.held)) == (0, 1, 1)
    assert state_of(rig, 4) is VersionState.DAMAGED


def test_a_removal_that_was_done_by_another_releases_and_notes_nothing(rig: ArchiveRig) -> None:
    """The file went bad and was put away after the plan: what holds it stays, as for a re-send to inherit."""
    kept = fill(rig)
    hold(rig, kept[1], "commitment 2.25.1 asked by CT")
    carried = Removal(rig.files, rig.root, rig.database, override_holds=True, who="anna")
    plan = carried.plan("1.2.3.1")
    with rig.database.write() as transaction:
        path = next(row["path"] for row in rig.versions() if row["sop_instance_uid"] == "1.2.3.1")
        catalog.mark_damaged(transaction, path, "one bit")
    result = carried.carry_out(plan, REASON)
    assert (result.removed, result.passed_over, len(result.held)) == (0, 1, 1)
    with rig.database.read() as connection:
        assert audit.list_audit(connection) == []
        assert len(reasons_of(connection, [key_of(rig, kept[1])])) == 1


def test_nobody_overrides_without_a_name(rig: ArchiveRig) -> None:
    with pytest.raises(ValueError, match="named"):
        Removal(rig.files, rig.root, rig.database, override_holds=True)


def test_a_failed_override_releases_nothing(rig: ArchiveRig) -> None:
    """Release, line and state are one transaction."""
    kept = fill(rig)
    hold(rig, kept[1], "commitment 2.25.1 asked by CT")
    with (
        patch.object(catalog, "mark_removing", side_effect=DatabaseUnavailable("the disk is full")),
        pytest.raises(DatabaseUnavailable),
    ):
        override(rig, STUDY)
    with rig.database.read() as connection:
        assert audit.list_audit(connection) == []
        assert len(reasons_of(connection, [key_of(rig, kept[1])])) == 1
    assert state_of(rig, 1) is VersionState.KEPT


# A name that is another's by now.


def test_a_name_that_a_newcomer_got_is_left_alone(rig: ArchiveRig) -> None:
    """A removal was cut off after its unlink. The same instance comes again, and just when it has the name on the
    shelf, and no row yet, the removal goes on."""
    first = rig.keep(make_instance(1))
    rig.finish()
    (path,) = rig.shelf()
    with rig.database.write() as transaction:
        catalog.mark_removing(transaction, [key_of(rig, first)], reason=REASON)
    rig.files.unlink(rig.path(path))
    second = rig.keep(make_instance(1))
    results: list[RemovalResult] = []
    write_rows = rig.finisher._list

    def go_on(*arguments: Any) -> set[str]:
        assert rig.shelf() == [path]
        results.append(remove_due(rig.files, rig.root, rig.database, "2000"))
        return write_rows(*arguments)

    with patch.object(rig.finisher, "_list", go_on):
        assert rig.finish() == []
    assert results == [RemovalResult(removed=1)]
    check_kept(rig, second, make_instance(1))
    check_settled(rig)


def test_a_removal_that_was_finished_by_another_takes_nothing_more(rig: ArchiveRig) -> None:
    """Two removals work on one version, and between them the instance comes again under the same name."""
    first = rig.keep(make_instance(1))
    rig.finish()
    slow = removal(rig)
    with rig.database.write() as transaction:
        catalog.mark_removing(transaction, [key_of(rig, first)], reason=REASON)
    remove_due(rig.files, rig.root, rig.database, "2000")
    second = rig.keep(make_instance(1))
    assert rig.finish() == []
    result = RemovalResult()
    slow.finish([key_of(rig, first)], REASON, result)
    assert result.removed == 1  # it is gone, whoever did it
    check_kept(rig, second, make_instance(1))
    check_settled(rig)


# What is due.


def test_due_versions_are_removed_after_their_time_unless_they_are_held(rig: ArchiveRig) -> None:
    kept = fill(rig)
    keys = {number: key_of(rig, receipt) for number, receipt in kept.items()}
    with rig.database.write() as transaction:
        catalog.mark_superseded(
            transaction, [keys[1], keys[2]], removal_due_at="2026-05-01", reason="replaced"
        )
        catalog.mark_superseded(transaction, [keys[3]], removal_due_at="2026-06-01", reason="replaced")
        catalog.hold(transaction, [keys[2]], "storage commitment")
    assert remove_due(rig.files, rig.root, rig.database, "2026-04-30T00:00:00.000000Z").removed == 0
    assert remove_due(rig.files, rig.root, rig.database, "2026-05-02T00:00:00.000000Z").removed == 1
    assert [state_of(rig, number) for number in (1, 2, 3, 4)] == [
        "removed",
        "superseded",
        "superseded",
        "kept",
    ]
    check_settled(rig)


# Bounds.


def test_many_versions_go_in_batches_of_the_bounds(rig: ArchiveRig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (REMOVAL_BATCH_MAX, REMOVAL_MARK_BATCH_MAX) == (64, 20_000)
    monkeypatch.setattr("stowkeeper.archive.removal.REMOVAL_BATCH_MAX", 2)
    fill(rig)
    seen: list[int] = []
    carried = Removal(rig.files, rig.root, rig.database, mark_batch_max=2, progress=seen.append)
    assert carried.carry_out(carried.plan(STUDY), REASON).removed == 3
    with rig.database.read() as connection:
        marked = [c.at for c in changes.changes_after(connection, 0) if c.kind == "removing"]
    assert len(set(marked)) == 2, "two and one in a transaction"
    assert [count for count in seen if count] == [2, 1]


# Crashes and power cuts at every step.


def check_truth(rig: ArchiveRig, instances: dict[str, Instance]) -> None:
    """Check that rows and files agree as far as they must at any moment, and that finishing makes them agree whole."""
    shelf = set(rig.shelf())
    with rig.database.read() as connection:
        found = catalog.find_versions(connection, sorted(instances), tuple(VersionState))
    for group in found.values():
        for version in group:
            if version.state is VersionState.KEPT:
                assert version.path in shelf, "a row that says kept has no file"
            if version.state is VersionState.REMOVED:
                assert version.path not in shelf, "a removed file is there again"
    remove_due(rig.files, rig.root, rig.database, "2000")
    rig.recover()
    check_settled(rig)
    assert all(version["state"] == "kept" for version in rig.versions())


@pytest.mark.slow
def test_after_a_power_cut_at_any_step_rows_and_files_agree() -> None:
    machine = MachineWithCatalog()
    instances = {f"1.2.3.{number}": make_instance(number) for number in range(1, 5)}
    with running_rig(machine) as rig:
        fill(rig)
        rig.folder.release()

        def run(tell: Callable[[str], None]) -> None:
            remove(rig, STUDY)
            tell("removed")

        @once_each
        def check(state: MachineWithCatalog, promises: tuple[str, ...]) -> None:
            with running_rig(state) as after:
                if promises:
                    assert not [path for path in after.shelf() if f"/{STUDY}/" in path]
                check_truth(after, instances)

        assert check_power_cuts(machine, run, check, states=8) > 40


@pytest.mark.slow
def test_a_kill_at_any_step_is_finished_by_the_next_who_comes_by() -> None:
    machine = MachineWithCatalog()
    with running_rig(machine) as rig:
        fill(rig)
        moments: list[MachineWithCatalog] = []
        machine.before_each = lambda _: moments.append(machine.kill())
        remove(rig, STUDY)
        machine.before_each = None
        for moment in moments:
            with running_rig(moment) as after:
                check_truth(after, {f"1.2.3.{number}": make_instance(number) for number in range(1, 5)})
