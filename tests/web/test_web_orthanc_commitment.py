"""Storage commitment as user in Orthanc's shape: asking in both forms, the report, and removing what is safe to remove."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.archive import catalog
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.web import orthanc_commitment_asking
from stowkeeper.web.orthanc_ids import orthanc_id
from stowkeeper.web.roles import Role
from support.commitment_provider import Asked, Provider, commits_all_on_same, event_information, providing
from support.commitment_server import dead_port, silent_port
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

CT = CT_IMAGE_STORAGE
UNKNOWN = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "ours") as running:
        yield running


def know(rig: OrthancRig, provider: Provider, name: str = "pacs", **more: Any) -> None:
    """Make a provider a modality."""
    body = {"AET": provider.ae_title, "Host": "127.0.0.1", "Port": provider.port, "Timeout": 10, **more}
    assert rig.ask("PUT", f"/modalities/{name}", body).status == 200


def item(number: int) -> dict[str, str]:
    return {"SOPClassUID": CT, "SOPInstanceUID": f"1.2.3.{number}"}


def ask(rig: OrthancRig, body: Any) -> str:
    """Ask, and return the path of the transaction."""
    answer = rig.post("/modalities/pacs/storage-commitment", body)
    assert answer == {"ID": answer["ID"], "Path": f"/storage-commitment/{answer['ID']}"}
    assert answer["ID"].startswith("2.25.")
    return str(answer["Path"])


def fails_some(*numbers: int, reason: int = 0x0112) -> Any:
    """Make a provider that reports some instances as failed."""

    def report(provider: Provider, asked: Asked) -> None:
        failed = [one for one in asked.references if one.sop_instance_uid in {f"1.2.3.{n}" for n in numbers}]
        committed = [one for one in asked.references if one not in failed]
        information = event_information(asked.transaction_uid, committed, failed, reason=reason)
        provider.report_on(asked.association, information, 2 if failed else 1)

    return report


def test_every_form_of_a_request(rig: OrthancRig) -> None:
    ids = rig.keep(1, 2)
    rig.keep(3, study="1.2.20", series="1.2.20.1")
    patient, study = orthanc_id("P1"), orthanc_id("P1", "1.2.10")
    with providing(on_request=commits_all_on_same) as provider:
        know(rig, provider)
        for body, numbers in (
            ({"DicomInstances": [item(1)]}, [1]),
            ({"DicomInstances": [[CT, "1.2.3.1"], [CT, "1.2.3.2"]]}, [1, 2]),
            ({"DicomInstances": [[CT, "1.2.3.1"], item(2)]}, [1, 2]),
            ({"DicomInstances": [[CT, "1.2.3.99"]]}, [99]),  # we need not have it
            ({"Resources": [ids[0]]}, [1]),
            ({"Resources": [study], "Timeout": 20}, [1, 2]),
            ({"Resources": [patient, ids[0]]}, [1, 2, 3]),
            ({"Resources": [ids[1]], "DicomInstances": [[CT, "1.2.3.1"], [CT, "1.2.3.2"]]}, [2, 1]),
        ):
            path = ask(rig, body)
            assert rig.wait_for_report(path) == {
                "Failures": [],
                "RemoteAET": "PACS",
                "Status": "Success",
                "Success": [item(number) for number in numbers],
            }
            asked = provider.asked[-1]
            assert [one.sop_instance_uid for one in asked.references] == [f"1.2.3.{n}" for n in numbers]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (0x0110, "A general failure in processing the operation was encountered"),
        (0x0112, "One or more of the elements in the Referenced SOP Instance Sequence was not available"),
        (0x0119, "The SOP Class of an element in the Referenced SOP Instance Sequence did not correspond"),
        (0x0122, "Storage Commitment has been requested for a SOP Instance with a SOP Class"),
        (0x0131, "The Transaction UID of the Storage Commitment Request is already in use"),
        (0x0213, "The SCP does not currently have enough resources"),
        (0x0999, "Unknown failure reason"),
    ],
)
def test_a_report_of_failures(rig: OrthancRig, reason: int, words: str) -> None:
    rig.keep(1, 2)
    with providing(on_request=fails_some(2, reason=reason)) as provider:
        know(rig, provider)
        report = rig.wait_for_report(ask(rig, {"DicomInstances": [item(1), item(2)]}))
    assert (report["Status"], report["Success"]) == ("Failure", [item(1)])
    (failure,) = report["Failures"]
    assert failure["Description"].startswith(words)
    assert {**failure, "Description": ""} == {**item(2), "FailureReason": reason, "Description": ""}


def test_a_transaction_without_a_report_is_pending(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    with providing() as provider:
        know(rig, provider)
        path = ask(rig, {"Resources": [own_id]})
        assert rig.get(path) == {"RemoteAET": "PACS", "Status": "Pending"}
        refused = rig.ask("POST", f"{path}/remove", b"")
        assert (refused.status, refused.value["OrthancStatus"]) == (500, 6)
        assert rig.get("/instances") == [own_id]
        (job,) = [job for job in rig.get("/jobs?expand") if job["Type"] == "CommitmentRequest"]
        rig.post(f"/jobs/{job['ID']}/cancel")
        rig.wait_for_job(job["ID"], "Failure")
    # What nobody reported on has no reason of the modality's.
    report = rig.get(path)
    assert (report["Status"], report["Success"]) == ("Failure", [])
    assert report["Failures"][0]["FailureReason"] == 0x0110


def test_nothing_and_what_is_no_uid_need_no_modality(rig: OrthancRig) -> None:
    with dead_port() as port:
        rig.ask("PUT", "/modalities/pacs", ["PACS", "127.0.0.1", port])
        for body in ({"DicomInstances": []}, {"Resources": []}):
            path = ask(rig, body)
            assert rig.get(path) == {"Failures": [], "RemoteAET": "PACS", "Status": "Success", "Success": []}
            assert rig.post(f"{path}/remove") == {}
        report = rig.get(ask(rig, {"DicomInstances": [["nope", "1.2.3.1"], [CT, "neither"]]}))
        assert (report["Status"], report["Success"]) == ("Failure", [])
        assert [failure["FailureReason"] for failure in report["Failures"]] == [274, 274]
        assert rig.get("/jobs") == []
        # Nobody was asked, and the archive's own rows do not say that anybody answered.
        shown = rig.get("/api/commitments")["items"]
        assert [(one["state"], one["error"]) for one in shown] == [
            ("failed", "the peer was not asked: what was named is no UID"),
            ("cancelled", "the peer was not asked: no instance was named"),
            ("cancelled", "the peer was not asked: no instance was named"),
        ]
        assert all(one["reported_at"] is None for one in shown)
        again = rig.client.post(f"/api/commitments/{shown[1]['commitment_key']}/resend")
        assert again.status_code == 409
        assert "named no instance" in again.json()["detail"]


def test_what_is_no_uid_fails_and_the_rest_is_asked_for(rig: OrthancRig) -> None:
    rig.keep(1, 2)
    with providing(on_request=fails_some(2)) as provider:
        know(rig, provider)
        pairs = [["nope", "nope2"], [CT, "1.2.3.1"], [CT, "nope"], [CT, "1.2.3.2"]]
        path = ask(rig, {"DicomInstances": pairs})
        report = rig.wait_for_report(path)
        (asked,) = provider.asked
        assert [one.sop_instance_uid for one in asked.references] == ["1.2.3.1", "1.2.3.2"]
        assert (report["Status"], report["Success"]) == ("Failure", [item(1)])
        failed = [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]]
        assert failed == [("nope2", 274), ("nope", 274), ("1.2.3.2", 274)]
        assert rig.ask("POST", f"{path}/remove", b"").status == 500
        # The modality named all that it was asked for, and it is asked again for what it can be asked for.
        (shown,) = rig.get("/api/commitments")["items"]
        with rig.database.read() as connection:
            assert [one.words for one in rows.reports_of(connection, shown["commitment_key"])] == [""]
        again = rig.client.post(f"/api/commitments/{shown['commitment_key']}/resend")
        assert again.status_code < 300
        assert [one.sop_instance_uid for one in provider.wait_for_requests(2)[1].references] == ["1.2.3.2"]
        rig.wait(lambda: all(one.reported_at for one in transactions(rig)), "the second report")
        assert [one.instances for one in transactions(rig)] == [1, 4]
    with providing(on_request=commits_all_on_same) as provider:
        know(rig, provider)
        assert rig.wait_for_report(ask(rig, {"DicomInstances": pairs}))["Success"] == [item(1), item(2)]
        key = rig.get("/api/commitments")["items"][0]["commitment_key"]
        again = rig.client.post(f"/api/commitments/{key}/resend")
    assert again.status_code == 409
    assert "named by no UID" in again.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code", "details"),
    [
        ({}, 400, 15, "Empty storage commitment request, one of these fields is mandatory"),
        (b"", 400, 15, "Must provide a JSON object with a list of resources"),
        (b"{", 400, 15, "Must provide a JSON object with a list of resources"),
        ([], 400, 15, "Must provide a JSON object with a list of resources"),
        (5, 400, 15, "Must provide a JSON object with a list of resources"),
        ({"DicomInstances": [{"SOPClassUID": "", "SOPInstanceUID": ""}]}, 400, 3, "cannot be empty"),
        ({"DicomInstances": [["", ""]]}, 400, 3, "cannot be empty"),
        ({"DicomInstances": [[CT]]}, 400, 15, "an array with 2 strings"),
        ({"DicomInstances": [[CT, 5]]}, 400, 15, "an array with 2 strings"),
        ({"DicomInstances": [{"SOPClassUID": CT}]}, 400, 15, "an object with 2 string"),
        ({"DicomInstances": ["x"]}, 400, 15, "JSON array or object is expected"),
        ({"DicomInstances": [None]}, 400, 15, "JSON array or object is expected"),
        ({"DicomInstances": 5}, 400, 15, 'The "DicomInstances" field must provide an array'),
        ({"DicomInstances": [[CT, "1" * 65]]}, 400, 3, "64 characters at most"),
        ({"Resources": UNKNOWN}, 400, 15, 'The "Resources" field must provide an array of Orthanc resources'),
        ({"Resources": [5]}, 400, 15, 'The "Resources" field must provide an array of strings'),
        ({"Resources": ["nope"]}, 404, 17, None),
        ({"Resources": [UNKNOWN]}, 404, 17, None),
        ({"Resources": [], "Timeout": "x"}, 400, 15, "Integer value expected in field: Timeout"),
        ({"Resources": [], "Timeout": -3}, 400, 15, "Unsigned integer value expected in field: Timeout"),
        ({"Resources": [], "Timeout": 9999}, 400, 3, "A timeout is from 0 to 3600 seconds"),
        ({"Resources": ["x"] * 10_001}, 400, 3, "10000 resources can be named at once"),
        (b"[" * 200 + b"]" * 200, 400, 8, "nested"),
    ],
    ids=str,
)
def test_requests_that_are_none(
    rig: OrthancRig, body: Any, status: int, code: int, details: str | None
) -> None:
    rig.ask("PUT", "/modalities/pacs", ["PACS", "192.0.2.7", 104])
    answer = rig.ask("POST", "/modalities/pacs/storage-commitment", body)
    assert (answer.status, answer.value["OrthancStatus"]) == (status, code)
    assert (details or "") in answer.value.get("Details", "")
    assert rig.get("/jobs") == []


def test_unknown_modalities_and_transactions(rig: OrthancRig) -> None:
    answer = rig.ask("POST", "/modalities/nope/storage-commitment", {"Resources": []})
    assert (answer.status, answer.value["Details"]) == (404, "No modality with symbolic name: nope")
    for method, path in (("GET", "/storage-commitment/1.2.3"), ("POST", "/storage-commitment/1.2.3/remove")):
        answer = rig.ask(method, path)
        assert (answer.status, answer.value["OrthancStatus"]) == (404, 7)
        assert answer.value["Details"] == "No storage commitment transaction with UID: 1.2.3"
    assert rig.ask("GET", "/storage-commitment").status == 404
    assert rig.ask("DELETE", "/storage-commitment/1.2.3").status == 405


def transactions(rig: OrthancRig) -> list[Any]:
    with rig.database.read() as connection:
        return rows.list_commitments(connection)


def test_nobody_is_there(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    with dead_port() as port:
        rig.ask("PUT", "/modalities/pacs", ["PACS", "127.0.0.1", port])
        for _ in range(2):  # the second time the lane is blocked
            answer = rig.ask("POST", "/modalities/pacs/storage-commitment", {"Resources": [own_id]})
            assert (answer.status, answer.value["OrthancStatus"]) == (500, 9)
            assert f"127.0.0.1:{port}" in answer.value["Details"]
        # Whoever was told so has asked for nothing that comes true later.
        rig.wait(
            lambda: {one.state for one in transactions(rig)} == {CommitmentState.CANCELLED},
            "the transactions to be cancelled",
        )


def test_a_refusal(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    with providing(status=0x0124) as provider:
        know(rig, provider)
        answer = rig.ask("POST", "/modalities/pacs/storage-commitment", {"Resources": [own_id]})
    assert (answer.status, answer.value["OrthancStatus"]) == (500, 9)
    assert "0124H" in answer.value["Details"]


def test_a_modality_that_is_slow_to_answer_is_pending(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    with silent_port() as port, patch.object(orthanc_commitment_asking, "FIRST_ATTEMPT_SECONDS", 0.2):
        rig.ask("PUT", "/modalities/pacs", ["PACS", "127.0.0.1", port])
        path = ask(rig, {"Resources": [own_id]})
        assert rig.get(path)["Status"] == "Pending"
        (job,) = rig.get("/jobs")
        rig.post(f"/jobs/{job}/cancel")


# Removing.


def committed(rig: OrthancRig, *numbers: int) -> str:
    """Have instances committed; return the path of the transaction."""
    with providing(on_request=commits_all_on_same) as provider:
        know(rig, provider)
        path = ask(rig, {"DicomInstances": [item(number) for number in numbers]})
        assert rig.wait_for_report(path)["Status"] == "Success"
    return path


def test_what_is_committed_can_be_removed_once_and_again(rig: OrthancRig) -> None:
    kept = rig.keep(1, 2, 3)
    path = committed(rig, 1, 2)
    assert rig.post(f"{path}/remove", {}) == {}
    assert rig.get("/instances") == [kept[2]]
    assert rig.get(path)["Status"] == "Success"
    assert rig.post(f"{path}/remove") == {}


def test_what_was_never_here_is_no_obstacle(rig: OrthancRig) -> None:
    rig.keep(1)
    path = committed(rig, 1, 77)
    assert rig.post(f"{path}/remove") == {}
    assert rig.get("/instances") == []


def test_after_a_failure_nothing_is_removed(rig: OrthancRig) -> None:
    kept = rig.keep(1, 2)
    with providing(on_request=fails_some(2)) as provider:
        know(rig, provider)
        path = ask(rig, {"Resources": kept})
        assert rig.wait_for_report(path)["Status"] == "Failure"
    answer = rig.ask("POST", f"{path}/remove", b"")
    assert (answer.status, answer.value["OrthancStatus"]) == (500, 6)
    uid = path.rpartition("/")[2]
    assert answer.value["Details"].endswith(f"after failure in storage commitment transaction: {uid}")
    assert rig.get("/instances") == kept


def test_what_changed_since_stays_and_the_rest_goes(rig: OrthancRig) -> None:
    rig.keep(1, 2)
    path = committed(rig, 1, 2)
    rig.upload(make_instance(2, content=9))
    answer = rig.ask("POST", f"{path}/remove", b"")
    assert (answer.status, answer.value["HttpStatus"]) == (409, 409)
    assert answer.value["Details"].startswith("1 instance is not safe to remove and was kept")
    assert "1.2.3.2: " in answer.value["Details"]
    assert rig.get("/instances") == [orthanc_id("P1", "1.2.10", "1.2.10.1", "1.2.3.2")]


def test_the_last_word_of_the_modality_counts_and_no_others(rig: OrthancRig) -> None:
    kept = rig.keep(1)
    path = committed(rig, 1)
    for name, provides, status in (
        ("pacs", fails_some(1), "Failure"),
        ("other", commits_all_on_same, "Success"),
    ):
        with providing(on_request=provides) as provider:
            know(rig, provider, name)
            asked = rig.post(f"/modalities/{name}/storage-commitment", {"Resources": kept})
            assert rig.wait_for_report(asked["Path"])["Status"] == status
    assert rig.ask("POST", f"{path}/remove", b"").status == 409
    assert rig.get("/instances") == kept


def test_what_we_promised_to_others_stays(rig: OrthancRig) -> None:
    kept = rig.keep(1)
    path = committed(rig, 1)
    with rig.database.write() as transaction:
        (version,) = catalog.find_versions(transaction.connection, ["1.2.3.1"])["1.2.3.1"]
        catalog.hold(transaction, [version.version_key], "committed to SCANNER")
    answer = rig.ask("POST", f"{path}/remove", b"")
    assert answer.status == 409
    assert "it is held here" in answer.value["Details"]
    assert rig.get("/instances") == kept


def test_what_we_committed_to_ourselves_stays(rig: OrthancRig) -> None:
    """An archive that is its own modality has one copy, and removing it would remove what was promised."""
    kept = rig.keep(1)
    body = {"AET": rig.services.facts.ae_title, "Host": "127.0.0.1", "Port": rig.port}
    assert rig.ask("PUT", "/modalities/self", body).status == 200
    stored = rig.post("/modalities/self/store", {"Resources": kept, "StorageCommitment": True})
    path = f"/storage-commitment/{stored['StorageCommitmentTransactionUID']}"
    assert rig.wait_for_report(path)["Success"] == [item(1)]
    answer = rig.ask("POST", f"{path}/remove", b"")
    assert (answer.status, answer.value["HttpStatus"]) == (409, 409)
    assert "it is held here" in answer.value["Details"]
    assert rig.get("/instances") == kept


def test_who_reads_may_neither_ask_nor_remove(rig: OrthancRig) -> None:
    rig.keep(1)
    path = committed(rig, 1)
    reader = rig.token("reader", Role.READ)
    assert rig.ask("GET", path, headers=reader).status == 200
    for asked in (f"{path}/remove", "/modalities/pacs/storage-commitment"):
        assert rig.ask("POST", asked, {"Resources": []}, headers=reader).status == 403


def test_the_transaction_is_that_of_the_archive(rig: OrthancRig) -> None:
    rig.keep(1)
    path = committed(rig, 1)
    with rig.database.read() as connection:
        found = rows.find(connection, CommitmentRole.USER, path.rpartition("/")[2])
        assert found is not None
        (one,) = rows.instances_of(connection, found.commitment_key)
    assert (found.peer, found.own_ae_title, found.instances) == ("pacs", "STOWKEEPER", 1)
    assert one.version_key is not None  # what is safe to remove is told by it
