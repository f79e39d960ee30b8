"""HAProxy before a real server, configured as docs/proxy.md says: its client counts as the peer, its looks cost nothing."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.proxies import BALANCER, balancing
from support.raw_peer import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, PeerClosed, RawPeer
from support.server_process import ServerProcess, association_rows, serve_process

pytestmark = [pytest.mark.slow, pytest.mark.peer("haproxy")]

CLIENT, OTHER, PROXY = "127.0.0.2", "127.0.0.3", BALANCER
SETTINGS = f"""
[dicom]
proxy_protocol_from = ["{PROXY}"]
[access]
addresses = ["{CLIENT}"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("balanced")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with serve_process(folder, settings=SETTINGS) as running:
        yield running


def looks_of(server: ServerProcess) -> list[str]:
    return [
        line
        for line in server.log_text().splitlines()
        if "what=lost association=" in line and f"address={PROXY} " in line
    ]


# First, since looks are logged once: those of version 1 are no LOCAL ones.


def test_its_looks_are_local_and_logged_once(server: ServerProcess, tmp_path: Path) -> None:
    with balancing(tmp_path, server.port, inter="100ms") as (proxy, port):
        with RawPeer(port, source=CLIENT) as peer:  # the server counts as up
            assert peer.associate().kind == ASSOCIATE_AC
            peer.release()
        server.program.wait_until(lambda: looks_of(server), "before a look was logged")
        assert "DOWN" not in proxy.log_text()
    (look,) = looks_of(server)
    assert "proxy=" not in look
    assert "PROXY header refused" not in server.log_text()


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
def test_the_client_of_the_proxy_is_the_peer(server: ServerProcess, tmp_path: Path, header: str) -> None:
    before = len(association_rows(server.archive))
    with balancing(tmp_path, server.port, header) as (_, port):
        with RawPeer(port, source=CLIENT) as peer:
            assert peer.associate().kind == ASSOCIATE_AC
            assert peer.echo().status == 0
            peer.release()
        with RawPeer(port, source=OTHER) as peer:
            assert peer.associate().kind == ASSOCIATE_RJ
    server.program.wait_until(
        lambda: len(association_rows(server.archive)) > before, "before the ledger's line"
    )
    assert {row["peer_address"] for row in association_rows(server.archive)[before:]} <= {CLIENT, OTHER}
    for line in (
        rf"what=accepted .*address={CLIENT} proxy={PROXY}",
        rf"what=rejected .*address={OTHER} proxy={PROXY}",
    ):
        server.program.wait_until(lambda line=line: re.search(line, server.log_text()), f"before {line}")


def test_the_setting_changes_at_reload(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    with RawPeer(server.port, source=PROXY) as peer, pytest.raises((PeerClosed, ConnectionError)):
        peer.associate()
    server.wait_for_log("PROXY header refused")
    (folder / "stowkeeper.toml").write_text("", encoding="utf-8")
    server.signal(signal.SIGHUP)
    server.wait_for_log("dicom.proxy_protocol_from")
    with RawPeer(server.port, source=PROXY) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        peer.release()
    with balancing(tmp_path, server.port) as (_, port), RawPeer(port, source=CLIENT) as peer:
        assert peer.associate().kind == ABORT
