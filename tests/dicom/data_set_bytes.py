"""Data sets for the tests of this folder: built byte by byte, right ones and wrong ones, or bundled with pydicom."""

import struct
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest

from stowkeeper.dicom.attributes import WANTED
from stowkeeper.dicom.elements import LONG_VRS, UNDEFINED_LENGTH
from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD


@dataclass(frozen=True)
class Layout:
    """An encoding, seen from the writing side."""

    explicit: bool = True
    order: str = "<"

    def mark(self, tag, length=0):
        """Header of an item, a delimiter, or an element in implicit VR."""
        return struct.pack(self.order + "HHI", tag >> 16, tag & 0xFFFF, length)

    def header(self, tag, vr, length):
        if not self.explicit:
            return self.mark(tag, length)
        head = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF) + vr
        if vr in LONG_VRS:
            return head + struct.pack(self.order + "HI", 0, length)
        return head + struct.pack(self.order + "H", length)

    def element(self, tag, vr, value=b""):
        return self.header(tag, vr, len(value)) + value

    def sequence(self, tag, *items, undefined=True, items_undefined=True, vr=b"SQ"):
        body = b"".join(
            self.mark(ITEM, UNDEFINED_LENGTH) + item + self.mark(ITEM_END)
            if items_undefined
            else self.mark(ITEM, len(item)) + item
            for item in items
        )
        if not undefined:
            return self.header(tag, vr, len(body)) + body
        return self.header(tag, vr, UNDEFINED_LENGTH) + body + self.mark(SEQUENCE_END)

    def fragments(self, tag, *fragments, vr=b"OB"):
        body = b"".join(self.mark(ITEM, len(fragment)) + fragment for fragment in fragments)
        return self.header(tag, vr, UNDEFINED_LENGTH) + body + self.mark(SEQUENCE_END)


ELE = Layout()
EBE = Layout(order=">")
ILE = Layout(explicit=False)


@dataclass(frozen=True)
class Element:
    """An element of a generated data set; `items` makes it a sequence, `fragments` encapsulated pixel data."""

    tag: int
    vr: bytes
    value: bytes = b""
    items: tuple = field(default=())
    fragments: tuple = field(default=())
    undefined: bool = True
    items_undefined: bool = True

    def encode(self, layout):
        if self.fragments:
            return layout.fragments(self.tag, *self.fragments)
        if self.vr != b"SQ":
            return layout.element(self.tag, self.vr, self.value)
        items = (b"".join(element.encode(layout) for element in item) for item in self.items)
        return layout.sequence(
            self.tag, *items, undefined=self.undefined, items_undefined=self.items_undefined
        )


BUNDLED = Path(pydicom.__file__).parent / "data"
SYNTAX_OF = {
    ELE: EXPLICIT_VR_LITTLE_ENDIAN,
    EBE: EXPLICIT_VR_BIG_ENDIAN,
    ILE: IMPLICIT_VR_LITTLE_ENDIAN,
}
LAYOUTS = pytest.mark.parametrize("layout", [ELE, EBE, ILE], ids=["ELE", "EBE", "ILE"])

PATIENT_NAME = 0x00100010
PATIENT_ID = 0x00100020
STUDY_ID = 0x00200010
PIXELS = 0x7FE00010

HEAD = ELE.element(0x00080018, b"UI", b"1.2.3.4\0")
"""An element of 16 bytes."""

TREE = b"".join(
    [
        ELE.element(0x00080000, b"UL", struct.pack("<I", 100)),
        ELE.element(0x00080018, b"UI", b"1.2.3.4\0"),
        ELE.sequence(
            0x00081140,
            ELE.element(0x00081150, b"UI", b"1.2\0")
            + ELE.sequence(0x00081199, ELE.element(0x00081155, b"UI", b"1.23")),
            b"",
        ),
        ELE.sequence(
            0x00082112, ELE.element(0x00081150, b"UI", b"1.2\0"), undefined=False, items_undefined=False
        ),
        ELE.element(0x00090010, b"LO", b"ACME 1.1"),
        ELE.element(0x00091001, b"SS", b"\1\0"),
        ELE.element(0x00091002, b"UN", bytes(40)),
        ELE.sequence(
            0x00091003, ILE.element(0x00081150, b"UI", b"1.2\0"), ILE.sequence(0x00081199, b""), vr=b"UN"
        ),
        ELE.element(PATIENT_NAME, b"PN", b"Doe^Jane"),
        ELE.element(PATIENT_ID, b"LO", b"4711 "),
        ELE.element(0x00104000, b"LT", b"x" * 300),
        ELE.fragments(PIXELS, b"", bytes(20), bytes(31)),
        ELE.element(0xFFFCFFFC, b"OB", bytes(6)),
    ]
)


def bundled_files():
    for path in sorted(BUNDLED.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    yield path


def scan(data, syntax=EXPLICIT_VR_LITTLE_ENDIAN, *, wanted=WANTED, cuts=(), **options):
    """Scan `data` cut at `cuts`; its pieces are released at once, as a receive buffer would be."""
    scanner = HeaderScanner(syntax, wanted, **options)
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        piece = bytearray(data[start:end])
        scanner.feed(memoryview(piece))
        piece.clear()  # raises BufferError if the scanner still holds a view
    return scanner.finish()


def deflate(data, level=9):
    stream = zlib.compressobj(level, wbits=-15)
    return stream.compress(data) + stream.flush()
