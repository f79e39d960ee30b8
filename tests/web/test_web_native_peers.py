"""/api/peers: those of the settings and those of the database, and a sign of life of each."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from stowkeeper.services.limits import PEER_NAME_LETTERS_MAX
from stowkeeper.services.peers import Peer
from stowkeeper.web.roles import Role
from support.orthanc_rig import orthanc_rig
from support.web_server import Rig, bearer, web_client

pytestmark = pytest.mark.slow

CONFIGURED = Peer(name="CT 1", ae_title="CT1", host="192.0.2.7", port=104, profile="small")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[httpx.Client, Rig]]:
    with web_client(tmp_path / "archive", peers=[CONFIGURED]) as found:
        yield found


def wanted(**more: Any) -> dict[str, Any]:
    return {"name": "workstation", "ae_title": "WORK", "host": "192.0.2.8", "port": 11112, **more}


def test_a_peer_is_added_shown_changed_and_removed(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    added = client.post("/api/peers", json=wanted(addresses=["192.0.2.0/24", "2001:db8::1"], may_store=False))
    assert added.status_code == 201, added.text
    assert added.headers["location"] == "/api/peers/workstation"
    found = added.json()
    assert found["addresses"] == ["192.0.2.0/24", "2001:db8::1/128"]
    assert (found["may_store"], found["may_echo"], found["is_read_only"], found["is_reachable"]) == (
        False,
        True,
        False,
        True,
    )
    assert client.get("/api/peers/workstation").json() == found
    assert [one["name"] for one in client.get("/api/peers").json()["items"]] == ["CT 1", "workstation"]
    assert rig.services.peers.matching("WORK", "192.0.2.8") is not None
    changed = client.put("/api/peers/workstation", json={"ae_title": "WORK2"})
    assert changed.status_code == 200
    # What is not said has its default: it is another definition, and no patch.
    assert (changed.json()["ae_title"], changed.json()["host"], changed.json()["may_store"]) == (
        "WORK2",
        None,
        True,
    )
    assert changed.json()["is_reachable"] is False
    new = client.put("/api/peers/other", json={"ae_title": "OTHER"})
    assert new.status_code == 201
    assert client.delete("/api/peers/workstation").status_code == 204
    assert client.get("/api/peers/workstation").status_code == 404
    assert client.delete("/api/peers/workstation").status_code == 404
    deeds = [(one["action"], one["subject"]) for one in client.get("/api/audit").json()["items"]]
    assert deeds == [
        ("peer removed", "workstation"),
        ("peer added", "other"),
        ("peer changed", "workstation"),
        ("peer added", "workstation"),
    ]


def test_a_name_is_taken_once(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    assert client.post("/api/peers", json=wanted()).status_code == 201
    again = client.post("/api/peers", json=wanted(ae_title="ELSE"))
    assert again.status_code == 409
    assert client.get("/api/peers/workstation").json()["ae_title"] == "WORK"


def test_peers_of_the_settings_are_read_only(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    shown = client.get("/api/peers/CT%201").json()
    assert (shown["is_read_only"], shown["profile"]) == (True, "small")
    refused = [
        client.put("/api/peers/CT%201", json={"ae_title": "X"}),
        client.delete("/api/peers/CT%201"),
        client.post("/api/peers", json=wanted(name="CT 1")),
    ]
    assert [answer.status_code for answer in refused] == [409, 409, 409]
    assert "settings" in refused[0].json()["detail"]
    assert client.get("/api/peers/CT%201").json() == shown


SENSELESS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": ""}, "body.name"),
    ({"name": "x" * (PEER_NAME_LETTERS_MAX + 1)}, "body.name"),
    ({"name": "tab\there"}, "body.name"),
    ({"name": "a/b"}, "body.name"),
    ({"name": "."}, "body.name"),
    ({"name": ".."}, "body.name"),
    ({"ae_title": "SEVENTEEN_LETTERS"}, "body.ae_title"),
    ({"ae_title": "BACK\\SLASH"}, "body.ae_title"),
    ({"ae_title": None}, "body"),
    ({"port": 0}, "body.port"),
    ({"port": 65536}, "body.port"),
    ({"port": "104"}, "body.port"),
    ({"port": None}, "body.port"),
    ({"host": None}, "body.host"),
    ({"host": "no host!"}, "body.host"),
    ({"host": "192.0.2.8:104"}, "body.host"),
    ({"addresses": ["nowhere"]}, "body.addresses"),
    ({"addresses": ["192.0.2.1/24"]}, "body.addresses"),
    ({"addresses": "192.0.2.1"}, "body.addresses"),
    ({"may_store": "yes"}, "body.may_store"),
    ({"report_on": "tuesday"}, "body.report_on"),
    ({"connect_seconds": 0}, "body.connect_seconds"),
    ({"connect_seconds": 1e9}, "body.connect_seconds"),
    ({"duplicates": "eat"}, "body.duplicates"),
    ({"manufacturer": "a\nb"}, "body.manufacturer"),
    ({"profile": "small"}, "body"),
    ({"is_read_only": True}, "body"),
)


def test_what_cannot_be_a_peer_is_422_and_says_why(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for change, where in SENSELESS:
        answer = client.post("/api/peers", json=wanted(**change))
        assert answer.status_code == 422, change
        assert any(one["where"].startswith(where) and one["what"] for one in answer.json()["errors"]), (
            answer.text
        )
    assert len(client.get("/api/peers").json()["items"]) == 1


def test_odd_names_find_their_peer(served: tuple[httpx.Client, Rig]) -> None:
    client, _ = served
    for name in ("a b", "50%", "#?&", "..x", "...", "a.", ".a", "a", "(MR) [2]", '"quoted"'):
        added = client.post("/api/peers", json=wanted(name=name))
        assert added.status_code == 201, name
        assert client.get(added.headers["location"]).json()["name"] == name
        assert client.delete(added.headers["location"]).status_code == 204


def test_of_two_that_add_a_peer_at_once_one_does(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    together = threading.Barrier(2, timeout=1)
    find = rig.services.peers.find

    def found(name: str) -> Peer | None:  # both look before either has added it
        peer = find(name)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait()
        return peer

    def add(host: str) -> int:
        return client.post("/api/peers", json=wanted(host=host)).status_code

    with patch.object(rig.services.peers, "find", found), ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(add, ("192.0.2.8", "192.0.2.9")))
    assert statuses == [201, 409]
    refused = client.post("/api/peers", json=wanted())
    assert (refused.status_code, "there is a peer 'workstation' already" in refused.text) == (409, True)


def test_only_administrators_change_peers(served: tuple[httpx.Client, Rig]) -> None:
    client, rig = served
    operator = bearer(rig.token("operator", Role.OPERATE))
    assert client.get("/api/peers", headers=operator).status_code == 200
    refused = [
        client.post("/api/peers", json=wanted(), headers=operator),
        client.put("/api/peers/x", json={"ae_title": "X"}, headers=operator),
        client.delete("/api/peers/x", headers=operator),
    ]
    assert [answer.status_code for answer in refused] == [403] * 3
    reader = bearer(rig.token("reader", Role.READ))
    assert client.post("/api/peers/CT%201/echo", headers=reader).status_code == 403


def test_a_peer_that_lives_echoes(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as rig:
        me = {"name": "me", "ae_title": "STOWKEEPER", "host": "127.0.0.1", "port": rig.port}
        assert rig.client.post("/api/peers", json=me).status_code == 201
        answer = rig.client.post("/api/peers/me/echo")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["status"], found["is_success"], found["tls"]) == ("0000H", True, "")
        assert found["association_seconds"] > 0
        health = rig.get("/api/peers/me")["health"]
        assert health["last_echo_at"]
        assert (health["last_failure_at"], health["last_report_at"]) == (None, None)
        assert rig.get("/api/peers")["items"][0]["health"]["last_echo_at"] == health["last_echo_at"]


def test_a_peer_that_does_not_echo_is_502_in_words(tmp_path: Path) -> None:
    peers = (
        Peer(name="dead", ae_title="DEAD", host="127.0.0.1", port=1, connect_seconds=2),
        Peer(name="nobody", ae_title="NOBODY", host="nobody.invalid", port=104, connect_seconds=2),
        Peer(name="nowhere", ae_title="NOWHERE"),
        Peer(name="tls", ae_title="TLS", host="127.0.0.1", port=1, tls=True),
        Peer(name="anybody", addresses=(ip_network("192.0.2.0/24"),)),
    )
    with web_client(tmp_path / "archive", peers=peers) as (client, _):
        for peer in peers:
            answer = client.post(f"/api/peers/{peer.name}/echo")
            assert answer.status_code == 502, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"]
            health = client.get(f"/api/peers/{peer.name}").json()["health"]
            assert health["last_echo_at"] is None
            assert health["last_failure"] == answer.json()["detail"]
        assert client.post("/api/peers/stranger/echo").status_code == 404
