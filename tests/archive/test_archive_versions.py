"""Versions: their states, what guards them, and who is current when one goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.archive import catalog, changes, listing
from stowkeeper.archive.catalog import CatalogEntry, InsertResult, Version, VersionOrder, VersionState
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from support.catalog_rows import make_entry, open_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        yield opened


def insert(database: Database, *entries: CatalogEntry) -> list[InsertResult]:
    with database.write() as transaction:
        return catalog.insert(transaction, entries)


def versions_of(database: Database, instance: object) -> list[Version]:
    states = tuple(VersionState)
    with database.read() as connection:
        return catalog.find_versions(connection, [f"1.2.3.{instance}"], states).get(f"1.2.3.{instance}", [])


def states_of(database: Database, instance: object) -> list[tuple[str, bool]]:
    return [(str(version.state), version.is_current) for version in versions_of(database, instance)]


def changes_of(database: Database, after: int) -> list[tuple[str, int | None, str]]:
    with database.read() as connection:
        return [
            (str(change.kind), change.version_key, change.detail)
            for change in changes.changes_after(connection, after)
        ]


def remove(database: Database, *keys: int) -> list[int]:
    with database.write() as transaction:
        marked = catalog.mark_removing(transaction, keys, reason="asked for")
    with database.write() as transaction:
        catalog.mark_removed(transaction, [version.version_key for version in marked])
    return [version.version_key for version in marked]


def for_removal(database: Database, uid: str) -> list[int]:
    with database.read() as connection:
        return sorted(version.version_key for version in catalog.versions_for_removal(connection, uid))


# Damage and repair.


def test_damage_gives_the_pointer_to_the_next_best_and_back_to_none(database: Database) -> None:
    old, new = make_entry(1, 1, content="old"), make_entry(1, 2, content="new")
    insert(database, old, new)
    with database.write() as transaction:
        damaged = catalog.mark_damaged(transaction, new.path, "one bit")
        assert damaged is not None
        assert damaged.version_key == 2
    assert states_of(database, 1) == [("kept", True), ("damaged", False)]
    with database.write() as transaction:
        catalog.mark_damaged(transaction, old.path, "gone")
    assert states_of(database, 1) == [("damaged", False), ("damaged", False)]
    assert changes_of(database, 3)[-4:] == [
        ("damaged", 2, "one bit"),
        ("current", 1, ""),
        ("damaged", 1, "gone"),
        ("current", None, ""),
    ]


def test_damage_where_nothing_is_listed_is_no_ones(database: Database) -> None:
    with database.write() as transaction:
        assert catalog.mark_damaged(transaction, "objects/1/2/3.dcm", "what is this") is None


def test_a_resend_repairs_without_a_conflict(database: Database) -> None:
    damaged, again = make_entry(1, 1), make_entry(1, 2)
    insert(database, damaged)
    with database.write() as transaction:
        results = catalog.insert(transaction, [again])
        catalog.mark_damaged(transaction, damaged.path, "replaced by a re-send")
    assert results[0].outcome is catalog.ReceiptOutcome.STORED
    assert states_of(database, 1) == [("damaged", False), ("kept", True)]
    assert not any(version.conflict for version in versions_of(database, 1))


def test_a_resend_that_takes_the_name_of_a_file_that_was_missing_mends_it(database: Database) -> None:
    missing = make_entry(1, 1, path="objects/1/2/3.dcm")
    insert(database, missing)
    with database.write() as transaction:
        catalog.hold(transaction, [1], "committed to SCANNER")
    insert(database, make_entry(1, 2, path="objects/1/2/3.dcm"))
    assert states_of(database, 1) == [("damaged", False), ("kept", True)]
    with database.read() as connection:
        standing = catalog.find_version_by_path(connection, "objects/1/2/3.dcm")
    assert standing is not None
    assert (standing.version_key, standing.is_held) == (2, True)


def test_the_repaired_bytes_stay_held(database: Database) -> None:
    damaged = make_entry(1, 1)
    insert(database, damaged, make_entry(2, 1))
    with database.write() as transaction:
        catalog.hold(transaction, [1], "committed to SCANNER")
        catalog.mark_damaged(transaction, damaged.path, "one bit")
    insert(database, make_entry(1, 2, content="other bytes"))
    assert [version.is_held for version in versions_of(database, 1)] == [True, False]
    insert(database, make_entry(1, 3))
    assert [version.is_held for version in versions_of(database, 1)] == [True, False, True]


# Conflicts, supersession.


def test_a_conflict_ends_when_one_side_goes(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"), make_entry(1, 2, content="b"))
    assert [version.conflict for version in versions_of(database, 1)] == [True, True]
    remove(database, 1)
    assert [version.conflict for version in versions_of(database, 1)] == [False, False]
    with database.read() as connection:
        assert list(catalog.conflicts(connection)) == []


def test_a_conflict_goes_on_between_those_that_are_left(database: Database) -> None:
    insert(database, *(make_entry(1, number, content=f"{number}") for number in (1, 2, 3)))
    remove(database, 2)
    assert [version.conflict for version in versions_of(database, 1)] == [True, False, True]


def test_conflicts_are_listed_instance_by_instance(database: Database) -> None:
    for instance in (1, 2):
        insert(database, make_entry(instance, 2, content="b"))
        insert(database, make_entry(instance, 1, content="a"))
    with database.read() as connection:
        found = [
            (uid, [v.version_key for v in conflicting]) for uid, conflicting in catalog.conflicts(connection)
        ]
    assert found == [("1.2.3.1", [2, 1]), ("1.2.3.2", [4, 3])]


def test_a_superseded_version_is_due_later_and_only_once(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"))
    (result,) = insert(database, make_entry(1, 2, content="b"))
    with database.write() as transaction:
        marked = catalog.mark_superseded(
            transaction, result.differing, removal_due_at="2026-02-01T00:00:00.000000Z", reason="replaced"
        )
    assert [version.version_key for version in marked] == [1]

    def due(now: str) -> list[int]:
        with database.read() as connection:
            return [version.version_key for version in catalog.due_for_removal(connection, now)]

    assert due("2026-01-31") == []
    assert due("2026-02-02") == [1]
    with database.write() as transaction:
        catalog.mark_removing(transaction, [1], reason="due")
    assert due("2026-01-31") == [1], "a removal that was cut short is taken up again at once"
    with database.write() as transaction:
        catalog.mark_removed(transaction, [1])
    assert due("2027") == []


def test_what_is_identical_to_a_superseded_version_is_decided_again(database: Database) -> None:
    old = make_entry(1, 1, content="a")
    insert(database, old, make_entry(1, 2, content="b"))
    with database.write() as transaction:
        catalog.mark_superseded(transaction, [1], removal_due_at="2026", reason="replaced")
        again = make_entry(1, 3, content="a")
        (result,) = catalog.insert_identical(transaction, [(again, old.receipt.receipt_id)])
    assert result.outcome is None


# Holds.


def test_a_held_version_is_neither_superseded_nor_removed(database: Database) -> None:
    insert(database, make_entry(1, 1), make_entry(2, 2))
    with database.write() as transaction:
        catalog.hold(transaction, [1], "committed to A")
        catalog.hold(transaction, [1, 1], "committed to B")
        catalog.hold(transaction, [1], "committed to A")
        assert catalog.mark_superseded(transaction, [1], removal_due_at="2026", reason="") == []
    assert remove(database, 1, 2) == [2]
    with database.write() as transaction:
        catalog.release_hold(transaction, [1], "committed to A")
        assert catalog.mark_removing(transaction, [1], reason="") == []
        catalog.release_hold(transaction, [1, 2], "committed to B")
        assert [version.version_key for version in catalog.mark_removing(transaction, [1], reason="")] == [1]
    assert [kind for kind, key, _ in changes_of(database, 2) if key == 1] == [
        *("held", "held", "released", "released", "removing"),
    ]


def test_a_held_superseded_version_is_not_due(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"), make_entry(1, 2, content="b"))
    with database.write() as transaction:
        catalog.mark_superseded(transaction, [1], removal_due_at="2026", reason="")
        catalog.hold(transaction, [1], "committed")
    with database.read() as connection:
        assert catalog.due_for_removal(connection, "2027") == []


# Removal.


def test_removal_is_asked_by_study_series_or_instance(database: Database) -> None:
    insert(
        database,
        make_entry(1, 1, study="1.2.1", series="1.2.1.1"),
        make_entry(2, 2, study="1.2.1", series="1.2.1.2"),
        make_entry(3, 3, study="1.2.2", series="1.2.2.1"),
        make_entry(3, 4, study="1.2.2", series="1.2.2.1", content="another"),
        make_entry(4, 5, study="1.2.2", series="1.2.1.2"),
        make_entry(5, 6, study=None, series=None),
    )
    assert for_removal(database, "1.2.1") == [1, 2]
    assert for_removal(database, "1.2.1.2") == [2, 5]
    assert for_removal(database, "1.2.3.3") == [3, 4]
    assert for_removal(database, "1.2.3.5") == [6]
    assert for_removal(database, "1.2.9") == []


def test_removal_says_so_first_and_moves_the_pointer_then(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a"), make_entry(1, 2, content="b"))
    with database.write() as transaction:
        catalog.mark_removing(transaction, [2], reason="asked for")
    assert states_of(database, 1) == [("kept", True), ("removing", False)]
    assert for_removal(database, "1.2.3.1") == [1, 2], "one that was cut short is among them"
    with database.write() as transaction:
        assert catalog.mark_removed(transaction, [1, 2])[0].version_key == 2, (
            "only what was removing is removed"
        )
    assert states_of(database, 1) == [("kept", True), ("removed", False)]
    with database.read() as connection:
        assert [v.version_key for v in catalog.find_versions(connection, ["1.2.3.1"])["1.2.3.1"]] == [1]


def test_a_damaged_file_is_never_removed(database: Database) -> None:
    entry = make_entry(1, 1)
    insert(database, entry)
    with database.write() as transaction:
        catalog.mark_damaged(transaction, entry.path, "one bit")
    assert for_removal(database, "1.2.1") == []
    assert remove(database, 1) == []


def test_after_the_last_version_nothing_tells_who_the_patient_was(database: Database) -> None:
    about: dict[str, Any] = {
        "patient_id": "P",
        "patient_name": "A^B",
        "study_description": "head",
        "series_description": "axial",
    }
    insert(
        database,
        make_entry(1, 1, study="1.2.1", series="1.2.1.1", **about),
        make_entry(2, 2, study="1.2.1", series="1.2.1.2", **about),
    )
    remove(database, 1)
    assert [row["series_description"] for row in listing.series(database)] == ["axial"]
    assert [row["patient_name"] for row in listing.studies(database)] == ["A^B"]
    remove(database, 2)
    assert list(listing.studies(database)) == list(listing.series(database)) == []
    with database.read() as connection:
        assert connection.execute(schema.patients.select()).all() == []
        for table in (schema.studies, schema.series):
            for row in connection.execute(table.select()).mappings():
                assert not any(value for name, value in row.items() if not name.endswith(("_key", "_uid")))
    assert [row["outcome"] for row in listing.receipts(database)] == ["stored", "stored"], "the ledger stays"


def test_what_comes_again_after_its_removal_is_new_and_no_conflict(database: Database) -> None:
    insert(database, make_entry(1, 1, content="a", patient_id="P", path="objects/1/2/3.dcm"))
    remove(database, 1)
    (result,) = insert(database, make_entry(1, 2, content="b", patient_id="P", path="objects/1/2/3.dcm"))
    assert (result.outcome, result.is_current) == (catalog.ReceiptOutcome.STORED, True)
    assert [row["patient_id"] for row in listing.studies(database)] == ["P"]
    assert "patient" not in [kind for kind, _, _ in changes_of(database, 0)]
    assert not any(version.conflict for version in versions_of(database, 1))


def test_a_patient_of_two_studies_stays_with_the_other(database: Database) -> None:
    insert(
        database,
        make_entry(1, 1, study="1.2.1", series="1.2.1.1", patient_id="P"),
        make_entry(2, 2, study="1.2.2", series="1.2.2.1", patient_id="P"),
    )
    remove(database, 1)
    assert [row["patient_id"] for row in listing.studies(database)] == ["P"]


# Walking through all of them.


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_a_walk_yields_each_version_once_in_either_order(database: Database, page: int) -> None:
    entries = [
        make_entry(number, number, study=f"1.2.{number % 2}", series=f"1.2.{number % 2}.1")
        for number in range(1, 8)
    ]
    entries += [
        make_entry(8, 8, study=None, series=None),
        make_entry(1, 9, study="1.2.1", series="1.2.1.1", content="b"),
    ]
    insert(database, *entries)
    remove(database, 4)

    def walk(order: VersionOrder) -> list[int]:
        return [version.version_key for version in catalog.iterate_versions(database, order, page=page)]

    assert walk(VersionOrder.LISTED) == [1, 2, 3, 5, 6, 7, 8, 9]
    assert walk(VersionOrder.FOLDER) == [8, 1, 9, 3, 5, 7, 2, 6]


def test_a_walk_keeps_no_snapshot_open(database: Database) -> None:
    insert(database, make_entry(1, 1), make_entry(2, 2))
    walk = catalog.iterate_versions(database, page=1)
    assert next(walk).version_key == 1
    insert(database, make_entry(3, 3))
    assert [version.version_key for version in walk] == [2, 3]


def test_a_walk_can_be_about_some_states_only(database: Database) -> None:
    insert(database, make_entry(1, 1), make_entry(2, 2))
    with database.write() as transaction:
        catalog.mark_removing(transaction, [2], reason="")
    walk = catalog.iterate_versions(database, states=(VersionState.REMOVING,))
    assert [version.version_key for version in walk] == [2]
