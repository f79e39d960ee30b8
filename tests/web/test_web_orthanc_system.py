"""/system, /statistics, /changes and errors in Orthanc's shape."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.changes import ChangeKind, note_study_change
from stowkeeper.archive.versions import mark_removed, mark_removing
from stowkeeper.web import orthanc_changes
from stowkeeper.web.orthanc_ids import ResourceType, orthanc_id
from support.catalog_rows import make_entry
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

P, ST, SE = "P1", "1.2.1", "1.2.1.1"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as running:
        yield running


def insert(rig: OrthancRig, *entries: Any) -> list[int]:
    with rig.database.write() as transaction:
        return [result.version_key or 0 for result in catalog.insert(transaction, entries)]


def entry(number: object, received: int, **more: Any) -> Any:
    return make_entry(number, received, **{"patient_id": P, **more})


def remove(rig: OrthancRig, *keys: int) -> None:
    with rig.database.write() as transaction:
        mark_removing(transaction, keys, reason="")
    with rig.database.write() as transaction:
        mark_removed(transaction, keys)


def told(changes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(change["ChangeType"], change["ID"]) for change in changes["Changes"]]


def instance(number: object, *above: str) -> str:
    return orthanc_id(*(above or (P, ST, SE)), f"1.2.3.{number}")


# Addresses.


def test_empty_parts_of_an_address_do_not_count(rig: OrthancRig) -> None:
    """Orthanc's own integration tests, and scripts like them, join a base address and a path with two slashes."""
    base = str(rig.client.base_url).rstrip("/")
    system = rig.get("/system")
    for path in ("//system", "///system//", "/system//"):
        assert rig.get(base + path) == system
    assert rig.ask("PUT", f"{base}//modalities///scanner", ["SCANNER", "127.0.0.1", 104]).status == 200
    assert rig.get("/modalities") == ["scanner"]
    answer = rig.ask("OPTIONS", f"{base}//modalities//scanner")
    assert answer.headers["allow"] == "GET, PUT, DELETE, HEAD, OPTIONS"
    assert rig.ask("GET", f"{base}//nowhere").value["Uri"] == "/nowhere"


@pytest.mark.parametrize(
    "path", ["//api/system", "/api//system", "//dicom-web/studies", "/dicom-web//studies"]
)
def test_what_is_ours_has_one_spelling(rig: OrthancRig, path: str) -> None:
    assert rig.ask("GET", str(rig.client.base_url).rstrip("/") + path).status == 404


# System and statistics.


def test_the_system(rig: OrthancRig) -> None:
    assert rig.get("/system") == {
        "ApiVersion": 16,
        "CheckRevisions": False,
        "DatabaseBackendPlugin": None,
        "DatabaseVersion": 6,
        "DicomAet": "STOWKEEPER",
        "DicomPort": rig.port,
        "HttpPort": rig.client.base_url.port,
        "IsHttpServerSecure": True,
        "Name": "Stowkeeper",
        "PluginsEnabled": False,
        "StorageAreaPlugin": None,
        "Version": "1.2.3",
    }


def test_the_statistics_follow_what_comes_and_goes(rig: OrthancRig) -> None:
    nothing = rig.get("/statistics")
    assert nothing == {
        "CountInstances": 0,
        "CountPatients": 0,
        "CountSeries": 0,
        "CountStudies": 0,
        "TotalDiskSize": "0",
        "TotalDiskSizeMB": 0,
        "TotalUncompressedSize": "0",
        "TotalUncompressedSizeMB": 0,
    }
    keys = insert(
        rig,
        *(entry(number, number, series=f"1.2.1.{number % 2}") for number in range(600)),
        entry("a", 601, study="1.2.2", series="1.2.2.1", issuer_of_patient_id="X"),
        entry("b", 602, study="1.2.3", series="1.2.3.1", patient_id="P2"),
        make_entry("outside", 603, study=None, series=None),
    )
    size = 602 * 2500
    expected = {
        "CountInstances": 602,
        "CountPatients": 2,
        "CountSeries": 4,
        "CountStudies": 3,
        "TotalDiskSize": str(size),
        "TotalDiskSizeMB": 1,
        "TotalUncompressedSize": str(size),
        "TotalUncompressedSizeMB": 1,
    }
    assert rig.get("/statistics") == expected
    remove(rig, keys[-2])
    after = rig.get("/statistics")
    assert (after["CountInstances"], after["CountPatients"], after["CountStudies"]) == (601, 1, 2)


# Changes.


def test_what_is_new_is_told_once_for_each_level(rig: OrthancRig) -> None:
    insert(
        rig,
        entry(1, 1),
        entry(2, 2),
        entry(3, 3, series="1.2.1.2"),
        entry(4, 4, study="1.2.2", series="1.2.2.1"),
        entry(5, 5, study="1.2.9", series="1.2.9.1", patient_id="P2"),
    )
    changes = rig.get("/changes")
    assert told(changes) == [
        ("NewInstance", instance(1)),
        ("NewSeries", orthanc_id(P, ST, SE)),
        ("NewStudy", orthanc_id(P, ST)),
        ("NewPatient", orthanc_id(P)),
        ("NewInstance", instance(2)),
        ("NewInstance", instance(3, P, ST, "1.2.1.2")),
        ("NewSeries", orthanc_id(P, ST, "1.2.1.2")),
        ("NewInstance", instance(4, P, "1.2.2", "1.2.2.1")),
        ("NewSeries", orthanc_id(P, "1.2.2", "1.2.2.1")),
        ("NewStudy", orthanc_id(P, "1.2.2")),
        ("NewInstance", instance(5, "P2", "1.2.9", "1.2.9.1")),
        ("NewSeries", orthanc_id("P2", "1.2.9", "1.2.9.1")),
        ("NewStudy", orthanc_id("P2", "1.2.9")),
        ("NewPatient", orthanc_id("P2")),
    ]
    assert changes["Done"] is True
    numbers = [change["Seq"] for change in changes["Changes"]]
    assert numbers == sorted(set(numbers))
    assert changes["Last"] == numbers[-1]
    first = changes["Changes"][0]
    assert first.keys() == {"ChangeType", "Date", "ID", "Path", "ResourceType", "Seq"}
    assert (first["Path"], first["ResourceType"]) == (f"/instances/{instance(1)}", "Instance")
    assert len(first["Date"]) == len("20260102T030405")
    assert {change["ResourceType"] for change in changes["Changes"]} == {kind.word for kind in ResourceType}


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_a_cursor_comes_by_every_change_once(rig: OrthancRig, limit: int) -> None:
    keys = insert(rig, *(entry(number, number, series=f"1.2.1.{number}") for number in range(1, 8)))
    insert(
        rig, *(entry(number, number + 10, series=f"1.2.1.{number}") for number in range(1, 4))
    )  # the same again
    with rig.database.write() as transaction:
        for number in range(12):  # rows that Orthanc has nothing for
            catalog.hold(transaction, keys[:1], f"reason {number}")
    insert(rig, entry(9, 30))
    whole = rig.get("/changes?limit=1000")
    assert whole["Done"] is True
    seen: list[Any] = []
    since = 0
    for _ in range(200):
        page = rig.get(f"/changes?since={since}&limit={limit}")
        assert len(page["Changes"]) == limit or page["Done"]
        seen += page["Changes"]
        assert page["Last"] >= since
        since = page["Last"]
        if page["Done"]:
            break
    assert seen == whole["Changes"]
    assert rig.get(f"/changes?since={since}") == {
        "Changes": [],
        "Done": True,
        "Last": pytest.approx(since, abs=8),
    }
    insert(rig, entry(10, 40))
    assert told(rig.get(f"/changes?since={since}")) == [("NewInstance", instance(10))]


def test_a_request_looks_through_a_bounded_number_of_rows(rig: OrthancRig) -> None:
    (key,) = insert(rig, entry(1, 1))
    since = rig.get("/changes")["Last"]
    with rig.database.write() as transaction:
        for number in range(250):
            catalog.hold(transaction, [key], f"reason {number}")
    insert(rig, entry(2, 2))
    with patch.object(orthanc_changes, "CHANGES_PAGES_MAX", 1):
        for _ in range(2):
            page = rig.get(f"/changes?since={since}")
            assert (page["Changes"], page["Done"]) == ([], False)
            assert page["Last"] > since
            since = page["Last"]
        page = rig.get(f"/changes?since={since}")
        assert (told(page), page["Done"]) == ([("NewInstance", instance(2))], True)


def test_what_is_removed_is_told_and_forgotten(rig: OrthancRig) -> None:
    first, second, third = insert(rig, entry(1, 1), entry(2, 2, series="1.2.1.2"), entry(3, 3))
    since = rig.get("/changes?last")["Last"]
    remove(rig, second)
    assert told(rig.get(f"/changes?since={since}")) == [
        ("Deleted", instance(2, P, ST, "1.2.1.2")),
        ("Deleted", orthanc_id(P, ST, "1.2.1.2")),
    ]
    remove(rig, first)
    assert told(rig.get("/changes"))[-1] == ("Deleted", instance(1))
    assert ("NewInstance", instance(1)) not in told(rig.get("/changes"))
    # What is there of the series is what is new of it for who reads from the beginning.
    assert ("NewSeries", orthanc_id(P, ST, SE)) in told(rig.get("/changes"))
    remove(rig, third)
    assert rig.get("/changes")["Changes"] == []


def test_a_study_that_is_quiet_is_stable(rig: OrthancRig) -> None:
    (key,) = insert(rig, entry(1, 1))
    since = rig.get("/changes")["Last"]
    with rig.database.write() as transaction:
        note_study_change(transaction, ChangeKind.STUDY_STARTED, key, "it has begun")
        note_study_change(transaction, ChangeKind.STUDY_QUIET, key, "it is quiet")
    assert told(rig.get(f"/changes?since={since}")) == [("StableStudy", orthanc_id(P, ST))]


def test_what_comes_again_is_new_again(rig: OrthancRig) -> None:
    (key,) = insert(rig, entry(1, 1))
    since = rig.get("/changes")["Last"]
    remove(rig, key)
    insert(rig, entry(1, 5))
    assert [kind for kind, _ in told(rig.get(f"/changes?since={since}"))] == [
        "Deleted",
        "NewInstance",
        "NewSeries",
        "NewStudy",
        "NewPatient",
    ]


def test_a_second_version_is_no_new_instance(rig: OrthancRig) -> None:
    insert(rig, entry(1, 1))
    since = rig.get("/changes")["Last"]
    insert(rig, entry(1, 2, content="b"))
    assert rig.get(f"/changes?since={since}")["Changes"] == []


def test_changes_of_what_moved_have_the_ids_of_now(rig: OrthancRig) -> None:
    insert(rig, entry(1, 1))
    insert(rig, entry(2, 2, patient_id="P2"))
    assert ("NewInstance", instance(1, "P2", ST, SE)) in told(rig.get("/changes"))
    assert not any(orthanc_id(P) == own_id for _, own_id in told(rig.get("/changes")))


def test_the_last_change(rig: OrthancRig) -> None:
    assert rig.get("/changes?last") == {"Changes": [], "Done": True, "Last": 0}
    (key,) = insert(rig, entry(1, 1))
    with rig.database.write() as transaction:
        for number in range(150):
            catalog.hold(transaction, [key], f"reason {number}")
    last = rig.get("/changes?last")
    assert told(last) == [("NewPatient", orthanc_id(P))]
    assert last["Last"] == last["Changes"][0]["Seq"]


@pytest.mark.parametrize(
    "query", ["since=x", "limit=", "since=-5", "limit=1e9", "since=²", "limit=x&since=0"]
)
def test_a_query_that_is_no_number_counts_as_not_given(rig: OrthancRig, query: str) -> None:
    insert(rig, entry(1, 1))
    assert len(rig.get(f"/changes?{query}")["Changes"]) == 4


def test_pages_that_are_empty(rig: OrthancRig) -> None:
    insert(rig, entry(1, 1))
    assert rig.get("/changes?limit=0") == {"Changes": [], "Done": False, "Last": 0}
    far = rig.get("/changes?since=999999999999999")
    assert (far["Changes"], far["Done"]) == ([], True)


# Errors.


def test_errors_have_the_shape_of_orthanc(rig: OrthancRig) -> None:
    answer = rig.ask("GET", "/nothing")
    assert answer.status == 404
    assert answer.value == {
        "HttpError": "Not Found",
        "HttpStatus": 404,
        "Message": "Unknown resource",
        "Method": "GET",
        "OrthancError": "Unknown resource",
        "OrthancStatus": 17,
        "Uri": "/nothing",
    }
    wrong = rig.ask("PUT", "/system")
    assert (wrong.status, wrong.value["Method"], wrong.value["HttpStatus"]) == (405, "PUT", 405)
    assert "GET" in wrong.headers["allow"]


def test_errors_below_api_and_dicom_web_have_theirs(rig: OrthancRig) -> None:
    for path in ("/api/nothing", "/dicom-web/commitment-requests/1.2.3"):
        answer = rig.ask("GET", path)
        assert answer.status == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_database_that_is_away_is_said_in_that_shape(rig: OrthancRig) -> None:
    Path(rig.database.path).rename(f"{rig.database.path}.away")
    try:
        answer = rig.ask("GET", "/instances")
    finally:
        Path(f"{rig.database.path}.away").rename(rig.database.path)
    assert (answer.status, answer.value["OrthancStatus"]) == (503, 36)
