"""The catalog: what goes in comes out once, in whatever order and however often it is told."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, text

from stowkeeper.archive import catalog, changes, listing
from stowkeeper.archive.catalog import (
    VERSION_ATTRIBUTES,
    CatalogEntry,
    InsertResult,
    ReceiptOutcome,
    Version,
    VersionState,
)
from stowkeeper.archive.patient_tree import PATIENTS, SERIES, STUDIES
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.database.limits import VARIABLES_MAX
from stowkeeper.dicom.attributes import InstanceAttributes
from support.catalog_rows import (
    HANGING_PROTOCOL_STORAGE,
    IMPLICIT_VR_LITTLE_ENDIAN,
    make_entry,
    open_database,
)
from support.examples import examples


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        yield opened


def insert(database: Database, *entries: CatalogEntry) -> list[InsertResult]:
    with database.write() as transaction:
        return catalog.insert(transaction, entries)


def insert_identical(database: Database, entry: CatalogEntry, older: CatalogEntry) -> InsertResult:
    with database.write() as transaction:
        return catalog.insert_identical(transaction, [(entry, older.receipt.receipt_id)])[0]


def versions_of(database: Database, instance: object) -> list[Version]:
    with database.read() as connection:
        return catalog.find_versions(connection, [f"1.2.3.{instance}"]).get(f"1.2.3.{instance}", [])


def change_kinds(database: Database) -> list[tuple[str, str]]:
    with database.read() as connection:
        return [(str(change.kind), change.receipt_id) for change in changes.changes_after(connection, 0)]


def counts(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
        }


# Going in.


def test_an_instance_goes_in_with_all_that_is_known_of_it(database: Database) -> None:
    entry = make_entry(1, 10, verdicts=("StudyDate is odd",), patient_id="P", rows=512, rt_plan_label="plan")
    (result,) = insert(database, entry)
    assert result == InsertResult(
        receipt_id=entry.receipt.receipt_id,
        outcome=ReceiptOutcome.STORED,
        new=True,
        version_key=1,
        is_current=True,
    )
    assert versions_of(database, 1) == [
        Version(
            version_key=1,
            instance_key=1,
            sop_instance_uid="1.2.3.1",
            sop_class_uid=entry.receipt.sop_class_uid,
            transfer_syntax_uid=entry.receipt.transfer_syntax_uid,
            study_instance_uid="1.2.1",
            series_instance_uid="1.2.1.1",
            path=entry.path,
            file_size=2500,
            state=VersionState.KEPT,
            conflict=False,
            is_current=True,
            is_held=False,
            receipt_id=entry.receipt.receipt_id,
            digest=entry.receipt.digest,
            data_set_length=1000,
            received_at="2026-01-02T00:00:10.000000Z",
        )
    ]
    with database.read() as connection:
        receipt = connection.execute(select(schema.receipts)).mappings().one()
        version = connection.execute(select(schema.versions)).mappings().one()
    for name in ("receipt_id", "digest", "received_by", "calling_ae_title", "peer_address", "association_id"):
        assert receipt[name] == getattr(entry.receipt, name)
    assert (receipt["answer"], json.loads(receipt["verdicts"])) == ("known", ["StudyDate is odd"])
    assert (version["rows"], version["rt_plan_label"], version["columns"]) == (512, "plan", None)
    assert change_kinds(database) == [("received", entry.receipt.receipt_id)]


def test_every_attribute_has_its_level() -> None:
    identity = {"sop_class_uid", "sop_instance_uid", "study_instance_uid", "series_instance_uid"}
    levels = [
        *("patient_id", "issuer_of_patient_id", *PATIENTS.attributes),
        *STUDIES.attributes,
        *SERIES.attributes,
        *VERSION_ATTRIBUTES,
    ]
    assert sorted(levels) == sorted({field.name for field in fields(InstanceAttributes)} - identity)


def test_every_attribute_is_written_and_read_back(database: Database) -> None:
    given_values: dict[str, Any] = {
        field.name: 7 if "int" in str(field.type) else f"value of {field.name}"
        for field in fields(InstanceAttributes)
        if not field.name.endswith("instance_uid") and field.name != "sop_class_uid"
    }
    insert(database, make_entry(1, 1, **given_values))
    with database.read() as connection:
        rows = [
            connection.execute(select(table)).mappings().one()
            for table in (schema.patients, schema.studies, schema.series, schema.versions)
        ]
    shown = {name: value for row in rows for name, value in row.items() if name in given_values}
    assert shown == given_values


def test_the_same_receipt_twice_changes_nothing(database: Database) -> None:
    first, second = make_entry(1, 1), make_entry(2, 2)
    results = insert(database, first, second, first)
    assert [result.new for result in results] == [True, True, False]
    before = counts(database)
    again = insert(database, second, first)
    assert [(result.new, result.outcome, result.version_key) for result in again] == [
        (False, ReceiptOutcome.STORED, 2),
        (False, ReceiptOutcome.STORED, 1),
    ]
    assert counts(database) == before
    assert before["changes"] == before["receipts"] == before["versions"] == 2


def test_a_batch_that_is_rolled_back_leaves_nothing_and_goes_in_later(database: Database) -> None:
    entry = make_entry(1, 1, patient_id="P")

    def fail() -> None:
        with database.write() as transaction:
            catalog.insert(transaction, [entry])
            raise InterruptedError

    before = counts(database)
    with pytest.raises(InterruptedError):
        fail()
    assert counts(database) == before
    assert insert(database, entry)[0].new


@pytest.mark.slow
def test_a_batch_larger_than_any_statement_goes_in(database: Database) -> None:
    entries = [make_entry(number, number, study=f"1.2.{number}") for number in range(VARIABLES_MAX + 20)]
    assert all(result.new for result in insert(database, *entries))
    assert not any(result.new for result in insert(database, *entries))
    with database.read() as connection:
        found = catalog.find_versions(connection, [entry.receipt.sop_instance_uid for entry in entries])
    assert len(found) == len(entries)


def test_an_answer_that_is_not_known_is_listed_so(database: Database) -> None:
    insert(database, make_entry(1, 1, answer_known=False))
    (receipt,) = listing.receipts(database)
    assert receipt["answer"] == "unknown"


def test_a_receipt_is_found_when_it_is_durable(database: Database) -> None:
    entry = make_entry(1, 1)
    with database.read() as connection:
        assert not catalog.has_receipt(connection, entry.receipt.receipt_id)
    insert(database, entry)
    with database.read() as connection:
        assert catalog.has_receipt(connection, entry.receipt.receipt_id)
        assert catalog.find_version_by_receipt(connection, "no such receipt") is None
        version = catalog.find_version_by_receipt(connection, entry.receipt.receipt_id)
        assert version is not None
        assert catalog.find_version_by_path(connection, entry.path) == version
        assert catalog.find_version_by_path(connection, "objects/elsewhere") is None


def test_the_database_knows_its_archive(database: Database) -> None:
    with database.read() as connection:
        assert catalog.archive_id(connection) is None
    with database.write() as transaction:
        catalog.set_archive_id(transaction, "the id")
    with database.read() as connection:
        assert catalog.archive_id(connection) == "the id"


def test_instances_whose_uids_share_a_hash_stay_apart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catalog, schema):
        monkeypatch.setattr(module, "uid_hash", lambda _uid: 7)
    insert(database, make_entry(1, 1), make_entry(2, 2), make_entry(2, 3, content="b"))
    assert [version.version_key for version in versions_of(database, 1)] == [1]
    assert [version.version_key for version in versions_of(database, 2)] == [2, 3]


# Further versions.


def test_the_newest_received_is_current_whenever_it_was_listed(database: Database) -> None:
    new, old = make_entry(1, 20, content="new"), make_entry(1, 10, content="old")
    insert(database, new)
    (result,) = insert(database, old)
    assert (result.outcome, result.is_current, result.differing) == (ReceiptOutcome.CONFLICT, False, ())
    assert [(version.is_current, version.conflict) for version in versions_of(database, 1)] == [
        (False, True),
        (True, True),
    ]
    assert [kind for kind, _ in change_kinds(database)] == ["received", "received"]


def test_a_newer_version_moves_the_pointer_by_a_change_row(database: Database) -> None:
    old, new = make_entry(1, 10, content="old"), make_entry(1, 20, content="new")
    insert(database, old)
    (result,) = insert(database, new)
    assert (result.outcome, result.is_current, result.differing) == (ReceiptOutcome.CONFLICT, True, (1,))
    with database.read() as connection:
        moved = changes.changes_after(connection, 2)
    assert [(c.kind, c.version_key, c.previous_version_key, c.receipt_id) for c in moved] == [
        (changes.ChangeKind.CURRENT, 2, 1, new.receipt.receipt_id)
    ]
    assert moved[0].sop_instance_uid == "1.2.3.1"
    assert moved[0].study_instance_uid == "1.2.1"


@pytest.mark.parametrize(
    "other",
    [
        {"content": "other"},
        {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"},
        {"transfer_syntax_uid": IMPLICIT_VR_LITTLE_ENDIAN},
    ],
    ids=["digest", "class", "syntax"],
)
def test_what_differs_is_a_listed_conflict(database: Database, other: dict[str, Any]) -> None:
    insert(database, make_entry(1, 1), make_entry(2, 2))
    insert(database, make_entry(1, 3, **other))
    with database.read() as connection:
        conflicts = list(catalog.conflicts(connection))
    assert [(uid, [version.version_key for version in found]) for uid, found in conflicts] == [
        ("1.2.3.1", [1, 3])
    ]


def test_versions_of_one_instance_in_one_batch(database: Database) -> None:
    entries = [make_entry(1, number, content=f"{number}") for number in (3, 1, 2)]
    results = insert(database, *entries)
    assert [result.outcome for result in results] == [
        ReceiptOutcome.CONFLICT,
        ReceiptOutcome.STORED,
        ReceiptOutcome.CONFLICT,
    ]
    assert [version.received_at[-10:-8] for version in versions_of(database, 1)] == ["01", "02", "03"]
    assert [version.is_current for version in versions_of(database, 1)] == [False, False, True]


def test_identical_ones_share_a_version(database: Database) -> None:
    first, again = make_entry(1, 1), make_entry(1, 2)
    insert(database, first)
    result = insert_identical(database, again, first)
    assert (result.outcome, result.new, result.version_key, result.is_current) == (
        ReceiptOutcome.IDENTICAL,
        True,
        1,
        True,
    )
    assert not insert_identical(database, again, first).new
    assert len(versions_of(database, 1)) == 1
    with database.read() as connection:
        version = catalog.find_version_by_receipt(connection, again.receipt.receipt_id)
    assert version is not None
    assert version.path == first.path
    assert change_kinds(database) == [
        ("received", first.receipt.receipt_id),
        ("received", again.receipt.receipt_id),
    ]


def test_identical_to_one_of_the_same_batch(database: Database) -> None:
    first, again = make_entry(1, 1), make_entry(1, 2)
    with database.write() as transaction:
        catalog.insert(transaction, [first])
        results = catalog.insert_identical(
            transaction, [(again, first.receipt.receipt_id), (again, first.receipt.receipt_id)]
        )
    assert [(result.outcome, result.new) for result in results] == [
        (ReceiptOutcome.IDENTICAL, True),
        (ReceiptOutcome.IDENTICAL, False),
    ]


def test_identical_to_what_is_not_kept_is_decided_again(database: Database) -> None:
    first, again = make_entry(1, 1), make_entry(1, 2)
    assert insert_identical(database, again, first).outcome is None
    insert(database, first)
    assert insert_identical(database, make_entry(1, 3, content="other"), first).outcome is None
    with database.write() as transaction:
        catalog.mark_damaged(transaction, first.path, "one bit")
    assert insert_identical(database, again, first).outcome is None
    with database.read() as connection:
        assert not catalog.has_receipt(connection, again.receipt.receipt_id)


# Order and repetition do not matter.


def state_of(database: Database) -> tuple[object, ...]:
    """Return all that the catalog says, without keys and without the history of how it came about."""
    shown = [
        list(listing.studies(database)),
        list(listing.series(database)),
        list(listing.instances(database, all_versions=True)),
    ]
    return tuple(sorted(json.dumps(row, sort_keys=True) for row in rows) for rows in shown)


ARRIVALS = st.lists(
    st.tuples(
        st.integers(1, 4),  # the instance
        st.integers(1, 30),  # when
        st.sampled_from("ab"),  # its bytes
        st.integers(1, 2),  # its study
        st.sampled_from([None, "P1", "P2"]),  # its patient
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda arrival: arrival[1],
)


def arrive(instance: int, received: int, content: str, study: int, patient: str | None) -> CatalogEntry:
    return make_entry(
        instance,
        received,
        content=content,
        study=f"1.2.{study}",
        series=f"1.2.{study}.{instance % 2}",
        patient_id=patient,
        patient_name=f"named at {received}",
        study_description=f"described at {received}",
        series_description=f"described at {received}",
    )


def empty(database: Database) -> None:
    with database.write() as transaction:
        for table in reversed(schema.metadata.sorted_tables):
            transaction.execute(delete(table))


def build(database: Database, order: Sequence[CatalogEntry], batch: int) -> tuple[object, ...]:
    empty(database)
    for start in range(0, len(order), batch):
        insert(database, *order[start : start + batch])
        insert(database, *order[: start + 1])  # some of them again, as after a crash
    return state_of(database)


@pytest.mark.slow
def test_rows_are_the_same_whatever_the_order_of_commits(tmp_path: Path) -> None:
    with open_database(tmp_path, sync=False) as database:

        @settings(max_examples=examples(30), deadline=None)
        @given(ARRIVALS.flatmap(lambda arrivals: st.tuples(st.just(arrivals), st.permutations(arrivals))))
        def check(orders: tuple[list[Any], list[Any]]) -> None:
            entries, shuffled = ([arrive(*arrival) for arrival in order] for order in orders)
            assert build(database, entries, len(entries)) == build(database, shuffled, 2)

        check()


@pytest.mark.slow
def test_every_order_of_three_versions_ends_the_same(tmp_path: Path) -> None:
    entries = [
        make_entry(1, number, content=content, patient_id=patient)
        for number, content, patient in ((1, "a", "P1"), (2, "b", "P2"), (3, "a", "P1"))
    ]
    with open_database(tmp_path, sync=False) as database:
        ends = [build(database, order, 1) for order in permutations(entries)]
    assert all(end == ends[0] for end in ends)


# Patients, studies and series.


def patients_of(database: Database) -> list[tuple[object, ...]]:
    return [
        (row["study_instance_uid"], row["patient_id"], row["issuer_of_patient_id"], row["patient_name"])
        for row in listing.studies(database)
    ]


def patient_count(database: Database) -> int:
    return counts(database)["patients"]


def test_a_patient_is_an_id_and_its_issuer(database: Database) -> None:
    insert(
        database,
        make_entry(1, 1, study="1.2.1", patient_id="P", issuer_of_patient_id="A", patient_name="one"),
        make_entry(2, 2, study="1.2.2", patient_id="P", issuer_of_patient_id="B", patient_name="another"),
        make_entry(
            3, 3, study="1.2.3", patient_id="P", issuer_of_patient_id="A", patient_name="one, newly named"
        ),
    )
    assert patient_count(database) == 2
    assert patients_of(database) == [
        ("1.2.1", "P", "A", "one, newly named"),
        ("1.2.2", "P", "B", "another"),
        ("1.2.3", "P", "A", "one, newly named"),
    ]


def test_without_an_id_strangers_are_not_merged(database: Database) -> None:
    insert(
        database,
        make_entry(1, 1, study="1.2.1", patient_name="unknown"),
        make_entry(2, 2, study="1.2.2", patient_name="unknown"),
        make_entry(3, 3, study="1.2.1", patient_name="unknown", patient_id=""),
    )
    assert patient_count(database) == 2


def test_a_study_that_changes_its_patient_says_so(database: Database) -> None:
    insert(database, make_entry(1, 1, patient_id="WRONG", patient_name="wrong"))
    moved = make_entry(2, 2, patient_id="RIGHT", patient_name="right")
    insert(database, moved)
    assert patients_of(database) == [("1.2.1", "RIGHT", "", "right")]
    assert ("patient", moved.receipt.receipt_id) in change_kinds(database)
    insert(database, make_entry(3, 1, patient_id="WRONG"))  # received before, listed later
    assert patients_of(database) == [("1.2.1", "RIGHT", "", "right")]


def test_a_series_uid_in_two_studies_is_two_series(database: Database) -> None:
    insert(
        database,
        make_entry(1, 1, study="1.2.1", series="1.9", modality="CT"),
        make_entry(2, 2, study="1.2.2", series="1.9", modality="MR"),
    )
    assert [(row["study_instance_uid"], row["modality"]) for row in listing.series(database)] == [
        ("1.2.1", "CT"),
        ("1.2.2", "MR"),
    ]


def test_what_belongs_to_no_study_or_no_series_is_listed_all_the_same(database: Database) -> None:
    insert(
        database,
        make_entry(1, 1, study=None, series=None, sop_class_uid=HANGING_PROTOCOL_STORAGE),
        make_entry(2, 2, study=None, series="1.2.5"),
        make_entry(3, 3, study="1.2.6", series=None),
    )
    shown = [(row["study_instance_uid"], row["series_instance_uid"]) for row in listing.instances(database)]
    assert shown == [(None, None), (None, None), ("1.2.6", None)]
    assert [row["study_instance_uid"] for row in listing.studies(database)] == ["1.2.6"]
    assert [row["series_instance_uid"] for row in listing.series(database)] == [None]


# Several processes.

INSERTER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from stowkeeper.archive import catalog
from support.catalog_rows import make_entry, open_database

start, hang = int(sys.argv[3]), sys.argv[4] == "hang"
database = open_database(Path(sys.argv[2]))
for batch in range(20):
    entries = [make_entry(n, n, study=f"1.2.{n % 7}", patient_id=f"P{n % 7 % 3}") for n in range(start + 10 * batch, start + 10 * batch + 20)]
    with database.write() as transaction:
        catalog.insert(transaction, entries)
        if hang and batch == 10:
            print("inside", flush=True)
            sys.stdin.read()
database.close()
"""


def start_inserter(folder: Path, start: int, ending: str) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", INSERTER, tests, str(folder), str(start), ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_list_the_same_instances_at_once_list_each_once(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        inserters = [start_inserter(tmp_path, start, "close") for start in (0, 50, 100)]
        for inserter in inserters:
            inserter.communicate()
            assert inserter.returncode == 0
        found = counts(database)
        assert found["instances"] == found["versions"] == found["receipts"] == found["changes"] == 310
        assert (found["studies"], found["series"], found["patients"]) == (7, 7, 3)


@pytest.mark.slow
def test_a_process_killed_while_it_lists_leaves_whole_batches(tmp_path: Path) -> None:
    with open_database(tmp_path) as database:
        inserter = start_inserter(tmp_path, 0, "hang")
        assert inserter.stdout is not None
        assert inserter.stdout.readline() == "inside\n"
        inserter.send_signal(signal.SIGKILL)
        inserter.communicate()
        found = counts(database)
        assert found["instances"] == found["receipts"] == found["changes"] == 110
        insert(
            database,
            *(make_entry(n, n, study=f"1.2.{n % 7}", patient_id=f"P{n % 7 % 3}") for n in range(100, 120)),
        )
        assert counts(database)["receipts"] == 120
        with database.read() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
