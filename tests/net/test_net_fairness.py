"""What one peer does to the others: buffers go round, and no peer keeps the event loop to itself."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.limits import (
    EVENTS_PER_READ,
    PIECES_PER_BUFFER_MAX,
    READ_BYTES_MIN,
    RECEIVE_BUFFER_BYTES,
    RECEIVE_BUFFERS_PER_ASSOCIATION_MAX,
    SPARE_BUFFER_BYTES,
)
from support.raw_peer import (
    ASSOCIATE_AC,
    COMMAND,
    LAST,
    RawPeer,
    data_set_pdus,
    p_data,
    pdu,
    store_command,
    store_message,
)
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


@pytest.mark.slow
def test_a_peer_that_sends_tiny_pdvs_is_read_in_small_portions(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with RawPeer(server.port) as peer:
        peer.associate()
        (protocol,) = server.protocols
        command = store_message(1, "1.2.3", b"")
        peer.send(command[: len(command) - len(p_data(1, b"", control=LAST))])
        peer.send(p_data(1, b"x", control=0) * 100_000)
        server.wait_until(lambda: protocol._space.read_most <= 16 * READ_BYTES_MIN)
        assert (
            protocol._space.buffer is None
            or protocol._space.buffer.holds <= PIECES_PER_BUFFER_MAX + 2 * EVENTS_PER_READ
        )
        peer.send(p_data(1, b"", control=LAST))
        assert peer.read_answer().status == 0
    assert len(handlers.stores[0].data) == 100_000


def begun_store(sop_instance_uid: str) -> bytes:
    command = p_data(1, store_command(sop_instance_uid), control=COMMAND | LAST)
    return command + p_data(1, bytes(1000), control=0)


def fill_the_pool(server: ServerThread, handlers: RecordingHandlers, stack: ExitStack) -> None:
    """Have as many peers as there are buffers each keep one of them, as while the disk works."""
    server.server.buffers = BufferPool(most=POOL)
    handlers.keeps_pieces = True
    for number in range(POOL):
        peer = stack.enter_context(RawPeer(server.port))
        peer.associate()
        peer.send(begun_store(f"1.2.{number}"))
    server.wait_until(lambda: [found._space.buffers_out for found in server.protocols_now] == [1] * POOL)


def test_peers_that_have_all_the_buffers_do_not_keep_others_from_small_messages(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with ExitStack() as stack:
        fill_the_pool(server, handlers, stack)
        handlers.keeps_pieces = False
        honest = stack.enter_context(RawPeer(server.port))
        assert honest.associate().kind == ASSOCIATE_AC
        assert [honest.echo().status for _ in range(20)] == [0] * 20
        assert honest.store("1.2.9", bytes(100_000)).status == 0
        assert server.server.buffers.is_waited_for, "the others have had all of them to the end"
    assert handlers.stores[-1].data == bytes(100_000)


def test_who_waits_for_a_buffer_reads_no_more_than_four_small_ones_ahead_of_the_disk(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    with ExitStack() as stack:
        fill_the_pool(server, handlers, stack)
        others = set(server.protocols)
        late = stack.enter_context(RawPeer(server.port))
        late.associate()
        (protocol,) = set(server.protocols) - others
        late.send(begun_store("1.2.9") + data_set_pdus(1, bytes(100_000)))
        server.wait_until(lambda: not protocol._reading)
        stored = handlers.stores[-1]
        assert protocol._space.buffers_out == RECEIVE_BUFFERS_PER_ASSOCIATION_MAX
        assert 0 < len(stored.data) <= RECEIVE_BUFFERS_PER_ASSOCIATION_MAX * SPARE_BUFFER_BYTES
        handlers.keeps_pieces = False
        server.call(lambda: [found.release_pieces() for found in handlers.stores])
        assert late.read_answer().status == 0
    assert len(stored.data) == 101_000


def test_a_buffer_that_comes_after_others_were_found_is_read_into_from_its_beginning(
    server: ServerThread, handlers: RecordingHandlers
) -> None:
    handlers.keeps_pieces = True
    server.server.buffers = pool = BufferPool(most=2)
    taken = [server.call(pool.take) for _ in range(2)]
    with RawPeer(server.port) as peer:
        peer.associate()
        (protocol,) = server.protocols
        peer.send(begun_store("1.2.9"))
        server.wait_until(lambda: protocol._space.buffers_out == 1)

        def free_both_and_fill_one() -> None:
            for buffer in taken:
                assert buffer is not None
                buffer.release()  # the first is on its way to who waits, the second is there for anybody
            sent = memoryview(p_data(1, bytes(262_144 - 12), control=0) * 4)
            assert len(sent) == RECEIVE_BUFFER_BYTES
            while sent:
                view = protocol.get_buffer(-1)
                count = min(len(view), len(sent))
                view[:count] = sent[:count]
                protocol.buffer_updated(count)
                sent = sent[count:]

        server.call(free_both_and_fill_one)
        peer.send(p_data(1, b"", control=LAST))
        assert peer.read_answer().status == 0
