"""Plan what is written: which elements, how long, with which group lengths and padding.

Lengths are worked out from the innermost items outwards, once. What is added besides the elements that were received,
group lengths and padding, is not kept in memory but worked out again when it is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from stowkeeper.dcmtk.encoding.form import KEEP, Form, GroupLengths
from stowkeeper.dcmtk.encoding.layout import Layout
from stowkeeper.dcmtk.encoding.structure import Kind, Structure
from stowkeeper.dcmtk.encoding.value_representations import UNSIGNED_LONG, Content, ValueRepresentation
from stowkeeper.dicom.elements import LONG_VRS

DATA_SET_TRAILING_PADDING: Final = 0xFFFCFFFC
_PADDING_GROUP: Final = DATA_SET_TRAILING_PADDING >> 16
LENGTH_MAX: Final = 0xFFFFFFFE
"""The longest value, sequence or item that has a length (PS3.5 §7.1)."""

_SHORT_LENGTH_MAX: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class GroupLength:
    """A group length to write; with `received`, into the first number of that element."""

    group: int
    value: int
    received: int | None
    length: int = 4


@dataclass(frozen=True, slots=True)
class Padding:
    """Data Set Trailing Padding to write, so many zeros."""

    length: int


Entry = int | GroupLength | Padding
"""Something to write into a data set or item; a number is that of a node, to be written as it was received."""


class Plan:
    """What is written of a structure in a form.

    `in_front` is how many bytes the file has before the data set; they count where it is padded.
    """

    def __init__(self, structure: Structure, target: Layout, form: Form, *, in_front: int) -> None:
        self.structure = structure
        self._target = target
        self._form = form
        self._in_front = in_front
        pads = form.padding if isinstance(form.padding, tuple) else (0, 0)
        # Nothing is padded to an odd length: asked for one, DCMTK leaves padding and group lengths as they are.
        self._is_idle = any(pad % 2 for pad in pads)
        self._file_pad, self._item_pad = pads
        self._paddings: dict[int, int] = {}
        self._measure(0)

    # Lengths

    def total(self, node: int) -> int:
        """Return the bytes of an element, sequence or fragment, header and delimiter included."""
        kind = self.structure.kind[node]
        written = self.structure.written[node]
        if kind == Kind.FRAGMENT:
            return 8 + self._counted(node, written)
        if kind == Kind.ELEMENT:
            vr = self.structure.vr(node)
            counted = self._counted(node, written) if vr.content is Content.BYTES else written
            return self.header_length(is_long=self.vr_written(vr, written)[1]) + counted
        delimiter = 0 if self.has_length(node) else 8
        return (8 if kind == Kind.ITEM else self.header_length(is_long=True)) + written + delimiter

    def _counted(self, node: int, written: int) -> int:
        """Return the length of bytes as group lengths count it.

        Where input is not corrected DCMTK adds the byte that an odd length lacks too late for them. Lengths of
        sequences must count it; `dcmrecv` writes none.
        """
        counts_received = not (self._form.correct_input or self._form.explicit_lengths)
        return self.structure.length[node] if counts_received else written

    def header_length(self, *, is_long: bool) -> int:
        """Return the bytes of an element's header."""
        return 12 if is_long and self._target.explicit else 8

    def has_length(self, node: int) -> bool:
        """Tell whether a sequence or item is written with a length; one that is too long for it never is."""
        return (
            self._form.explicit_lengths
            and self.structure.kind[node] != Kind.FRAGMENTED
            and self.structure.written[node] <= LENGTH_MAX
        )

    def vr_written(self, vr: ValueRepresentation, length: int) -> tuple[bytes, bool]:
        """Return the VR to write for a value of so many bytes, and whether its header is a long one.

        UN takes a value that is too long for its VR (PS3.5 §6.2.2); OB does where VRs as new as UN are not wanted.
        """
        name = vr.written_as
        is_long = name in LONG_VRS
        if length > _SHORT_LENGTH_MAX and not is_long and self._target.explicit:
            name, is_long = b"UN", True
        if not self._form.new_vr and (vr.is_new or name == b"UN"):
            name, is_long = b"OB", True
        return name, is_long

    # What a data set or item holds

    def entries(self, level: int) -> Iterator[Entry]:
        """Give what is written into a data set or item, in order."""
        tags = self.structure.tag
        children = (node for node in self.structure.inside(level) if self._stays(tags[node]))
        padding = self._paddings.get(level)
        if padding is None:
            yield from self._with_group_lengths(children, 0)
            return
        element = Padding(padding)
        size = self.header_length(is_long=True) + padding
        is_due = True
        for entry in self._with_group_lengths(children, size):
            if is_due and self._tag_of(entry) > DATA_SET_TRAILING_PADDING:
                yield element
                is_due = False
            yield entry
        if is_due:
            yield element

    def _tag_of(self, entry: Entry) -> int:
        if isinstance(entry, int):
            return self.structure.tag[entry]
        return entry.group << 16 if isinstance(entry, GroupLength) else DATA_SET_TRAILING_PADDING

    def _stays(self, tag: int) -> bool:
        if self._is_idle:
            return True
        if not tag & 0xFFFF and self._form.group_length is not GroupLengths.RECALCULATE:
            return False
        return tag != DATA_SET_TRAILING_PADDING or self._form.padding is KEEP

    def _with_group_lengths(self, children: Iterator[int], padding: int) -> Iterator[Entry]:
        """Give elements with the group lengths that they get; `padding` counts into the group of padding."""
        if self._is_idle or self._form.group_length is GroupLengths.REMOVE:
            yield from children
            return
        tags = self.structure.tag
        groups = ((group, list(nodes)) for group, nodes in groupby(children, lambda node: tags[node] >> 16))
        following = next(groups, None)
        while following is not None:
            group, nodes = following
            following = next(groups, None)
            received = None if tags[nodes[0]] & 0xFFFF else nodes[0]
            rest = nodes if received is None else nodes[1:]
            if received is not None or self._form.group_length is GroupLengths.CREATE:
                value = sum(map(self.total, rest)) + (padding if group == _PADDING_GROUP else 0)
                if value <= LENGTH_MAX:
                    yield self._group_length(group, value, received, is_last=following is None)
            yield from rest

    def _group_length(self, group: int, value: int, received: int | None, *, is_last: bool) -> Entry:
        """Return a group length with its value.

        Into one that it received DCMTK writes the value anew, except in the last group of an item: there it changes
        the first of the numbers that it finds, if they are whole numbers.
        """
        if received is None or not is_last or self.structure.vr(received) is not UNSIGNED_LONG:
            return GroupLength(group, value, None)
        length = self.structure.written[received]
        if length % 4:
            return received
        return GroupLength(group, value, received, length) if length else GroupLength(group, value, None)

    def size(self, entry: Entry) -> int:
        """Return the bytes of something that is written, its header included."""
        if isinstance(entry, int):
            return self.total(entry)
        if isinstance(entry, GroupLength):
            return self.header_length(is_long=self.vr_written(UNSIGNED_LONG, entry.length)[1]) + entry.length
        return self.header_length(is_long=True) + entry.length

    # The first pass

    def _measure(self, level: int) -> None:
        """Work out the lengths of a data set or item and of everything inside it."""
        structure = self.structure
        for node in structure.inside(level):
            kind = structure.kind[node]
            if kind == Kind.SEQUENCE:
                for item in structure.inside(node):
                    self._measure(item)
            if kind in (Kind.SEQUENCE, Kind.FRAGMENTED):
                structure.written[node] = sum(map(self.total, structure.inside(node)))
        content = sum(map(self.size, self.entries(level)))
        unit = self._file_pad if level == 0 else self._item_pad
        has_elements = structure.end[level] > level + 1
        if unit and not self._is_idle and has_elements:
            content += self._pad(level, content + (self._in_front if level == 0 else 0), unit)
        structure.written[level] = content

    def _pad(self, level: int, length: int, unit: int) -> int:
        """Settle the padding that brings a length to a multiple of a unit; return the bytes that it takes."""
        missing = -length % unit
        if not missing:
            return 0
        header = self.header_length(is_long=True)
        while missing < header:
            missing += unit
        value = missing - header
        self._paddings[level] = value + (value & 1)
        return header + self._paddings[level]
