"""The ledger: associations and requests, as they were and as they ended."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stowkeeper.archive import catalog, ledger, listing
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.database.engine import Database
from support.catalog_rows import make_entry, open_database

OPENED = AssociationRecord(
    association_id="a1",
    opened_at="2026-01-02T03:04:05.000001Z",
    peer_address="192.0.2.17",
    receiver="1234-5",
    calling_ae_title="SCANNER",
    called_ae_title="STOWKEEPER",
)
RELEASED = replace(
    OPENED,
    closed_at="2026-01-02T03:05:05.000001Z",
    implementation_class_uid="1.2.3",
    implementation_version_name="PEER_1",
    user_identity_type=1,
    user_identity_name="jane",
    contexts_accepted=2,
    contexts_refused=1,
    contexts=ledger.encode_contexts(
        [(1, "1.2.840.10008.1.1", 0, "1.2.840.10008.1.2"), (3, "1.2.3.4", 3, "")]
    ),
    messages=7,
    bytes_received=1_000_000,
    ended="released",
)
REQUEST = RequestRecord(
    association_id="a1",
    message_id=1,
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3.1",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    requested_at="2026-01-02T03:04:06.000000Z",
    status=0,
    data_set_length=1000,
    digest="d" * 64,
    outcome="kept",
    receipt_id="r1",
    seconds_network=0.25,
    seconds_disk=0.125,
    seconds_total=0.5,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        yield opened


def record(database: Database, *rows: AssociationRecord | RequestRecord) -> None:
    with database.write() as transaction:
        ledger.record_associations(transaction, [row for row in rows if isinstance(row, AssociationRecord)])
        ledger.record_requests(transaction, [row for row in rows if isinstance(row, RequestRecord)])


def test_an_association_is_one_row_from_its_opening_to_its_end(database: Database) -> None:
    with database.write() as transaction:
        ledger.record_associations(transaction, [OPENED])
    (opened,) = listing.associations(database)
    assert (opened["closed_at"], opened["ended"], opened["messages"]) == (None, "", 0)
    record(database, RELEASED)
    (closed,) = listing.associations(database)
    expected = {
        name: getattr(RELEASED, name) for name in RELEASED.__slots__ if name not in ("contexts", "rejection")
    }
    assert {name: closed[name] for name in expected} == expected
    assert closed["contexts"] == [[1, "1.2.840.10008.1.1", 0, "1.2.840.10008.1.2"], [3, "1.2.3.4", 3, ""]]
    assert closed["rejection"] is None


def test_the_end_of_an_association_leaves_the_contexts_of_its_beginning(database: Database) -> None:
    record(database, replace(OPENED, contexts=ledger.encode_contexts([(1, "1.2.3", 0, "1.2.4")])))
    record(database, replace(RELEASED, contexts=""))
    (row,) = listing.associations(database)
    assert (row["ended"], row["contexts"]) == ("released", [[1, "1.2.3", 0, "1.2.4"]])


def test_no_contexts_are_an_empty_list(database: Database) -> None:
    record(database, OPENED)
    assert [row["contexts"] for row in listing.associations(database)] == [[]]


def test_a_receipt_that_was_listed_first_learns_that_it_was_answered(database: Database) -> None:
    with database.write() as transaction:
        entries = [make_entry(number, number, answer_known=False) for number in (1, 2)]
        catalog.insert(transaction, entries)
    first, second = (entry.receipt.receipt_id for entry in entries)
    record(
        database,
        replace(REQUEST, receipt_id=first, was_listed_first=True),
        replace(REQUEST, receipt_id=second),
    )
    assert [row["answer"] for row in listing.receipts(database)] == ["known", "unknown"]


def test_an_end_is_not_opened_again_by_a_row_that_comes_late(database: Database) -> None:
    record(database, RELEASED)
    record(database, OPENED)
    assert [row["ended"] for row in listing.associations(database)] == ["released"]


def test_a_rejection_is_three_numbers(database: Database) -> None:
    record(database, replace(RELEASED, ended="rejected", rejection=(2, 3, 2), words="low disk"))
    (row,) = listing.associations(database)
    assert (row["rejection"], row["words"]) == ([2, 3, 2], "low disk")


def test_what_a_dead_process_left_open_is_lost(database: Database) -> None:
    record(
        database,
        OPENED,
        replace(OPENED, association_id="a2", receiver="another"),
        replace(RELEASED, association_id="a3"),
    )
    with database.write() as transaction:
        assert ledger.close_lost_associations(transaction, "1234-5", "the process died") == 1
        assert ledger.close_lost_associations(transaction, "1234-5", "the process died") == 0
    assert [
        (row["association_id"], row["ended"], row["words"]) for row in listing.associations(database)
    ] == [
        ("a1", "lost", "the process died"),
        ("a2", "", ""),
        ("a3", "released", ""),
    ]


def test_every_request_is_there_with_all_that_became_of_it(database: Database) -> None:
    refused = replace(
        REQUEST,
        message_id=2,
        sop_instance_uid="",
        status=0x0117,
        error_comment="no UID",
        outcome="refused",
        receipt_id="",
        digest="",
    )
    lost = replace(
        REQUEST, message_id=3, status=None, error_comment="the peer left", outcome="lost", receipt_id=""
    )
    record(database, REQUEST, refused)
    record(database, lost)
    with database.read() as connection:
        assert ledger.requests_of(connection, "a1") == [REQUEST, refused, lost]
        assert ledger.requests_of(connection, "a2") == []


def test_requests_are_counted_by_outcome_and_need_no_association(database: Database) -> None:
    record(database, REQUEST, replace(REQUEST, outcome="refused"), replace(REQUEST, association_id="a9"))
    record(database, RELEASED, replace(RELEASED, association_id="a2"))
    shown = {
        row["association_id"]: (row["requests_kept"], row["requests_refused"], row["requests_lost"])
        for row in listing.associations(database)
    }
    assert shown == {"a1": (1, 1, 0), "a2": (0, 0, 0)}


def test_nothing_to_record_is_fine(database: Database) -> None:
    record(database)
    assert list(listing.associations(database)) == []


def test_odd_titles_are_kept_as_they_came(database: Database) -> None:
    odd = "A\x07\\\"'é"
    record(database, replace(RELEASED, calling_ae_title=odd))
    assert [row["calling_ae_title"] for row in listing.associations(database)] == [odd]
