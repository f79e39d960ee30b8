"""The PROXY header without a connection: what it says, where it ends, and what is none."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.net.limits import PROXY_HEADER_BYTES_MAX, PROXY_LINE_BYTES_MAX
from stowkeeper.net.proxy_header import SIGNATURE, ProxyHeader, ProxyHeaderError, ProxyHeaderReader, crc32c
from support.proxy_headers import addition, block, checked, line, tcp4, tcp6

REST = b"\x01\0 and what follows it"


def read(data: bytes, step: int = 1 << 20) -> tuple[ProxyHeader, bytes]:
    """Read a header as a server does, from bytes that come in steps; return it and what is left."""
    reader = ProxyHeaderReader()
    place = 0
    while reader.header is None:
        count = min(reader.wanted, step, len(data) - place)
        assert reader.wanted > 0
        if not count:
            raise EOFError
        reader.receive(data[place : place + count])
        place += count
    assert reader.wanted == 0
    return reader.header, data[place:]


ports = st.integers(0, 65_535)
addresses4 = st.ip_addresses(v=4)
addresses6 = st.ip_addresses(v=6)
steps = st.integers(1, 40)


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


@given(addresses4 | addresses6, ports, steps)
def test_a_line_says_who_it_is_in_whatever_pieces_it_comes(address, port, step) -> None:
    header, rest = read(line(address, address, port, 104) + REST, step)
    assert header == ProxyHeader(version=1, source_address=plain(address), source_port=port)
    assert rest == REST


@given(
    st.tuples(addresses4, addresses4) | st.tuples(addresses6, addresses6),
    ports,
    st.lists(
        st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=60)), max_size=4
    ),
    st.booleans(),
    steps,
)
def test_a_block_says_who_it_is_in_whatever_pieces_it_comes(pair, port, additions, is_checked, step) -> None:
    pack = tcp4 if pair[0].version == 4 else tcp6
    extra = b"".join(addition(kind, value) for kind, value in additions)
    data = pack(*pair, port, 104, extra)
    if is_checked:
        data = checked(data)
    header, rest = read(data + REST, step)
    assert header == ProxyHeader(version=2, source_address=plain(pair[0]), source_port=port)
    assert rest == REST


@pytest.mark.parametrize(
    ("data", "is_local"),
    [
        (b"PROXY UNKNOWN\r\n", False),
        (b"PROXY UNKNOWN ffff:f...f:ffff is to be ignored\r\n", False),
        (b"PROXY UNKNOWN " + b"x" * (PROXY_LINE_BYTES_MAX - 16) + b"\r\n", False),
        (block(0x20, 0x00, b""), True),
        (block(0x20, 0xFF, b"whatever stands here"), True),
        (block(0x21, 0x00, b""), False),
        (block(0x21, 0x00, b"of no family"), False),
        (block(0x21, 0x12, bytes(12)), False),
        (block(0x21, 0x22, bytes(36)), False),
        (block(0x21, 0x31, bytes(216)), False),
        (block(0x21, 0x32, bytes(216) + addition(4, b"padding")), False),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_one_that_names_nobody_is_of_the_proxy_itself(data: bytes, is_local: bool, step: int) -> None:
    header, rest = read(data + REST, step)
    assert (header.source_address, header.source_port, header.is_local) == ("", 0, is_local)
    assert rest == REST


ADDRESSES = bytes([10, 0, 0, 1, 10, 0, 0, 2]) + struct.pack("!HH", 5000, 104)
GOOD = block(0x21, 0x11, ADDRESSES)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x01\0\0\0\0\xcd", "began with no PROXY header"),
        (b"GET / HTTP/1.1\r\n", "began with no PROXY header"),
        (b"PROXY\tTCP4", "began with no PROXY header"),
        (b"proxy TCP4", "began with no PROXY header"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 104\n", "does not end with CR LF"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 104\r\r\n", "does not end with CR LF"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 5000\r\n", "not the fields"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 104 1\r\n", "not the fields"),
        (b"PROXY TCP4  10.0.0.1 10.0.0.2 5000 104\r\n", "not the fields"),
        (b"PROXY UDP4 10.0.0.1 10.0.0.2 5000 104\r\n", "not the fields"),
        (b"PROXY \r\n", "not the fields"),
        (b"PROXY TCP4 10.0.0.256 10.0.0.2 5000 104\r\n", "none of the family"),
        (b"PROXY TCP4 10.0.0.1 fd00::1 5000 104\r\n", "none of the family"),
        (b"PROXY TCP6 10.0.0.1 fd00::1 5000 104\r\n", "none of the family"),
        (b"PROXY TCP6 fe80::1%eth0 fd00::1 5000 104\r\n", "none of the family"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 65536 104\r\n", "no number from 0 to 65535"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 +500 104\r\n", "no number from 0 to 65535"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 05 104\r\n", "no number from 0 to 65535"),
        (b"PROXY TCP4 \xff10.0.0.1 10.0.0.2 5 104\r\n", "no ASCII"),
        (b"PROXY UNKNOWN " + b"x" * PROXY_LINE_BYTES_MAX, f"longer than {PROXY_LINE_BYTES_MAX}"),
        (block(0x11, 0x11, ADDRESSES), "version 1"),
        (block(0x22, 0x11, ADDRESSES), "unknown command"),
        (block(0x21, 0x41, bytes(216)), "unknown family"),
        (block(0x21, 0x10, ADDRESSES), "unknown family"),
        (block(0x21, 0x11, ADDRESSES[:-1]), "too short for its addresses"),
        (block(0x21, 0x21, bytes(35)), "too short for its addresses"),
        (block(0x21, 0x11, bytes(PROXY_HEADER_BYTES_MAX + 1)), f"more than {PROXY_HEADER_BYTES_MAX}"),
        (block(0x21, 0x11, ADDRESSES + b"\x04\0"), "beyond its end"),
        (block(0x21, 0x11, ADDRESSES + b"\x04\0\x02a"), "beyond its end"),
        (block(0x21, 0x11, ADDRESSES + addition(3, b"abc")), "not one checksum"),
        (checked(checked(GOOD)), "not one checksum"),
        (block(0x21, 0x11, ADDRESSES + addition(3, bytes(4))), "checksum of its PROXY header is wrong"),
        (SIGNATURE[:-1] + b"\r" + GOOD[12:], "began with no PROXY header"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_what_is_none_is_refused_in_words(data: bytes, words: str, step: int) -> None:
    with pytest.raises(ProxyHeaderError, match=words):
        read(data, step)


@given(st.integers(0, len(checked(GOOD)) - 1), st.integers(1, 255))
def test_any_damaged_byte_of_a_checked_block_is_found(place: int, damage: int) -> None:
    data = bytearray(checked(GOOD))
    data[place] ^= damage
    try:
        header, _ = read(bytes(data))
    except (ProxyHeaderError, EOFError):
        return
    # What makes it LOCAL, or takes the checksum's field away, escapes: then nobody is named, or who was.
    assert header.source_address in {"", "10.0.0.1"}


def test_the_longest_lines_and_blocks_are_taken() -> None:
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    text = f"PROXY TCP6 {longest} {longest} 65535 65535\r\n".encode()
    assert len(text) == 104
    assert read(text)[0].source_address == longest
    filled = addition(4, bytes(PROXY_HEADER_BYTES_MAX - 12 - 3))
    assert read(block(0x21, 0x11, ADDRESSES + filled))[0].source_address == "10.0.0.1"


def test_the_checksum_is_that_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 §B.4
