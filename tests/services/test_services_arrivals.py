"""Arrivals: what rules look at is what the catalog has, of the versions that are asked for, by queries that follow an index."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from stowkeeper.archive import catalog
from stowkeeper.archive.catalog_values import CatalogEntry
from stowkeeper.database.engine import Database
from stowkeeper.dicom.attributes import FIELDS, InstanceAttributes
from stowkeeper.services.arrivals import (
    KEYWORDS,
    arrival_of_instance,
    arrivals_of_changes,
    arrivals_of_study,
    every_arrival,
    every_arrival_with_study,
    key_before,
)
from stowkeeper.services.conditions import Arrival
from support.catalog_rows import CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN, make_entry, open_database

PATIENT = {"patient_id": "P1", "patient_name": "Doe^Jane"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path, sync=False) as opened:
        yield opened


def put(database: Database, *entries: CatalogEntry) -> None:
    for entry in entries:
        with database.write() as transaction:
            catalog.insert(transaction, [entry])


def numbers(found: list[Arrival]) -> list[str]:
    return [arrival.sop_instance_uid.removeprefix("1.2.3.") for arrival in found]


def test_an_arrival_says_what_the_catalog_says(database: Database) -> None:
    entry = make_entry(1, 5, modality="CT", station_name="A1", series_number=3, **PATIENT)
    put(database, entry)
    with database.read() as connection:
        ((seq, found),) = arrivals_of_changes(
            connection, 0, 10, ["PatientID", "SeriesNumber", "StationName", "ImageType", "SOPClassUID"]
        )
    assert seq == 1
    assert found == Arrival(
        version_key=1,
        receipt_key=1,
        sop_instance_uid="1.2.3.1",
        series_instance_uid="1.2.1.1",
        study_instance_uid="1.2.1",
        sop_class_uid=CT_IMAGE_STORAGE,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        modality="CT",
        calling_ae_title="SCANNER",
        called_ae_title="STOWKEEPER",
        peer_address="192.0.2.17",
        received_by="C-STORE",
        received_at="2026-01-02T00:00:05.000000Z",
        attributes={
            "PatientID": "P1",
            "SeriesNumber": "3",
            "StationName": "A1",
            "SOPClassUID": CT_IMAGE_STORAGE,
        },
        file_size=2500,
    )


def test_every_attribute_of_the_catalog_can_be_asked_for(database: Database) -> None:
    assert set(KEYWORDS) == {*FIELDS, "TransferSyntaxUID"}
    kinds = {field.name: field.type for field in fields(InstanceAttributes)}
    given: dict[str, Any] = {
        name: 70 + place if kinds[name] == "int | None" or kinds[name] == int | None else f"v{place}"
        for place, name in enumerate(FIELDS.values())
        if not name.endswith("_uid") or name == "frame_of_reference_uid"
    }
    put(database, make_entry(1, 1, **given))
    uids = {
        "sop_class_uid": CT_IMAGE_STORAGE,
        "sop_instance_uid": "1.2.3.1",
        "study_instance_uid": "1.2.1",
        "series_instance_uid": "1.2.1.1",
    }
    expected = {keyword: str({**given, **uids}[name]) for keyword, name in FIELDS.items()}
    expected["TransferSyntaxUID"] = EXPLICIT_VR_LITTLE_ENDIAN
    with database.read() as connection:
        (found,) = every_arrival(connection, 0, 10, KEYWORDS)
        ((_, same),) = arrivals_of_changes(connection, 0, 10, KEYWORDS)
    assert found.attributes == expected
    assert same == found


def test_an_instance_outside_of_studies_has_no_study(database: Database) -> None:
    put(database, make_entry(1, 1, study=None, series=None, content_label="HP"))
    with database.read() as connection:
        ((study_key, found),) = every_arrival_with_study(
            connection, 0, 10, ["ContentLabel", "PatientID", "Modality"]
        )
    assert (study_key, found.study_instance_uid, found.series_instance_uid, found.modality) == (0, "", "", "")
    assert found.attributes == {"ContentLabel": "HP"}


def test_the_same_bytes_once_more_are_no_arrival_and_others_are(database: Database) -> None:
    first, again, other = make_entry(1, 1), make_entry(1, 2), make_entry(1, 3, content="b")
    put(database, first)
    with database.write() as transaction:
        catalog.insert_identical(transaction, [(again, first.receipt.receipt_id)])
    put(database, other, make_entry(2, 4))
    with database.read() as connection:
        found = arrivals_of_changes(connection, 0, 10, [])
        page = arrivals_of_changes(connection, 0, 2, [])
        rest = arrivals_of_changes(connection, page[-1][0], 10, [])
    assert numbers([arrival for _, arrival in found]) == ["1", "1", "2"]
    assert [arrival.receipt_key for _, arrival in found] == [1, 3, 4]
    assert page + rest == found
    assert [seq for seq, _ in found] == sorted(seq for seq, _ in found)


def test_current_versions_are_found_by_study_by_key_and_by_uid(database: Database) -> None:
    put(
        database,
        *(make_entry(number, number, study="1.2.1", series=f"1.2.1.{number % 2}") for number in (1, 2, 3)),
    )
    put(
        database,
        make_entry(4, 4, study="1.2.2", series="1.2.2.1"),
        make_entry(1, 5, content="b", series="1.2.1.1"),
    )
    with database.read() as connection:
        of_study = arrivals_of_study(connection, "1.2.1", [])
        first = every_arrival(connection, 0, 2, [])
        rest = every_arrival(connection, first[-1].version_key, 10, [])
        one = arrival_of_instance(connection, "1.2.3.1", ["SOPInstanceUID"])
        assert arrival_of_instance(connection, "1.2.3.99", []) is None
        assert arrivals_of_study(connection, "1.2.99", []) == []
        assert every_arrival(connection, 99, 10, []) == []
    # Of the instance that came twice the newer version is current.
    assert numbers(of_study) == ["2", "3", "1"]
    assert numbers(first + rest) == ["2", "3", "4", "1"]
    assert one is not None
    assert (one.version_key, one.attributes) == (5, {"SOPInstanceUID": "1.2.3.1"})


def test_studies_have_keys_of_their_own(database: Database) -> None:
    put(database, make_entry(1, 1), make_entry(2, 2), make_entry(3, 3, study="1.2.2", series="1.2.2.1"))
    with database.read() as connection:
        keys = [key for key, _ in every_arrival_with_study(connection, 0, 10, [])]
    assert keys[0] == keys[1] != keys[2]
    assert 0 not in keys


def test_where_to_begin_for_a_time(database: Database) -> None:
    put(database, make_entry(1, 10), make_entry(2, 5), make_entry(3, 20))
    with database.read() as connection:
        assert key_before(connection, "2026-01-02T00:00:20") == 2
        assert key_before(connection, "2026-01-02T00:00:06") == 0
        assert key_before(connection, "2026-01-02") == 0
        assert key_before(connection, "2027") is None


def plans_of(database: Database, *calls: Any) -> list[str]:
    """Return how SQLite goes about the queries of some calls."""
    said: list[tuple[str, Any]] = []

    def listen(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        said.append((statement, parameters))

    with database.read() as connection:
        event.listen(connection, "before_cursor_execute", listen)
        for call in calls:
            call(connection)
        event.remove(connection, "before_cursor_execute", listen)
        steps = []
        for statement, parameters in said:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps.append(" | ".join(row.detail for row in rows))
    return steps


@pytest.mark.parametrize(("is_analyzed", "patients"), [(False, 90), (True, 90), (True, 1)])
def test_pages_follow_an_index_and_nothing_is_sorted(
    database: Database, is_analyzed: bool, patients: int
) -> None:
    with database.write() as transaction:
        catalog.insert(
            transaction,
            [
                make_entry(
                    n, n, study=f"1.2.{n % 90}", series=f"1.2.{n % 90}.1", patient_id=f"P{n % patients}"
                )
                for n in range(300)
            ],
        )
        if is_analyzed:
            transaction.execute(text("ANALYZE"))
    some = ["PatientID", "StationName"]
    changes, every, studied = plans_of(
        database,
        lambda connection: arrivals_of_changes(connection, 50, 10, some),
        lambda connection: every_arrival(connection, 50, 10, some),
        lambda connection: every_arrival_with_study(connection, 50, 10, some),
    )
    assert changes.startswith("SEARCH changes USING INTEGER PRIMARY KEY (rowid>?)")
    assert every.startswith("SEARCH versions USING INTEGER PRIMARY KEY (rowid>?)")
    assert studied == every
    (of_study,) = plans_of(database, lambda connection: arrivals_of_study(connection, "1.2.1", some))
    assert "versions USING INDEX versions_of_series" in of_study
    assert "TEMP B-TREE" not in changes + every
    for plan in (changes, every, of_study):
        # A table of one row is scanned, as well it may be.
        assert "SCAN" not in (plan.replace("SCAN patients", "") if patients == 1 else plan)


def test_a_superseded_or_removed_version_is_no_current_one(database: Database) -> None:
    put(database, make_entry(1, 1), make_entry(2, 2))
    with database.write() as transaction:
        transaction.execute(text("UPDATE versions SET state = 'removed' WHERE version_key = 1"))
        transaction.execute(text("UPDATE instances SET current_version_key = NULL WHERE instance_key = 1"))
    with database.read() as connection:
        assert numbers(every_arrival(connection, 0, 10, [])) == ["2"]
        assert arrival_of_instance(connection, "1.2.3.1", []) is None
        # What was received is told all the same: who asks has to look whether it is still there.
        assert numbers([arrival for _, arrival in arrivals_of_changes(connection, 0, 10, [])]) == ["1", "2"]
