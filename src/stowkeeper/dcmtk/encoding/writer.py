"""Write a received data set in the form that is asked for, as DCMTK would write it.

Two passes over the received bytes: the first reads the structure and works out all lengths, the second copies values,
big ones in pieces. Only the structure is in memory.
"""

import zlib
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

from stowkeeper.dcmtk.encoding.dictionary import Dictionary
from stowkeeper.dcmtk.encoding.form import Form
from stowkeeper.dcmtk.encoding.layout import Layout, known_syntax, layout_of
from stowkeeper.dcmtk.encoding.limits import COPY_BYTES
from stowkeeper.dcmtk.encoding.plan import DATA_SET_TRAILING_PADDING, GroupLength, Padding, Plan
from stowkeeper.dcmtk.encoding.reader import read_structure
from stowkeeper.dcmtk.encoding.source import Source, opened
from stowkeeper.dcmtk.encoding.structure import Kind
from stowkeeper.dcmtk.encoding.value_representations import UNSIGNED_LONG
from stowkeeper.dcmtk.encoding.values import pieces_of_value
from stowkeeper.dicom.byte_order import swap_numbers
from stowkeeper.dicom.elements import (
    ITEM_DELIMITATION,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
)

_UNSWAPPED: Final = frozenset((b"OB", b"UN"))
"""Values of these are little endian in every transfer syntax."""


def write_data_set(
    source: BinaryIO,
    transfer_syntax_uid: str,
    form: Form,
    target: BinaryIO,
    dictionary: Dictionary | None = None,
    folder: str | None = None,
) -> None:
    """Write the data set that stands in `source`, from its position on, at the position of `target`.

    `transfer_syntax_uid` is the one it was received in. With `form.with_meta`, what stands in `target` so far counts
    where the file is padded. Without a dictionary the shipped one is loaded when it is needed.

    Much inflated data goes into a temporary file in `folder`.

    Raises EncodingError, where DCMTK would find the data set malformed or not convertible; then `target` may have got
    a part of it. What reading and writing raise passes through.
    """
    syntax = known_syntax(transfer_syntax_uid)
    target_syntax = syntax if form.transfer_syntax is None else known_syntax(form.transfer_syntax)
    layout = layout_of(target_syntax)
    with opened(source, syntax, folder) as plain:
        received = Source(plain)
        structure = read_structure(received, syntax, form, dictionary)
        plan = Plan(structure, layout, form, in_front=target.tell() if form.with_meta else 0)
        if target_syntax.deflated:
            _write_deflated(received, plan, layout, form, target)
        else:
            _Writer(received, plan, layout, form, target.write).write()


def _write_deflated(source: Source, plan: Plan, layout: Layout, form: Form, target: BinaryIO) -> None:
    # A bare deflate stream without a zlib header (RFC 1951), not padded to an even length, as DCMTK leaves it.
    stream = zlib.compressobj(form.compression_level, wbits=-15)
    _Writer(source, plan, layout, form, lambda piece: target.write(stream.compress(piece))).write()
    target.write(stream.flush())


class _Writer:
    """The second pass."""

    def __init__(
        self, source: Source, plan: Plan, layout: Layout, form: Form, put: Callable[[bytes], object]
    ) -> None:
        self._source = source
        self._plan = plan
        self._structure = plan.structure
        self._layout = layout
        self._form = form
        self._put = put
        self._out = bytearray()

    def write(self) -> None:
        """Write all of the data set."""
        self._write_content(0)
        self._flush()

    def _write_content(self, level: int) -> None:
        for entry in self._plan.entries(level):
            if isinstance(entry, GroupLength):
                self._write_group_length(entry)
            elif isinstance(entry, Padding):
                self._add_header(DATA_SET_TRAILING_PADDING, b"OB", entry.length, is_long=True)
                self._add(bytes(entry.length))
            elif self._structure.kind[entry] == Kind.ELEMENT:
                self._write_element(entry)
            else:
                self._write_sequence(entry)

    def _write_group_length(self, entry: GroupLength) -> None:
        name, is_long = self._plan.vr_written(UNSIGNED_LONG, entry.length)
        self._add_header(entry.group << 16, name, entry.length, is_long=is_long)
        little_endian = self._layout.little_endian or name in _UNSWAPPED
        number = entry.value.to_bytes(4, "little" if little_endian else "big")
        if entry.received is None:
            self._add(number)
            return
        for piece in self._pieces_of_value(entry.received, name):
            self._add(number + piece[len(number) :])
            number = b""

    def _write_element(self, node: int) -> None:
        structure = self._structure
        written = structure.written[node]
        name, is_long = self._plan.vr_written(structure.vr(node), written)
        self._add_header(structure.tag[node], name, written, is_long=is_long)
        for piece in self._pieces_of_value(node, name):
            self._add(piece)

    def _pieces_of_value(self, node: int, name: bytes) -> Iterable[bytes]:
        """Give the value of an element as it is written with a VR."""
        structure = self._structure
        vr = structure.vr(node)
        is_pixels = structure.tag[node] == PIXEL_DATA
        little_endian = self._layout.pixels_little_endian if is_pixels else self._layout.little_endian
        swapped = bool(structure.big_endian[node]) is (little_endian or name in _UNSWAPPED)
        pieces = pieces_of_value(
            self._source,
            structure.start[node],
            structure.length[node],
            vr,
            structure.written[node],
            correct_input=self._form.correct_input,
        )
        if not swapped or vr.number_size == 1:
            return pieces
        return (swap_numbers(piece, vr.number_size) for piece in pieces)

    def _write_sequence(self, node: int) -> None:
        """Write a sequence with its items, or pixel data with its fragments."""
        structure = self._structure
        self._add_header(structure.tag[node], structure.vr(node).name, self._length(node), is_long=True)
        for item in structure.inside(node):
            if structure.kind[item] == Kind.FRAGMENT:
                self._write_fragment(item)
                continue
            self._add(self._layout.pack_item(0xFFFE, 0xE000, self._length(item)))
            self._write_content(item)
            if not self._plan.has_length(item):
                self._add_delimiter(ITEM_DELIMITATION)
        if not self._plan.has_length(node):
            self._add_delimiter(SEQUENCE_DELIMITATION)

    def _write_fragment(self, node: int) -> None:
        structure = self._structure
        length, written = structure.length[node], structure.written[node]
        self._add(self._layout.pack_item(0xFFFE, 0xE000, written))
        for piece in self._source.pieces(structure.start[node], length, COPY_BYTES):
            self._add(piece)
        self._add(bytes(written - length))

    def _length(self, node: int) -> int:
        return self._structure.written[node] if self._plan.has_length(node) else UNDEFINED_LENGTH

    def _add_delimiter(self, tag: int) -> None:
        self._add(self._layout.pack_item(tag >> 16, tag & 0xFFFF, 0))

    def _add_header(self, tag: int, name: bytes, length: int, *, is_long: bool) -> None:
        group, element = tag >> 16, tag & 0xFFFF
        if not self._layout.explicit:
            self._add(self._layout.pack_item(group, element, length))
        elif is_long:
            self._add(self._layout.pack_long(group, element, name, length))
        else:
            self._add(self._layout.pack_short(group, element, name, length))

    def _add(self, data: bytes) -> None:
        self._out += data
        if len(self._out) >= COPY_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._put(bytes(self._out))
            self._out.clear()
