"""The header that a proxy writes at the start of a connection to tell whose it is: the PROXY protocol, versions 1 and 2.

No I/O. The reader never wants more bytes than belong to the header, so what follows it stays unread, be it TLS or a PDU. What
is not to the letter of the protocol is refused: a header that is half understood would give a peer a wrong address.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from stowkeeper.net.addresses import plain_address
from stowkeeper.net.limits import PROXY_HEADER_BYTES_MAX, PROXY_LINE_BYTES_MAX

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""What a header of version 2 begins with."""

_LINE_START: Final = b"PROXY "
_SHORTEST_LINE: Final = len(b"PROXY UNKNOWN\r\n")
_FIXED: Final = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Bytes of the addresses by family and transport; there are no others."""
_INET_STREAM, _INET6_STREAM = 0x11, 0x21
_CHECKSUM_TYPE: Final = 0x03
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")


class ProxyHeaderError(ValueError):
    """What came is no header of the PROXY protocol; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """What a header says. `source_address` is empty where it names none: then the connection is the proxy's own.

    That is so for a health check, for UNKNOWN, and for what did not come over TCP.
    """

    version: int
    source_address: str = ""
    source_port: int = 0
    is_local: bool = False


class ProxiedPeer(NamedTuple):
    """Who is behind a proxy, as the header said, and the proxy itself. Begins like the address of a socket."""

    address: str
    port: int
    proxy_address: str


class ProxyHeaderReader:
    """Reads one header, in whatever pieces it comes. Until it is whole `header` is None."""

    __slots__ = ("_received", "header")

    def __init__(self) -> None:
        self._received = bytearray()
        self.header: ProxyHeader | None = None

    @property
    def has_begun(self) -> bool:
        """Whether any byte has come."""
        return bool(self._received)

    @property
    def wanted(self) -> int:
        """How many bytes may be read next: so many belong to the header at least. 0 when it is whole."""
        if self.header is not None:
            return 0
        received = self._received
        if len(received) < _SHORTEST_LINE:
            return _SHORTEST_LINE - len(received)
        if received.startswith(_LINE_START):
            return 1 if received.endswith(b"\r") else min(2, PROXY_LINE_BYTES_MAX - len(received))
        if len(received) < _FIXED.size:
            return _FIXED.size - len(received)
        return _FIXED.size + _announced(received) - len(received)

    def receive(self, data: bytes) -> None:
        """Take the next bytes, `wanted` of them at most. Raises ProxyHeaderError as soon as they are no header."""
        self._received += data
        received = self._received
        if _fits(received, SIGNATURE):
            self._look_at_block(received)
        elif _fits(received, _LINE_START):
            self._look_at_line(received)
        else:
            raise ProxyHeaderError("it began with no PROXY header")

    def _look_at_line(self, received: bytearray) -> None:
        if received.endswith(b"\r\n"):
            self.header = _parse_line(bytes(received[:-2]))
        elif b"\r" in received[:-1] or b"\n" in received:
            raise ProxyHeaderError("the line of its PROXY header does not end with CR LF")
        elif len(received) >= PROXY_LINE_BYTES_MAX:
            raise ProxyHeaderError(f"its PROXY header is longer than {PROXY_LINE_BYTES_MAX} bytes")

    def _look_at_block(self, received: bytearray) -> None:
        if len(received) > 12:
            _check_command(received[12])
        if len(received) < _FIXED.size:
            return
        length = _announced(received)
        if length > PROXY_HEADER_BYTES_MAX:
            raise ProxyHeaderError(
                f"its PROXY header announces {length} bytes, more than {PROXY_HEADER_BYTES_MAX}"
            )
        if len(received) == _FIXED.size + length:
            self.header = _parse_block(bytes(received))


def _announced(block: bytearray) -> int:
    return int.from_bytes(block[14:16], "big")


def _fits(received: bytearray, start: bytes) -> bool:
    return received.startswith(start) or start.startswith(received)


# Version 1: a line of text.


def _parse_line(line: bytes) -> ProxyHeader:
    try:
        _, family, *fields = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyHeaderError("its PROXY header is no ASCII") from None
    if family == "UNKNOWN":  # whatever follows is to be ignored
        return ProxyHeader(version=1)
    if family not in {"TCP4", "TCP6"} or len(fields) != 4:
        raise ProxyHeaderError("its PROXY header has not the fields of a TCP connection")
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    source, _destination = (_address(kind, text) for text in fields[:2])
    source_port, _destination_port = (_port(text) for text in fields[2:])
    return ProxyHeader(version=1, source_address=source, source_port=source_port)


def _address(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str) -> str:
    words = "an address in its PROXY header is none of the family that it names"
    if "%" in text:  # a zone, which means nothing on another machine
        raise ProxyHeaderError(words)
    try:
        return plain_address(str(kind(text)))
    except ValueError:
        raise ProxyHeaderError(words) from None


def _port(text: str) -> int:
    port = int(text) if _PORT.fullmatch(text) else 65_536
    if port > 65_535:
        raise ProxyHeaderError("a port in its PROXY header is no number from 0 to 65535")
    return port


# Version 2: a binary block.


def _check_command(version_and_command: int) -> None:
    if version_and_command >> 4 != 2:
        raise ProxyHeaderError(f"its PROXY header is of version {version_and_command >> 4}, which is unknown")
    if version_and_command & 0xF not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("its PROXY header has an unknown command")


def _parse_block(block: bytes) -> ProxyHeader:
    _, version_and_command, family, length = _FIXED.unpack_from(block)
    if version_and_command & 0xF == _LOCAL:  # all that follows is to be ignored
        return ProxyHeader(version=2, is_local=True)
    address_bytes = _ADDRESS_BYTES.get(family)
    if address_bytes is None:
        raise ProxyHeaderError("its PROXY header has an unknown family or transport")
    if length < address_bytes:
        raise ProxyHeaderError("its PROXY header is too short for its addresses")
    if family:  # without one nobody says where additions would begin
        _check_additions(block, _FIXED.size + address_bytes)
    if family == _INET_STREAM:
        source, port = ipaddress.IPv4Address(block[16:20]), int.from_bytes(block[24:26], "big")
        return ProxyHeader(version=2, source_address=str(source), source_port=port)
    if family == _INET6_STREAM:
        source6, port = ipaddress.IPv6Address(block[16:32]), int.from_bytes(block[48:50], "big")
        return ProxyHeader(version=2, source_address=plain_address(str(source6)), source_port=port)
    return ProxyHeader(version=2)


def _check_additions(block: bytes, start: int) -> None:
    """Walk the fields behind the addresses: they have to fill the block, and a checksum has to be right."""
    checksum_at = None
    place = start
    while place < len(block):
        length = int.from_bytes(block[place + 1 : place + 3], "big")
        value = place + 3
        if value + length > len(block):
            raise ProxyHeaderError("a field of its PROXY header reaches beyond its end")
        if block[place] == _CHECKSUM_TYPE:
            if length != 4 or checksum_at is not None:
                raise ProxyHeaderError("its PROXY header has not one checksum of four bytes")
            checksum_at = value
        place = value + length
    if checksum_at is not None:
        zeroed = block[:checksum_at] + bytes(4) + block[checksum_at + 4 :]
        if crc32c(zeroed) != int.from_bytes(block[checksum_at : checksum_at + 4], "big"):
            raise ProxyHeaderError("the checksum of its PROXY header is wrong")


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC32C: Final = tuple(_table_entry(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of bytes, RFC 3720 §B.4."""
    value = 0xFFFF_FFFF
    for byte in data:
        value = value >> 8 ^ _CRC32C[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF_FFFF
