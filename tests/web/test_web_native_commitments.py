"""/api/commitments: both roles, with another server of ours at the other end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.dicom.commitment_information import ActionInformation, Reference
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import Asker, take
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.peers import Peer
from stowkeeper.web.roles import Role
from support.instances import CT_IMAGE_STORAGE
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

AWAY = Peer(name="away", ae_title="AWAY", host="127.0.0.1", port=1)
NOWHERE = Peer(name="nowhere", ae_title="NOWHERE")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", AWAY, NOWHERE, runs_jobs=False) as running:
        yield running


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[OrthancRig, OrthancRig]]:
    """Run two servers that know each other: one asks the other."""
    with (
        orthanc_rig(folder / "asking", ae_title="ASKING") as asking,
        orthanc_rig(folder / "asked", ae_title="ASKED") as asked,
    ):
        for here, there, title in ((asking, asked, "ASKED"), (asked, asking, "ASKING")):
            peer = {"name": title.lower(), "ae_title": title, "host": "127.0.0.1", "port": there.port}
            assert here.client.post("/api/peers", json=peer).status_code == 201
        yield asking, asked


def asked_of_us(rig: OrthancRig, *numbers: int, uid: str = "1.2.840.7", peer: str = "away") -> int:
    """Write a request of a peer; return the number of the transaction."""
    references = tuple(Reference(CT_IMAGE_STORAGE, f"1.2.3.{number}") for number in numbers)
    asker = Asker(way=WAY_DIMSE, peer=peer, peer_ae_title=peer.upper(), own_ae_title="STOWKEEPER")
    with rig.database.write() as transaction:
        _, commitment = take(transaction, asker, ActionInformation(uid, references))
    return commitment.commitment_key


def test_a_peer_is_asked_and_commits_and_what_it_has_may_be_deleted(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (asking, asked):
        for server in (asking, asked):
            server.keep(1, 2)
            server.settle()
        made = asking.client.post("/api/commitments", json={"peer": "asked", "uids": ["1.2.10"]})
        assert made.status_code == 201, made.text
        path = made.headers["location"]
        assert (made.json()["role"], made.json()["state"], made.json()["instances"]) == (
            "user",
            "requested",
            2,
        )
        asking.wait(lambda: asking.get(path)["state"] == "committed", "the report")
        items = asking.get(f"{path}/instances")["items"]
        assert {(one["sop_instance_uid"], one["outcome"]) for one in items} == {
            ("1.2.3.1", "committed"),
            ("1.2.3.2", "committed"),
        }
        assert [one["way"] for one in asking.get(f"{path}/reports")["items"]] == ["received"]
        safe = asking.get("/api/studies/1.2.10/safe-to-delete")
        assert (safe["is_safe"], safe["safe"]) == (True, 2)
        assert {one["peer"] for one in safe["items"]} == {"asked"}
        assert asking.get("/api/studies/1.2.10/safe-to-delete?peer=other")["is_safe"] is False
        # There is nothing left to ask for, and nothing to cancel.
        assert asking.client.post(f"{path}/resend").status_code == 409

        (theirs,) = asked.get("/api/commitments?role=provider")["items"]
        their_path = f"/api/commitments/{theirs['commitment_key']}"
        asked.wait(lambda: asked.get(their_path)["state"] == "reported", "the delivery")
        assert theirs["transaction_uid"] == made.json()["transaction_uid"]
        # The other one is held by its promise, and says to whom.
        refused = asked.client.delete("/api/studies/1.2.10")
        assert refused.status_code == 409
        assert theirs["transaction_uid"] in refused.text
        assert asking.client.delete("/api/studies/1.2.10").status_code == 200
        # Reported again by hand, it says the same.
        resent = asked.client.post(f"{their_path}/resend")
        assert resent.status_code == 202
        asked.wait(lambda: len(asked.get(f"{their_path}/reports")["items"]) == 2, "the second report")
        job_path = f"/api/jobs/{resent.json()['job_id']}"
        asked.wait(lambda: asked.get(job_path)["state"] == "success", "the end of its job")
        assert asked.client.post(f"{their_path}/cancel").status_code == 409


def test_what_is_not_committed_is_asked_for_again(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (asking, asked):
        asking.keep(1, 2)
        asking.settle()
        asked.keep(1)
        asked.settle()
        first = asking.client.post("/api/commitments", json={"peer": "asked", "uids": ["1.2.3.1", "1.2.3.2"]})
        path = first.headers["location"]
        asking.wait(lambda: asking.get(path)["state"] == "partial", "the report")
        (failed,) = asking.get(f"{path}/instances?outcome=failed")["items"]
        assert (failed["sop_instance_uid"], failed["reason"]) == ("1.2.3.2", 0x0112)
        asked.keep(2)
        asked.settle()
        again = asking.client.post(f"{path}/resend")
        assert again.status_code == 202, again.text
        assert again.json()["replaces"] == first.json()["commitment_key"]
        assert again.json()["transaction_uid"] != first.json()["transaction_uid"]
        assert again.json()["instances"] == 1
        new_path = again.headers["location"]
        asking.wait(lambda: asking.get(new_path)["state"] == "committed", "the second report")


def test_transactions_are_listed_newest_first_and_filtered(rig: OrthancRig) -> None:
    rig.keep(1)
    rig.settle()
    first = asked_of_us(rig, 1, 9, uid="1.2.840.1")
    second = asked_of_us(rig, 1, uid="1.2.840.2", peer="other")
    duplicate = asked_of_us(rig, 9, uid="1.2.840.2", peer="other")
    mine = rig.client.post("/api/commitments", json={"peer": "away", "uids": ["1.2.3.1"]}).json()[
        "commitment_key"
    ]

    def keys(query: str) -> list[int]:
        return [one["commitment_key"] for one in rig.get(f"/api/commitments?{query}")["items"]]

    assert keys("") == [mine, duplicate, second, first]
    assert keys("role=user") == [mine]
    assert keys("role=provider&peer=other") == [duplicate, second]
    assert keys("transaction_uid=1.2.840.2") == [duplicate, second]
    assert keys("state=received&state=checked") == [duplicate, second, first]
    page = rig.get("/api/commitments?limit=3&role=provider&state=received&state=requested")
    assert len(page["items"]) == 3
    assert rig.get(page["next"]) == {"items": [], "next": None}
    shown = rig.get(f"/api/commitments/{duplicate}")
    assert (shown["duplicate_of"], shown["state"], shown["peer"]) == (second, "received", "other")
    page = rig.get(f"/api/commitments/{first}/instances?limit=1")
    rest = rig.get(page["next"])
    assert [one["sop_instance_uid"] for one in page["items"] + rest["items"]] == ["1.2.3.1", "1.2.3.9"]
    assert {one["outcome"] for one in page["items"]} == {""}


def test_what_is_not_there_is_404(rig: OrthancRig) -> None:
    for path in ("/api/commitments/99", f"/api/commitments/{(1 << 63) - 1}"):
        for answer in (
            rig.client.get(path),
            rig.client.get(f"{path}/instances"),
            rig.client.get(f"{path}/reports"),
            rig.client.post(f"{path}/resend"),
            rig.client.post(f"{path}/cancel"),
        ):
            assert answer.status_code == 404
    for number in ("0", "-1", "x", "1.5", str(1 << 63)):
        assert rig.client.get(f"/api/commitments/{number}").status_code == 422


def test_what_cannot_be_asked_for_is_said(rig: OrthancRig) -> None:
    rig.keep(1)
    rig.settle()

    def ask(**wanted: Any) -> Any:
        return rig.client.post("/api/commitments", json={"peer": "away", "uids": ["1.2.3.1"], **wanted})

    assert ask(peer="stranger").status_code == 404
    assert ask(peer="nowhere").status_code == 409
    missing = ask(uids=["1.2.3.1", "1.2.99", "1.2.98"])
    assert (missing.status_code, missing.json()["unknown"]) == (404, ["1.2.99", "1.2.98"])
    for senseless in ({"uids": []}, {"uids": ["x"]}, {"uids": "1.2"}, {"peer": ""}, {"peer": 1}, {"more": 1}):
        assert ask(**senseless).status_code == 422, senseless
    assert rig.get("/api/commitments")["items"] == []


def test_what_was_asked_of_us_is_resent_only_when_it_is_checked(rig: OrthancRig) -> None:
    key = asked_of_us(rig, 1)
    path = f"/api/commitments/{key}"
    refused = rig.client.post(f"{path}/resend")
    assert refused.status_code == 409
    assert "being checked" in refused.json()["detail"]
    cancelled = rig.client.post(f"{path}/cancel")
    assert cancelled.status_code == 202
    assert rig.get(f"/api/jobs/{cancelled.json()['job_id']}")["wish"] == "cancel"
    with rig.database.write() as transaction:
        rows.set_outcomes(
            transaction, key, [Outcome(position=0, outcome=InstanceOutcome.FAILED, reason=0x0112)]
        )
        rows.change(transaction, key, state=CommitmentState.UNDELIVERED, job_id="")
    assert rig.client.post(f"{path}/cancel").status_code == 409
    resent = rig.client.post(f"{path}/resend")
    assert resent.status_code == 202, resent.text
    assert resent.json()["state"] == "checked"
    job = rig.get(f"/api/jobs/{resent.json()['job_id']}")
    assert (job["kind"], job["peer"], job["lane"]) == ("commitment", "away", "peer:away")


def test_the_items_of_its_job_are_its_instances(rig: OrthancRig) -> None:
    key = asked_of_us(rig, 1, 2, 3)
    with rig.database.write() as transaction:
        bad = Outcome(position=1, outcome=InstanceOutcome.FAILED, reason=0x0112, words="it was removed")
        rows.set_outcomes(transaction, key, [bad])
    job_id = rig.get(f"/api/commitments/{key}")["job_id"]
    first = rig.get(f"/api/jobs/{job_id}/items?limit=2")
    assert [(one["name"], one["outcome"], one["code"], one["words"]) for one in first["items"]] == [
        ("1.2.3.1", "", None, ""),
        ("1.2.3.2", "failed", 0x0112, "it was removed"),
    ]
    assert [one["name"] for one in rig.get(first["next"])["items"]] == ["1.2.3.3"]
    rig.keep(1)
    rig.settle()
    asked = rig.client.post("/api/commitments", json={"peer": "away", "uids": ["1.2.3.1"]}).json()
    items = rig.get(f"/api/jobs/{asked['job_id']}/items")["items"]
    assert [(one["name"], one["outcome"]) for one in items] == [("1.2.3.1", "")]


def test_what_was_reported_and_is_removed_is_not_resent(rig: OrthancRig) -> None:
    key = asked_of_us(rig, 1)
    with rig.database.write() as transaction:
        good = Outcome(position=0, outcome=InstanceOutcome.COMMITTED)
        rows.set_outcomes(transaction, key, [good])
        rows.change(
            transaction,
            key,
            state=CommitmentState.REPORTED,
            checked_at=transaction.at,
            reported_at=transaction.at,
        )
    answer = rig.client.post(f"/api/commitments/{key}/resend")
    assert answer.status_code == 409
    assert "told that 1.2.3.1 is committed, which is not so any more" in answer.json()["detail"]


def test_who_may_only_read_asks_for_nothing(rig: OrthancRig) -> None:
    key = asked_of_us(rig, 1)
    reader = rig.token("reader", Role.READ)
    assert rig.client.get(f"/api/commitments/{key}", headers=reader).status_code == 200
    for path in ("/api/commitments", f"/api/commitments/{key}/resend", f"/api/commitments/{key}/cancel"):
        assert rig.client.post(path, json={}, headers=reader).status_code == 403
