"""Bytes from anyone where a PROXY header is due: nothing else than ProxyHeaderError, every split is the same, and no byte
beyond the header is taken.

The first byte of an input chooses the steps in which the bytes are given (0: as many as are wanted).
"""

import ipaddress
import sys

from stowkeeper.net.limits import PROXY_HEADER_BYTES_MAX, PROXY_LINE_BYTES_MAX
from stowkeeper.net.proxy_header import ProxyHeader, ProxyHeaderError, ProxyHeaderReader

Outcome = tuple[ProxyHeader | None, int]


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    if not data:
        return
    stream = data[1:]
    at_once = read(stream, len(stream))
    stepwise = read(stream, data[0] or 1)
    assert (stepwise is None) == (at_once is None)
    if at_once is None or at_once[0] is None:
        return
    assert stepwise == at_once
    header, taken = at_once
    assert taken <= 16 + PROXY_HEADER_BYTES_MAX
    if header.version == 1:
        assert taken <= PROXY_LINE_BYTES_MAX
        assert stream[:taken].endswith(b"\r\n")
    else:
        assert taken == 16 + int.from_bytes(stream[14:16], "big")
    if header.source_address:
        assert not header.is_local
        assert str(ipaddress.ip_address(header.source_address)) == header.source_address
    assert 0 <= header.source_port <= 65_535


def read(stream: bytes, step: int) -> Outcome | None:
    """Return the header, None where it is not whole, and how many bytes were taken; None for what is no header."""
    reader = ProxyHeaderReader()
    place = 0
    try:
        while reader.header is None and place < len(stream):
            assert reader.wanted > 0
            piece = stream[place : place + min(reader.wanted, step)]
            reader.receive(piece)
            place += len(piece)
    except ProxyHeaderError:
        return None
    return reader.header, place


def main() -> None:
    try:
        import atheris  # noqa: PLC0415 - the corpus is replayed without it
    except ImportError:
        sys.exit("This fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
