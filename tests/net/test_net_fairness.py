"""What one peer does to the others: buffers go round, and no peer keeps the event loop to itself."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.limits import EVENTS_PER_READ, PIECES_PER_BUFFER_MAX, READ_BYTES_MIN
from support.raw_peer import ASSOCIATE_AC, LAST, RawPeer, p_data, pdu, store_message
from support.server_thread import RecordingHandlers, ServerThread, serving

POOL = 3


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, handlers: RecordingHandlers) -> Iterator[ServerThread]:
    with serving(handlers, request.param) as running:
        yield running


def test_peers_that_drip_bytes_do_not_keep_the_buffers_from_others(server: ServerThread) -> None:
    server.server.buffers = BufferPool(most=POOL)
    enough = threading.Event()
    with ExitStack() as stack:
        drippers = [stack.enter_context(RawPeer(server.port)) for _ in range(POOL)]
        for dripper in drippers:
            dripper.send(pdu(1, b"", length=60_000))  # an association request that goes on and on

        def drip() -> None:
            while not enough.wait(0.005):
                for dripper in drippers:
                    dripper.socket.send(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            server.wait_until(lambda: len(server.server.buffered) >= POOL)
            with RawPeer(server.port) as honest:
                assert honest.associate().kind == ASSOCIATE_AC
                assert [honest.echo().status for _ in range(20)] == [0] * 20
        finally:
            enough.set()
            thread.join()


def test_a_peer_that_sends_tiny_pdvs_is_read_in_small_portions(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        (protocol,) = server.protocols
        command = store_message(1, "1.2.3", b"")
        peer.send(command[: len(command) - len(p_data(1, b"", control=LAST))])
        peer.send(p_data(1, b"x", control=0) * 100_000)
        server.wait_until(lambda: protocol._read_most <= 16 * READ_BYTES_MIN)
        assert (
            protocol._buffer is None or protocol._buffer.holds <= PIECES_PER_BUFFER_MAX + 2 * EVENTS_PER_READ
        )
        peer.send(p_data(1, b"", control=LAST))
        assert peer.read_answer().status == 0
    assert len(handlers.stores[0].data) == 100_000
