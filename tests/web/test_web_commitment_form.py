"""Storage commitment by HTTP (PS3.18 chapter 13): every answer, both encodings, and that what is said is kept."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from test_web_commitment_payload import list_json, sq, tree_json, ui, xml_of

from stowkeeper.archive.catalog import find_versions
from stowkeeper.dicom.commitment_information import ActionInformation, Reference
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import Asker, take
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML
from stowkeeper.web import commitment_form, commitment_payload, orthanc_waiting
from stowkeeper.web.commitment_form import FormMemory
from stowkeeper.web.commitment_payload import read_payload
from stowkeeper.web.roles import Role
from support.instances import CT_IMAGE_STORAGE
from support.orthanc_rig import Answer, OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

CT = CT_IMAGE_STORAGE
PATH = "/dicom-web/commitment-requests/{}"
UID = "1.2.840.99.1"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive") as running:
        yield running


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[OrthancRig]:
    """Give a server that runs no jobs: nothing comes to an end."""
    with (
        orthanc_rig(tmp_path / "archive", runs_jobs=False) as running,
        patch.object(commitment_form, "COMMITMENT_WAIT_SECONDS", 0.0),
    ):
        yield running


def references(*numbers: int) -> list[Reference]:
    return [Reference(CT, f"1.2.3.{number}") for number in numbers]


def post(
    rig: OrthancRig,
    body: Any,
    uid: str = UID,
    *,
    content_type: str = DICOM_JSON,
    accept: str = DICOM_JSON,
    **more: Any,
) -> Answer:
    headers = {"Content-Type": content_type, "Accept": accept, **more}
    return rig.ask("POST", PATH.format(uid), body, headers=headers)


def fetch(rig: OrthancRig, uid: str = UID, *, accept: str = DICOM_JSON, **more: str) -> Answer:
    return rig.ask("GET", PATH.format(uid), headers={"Accept": accept, **more})


def result(rig: OrthancRig, uid: str = UID, **more: str) -> Any:
    """Wait until a result is there."""

    def look() -> Any:
        answer = fetch(rig, uid, **more)
        assert answer.status in (200, 202)
        return answer if answer.status == 200 else None

    answer = rig.wait(look, f"the result of {uid}")
    return json.loads(answer.value) if isinstance(answer.value, bytes) else answer.value


def failed_list(*pairs: tuple[int, int]) -> dict[str, Any]:
    return sq(
        *(
            {
                "00081150": ui(CT),
                "00081155": ui(f"1.2.3.{number}"),
                "00081197": {"vr": "US", "Value": [reason]},
            }
            for number, reason in pairs
        )
    )


# Done, and working.


def test_what_is_here_is_committed_and_held(rig: OrthancRig) -> None:
    rig.keep(1, 2)
    answer = post(rig, list_json(references(1, 2, 7)))
    assert answer.status in (200, 202)
    assert result(rig) == {**list_json(references(1, 2)), "00081198": failed_list((7, 0x0112))}
    with rig.database.read() as connection:
        found = find_versions(connection, ["1.2.3.1", "1.2.3.2"])
    assert all(version.is_held for versions in found.values() for version in versions)
    assert rig.ask("DELETE", f"/instances/{rig.get('/instances')[0]}").status == 409


def test_a_quick_result_comes_with_the_answer(rig: OrthancRig) -> None:
    rig.keep(1)
    with patch.object(commitment_form, "COMMITMENT_WAIT_SECONDS", 30.0):
        answer = post(rig, list_json(references(1)))
    assert answer.status == 200
    assert answer.headers["content-type"] == DICOM_JSON
    assert json.loads(answer.value) == list_json(references(1))


def test_what_takes_longer_is_accepted(idle: OrthancRig) -> None:
    for _ in range(2):  # a repeat joins
        answer = post(idle, list_json(references(1)))
        assert (answer.status, answer.value) == (202, b"")
        assert int(answer.headers["retry-after"]) > 0
    again = fetch(idle)
    assert (again.status, again.value) == (202, b"")
    assert int(again.headers["retry-after"]) > 0
    assert len(idle.get("/jobs")) == 1
    assert idle.get("/jobs?expand")[0]["Type"] == "StorageCommitmentScp"


def test_what_is_accepted_is_durable(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as before:
        before.keep(1)
        with patch.object(commitment_form, "COMMITMENT_WAIT_SECONDS", 0.0):
            assert post(before, tree_json({"1.2.10": {"1.2.10.1": {CT: ["1.2.3.1"]}}})).status == 202
    with orthanc_rig(tmp_path / "archive") as after:
        # The tree is forgotten with the process; the list says the same.
        assert result(after) == list_json(references(1))


def test_a_result_can_be_fetched_again_and_again(rig: OrthancRig) -> None:
    rig.keep(1)
    post(rig, list_json(references(1)))
    assert result(rig) == result(rig) == list_json(references(1))
    with rig.database.read() as connection:
        commitment = rows.find(connection, CommitmentRole.PROVIDER, UID)
        assert commitment is not None
        reports = rows.reports_of(connection, commitment.commitment_key)
    assert commitment.state is CommitmentState.REPORTED
    assert [report.way for report in reports] == ["web"]


@pytest.mark.parametrize("content_type", [DICOM_JSON, DICOM_XML])
@pytest.mark.parametrize("accept", [DICOM_JSON, DICOM_XML])
def test_both_encodings_and_both_shapes(rig: OrthancRig, content_type: str, accept: str) -> None:
    rig.keep(1, 2)
    tree = {"1.2.10": {"1.2.10.1": {CT: ["1.2.3.1", "1.2.3.2"]}}}
    for number, data_set in enumerate((list_json(references(1, 2)), tree_json(tree))):
        body = data_set if content_type == DICOM_JSON else xml_of(data_set)
        uid = f"{UID}.{number}"
        assert post(rig, body, uid, content_type=content_type, accept=accept).status in (200, 202)
        result(rig, uid)
        answer = fetch(rig, uid, accept=accept)
        assert answer.headers["content-type"] == accept
        told = answer.value if isinstance(answer.value, bytes) else json.dumps(answer.value).encode()
        expected = read_payload(json.dumps(data_set).encode(), DICOM_JSON)
        assert read_payload(told, accept) == expected


def test_a_tree_in_which_some_fail(rig: OrthancRig) -> None:
    rig.keep(1)
    tree = {"1.2.10": {"1.2.10.1": {CT: ["1.2.3.1", "1.2.3.9"]}}, "1.2.20": {"1.2.20.1": {CT: ["1.2.3.8"]}}}
    post(rig, tree_json(tree))
    found = result(rig)
    assert found["00081110"] == tree_json({"1.2.10": {"1.2.10.1": {CT: ["1.2.3.1"]}}})["00081110"]
    assert [study["0020000D"]["Value"] for study in found["0008119B"]["Value"]] == [["1.2.10"], ["1.2.20"]]


def test_the_preferred_encoding(rig: OrthancRig) -> None:
    """By the rules of stored instances (`stow.media_types`), which has tests of its own."""
    rig.keep(1)
    post(rig, list_json(references(1)))
    result(rig)
    for accept, expected in (
        ("", DICOM_JSON),
        ("*/*", DICOM_JSON),
        ("application/*", DICOM_JSON),
        (DICOM_XML, DICOM_XML),
        (f"{DICOM_XML}, {DICOM_JSON}", DICOM_XML),
        (f"{DICOM_XML};q=0.9, {DICOM_JSON};q=0.8", DICOM_XML),
        (f"{DICOM_XML};q=0.1, */*", DICOM_JSON),
        (f"{DICOM_XML};q=x", DICOM_XML),
        (f"{DICOM_XML.upper()} ; Q=1", DICOM_XML),
    ):
        assert (fetch(rig, accept=accept).headers["content-type"], accept) == (expected, accept)


# A transaction UID again.


def test_a_uid_that_is_in_use(idle: OrthancRig) -> None:
    assert post(idle, list_json(references(1))).status == 202
    other = post(idle, list_json(references(2)))
    assert other.status == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert post(idle, list_json(references(1))).status == 202


def test_a_uid_whose_result_was_told(rig: OrthancRig) -> None:
    rig.keep(1)
    post(rig, list_json(references(1)))
    result(rig)
    assert post(rig, list_json(references(1))).status == 409


def test_a_uid_that_somebody_used_by_n_action(idle: OrthancRig) -> None:
    with idle.database.write() as transaction:
        take(transaction, Asker(way="DIMSE", peer="pacs"), ActionInformation(UID, tuple(references(1))))
    assert post(idle, list_json(references(1))).status == 409
    assert fetch(idle).status == 404  # it was not asked for by HTTP


def test_many_who_ask_the_same_at_once(idle: OrthancRig) -> None:
    barrier = threading.Barrier(6)

    def ask() -> int:
        barrier.wait()
        return post(idle, list_json(references(1))).status

    with ThreadPoolExecutor(6) as pool:
        assert {future.result() for future in [pool.submit(ask) for _ in range(6)]} == {202}
    assert len(idle.get("/jobs")) == 1


# What is refused.


@pytest.mark.parametrize("uid", ["abc", "1..2", "1.02", "1", "1." + "1" * 64, "%20", "1.2%0A"])
def test_a_transaction_uid_that_is_none(idle: OrthancRig, uid: str) -> None:
    assert post(idle, list_json(references(1)), uid).status == 400
    assert fetch(idle, uid).status == 400


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", DICOM_JSON),
        (b"{", DICOM_JSON),
        (b"{}", DICOM_JSON),
        ({"00081199": sq()}, DICOM_JSON),
        (b"[" * 1000 + b"]" * 1000, DICOM_JSON),
        (b'"\\ud800"', DICOM_JSON),
        (b"<a/>", DICOM_XML),
        (b"<!DOCTYPE x>" + xml_of(list_json(), head=""), DICOM_XML),
        (json.dumps(list_json()).encode(), DICOM_XML),
        (xml_of(list_json()), DICOM_JSON),
    ],
)
def test_payloads_that_are_none(idle: OrthancRig, body: Any, content_type: str) -> None:
    answer = post(idle, body, content_type=content_type)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert idle.get("/jobs") == []


@pytest.mark.parametrize("content_type", ["application/json", "text/xml", "application/dicom", ""])
def test_another_media_type(idle: OrthancRig, content_type: str) -> None:
    assert post(idle, list_json(references(1)), content_type=content_type).status == 415


@pytest.mark.parametrize("accept", ["text/html", "application/json", f"{DICOM_JSON};q=0"])
def test_an_answer_that_nobody_takes(idle: OrthancRig, accept: str) -> None:
    assert post(idle, list_json(references(1)), accept=accept).status == 406
    assert fetch(idle, accept=accept).status == 406
    assert idle.get("/jobs") == []


def test_too_many_instances(idle: OrthancRig) -> None:
    with patch.object(commitment_payload, "REFERENCES_MAX", 1):
        assert post(idle, list_json(references(1, 2))).status == 413


def test_a_body_over_the_bound_is_refused_before_it_comes(idle: OrthancRig) -> None:
    host, port = idle.client.base_url.host, idle.client.base_url.port or 0
    fields = {
        "Host": host,
        "Content-Type": DICOM_JSON,
        "Accept": DICOM_JSON,
        "Content-Length": str(200 << 20),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((host, port)) as connection:
        connection.sendall(f"POST {PATH.format(UID)} HTTP/1.1\r\n{lines}\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_nobody_asked(idle: OrthancRig) -> None:
    answer = fetch(idle)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


def test_the_database_is_away(idle: OrthancRig) -> None:
    path = Path(idle.database.path)
    path.rename(f"{path}.away")
    try:
        assert post(idle, list_json(references(1))).status == 503
        assert fetch(idle).status == 503
    finally:
        Path(f"{path}.away").rename(path)


def test_who_may(rig: OrthancRig) -> None:
    rig.keep(1)
    reader, one = rig.token("reader", Role.READ), rig.token("one", Role.OPERATE)
    assert post(rig, list_json(references(1))).status == 401
    assert post(rig, list_json(references(1)), **reader).status == 403
    assert post(rig, list_json(references(1)), **one).status in (200, 202)
    assert result(rig, **reader) == list_json(references(1))


def test_only_who_asked_is_told_by_looking(rig: OrthancRig) -> None:
    rig.keep(1)
    reader, one, other = (
        rig.token("reader", Role.READ),
        rig.token("one", Role.OPERATE),
        rig.token("other", Role.OPERATE),
    )
    with patch.object(commitment_form, "COMMITMENT_WAIT_SECONDS", 0.0):
        post(rig, list_json(references(1)), **one)
    result(rig, **reader)
    assert state(rig) is CommitmentState.CHECKED
    assert post(rig, list_json(references(1)), **other).status == 409  # it is not theirs
    assert post(rig, list_json(references(1)), **one).status == 200
    assert state(rig) is CommitmentState.REPORTED


def state(rig: OrthancRig) -> CommitmentState:
    with rig.database.read() as connection:
        commitment = rows.find(connection, CommitmentRole.PROVIDER, UID)
    assert commitment is not None
    return commitment.state


def test_ten_thousand_instances(rig: OrthancRig) -> None:
    rig.keep(1)
    wanted = references(*range(1, 10_001))
    for content_type in (DICOM_JSON, DICOM_XML):
        data_set = list_json(wanted)
        body = data_set if content_type == DICOM_JSON else xml_of(data_set)
        uid = f"{UID}.{len(content_type)}.{content_type == DICOM_XML:d}"
        assert post(rig, body, uid, content_type=content_type).status in (200, 202)
        found = result(rig, uid)
        assert len(found["00081199"]["Value"]) == 1
        assert len(found["00081198"]["Value"]) == 9999


def test_when_too_many_wait_it_is_accepted_all_the_same(rig: OrthancRig) -> None:
    rig.keep(1)
    with patch.object(orthanc_waiting, "WAITING_MAX", 0):
        assert post(rig, list_json(references(1))).status == 202
    assert result(rig) == list_json(references(1))


# Remembering trees.


def test_trees_are_remembered_within_a_bound() -> None:
    memory = FormMemory(runs_max=5)
    runs = {
        number: tuple((f"1.{number}", f"1.{number}.{part}", 1) for part in range(2)) for number in range(4)
    }
    for number, some in runs.items():
        memory.remember(f"1.2.{number}", some)
    assert [memory.recall(f"1.2.{number}") for number in range(4)] == [(), (), runs[2], runs[3]]
    memory.remember("1.2.2", runs[2])  # a repeat
    memory.remember("1.2.9", ())
    memory.remember("1.2.8", tuple(("1", "2", 1) for _ in range(6)))
    assert [memory.recall(f"1.2.{number}") for number in (2, 3, 8, 9)] == [runs[2], runs[3], (), ()]
