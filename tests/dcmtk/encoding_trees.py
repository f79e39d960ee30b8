"""Data sets as trees, and their bytes in every transfer syntax, right or wrong.

A data set is a list of elements. Numbers are given as numbers, so that the same data set can be had in every transfer
syntax; all else is given as bytes. Lengths and VRs are written as they are asked for, right or wrong.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
GE_PIXELS = "1.2.840.113619.5.2"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV ZZ ox px lt".split())
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_FORMATS = {
    **dict.fromkeys(b"AT OW US".split(), "H"),
    b"SS": "h",
    **dict.fromkeys(b"OL UL".split(), "I"),
    b"SL": "i",
    **dict.fromkeys(b"FL OF".split(), "f"),
    **dict.fromkeys(b"FD OD".split(), "d"),
    **dict.fromkeys(b"OV UV".split(), "Q"),
    b"SV": "q",
}
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class El:
    """An element: its value as bytes or numbers; `length` lies about it."""

    tag: int
    vr: bytes
    value: bytes | Sequence[float] = b""
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Sq:
    """A sequence of items, or of pixel fragments where these are bytes."""

    tag: int
    items: Sequence["Sequence[Node] | bytes"] = ()
    is_open: bool = False
    """Whether it has an undefined length."""

    items_open: bool = False
    vr: bytes = b"SQ"
    content: str | None = None
    """The transfer syntax of its items, where that is another one."""

    length: int | None = None
    delimiter_length: int = 0


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that stand there as they are."""

    data: bytes


Node = El | Sq | Raw


def encode(nodes: Sequence[Node], syntax: str) -> bytes:
    """Encode a data set in a transfer syntax."""
    data = b"".join(_encoded(node, syntax) for node in nodes)
    if syntax != DEFLATED:
        return data
    stream = zlib.compressobj(wbits=-15)
    deflated = stream.compress(data) + stream.flush()
    return deflated + b"\0" * (len(deflated) % 2)


def header(tag: int, vr: bytes, length: int, syntax: str) -> bytes:
    """Encode the header of an element."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    group, element = tag >> 16, tag & 0xFFFF
    if syntax in (IMPLICIT, GE_PIXELS):
        return struct.pack("<HHI", group, element, length)
    if vr in LONG:
        return struct.pack(order + "HH2sxxI", group, element, vr, length)
    return struct.pack(order + "HH2sH", group, element, vr, length)


def item(length: int, syntax: str, tag: int = 0xFFFEE000) -> bytes:
    """Encode the header of an item, or a delimiter."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    return struct.pack(order + "HHI", tag >> 16, tag & 0xFFFF, length)


def _encoded(node: Node, syntax: str) -> bytes:
    if isinstance(node, Raw):
        return node.data
    if isinstance(node, El):
        value = node.value
        if not isinstance(value, bytes):
            order = ">" if syntax == BIG_ENDIAN else "<"
            value = struct.pack(f"{order}{len(value)}{_FORMATS[node.vr]}", *value)
        return header(node.tag, node.vr, len(value) if node.length is None else node.length, syntax) + value
    inner = node.content or syntax
    body = b""
    for each in node.items:
        content = each if isinstance(each, bytes) else b"".join(_encoded(one, inner) for one in each)
        if node.items_open and not isinstance(each, bytes):
            body += item(UNDEFINED, inner) + content + item(node.delimiter_length, inner, 0xFFFEE00D)
        else:
            body += item(len(content), inner) + content
    length = len(body) if node.length is None else node.length
    if not node.is_open:
        return header(node.tag, node.vr, length, syntax) + body
    return (
        header(node.tag, node.vr, UNDEFINED, syntax) + body + item(node.delimiter_length, inner, 0xFFFEE0DD)
    )


# What samples are made of

CLASS = El(0x00080016, b"UI", SECONDARY_CAPTURE.encode() + b"\0")
INSTANCE = El(0x00080018, b"UI", b"1.2.826.0.1.3680043.2.1125.7")
NAME = El(0x00100010, b"PN", b"Doe^Jane")
PATIENT = El(0x00100020, b"LO", b"4711")
STUDY = El(0x0020000D, b"UI", b"1.2.3.4\0")
HEAD: tuple[Node, ...] = (CLASS, INSTANCE)
IMAGE: tuple[Node, ...] = (
    El(0x00280002, b"US", (1,)),
    El(0x00280010, b"US", (2,)),
    El(0x00280011, b"US", (4,)),
    El(0x00280100, b"US", (16,)),
    El(0x00280103, b"US", (0,)),
)
PIXELS = El(0x7FE00010, b"OW", range(8))
USUAL: tuple[Node, ...] = (*HEAD, NAME, PATIENT, STUDY, *IMAGE, PIXELS)

TEXT_VRS = b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split()
NUMBER_VRS = b"AT FD FL OD OF OL OV OW SL SS SV UL US UV".split()
CODE = (El(0x00080100, b"SH", b"T-D1"), El(0x00080102, b"SH", b"SRT "), El(0x00080104, b"LO", b"Body"))
