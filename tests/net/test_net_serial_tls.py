"""TLS on the server of one association at a time: what fails is named, what is refused learns why, and nobody waits for it."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from random import Random

import pytest

from stowkeeper.net import serial_server
from stowkeeper.net.tls_context import TLSContext, TLSOptions, acceptor_context
from support.raw_peer import (
    ASSOCIATE_AC,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    RELEASE_RP,
    VERIFICATION,
    Context,
    RawPeer,
    associate_rq,
    echo_command,
    p_data,
    store_message,
)
from support.serial_server import SerialServerThread, are_closed, endings, serving_serially
from support.server_thread import RecordingHandlers
from support.tls_fixtures import TLSFiles
from support.tls_peer import TLSPeer, peer_context

pytestmark = pytest.mark.peer("openssl")

DATA = Random(2).randbytes(1_000_000)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
CONTEXTS = [
    Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
    Context(context_id=3, abstract_syntax=VERIFICATION),
]
SHORT = 0.3


@pytest.fixture
def handlers() -> RecordingHandlers:
    return RecordingHandlers()


@pytest.fixture(scope="module")
def tls(tls_files: TLSFiles) -> TLSContext:
    return acceptor_context(
        TLSOptions(
            certificate_file=tls_files.server.certificate,
            key_file=tls_files.server.key,
            ca_files=(tls_files.authority.certificate,),
        )
    )


@pytest.fixture
def server(handlers: RecordingHandlers, tls: TLSContext) -> Iterator[SerialServerThread]:
    with serving_serially(handlers, tls) as running:
        yield running


@pytest.fixture
def client(tls_files: TLSFiles) -> ssl.SSLContext:
    return peer_context(tls_files.authority.certificate, tls_files.client)


def hold_association(port: int, client: ssl.SSLContext) -> None:
    with TLSPeer(port, client) as peer:
        assert peer.associate(*CONTEXTS).kind == ASSOCIATE_AC
        assert peer.echo().status == 0
        assert peer.release().kind == RELEASE_RP


def only_failure(server: SerialServerThread) -> tuple[str, bool]:
    """Wait until a handshake failed; return why, and whether it was a silent one."""
    server.wait_until(lambda: bool(server.handshakes))
    ((address, failure, _),) = server.handshakes
    assert address == "127.0.0.1"
    assert failure is not None
    return failure.words, failure.is_silent


# Associations


@pytest.mark.parametrize("version", VERSIONS)
def test_an_association(
    server: SerialServerThread, handlers: RecordingHandlers, tls_files: TLSFiles, version: ssl.TLSVersion
) -> None:
    context = peer_context(tls_files.authority.certificate, tls_files.client, version=version)
    with TLSPeer(server.port, context) as peer:
        assert peer.associate(*CONTEXTS).kind == ASSOCIATE_AC
        peer.send(store_message(1, "1.2.3", DATA, piece=100_000))
        assert peer.read_answer().status == 0
        several = b"".join(store_message(1, f"1.2.{n}", DATA[:100], message_id=n) for n in range(5))
        peer.send(several)  # one record: all is decrypted at once
        assert [peer.read_answer().responds_to for _ in range(5)] == list(range(5))
        assert peer.release().kind == RELEASE_RP
        peer.end_tls().close()
    server.wait_until(lambda: are_closed(handlers, 1))
    assert endings(handlers) == [("released", "")]
    assert bytes(handlers.stores[0].data) == DATA
    (facts,) = handlers.closed
    assert facts.tls.startswith(version.name.replace("_", "."))
    assert facts.tls_peer == "CN=client, O=Clinic"
    ((_, failure, warnings),) = server.handshakes
    assert (failure, warnings) == (None, [])


def test_timers_run_on_tls_too(handlers: RecordingHandlers, tls: TLSContext, client: ssl.SSLContext) -> None:
    with (
        serving_serially(handlers, tls, idle_seconds=SHORT) as server,
        TLSPeer(server.port, client) as peer,
    ):
        peer.associate(*CONTEXTS)
        assert peer.read_pdu().reasons == (0, 0)
        assert endings(handlers) == [("aborted", "idle for 0.3 seconds")]
        hold_association(server.port, client)


@pytest.mark.slow
def test_a_peer_that_does_not_read_is_given_up(
    handlers: RecordingHandlers, tls: TLSContext, client: ssl.SSLContext
) -> None:
    with serving_serially(handlers, tls, send_seconds=SHORT) as server:
        with TLSPeer(server.port, client, receive_buffer=4096) as peer:
            peer.associate(*CONTEXTS)
            echoes = p_data(3, echo_command(), control=COMMAND | LAST) * 500
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while not handlers.closed:
                    peer.socket.sendall(echoes)
        server.wait_until(lambda: are_closed(handlers, 1))
        ((end, words),) = endings(handlers)
        assert end == "lost"
        assert "read no answer for" in words
        hold_association(server.port, client)


# Handshakes that fail


def test_a_peer_without_certificate_learns_why(
    server: SerialServerThread, tls_files: TLSFiles, client: ssl.SSLContext
) -> None:
    without = peer_context(tls_files.authority.certificate, None, version=ssl.TLSVersion.TLSv1_3)
    with (
        TLSPeer(server.port, without) as peer,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        peer.socket.recv(1)
    words, is_silent = only_failure(server)
    assert "certificate" in words
    assert not is_silent
    hold_association(server.port, client)


@pytest.mark.parametrize("who", ["foreign", "expired"])
def test_a_certificate_that_is_not_trusted_is_named(
    server: SerialServerThread, tls_files: TLSFiles, client: ssl.SSLContext, who: str
) -> None:
    version = ssl.TLSVersion.TLSv1_2
    context = peer_context(tls_files.authority.certificate, getattr(tls_files, who), version=version)
    with pytest.raises(ssl.SSLError):
        TLSPeer(server.port, context).close()
    words, is_silent = only_failure(server)
    assert {"foreign": "authority", "expired": "expired"}[who] in words, words
    assert not is_silent
    hold_association(server.port, client)


def test_a_peer_that_speaks_no_tls_is_refused_and_blocks_nobody(
    server: SerialServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    with RawPeer(server.port) as plain:
        plain.send(associate_rq(CONTEXTS))
        words, is_silent = only_failure(server)
        assert "TLS" in words
        assert not is_silent
        began = time.monotonic()
        hold_association(server.port, client)
        assert time.monotonic() - began < serial_server.TLS_REFUSAL_SECONDS / 2
        with contextlib.suppress(ConnectionError):
            while plain.socket.recv(4096):
                pass
    assert [end for end, _ in endings(handlers)] == ["released"]


def test_a_probe_is_silent(server: SerialServerThread, handlers: RecordingHandlers) -> None:
    RawPeer(server.port).close()
    _, is_silent = only_failure(server)
    assert is_silent
    assert handlers.closed == []


def test_a_handshake_that_is_broken_off_is_named(server: SerialServerThread, client: ssl.SSLContext) -> None:
    with RawPeer(server.port) as peer:
        peer.send(b"\x16\x03\x01\x02\x00\x01")
        peer.socket.shutdown(socket.SHUT_WR)
        words, is_silent = only_failure(server)
    assert words
    assert not is_silent
    hold_association(server.port, client)


def hello(client: ssl.SSLContext) -> bytes:
    """Return the first bytes of a handshake."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("drips", [True, False])
def test_a_handshake_that_does_not_come_to_its_end_is_given_up_in_time(
    handlers: RecordingHandlers, tls: TLSContext, client: ssl.SSLContext, *, drips: bool
) -> None:
    with serving_serially(handlers, tls, association_request_seconds=SHORT) as server:
        began = time.monotonic()
        with RawPeer(server.port) as peer:
            data = hello(client)
            for at in range(len(data)) if drips else ():
                peer.send(data[at : at + 1])
                if server.handshakes:
                    break
                time.sleep(0.005)
            words, _ = only_failure(server)
        assert "in time" in words
        assert time.monotonic() - began < 10
        hold_association(server.port, client)


@pytest.mark.slow
def test_others_are_looked_after_during_a_handshake(
    handlers: RecordingHandlers, tls: TLSContext, client: ssl.SSLContext
) -> None:
    with (
        serving_serially(handlers, tls, association_request_seconds=1.0) as server,
        TLSPeer(server.port, client) as lingering,
    ):
        lingering.associate(*CONTEXTS)
        lingering.release()
        server.wait_until(lambda: server.lingering == 1)
        time.sleep(0.2)
        with RawPeer(server.port):  # which says nothing
            time.sleep(0.1)
            before = server.idle_calls
            server.wait_until(lambda: server.idle_calls > before + 3)
            server.wait_until(lambda: server.lingering == 0)
            assert len(server.handshakes) == 1, "it waited for the handshake's end"


def test_refused_peers_are_kept_no_longer_than_the_alert_takes(
    handlers: RecordingHandlers, tls: TLSContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_server, "TLS_REFUSAL_SECONDS", 0.2)
    with serving_serially(handlers, tls) as server, RawPeer(server.port) as peer:
        peer.send(associate_rq(CONTEXTS))
        server.wait_until(lambda: server.lingering == 1)
        server.wait_until(lambda: server.lingering == 0)


def test_broken_records_end_an_association(
    server: SerialServerThread, handlers: RecordingHandlers, client: ssl.SSLContext
) -> None:
    with TLSPeer(server.port, client) as peer:
        peer.associate(*CONTEXTS)
        plain = socket.socket(fileno=peer.socket.detach())
        with plain:
            plain.sendall(b"\x17\x03\x03\x00\x30" + bytes(0x30))
            server.wait_until(lambda: are_closed(handlers, 1))
    ((end, words),) = endings(handlers)
    assert end == "lost"
    assert words not in {"the connection broke: ", "the connection broke: TLSFailure"}, words
    hold_association(server.port, client)
