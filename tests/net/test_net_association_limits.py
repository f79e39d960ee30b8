"""What bounds an association: a disk that is slow, a peer that does not read, and time. On both event loops."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest

from stowkeeper.net.association import AssociationProtocol
from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.handlers import StoreAnswer
from stowkeeper.net.limits import RECEIVE_BUFFERS_PER_ASSOCIATION_MAX
from support.raw_peer import (
    ABORT,
    COMMAND,
    LAST,
    P_DATA,
    RawPeer,
    command_set,
    echo_command,
    p_data,
    pdu,
    pdv,
    store_command,
    store_message,
)
from support.server_thread import LOOPS, SERVED_BY, WAIT_SECONDS, RecordingHandlers, ServerThread, serving

DATA = Random(1).randbytes(70_000)
HALF = store_message(1, "1.2.3", DATA)[:30_000]


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(params=SERVED_BY)
def server(request: pytest.FixtureRequest, handlers: RecordingHandlers) -> Iterator[ServerThread]:
    with serving(handlers, request.param) as running:
        yield running


@pytest.fixture
def peer(server: ServerThread) -> Iterator[RawPeer]:
    with RawPeer(server.port) as raw:
        yield raw


# Back-pressure


@pytest.mark.slow
def test_a_slow_disk_stops_one_peer_and_no_other(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.keeps_pieces = True
    peer.associate()
    data = Random(3).randbytes(40 * 1024 * 1024)
    sender = threading.Thread(target=peer.send, args=(store_message(1, "1.2.3", data, piece=200_000),))
    sender.start()
    server.wait_until(lambda: bool(handlers.stores) and bool(stopped(server)))
    arrived = len(handlers.stores[0].data)
    assert arrived <= (RECEIVE_BUFFERS_PER_ASSOCIATION_MAX + 1) * 1024 * 1024
    with RawPeer(server.port) as other:
        other.associate()
        assert other.echo().status == 0
    assert len(handlers.stores[0].data) == arrived
    handlers.keeps_pieces = False
    server.call(handlers.stores[0].release_pieces)
    assert peer.read_answer().status == 0
    sender.join()
    assert handlers.stores[0].data == data


def stopped(server: ServerThread) -> list[AssociationProtocol]:
    """Return the connections that are not read from, asked on the server's loop."""
    return [protocol for protocol in server.protocols_now if not protocol._reading]


@pytest.mark.parametrize("server", LOOPS, indirect=True)
def test_when_all_buffers_are_taken_nobody_waits_for_ever(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    server.call(lambda: setattr(server.server, "buffers", BufferPool(1024 * 1024, 1)))
    peer.associate()
    others = [RawPeer(server.port) for _ in range(3)]
    for other in others:
        other.associate()
    handlers.keeps_pieces = True
    peer.send(store_message(1, "1.2.1", DATA))
    peer.read_answer()
    server.wait_until(lambda: not server.server.buffered)  # the one buffer is now the worker's alone
    for number, other in enumerate(others):
        other.send(store_message(1, f"1.2.{number + 2}", DATA))
    server.wait_until(lambda: len(stopped(server)) == 3)
    others[0].reset()  # gone while it waits
    handlers.keeps_pieces = False
    server.call(handlers.stores[0].release_pieces)
    for stored in handlers.stores[1:]:
        server.call(stored.release_pieces)
    assert [other.read_answer().status for other in others[1:]] == [0, 0]
    for other in others:
        other.close()


@pytest.mark.parametrize("server", LOOPS, indirect=True)
def test_an_association_that_is_lost_waits_for_no_buffer_any_more(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    pool = BufferPool(1024 * 1024, 1)
    server.call(lambda: setattr(server.server, "buffers", pool))
    peer.associate()
    with RawPeer(server.port) as other:
        other.associate()
        handlers.keeps_pieces = True
        peer.send(store_message(1, "1.2.1", DATA))
        peer.read_answer()
        server.wait_until(lambda: not server.server.buffered)  # the one buffer is now the worker's alone
        other.send(store_message(1, "1.2.2", DATA))
        server.wait_until(lambda: pool.is_waited_for)
        (waiting,) = server.call(lambda: stopped(server))
        server.call(waiting.cut)
        server.wait_until(lambda: server.server.connections == 1)
        assert not pool.is_waited_for
        server.call(handlers.stores[0].release_pieces)
        assert pool.take() is not None


@pytest.mark.slow
@pytest.mark.parametrize("server", LOOPS, indirect=True)
def test_a_peer_that_never_reads_is_not_read_from_and_then_cut_off(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port, receive_buffer=4096) as peer:
        peer.associate()
        (protocol,) = server.protocols
        server.call(lambda: protocol._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096))
        echoes = p_data(3, echo_command(), control=COMMAND | LAST) * 1000
        peer.send_until(echoes, lambda: not protocol._reading)
        server.advance(59.0)
        assert server.server.connections == 1
        server.advance(61.0)
        assert server.only_ending(handlers) == ("aborted", "the peer read no answer for 60 seconds")


@pytest.mark.parametrize("server", LOOPS, indirect=True)
def test_answers_that_are_not_taken_do_not_hold_a_closing_connection(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port, receive_buffer=4096) as peer:
        peer.associate()
        (protocol,) = server.protocols
        server.call(lambda: protocol._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096))
        echoes = p_data(3, echo_command(), control=COMMAND | LAST) * 1200
        peer.send(echoes)
        server.wait_until(lambda: protocol.facts is not None and protocol.facts.messages == 1200)
        server.advance(601.0)  # idle: A-ABORT goes behind the answers, which nobody reads
        server.advance(700.0)  # ARTIM: the transport is asked to close
        server.advance(700.0)
        assert server.server.connections == 1
        server.advance(761.0)
        assert server.only_ending(handlers) == ("aborted", "idle for 600 seconds")


# Time limits


def test_no_limit_on_a_pause_is_none(handlers: RecordingHandlers) -> None:
    with (
        serving(handlers, idle_seconds=0, message_seconds=0) as server,
        RawPeer(server.port) as idle,
        RawPeer(server.port) as slow,
    ):
        idle.associate()
        slow.associate()
        slow.send(p_data(1, store_command("1.2.3"), control=COMMAND | LAST))
        server.wait_until(lambda: bool(handlers.stores))
        server.advance(1e9)
        assert idle.echo().status == 0
        slow.send(p_data(1, b"\0\0", control=LAST))
        assert slow.read_answer().status == 0


@pytest.mark.slow
def test_no_time_to_take_an_answer_is_over_at_once(handlers: RecordingHandlers) -> None:
    with serving(handlers, send_seconds=0) as server, RawPeer(server.port, receive_buffer=4096) as peer:
        peer.associate()
        (protocol,) = server.protocols
        server.call(lambda: protocol._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096))
        echoes = p_data(3, echo_command(), control=COMMAND | LAST) * 1000
        with contextlib.suppress(ConnectionError):
            peer.send_until(echoes, lambda: not server.server.connections)
        assert server.only_ending(handlers) == ("aborted", "the peer read no answer for 0 seconds")


def test_no_time_to_drain_is_over_at_once(handlers: RecordingHandlers) -> None:
    with serving(handlers, drain_seconds=0) as server, RawPeer(server.port) as peer:
        peer.associate()
        peer.send(p_data(1, store_command("1.2.3"), control=COMMAND | LAST))
        server.wait_until(lambda: bool(handlers.stores))
        stopping = server.begin(server.server.stop())
        server.advance(0.1)
        assert peer.read_pdu().kind == ABORT
        peer.close()
        stopping.result(WAIT_SECONDS)
        assert server.only_ending(handlers) == ("shutdown", "the server stops")


def test_a_connection_that_asks_for_nothing_is_closed(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    peer.send(b"\1\0\0\0")
    server.wait_until(lambda: server.server.connections == 1)
    server.advance(29.0)
    peer.send(b"\0")  # a byte now and then does not prolong it
    server.advance(31.0)
    assert peer.read_to_end() == []
    assert server.only_ending(handlers) == ("lost", "no association request came in time")


def test_an_idle_association_is_aborted(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    peer.associate()
    server.advance(599.0)
    assert peer.echo().status == 0
    server.advance(601.0)
    assert peer.read_pdu().kind == ABORT
    peer.close()
    assert server.only_ending(handlers) == ("aborted", "idle for 600 seconds")


def test_an_association_that_waits_for_our_disk_is_not_idle(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    handlers.answers = False
    peer.associate()
    peer.send(store_message(1, "1.2.3", DATA))
    server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end == "committed")
    server.advance(10_000.0)
    handlers.stores[0].answer(StoreAnswer(status=0))
    assert peer.read_answer().status == 0


STOPS: dict[str, bytes] = {
    "in the data set": HALF,
    "between two PDVs": store_message(1, "1.2.3", DATA)[: len(store_message(1, "1.2.3", DATA[:16000])) - 4],
    "in the command": HALF[:20],
    "in a PDU header": HALF[:3],
    "behind a PDU header": HALF[:6],
    "in a PDV header": HALF[:9],
    "behind a PDV header": HALF[:12],
    "in a data set that is not kept": p_data(
        1, command_set({0x0100: 0x0020, 0x0110: 1, 0x0800: 1}), control=COMMAND | LAST
    )
    + pdu(P_DATA, pdv(1, b"xx", control=0, length=900), length=904),
}


@pytest.mark.parametrize("sent", STOPS.values(), ids=STOPS.keys())
def test_a_peer_that_stops_in_the_middle_is_aborted(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers, sent: bytes
) -> None:
    peer.associate()
    before = server.protocols[0].facts
    assert before is not None
    begun = before.bytes_received
    peer.send(sent)
    server.wait_until(lambda: before.bytes_received == begun + len(sent))
    server.advance(59.0)
    assert server.server.associations == 1
    server.advance(61.0)
    assert peer.read_pdu().kind == ABORT
    peer.close()
    assert server.only_ending(handlers) == ("aborted", "a message made no progress for 60 seconds")
    assert [stored.end for stored in handlers.stores] in (["a message made no progress for 60 seconds"], [])


def test_a_peer_that_drips_is_aborted_and_one_at_the_least_pace_is_not(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    peer.associate()
    facts = server.protocols[0].facts
    assert facts is not None
    message = store_message(1, "1.2.3", Random(1).randbytes(200_000))

    def drip(count: int) -> None:
        nonlocal message
        expected = facts.bytes_received + count
        peer.send(message[:count])
        message = message[count:]
        server.wait_until(lambda: facts.bytes_received == expected)

    drip(2_000)
    server.advance(0.0)
    drip(62_000)
    server.advance(61.0)  # a minute's worth at the least pace
    assert server.server.associations == 1
    drip(60)
    server.advance(122.0)  # a byte a second
    assert peer.read_pdu().kind == ABORT
    peer.close()
    assert server.only_ending(handlers)[1] == "a message made no progress for 60 seconds"


def test_without_a_least_pace_a_drip_is_borne_and_silence_is_not(
    handlers: RecordingHandlers,
) -> None:
    with serving(handlers, message_bytes_per_second_min=0) as server, RawPeer(server.port) as peer:
        peer.associate()
        peer.send(HALF[:20_000])
        server.wait_until(lambda: bool(handlers.stores) and len(handlers.stores[0].data) > 19_000)
        peer.send(HALF[20_000:20_001])
        server.wait_until(lambda: server.protocols_now[0]._pace.bytes > 0)
        server.advance(59.0)
        assert server.server.associations == 1
        server.advance(61.0)
        assert peer.read_pdu().kind == ABORT


@pytest.mark.parametrize("server", LOOPS, indirect=True)
def test_a_long_silence_before_a_message_is_not_held_against_it(
    server: ServerThread, peer: RawPeer, handlers: RecordingHandlers
) -> None:
    peer.associate()
    server.advance(500.0)
    peer.send(HALF[:20])
    server.wait_until(lambda: server.protocols_now[0]._is_mid_message)
    server.advance(500.5)
    assert server.server.associations == 1
