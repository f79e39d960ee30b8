"""Listings: what `ls` shows, page by page."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.archive import catalog, ledger, listing
from stowkeeper.archive.catalog import CatalogEntry
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.archive.listing import ListingFilter
from stowkeeper.database.engine import Database
from support.catalog_rows import make_entry, open_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        yield opened


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ROWS_PER_PAGE", 2)
    monkeypatch.setattr(listing, "VARIABLES_MAX", 2)


def insert(database: Database, *entries: CatalogEntry) -> None:
    with database.write() as transaction:
        catalog.insert(transaction, entries)


def fill(database: Database) -> list[CatalogEntry]:
    """Put in three studies: a CT of two series, an MR, and one whose only instance has two versions."""
    entries = [
        make_entry(1, 1, study="1.2.1", series="1.2.1.1", modality="CT", patient_id="P1"),
        make_entry(2, 2, study="1.2.1", series="1.2.1.1", modality="CT", patient_id="P1"),
        make_entry(3, 3, study="1.2.1", series="1.2.1.2", modality="SR", patient_id="P1"),
        make_entry(4, 3600, study="1.2.2", series="1.2.2.1", modality="MR", calling_ae_title="MR1"),
        make_entry(5, 7200, study="1.2.3", series="1.2.3.1", content="a"),
        make_entry(5, 7201, study="1.2.3", series="1.2.3.1", content="b"),
    ]
    insert(database, *entries)
    return entries


def values(rows: Iterator[listing.Row], *names: str) -> list[object]:
    return [tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in rows]


def test_an_instance_shows_what_a_script_needs(database: Database) -> None:
    entry = make_entry(1, 1, rows=512, image_type="ORIGINAL")
    insert(database, entry)
    (row,) = listing.instances(database)
    expected = {
        "sop_instance_uid": "1.2.3.1",
        "sop_class_uid": entry.receipt.sop_class_uid,
        "study_instance_uid": "1.2.1",
        "series_instance_uid": "1.2.1.1",
        "transfer_syntax_uid": entry.receipt.transfer_syntax_uid,
        "path": entry.path,
        "size": 2500,
        "digest": entry.receipt.digest,
        "data_set_length": 1000,
        "receipt_id": entry.receipt.receipt_id,
        "received_at": entry.receipt.received_at,
        "calling_ae_title": "SCANNER",
        "state": "kept",
        "conflict": False,
        "current": True,
        "held": False,
        "rows": 512,
        "image_type": "ORIGINAL",
    }
    assert {name: row[name] for name in expected} == expected
    assert not any(name.endswith("_key") for name in row)


def test_everything_listed_is_json(database: Database) -> None:
    fill(database)
    with database.write() as transaction:
        ledger.record_associations(
            transaction, [AssociationRecord(association_id="a", opened_at="2026", peer_address="::1")]
        )
    for rows in (listing.studies, listing.series, listing.instances, listing.receipts, listing.associations):
        lines = [json.dumps(row) for row in rows(database)]
        assert lines
        assert not any("_key" in line for line in lines)


def test_studies_are_counted(database: Database, small_pages: None) -> None:
    fill(database)
    shown = values(
        listing.studies(database),
        "study_instance_uid",
        "number_of_study_related_series",
        "number_of_study_related_instances",
        "modalities_in_study",
        "size",
        "first_received_at",
    )
    assert shown == [
        ("1.2.1", 2, 3, ["CT", "SR"], 7500, "2026-01-02T00:00:01.000000Z"),
        ("1.2.2", 1, 1, ["MR"], 2500, "2026-01-02T01:00:00.000000Z"),
        ("1.2.3", 1, 1, [], 2500, "2026-01-02T02:00:01.000000Z"),
    ]


def test_series_are_counted(database: Database, small_pages: None) -> None:
    fill(database)
    shown = values(
        listing.series(database),
        "series_instance_uid",
        "study_instance_uid",
        "number_of_series_related_instances",
    )
    assert shown == [
        ("1.2.1.1", "1.2.1", 2),
        ("1.2.1.2", "1.2.1", 1),
        ("1.2.2.1", "1.2.2", 1),
        ("1.2.3.1", "1.2.3", 1),
    ]


def test_pages_join_without_gap_or_repetition(database: Database, small_pages: None) -> None:
    entries = fill(database)
    assert values(listing.instances(database), "sop_instance_uid") == [
        f"1.2.3.{number}" for number in range(1, 6)
    ]
    assert values(listing.receipts(database), "receipt_id") == [entry.receipt.receipt_id for entry in entries]


def test_a_listing_sees_what_comes_while_it_is_read(database: Database, small_pages: None) -> None:
    fill(database)
    rows = listing.instances(database)
    assert next(rows)["sop_instance_uid"] == "1.2.3.1"
    insert(database, make_entry(9, 9000))
    assert values(rows, "sop_instance_uid")[-1] == "1.2.3.9"


@pytest.mark.parametrize(
    ("uid", "studies", "series", "instances"),
    [
        ("1.2.1", ["1.2.1"], ["1.2.1.1", "1.2.1.2"], [1, 2, 3]),
        ("1.2.1.1", ["1.2.1"], ["1.2.1.1"], [1, 2]),
        ("1.2.3.4", ["1.2.2"], ["1.2.2.1"], [4]),
        ("1.2.9", [], [], []),
    ],
)
def test_a_uid_selects_what_it_contains_and_what_contains_it(
    database: Database, uid: str, studies: list[str], series: list[str], instances: list[int]
) -> None:
    fill(database)
    only = ListingFilter(uid=uid)
    uids = [f"1.2.3.{number}" for number in instances]
    assert values(listing.studies(database, only), "study_instance_uid") == studies
    assert values(listing.series(database, only), "series_instance_uid") == series
    assert values(listing.instances(database, only), "sop_instance_uid") == uids
    assert values(listing.receipts(database, only), "sop_instance_uid") == uids


def test_a_time_selects_studies_that_got_an_instance_then(database: Database) -> None:
    fill(database)
    only = ListingFilter(received_from="2026-01-02T00:00:02", received_before="2026-01-02T01:30")
    assert values(listing.studies(database, only), "study_instance_uid") == ["1.2.1", "1.2.2"]
    assert values(listing.studies(database, only), "number_of_study_related_instances") == [3, 1]
    assert values(listing.instances(database, only), "sop_instance_uid") == ["1.2.3.2", "1.2.3.3", "1.2.3.4"]
    assert len(list(listing.receipts(database, only))) == 3


def test_a_calling_ae_title_selects_its_own(database: Database) -> None:
    fill(database)
    only = ListingFilter(calling_ae_title="MR1")
    for rows in (listing.studies, listing.series):
        assert values(rows(database, only), "study_instance_uid") == ["1.2.2"]
    for rows in (listing.instances, listing.receipts):
        assert values(rows(database, only), "sop_instance_uid") == ["1.2.3.4"]


def test_of_two_versions_the_current_one_is_listed_and_both_if_asked(database: Database) -> None:
    fill(database)
    only = ListingFilter(uid="1.2.3.5")
    assert values(listing.instances(database, only), "current", "conflict") == [(True, True)]
    assert values(listing.instances(database, only, all_versions=True), "current") == [False, True]


def test_instances_in_conflict_are_listed_whole_and_oldest_first(
    database: Database, small_pages: None
) -> None:
    fill(database)
    late, early = make_entry(4, 9000, content="c"), make_entry(4, 10, content="b")
    insert(database, late, early, make_entry(6, 6), make_entry(7, 7))
    with database.write() as transaction:
        catalog.insert_identical(transaction, [(make_entry(6, 60), make_entry(6, 6).receipt.receipt_id)])
    shown = values(
        listing.instances(database, in_conflict=True), "sop_instance_uid", "received_at", "current"
    )
    assert shown == [
        ("1.2.3.4", "2026-01-02T00:00:10.000000Z", False),
        ("1.2.3.4", "2026-01-02T01:00:00.000000Z", False),
        ("1.2.3.4", "2026-01-02T02:30:00.000000Z", True),
        ("1.2.3.5", "2026-01-02T02:00:00.000000Z", False),
        ("1.2.3.5", "2026-01-02T02:00:01.000000Z", True),
    ]


def test_a_conflict_is_chosen_by_one_of_its_versions(database: Database) -> None:
    fill(database)
    other = make_entry(4, 9000, study="1.2.2", series="1.2.2.1", content="c")
    insert(database, other, make_entry(9, 9, calling_ae_title="MR1"))

    def chosen(**only: str) -> list[object]:
        return values(
            listing.instances(database, ListingFilter(**only), in_conflict=True), "sop_instance_uid"
        )

    assert chosen() == ["1.2.3.4"] * 2 + ["1.2.3.5"] * 2
    assert chosen(calling_ae_title="MR1") == chosen(received_from="2026-01-02T02:30") == ["1.2.3.4"] * 2
    assert chosen(uid="1.2.1") == chosen(received_before="2026-01-02T00:30") == []
    assert chosen(uid="1.2.3.5") == chosen(uid="1.2.3") == ["1.2.3.5"] * 2


def test_a_damaged_instance_is_listed_as_such(database: Database) -> None:
    entry = make_entry(1, 1)
    insert(database, entry, make_entry(2, 2))
    with database.write() as transaction:
        catalog.mark_damaged(transaction, entry.path, "one bit")
    assert values(listing.instances(database), "sop_instance_uid", "state", "current") == [
        ("1.2.3.1", "damaged", False),
        ("1.2.3.2", "kept", True),
    ]
    assert values(listing.studies(database), "number_of_study_related_instances", "damaged") == [(2, 1)]


def test_receipts_are_listed_as_received_with_the_version_they_prove(database: Database) -> None:
    late, early = make_entry(1, 20, verdicts=("odd",)), make_entry(2, 10)
    again = make_entry(1, 15)
    insert(database, late, early)
    with database.write() as transaction:
        catalog.insert_identical(transaction, [(again, late.receipt.receipt_id)])
    shown = values(listing.receipts(database), "receipt_id", "outcome", "path", "verdicts")
    assert shown == [
        (early.receipt.receipt_id, "stored", early.path, []),
        (again.receipt.receipt_id, "identical", late.path, []),
        (late.receipt.receipt_id, "stored", late.path, ["odd"]),
    ]


def test_receipts_can_be_named_by_their_own_id_or_their_association(database: Database) -> None:
    entries = fill(database)
    request = RequestRecord(
        association_id="the association",
        message_id=1,
        sop_class_uid="",
        sop_instance_uid="",
        transfer_syntax_uid="",
        requested_at="2026",
        status=0,
        outcome="kept",
        receipt_id=entries[2].receipt.receipt_id,
    )
    with database.write() as transaction:
        ledger.record_requests(transaction, [request])
    for uid in (entries[2].receipt.receipt_id, "the association"):
        rows = listing.receipts(database, ListingFilter(uid=uid))
        assert values(rows, "sop_instance_uid") == ["1.2.3.3"]


def test_associations_are_selected_by_id_time_title_and_what_they_brought(
    database: Database, small_pages: None
) -> None:
    insert(database, make_entry(1, 1))  # by association aaa…
    rows = [
        AssociationRecord(
            association_id="a" * 32, opened_at="2026-01-01", peer_address="", calling_ae_title="A"
        ),
        AssociationRecord(association_id="b", opened_at="2026-01-02", peer_address="", calling_ae_title="B"),
        AssociationRecord(association_id="c", opened_at="2026-01-03", peer_address="", calling_ae_title="B"),
    ]
    with database.write() as transaction:
        ledger.record_associations(transaction, rows)

    def ids(**only: str) -> list[object]:
        return values(listing.associations(database, ListingFilter(**only)), "association_id")

    assert ids() == ["a" * 32, "b", "c"]
    assert ids(uid="b") == ["b"]
    assert ids(uid="1.2.1") == ids(uid="1.2.3.1") == ["a" * 32]
    assert ids(received_from="2026-01-02") == ids(calling_ae_title="B") == ["b", "c"]
    assert ids(received_before="2026-01-02") == ["a" * 32]
