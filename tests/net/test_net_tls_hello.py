"""What a client opens with: application protocols from the ClientHello, and peers that do not speak TLS at all."""

import contextlib
import ssl
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.net.limits import TLS_HELLO_BYTES_MAX
from stowkeeper.net.tls_hello import MoreNeeded, NotTLSError, Opening, check_is_tls, read_opening
from support.raw_peer import Context, associate_rq


def client_hello(*, protocols: Sequence[str] = (), name: str | None = None) -> bytes:
    """Return what OpenSSL opens with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(message: bytes, size: int) -> bytes:
    """Return a handshake message in records of at most `size` bytes."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def test_protocols_are_found() -> None:
    assert read_opening(client_hello()) == Opening(protocols=None)
    assert read_opening(client_hello(protocols=["dicom"])).protocols == (b"dicom",)
    hello = client_hello(protocols=["h2", "http/1.1"], name="archive.example")
    assert read_opening(hello).protocols == (b"h2", b"http/1.1")


def test_what_follows_the_hello_is_left_alone() -> None:
    assert read_opening(client_hello(protocols=["dicom"]) + b"\x14\x03\x03\0\1\1").protocols == (b"dicom",)


def test_more_is_needed_until_the_last_byte() -> None:
    hello = client_hello(protocols=["dicom"])
    for end in range(len(hello)):
        with pytest.raises(MoreNeeded):
            read_opening(hello[:end])


@given(size=st.integers(1, 300))
def test_a_hello_in_many_records_is_put_together(size: int) -> None:
    assert read_opening(in_records(client_hello(protocols=["dicom"])[5:], size)).protocols == (b"dicom",)


@given(data=st.data())
def test_a_damaged_hello_is_for_openssl_to_refuse(data: st.DataObject) -> None:
    hello = bytearray(client_hello(protocols=["h2", "dicom"], name="archive.example"))
    for at in data.draw(st.lists(st.integers(1, len(hello) - 1), min_size=1, max_size=5)):
        hello[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MoreNeeded):
        assert isinstance(read_opening(bytes(hello)), Opening)


@pytest.mark.parametrize(
    "message",
    [
        b"\x02\0\0\0",  # a ServerHello
        b"\x01\0\0\x01\0",  # one byte long
        b"\x01" + (TLS_HELLO_BYTES_MAX + 1).to_bytes(3, "big") + b"\0" * 10,  # announces too much
    ],
)
def test_what_is_no_hello_is_for_openssl_to_refuse(message: bytes) -> None:
    assert read_opening(in_records(message, 100)) == Opening(protocols=None)


def test_no_more_is_gathered_than_a_hello_can_have() -> None:
    """Records without content would be a way to send for ever."""
    empty = b"\x16\x03\x01\0\0" * (TLS_HELLO_BYTES_MAX // 5)
    with pytest.raises(MoreNeeded):
        read_opening(empty)
    assert read_opening(empty + empty[:10]) == Opening(protocols=None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (associate_rq([Context(context_id=1, abstract_syntax="1.2.840.10008.1.1")]), "DICOM without TLS"),
        (b"\x07\0\0\0\0\4\0\0\0\0", "DICOM without TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP without TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak TLS"),
        (b"\x01\x01\0\0", "it does not speak TLS"),
    ],
)
def test_what_is_not_tls_is_named(data: bytes, words: str) -> None:
    for check in (read_opening, check_is_tls):
        with pytest.raises(NotTLSError, match=words):
            check(data)
        with pytest.raises(MoreNeeded):
            check(data[:3])


@pytest.mark.parametrize("first", [b"\x15\x03\x03\0\2\2\x28", b"\x80\x2e\x01\0\2"])
def test_alerts_and_hellos_of_old_are_for_openssl(first: bytes) -> None:
    check_is_tls(first)
    assert read_opening(first + bytes(10)) == Opening(protocols=None)
