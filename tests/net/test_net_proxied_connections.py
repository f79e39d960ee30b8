"""The server behind a proxy that speaks the PROXY protocol: who counts as the peer, and who is not let in."""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from structlog.testing import capture_logs

from stowkeeper.net import quiet_ends
from stowkeeper.net.quiet_ends import QuietEnds
from stowkeeper.net.tls_context import TLSOptions, acceptor_context
from support.proxy_headers import block, checked, line, tcp4, tcp6
from support.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    PeerClosed,
    RawPeer,
)
from support.server_thread import SERVED_BY, RecordingHandlers, ServerThread, serving
from support.tls_fixtures import TLSFiles
from support.tls_peer import peer_context

LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
PROXY, STRANGER = "127.0.0.1", "127.0.0.9"
PROXIES = (ip_network(PROXY), ip_network("fd00::/8"))
CLIENT, CLIENT6 = ip_address("203.0.113.7"), ip_address("2001:db8::7")
OURS, OURS6 = ip_address("127.0.0.1"), ip_address("::1")
BY_LINE = line(CLIENT, OURS, 50_000, 104)
BY_BLOCK = checked(tcp4(CLIENT, OURS, 50_000, 104))
BY_BLOCK6 = tcp6(CLIENT6, OURS6, 50_000, 104)
LOCAL = block(0x20, 0, b"")


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(params=SERVED_BY)
def server(request: pytest.FixtureRequest, handlers: RecordingHandlers) -> Iterator[ServerThread]:
    with serving(handlers, request.param, proxies=PROXIES) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def lines_of(logged: list[Any], what: str) -> list[Any]:
    return [entry for entry in logged if entry.get("what") == what]


@contextlib.contextmanager
def through_proxy(server: ServerThread, header: bytes, *, in_bytes: bool = False) -> Iterator[RawPeer]:
    with RawPeer(server.port) as peer:
        peer.send(header, pieces=[1] * len(header) if in_bytes else ())
        yield peer


@pytest.mark.parametrize(
    ("header", "address", "proxy"),
    [
        (BY_LINE, str(CLIENT), PROXY),
        (BY_BLOCK, str(CLIENT), PROXY),
        (BY_BLOCK6, str(CLIENT6), PROXY),
        (LOCAL, PROXY, ""),
        (b"PROXY UNKNOWN\r\n", PROXY, ""),
    ],
    ids=["line", "block", "IPv6", "local", "unknown"],
)
@pytest.mark.parametrize("in_bytes", [False, True], ids=["at once", "byte by byte"])
def test_the_address_in_the_header_is_the_peers(
    server: ServerThread, handlers: RecordingHandlers, header: bytes, address: str, proxy: str, in_bytes: bool
) -> None:
    with through_proxy(server, header, in_bytes=in_bytes) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        assert peer.echo().status == 0
        peer.release()
    server.wait_until_empty()
    (facts,) = handlers.closed
    assert (facts.peer_address, facts.proxy_address, facts.end) == (address, proxy, "released")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (None, "it began with no PROXY header"),
        (BY_LINE[:20], "the connection ended within its PROXY header"),
        (tcp4(CLIENT, OURS, 1, 2, b"\x03\0\x04none"), "the checksum of its PROXY header is wrong"),
    ],
    ids=["none", "cut", "wrong"],
)
def test_a_trusted_proxy_has_to_send_a_header(
    server: ServerThread, handlers: RecordingHandlers, logged: list[Any], sent: bytes | None, words: str
) -> None:
    for _ in range(3):
        with RawPeer(server.port) as peer:
            if sent is None:
                with pytest.raises((PeerClosed, ConnectionError)):
                    peer.associate()
            else:
                peer.send(sent)
                peer.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    assert peer.socket.recv(1) == b""
        server.wait_until_empty()
    (entry,) = lines_of(logged, "PROXY header refused")
    assert (entry["address"], entry["why"], entry["count"]) == (PROXY, words, 1)
    assert handlers.closed == []


@pytest.mark.parametrize("header", [BY_LINE, BY_BLOCK], ids=["line", "block"])
def test_a_header_of_a_stranger_is_a_wrong_pdu(
    server: ServerThread, handlers: RecordingHandlers, header: bytes
) -> None:
    with RawPeer(server.port, source=STRANGER) as peer:
        peer.send(header)
        assert peer.read_pdu().kind == ABORT
    with RawPeer(server.port, source=STRANGER) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        peer.release()
    server.wait_until_empty()
    assert {(facts.peer_address, facts.proxy_address) for facts in handlers.closed} == {(STRANGER, "")}
    assert sorted(facts.end for facts in handlers.closed) == ["aborted", "released"]


def test_a_second_header_is_a_wrong_pdu(server: ServerThread, handlers: RecordingHandlers) -> None:
    with through_proxy(server, BY_LINE + BY_LINE) as peer:
        assert peer.read_pdu().kind == ABORT
    server.wait_until_empty()
    assert handlers.closed[0].peer_address == str(CLIENT)


@pytest.mark.parametrize("loop", SERVED_BY)
def test_a_header_has_to_come_in_the_time_of_artim(
    handlers: RecordingHandlers, logged: list[Any], loop: str
) -> None:
    with serving(handlers, loop, proxies=PROXIES, association_request_seconds=0.3) as server:
        with through_proxy(server, BY_LINE[:-1]) as peer:
            assert peer.socket.recv(1) == b""
        server.wait_until_empty()
    (entry,) = lines_of(logged, "PROXY header refused")
    assert entry["why"] == "its PROXY header did not come within 0.3 seconds"
    assert handlers.closed == []


def test_limits_hold_for_each_client_and_not_for_the_proxy(handlers: RecordingHandlers) -> None:
    with serving(handlers, proxies=PROXIES, associations_per_peer_max=1) as server:
        with contextlib.ExitStack() as stack:
            others = [line(ip_address(f"203.0.113.{number}"), OURS, 5, 104) for number in range(20, 24)]
            for header in (BY_LINE, *others):
                peer = stack.enter_context(through_proxy(server, header))
                assert peer.associate().kind == ASSOCIATE_AC
            again = stack.enter_context(through_proxy(server, BY_BLOCK))
            assert again.associate().reasons == LOCAL_LIMIT_EXCEEDED
        server.wait_until_empty()


def test_looks_at_the_port_are_logged_once(server: ServerThread, logged: list[Any]) -> None:
    for ending in ("close", "reset") * 3:
        getattr(RawPeer(server.port), ending)()
        server.wait_until_empty()
    server.wait_until(lambda: bool(lines_of(logged, "lost")))
    (entry,) = lines_of(logged, "lost")
    assert (entry["log_level"], entry["address"], entry["count"]) == ("info", PROXY, 1)


def test_other_proxies_are_believed_from_the_next_connection_on(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    server.call(lambda: setattr(server.server, "proxies", ()))
    with RawPeer(server.port) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        server.call(lambda: setattr(server.server, "proxies", PROXIES))
        with through_proxy(server, BY_BLOCK) as proxied:
            assert proxied.associate().kind == ASSOCIATE_AC
            proxied.release()
        peer.release()
    server.wait_until_empty()
    assert {facts.peer_address for facts in handlers.closed} == {PROXY, str(CLIENT)}


def test_a_stop_ends_those_whose_header_is_awaited(server: ServerThread, handlers: RecordingHandlers) -> None:
    with through_proxy(server, BY_LINE[:9]) as peer:
        server.wait_until(lambda: server.server.connections == 1)
        server.run(server.server.stop())
        with contextlib.suppress(ConnectionError):
            assert peer.socket.recv(1) == b""
    assert handlers.closed == []


def test_connections_that_await_a_header_count(handlers: RecordingHandlers) -> None:
    with serving(handlers, proxies=PROXIES, associations_max=1) as server, capture_logs() as logs:
        most = 1 + 256
        with contextlib.ExitStack() as stack:
            for _ in range(most):
                stack.enter_context(RawPeer(server.port))
            server.wait_until(lambda: server.server.connections == most)
            with RawPeer(server.port) as late, contextlib.suppress(ConnectionError):
                assert late.socket.recv(1) == b""
            assert server.server.connections == most
        server.wait_until_empty()
    assert lines_of(logs, "connections closed at once")


@pytest.mark.slow
@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_header_comes_before_tls(handlers: RecordingHandlers, tls_files: TLSFiles, loop: str) -> None:
    options = TLSOptions(
        certificate_file=tls_files.server.certificate,
        key_file=tls_files.server.key,
        ca_files=(tls_files.authority.certificate,),
    )
    client = peer_context(tls_files.authority.certificate, tls_files.client)
    with serving(handlers, loop, proxies=PROXIES, tls=acceptor_context(options)) as server:
        with through_proxy(server, BY_BLOCK) as peer:
            peer.socket = client.wrap_socket(peer.socket, server_hostname="localhost")
            assert peer.associate().kind == ASSOCIATE_AC
            peer.release()
        with capture_logs() as logs:
            for _ in range(2):
                with through_proxy(server, LOCAL):
                    pass
                server.wait_until_empty()
            with through_proxy(server, BY_LINE) as peer:
                peer.send(b"no TLS at all, not even nearly")
                with contextlib.suppress(OSError):
                    peer.socket.recv(100)
            server.wait_until_empty()
    (facts,) = handlers.closed
    assert (facts.peer_address, facts.proxy_address) == (str(CLIENT), PROXY)
    assert facts.tls.startswith("TLS")
    (probe,) = lines_of(logs, "lost")
    assert (probe["address"], probe["count"]) == (PROXY, 1)
    (refused,) = lines_of(logs, "TLS refused")
    assert (refused["address"], refused["proxy"]) == (str(CLIENT), PROXY)


def test_what_is_counted_is_told_again_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    ends = QuietEnds(lambda: now[0])
    assert [ends.count("a") for _ in range(3)] == [1, 0, 0]
    assert ends.count("b") == 1
    now[0] += quiet_ends.QUIET_ENDS_REPORT_SECONDS - 1
    assert ends.count("a") == 0
    now[0] += 1
    assert [ends.count("a"), ends.count("a")] == [4, 0]
    monkeypatch.setattr(quiet_ends, "QUIET_ENDS_ADDRESSES_MAX", 2)
    assert [ends.count(address) for address in ("c", "d", "a")] == [1, 1, 1]
    assert ends.count("d") == 0
