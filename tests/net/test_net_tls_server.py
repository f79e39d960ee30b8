"""The server behind TLS, over real sockets and on both event loops: associations, refusals, and what is said of them."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from stowkeeper.net import tls_transport
from stowkeeper.net.limits import (
    CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX,
    RECEIVE_BUFFER_BYTES,
    RECEIVE_BUFFERS_PER_ASSOCIATION_MAX,
    SEND_BUFFER_HIGH_BYTES,
)
from stowkeeper.net.tls_context import PeerVerification, TLSContext, TLSOptions, acceptor_context
from support.raw_peer import (
    ASSOCIATE_AC,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    RELEASE_RP,
    VERIFICATION,
    Context,
    PeerClosed,
    RawPeer,
    associate_rq,
    echo_command,
    p_data,
    store_message,
)
from support.server_thread import RecordingHandlers, ServerThread, serving
from support.tls_fixtures import TLSFiles
from support.tls_peer import TLSPeer, peer_context

pytestmark = pytest.mark.peer("openssl")

DATA = Random(2).randbytes(5_000_000)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
CONTEXTS = [
    Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
    Context(context_id=3, abstract_syntax=VERIFICATION),
]


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(scope="module")
def options(tls_files: TLSFiles) -> TLSOptions:
    return TLSOptions(
        certificate_file=tls_files.server.certificate,
        key_file=tls_files.server.key,
        ca_files=(tls_files.authority.certificate,),
    )


@pytest.fixture(scope="module")
def tls(options: TLSOptions) -> TLSContext:
    return acceptor_context(options)


@pytest.fixture(params=["asyncio", "uvloop"])
def server(
    request: pytest.FixtureRequest, handlers: RecordingHandlers, tls: TLSContext
) -> Iterator[ServerThread]:
    with serving(handlers, request.param, tls=tls) as running:
        yield running


@pytest.fixture
def client(tls_files: TLSFiles) -> ssl.SSLContext:
    return peer_context(tls_files.authority.certificate, tls_files.client)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def refusals(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line["address"], line["why"]) for line in lines if line.get("what") == "TLS refused"]


def wait_for_refusal(server: ServerThread, lines: list[Any]) -> str:
    """Wait until a handshake was refused; return why."""
    server.wait_until(lambda: bool(refusals(lines)))
    ((address, why),) = refusals(lines)
    assert address == "127.0.0.1"
    return why


# Associations


@pytest.mark.parametrize("version", VERSIONS)
def test_an_association_over_tls(
    server: ServerThread, handlers: RecordingHandlers, tls_files: TLSFiles, version: ssl.TLSVersion
) -> None:
    context = peer_context(tls_files.authority.certificate, tls_files.client, version=version)
    with TLSPeer(server.port, context) as peer:
        assert peer.associate(*CONTEXTS).kind == ASSOCIATE_AC
        assert peer.echo().status == 0
        peer.send(store_message(1, "1.2.3", DATA, piece=100_000))
        assert peer.read_answer().status == 0
        assert peer.release().kind == RELEASE_RP
        peer.end_tls().close()
    assert server.only_ending(handlers) == ("released", "")
    assert bytes(handlers.stores[0].data) == DATA
    (facts,) = handlers.closed
    assert facts.tls.startswith(version.name.replace("_", ".").replace("TLSv1", "TLSv1") + " TLS_")
    assert facts.tls_peer == "CN=client, O=Clinic"


def in_pieces(random: Random, data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = random.choice(sizes)
        yield data[at : at + size]
        at += size


def test_bytes_in_any_split(
    server: ServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    """Records are cut anywhere by TCP, and messages anywhere by records."""
    random = Random(3)
    messages = (associate_rq(CONTEXTS), store_message(1, "1.2.3", DATA[:200_000]))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with RawPeer(server.port) as peer:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.send(outgoing.read())
                incoming.write(peer.socket.recv(65536))
        for message in messages:
            for piece in in_pieces(random, message, [1, 3, 100, 5000, 16_384, 40_000]):
                tls.write(piece)
            for piece in in_pieces(random, outgoing.read(), [1, 4, 6, 1000, 30_000]):
                peer.socket.sendall(piece)
            server.wait_until(lambda: server.server.associations == 1)
        server.wait_until(lambda: bool(handlers.stores) and handlers.stores[0].end == "committed")
    assert bytes(handlers.stores[0].data) == DATA[:200_000]


@pytest.mark.slow
def test_reading_stops_while_buffers_are_held_and_goes_on(
    server: ServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    handlers.keeps_pieces = True
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        peer.socket.settimeout(0.2)
        message = store_message(1, "1.2.3", DATA * 4)
        sent = 0
        (protocol,) = server.protocols
        while sent < len(message) and server.call(lambda: protocol._reading):
            with contextlib.suppress(TimeoutError):
                sent += peer.socket.send(message[sent : sent + 65536])
        server.wait_until(lambda: not protocol._reading)
        bound = (RECEIVE_BUFFERS_PER_ASSOCIATION_MAX + 1) * RECEIVE_BUFFER_BYTES
        assert len(handlers.stores[0].data) <= bound
        assert protocol._transport.get_extra_info("tls_channel")._incoming.pending <= 512 * 1024
        handlers.keeps_pieces = False
        server.call(handlers.stores[0].release_pieces)
        peer.socket.settimeout(20)
        peer.socket.sendall(message[sent:])
        assert peer.read_answer().status == 0
    assert bytes(handlers.stores[0].data) == DATA * 4


@pytest.mark.slow
def test_a_peer_that_does_not_read_is_not_read_either(
    server: ServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    echo = p_data(3, echo_command(), control=COMMAND | LAST)
    with TLSPeer(server.port, client, receive_buffer=4096) as peer:
        peer.associate(*CONTEXTS)
        (protocol,) = server.protocols
        peer.socket.settimeout(0.2)
        left = b""
        while not server.call(lambda: protocol._write_blocked and not protocol._reading):
            left = left or echo * 500
            with contextlib.suppress(TimeoutError):
                left = left[peer.socket.send(left) :]
        assert protocol._transport.get_write_buffer_size() < 8 * SEND_BUFFER_HIGH_BYTES


def test_acknowledgements_are_not_delayed_within_a_record(
    server: ServerThread, client: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed: list[object] = []
    monkeypatch.setattr(tls_transport, "acknowledge_quickly", armed.append)
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        before = len(armed)
        peer.socket.send(b"\4")  # the first byte of a PDU, and of a message
        server.wait_until(lambda: len(armed) > before)
        assert armed[-1] is not None


def test_the_end_of_tls_is_the_end_of_the_association(
    server: ServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    """A peer that says close_notify and leaves TCP open is answered the same and closed."""
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        plain = peer.end_tls()
        assert plain.recv(10) == b""
        plain.close()
    assert server.only_ending(handlers) == ("lost", "the peer closed the connection")


def test_the_server_says_close_notify_before_it_closes(
    server: ServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    with TLSPeer(server.port, client) as peer:
        peer.send(b"\xff" * 10)
        assert peer.read_pdu().kind == 7
        server.advance(31)  # ARTIM: the peer does not close
        with pytest.raises(PeerClosed):
            peer.read_pdu()
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        server.begin(server.server.stop())
        assert peer.read_pdu().kind == 5
        peer.send(b"\6\0\0\0\0\4\0\0\0\0")
        with pytest.raises(PeerClosed):
            peer.read_pdu()


def test_a_record_that_was_damaged_ends_the_association(
    server: ServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        socket.socket.send(peer.socket, b"\x17\x03\x03\0\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            peer.read_pdu()
    assert server.only_ending(handlers) == (
        "lost",
        "the connection broke: what it sent was damaged on the way",
    )


# Refusals


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("who", "why", "alert"),
    [
        (
            "none",
            "it sent no certificate, and one is required",
            r"(?i)certificate.required|handshake.failure",
        ),
        (
            "foreign",
            "its certificate is refused: the authority that issued it is not trusted here",
            r"(?i)unknown.ca",
        ),
        ("expired", "its certificate is refused: it has expired", r"(?i)certificate.expired"),
    ],
)
def test_a_refused_peer_gets_the_alert_and_the_log_the_cause(
    server: ServerThread,
    handlers: RecordingHandlers,
    tls_files: TLSFiles,
    logged: list[Any],
    version: ssl.TLSVersion,
    who: str,
    why: str,
    alert: str,
) -> None:
    identity = {"none": None, "foreign": tls_files.foreign, "expired": tls_files.expired}[who]
    context = peer_context(tls_files.authority.certificate, identity, version=version)
    with pytest.raises(ssl.SSLError, match=alert), TLSPeer(server.port, context) as peer:
        peer.associate(*CONTEXTS)  # with TLS 1.3 the client hears of it only now
    assert wait_for_refusal(server, logged) == why
    server.wait_until_empty()
    assert not handlers.opened
    assert not handlers.closed


@pytest.mark.slow
def test_refusals_disturb_nobody(
    server: ServerThread, handlers: RecordingHandlers, tls_files: TLSFiles, client: ssl.SSLContext
) -> None:
    foreign = peer_context(tls_files.authority.certificate, tls_files.foreign)
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        message = store_message(1, "1.2.3", DATA)
        step = len(message) // 10
        for number in range(10):
            peer.send(message[number * step : (number + 1) * step])
            with pytest.raises(ssl.SSLError), TLSPeer(server.port, foreign) as refused:
                refused.read_pdu()
        peer.send(message[10 * step :])
        assert peer.read_answer().status == 0
        assert server.call(lambda: server.server.associations) == 1
    assert bytes(handlers.stores[0].data) == DATA
    assert len(handlers.opened) == 1


def test_a_peer_that_stops_in_the_handshake_is_closed(
    handlers: RecordingHandlers, tls: TLSContext, logged: list[Any]
) -> None:
    with serving(handlers, tls=tls, association_request_seconds=0.3) as server:
        for beginning in (b"\x16\x03\x01\2\0\1", b"\x16"):
            with RawPeer(server.port) as peer:
                peer.send(beginning)
                with pytest.raises(PeerClosed):
                    peer.read_pdu()
            assert (
                wait_for_refusal(server, logged) == "it did not finish the TLS handshake within 0.3 seconds"
            )
            logged.clear()
        server.wait_until_empty()


def test_a_handshake_may_take_for_ever_where_that_is_set(
    handlers: RecordingHandlers, tls: TLSContext
) -> None:
    with serving(handlers, tls=tls, association_request_seconds=0) as server, RawPeer(server.port):
        server.wait_until(lambda: server.server.connections == 1)
        (layer,) = server.call(lambda: list(server.server._handshakes._layers))
        assert layer._timer is None


@pytest.mark.parametrize("ends", ["close", "reset"])
def test_a_look_at_the_port_is_no_refusal(
    server: ServerThread, handlers: RecordingHandlers, logged: list[Any], ends: str
) -> None:
    peer = RawPeer(server.port)
    server.wait_until(lambda: server.server.connections == 1)
    getattr(peer, ends)()
    server.wait_until_empty()
    (line,) = [line for line in logged if line["event"] == "association"]
    assert (line["log_level"], line["what"]) == ("info", "lost")
    assert line["why"] == "it closed the connection without a word"
    assert not handlers.closed


@pytest.mark.parametrize("ends", ["close", "reset"])
def test_a_peer_that_leaves_in_the_middle_of_the_handshake(
    server: ServerThread, logged: list[Any], ends: str
) -> None:
    peer = RawPeer(server.port)
    peer.send(b"\x16\x03\x01\2\0\1")
    server.wait_until(lambda: bool(server.server._handshakes._layers))
    (layer,) = server.call(lambda: list(server.server._handshakes._layers))
    server.wait_until(lambda: bool(layer.channel._opening))
    getattr(peer, ends)()
    assert wait_for_refusal(server, logged).endswith("in the middle of the TLS handshake")
    server.wait_until_empty()


def test_plain_dicom_on_a_tls_port(
    server: ServerThread, handlers: RecordingHandlers, logged: list[Any]
) -> None:
    with RawPeer(server.port) as peer:
        peer.send(associate_rq(CONTEXTS))
        assert peer.read_to_end() == []
    assert wait_for_refusal(server, logged) == "it speaks DICOM without TLS"
    assert not handlers.closed


def test_tls_on_a_plain_port(handlers: RecordingHandlers, client: ssl.SSLContext) -> None:
    with serving(handlers) as server:
        with pytest.raises(ssl.SSLError):
            TLSPeer(server.port, client)
        end, words = server.only_ending(handlers)
        assert (end, words) == ("aborted", "there is no PDU of type 16H: the peer speaks TLS here")


def test_another_protocol_is_refused_by_its_alert(
    server: ServerThread, client: ssl.SSLContext, logged: list[Any]
) -> None:
    client.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        TLSPeer(server.port, client)
    assert wait_for_refusal(server, logged) == "it asked for other application protocols than dicom: 'h2'"


def test_weak_certificates_of_peers_that_are_let_in_are_logged(
    server: ServerThread, tls_files: TLSFiles, logged: list[Any]
) -> None:
    weak = tls_files.authority.issue("weak", key="rsa1024")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_verify_locations(tls_files.authority.certificate)
    context.load_cert_chain(weak.certificate, weak.key)
    with TLSPeer(server.port, context) as peer:
        assert peer.associate(*CONTEXTS).kind == ASSOCIATE_AC
    (line,) = [line for line in logged if line.get("what") == "weak certificate"]
    assert (line["address"], line["why"]) == ("127.0.0.1", "its RSA key has 1024 bits, fewer than 2048")


# How many, and the end


def test_handshakes_count_as_connections_without_association(
    handlers: RecordingHandlers, tls: TLSContext, client: ssl.SSLContext
) -> None:
    most = 1 + CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX
    with serving(handlers, tls=tls, associations_per_peer_max=1) as server, contextlib.ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(RawPeer(server.port))
        server.wait_until(lambda: server.server.connections == most)
        with RawPeer(server.port) as late, pytest.raises(PeerClosed):
            late.read_pdu()
        stack.close()
        server.wait_until_empty()
        with TLSPeer(server.port, client) as peer:
            assert peer.associate(*CONTEXTS).kind == ASSOCIATE_AC
        server.wait_until_empty()
        assert not server.server._per_peer


def test_a_refused_connection_counts_until_it_is_closed(
    handlers: RecordingHandlers, tls: TLSContext, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    monkeypatch.setattr(tls_transport, "TLS_REFUSAL_SECONDS", 0.3)
    with serving(handlers, tls=tls) as server:
        peer = RawPeer(server.port)
        peer.send(associate_rq(CONTEXTS))
        wait_for_refusal(server, logged)
        assert server.server.connections == 1
        peer.send(b"what nobody reads any more")
        server.wait_until_empty()  # although this side never closes
        peer.close()


def test_a_server_that_stops_ends_handshakes_at_once(server: ServerThread, logged: list[Any]) -> None:
    with RawPeer(server.port) as peer:
        peer.send(b"\x16\x03\x01\2\0\1")
        server.wait_until(lambda: server.server.connections == 1)
        server.run(server.server.stop())
        assert server.server.connections == 0
        with pytest.raises(PeerClosed):
            peer.read_pdu()
    (line,) = [line for line in logged if line["event"] == "association"]
    assert (line["what"], line["why"]) == ("lost", "the server stops")


def test_a_new_context_holds_for_the_connections_to_come(
    server: ServerThread, options: TLSOptions, tls_files: TLSFiles, client: ssl.SSLContext
) -> None:
    renewed = tls_files.authority.issue("renewed", key="rsa")
    other = replace(
        options,
        certificate_file=renewed.certificate,
        key_file=renewed.key,
        verification=PeerVerification.IGNORE,
    )
    with TLSPeer(server.port, client) as before:
        before.associate(*CONTEXTS)
        server.call(lambda: setattr(server.server, "tls", acceptor_context(other)))
        with TLSPeer(server.port, client) as after:
            subjects = [dict(peer.socket.getpeercert()["subject"][0]) for peer in (before, after)]  # type: ignore[index]  # they have one
            assert subjects == [{"commonName": "server"}, {"commonName": "renewed"}]
        assert before.echo().status == 0
