"""The structure of a data set: where its elements, items and fragments are, without their values.

Nodes stand in columns, in the order of the data set, each before what is inside it. Node 0 is the data set itself.
That takes 31 bytes a node, where objects would take ten times as much.
"""

import enum
from array import array
from collections.abc import Iterable, Iterator

from stowkeeper.dcmtk.encoding.errors import NotWritableError
from stowkeeper.dcmtk.encoding.limits import NODES_MAX, SORTED_ELEMENTS_MAX
from stowkeeper.dcmtk.encoding.value_representations import VALUE_REPRESENTATIONS, ValueRepresentation


class Kind(enum.IntEnum):
    """What a node is."""

    ELEMENT = 0
    SEQUENCE = 1
    ITEM = 2
    """An item of a sequence, or the data set as a whole."""

    FRAGMENTED = 3
    """Encapsulated pixel data (PS3.5 §A.4)."""

    FRAGMENT = 4


class Structure:
    """The nodes of one data set, by their number."""

    __slots__ = ("_in_order", "big_endian", "end", "kind", "length", "start", "tag", "vr_code", "written")

    def __init__(self) -> None:
        self.tag = array("I")
        self.kind = bytearray()
        self.vr_code = bytearray()
        self.big_endian = bytearray()
        """1 where numbers in the value are big endian."""

        self.start = array("Q")
        """Offset of the value."""

        self.length = array("I")
        """Bytes of the value of an element or fragment as received."""

        self.written = array("Q")
        """Bytes of the value as written: of elements and fragments, padding included; of the others, their content
        without delimiters, known when `sizes` has been over it."""

        self.end = array("I")
        """The number of the first node behind it that is not inside it."""

        self._in_order: dict[int, list[int]] = {}
        self.add(Kind.ITEM, 0, VALUE_REPRESENTATIONS[0], 0, 0)

    def __len__(self) -> int:
        return len(self.tag)

    def add(self, kind: Kind, tag: int, vr: ValueRepresentation, start: int, length: int) -> int:
        """Add a node behind all others and return its number; raise EncodingError when there are too many."""
        number = len(self.tag)
        if number >= NODES_MAX:
            raise NotWritableError(f"the data set has more than {NODES_MAX} elements, items and fragments")
        self.tag.append(tag)
        self.kind.append(kind)
        self.vr_code.append(vr.code)
        self.big_endian.append(0)
        self.start.append(start)
        self.length.append(length)
        self.written.append(length)
        self.end.append(number + 1)
        return number

    def vr(self, node: int) -> ValueRepresentation:
        """Return the VR of an element."""
        return VALUE_REPRESENTATIONS[self.vr_code[node]]

    def close(self, node: int) -> None:
        """Let a node end behind the last one that was added."""
        self.end[node] = len(self.tag)

    def put_in_order(self, node: int) -> None:
        """Sort what is inside a data set or item by tag; of several with the same tag the first received stays.

        Raises EncodingError when there is too much to sort.
        """
        first: dict[int, int] = {}
        for child in self._received(node):
            first.setdefault(self.tag[child], child)
            if len(first) > SORTED_ELEMENTS_MAX:
                raise NotWritableError(
                    f"more than {SORTED_ELEMENTS_MAX} elements of a data set or item are not in order"
                )
        self._in_order[node] = [first[tag] for tag in sorted(first)]

    def inside(self, node: int) -> Iterable[int]:
        """Return the nodes directly inside another one, in the order in which they are written."""
        ordered = self._in_order.get(node)
        return self._received(node) if ordered is None else ordered

    def _received(self, node: int) -> Iterator[int]:
        child, end = node + 1, self.end[node]
        while child < end:
            yield child
            child = self.end[child]
