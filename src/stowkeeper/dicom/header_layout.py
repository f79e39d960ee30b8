"""What the headers of data sets of one kind look like, so that those of the next one are walked over in a few steps.

Instances of a series have the same elements one after the other, and nearly all of their lengths are the same too. So the
headers of one data set are learned, and of each later one those of a whole run of elements are compared with them in one
step, where they stood then; of the values no more is taken out than what is looked at. Where a header is another one, which
is so for a value whose length changes, a run ends: that element is walked over as all are without a layout, and behind it
the next run begins.

A run that fits says of each element no more and no less than a walk over it would, whatever it was learned from: the
headers are the bytes that stand there. What is learned from, and how often, is a matter of speed alone.

A layout may be used by several threads at once: what one of them spoils for another is a run that fits.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple

from stowkeeper.dicom.elements import UNDEFINED_LENGTH, Buffer, Encoding
from stowkeeper.dicom.limits import (
    LAYOUT_ELEMENTS_MAX,
    LAYOUT_MISFITS_MAX,
    LAYOUT_RUN_ELEMENTS_MIN,
    LAYOUT_RUNS_ELEMENTS_MAX,
)

Header = tuple[int, ...]
"""What `unpack_header` gives of an element in explicit VR, and `unpack_item` of one in implicit VR."""


class Look(IntEnum):
    """How much of a value is taken out for whoever walks."""

    NOTHING = 0
    END = 1
    """Its last two bytes."""

    WHOLE = 2
    UID = 3
    """All of it, apart from the others: it is a UID."""


Looks = Callable[[int, int, int], Look | None]
"""Says what of an element is looked at, by raw tag, VR (0 in implicit VR) and length; None where it is always walked over
by itself. Elements with a 32-bit length in explicit VR are, and nobody is asked."""


class _Element(NamedTuple):
    """One element as it was learned. Without `look` it is in no run."""

    header: bytes
    tag: int
    length: int
    look: Look | None


class HeaderRun:
    """Elements in ascending order, each with the header that it had in the data set that was learned.

    Where they stand, `values`, `uids` and `ends` take out what is looked at, from a position on; `tags` and `uid_tags` are
    those of values and UIDs. `size` is the length of all in bytes.
    """

    __slots__ = (
        "_headers",
        "_mask",
        "_offsets",
        "count",
        "ends",
        "first_tag",
        "last_tag",
        "size",
        "tags",
        "uid_tags",
        "uids",
        "values",
    )

    def __init__(self, elements: Sequence[_Element]) -> None:
        self._offsets: Final = tuple(accumulate((8 + element.length for element in elements), initial=0))
        self.size: Final = self._offsets[-1]
        self.count: Final = len(elements)
        self.first_tag: Final = elements[0].tag
        self.last_tag: Final = elements[-1].tag
        # All bytes as one number, and another with ones where headers stand: so they are compared at once.
        pieces = ((element.header, bytes(element.length)) for element in elements)
        self._headers: Final = int.from_bytes(b"".join(chain.from_iterable(pieces)), "little")
        masks = ((b"\xff" * 8, bytes(element.length)) for element in elements)
        self._mask: Final = int.from_bytes(b"".join(chain.from_iterable(masks)), "little")
        self.values: Final = _taker(elements, Look.WHOLE)
        self.uids: Final = _taker(elements, Look.UID)
        self.ends: Final = _taker(elements, Look.END)
        self.tags: Final = tuple(element.tag for element in elements if element.look is Look.WHOLE)
        self.uid_tags: Final = tuple(element.tag for element in elements if element.look is Look.UID)

    def misfit(self, view: Buffer, position: int) -> int | None:
        """Return the place of the first element that has another header at a position; None when all fit."""
        headers = int.from_bytes(view[position : position + self.size], "little") & self._mask
        if headers == self._headers:
            return None
        differing = headers ^ self._headers
        first_bit = (differing & -differing).bit_length() - 1
        return bisect_right(self._offsets, first_bit // 8) - 1


def _taker(elements: Sequence[_Element], look: Look) -> Callable[[Buffer, int], tuple[Any, ...]]:
    """Return what takes all that is looked at in one way out of a run, from a position on."""
    items = ["<"]
    for element in elements:
        taken = 0
        if element.look is look:
            taken = 2 if look is Look.END else element.length
        items.append(f"{8 + element.length - taken}x")
        if element.look is look:
            items.append(f"{taken}s")
    return struct.Struct("".join(items)).unpack_from


class HeaderLayout:
    """The headers that data sets of one kind have at their top level, as far as they are known.

    `begin` with the first piece of each data set. Then for each element whose header is among `starts`, at the top level
    alone, `match` may have a run.
    """

    __slots__ = (
        "_breaks",
        "_compiled",
        "_elements",
        "_encoding",
        "_is_cut",
        "_looks",
        "_matched",
        "_misfits",
        "_runs",
        "_seen",
        "starts",
    )

    def __init__(self, encoding: Encoding, looks: Looks) -> None:
        self._encoding: Final = encoding
        self._looks: Final = looks
        self.starts: dict[Header, int] = {}
        """Where a run may begin: the headers of the elements, with their places in the layout."""
        self._elements: list[_Element] = []
        self._breaks: set[int] = set()
        self._runs: dict[int, HeaderRun | None] = {}
        self._compiled = 0
        self._matched = 0
        self._misfits = LAYOUT_MISFITS_MAX
        self._seen = 0
        self._is_cut = False

    def begin(self, view: Buffer, end: int) -> None:
        """Take note of the first piece of a data set, up to `end`; learn from it where nothing that fits is known."""
        is_misfit = 2 * self._matched < len(self._elements) or not self._elements
        self._misfits = self._misfits + 1 if is_misfit else 0
        self._matched = 0
        if self._misfits > LAYOUT_MISFITS_MAX or (self._is_cut and end > self._seen):
            self._learn(view, end)

    def match(self, header: Header, view: Buffer, position: int, end: int) -> HeaderRun | None:
        """Return the run that begins at `position` with one of `starts`, if it fits and is all there before `end`."""
        first = self.starts.get(header)
        if first is None:
            return None
        try:
            run = self._runs[first]
        except KeyError:
            run = self._compile(first)
        if run is None or position + run.size > end:
            return None
        misfit = run.misfit(view, position)
        if misfit is not None:
            # No run goes over the element that has another header now: its length is one of those that change.
            self._breaks.add(first + misfit)
            self._runs.clear()
            self._compiled = 0
            return None
        self._matched += run.count
        return run

    def _compile(self, first: int) -> HeaderRun | None:
        """Make the run that begins at a place, or note that there is none."""
        elements = self._elements
        stop = first
        while (
            stop < len(elements)
            and elements[stop].look is not None
            and (stop == first or stop not in self._breaks)
        ):
            stop += 1
        run = None
        if stop - first >= LAYOUT_RUN_ELEMENTS_MIN:
            self._compiled += stop - first
            if self._compiled > LAYOUT_RUNS_ELEMENTS_MAX:
                self._compiled = stop - first
                self._runs.clear()
            run = HeaderRun(elements[first:stop])
        self._runs[first] = run
        return run

    def _learn(self, view: Buffer, end: int) -> None:
        encoding = self._encoding
        explicit = encoding.explicit
        unpack = encoding.unpack_header if explicit else encoding.unpack_item
        elements: list[_Element] = []
        starts: dict[Header, int] = {}
        previous = -1
        position = 0
        is_cut = False
        while len(elements) < LAYOUT_ELEMENTS_MAX:
            if position + 8 > end:
                is_cut = position < end
                break
            header = unpack(view, position)
            raw, length = header[0], header[-1]
            vr = header[1] if explicit else 0
            start = position + 8
            look: Look | None = None
            if not explicit or vr in encoding.short_vrs:
                look = self._looks(raw, vr, length)
            elif vr in encoding.long_vrs and start + 4 <= end:
                (length,) = encoding.unpack_length(view, start)
                start += 4
            else:
                break
            if length == UNDEFINED_LENGTH or start + length > end:
                is_cut = look is not None
                break
            tag = encoding.swap(raw)
            if tag <= previous:
                look = None
            if look is not None:
                starts.setdefault(header, len(elements))
            elements.append(_Element(bytes(view[position : position + 8]), tag, length, look))
            previous = tag
            position = start + length
        # A thread that looks in between finds no place to begin, or a run of what was.
        self.starts = {}
        self._elements = elements
        self._breaks = set()
        self._runs = {}
        self._compiled = 0
        self._misfits = 0
        self._seen = end
        self._is_cut = is_cut
        self.starts = starts
