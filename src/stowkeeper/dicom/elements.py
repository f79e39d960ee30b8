"""How data elements are laid out in a stream: tags, value representations, and the encodings (PS3.5 §7).

Walkers read a tag as one 32-bit number in the byte order of the stream, because that is the cheapest thing
to read. In a big endian stream it is the tag itself, ggggeeee; in a little endian one it comes out as
eeeegggg. Such a number is called *raw* here.
"""

import re
import struct
from collections.abc import Callable, Iterable
from typing import Final

Buffer = bytes | bytearray | memoryview
"""What a piece of a stream may come in, one byte per item."""

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_DELIMITATION: Final = 0xFFFEE00D
SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
PIXEL_DATA: Final = 0x7FE00010

# The most common ones first: PRIVATE_RUN tries them in this order.
_SHORT_VRS = b"SS SL DS FL LO US SH UL IS FD CS DA TM UI LT ST PN AT AS AE DT".split()

SHORT_VRS: Final = frozenset(_SHORT_VRS)
"""Value representations with a 16-bit length in explicit VR (PS3.5 Table 7.1-2)."""

LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations with two reserved bytes and a 32-bit length in explicit VR (PS3.5 Table 7.1-1).
Those of later editions, which this list does not know, are laid out like them (PS3.5 §7.1.2)."""

_FRAGMENT_VRS = b"OB OD OF OL OV OW".split()
_NEVER_UNDEFINED_VRS = b"SV UC UR UT UV".split()
_LETTERS = range(ord("A"), ord("Z") + 1)

PRIVATE_CREATORS: Final = tuple(
    group << 16 | 0x0010 for group in (*range(0x0009, 0x0100, 2), *range(0x2001, 0x2100, 2))
)
"""Where private elements usually begin: the first creator of the groups that vendors use (PS3.5 §7.8.1).
Walkers try PRIVATE_RUN there; private elements elsewhere are walked over like all others."""

_RUN_ELEMENTS_MAX = 1000
_RUN_VALUE_MAX = 128


def format_tag(tag: int) -> str:
    """Return a tag the way people write it, such as (0008,0018)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _compile_private_run() -> re.Pattern[bytes]:
    """Build the expression that matches a run of private elements in explicit VR little endian.

    An element is an odd group, three more bytes of tag, a VR with a 16-bit length, an even length up to
    _RUN_VALUE_MAX, and so many bytes. Common VRs and lengths stand first, since alternatives are tried in
    turn. The number of repetitions is bounded because each of them costs memory until the match is done.
    """
    odd = b"[" + b"".join(b"\\x%02x" % byte for byte in range(1, 256, 2)) + b"]"
    vr = b"(?:" + b"|".join(_SHORT_VRS) + b")"
    lengths = (2, 4, 8, 10, 0, 6, *range(12, _RUN_VALUE_MAX + 1, 2))
    value = b"(?:" + b"|".join(b"\\x%02x\\x00.{%d}" % (length, length) for length in lengths) + b")"
    return re.compile(b"(?s:%b...%b%b){0,%d}" % (odd, vr, value, _RUN_ELEMENTS_MAX))


PRIVATE_RUN: Final = _compile_private_run()
"""Matches private elements one after another, possibly none. Real headers have hundreds of them, and the
regular expression engine walks over them in a third of the time that our own loop takes."""


class Encoding:
    """One way to lay out data elements: explicit or implicit VR, in one byte order.

    The few there are stand below. Value representations are numbers here as well: their two bytes read as
    16 bits in the byte order of the stream.
    """

    __slots__ = (
        "delimiters",
        "explicit",
        "fragment_vrs",
        "known_vrs",
        "little_endian",
        "long_vrs",
        "never_undefined_vrs",
        "raw_item",
        "raw_item_delimitation",
        "raw_sequence_delimitation",
        "sequence_vr",
        "short_vrs",
        "unknown_vr",
        "unpack_header",
        "unpack_item",
        "unpack_length",
    )

    def __init__(self, *, explicit: bool, little_endian: bool) -> None:
        order = "<" if little_endian else ">"
        self.explicit: Final = explicit
        self.little_endian: Final = little_endian
        # Of an element in explicit VR: raw tag, VR, 16-bit length.
        self.unpack_header: Callable[[Buffer, int], tuple[int, ...]] = struct.Struct(
            order + "IHH"
        ).unpack_from
        # Of an element in implicit VR, an item or a delimiter: raw tag, 32-bit length.
        self.unpack_item: Callable[[Buffer, int], tuple[int, ...]] = struct.Struct(order + "II").unpack_from
        self.unpack_length: Callable[[Buffer, int], tuple[int, ...]] = struct.Struct(order + "I").unpack_from
        self.short_vrs: Final = self._codes(SHORT_VRS)
        self.known_vrs: Final = self._codes(SHORT_VRS | LONG_VRS)
        self.long_vrs: Final = self._codes(bytes((a, b)) for a in _LETTERS for b in _LETTERS) - self.short_vrs
        self.fragment_vrs: Final = self._codes(_FRAGMENT_VRS)
        self.never_undefined_vrs: Final = self._codes(_NEVER_UNDEFINED_VRS)
        (self.sequence_vr,) = self._codes((b"SQ",))
        (self.unknown_vr,) = self._codes((b"UN",))
        self.raw_item: Final = self.swap(ITEM)
        self.raw_item_delimitation: Final = self.swap(ITEM_DELIMITATION)
        self.raw_sequence_delimitation: Final = self.swap(SEQUENCE_DELIMITATION)
        # What stands between elements, in the form in which walkers are told what to look out for.
        self.delimiters: Final = dict.fromkeys(
            (self.raw_item, self.raw_item_delimitation, self.raw_sequence_delimitation), 0
        )

    def swap(self, tag: int) -> int:
        """Return the tag of a raw tag, or the raw tag of a tag; one is the other's way back."""
        return (tag & 0xFFFF) << 16 | tag >> 16 if self.little_endian else tag

    def _codes(self, vrs: Iterable[bytes]) -> frozenset[int]:
        return frozenset(int.from_bytes(vr, "little" if self.little_endian else "big") for vr in vrs)


EXPLICIT_LITTLE_ENDIAN: Final = Encoding(explicit=True, little_endian=True)
EXPLICIT_BIG_ENDIAN: Final = Encoding(explicit=True, little_endian=False)
IMPLICIT_LITTLE_ENDIAN: Final = Encoding(explicit=False, little_endian=True)
