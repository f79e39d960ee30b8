"""POST /modalities/…/store in Orthanc's shape: every form of the request, waited for or not, and what goes wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pynetdicom import AE, evt

from stowkeeper.archive import listing
from stowkeeper.services.peers import Peer
from stowkeeper.web import orthanc_store, orthanc_waiting
from stowkeeper.web.orthanc_ids import orthanc_id
from stowkeeper.web.roles import Role
from support.commitment_server import dead_port, silent_port
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

UNKNOWN = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "ours") as running:
        yield running


@pytest.fixture
def pacs(tmp_path: Path, ours: OrthancRig) -> Iterator[OrthancRig]:
    """Give another server that ours knows as `pacs`; it knows us as `us`."""
    with orthanc_rig(tmp_path / "pacs", ae_title="PACS", runs_jobs=True) as running:
        assert ours.ask("PUT", "/modalities/pacs", ["PACS", "127.0.0.1", running.port]).status == 200
        assert running.ask("PUT", "/modalities/us", ["STOWKEEPER", "127.0.0.1", ours.port]).status == 200
        yield running


def content(count: int, parents: list[str], **more: Any) -> dict[str, Any]:
    return {
        "Description": "REST API",
        "FailedInstancesCount": 0,
        "InstancesCount": count,
        "LocalAet": "STOWKEEPER",
        "ParentResources": sorted(parents),
        "RemoteAet": "PACS",
        **more,
    }


def test_every_form_of_a_synchronous_request(ours: OrthancRig, pacs: OrthancRig) -> None:
    ids = ours.keep(1, 2)
    (other,) = ours.keep(3, study="1.2.20", series="1.2.20.1")
    patient, study = orthanc_id("P1"), orthanc_id("P1", "1.2.10")
    series = orthanc_id("P1", "1.2.10", "1.2.10.1")
    store = "/modalities/pacs/store"
    assert ours.post(store, ids[0].encode()) == content(1, ids[:1])
    assert ours.post(store, f" {ids[0]}\n".encode()) == content(1, ids[:1])
    assert ours.post(store, ids[0]) == content(1, ids[:1])  # as JSON
    assert ours.post(store, [ids[0], ids[1]]) == content(2, ids)
    assert ours.post(store, {"Resources": [series]}) == content(2, [series])
    assert ours.post(store, {"Resources": [study], "Synchronous": True}) == content(2, [study])
    assert ours.post(store, {"Resources": [patient], "Asynchronous": False}) == content(3, [patient])
    # Named twice, and by what is above it: it is sent once.
    assert ours.post(store, [ids[0], ids[0], series]) == content(2, [ids[0], series])
    pacs.settle()
    assert sorted(pacs.get("/instances")) == sorted([*ids, other])


def test_a_series_whose_uid_is_in_two_studies(ours: OrthancRig, pacs: OrthancRig) -> None:
    ours.keep(1, study="1.2.10", series="1.2.77")
    ours.keep(2, study="1.2.20", series="1.2.77")
    series = orthanc_id("P1", "1.2.10", "1.2.77")
    assert ours.post("/modalities/pacs/store", [series])["InstancesCount"] == 1
    pacs.settle()
    assert pacs.get("/studies") == [orthanc_id("P1", "1.2.10")]


def test_asynchronous(ours: OrthancRig, pacs: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    body = {"Resources": [own_id], "Asynchronous": True, "Priority": 7}
    answer = ours.post("/modalities/pacs/store", body)
    assert answer == {"ID": answer["ID"], "Path": f"/jobs/{answer['ID']}"}
    job = ours.wait_for_job(answer["ID"], "Success")
    assert (job["Type"], job["Priority"], job["Progress"]) == ("DicomModalityStore", 7, 100)
    assert job["Content"] == content(1, [own_id])


def test_with_commitment(ours: OrthancRig, pacs: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    answer = ours.post("/modalities/pacs/store", {"Resources": [own_id], "StorageCommitment": True})
    uid = answer["StorageCommitmentTransactionUID"]
    assert answer == content(1, [own_id], StorageCommitmentTransactionUID=uid)
    report = ours.wait_for_report(f"/storage-commitment/{uid}")
    assert (report["Status"], report["RemoteAET"]) == ("Success", "PACS")


@pytest.mark.parametrize(
    "changes",
    [
        {"Host": "localhost"},
        {"Port": 1},
        {"CalledAet": "ELSE"},
        {"LocalAet": "ELSE"},
        {"Host": "127.0.0.1", "LocalAet": "ELSE"},
    ],
)
@pytest.mark.parametrize("more", [{}, {"Asynchronous": True}])
def test_who_only_operates_sends_to_the_modality_as_it_is_defined(
    tmp_path: Path, changes: dict[str, Any], more: dict[str, Any]
) -> None:
    peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    with orthanc_rig(tmp_path / "ours", peer, runs_jobs=False) as ours:
        (own_id,) = ours.keep(1)
        tokens = {role: ours.token(role, role) for role in (Role.OPERATE, Role.ADMIN)}
        body = {"Resources": [own_id], "Asynchronous": True} | changes | more
        refused = ours.ask("POST", "/modalities/pacs/store", body, headers=tokens[Role.OPERATE])
        assert refused.status == 403
        assert "needs the role admin" in refused.value["Details"]
        assert ours.ask("GET", "/jobs", headers=tokens[Role.OPERATE]).value == []
        assert ours.ask("POST", "/modalities/pacs/store", body, headers=tokens[Role.ADMIN]).status == 200
        same = {"Host": "127.0.0.1", "Port": peer.port, "CalledAet": "PACS", "LocalAet": "STOWKEEPER"}
        body = {"Resources": [own_id], "Asynchronous": True, "Timeout": 3} | same
        assert ours.ask("POST", "/modalities/pacs/store", body, headers=tokens[Role.OPERATE]).status == 200


def test_called_otherwise_than_it_is_defined(ours: OrthancRig, pacs: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    wrong = ["WRONG", "192.0.2.1", 1]
    assert ours.ask("PUT", "/modalities/wrong", wrong).status == 200
    body = {
        "Resources": [own_id],
        "LocalAet": "OTHERWISE",
        "CalledAet": "PACS",
        "Host": "127.0.0.1",
        "Port": pacs.port,
        "Timeout": 9,
    }
    told = ours.post("/modalities/wrong/store", body)
    assert told == content(1, [own_id], LocalAet="OTHERWISE")
    pacs.settle()
    (association,) = list(listing.associations(pacs.database))
    assert (association["calling_ae_title"], association["called_ae_title"]) == ("OTHERWISE", "PACS")


def test_nothing_to_send(ours: OrthancRig, pacs: OrthancRig) -> None:
    for body in ([], {"Resources": []}):
        told = ours.post("/modalities/pacs/store", body)
        assert told == {
            "Description": "REST API",
            "FailedInstancesCount": 0,
            "InstancesCount": 0,
            "LocalAet": "STOWKEEPER",
            "RemoteAet": "PACS",
        }


@pytest.mark.parametrize(
    ("body", "status", "code", "details"),
    [
        (b"", 400, 15, "Must provide a JSON value"),
        (b"nope", 400, 15, "Must provide a JSON value"),
        (b"{bad", 400, 15, "Must provide a JSON value"),
        (b"\xff", 400, 15, "Must provide a JSON value"),
        ({}, 400, 15, 'Missing field in JSON: "Resources"'),
        ({"Resources": UNKNOWN}, 400, 15, 'JSON field "Resources" must contain an array'),
        ({"Resources": ["nope"]}, 400, 15, "This string is not a valid Orthanc identifier: nope"),
        (["nope"], 400, 15, "This string is not a valid Orthanc identifier: nope"),
        (5, 400, 15, "Must provide a JSON object, or a JSON array of strings"),
        ([5], 400, 15, "Resources to be exported must be specified as a JSON array of strings"),
        (
            {"Resources": [5]},
            400,
            15,
            "Resources to be exported must be specified as a JSON array of strings",
        ),
        (UNKNOWN.encode(), 404, 17, None),
        ({"Resources": [UNKNOWN]}, 404, 17, None),
        ({"Resources": [], "Synchronous": "x"}, 400, 15, "Boolean value expected in field: Synchronous"),
        ({"Resources": [], "Asynchronous": 1}, 400, 15, "Boolean value expected in field: Asynchronous"),
        ({"Resources": [], "Permissive": "x"}, 400, 15, "Boolean value expected in field: Permissive"),
        (
            {"Resources": [], "StorageCommitment": "x"},
            400,
            15,
            "Boolean value expected in field: StorageCommitment",
        ),
        ({"Resources": [], "Priority": "x"}, 400, 15, "Integer value expected in field: Priority"),
        ({"Resources": [], "Priority": 1001}, 400, 3, "A priority is from -1000 to 1000"),
        ({"Resources": [], "Timeout": 9999}, 400, 3, "A timeout is from 0 to 3600 seconds"),
        ({"Resources": [], "LocalAet": 5}, 400, 15, "String value expected in field: LocalAet"),
        ({"Resources": [], "LocalAet": "A" * 17}, 400, 3, "it has 17 characters"),
        ({"Resources": [], "Port": 70000}, 400, 3, "port"),
        ({"Resources": [], "MoveOriginatorAet": "X"}, 400, 3, "nothing is moved here"),
        (["0" * 8] * 10_001, 400, 3, "10000 resources can be named at once"),
        (b"[" * 200 + b"]" * 200, 400, 8, "nested"),
    ],
    ids=str,
)
def test_requests_that_are_none(
    ours: OrthancRig, body: Any, status: int, code: int, details: str | None
) -> None:
    assert ours.ask("PUT", "/modalities/pacs", ["PACS", "192.0.2.7", 104]).status == 200
    answer = ours.ask("POST", "/modalities/pacs/store", body)
    assert (answer.status, answer.value["OrthancStatus"]) == (status, code)
    assert (details or "") in answer.value.get("Details", "")
    assert ours.get("/jobs") == []


def test_an_unknown_modality(ours: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    answer = ours.ask("POST", "/modalities/nope/store", own_id.encode())
    assert (answer.status, answer.value["Details"]) == (404, "No modality with symbolic name: nope")


def test_a_modality_that_nobody_said_where_it_is(ours: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    ours.services.peers.save(Peer.from_json({"name": "any", "ae_title": "ANY"}), "test")
    answer = ours.ask("POST", "/modalities/any/store", own_id.encode())
    assert (answer.status, answer.value["OrthancStatus"]) == (400, 8)


def test_nobody_is_there(ours: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    with dead_port() as port:
        ours.ask("PUT", "/modalities/dead", ["DEAD", "127.0.0.1", port])
        answer = ours.ask("POST", "/modalities/dead/store", own_id.encode())
        assert (answer.status, answer.value["OrthancStatus"]) == (500, 9)
        assert f"127.0.0.1:{port}" in answer.value["Details"]
        # Whoever was told that it failed has no job that sends it after all.
        (job,) = ours.get("/jobs")
        assert ours.wait_for_job(job, "Failure")["ErrorCode"] == 37
        # The lane is blocked now; who waits is told at once all the same.
        again = ours.ask("POST", "/modalities/dead/store", own_id.encode())
        assert again.status == 500
        queued = ours.post("/modalities/dead/store", {"Resources": [own_id], "Asynchronous": True})
        assert ours.wait_for_job(queued["ID"], "Pending", "Retry")["State"] in ("Pending", "Retry")


def test_some_are_refused(ours: OrthancRig, tmp_path: Path) -> None:
    first, second = ours.keep(1, 2)
    entity = AE(ae_title="PICKY")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")

    def take(event: Any) -> int:
        return 0x0000 if event.request.AffectedSOPInstanceUID == "1.2.3.1" else 0xC000

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    try:
        port = server.socket.getsockname()[1]  # type: ignore[union-attr]  # it listens
        ours.ask("PUT", "/modalities/picky", ["PICKY", "127.0.0.1", port])
        refused = ours.ask("POST", "/modalities/picky/store", [first, second])
        assert (refused.status, refused.value["OrthancStatus"]) == (500, 9)
        assert "1 of 2 instances was not stored" in refused.value["Details"]
        told = ours.post("/modalities/picky/store", {"Resources": [first, second], "Permissive": True})
        assert (told["InstancesCount"], told["FailedInstancesCount"]) == (2, 1)
        none = ours.ask("POST", "/modalities/picky/store", {"Resources": [second], "Permissive": True})
        assert none.status == 500
    finally:
        server.shutdown()


def test_a_job_that_takes_longer_than_anybody_waits(ours: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    with silent_port() as port, patch.object(orthanc_store, "SYNCHRONOUS_SECONDS_MAX", 0.2):
        ours.ask("PUT", "/modalities/silent", {"AET": "S", "Host": "127.0.0.1", "Port": port, "Timeout": 20})
        answer = ours.post("/modalities/silent/store", own_id.encode())
        assert answer == {"ID": answer["ID"], "Path": f"/jobs/{answer['ID']}"}
        assert ours.post(f"{answer['Path']}/cancel") == {}


def test_not_too_many_wait(ours: OrthancRig) -> None:
    (own_id,) = ours.keep(1)
    ours.ask("PUT", "/modalities/pacs", ["PACS", "192.0.2.7", 104])
    with patch.object(orthanc_waiting, "WAITING_MAX", 0):
        for path in ("store", "storage-commitment"):
            answer = ours.ask("POST", f"/modalities/pacs/{path}", {"Resources": [own_id]})
            assert answer.status == 503
            assert answer.headers["retry-after"]
    assert ours.get("/jobs") == []  # who is not heard has put nothing in
