"""PROXY headers as a proxy writes them, made without the product's own code."""

import struct
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")


def line(source: IPv4Address | IPv6Address, destination: object, port: int, destination_port: int) -> bytes:
    """Return a header of version 1."""
    return f"PROXY TCP{source.version} {source} {destination} {port} {destination_port}\r\n".encode()


def block(version_and_command: int, family: int, content: bytes) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", version_and_command, family, len(content)) + content


def tcp4(
    source: IPv4Address, destination: IPv4Address, port: int, destination_port: int, more: bytes = b""
) -> bytes:
    """Return one for TCP over IPv4, with additions."""
    ports = struct.pack("!HH", port, destination_port)
    return block(0x21, 0x11, source.packed + destination.packed + ports + more)


def tcp6(
    source: IPv6Address, destination: IPv6Address, port: int, destination_port: int, more: bytes = b""
) -> bytes:
    """Return one for TCP over IPv6, with additions."""
    ports = struct.pack("!HH", port, destination_port)
    return block(0x21, 0x21, source.packed + destination.packed + ports + more)


def addition(kind: int, value: bytes) -> bytes:
    """Return a field behind the addresses: type, length, value."""
    return struct.pack("!BH", kind, len(value)) + value


def checked(header: bytes) -> bytes:
    """Return a header of version 2 with a checksum as its last field."""
    (length,) = struct.unpack_from("!H", header, 14)
    zeroed = header[:14] + struct.pack("!H", length + 7) + header[16:] + addition(3, bytes(4))
    return zeroed[:-4] + struct.pack("!I", _crc32c(zeroed))


def _crc32c(data: bytes) -> int:
    """Compute it bit by bit, by the polynomial."""
    value = 0xFFFF_FFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 & -(value & 1))
    return value ^ 0xFFFF_FFFF
