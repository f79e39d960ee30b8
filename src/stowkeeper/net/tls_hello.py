"""The first bytes of a connection to a TLS port: whether it is TLS at all, and for which application protocols.

OpenSSL would answer both questions too late or not at all: Python's `ssl` lets a client go on whose application protocols
(ALPN, RFC 7301) match none of ours, and a peer that speaks DICOM without TLS deserves to be named as that in the log.
"""

from dataclasses import dataclass
from typing import Final

from stowkeeper.net.limits import TLS_HELLO_BYTES_MAX

_HANDSHAKE_RECORD = 0x16
_CLIENT_HELLO = 0x01
_ALPN_EXTENSION = 16
_RECORD_HEADER_LENGTH = 5
_FIRST_BYTES: Final = (b"\x16", b"\x15", b"\x80")
"""A handshake, an alert, and the hello of versions before TLS, which OpenSSL refuses by itself."""
_HTTP_METHODS: Final = (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"PRI ", b"HTTP")

ALERT_NO_APPLICATION_PROTOCOL: Final = bytes([21, 3, 3, 0, 2, 2, 120])
"""The record of a fatal alert no_application_protocol (RFC 7301 §3.2), as it is sent before anything is agreed."""


class MoreNeeded(Exception):  # noqa: N818 - no error: the bytes end too early
    """The opening is not complete yet."""


class NotTLSError(ValueError):
    """The peer does not speak TLS; the text says what it speaks, in words that follow its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a client opens with. `protocols` is None when it asks for none."""

    protocols: tuple[bytes, ...] | None = None


def read_opening(data: bytes) -> Opening:
    """Look into the first bytes from a client: whole records of a ClientHello (RFC 8446 §4.1.2, §5.1).

    What is TLS but malformed is given as an opening without protocols, for OpenSSL to refuse in its own way.

    Raises:
        MoreNeeded: more bytes are needed to tell.
        NotTLSError: it is something else.

    """
    check_is_tls(data)
    try:
        return Opening(protocols=_protocols_of(_Bytes(_client_hello(data))))
    except _Malformed:
        return Opening()


def check_is_tls(data: bytes) -> None:
    """Raise NotTLSError when a peer, of either side, begins with something else, MoreNeeded when that is open."""
    if data[:1] in _FIRST_BYTES:
        return
    if len(data) < 4:
        raise MoreNeeded
    if data[0] in range(1, 8) and data[1] == 0:
        raise NotTLSError("it speaks DICOM without TLS")
    if data[:4] in _HTTP_METHODS:
        raise NotTLSError("it speaks HTTP without TLS")
    raise NotTLSError("it does not speak TLS")


class _Malformed(Exception):  # noqa: N818 - for OpenSSL to name
    pass


class _Bytes:
    """Reads numbers and vectors (RFC 8446 §3) in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise _Malformed
        self._at += count
        return taken

    def vector(self, length_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(length_bytes), "big"))


def _client_hello(data: bytes) -> bytes:
    """Return the body of the ClientHello, put together from its records; what follows it does not matter."""
    message = bytearray()
    at = 0
    while len(data) - at >= _RECORD_HEADER_LENGTH:
        if data[at] != _HANDSHAKE_RECORD:
            raise _Malformed
        body = at + _RECORD_HEADER_LENGTH
        at = body + int.from_bytes(data[at + 3 : body], "big")
        message += data[body:at]
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if message[0] != _CLIENT_HELLO or length > TLS_HELLO_BYTES_MAX:
                raise _Malformed
            if len(message) >= 4 + length:
                return bytes(message[4 : 4 + length])
    if len(data) > TLS_HELLO_BYTES_MAX + _RECORD_HEADER_LENGTH:
        raise _Malformed
    raise MoreNeeded


def _protocols_of(hello: _Bytes) -> tuple[bytes, ...] | None:
    hello.take(2 + 32)  # legacy_version and random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    if not hello:
        return None
    extensions = _Bytes(hello.vector(2))
    while extensions:
        kind = int.from_bytes(extensions.take(2), "big")
        content = extensions.vector(2)
        if kind == _ALPN_EXTENSION:
            names = _Bytes(_Bytes(content).vector(2))
            protocols: list[bytes] = []
            while names:
                protocols.append(names.vector(1))
            return tuple(protocols)
    return None
