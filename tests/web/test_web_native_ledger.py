"""/api/associations, /api/receipts, /api/requests, /api/changes, /api/statistics, /api/system: who came, and what there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.web.native_rows import (
    Association,
    Change,
    Instance,
    Receipt,
    Series,
    StoreRequest,
    Study,
)
from support.instances import CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN, make_instance
from support.orthanc_rig import OrthancRig, orthanc_rig
from support.raw_peer import Context, RawPeer

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as running:
        yield running


CONTEXT = Context(
    context_id=1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,)
)


def store(rig: OrthancRig, *numbers: int, calling: bytes = b"SCANNER") -> None:
    """Store instances by C-STORE; the last one once more, with another instance's UID: it is refused."""
    before = ended(rig)
    with RawPeer(rig.port) as peer:
        peer.associate(CONTEXT, calling=calling)
        for number in numbers:
            instance = make_instance(number)
            answer = peer.store(instance.sop_instance_uid, instance.data, context_id=1)
            assert answer.status == 0
        peer.release()
    rig.wait(lambda: not rig.get("/api/associations/open")["items"], "the end of the association")
    rig.wait(lambda: ended(rig) > before, "its line in the ledger")
    rig.settle()


def ended(rig: OrthancRig) -> int:
    return sum(1 for one in items(rig, "/api/associations") if one["ended"])


def items(rig: OrthancRig, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rig.get(path)["items"]
    return found


def test_who_came_is_told_with_what_they_sent(rig: OrthancRig) -> None:
    store(rig, 1, 2)
    store(rig, 3, calling=b"OTHER")
    newest, oldest = items(rig, "/api/associations")
    assert (newest["calling_ae_title"], newest["requests_kept"], newest["ended"]) == ("OTHER", 1, "released")
    assert (oldest["calling_ae_title"], oldest["requests_kept"], oldest["peer_address"]) == (
        "SCANNER",
        2,
        "127.0.0.1",
    )
    assert oldest["contexts"] == [[1, CT_IMAGE_STORAGE, 0, EXPLICIT_VR_LITTLE_ENDIAN]]
    assert oldest["rejection"] is None
    assert rig.get(f"/api/associations/{oldest['association_id']}") == oldest
    assert [one["calling_ae_title"] for one in items(rig, "/api/associations?calling_ae_title=OTHER")] == [
        "OTHER"
    ]
    assert rig.client.get("/api/associations/unknown").status_code == 404

    requests = items(rig, f"/api/requests?uid={oldest['association_id']}&order=oldest")
    # Nothing below a microsecond means anything.
    assert all(one[f"seconds_{of}"] == round(one[f"seconds_{of}"], 6) for one in requests for of in _MEASURED)
    assert [(one["sop_instance_uid"], one["status"], one["outcome"]) for one in requests] == [
        ("1.2.3.1", "0000H", "kept"),
        ("1.2.3.2", "0000H", "kept"),
    ]
    receipts = items(rig, "/api/receipts?order=oldest&outcome=stored")
    assert [one["sop_instance_uid"] for one in receipts] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert receipts[0]["association_id"] == oldest["association_id"]
    assert receipts[0]["receipt_id"] == requests[0]["receipt_id"]
    assert rig.get(f"/api/receipts/{receipts[0]['receipt_id']}") == receipts[0]
    assert items(rig, "/api/receipts?outcome=conflict") == []
    for path in (
        "receipts/unknown",
        f"receipts/{oldest['association_id']}",
        "receipts/1.2.3.1",
        "associations/1.2.3.1",
    ):
        assert rig.client.get(f"/api/{path}").status_code == 404, path
    assert rig.client.get("/api/receipts?outcome=lost").status_code == 422


def test_associations_that_are_open_are_shown(rig: OrthancRig) -> None:
    with RawPeer(rig.port) as peer:
        echo = Context(
            context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,)
        )
        peer.associate(echo, calling=b"SCANNER")
        (shown,) = items(rig, "/api/associations/open")
        assert (shown["calling_ae_title"], shown["called_ae_title"]) == ("SCANNER", "STOWKEEPER")
        assert (shown["contexts_accepted"], shown["tls"]) == (1, "")
        assert shown["opened_at"].endswith("Z")
        assert rig.get("/api/system")["open_associations"] == 1
        assert rig.get("/api/statistics")["open_associations"] == 1
        peer.release()
    rig.wait(lambda: not items(rig, "/api/associations/open"), "the end of the association")


def test_changes_are_followed_with_a_cursor(rig: OrthancRig) -> None:
    store(rig, 1, 2, 3)
    first = rig.get("/api/changes?limit=2")
    assert [one["kind"] for one in first["items"]] == ["received", "received"]
    assert first["is_complete"] is False
    second = rig.get(first["next"])
    assert [one["sop_instance_uid"] for one in first["items"] + second["items"]] == [
        "1.2.3.1",
        "1.2.3.2",
        "1.2.3.3",
    ]
    third = rig.get(rig.get(second["next"])["next"])
    assert (third["items"], third["is_complete"], third["last"]) == ([], True, second["last"])
    rig.client.delete("/api/instances/1.2.3.2?reason=wrong")
    fourth = rig.get(third["next"])
    assert [(one["kind"], one["sop_instance_uid"]) for one in fourth["items"]][:1] == [
        ("removing", "1.2.3.2")
    ]
    assert fourth["items"][0]["detail"] == "wrong"
    assert fourth["last"] > second["last"]
    for senseless in ("since=-1", "since=x", f"since={1 << 63}", "limit=0"):
        assert rig.client.get(f"/api/changes?{senseless}").status_code == 422


_MEASURED = ("network", "disk", "total")


def test_statistics_count_what_is_kept(rig: OrthancRig) -> None:
    assert rig.get("/api/statistics")["instances"] == 0
    store(rig, 1, 2)
    counted = rig.get("/api/statistics")
    sizes = sum(one["size"] for one in items(rig, "/api/instances"))
    assert (counted["studies"], counted["series"], counted["instances"], counted["bytes"]) == (1, 1, 2, sizes)
    assert (counted["receipts"], counted["damaged"], counted["in_conflict"], counted["held"]) == (2, 0, 0, 0)
    assert counted["last_change"] == rig.get("/api/changes")["last"]
    rig.client.post("/api/jobs", json={"kind": "rebuild"})
    again = rig.get("/api/statistics")
    assert again["jobs"] == [{"kind": "rebuild", "state": "pending", "jobs": 1}]
    assert again["oldest_waiting_job_at"]
    rig.client.delete("/api/instances/1.2.3.1")
    assert rig.get("/api/statistics")["instances"] == 1


def test_the_server_says_who_it_is(rig: OrthancRig) -> None:
    shown = rig.get("/api/system")
    archive_id = Path(rig.archive.root, "archive.id").read_text().strip()
    assert shown["archive_id"] == archive_id
    assert (shown["name"], shown["version"], shown["ae_title"]) == ("stowkeeper", "1.2.3", "STOWKEEPER")
    assert (shown["dicom_port"], shown["http_credentials_needed"]) == (rig.port, False)


def test_the_shapes_have_the_keys_of_the_rows_and_no_other(rig: OrthancRig) -> None:
    """A key of a row that its shape lacks would silently not be shown."""
    from stowkeeper.archive import pages

    store(rig, 1)
    with rig.database.read() as connection:
        for rows, shape in (
            (pages.studies, Study),
            (pages.series, Series),
            (pages.instances, Instance),
            (pages.receipts, Receipt),
            (pages.associations, Association),
            (pages.requests, StoreRequest),
            (pages.changes, Change),
        ):
            (row,) = rows(connection).rows
            assert set(shape.model_fields) == set(row), shape
