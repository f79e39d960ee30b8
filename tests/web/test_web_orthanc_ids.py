"""Orthanc's ids, and the index that finds their rows: whatever came, went or moved, and whoever wrote it."""

import random
from pathlib import Path
from unittest.mock import patch

import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.catalog_values import CatalogEntry
from stowkeeper.archive.versions import mark_removed, mark_removing
from stowkeeper.database.engine import Database
from stowkeeper.web import orthanc_index
from stowkeeper.web.orthanc_ids import Identifiers, ResourceType, is_orthanc_id, orthanc_id, path_of
from stowkeeper.web.orthanc_index import Entries, OrthancIndex, index_of
from support.catalog_rows import make_entry, open_database

UNKNOWN = "00000000-00000000-00000000-00000000-00000000"
INSTANCE, SERIES, STUDY, PATIENT = (
    ResourceType.INSTANCE,
    ResourceType.SERIES,
    ResourceType.STUDY,
    ResourceType.PATIENT,
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


def insert(database: Database, *entries: CatalogEntry) -> list[int]:
    """List instances; return the keys of their versions."""
    with database.write() as transaction:
        results = catalog.insert(transaction, entries)
    return [result.version_key or 0 for result in results]


def id_of(number: object, *, patient: str = "P1", study: str = "1.2.1", series: str = "1.2.1.1") -> str:
    return orthanc_id(patient, study, series, f"1.2.3.{number}")


def entry(number: object, received: int, **more: object) -> CatalogEntry:
    return make_entry(number, received, **{"patient_id": "P1", **more})  # type: ignore[arg-type]  # each test knows its fields


# Ids, as Orthanc 1.10.1 gave them.


@pytest.mark.parametrize(
    ("resource_type", "expected"),
    [
        (PATIENT, "bdaf1eca-33d4619e-80e8ca68-9a1b74a4-febbbb29"),
        (STUDY, "c757b517-3c4edc7a-87b333dc-5c16b80d-536e630a"),
        (SERIES, "08e2c7de-26bb6079-6c4a3820-cdf803c7-6153af96"),
        (INSTANCE, "4e2c254a-f272e094-da4dedd0-e829ae26-7fcd5e53"),
    ],
)
def test_ids_are_those_of_orthanc(resource_type: ResourceType, expected: str) -> None:
    own = Identifiers(
        patient_id="P1",
        study_instance_uid="1.2.10",
        series_instance_uid="1.2.10.1",
        sop_instance_uid="1.2.3.1",
    )
    assert own.id_of(resource_type) == expected
    assert is_orthanc_id(expected)
    assert path_of(resource_type, expected) == f"/{resource_type.path}/{expected}"


@pytest.mark.parametrize(
    "text", ["", "nope", UNKNOWN[:-1], UNKNOWN + "0", UNKNOWN.replace("0", "G"), UNKNOWN + "\n"]
)
def test_what_is_no_id(text: str) -> None:
    assert not is_orthanc_id(text)


# The entries.


@pytest.mark.slow
def test_entries_find_what_was_added_however_they_are_packed() -> None:
    entries = Entries(run_entries=16)
    chance = random.Random(5)
    # Few different prefixes, so that many ids share theirs, within a run and over several.
    ids = [f"{chance.randrange(40):08x}-{number:08x}" for number in range(500)]
    for key, resource_id in enumerate(ids):
        entries.add(resource_id, key)
        entries.add(resource_id, key)  # once more is once
    for key, resource_id in enumerate(ids):
        found = entries.candidates(resource_id)
        assert found.count(key) == 1
        assert set(found) == {other for other, text in enumerate(ids) if text[:8] == resource_id[:8]}
    assert entries.candidates("ffffffff") == []


# Finding.


@pytest.mark.parametrize("page_rows", [1, 2, 1000])
def test_every_level_is_found_from_the_newest_to_the_oldest(database: Database, page_rows: int) -> None:
    insert(
        database,
        *(
            entry(number, number, study=f"1.2.{number % 3}", series=f"1.2.{number % 3}.{number % 5}")
            for number in range(1, 31)
        ),
    )
    index = OrthancIndex(database, page_rows=page_rows)
    for number in (30, 15, 1):
        place = {"study": f"1.2.{number % 3}", "series": f"1.2.{number % 3}.{number % 5}"}
        found = index.find(INSTANCE, id_of(number, **place))
        assert found is not None
        assert found.identifiers.sop_instance_uid == f"1.2.3.{number}"
        found = index.find(SERIES, found.id_of(SERIES))
        assert found is not None
        assert found.identifiers.series_instance_uid == place["series"]
        found = index.find(STUDY, found.id_of(STUDY))
        assert found is not None
        assert found.identifiers.study_instance_uid == place["study"]
        found = index.find(PATIENT, found.id_of(PATIENT))
        assert found is not None
        assert found.identifiers.patient_id == "P1"
    assert all(index.find(resource_type, UNKNOWN) is None for resource_type in ResourceType)
    assert index.find(STUDY, id_of(1)) is None  # it is the id of something else


def test_an_id_of_whatever_level(database: Database) -> None:
    insert(database, entry(1, 1), entry(2, 2))
    index = OrthancIndex(database)
    for resource_type in ResourceType:
        whole = Identifiers(
            patient_id="P1",
            study_instance_uid="1.2.1",
            series_instance_uid="1.2.1.1",
            sop_instance_uid="1.2.3.1",
        )
        found = index.find_any(whole.id_of(resource_type))
        assert found is not None
        assert found[0] is resource_type
    assert index.find_any(UNKNOWN) is None
    assert index.find_any("nope") is None


def test_what_comes_later_is_found_whichever_process_wrote_it(database: Database, tmp_path: Path) -> None:
    insert(database, entry(1, 1))
    index = OrthancIndex(database, page_rows=2)
    assert index.find(INSTANCE, UNKNOWN) is None  # the walk is over, what follows is found by change rows
    other = open_database(tmp_path, sync=False)
    insert(other, *(entry(number, number) for number in range(2, 9)))
    insert(other, entry(9, 9, study="1.2.9", series="1.2.9.1", patient_id="P9"))
    for number in range(1, 9):
        assert index.find(INSTANCE, id_of(number)) is not None
    assert index.find(PATIENT, orthanc_id("P9")) is not None
    assert index.find(SERIES, orthanc_id("P9", "1.2.9", "1.2.9.1")) is not None


def test_what_is_removed_is_not_found_and_is_again_when_it_comes_again(database: Database) -> None:
    (key,) = insert(database, entry(1, 1))
    index = OrthancIndex(database)
    assert index.find(INSTANCE, id_of(1)) is not None
    with database.write() as transaction:
        mark_removing(transaction, [key], reason="")
        mark_removed(transaction, [key])
    assert index.find(INSTANCE, id_of(1)) is None
    assert index.find(SERIES, orthanc_id("P1", "1.2.1", "1.2.1.1")) is None
    assert index.find(STUDY, orthanc_id("P1", "1.2.1")) is None
    assert index.find(PATIENT, orthanc_id("P1")) is None
    insert(database, entry(1, 2))
    assert index.find(INSTANCE, id_of(1)) is not None
    assert index.find(PATIENT, orthanc_id("P1")) is not None


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_study_that_moves_to_another_patient_takes_its_ids_along(
    database: Database, asked_before: bool
) -> None:
    insert(database, *(entry(number, number) for number in range(1, 6)))
    index = OrthancIndex(database, page_rows=2)
    if asked_before:
        assert index.find(INSTANCE, UNKNOWN) is None
    insert(database, entry(6, 6, patient_id="P2"))
    for number in range(1, 7):
        assert index.find(INSTANCE, id_of(number)) is None
        assert index.find(INSTANCE, id_of(number, patient="P2")) is not None
    assert index.find(STUDY, orthanc_id("P1", "1.2.1")) is None
    assert index.find(STUDY, orthanc_id("P2", "1.2.1")) is not None


def test_an_instance_whose_newer_version_is_in_another_series(database: Database) -> None:
    insert(database, entry(1, 1))
    index = OrthancIndex(database)
    assert index.find(INSTANCE, id_of(1)) is not None
    insert(database, entry(1, 2, content="b", series="1.2.1.2"))
    assert index.find(INSTANCE, id_of(1)) is None
    assert index.find(INSTANCE, id_of(1, series="1.2.1.2")) is not None


def test_after_many_changes_it_begins_anew(database: Database) -> None:
    insert(database, entry(1, 1))
    index = OrthancIndex(database, page_rows=3)
    with patch.object(orthanc_index, "INDEX_BEHIND_MAX", 5):
        assert index.find(INSTANCE, UNKNOWN) is None
        insert(database, *(entry(number, number) for number in range(2, 20)))
        with patch.object(orthanc_index, "_places_touched", side_effect=AssertionError("one by one")):
            assert all(index.find(INSTANCE, id_of(number)) is not None for number in range(1, 20))


def test_patients_that_orthanc_takes_for_one(database: Database) -> None:
    insert(
        database,
        entry(1, 1, issuer_of_patient_id="A"),
        entry(2, 2, issuer_of_patient_id="B", study="1.2.2", series="1.2.2.1"),
        entry(3, 3, patient_id=None, study="1.2.3", series="1.2.3.1"),
        entry(4, 4, patient_id=None, study="1.2.4", series="1.2.4.1"),
    )
    index = OrthancIndex(database)
    assert index.find(PATIENT, orthanc_id("P1")) is not None
    assert index.find(PATIENT, orthanc_id("")) is not None
    assert index.find(STUDY, orthanc_id("", "1.2.4")) is not None


def test_instances_outside_of_studies_have_no_id(database: Database) -> None:
    insert(database, make_entry(1, 1, study=None, series=None), make_entry(2, 2, series=None))
    index = OrthancIndex(database)
    assert index.find(INSTANCE, orthanc_id("", "", "", "1.2.3.1")) is None
    assert index.find(INSTANCE, orthanc_id("", "1.2.1", "", "1.2.3.2")) is None
    assert index.find(STUDY, orthanc_id("", "1.2.1")) is None


def test_one_index_for_all_routes(database: Database) -> None:
    first = index_of(database)
    assert index_of(database) is first
