"""Read the structure of a data set as DCMTK's parser sees it.

It is lenient in its own way. What lies where is told by positions alone: an item that is longer than its sequence says
is read to its end, and so is a sequence that is longer than its item. Delimiters end what has a length too, and so does
the end of the data set where the sequence around is then complete. An element in an item with a length must not reach
beyond it. A value whose length nobody knows is an error, unless its VR is unknown, since then it is taken for a sequence
(PS3.5 §6.2.2, CP-246).

Unlike DCMTK's, this parser refuses a data set that was cut inside a sequence or a value, or that goes on behind an item
delimiter on its top level, or ends inside the header of an element. DCMTK accepts some of these and writes less than it
received. Up to eleven zeros behind the last element are padding, and left out here as there.
"""

import struct

from stowkeeper.dcmtk.encoding.dictionary import Dictionary, shipped_dictionary
from stowkeeper.dcmtk.encoding.errors import EmptyDataSetError, EncodingError, NotWritableError
from stowkeeper.dcmtk.encoding.form import Form
from stowkeeper.dcmtk.encoding.layout import IMPLICIT, Layout, layout_of
from stowkeeper.dcmtk.encoding.limits import PRIVATE_CREATOR_BYTES_MAX
from stowkeeper.dcmtk.encoding.source import Source
from stowkeeper.dcmtk.encoding.structure import Kind, Structure
from stowkeeper.dcmtk.encoding.value_representations import (
    AMBIGUOUS_BYTES,
    NO_VR,
    OTHER_BYTE,
    OTHER_WORD,
    PIXELS,
    SEQUENCE,
    UNKNOWN,
    UNKNOWNS,
    UNREGISTERED,
    UNSIGNED_SHORT,
    Content,
    ValueRepresentation,
    vr_of_name,
)
from stowkeeper.dcmtk.encoding.values import written_length
from stowkeeper.dcmtk.encoding.vr_choice import (
    Facts,
    is_overlay_data,
    is_private_creator,
    note_creator,
    private_block,
    settled,
)
from stowkeeper.dicom.elements import (
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    format_tag,
)
from stowkeeper.dicom.limits import SEQUENCE_DEPTH_MAX
from stowkeeper.dicom.transfer_syntaxes import TransferSyntax

_ITEM_TAGS = frozenset((ITEM, ITEM_DELIMITATION, SEQUENCE_DELIMITATION))
_VOI_LUT_SEQUENCE = 0x00283010
_UNPACK_TAG = {True: struct.Struct("<HH").unpack_from, False: struct.Struct(">HH").unpack_from}
_UNPACK_SHORT = {True: struct.Struct("<H").unpack_from, False: struct.Struct(">H").unpack_from}
_UNPACK_LONG = {True: struct.Struct("<I").unpack_from, False: struct.Struct(">I").unpack_from}


class _Level:
    """What the reader is inside of: a data set, an item, a sequence or pixel fragments."""

    __slots__ = ("end", "facts", "highest_tag", "in_order", "kind", "layout", "node")

    def __init__(self, node: int, kind: Kind, layout: Layout, end: int | None) -> None:
        self.node = node
        self.kind = kind
        self.layout = layout
        self.end = end
        """Where it ends, when it has a length."""

        self.highest_tag = -1
        self.in_order = True
        self.facts = Facts()


def read_structure(
    source: Source, syntax: TransferSyntax, form: Form, dictionary: Dictionary | None = None
) -> Structure:
    """Read the structure of a data set; without a dictionary the shipped one is loaded when it is needed.

    Raises EncodingError where DCMTK's parser finds an error, for a data set without elements, and where fragments of
    pixel data would have to be decoded.
    """
    return _Reader(source, syntax, form, dictionary).read()


class _Reader:
    def __init__(
        self, source: Source, syntax: TransferSyntax, form: Form, dictionary: Dictionary | None
    ) -> None:
        self._source = source
        self._syntax = syntax
        self._layout = layout_of(syntax)
        self._form = form
        self._dictionary = dictionary
        self._structure = Structure()
        self._levels = [_Level(0, Kind.ITEM, self._layout, None)]
        self._position = 0

    def read(self) -> Structure:
        levels = self._levels
        source = self._source
        while True:
            level = levels[-1]
            is_root = len(levels) == 1
            if level.end is not None and self._position >= level.end:
                self._leave()
            elif is_root and self._position >= source.size:
                break
            elif level.kind is Kind.ITEM and self._position >= source.size:
                self._leave()  # whether that was right the sequence around it tells
            elif level.kind is Kind.ITEM:
                if not self._read_element(level, is_root=is_root):
                    break
            else:
                self._read_item(level)
        self._leave()
        if len(self._structure) == 1:
            raise EmptyDataSetError("the data set holds no elements")
        return self._structure

    # Elements

    def _read_element(self, level: _Level, *, is_root: bool) -> bool:
        """Read one element; return False when the data set has ended."""
        offset = self._position
        header = self._read_header(level)
        if header is None:
            if is_root:
                self._check_is_padding(offset)
                return False
            raise EncodingError(
                f"the data set ends at {self._source.size} inside an item of the sequence "
                f"{format_tag(self._structure.tag[self._levels[-2].node])}"
            )
        tag, vr, length = header
        start = self._position
        if level.end is not None and length != UNDEFINED_LENGTH and start <= level.end < start + length:
            raise EncodingError(
                f"{format_tag(tag)} at offset {offset} has {length} bytes, its item has {level.end - start} left"
            )
        if vr is NO_VR:
            return self._take_delimiter(tag, offset, is_root=is_root)
        if tag <= level.highest_tag:
            level.in_order = False
        else:
            level.highest_tag = tag
        layout = level.layout
        if vr is UNKNOWN and length != UNDEFINED_LENGTH and self._form.convert_un:
            known = self._vr_in_dictionary(level, tag)
            if known is not UNREGISTERED:
                vr, layout = known, IMPLICIT
        self._take_element(level, tag, vr, length, layout, offset)
        return True

    def _check_is_padding(self, offset: int) -> None:
        """Refuse an element that was cut in its header; zeros are no element."""
        if any(self._source.read(offset, self._source.size - offset)):
            raise EncodingError(
                f"the data set ends at {self._source.size} inside the header of an element at offset {offset}"
            )

    def _read_header(self, level: _Level) -> tuple[int, ValueRepresentation, int] | None:
        """Read tag, VR and length of an element; None when it is not all there."""
        source = self._source
        little_endian = level.layout.little_endian
        place = source.find(self._position, 8)
        if place < 0:
            return None
        data = source.data
        group, element = _UNPACK_TAG[little_endian](data, place)
        tag = group << 16 | element
        if tag in _ITEM_TAGS:
            (length,) = _UNPACK_LONG[little_endian](data, place + 4)
            self._position += 8
            return tag, NO_VR, length
        if not level.layout.explicit:
            (length,) = _UNPACK_LONG[little_endian](data, place + 4)
            vr = settled(tag, self._vr_in_dictionary(level, tag), level.facts)
            self._position += 8
            return tag, vr, length
        name = data[place + 4 : place + 6]
        vr = OTHER_WORD if tag == PIXEL_DATA and name == b"OX" else vr_of_name(name)
        if not vr.is_long:
            (length,) = _UNPACK_SHORT[little_endian](data, place + 6)
            self._position += 8
            return tag, vr, length
        place = source.find(self._position, 12)
        if place < 0:
            return None
        (length,) = _UNPACK_LONG[little_endian](source.data, place + 8)
        self._position += 12
        return tag, vr, length

    def _vr_in_dictionary(self, level: _Level, tag: int) -> ValueRepresentation:
        if self._dictionary is None:
            self._dictionary = shipped_dictionary()
        creator = level.facts.creators.get(private_block(tag), "") if tag >> 16 & 1 else ""
        return self._dictionary.vr_of(tag, creator)

    def _take_delimiter(self, tag: int, offset: int, *, is_root: bool) -> bool:
        if tag != ITEM_DELIMITATION:
            raise EncodingError(f"{format_tag(tag)} at offset {offset} stands where an element should")
        if not is_root:
            self._leave()
            return True
        if self._position < self._source.size:
            raise EncodingError(
                f"{format_tag(tag)} at offset {offset} ends the data set, {self._source.size} bytes were received"
            )
        return False

    def _take_element(
        self, level: _Level, tag: int, vr: ValueRepresentation, length: int, layout: Layout, offset: int
    ) -> None:
        """Add an element, or enter what is inside it."""
        start = self._position
        is_undefined = length == UNDEFINED_LENGTH
        if vr.content is Content.ITEMS or (is_undefined and vr in UNKNOWNS):
            if is_undefined and vr in UNKNOWNS:
                layout = IMPLICIT
            self._enter(Kind.SEQUENCE, tag, SEQUENCE, length, layout)
            return
        if tag == PIXEL_DATA and not is_undefined and self._syntax.encapsulated and len(self._levels) == 1:
            raise NotWritableError(
                f"{format_tag(tag)} at offset {offset} is not encapsulated, as {self._syntax.name} asks for"
            )
        is_pixels = vr is PIXELS or (
            vr in (OTHER_BYTE, OTHER_WORD, AMBIGUOUS_BYTES)
            and (tag == PIXEL_DATA or (is_undefined and self._is_private_pixels(level, tag)))
        )
        if is_undefined and is_pixels:
            self._check_fragments(tag, layout, offset)
            self._enter(Kind.FRAGMENTED, tag, OTHER_BYTE, length, layout)
            return
        if is_undefined or not vr.written_as:
            raise EncodingError(
                f"{format_tag(tag)} at offset {offset} has VR {_shown(vr)}, which allows no undefined length"
                if is_undefined
                else f"{format_tag(tag)} at offset {offset} has VR {_shown(vr)}, which no element has"
            )
        if tag == _VOI_LUT_SEQUENCE and vr in (OTHER_BYTE, OTHER_WORD):
            raise EncodingError(
                f"{format_tag(tag)} at offset {offset} is a sequence, but has VR {_shown(vr)}"
            )
        if start + length > self._source.size:
            raise EncodingError(
                f"the data set ends at {self._source.size}, {start + length - self._source.size} bytes before the "
                f"end of the value of {format_tag(tag)} at offset {start}"
            )
        if vr in (AMBIGUOUS_BYTES, PIXELS) and (is_pixels or is_overlay_data(tag)):
            vr = OTHER_WORD
        self._add_element(level, tag, vr, length, layout)

    def _check_fragments(self, tag: int, layout: Layout, offset: int) -> None:
        """Refuse fragments that cannot be written as they are: nothing is decoded here."""
        target = self._form.transfer_syntax
        if not self._syntax.encapsulated or layout is not self._layout:
            raise NotWritableError(
                f"{format_tag(tag)} at offset {offset} is encapsulated, which its transfer syntax does not allow"
            )
        if target is not None and target != self._syntax.uid:
            raise NotWritableError(
                f"{format_tag(tag)} at offset {offset} is compressed: pixel data in {self._syntax.name} is not "
                "decoded, so the data set cannot be written in another transfer syntax"
            )

    def _is_private_pixels(self, level: _Level, tag: int) -> bool:
        return bool(tag >> 16 & 1) and self._vr_in_dictionary(level, tag) is PIXELS

    def _add_element(
        self, level: _Level, tag: int, vr: ValueRepresentation, length: int, layout: Layout
    ) -> None:
        start = self._position
        structure = self._structure
        node = structure.add(Kind.ELEMENT, tag, vr, start, length)
        little_endian = layout.pixels_little_endian if tag == PIXEL_DATA else layout.little_endian
        structure.big_endian[node] = not little_endian
        structure.written[node] = written_length(
            self._source, start, length, vr, correct_input=self._form.correct_input
        )
        self._position = start + length
        self._note(level, tag, vr, start, length)

    def _note(self, level: _Level, tag: int, vr: ValueRepresentation, start: int, length: int) -> None:
        """Remember what tells the VRs of later elements."""
        if level.facts.wants_number(tag) and vr is UNSIGNED_SHORT and length >= 2:
            (number,) = _UNPACK_SHORT[level.layout.little_endian](self._source.read(start, 2))
            level.facts.note_number(tag, number)
        elif (
            tag == level.highest_tag  # one that comes out of order is not recognised
            and is_private_creator(tag)
            and vr.content in (Content.TEXT, Content.UID)
        ):
            value = self._source.read(start, min(length, PRIVATE_CREATOR_BYTES_MAX + 1))
            note_creator(level.facts.creators, tag, value, correct_input=self._form.correct_input)

    # Sequences and fragments

    def _enter(self, kind: Kind, tag: int, vr: ValueRepresentation, length: int, layout: Layout) -> None:
        depth = sum(level.kind is not Kind.ITEM for level in self._levels)
        if depth >= SEQUENCE_DEPTH_MAX:
            raise NotWritableError(
                f"sequences are nested deeper than {SEQUENCE_DEPTH_MAX} at {format_tag(tag)} "
                f"before offset {self._position}"
            )
        node = self._structure.add(kind, tag, vr, self._position, length)
        self._push(node, kind, layout, length)

    def _read_item(self, sequence: _Level) -> None:
        """Read the header of an item or fragment, or the end of the sequence."""
        source = self._source
        structure = self._structure
        offset = self._position
        place = source.find(offset, 8)
        if place < 0:
            raise EncodingError(
                f"the data set ends at {source.size} inside the sequence {format_tag(structure.tag[sequence.node])} "
                f"at offset {structure.start[sequence.node]}"
            )
        little_endian = sequence.layout.little_endian
        group, element = _UNPACK_TAG[little_endian](source.data, place)
        (length,) = _UNPACK_LONG[little_endian](source.data, place + 4)
        tag = group << 16 | element
        self._position += 8
        if tag == SEQUENCE_DELIMITATION:
            self._leave()
        elif tag != ITEM:
            raise EncodingError(
                f"{format_tag(tag)} at offset {offset} stands where an item or the delimiter of the sequence "
                f"{format_tag(structure.tag[sequence.node])} should"
            )
        elif sequence.kind is Kind.SEQUENCE:
            node = structure.add(Kind.ITEM, tag, NO_VR, self._position, length)
            self._push(node, Kind.ITEM, sequence.layout, length)
        else:
            self._take_fragment(length, offset)

    def _take_fragment(self, length: int, offset: int) -> None:
        if length == UNDEFINED_LENGTH or self._position + length > self._source.size:
            raise EncodingError(
                f"the pixel fragment at offset {offset} has no length, or is longer than what was received"
            )
        node = self._structure.add(Kind.FRAGMENT, ITEM, NO_VR, self._position, length)
        self._structure.written[node] = length + (length & 1)
        self._position += length

    def _push(self, node: int, kind: Kind, layout: Layout, length: int) -> None:
        end = None if length == UNDEFINED_LENGTH else self._position + length
        self._levels.append(_Level(node, kind, layout, end))

    def _leave(self) -> None:
        level = self._levels.pop()
        self._structure.close(level.node)
        if not level.in_order:
            self._structure.put_in_order(level.node)


def _shown(vr: ValueRepresentation) -> str:
    return (vr.name or b"unknown").decode("ascii")
