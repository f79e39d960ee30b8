"""Whose a receipt is that carries the AE title of who asks, by the address that it came from."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from stowkeeper.archive.choosing import Origin
from stowkeeper.services.commitment.askers import asker_of
from stowkeeper.services.commitment.commitment_values import Commitment, CommitmentRole, CommitmentState
from stowkeeper.services.peers import Peer, PeerBook
from support.catalog_rows import open_database

REQUEST = Commitment(
    commitment_key=1,
    role=CommitmentRole.PROVIDER,
    way="DIMSE",
    transaction_uid="2.25.1",
    state=CommitmentState.RECEIVED,
    peer="ct",
    peer_ae_title="CT",
    own_ae_title="STOWKEEPER",
    peer_address="192.0.2.50",
    association_id="",
    content="",
    instances=1,
    failures=0,
    duplicate_of=None,
    replaces=None,
    job_id="",
    requested_at="2026-01-02T00:00:00.000000Z",
    checked_at=None,
    reported_at=None,
    expires_at=None,
    report_attempts=0,
    error="",
)
TWIN = Peer(name="twin", ae_title="CT", host="192.0.2.2", port=104)
AT_ADDRESS = Peer(name="ct", ae_title="CT", host="192.0.2.1", port=104)
AT_NAME = Peer(name="ct", ae_title="CT", host="ct.example.com", port=104)
PLACED = replace(AT_NAME, addresses=(ip_network("192.0.2.0/28"),))
ANY_TITLE = Peer(name="ct", addresses=(ip_network("192.0.2.0/28"),))
RENAMED = replace(AT_ADDRESS, name="ct-new")


@pytest.mark.parametrize(
    ("peer", "address", "origin"),
    [
        (AT_ADDRESS, "192.0.2.50", Origin.OWN),  # where the request came from
        (AT_ADDRESS, "192.0.2.1", Origin.OWN),
        (AT_ADDRESS, "192.0.2.2", Origin.OTHER),
        (AT_ADDRESS, "203.0.113.1", Origin.UNCERTAIN),
        (AT_NAME, "192.0.2.50", Origin.OWN),
        (AT_NAME, "203.0.113.1", Origin.UNCERTAIN),
        (AT_NAME, "", Origin.UNCERTAIN),
        (PLACED, "192.0.2.7", Origin.OWN),
        (PLACED, "192.0.2.77", Origin.OTHER),
        (ANY_TITLE, "192.0.2.7", Origin.OWN),
        (RENAMED, "192.0.2.50", Origin.OWN),
        (RENAMED, "192.0.2.1", Origin.OTHER),
    ],
)
def test_the_address_tells_whose_it_is(tmp_path: Path, peer: Peer, address: str, origin: Origin) -> None:
    twins = () if peer is PLACED else (TWIN,)
    asker = asker_of(REQUEST, PeerBook((peer, *twins), open_database(tmp_path, sync=False)))
    assert (asker.ae_title, asker.peer) == ("CT", "ct")
    assert asker.origin_of(address) is origin


@pytest.mark.parametrize(
    ("credential", "words"),
    [("alice", "a client by HTTP: alice"), ("", "a client by HTTP without a credential")],
)
def test_a_client_by_http_is_no_peer(tmp_path: Path, credential: str, words: str) -> None:
    request = replace(REQUEST, way="web", peer=credential, peer_ae_title="")
    asker = asker_of(request, PeerBook((AT_ADDRESS,), open_database(tmp_path, sync=False)))
    assert (asker.ae_title, asker.peer) == (words, "")
