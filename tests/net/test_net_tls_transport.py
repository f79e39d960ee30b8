"""The layer between an event loop's connection and the protocol above TLS, step by step, with a connection in memory."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from stowkeeper.net.association_errors import TLSRefusedError
from stowkeeper.net.limits import TLS_PLAINTEXT_BYTES, TLS_REFUSAL_SECONDS
from stowkeeper.net.tls_asking import ClientHandshake
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_context import TLSOptions, acceptor_context, requestor_context
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.net.tls_transport import TLSLayer
from support.client_calls import Run, running_on, until
from support.tls_fixtures import TLSFiles

pytestmark = pytest.mark.peer("openssl")

RECORD = 16_384


class Below(asyncio.Transport):
    """A connection in memory: what it is told, and what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.calls: list[str] = []

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = bytes(self.written)
        self.written.clear()
        return data

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Above(asyncio.BufferedProtocol):
    """A protocol that reads into buffers of one size, and pauses after so many bytes."""

    def __init__(self, size: int, most: int = 1 << 30) -> None:
        self.received = bytearray()
        self.portions: list[int] = []
        self.ends: list[Any] = []
        self.transport: Any = None
        self._most = most
        self._buffer = bytearray(size)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]
        self.portions.append(nbytes)
        if len(self.received) >= self._most:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self.ends.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)


class Observer:
    """Hears of handshakes, and lets all begin unless told not to."""

    def __init__(self) -> None:
        self.lets_begin = True
        self.heard: list[Any] = []

    def handshake_begins(self, layer: TLSLayer) -> bool:
        return self.lets_begin

    def handshake_ended(self, layer: TLSLayer, failure: TLSFailure | None) -> None:
        self.heard.append("well" if failure is None else failure.words)

    def refused_is_gone(self, layer: TLSLayer) -> None:
        self.heard.append("gone")


@pytest.fixture
def run() -> Iterator[Run[Any]]:
    with running_on("asyncio") as running:
        yield running


@pytest.fixture(scope="module")
def sides(tls_files: TLSFiles) -> Any:
    own = {"certificate_file": tls_files.server.certificate, "key_file": tls_files.server.key}
    options = TLSOptions(**own, ca_files=(tls_files.authority.certificate,))  # type: ignore[arg-type]  # of these two
    return acceptor_context(options), requestor_context(options)


class Connection:
    """An acceptor's layer with a peer at the other end."""

    def __init__(self, sides: Any, above: Above) -> None:
        acceptor, requestor = sides
        self.below, self.above, self.observer = Below(), above, Observer()
        self.layer = TLSLayer(TLSChannel(acceptor), above, self.observer, 30.0)
        self.peer = TLSChannel(requestor, "localhost")

    def shake_hands(self) -> None:
        self.layer.connection_made(self.below)
        self.peer.begin()
        while not self.observer.heard:
            self.layer.data_received(self.peer.data_to_send())
            self.peer.receive(self.below.take())
        assert self.observer.heard == ["well"]

    def send(self, data: bytes) -> None:
        self.peer.write(data)
        self.layer.data_received(self.peer.data_to_send())

    def read(self) -> bytes:
        self.peer.receive(self.below.take())
        buffer = bytearray(100)
        return bytes(buffer[: self.peer.read_into(memoryview(buffer))])


def test_bytes_are_handed_up_in_buffers_as_full_as_they_get(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(40_000))
        one.shake_hands()
        assert one.above.transport is not None
        data = bytes(range(256)) * 400
        one.send(data)
        assert one.above.received == data
        assert one.above.portions == [40_000, 40_000, 22_400]

    run(work())


def test_what_waits_in_a_pause_comes_afterwards_though_nothing_more_is_sent(
    run: Run[Any], sides: Any
) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000, most=3000))
        one.shake_hands()
        data = bytes(range(256)) * 100
        one.send(data)
        assert one.above.portions == [1000] * 3, "not one more after the pause"
        assert one.below.calls == ["pause_reading"], "else what comes would be gathered without bound"
        one.above._most = 1 << 30
        one.above.transport.pause_reading()
        one.above.transport.resume_reading()
        one.above.transport.resume_reading()
        assert one.below.calls == ["pause_reading", "resume_reading"]
        await until(lambda: one.above.received == data)

    run(work())


def test_bytes_for_a_protocol_without_buffers_come_in_bounded_portions(run: Run[Any], sides: Any) -> None:
    class Plain(asyncio.Protocol):
        def __init__(self) -> None:
            self.portions: list[bytes] = []

        def data_received(self, data: bytes) -> None:
            self.portions.append(data)

    async def work() -> None:
        plain = Plain()
        one = Connection(sides, plain)  # type: ignore[arg-type]  # the other kind of protocol
        one.shake_hands()
        data = bytes(range(256)) * 1000
        one.send(data)
        assert b"".join(plain.portions) == data
        assert max(map(len, plain.portions)) == TLS_PLAINTEXT_BYTES

    run(work())


def test_a_transport_says_what_it_is(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.shake_hands()
        transport = one.above.transport
        assert transport.get_extra_info("tls_channel") is one.layer.channel
        assert transport.get_extra_info("socket", "none") == "none"
        transport.write(b"a word")
        assert one.read() == b"a word"
        transport.writelines([b"in ", memoryview(b"pie"), bytearray(b"ces")])
        assert one.read() == b"in pieces"
        transport.close()
        transport.close()
        assert one.below.calls == ["close"]
        assert one.read() == b""
        assert one.peer.is_closed_by_peer
        transport.write(b"too late")
        assert not one.below.written

    run(work())


def test_pieces_go_in_full_records(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.shake_hands()
        one.below.take()
        one.above.transport.writelines([b"x"] * RECORD)
        assert len(one.below.written) < RECORD + 100

    run(work())


def test_the_end_is_told_once(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.shake_hands()
        one.peer.write(b"last words")
        one.peer.close()
        one.layer.data_received(one.peer.data_to_send())
        assert one.above.received == b"last words"
        assert (one.above.ends, one.below.calls) == (["eof"], ["close"])
        one.layer.connection_lost(None)
        assert one.above.ends == ["eof", None]
        assert one.observer.heard == ["well"]

    run(work())


def test_an_end_of_tcp_alone_is_an_end_too(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.shake_hands()
        assert one.layer.eof_received() is False
        assert one.above.ends == ["eof"]
        broken = ConnectionResetError(104, "Connection reset by peer")
        one.layer.connection_lost(broken)
        assert one.above.ends[-1] is broken

    run(work())


def test_a_broken_record_is_the_reason_of_the_end(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.shake_hands()
        one.peer.write(b"before")
        one.layer.data_received(one.peer.data_to_send() + b"\x17\x03\x03\0\x20" + bytes(32))
        assert one.above.received == b"before", "what came before it is heard"
        assert one.below.calls == ["close"]
        one.layer.connection_lost(None)
        (failure,) = one.above.ends
        assert failure.strerror == "what it sent was damaged on the way"

    run(work())


def test_flow_control_is_passed_on_when_there_is_somebody_to_hear_it(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        heard: list[str] = []
        one = Connection(sides, Above(1000))
        one.above.pause_writing = lambda: heard.append("pause")  # type: ignore[method-assign]  # a note of the call
        one.above.resume_writing = lambda: heard.append("resume")  # type: ignore[method-assign]  # likewise
        one.layer.connection_made(one.below)
        one.layer.pause_writing()
        one.layer.resume_writing()
        assert heard == []
        one.layer.connection_lost(None)
        other = Connection(sides, one.above)
        other.shake_hands()
        other.layer.pause_writing()
        other.layer.resume_writing()
        assert heard == ["pause", "resume"]

    run(work())


def test_who_may_not_begin_is_closed_and_not_heard_of_again(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.observer.lets_begin = False
        one.layer.connection_made(one.below)
        one.layer.data_received(b"\x16\x03\x01")
        one.layer.connection_lost(None)
        assert (one.below.calls, one.observer.heard, one.above.ends) == (["abort"], [], [])

    run(work())


def test_a_refused_peer_is_given_a_moment_to_read_why(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        one = Connection(sides, Above(1000))
        one.layer.connection_made(one.below)
        one.layer.data_received(b"GET / HTTP/1.1\r\n")
        one.layer.data_received(b"Host: archive.example\r\n\r\n")
        assert one.below.calls == ["write_eof"]
        assert one.observer.heard == ["it speaks HTTP without TLS"]
        timer = one.layer._timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() == pytest.approx(TLS_REFUSAL_SECONDS, abs=0.5)
        one.layer.connection_lost(None)
        assert timer.cancelled()
        assert one.observer.heard == ["it speaks HTTP without TLS", "gone"]
        assert one.above.ends == []

    run(work())


def test_who_asked_is_told_when_the_connection_is_closed(run: Run[Any], sides: Any) -> None:
    """Before that the alert may not be on the way, and a command that ends would take it along."""

    async def work() -> None:
        handshake = ClientHandshake("PEER@localhost:104", sides[1], "localhost", 30.0)
        layer = handshake.layer_below(asyncio.Protocol())
        layer.connection_made(below := Below())
        waiting = asyncio.ensure_future(handshake.end())
        layer.data_received(b"220 mail.example ESMTP\r\n")
        await asyncio.sleep(0)
        assert not waiting.done()
        assert below.calls == ["write_eof"]
        layer.connection_lost(None)
        with pytest.raises(
            TLSRefusedError, match=r"^PEER@localhost:104: there is no TLS with it: it does not speak TLS\.$"
        ):
            await waiting

    run(work())


def test_who_gives_up_closes_the_connection(run: Run[Any], sides: Any) -> None:
    async def work() -> None:
        handshake = ClientHandshake("PEER@localhost:104", sides[1], "localhost", 30.0)
        layer = handshake.layer_below(asyncio.Protocol())
        layer.connection_made(below := Below())
        waiting = asyncio.ensure_future(handshake.end())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert below.calls == ["abort"]

    run(work())
