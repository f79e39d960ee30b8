"""/api/studies, /api/series and /api/instances: lists, one of them, files, and removing."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from blake3 import blake3
from structlog.testing import capture_logs

from stowkeeper.archive import catalog
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.web import native_removal
from stowkeeper.web.roles import Role
from support.instances import make_instance
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as running:
        yield running


def keep(rig: OrthancRig, *numbers: int, **more: Any) -> None:
    """Put instances in, and wait until they are listed."""
    rig.keep(*numbers, **more)
    rig.settle()


def hold(rig: OrthancRig, sop_instance_uid: str, reason: str = "committed to SCANNER") -> None:
    """Hold the versions of an instance, as a commitment does."""
    with rig.database.write() as transaction:
        found = catalog.find_versions(transaction.connection, [sop_instance_uid])[sop_instance_uid]
        catalog.hold(transaction, [version.version_key for version in found], reason)


def items(rig: OrthancRig, path: str) -> list[dict[str, Any]]:
    """Return all items of a list, page after page."""
    found: list[dict[str, Any]] = []
    next_path: str | None = path
    while next_path is not None:
        page = rig.get(next_path)
        found += page["items"]
        next_path = page["next"]
    return found


def file_of(rig: OrthancRig, uid: str) -> Path:
    """Return the path of the current version of an instance."""
    current = rig.get(f"/api/instances/{uid}")["current"]
    return Path(rig.archive.root, current["path"])


# Lists


def test_studies_series_and_instances_are_listed_with_their_counts(rig: OrthancRig) -> None:
    keep(rig, 1, 2, study="1.2.10", series="1.2.10.1")
    keep(rig, 3, study="1.2.10", series="1.2.10.2")
    keep(rig, 4, study="1.2.11", series="1.2.11.1")
    studies = items(rig, "/api/studies")
    assert [one["study_instance_uid"] for one in studies] == ["1.2.11", "1.2.10"]
    assert studies[1]["number_of_study_related_instances"] == 3
    assert studies[1]["number_of_study_related_series"] == 2
    assert studies[1]["patient_id"] == "P1"
    assert studies[1]["modalities_in_study"] == ["CT"]
    series = items(rig, "/api/series?uid=1.2.10&order=oldest")
    assert [one["series_instance_uid"] for one in series] == ["1.2.10.1", "1.2.10.2"]
    assert [one["sop_instance_uid"] for one in items(rig, "/api/instances?uid=1.2.10.1&order=oldest")] == [
        "1.2.3.1",
        "1.2.3.2",
    ]
    assert rig.get("/api/studies/1.2.10") == studies[1]
    assert rig.get("/api/series/1.2.10.1") == series[0]
    assert rig.get("/api/series/1.2.10.1?study_instance_uid=1.2.10") == series[0]
    assert rig.ask("GET", "/api/series/1.2.10.1?study_instance_uid=1.2.11").status == 404


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_pages_join_without_gap_or_repetition(rig: OrthancRig, order: str) -> None:
    keep(rig, *range(1, 8))
    page = rig.get(f"/api/instances?limit=3&order={order}&received_from=2020&all_versions=true")
    assert len(page["items"]) == 3
    assert page["next"].startswith("/api/instances?limit=3&")
    keep(rig, 8)  # what comes meanwhile moves nothing
    found = page["items"] + items(rig, page["next"])
    numbers = [int(one["sop_instance_uid"].rpartition(".")[2]) for one in found]
    assert numbers == (list(range(7, 0, -1)) if order == "newest" else list(range(1, 9)))


def test_filters_narrow_a_list(rig: OrthancRig) -> None:
    keep(rig, 1)
    everything = items(rig, "/api/instances")
    received = everything[0]["received_at"]
    assert items(rig, f"/api/instances?received_from={received}") == everything
    assert items(rig, f"/api/instances?received_before={received}") == []
    assert items(rig, "/api/instances?calling_ae_title=NOBODY") == []
    assert items(rig, "/api/instances?is_held=true") == []
    hold(rig, "1.2.3.1")
    assert [one["held"] for one in items(rig, "/api/instances?is_held=true")] == [True]


NOUNS = ("studies", "series", "instances", "receipts", "associations", "requests")
SENSELESS = (
    "cursor=nonsense",
    "cursor=",
    "cursor=W10",  # a list without a place
    "limit=0",
    "limit=1001",
    "limit=x",
    "order=random",
    "received_from=soon",
    "uid=",
    "calling_ae_title=LONGER_THAN_SIXTEEN",
)


def test_what_a_list_cannot_be_asked_is_422(rig: OrthancRig) -> None:
    for noun in NOUNS:
        for query in SENSELESS:
            answer = rig.client.get(f"/api/{noun}?{query}")
            assert answer.status_code == 422, (noun, query)
            assert answer.json()["errors"][0]["where"] == f"query.{query.partition('=')[0]}"


def test_an_instance_shows_its_versions_and_who_holds_them(rig: OrthancRig) -> None:
    keep(rig, 1)
    keep(rig, 1, content=1)
    hold(rig, "1.2.3.1", "commitment 1.2.9 asked by SCANNER")
    found = rig.get("/api/instances/1.2.3.1")
    assert len(found["versions"]) == 2
    assert found["current"] in found["versions"]
    assert all(one["conflict"] for one in found["versions"])
    assert [one["receipt_id"] for one in items(rig, "/api/instances?in_conflict=true")]
    assert {hold["receipt_id"] for hold in found["holds"]} == {one["receipt_id"] for one in found["versions"]}
    assert {hold["reason"] for hold in found["holds"]} == {"commitment 1.2.9 asked by SCANNER"}


def test_what_is_not_there_is_404(rig: OrthancRig) -> None:
    for uid in ("1.2.99", "nonsense", "1.2.3.1'--", "%00", "%F0%9F%98%80", "x" * 64):
        paths = [f"/api/{noun}/{uid}" for noun in ("studies", "series", "instances")]
        for path in (*paths, f"/api/instances/{uid}/file"):
            answer = rig.client.get(path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json"
        for path in paths:
            assert rig.client.delete(path).status_code == 404, path


# Files


def test_a_file_is_what_was_sent_without_the_receipt(rig: OrthancRig) -> None:
    instance = make_instance(1, size=700_000)
    rig.upload(instance)
    rig.settle()
    answer = rig.client.get("/api/instances/1.2.3.1/file")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.headers["content-disposition"] == 'attachment; filename="1.2.3.1.dcm"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content.endswith(instance.data)
    assert RECEIPT_CREATOR_UID.encode() not in answer.content
    read = pydicom.dcmread(io.BytesIO(answer.content))
    assert read.SOPInstanceUID == read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.1"
    assert "PrivateInformation" not in read.file_meta
    assert read.file_meta.FileMetaInformationGroupLength == len(answer.content) - len(instance.data) - 144
    receipt_id = rig.get("/api/instances/1.2.3.1")["current"]["receipt_id"]
    same = rig.client.get(f"/api/instances/1.2.3.1/file?receipt_id={receipt_id}")
    assert same.content == answer.content
    assert rig.client.get("/api/instances/1.2.3.1/file?receipt_id=unknown").status_code == 404
    # What is downloaded can be put in again, and is known to be the same.
    again = rig.ask("POST", "/instances", answer.content)
    assert again.value["Status"] == "AlreadyStored"


def test_each_version_can_be_had(rig: OrthancRig) -> None:
    versions = [make_instance(1, content=0), make_instance(1, content=1)]
    for version in versions:
        rig.upload(version)
        rig.settle()
    found = rig.get("/api/instances/1.2.3.1")["versions"]
    got = {
        blake3(content[-len(versions[0].data) :]).hexdigest()
        for content in (
            rig.client.get(f"/api/instances/1.2.3.1/file?receipt_id={one['receipt_id']}").content
            for one in found
        )
    }
    assert got == {blake3(version.data).hexdigest() for version in versions}


def test_head_and_accept_of_a_file(rig: OrthancRig) -> None:
    keep(rig, 1)
    got = rig.client.get("/api/instances/1.2.3.1/file", headers={"Accept": "application/dicom"})
    asked = rig.client.head("/api/instances/1.2.3.1/file")
    assert asked.headers["content-length"] == got.headers["content-length"]
    assert asked.content == b""
    assert (
        rig.client.get("/api/instances/1.2.3.1/file", headers={"Accept": "application/json"}).status_code
        == 406
    )


def test_a_damaged_file_never_comes_whole(rig: OrthancRig) -> None:
    keep(rig, 1, size=900_000)
    path = file_of(rig, "1.2.3.1")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    os.chmod(path, 0o600)
    path.write_bytes(content)

    def count(event: str) -> int:
        # The line of an earlier request may come late, too.
        return sum(line["event"] == event and "/file" in line.get("route", "/file") for line in lines)

    with capture_logs() as lines:
        with pytest.raises(httpx.RemoteProtocolError):
            rig.client.get("/api/instances/1.2.3.1/file")
        rig.wait(lambda: count("request") == 1, "the end of the request")
        said = count("error")
        assert said
        # Who asks for the fields alone has nothing read.
        assert rig.client.head("/api/instances/1.2.3.1/file").status_code == 200
        rig.wait(lambda: count("request") == 2, "the end of the request")
        assert count("error") == said


def test_a_file_that_is_obviously_damaged_is_a_problem(rig: OrthancRig) -> None:
    keep(rig, 1)
    path = file_of(rig, "1.2.3.1")
    content = path.read_bytes()
    os.chmod(path, 0o600)
    for damaged in (content[:-1], content + b"\0", bytes(200) + content[200:], b"", None):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        answer = rig.client.get("/api/instances/1.2.3.1/file")
        assert answer.status_code == 500
        assert "stowkeeper verify" in answer.json()["detail"]


def test_files_are_closed_whoever_goes_away(rig: OrthancRig) -> None:
    keep(rig, 1, size=20_000_000)
    file = file_of(rig, "1.2.3.1")

    def is_closed() -> bool:
        return not any(
            os.path.realpath(entry) == os.path.realpath(file) for entry in Path("/proc/self/fd").iterdir()
        )

    for _ in range(10):
        with rig.client.stream("GET", "/api/instances/1.2.3.1/file") as answer:
            next(answer.iter_raw())
        rig.client.head("/api/instances/1.2.3.1/file")
    rig.wait(is_closed, "the file to be closed")


# Removing


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/api/instances/1.2.3.1", ["1.2.3.2", "1.2.3.3"]),
        ("/api/series/1.2.10.1", ["1.2.3.3"]),
        ("/api/studies/1.2.10", []),
    ],
)
def test_what_is_named_is_removed(rig: OrthancRig, path: str, left: list[str]) -> None:
    keep(rig, 1, 2, series="1.2.10.1")
    keep(rig, 3, series="1.2.10.2")
    gone = [file_of(rig, f"1.2.3.{number}") for number in (1, 2, 3) if f"1.2.3.{number}" not in left]
    answer = rig.client.delete(f"{path}?reason=wrong%20archive")
    assert answer.status_code == 200
    assert answer.json()["removed"] == len(gone)
    assert not any(file.exists() for file in gone)
    assert [one["sop_instance_uid"] for one in items(rig, "/api/instances?order=oldest")] == left
    assert rig.client.delete(path).status_code == 404
    details = {change["detail"] for change in items_of_changes(rig) if change["kind"] == "removed"}
    assert details == {"wrong archive"}


def items_of_changes(rig: OrthancRig) -> list[dict[str, Any]]:
    """Return all changes."""
    found: list[dict[str, Any]] = rig.get("/api/changes?limit=1000")["items"]
    return found


def test_a_uid_of_another_level_removes_nothing(rig: OrthancRig) -> None:
    keep(rig, 1)
    for path in (
        "/api/instances/1.2.10",
        "/api/series/1.2.10",
        "/api/studies/1.2.3.1",
        "/api/studies/1.2.10.1",
    ):
        assert rig.client.delete(path).status_code == 404
    assert len(items(rig, "/api/instances")) == 1


def test_what_is_held_is_409_with_the_reasons_and_nothing_goes(rig: OrthancRig) -> None:
    keep(rig, 1, 2)
    hold(rig, "1.2.3.1")
    answer = rig.client.delete("/api/studies/1.2.10")
    assert answer.status_code == 409
    assert answer.json()["held"] == [{"sop_instance_uid": "1.2.3.1", "reasons": ["committed to SCANNER"]}]
    assert len(items(rig, "/api/instances")) == 2


def test_an_override_needs_an_administrator_and_a_reason_and_is_audited(rig: OrthancRig) -> None:
    keep(rig, 1)
    hold(rig, "1.2.3.1")
    operator = rig.token("operator", Role.OPERATE)
    reader = rig.token("reader", Role.READ)
    admin = rig.token("admin", Role.ADMIN)
    path = "/api/instances/1.2.3.1"
    assert rig.client.delete(path, headers=reader).status_code == 403
    assert rig.client.delete(path, headers=operator).status_code == 409
    assert rig.client.delete(f"{path}?override=true&reason=x", headers=operator).status_code == 403
    assert rig.client.delete(f"{path}?override=true", headers=admin).status_code == 422
    assert rig.client.delete(f"{path}?override=true&reason=%20", headers=admin).status_code == 422
    assert rig.client.get(path, headers=reader).status_code == 200
    done = rig.client.delete(f"{path}?override=true&reason=patient%20asked", headers=admin)
    assert (done.status_code, done.json()["removed"]) == (200, 1)
    entries = rig.client.get("/api/audit", headers=admin).json()["items"]
    (entry,) = [one for one in entries if one["action"] == "hold overridden"]
    assert (entry["who"], entry["subject"]) == ("admin", "1.2.3.1")
    assert "patient asked" in entry["detail"]
    assert "committed to SCANNER" in entry["detail"]
    assert rig.client.get("/api/audit", headers=operator).status_code == 403


def test_much_is_removed_by_a_job(rig: OrthancRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_removal, "REMOVED_AT_ONCE_MAX", 1)
    keep(rig, 1, 2)
    answer = rig.client.delete("/api/studies/1.2.10?reason=old")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{job['job_id']}"
    assert (job["kind"], job["subject"], job["arguments"]["reason"]) == ("remove", "1.2.10", "old")
    assert rig.get(f"/api/jobs/{job['job_id']}") == job


# Safe to delete


def test_nothing_is_safe_to_delete_that_no_peer_committed(rig: OrthancRig) -> None:
    keep(rig, 1, 2, 3)
    path = "/api/studies/1.2.10/safe-to-delete"
    found = rig.get(f"{path}?limit=2")
    assert (found["is_safe"], found["safe"], found["unsafe"]) == (False, 0, 3)
    assert [one["words"] for one in found["items"]] == ["no peer was asked to commit it"] * 2
    assert found["next"] == f"{path}?limit=2&cursor=2"
    assert len(rig.get(found["next"])["items"]) == 1
    assert rig.get(found["next"])["next"] is None
    assert rig.client.get(f"{path}?cursor=x").status_code == 422
    assert rig.client.get("/api/studies/1.2.99/safe-to-delete").status_code == 404


def test_digests_of_lists_are_those_of_the_bytes(rig: OrthancRig) -> None:
    instance = make_instance(1)
    rig.upload(instance)
    rig.settle()
    (row,) = items(rig, "/api/instances")
    assert row["digest"] == blake3(instance.data).hexdigest()
    assert row["data_set_length"] == len(instance.data)
