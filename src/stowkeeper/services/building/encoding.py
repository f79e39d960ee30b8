"""The data set of a built instance in explicit VR little endian, piece by piece (PS3.5 §7).

Sequences and items have undefined lengths, so that nothing has to be counted before it is written.
"""

import struct
from collections.abc import Iterator
from typing import Final

from stowkeeper.dicom.elements import (
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    UNDEFINED_LENGTH,
)
from stowkeeper.services.building.limits import ENCODED_PIECE_BYTES
from stowkeeper.services.building.sources import Encapsulated, InParts, Sourced, SourcedDataSet, Span

_SHORT_LENGTH_MAX: Final = 0xFFFE
_BLANK_PADDED: Final = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())
_pack_short: Final = struct.Struct("<HH2sH").pack
_pack_long: Final = struct.Struct("<HH2sxxI").pack
_pack_item: Final = struct.Struct("<HHI").pack


def encode_data_set(elements: SourcedDataSet) -> Iterator[bytes]:
    """Give the encoded data set.

    Raises:
        OSError: bulk data cannot be read.

    """
    out = bytearray()
    for piece in _elements(elements):
        out += piece
        if len(out) >= ENCODED_PIECE_BYTES:
            yield bytes(out)
            out.clear()
    if out:
        yield bytes(out)


def _elements(elements: SourcedDataSet) -> Iterator[bytes]:
    for tag, element in elements.items():
        value = element.value
        if isinstance(value, bytes):
            yield _whole(tag, element.vr, value)
        elif isinstance(value, InParts):
            yield _header(tag, element.vr, value.length + value.length % 2)
            for span in value.spans:
                yield from span.pieces()
            if value.length % 2:
                yield _padding(element.vr)
        elif isinstance(value, Encapsulated):
            yield _header(tag, element.vr, UNDEFINED_LENGTH)
            yield _item(ITEM, len(value.offsets)) + value.offsets
            for fragment in value.fragments:
                yield from _fragment(fragment)
            yield _item(SEQUENCE_DELIMITATION, 0)
        else:
            yield from _sequence(tag, element)


def _sequence(tag: int, element: Sourced) -> Iterator[bytes]:
    items = element.value
    if not isinstance(items, tuple) or not items:
        yield _header(tag, b"SQ", 0)
        return
    yield _header(tag, b"SQ", UNDEFINED_LENGTH)
    for item in items:
        yield _item(ITEM, UNDEFINED_LENGTH)
        yield from _elements(item)
        yield _item(ITEM_DELIMITATION, 0)
    yield _item(SEQUENCE_DELIMITATION, 0)


def _fragment(fragment: Span) -> Iterator[bytes]:
    yield _item(ITEM, fragment.length + fragment.length % 2)
    yield from fragment.pieces()
    yield b"\0" * (fragment.length % 2)


def _whole(tag: int, vr: bytes, value: bytes) -> bytes:
    padded = value + _padding(vr) if len(value) % 2 else value
    return _header(tag, vr, len(padded)) + padded


def _padding(vr: bytes) -> bytes:
    return b" " if vr in _BLANK_PADDED else b"\0"


def _header(tag: int, vr: bytes, length: int) -> bytes:
    if vr in SHORT_VRS and length > _SHORT_LENGTH_MAX:
        vr = b"UN"  # it alone has room for the length (PS3.5 §6.2.2)
    if vr in SHORT_VRS:
        return _pack_short(tag >> 16, tag & 0xFFFF, vr, length)
    return _pack_long(tag >> 16, tag & 0xFFFF, vr, length)


def _item(tag: int, length: int) -> bytes:
    return _pack_item(tag >> 16, tag & 0xFFFF, length)
