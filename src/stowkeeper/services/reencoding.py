"""Another encoding of a data set, element by element: implicit or explicit VR, little or big endian (PS3.5 §7).

Values are passed on as they are, but for the byte order of those that consist of numbers, so nothing is lost that a
decoder would not understand: texts in any character set, numbers written wrongly, private elements. It streams: of a
data set no more than a piece is in memory.

What changes besides: sequences and items get undefined lengths; group lengths and Length to End, which would be
wrong, are left out (PS3.5 §7.2 has retired them); a value of odd length is padded.

Where VRs come from when the source has none: the dictionaries of pydicom, and what Pixel Representation and Bits
Allocated say (PS3.5 Annex A). An element that nobody knows becomes UN, whose value is in implicit VR little endian
whatever surrounds it (PS3.5 §6.2.2).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final

from stowkeeper.dicom.byte_order import NUMBER_SIZES, swap_numbers
from stowkeeper.dicom.elements import (
    ITEM,
    ITEM_DELIMITATION,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    format_tag,
)
from stowkeeper.dicom.limits import SEQUENCE_DEPTH_MAX
from stowkeeper.services.limits import CONVERSION_PIECE_BYTES, PRIVATE_CREATOR_LENGTH_MAX

BITS_ALLOCATED: Final = 0x00280100
PIXEL_REPRESENTATION: Final = 0x00280103
EXTENDED_OFFSET_TABLES: Final = frozenset({0x7FE00001, 0x7FE00002})
_LENGTH_TO_END: Final = 0x00080001
_FACTS: Final = frozenset({BITS_ALLOCATED, PIXEL_REPRESENTATION})

_SHORT_LENGTH_MAX: Final = 0xFFFE
_BLANK_PADDED: Final = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())


class ConversionError(Exception):
    """A data set cannot be converted; the text says why, without any value of it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How elements are laid out."""

    explicit: bool
    little_endian: bool

    @property
    def order(self) -> str:
        """The byte order as `struct` writes it."""
        return "<" if self.little_endian else ">"


_IMPLICIT: Final = Layout(explicit=False, little_endian=True)
_EXPLICIT: Final = Layout(explicit=True, little_endian=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativePixelData:
    """What takes the place of encapsulated pixel data.

    `elements` are those of the top level that describe it, by tag: VR and value in little endian. `length` is that of
    the value in bytes, `pieces` give it, in little endian words of the VR.
    """

    elements: dict[int, tuple[bytes, bytes]]
    vr: bytes
    length: int
    pieces: Iterator[bytes]


class _Level:
    """A data set or a sequence that we are in. `end` is where it ends in the source, None if a delimiter says so."""

    __slots__ = ("creators", "end", "facts", "is_sequence", "layout", "limit", "settles")

    def __init__(
        self,
        *,
        is_sequence: bool,
        layout: Layout,
        end: int | None,
        outer: "_Level | None" = None,
        settles: bool = False,
    ) -> None:
        self.is_sequence = is_sequence
        self.layout = layout
        self.end = end
        self.limit: int | None = end if end is not None or outer is None else outer.limit
        self.facts: dict[int, int] = {} if outer is None else outer.facts.copy()
        self.creators: dict[int, str] = {}
        self.settles = settles  # its items tell by themselves whether they have VRs


class Reencoding:
    """One data set on its way from one layout to another. Iterate over `pieces`, once."""

    def __init__(
        self, source: BinaryIO, layout: Layout, target: Layout, pixel_data: NativePixelData | None = None
    ) -> None:
        self._source = source
        self._target = target
        self._pixel_data = pixel_data
        self._inserted = sorted(pixel_data.elements) if pixel_data else []
        self._position = 0
        self._ahead = b""
        self._out = bytearray()
        self._levels = [_Level(is_sequence=False, layout=layout, end=None)]
        self._tag = 0

    def pieces(self) -> Iterator[bytes]:
        """Give the converted data set.

        Raises:
            ConversionError: the source does not parse.

        """
        while True:
            level = self._levels[-1]
            is_root = len(self._levels) == 1
            if self._is_at_end(level):
                if is_root:
                    break
                self._leave()
            elif level.is_sequence:
                self._take_item(level)
            else:
                yield from self._take_element(level, is_root=is_root)
            if len(self._out) >= CONVERSION_PIECE_BYTES:
                yield self._taken_out()
        self._insert_before(1 << 32)
        if self._out:
            yield self._taken_out()

    # Reading.

    def _is_at_end(self, level: _Level) -> bool:
        if level.end is not None:
            return self._position >= level.end
        return len(self._levels) == 1 and not self._peek(8).strip(b"\0")  # zeros are no element

    def _peek(self, count: int) -> bytes:
        if len(self._ahead) < count:
            self._ahead += self._source.read(count - len(self._ahead))
        return self._ahead[:count]

    def _read(self, count: int) -> bytes:
        data, self._ahead = self._ahead[:count], self._ahead[count:]
        if len(data) < count:
            data += self._source.read(count - len(data))
        self._position += len(data)
        if len(data) < count:
            raise ConversionError(f"the data set ends inside {format_tag(self._tag)}")
        return data

    def _take_item(self, sequence: _Level) -> None:
        """Read the header of an item, or the end of a sequence."""
        order = sequence.layout.order
        tag, length = self._unpack_item(order, self._read(8))
        if tag == SEQUENCE_DELIMITATION:
            if sequence.end is None:
                self._leave()
            return
        if tag != ITEM:
            raise ConversionError(
                f"{format_tag(tag)} stands where an item belongs, at byte {self._position - 8}"
            )
        layout = sequence.layout
        if sequence.settles or layout.explicit:
            layout = self._layout_of_item(layout, settles=sequence.settles)
        self._enter(is_sequence=False, layout=layout, length=length)
        self._put_item(ITEM, UNDEFINED_LENGTH)

    def _layout_of_item(self, layout: Layout, *, settles: bool) -> Layout:
        """Tell by its first element whether an item has VRs: not all senders keep to what surrounds it."""
        vr = self._peek(6)[4:]
        if settles and not layout.explicit:
            return _EXPLICIT if vr in SHORT_VRS or vr in LONG_VRS else layout
        is_delimiter = self._unpack_item(layout.order, self._peek(8).ljust(8, b"\0"))[0] == ITEM_DELIMITATION
        return layout if is_delimiter or _is_vr(vr) else _IMPLICIT

    def _take_element(self, level: _Level, *, is_root: bool) -> Iterator[bytes]:
        tag, vr, length = self._read_header(level)
        if tag in {ITEM, SEQUENCE_DELIMITATION} or (
            tag == ITEM_DELIMITATION and (is_root or level.end is not None)
        ):
            raise ConversionError(
                f"{format_tag(tag)} stands where an element belongs, at byte {self._position}"
            )
        if tag == ITEM_DELIMITATION:
            self._leave()
            return
        if length != UNDEFINED_LENGTH and level.limit is not None and self._position + length > level.limit:
            raise ConversionError(f"{format_tag(tag)} reaches beyond the item that it is in")
        replaced = self._pixel_data if is_root else None
        if replaced is not None:
            self._insert_before(tag)
        if (
            tag & 0xFFFF == 0
            or tag == _LENGTH_TO_END
            or (replaced is not None and (tag in replaced.elements or tag in EXTENDED_OFFSET_TABLES))
        ):
            self._skip(length)
        elif replaced is not None and tag == PIXEL_DATA:
            yield from self._replace_pixel_data(replaced)
        elif length == UNDEFINED_LENGTH or vr == b"SQ":
            self._take_sequence(level, tag, vr, length)
        else:
            yield from self._take_value(level, tag, vr, length)

    def _read_header(self, level: _Level) -> tuple[int, bytes, int]:
        order = level.layout.order
        header = self._read(8)
        tag, length = self._unpack_item(order, header)
        self._tag = tag
        if tag >> 16 == 0xFFFE:
            return tag, b"", length
        if not level.layout.explicit:
            return tag, b"SQ" if length == UNDEFINED_LENGTH else self._vr_of(level, tag, length), length
        vr = header[4:6]
        if not _is_vr(vr):
            raise ConversionError(f"the VR of {format_tag(tag)} is not two uppercase letters")
        if vr in SHORT_VRS:
            return tag, vr, struct.unpack(order + "H", header[6:])[0]
        return tag, vr, struct.unpack(order + "I", self._read(4))[0]

    @staticmethod
    def _unpack_item(order: str, header: bytes) -> tuple[int, int]:
        group, element, length = struct.unpack(order + "HHI", header)
        return group << 16 | element, length

    def _vr_of(self, level: _Level, tag: int, length: int) -> bytes:
        """Find the VR of an element that came without one."""
        if tag >> 16 & 1:
            vr = _private_vr(level.creators.get(tag >> 8, ""), tag)
        else:
            vr = _settled(tag, _public_vr(tag), length, level.facts)
        if vr == b"SQ" and length and self._peek(4) != struct.pack("<HH", ITEM >> 16, ITEM & 0xFFFF):
            return b"UN"
        return vr

    def _take_sequence(self, level: _Level, tag: int, vr: bytes, length: int) -> None:
        if vr not in {b"SQ", b"UN"}:
            raise ConversionError(
                f"{format_tag(tag)} has VR {vr.decode()} and no length, as only pixel fragments have"
            )
        layout = level.layout
        settles = vr == b"UN"
        if settles and self._peek(2) != b"\xff\xfe":
            layout = _IMPLICIT  # PS3.5 §6.2.2; some writers leave it in the order of what surrounds it
        self._put_header(tag, b"SQ", UNDEFINED_LENGTH)
        self._enter(is_sequence=True, layout=layout, length=length, settles=settles)

    def _take_value(self, level: _Level, tag: int, vr: bytes, length: int) -> Iterator[bytes]:
        """Pass a value on, in the byte order of the target."""
        if vr in SHORT_VRS and length > _SHORT_LENGTH_MAX and self._target.explicit:
            # Only UN has room for the length (PS3.5 §6.2.2). It is always little endian, and so is this value,
            # which can only have come without a VR.
            vr = b"UN"
        swapped = level.layout.little_endian != self._target.little_endian
        size = NUMBER_SIZES.get(vr, 1) if swapped else 1
        self._put_header(tag, vr, length + length % 2)
        left = length
        while left > CONVERSION_PIECE_BYTES:
            yield self._taken_out()
            yield swap_numbers(self._read(CONVERSION_PIECE_BYTES), size)
            left -= CONVERSION_PIECE_BYTES
        value = self._read(left)
        self._note(level, tag, length, value)
        self._out += swap_numbers(value, size)
        if length % 2:
            self._out += b" " if vr in _BLANK_PADDED else b"\0"

    def _note(self, level: _Level, tag: int, length: int, value: bytes) -> None:
        """Remember what tells the VRs of later elements."""
        if tag in _FACTS and length == 2:
            level.facts[tag] = struct.unpack(level.layout.order + "H", value)[0]
        elif (
            tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and length <= PRIVATE_CREATOR_LENGTH_MAX
        ):  # PS3.5 §7.8.1
            level.creators[tag >> 16 << 8 | tag & 0xFF] = value.strip(b" \0").decode("latin-1")

    def _skip(self, length: int) -> None:
        if length == UNDEFINED_LENGTH:
            raise ConversionError(f"{format_tag(self._tag)} has no length")
        while length:
            length -= len(self._read(min(length, CONVERSION_PIECE_BYTES)))

    # Levels and writing.

    def _enter(self, *, is_sequence: bool, layout: Layout, length: int, settles: bool = False) -> None:
        outer = self._levels[-1]
        if len(self._levels) > 2 * SEQUENCE_DEPTH_MAX:
            raise ConversionError(f"more than {SEQUENCE_DEPTH_MAX} sequences are inside one another")
        end = None if length == UNDEFINED_LENGTH else self._position + length
        if end is not None and outer.limit is not None and end > outer.limit:
            raise ConversionError(
                f"an item or sequence reaches beyond what it is in, at byte {self._position}"
            )
        self._levels.append(
            _Level(is_sequence=is_sequence, layout=layout, end=end, outer=outer, settles=settles)
        )

    def _leave(self) -> None:
        level = self._levels.pop()
        self._put_item(SEQUENCE_DELIMITATION if level.is_sequence else ITEM_DELIMITATION, 0)

    def _put_item(self, tag: int, length: int) -> None:
        self._out += struct.pack(self._target.order + "HHI", tag >> 16, tag & 0xFFFF, length)

    def _put_header(self, tag: int, vr: bytes, length: int) -> None:
        order, group, element = self._target.order, tag >> 16, tag & 0xFFFF
        if not self._target.explicit:
            self._out += struct.pack(order + "HHI", group, element, length)
        elif vr in SHORT_VRS:
            self._out += struct.pack(order + "HH2sH", group, element, vr, length)
        else:
            self._out += struct.pack(order + "HH2sxxI", group, element, vr, length)

    def _taken_out(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    # Pixel data that was encapsulated.

    def _insert_before(self, tag: int) -> None:
        while self._inserted and self._inserted[0] <= tag and self._pixel_data is not None:
            inserted = self._inserted.pop(0)
            vr, value = self._pixel_data.elements[inserted]
            self._put_header(inserted, vr, len(value))
            self._out += value if self._target.little_endian else swap_numbers(value, NUMBER_SIZES.get(vr, 1))

    def _replace_pixel_data(self, pixel_data: NativePixelData) -> Iterator[bytes]:
        self._put_header(PIXEL_DATA, pixel_data.vr, pixel_data.length + pixel_data.length % 2)
        size = 1 if self._target.little_endian else NUMBER_SIZES.get(pixel_data.vr, 1)
        left = pixel_data.length
        for piece in pixel_data.pieces:
            yield self._taken_out()
            yield swap_numbers(piece, size)
            left -= len(piece)
        if left:
            raise ConversionError("the decoder gave another number of pixels than the image has")
        self._out += b"\0" * (pixel_data.length % 2)
        while True:
            tag, length = self._unpack_item("<", self._read(8))
            if tag == SEQUENCE_DELIMITATION:
                return
            if tag != ITEM:
                raise ConversionError(f"{format_tag(tag)} stands where a pixel fragment belongs")
            self._skip(length)


def _is_vr(vr: bytes) -> bool:
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


@lru_cache(maxsize=4096)
def _public_vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415 - pydicom takes long to load, and few files need it

    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


@lru_cache(maxsize=4096)
def _private_vr(creator: str, tag: int) -> bytes:
    from pydicom.datadict import private_dictionary_VR  # noqa: PLC0415 - as above

    if 0x10 <= tag & 0xFFFF <= 0xFF:
        return b"LO"
    try:
        vr = str(private_dictionary_VR(tag, creator)) if creator else "UN"
    except KeyError:
        vr = "UN"
    return vr.encode("ascii") if len(vr) == 2 else b"UN"


def _settled(tag: int, vr: str, length: int, facts: dict[int, int]) -> bytes:
    """Decide between the VRs that the dictionary leaves open (PS3.5 Annex A, PS3.6 §6)."""
    if vr == "US or SS":
        return b"SS" if facts.get(PIXEL_REPRESENTATION) == 1 else b"US"
    if vr in {"US or OW", "US or SS or OW"}:
        return b"US" if length == 2 else b"OW"
    if vr == "OB or OW":
        is_bytes = tag == PIXEL_DATA and facts.get(BITS_ALLOCATED, 16) <= 8
        return b"OB" if is_bytes else b"OW"
    return vr.encode("ascii") if len(vr) == 2 else b"UN"
