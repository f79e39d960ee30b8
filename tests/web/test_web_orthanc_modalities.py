"""/modalities in Orthanc's shape: listing, adding in both forms, changing, removing, asking for a sign of life."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.services.peers import Peer
from stowkeeper.web.roles import Role
from support.commitment_server import dead_port
from support.orthanc_rig import OrthancRig, orthanc_rig

pytestmark = pytest.mark.slow

CONFIGURED = Peer(name="fixed", ae_title="FIXED", host="192.0.2.7", port=104, profile="narrow")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", CONFIGURED, runs_jobs=False) as running:
        yield running


def shown(**changes: Any) -> dict[str, Any]:
    return {
        "AET": "SCANNER",
        "AllowEcho": True,
        "AllowEventReport": True,
        "AllowFind": False,
        "AllowFindWorklist": False,
        "AllowGet": False,
        "AllowMove": False,
        "AllowNAction": True,
        "AllowStore": True,
        "AllowTranscoding": True,
        "Host": "127.0.0.1",
        "LocalAet": "",
        "Manufacturer": "Generic",
        "Port": 104,
        "Timeout": 0,
        "UseDicomTls": False,
        **changes,
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (["SCANNER", "127.0.0.1", 104], shown()),
        (["SCANNER", "127.0.0.1", "104"], shown()),
        (["SCANNER", "127.0.0.1", 104, "Vitrea"], shown(Manufacturer="Vitrea")),
        (["SCANNER", "127.0.0.1", 104, "MedInria"], shown(Manufacturer="Generic")),
        (["SCANNER", "127.0.0.1", 104, "SyngoVia"], shown(Manufacturer="GenericNoWildcardInDates")),
        ({"AET": "SCANNER", "Host": "127.0.0.1", "Port": 104}, shown()),
        (
            {"AET": "SCANNER", "Host": "127.0.0.1", "Port": "104", "Manufacturer": "GE"},
            shown(Manufacturer="GE"),
        ),
        (
            {"AET": "SCANNER", "Host": "127.0.0.1", "Port": 104, "AllowStorageCommitment": False},
            shown(AllowNAction=False, AllowEventReport=False),
        ),
        (
            {
                "AET": "SCANNER",
                "Host": "127.0.0.1",
                "Port": 104,
                "AllowStorageCommitment": False,
                "AllowNAction": True,
            },
            shown(AllowEventReport=False),
        ),
        (
            {"AET": "SCANNER", "Host": "127.0.0.1", "Port": 104, "AllowEventReport": False},
            shown(AllowEventReport=False),
        ),
        (
            {
                "AET": "SCANNER",
                "Host": "pacs.example",
                "Port": 65534,
                "AllowEcho": False,
                "AllowStore": False,
                "LocalAet": "ME",
                "Timeout": 5,
                "UseDicomTls": True,
                "AllowFind": True,
                "Nonsense": 3,
            },
            shown(
                Host="pacs.example",
                Port=65534,
                AllowEcho=False,
                AllowStore=False,
                LocalAet="ME",
                Timeout=5,
                UseDicomTls=True,
            ),
        ),
    ],
)
def test_both_forms_of_a_modality(rig: OrthancRig, body: Any, expected: dict[str, Any]) -> None:
    answer = rig.ask("PUT", "/modalities/one", body)
    assert (answer.status, answer.value) == (200, b"")
    assert rig.get("/modalities") == ["fixed", "one"]
    assert rig.get("/modalities?expand")["one"] == expected
    assert rig.get("/modalities/one/configuration") == expected
    assert "storage-commitment" in rig.get("/modalities/one")


def test_changing_keeps_what_orthanc_does_not_know(rig: OrthancRig) -> None:
    ours = Peer.from_json(
        {
            "name": "one",
            "ae_title": "OLD",
            "host": "127.0.0.1",
            "port": 1,
            "addresses": ["192.0.2.0/24"],
            "report_on": "same-first",
            "duplicates": "refuse",
        }
    )
    rig.services.peers.save(ours, "test")
    assert rig.ask("PUT", "/modalities/one", ["NEW", "127.0.0.1", 104]).status == 200
    found = rig.services.peers.find("one")
    assert found is not None
    assert (found.ae_title, found.report_on, found.duplicates) == ("NEW", "same-first", "refuse")
    assert found.addresses == ours.addresses


def test_removing(rig: OrthancRig) -> None:
    rig.ask("PUT", "/modalities/one", ["SCANNER", "127.0.0.1", 104])
    answer = rig.ask("DELETE", "/modalities/one")
    assert (answer.status, answer.value) == (200, b"")
    again = rig.ask("DELETE", "/modalities/one")
    assert (again.status, again.value["OrthancStatus"]) == (404, 7)
    assert again.value["Details"] == "Unknown DICOM modality with symbolic name: one"


def test_those_of_the_settings_are_read_only(rig: OrthancRig) -> None:
    for method, body in (("PUT", ["X", "127.0.0.1", 104]), ("DELETE", None)):
        answer = rig.ask(method, "/modalities/fixed", body)
        assert (answer.status, answer.value["OrthancStatus"]) == (403, 22)
        assert "settings file" in answer.value["Details"]
    assert rig.get("/modalities/fixed/configuration")["AET"] == "FIXED"


@pytest.mark.parametrize(
    ("body", "code", "details"),
    [
        ({"AET": "X"}, 15, "String value expected in field: Host"),
        ({"AET": 5, "Host": "h", "Port": 1}, 15, "String value expected in field: AET"),
        (
            {"AET": "X", "Host": "h", "Port": 1, "AllowEcho": "yes"},
            15,
            "Boolean value expected in field: AllowEcho",
        ),
        (
            {"AET": "X", "Host": "h", "Port": 1, "AllowFind": 1},
            15,
            "Boolean value expected in field: AllowFind",
        ),
        (
            {"AET": "X", "Host": "h", "Port": 1, "Timeout": "5"},
            15,
            "Integer value expected in field: Timeout",
        ),
        (
            {"AET": "X", "Host": "h", "Port": 0},
            3,
            "A TCP port number must be in range [1..65534], but found: 0",
        ),
        (
            {"AET": "X", "Host": "h", "Port": 70000},
            3,
            "A TCP port number must be in range [1..65534], but found: 70000",
        ),
        ({"AET": "X", "Host": "h", "Port": True}, 15, None),
        ({"AET": "X", "Host": "h"}, 15, None),
        ({"AET": "A" * 17, "Host": "h", "Port": 1}, 3, "it has 17 characters"),
        ({"AET": "", "Host": "h", "Port": 1}, 3, "it is empty"),
        ({"AET": "X", "Host": "", "Port": 1}, 3, "host"),
        ({"AET": "X", "Host": "h", "Port": 1, "Timeout": 99999}, 3, "seconds"),
        (["DDD", "127.0.0.1", 104, "Nonsense"], 3, 'Unknown modality manufacturer: "Nonsense"'),
        (["A"], 15, None),
        ([1, 2, 3], 15, None),
        (["A", "h", 1, "Generic", 5], 15, None),
        ("text", 15, None),
        (5, 15, None),
        (b"{", 15, None),
        (b"", 15, None),
        (b"\xff\xfe", 15, None),
        (b"[" * 5000 + b"]" * 5000, 8, "nested"),
        (json.dumps({"AET": "\ud800", "Host": "h", "Port": 1}).encode(), 8, "half of a character"),
    ],
)
def test_what_is_no_modality(rig: OrthancRig, body: Any, code: int, details: str | None) -> None:
    answer = rig.ask("PUT", "/modalities/bad", body)
    assert (answer.status, answer.value["OrthancStatus"]) == (400, code)
    assert details is None or details in answer.value["Details"]
    assert "bad" not in rig.get("/modalities")


@pytest.mark.parametrize("name", ["a b", "q.q", "ä", "x" * 65, "a%2Fb"])
def test_names_that_are_none(rig: OrthancRig, name: str) -> None:
    answer = rig.ask("PUT", f"/modalities/{name}", ["X", "127.0.0.1", 104])
    assert answer.status in (400, 404)  # a name with a slash is another address


def test_unknown_ones(rig: OrthancRig) -> None:
    for path in ("/modalities/nope/configuration", "/modalities/nope/echo"):
        answer = rig.ask(
            "POST" if path.endswith("echo") else "GET", path, b"" if path.endswith("echo") else None
        )
        assert (answer.status, answer.value["OrthancStatus"]) == (404, 7)
        assert answer.value["Details"] == "No modality with symbolic name: nope"
    assert rig.ask("GET", "/modalities/nope").status == 404


@pytest.mark.parametrize("body", [b"", b"{}", b'{"Timeout": 3}', b"[]", b"5"])
def test_an_echo(rig: OrthancRig, body: bytes) -> None:
    rig.ask("PUT", "/modalities/us", ["STOWKEEPER", "127.0.0.1", rig.port])
    assert rig.post("/modalities/us/echo", body) == {}


def test_an_echo_that_finds_nobody(rig: OrthancRig) -> None:
    with dead_port() as port:
        rig.ask("PUT", "/modalities/dead", ["DEAD", "127.0.0.1", port])
        answer = rig.ask("POST", "/modalities/dead/echo", b"")
    assert (answer.status, answer.value["OrthancStatus"]) == (500, 9)
    assert f"127.0.0.1:{port} cannot be reached" in answer.value["Details"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{bad", 15), (b'{"Timeout": "x"}', 15), (b'{"Timeout": -1}', 15), (b'{"Timeout": 9999}', 3)],
)
def test_an_echo_asked_for_wrongly(rig: OrthancRig, body: bytes, code: int) -> None:
    answer = rig.ask("POST", "/modalities/fixed/echo", body)
    assert (answer.status, answer.value["OrthancStatus"]) == (400, code)


def test_a_peer_that_is_nowhere_is_shown_all_the_same(rig: OrthancRig) -> None:
    rig.services.peers.save(Peer.from_json({"name": "any", "addresses": ["192.0.2.9"]}), "test")
    found = rig.get("/modalities/any/configuration")
    assert (found["AET"], found["Host"], found["Port"]) == ("", "", 0)
    assert rig.ask("POST", "/modalities/any/echo", b"").status == 500


def test_who_may(rig: OrthancRig) -> None:
    operator, admin = rig.token("operator", Role.OPERATE), rig.token("admin", Role.ADMIN)
    body = ["X", "127.0.0.1", 104]
    assert rig.ask("PUT", "/modalities/one", body, headers=operator).status == 403
    assert rig.ask("PUT", "/modalities/one", body, headers=admin).status == 200
    assert rig.ask("DELETE", "/modalities/one", headers=operator).status == 403
    assert rig.ask("GET", "/modalities", headers=operator).status == 200
