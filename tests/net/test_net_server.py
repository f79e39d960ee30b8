"""The listener: where it listens, how many it serves, what its sockets are set to, and how it stops."""

import errno
import socket
import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from stowkeeper.net.addresses import plain_address
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.net.limits import (
    CONNECTIONS_WITHOUT_ASSOCIATION_MAX,
    CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX,
    DRAIN_GRACE_SECONDS,
)
from support.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    COMMAND,
    LAST,
    RELEASE_RESPONSE,
    RELEASE_RQ,
    PeerClosed,
    RawPeer,
    echo_command,
    p_data,
    store_message,
)
from support.server_thread import SERVED_BY, WAIT_SECONDS, RecordingHandlers, ServerThread, serving

DATA = bytes(range(256)) * 200
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(params=SERVED_BY)
def server(request: pytest.FixtureRequest, handlers: RecordingHandlers) -> Iterator[ServerThread]:
    with serving(handlers, request.param, associations_max=4, associations_per_peer_max=3) as running:
        yield running


# Listening


@pytest.mark.parametrize(
    ("host", "number", "advice"),
    [("127.0.0.1", errno.EADDRINUSE, "--port"), ("192.0.2.1", errno.EADDRNOTAVAIL, "--host")],
)
def test_an_address_that_cannot_be_had_is_named_with_what_to_do(
    handlers: RecordingHandlers, host: str, number: int, advice: str
) -> None:
    with serving(handlers) as server:
        with pytest.raises(OSError, match=f"cannot listen on {host}, port {server.port}: ") as caught:
            server.run(server.server.start(host, server.port))
        assert caught.value.errno == number
        assert caught.value.strerror is not None
        assert advice in caught.value.strerror


def test_a_name_that_nobody_knows_is_an_error_of_the_same_kind(handlers: RecordingHandlers) -> None:
    with (
        serving(handlers) as server,
        pytest.raises(socket.gaierror, match=r"cannot listen on no\.such\.host\.invalid, port 104: .*--host"),
    ):
        server.run(server.server.start("no.such.host.invalid", 104))


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_peer_addresses_are_written_plainly(given: str, plain: str) -> None:
    assert plain_address(given) == plain


def test_connections_have_no_delay_and_keep_alive(handlers: RecordingHandlers) -> None:
    with (
        serving(handlers, tcp_keep_alive_seconds=77, tcp_keep_alive_interval_seconds=11) as server,
        RawPeer(server.port),
    ):
        server.wait_until(lambda: server.server.connections == 1)
        accepted = server.protocols[0]._socket
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 11
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4


def test_keep_alive_can_be_off(handlers: RecordingHandlers) -> None:
    with serving(handlers, tcp_keep_alive_seconds=0) as server, RawPeer(server.port):
        server.wait_until(lambda: server.server.connections == 1)
        assert not server.protocols[0]._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# How many


def test_associations_beyond_the_limit_of_a_peer_are_rejected_for_now(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    peers = [RawPeer(server.port) for _ in range(4)]
    assert [peer.associate().kind for peer in peers[:3]] == [ASSOCIATE_AC] * 3
    assert peers[3].associate().reasons == LOCAL_LIMIT_EXCEEDED
    assert handlers.opened[3].words == "more than 3 associations of this peer"
    peers[0].release()
    with RawPeer(server.port) as late:
        assert late.associate().kind == ASSOCIATE_AC, "a place is free again as soon as an association ended"
    for peer in peers:
        peer.close()
    server.wait_until_empty()
    assert len({facts.association_id for facts in handlers.closed}) == 5


@pytest.mark.parametrize("loop", SERVED_BY)
def test_associations_beyond_the_limit_in_all_are_rejected_for_now(
    handlers: RecordingHandlers, loop: str
) -> None:
    with serving(handlers, loop, associations_max=2, associations_per_peer_max=9) as server:
        peers = [RawPeer(server.port) for _ in range(3)]
        assert [peer.associate().kind for peer in peers[:2]] == [ASSOCIATE_AC] * 2
        assert peers[2].associate().reasons == LOCAL_LIMIT_EXCEEDED
        assert handlers.opened[2].words == "more than 2 associations"
        assert peers[0].echo().status == 0
        for peer in peers:
            peer.close()


def test_connections_that_say_nothing_take_no_association_from_anyone(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    silent = [RawPeer(server.port) for _ in range(50)]
    server.wait_until(lambda: server.server.connections == 50)
    with RawPeer(server.port) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        assert peer.echo().status == 0
    for each in silent:
        each.close()
    server.wait_until_empty()
    assert {facts.end for facts in handlers.closed} == {"lost"}


@pytest.mark.slow
def test_a_peer_that_opens_hundreds_of_connections_gets_a_few(handlers: RecordingHandlers) -> None:
    most = 3 + CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX
    with serving(handlers, associations_per_peer_max=3, associations_max=9) as server, capture_logs() as logs:
        peers = [RawPeer(server.port) for _ in range(3)]
        for peer in peers:
            assert peer.associate().kind == ASSOCIATE_AC
        silent = [RawPeer(server.port) for _ in range(300)]
        with pytest.raises(PeerClosed):
            silent[-1].read_pdu()
        assert server.server.connections == most
        assert [peer.echo().status for peer in peers] == [0, 0, 0], "those who were there go on"
        server.call(lambda: setattr(server.server, "_refused_reported_at", float("-inf")))
        server.call(server.server._tick)
        for each in (*silent, *peers):
            each.close()
        server.wait_until_empty()
    lines = [line for line in logs if line.get("what") == "connections closed at once"]
    assert len(lines) == 2, "a flood of connections is no flood of lines"
    assert sum(line["count"] for line in lines) == 300 - CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX
    assert lines[0]["address"] == "127.0.0.1"


@pytest.mark.slow
def test_connections_in_all_have_a_bound(handlers: RecordingHandlers) -> None:
    most = 5 + CONNECTIONS_WITHOUT_ASSOCIATION_MAX
    with serving(handlers, associations_per_peer_max=1000, associations_max=5) as server:
        peers = [RawPeer(server.port) for _ in range(most)]
        server.wait_until(lambda: server.server.connections == most)
        with RawPeer(server.port) as one_more, pytest.raises(PeerClosed):
            one_more.read_pdu()
        for peer in peers:
            peer.close()


# Stopping


def test_stopping_an_idle_server_is_quick_and_may_be_repeated(server: ServerThread) -> None:
    server.run(server.server.stop())
    server.run(server.server.stop())
    with pytest.raises(ConnectionRefusedError):
        RawPeer(server.port)


def test_a_drain_lets_the_message_in_flight_be_answered_and_then_releases(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    message = store_message(1, "1.2.3", DATA)
    with RawPeer(server.port) as busy, RawPeer(server.port) as idle, RawPeer(server.port) as silent:
        busy.associate()
        busy.send(message[:20_000])
        idle.associate()
        server.wait_until(lambda: bool(handlers.stores) and server.server.connections == 3)
        stopping = server.begin(server.server.stop())
        assert idle.read_pdu().kind == RELEASE_RQ
        idle.send(RELEASE_RESPONSE)
        idle.close()
        assert silent.read_to_end() == []
        with pytest.raises(ConnectionRefusedError):
            RawPeer(server.port)
        busy.send(message[20_000:])
        server.wait_until(lambda: handlers.stores[0].end == "committed")
        handlers.stores[0].answer(StoreAnswer(status=0))
        assert busy.read_answer().status == 0
        assert busy.read_pdu().kind == RELEASE_RQ
        busy.send(RELEASE_RESPONSE)
        assert busy.read_to_end() == []
        stopping.result(30)
    assert handlers.stores[0].data == DATA
    assert {facts.end for facts in handlers.closed} == {"shutdown"}
    assert len(handlers.closed) == 3


@pytest.mark.parametrize("cut", [3, 9, 40], ids=["in a PDU header", "in a PDV header", "in the command"])
def test_a_drain_waits_for_a_message_that_has_only_begun(
    server: ServerThread, handlers: RecordingHandlers, cut: int
) -> None:
    message = store_message(1, "1.2.3", DATA)
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(message[:cut])
        server.wait_until(lambda: server.protocols_now[0]._is_mid_message)
        stopping = server.begin(server.server.stop())
        server.wait_until(lambda: server.server._closing)
        peer.send(message[cut:])
        assert peer.read_answer().status == 0
        assert peer.read_pdu().kind == RELEASE_RQ
        peer.send(RELEASE_RESPONSE)
        stopping.result(30)


def test_a_drain_ends_after_a_message_that_is_not_kept(server: ServerThread) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        echo = p_data(3, echo_command(5), control=COMMAND | LAST)
        peer.send(echo[:15])
        server.wait_until(lambda: server.protocols_now[0]._is_mid_message)
        stopping = server.begin(server.server.stop())
        server.wait_until(lambda: server.server._closing)
        peer.send(echo[15:])
        assert peer.read_answer().responds_to == 5
        assert peer.read_pdu().kind == RELEASE_RQ
        peer.send(RELEASE_RESPONSE)
        stopping.result(30)


def test_what_crosses_our_release_request_does_no_harm(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        stopping = server.begin(server.server.stop())
        assert peer.read_pdu().kind == RELEASE_RQ
        peer.send(p_data(3, echo_command(5), control=COMMAND | LAST))
        peer.send(store_message(1, "1.2.3", DATA))
        server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end != "")
        peer.send(RELEASE_RESPONSE)
        assert peer.read_to_end() == []
        stopping.result(30)
    assert handlers.stores[0].data == DATA
    assert handlers.stores[0].answered_with is None


def test_at_the_limit_of_the_drain_associations_are_aborted(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        peer.send(store_message(1, "1.2.3", DATA)[:20_000])
        server.wait_until(lambda: bool(handlers.stores))
        stopping = server.begin(server.server.stop())
        server.wait_until(lambda: server.server._closing)
        server.advance(29.0)
        assert server.server.associations == 1
        server.advance(31.0)
        assert peer.read_pdu().kind == ABORT
        peer.close()
        stopping.result(30)
    (facts,) = handlers.closed
    assert (facts.end, facts.words) == ("shutdown", "the server stops")
    assert handlers.stores[0].end == "the server stops"


def test_connections_that_outlast_the_drain_are_cut_and_noted(
    handlers: RecordingHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DRAIN_GRACE_SECONDS < 5
    monkeypatch.setattr("stowkeeper.net.server.DRAIN_GRACE_SECONDS", 0.02)
    monkeypatch.setattr("stowkeeper.net.server.TICK_SECONDS", 1000.0)
    with (
        capture_logs() as logs,
        serving(handlers, drain_seconds=0.05) as server,
        RawPeer(server.port) as peer,
    ):
        peer.associate()
        peer.send(store_message(1, "1.2.3", DATA)[:20_000])
        server.wait_until(lambda: bool(handlers.stores))
        server.run(server.server.stop())
        assert server.server.connections == 0
    assert [facts.end for facts in handlers.closed] == ["shutdown"]
    assert handlers.stores[0].end == "the server stops"
    (line,) = [line for line in logs if line.get("what") == "connections cut at the end of the drain"]
    assert line["count"] == 1


def test_nobody_new_is_let_in_while_it_stops(server: ServerThread, handlers: RecordingHandlers) -> None:
    handlers.answers = False
    with RawPeer(server.port) as busy, RawPeer(server.port) as late:
        busy.associate()
        busy.send(store_message(1, "1.2.3", DATA))
        server.wait_until(lambda: bool(handlers.stores) and server.server.connections == 2)
        server.call(lambda: setattr(server.server, "_closing", True))
        assert late.associate().reasons == LOCAL_LIMIT_EXCEEDED
        assert handlers.opened[-1].words == "the server stops"
        with RawPeer(server.port) as too_late, pytest.raises(PeerClosed):
            too_late.read_pdu()


class WaitingForTheEnd(RecordingHandlers):
    """Handlers that note the end of an association on its own thread, when they are told to go on, or fail to."""

    def __init__(self) -> None:
        super().__init__()
        self.noting = threading.Event()
        self.go_on = threading.Event()
        self.fault: Exception | None = None

    def association_closed(self, facts: AssociationFacts) -> None:
        self.noting.set()
        assert self.go_on.wait(WAIT_SECONDS)
        if self.fault is not None:
            raise self.fault
        super().association_closed(facts)


def test_a_drain_waits_until_the_end_of_each_association_is_noted() -> None:
    handlers = WaitingForTheEnd()
    with serving(handlers, "threads") as server:
        with RawPeer(server.port) as peer:
            peer.associate()
            peer.release()
        assert handlers.noting.wait(WAIT_SECONDS)
        waits = server.server._all_gone
        waits.set()  # a drain that has to wait clears it
        stopping = server.begin(server.server.stop())
        server.wait_until(lambda: stopping.done() or not waits.is_set())
        has_waited = not stopping.done()
        handlers.go_on.set()
        stopping.result(WAIT_SECONDS)
        assert has_waited
        assert [facts.end for facts in handlers.closed] == ["released"]


def test_an_end_that_could_not_be_noted_holds_up_no_drain() -> None:
    handlers = WaitingForTheEnd()
    handlers.fault = ZeroDivisionError()
    handlers.go_on.set()
    with capture_logs() as logs, serving(handlers, "threads") as server:
        with RawPeer(server.port) as peer:
            peer.associate()
            peer.release()
        assert handlers.noting.wait(WAIT_SECONDS)
        server.wait_until(lambda: not server.server._running_threads())
        assert server.server.connections == 0
    assert [line["what"] for line in logs if line["log_level"] == "error"] == [
        "the end of an association was not noted"
    ]
