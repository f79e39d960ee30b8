"""Walk over the elements of a data set that comes in pieces, and keep the few values that are wanted.

The walker never looks into a value that nobody wants: it steps over it by its length, in constant time for
each piece. It keeps the bytes of one unfinished element header or wanted value, and nothing else. Sequences
and items of undefined length are entered, because only their delimiters tell where they end; those with a
length are stepped over as a whole. Nesting is kept on a stack of our own with a bound, so that no input can
exhaust Python's.

What real files do, and what becomes of it:
- VR UN with undefined length holds items in implicit VR little endian (PS3.5 §6.2.2, CP-246), or in explicit
  VR from senders that never heard of that: the first element of each item tells.
- Items in implicit VR inside an explicit VR data set are read as such, with a remark.
- Elements out of order, of odd length, or with a length in their delimiter: read; a remark for the first and
  the last.
- An element twice at the top level: the first one counts, as it does for DCMTK, with a remark.
- A VR that is not two uppercase letters leaves the length unknown: that is where the walk ends.

The two loops over elements repeat each other on purpose: they run for every element of every instance
received, and a call or an object more per element is what they have no room for.
"""

import struct
from typing import Final

from stowkeeper.dicom.elements import (
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    PIXEL_DATA,
    PRIVATE_RUN,
    UNDEFINED_LENGTH,
    Buffer,
    Encoding,
    format_tag,
)
from stowkeeper.dicom.header_layout import Header, HeaderLayout
from stowkeeper.dicom.limits import (
    CAPTURED_ALWAYS_MAX,
    CAPTURED_BYTES_MAX,
    CAPTURED_VALUE_MAX,
    REMARKS_MAX,
    SEQUENCE_DEPTH_MAX,
)
from stowkeeper.dicom.piece_walker import PieceWalker

_DELIMITER_GROUP: Final = 0xFFFE

_NO_STARTS: Final[dict[Header, int]] = {}

_COPY: Final = tuple(struct.Struct(f"{length}s").unpack_from for length in range(CAPTURED_ALWAYS_MAX + 1))
"""Copies so many bytes from a buffer, two times faster than slicing a memoryview does."""

_ELEMENTS, _ITEMS, _FIRST_ELEMENT = range(3)
"""What comes next: an element of a data set, an item or the end of a sequence, or the first element of an
item, whose encoding is not settled yet."""


class _Sequence:
    """A sequence of undefined length that the walker is in."""

    __slots__ = ("encoding", "fragments", "offset", "outer", "tag", "unsettled")

    def __init__(
        self, tag: int, offset: int, outer: Encoding, encoding: Encoding, *, fragments: bool, unsettled: bool
    ) -> None:
        self.tag = tag
        self.offset = offset
        self.outer = outer
        self.encoding = encoding
        self.fragments = fragments
        self.unsettled = unsettled


class ElementWalker(PieceWalker):
    """Walks over one data set, fed piece by piece.

    `wanted` maps the raw tags of wanted elements to their tags and holds `encoding.delimiters` besides; further
    raw tags that it maps to 0 are private, and PRIVATE_RUN is tried there. `private_runs` lets it be tried
    also behind long private elements; that takes explicit VR little endian and no wanted private element.
    `layout` knows the headers of data sets like this one.
    When the data set has ended, `finish` tells whether it parsed; `values` then maps tags to raw value bytes, and
    `offending` is the element that the problem is about, if it is about one.
    """

    __slots__ = (
        "_encoding",
        "_layout",
        "_mode",
        "_private_bit",
        "_sequences",
        "_skipped",
        "_skipped_at",
        "_starts",
        "_top_starts",
        "_top_wanted",
        "_wanted",
        "offending",
        "remarks",
        "values",
    )

    def __init__(
        self,
        encoding: Encoding,
        wanted: dict[int, int],
        *,
        private_runs: bool = False,
        layout: HeaderLayout | None = None,
    ) -> None:
        super().__init__()
        self.values: dict[int, bytes] = {}
        self.offending: int | None = None
        self.remarks: tuple[str, ...] = ()
        self._encoding = encoding
        self._wanted = self._top_wanted = wanted
        self._mode = _ELEMENTS
        self._sequences: list[_Sequence] = []
        self._skipped = 0
        self._skipped_at = 0
        self._layout = layout
        self._starts = self._top_starts = _NO_STARTS  # where a run of the layout may begin, at this level
        # The lowest bit of a group, and of a raw tag in little endian, says whether an element is private.
        self._private_bit = 1 if private_runs else 0

    def finish(self) -> str | None:
        """Say in words why the data set does not parse to its end; None when it does."""
        if self.problem is not None:
            return self.problem
        if self._skip:
            self.offending = self._data_element(self._skipped)
            return (
                f"the data set ends at {self.size}, {self._skip} bytes before the end of the value of "
                f"{format_tag(self._skipped)} at offset {self._skipped_at}"
            )
        if self._pending:
            return self._unfinished()
        if self._sequences:
            sequence = self._sequences[-1]
            self.offending = sequence.tag
            return (
                f"the data set ends at {self.size} inside the sequence {format_tag(sequence.tag)} "
                f"at offset {sequence.offset}, whose delimiter is missing"
            )
        if not self.size:
            return "the data set holds no elements"
        return None

    def _unfinished(self) -> str:
        """Say what the bytes are that were left waiting for more."""
        start = self.size - len(self._pending)
        if len(self._pending) < 4:
            return f"the data set ends at {self.size} inside the tag of an element at offset {start}"
        (raw,) = self._encoding.unpack_length(self._pending, 0)
        tag = self._encoding.swap(raw)
        self.offending = self._data_element(tag)
        return f"the data set ends at {self.size} inside the element {format_tag(tag)} at offset {start}"

    def _data_element(self, tag: int) -> int | None:
        """Return the data element that a tag names: for an item or a delimiter the sequence it is in, if any."""
        if tag >> 16 != _DELIMITER_GROUP:
            return tag
        return self._sequences[-1].tag if self._sequences else None

    def _walk(self, view: Buffer, position: int, end: int) -> int:
        """Walk until `view` ends or what comes next changes its kind; return how far that is."""
        if self._layout is not None and not self._base + position:
            self._layout.begin(view, end)
            self._starts = self._top_starts = self._layout.starts
        if self._mode == _ITEMS:
            return self._walk_items(view, position, end)
        if self._mode == _FIRST_ELEMENT and not self._settle(view, position, end):
            return end
        if self._encoding.explicit:
            return self._walk_explicit(view, position, end)
        return self._walk_implicit(view, position, end)

    def _walk_explicit(self, view: Buffer, position: int, end: int) -> int:  # noqa: C901 - one loop on purpose, see above
        encoding = self._encoding
        unpack_header = encoding.unpack_header
        short_vrs = encoding.short_vrs
        wanted = self._wanted
        values = self.values
        copy = _COPY
        match_private_run = PRIVATE_RUN.match
        private_bit = self._private_bit
        last = end - 8
        raw = start = 0
        while position <= last:
            header = unpack_header(view, position)
            behind = header in self._starts and self._take_run(header, view, position, end)
            if behind:
                position = behind
                continue
            raw, vr, length = header
            start = position + 8
            if vr not in short_vrs:
                if vr not in encoding.long_vrs or raw in encoding.delimiters:
                    return self._leave(view, position, end, raw)
                start = position + 12
                if start > end:
                    return self._wait(view, position, end, 12)
                (length,) = encoding.unpack_length(view, position + 8)
                if length == UNDEFINED_LENGTH:
                    return self._enter(position, start, end, raw, vr)
                if raw & private_bit:
                    position = start + length
                    run = match_private_run(view, position)
                    position = max(position, run.end()) if run else position
                    continue
            if raw in wanted:
                tag = wanted[raw]
                stop = start + length
                if not tag:
                    if raw in encoding.delimiters:
                        return self._leave(view, position, end, raw)
                    run = match_private_run(view, position)
                    position = max(stop, run.end()) if run else stop
                    continue
                if length <= CAPTURED_ALWAYS_MAX and stop <= end and tag not in values:
                    (values[tag],) = copy[length](view, start)
                elif not self._capture(view, tag, start, stop, end):
                    return self._wait(view, position, end, stop - position)
            position = start + length
        if position > end:
            return self._skip_on(position, start, end, raw)
        if position < end:
            return self._wait(view, position, end, 8)
        return end

    def _walk_implicit(self, view: Buffer, position: int, end: int) -> int:
        encoding = self._encoding
        unpack_item = encoding.unpack_item
        wanted = self._wanted
        values = self.values
        copy = _COPY
        last = end - 8
        raw = start = length = 0
        while position <= last:
            header = unpack_item(view, position)
            behind = header in self._starts and self._take_run(header, view, position, end)
            if behind:
                position = behind
                continue
            raw, length = header
            start = position + 8
            if raw in wanted:
                tag = wanted[raw]
                stop = start + length
                if not tag:
                    return self._leave(view, position, end, raw)
                if length <= CAPTURED_ALWAYS_MAX and stop <= end and tag not in values:
                    (values[tag],) = copy[length](view, start)
                elif not self._capture(view, tag, start, stop, end):
                    return self._wait(view, position, end, stop - position)
            position = start + length
        if position > end:
            # No piece is long enough to hold a value of FFFFFFFFH bytes, so an undefined length always ends here.
            if length == UNDEFINED_LENGTH:
                return self._enter(start - 8, start, end, raw, 0)
            return self._skip_on(position, start, end, raw)
        if position < end:
            return self._wait(view, position, end, 8)
        return end

    def _take_run(self, header: Header, view: Buffer, position: int, end: int) -> int:
        """Walk over a run of elements whose headers are known; return how far that is, 0 where there is none."""
        if self._layout is None:
            return 0
        run = self._layout.match(header, view, position, end)
        if run is None:
            return 0
        if run.tags:
            if self.values and not self.values.keys().isdisjoint(run.tags):
                # What occurs again takes a look at each.
                self._starts = self._top_starts = _NO_STARTS
                return 0
            self.values.update(zip(run.tags, run.values(view, position), strict=True))
        return position + run.size

    def _walk_items(self, view: Buffer, position: int, end: int) -> int:
        """Walk over items with a length; enter one without; leave the sequence at its delimiter."""
        sequence = self._sequences[-1]
        encoding = sequence.encoding
        unpack_item = encoding.unpack_item
        raw_item = encoding.raw_item
        last = end - 8
        start = 0
        while position <= last:
            raw, length = unpack_item(view, position)
            if raw != raw_item:
                return self._leave_sequence(position, end, raw, length)
            start = position + 8
            if length == UNDEFINED_LENGTH:
                return self._enter_item(position, start, end)
            position = start + length
        if position > end:
            return self._skip_on(position, start, end, raw_item)
        if position < end:
            return self._wait(view, position, end, 8)
        return end

    def _skip_on(self, position: int, start: int, end: int, raw: int) -> int:
        """Step over the rest of a value that reaches beyond this piece."""
        self._skip = position - end
        self._skipped = self._encoding.swap(raw)
        self._skipped_at = self._base + start
        return end

    def _capture(self, view: Buffer, tag: int, start: int, stop: int, end: int) -> bool:
        """Copy a wanted value if bounds allow; False when it is not all here yet.

        True also where nothing is copied, since then nothing has to be waited for.
        """
        if tag in self.values:
            self._remark(
                f"{format_tag(tag)} occurs again at offset {self._base + start}; the first one counts"
            )
        elif stop - start == UNDEFINED_LENGTH:
            self._remark(f"{format_tag(tag)} at offset {self._base + start} is a sequence; it was not read")
        elif stop - start > CAPTURED_VALUE_MAX:
            self._remark(f"{format_tag(tag)} has {stop - start} bytes; it was not read")
        elif stop - start > CAPTURED_ALWAYS_MAX and self._has_no_room_for(stop - start):
            self._remark(
                f"{format_tag(tag)} was not read: with it the values read would exceed {CAPTURED_BYTES_MAX} bytes"
            )
        elif stop > end:
            return False
        else:
            self.values[tag] = bytes(view[start:stop])
        return True

    def _has_no_room_for(self, length: int) -> bool:
        return sum(map(len, self.values.values())) + length > CAPTURED_BYTES_MAX

    def _enter(self, position: int, start: int, end: int, raw: int, vr: int) -> int:
        """Enter the sequence or the fragments of an element of undefined length (PS3.5 §7.5, §A.4)."""
        outer = self._encoding
        tag = outer.swap(raw)
        offset = self._base + position
        if len(self._sequences) >= SEQUENCE_DEPTH_MAX:
            return self._fail(
                end,
                f"sequences are nested deeper than {SEQUENCE_DEPTH_MAX} at {format_tag(tag)} at offset {offset}",
                tag,
            )
        if vr in outer.never_undefined_vrs:
            return self._fail(
                end, f"{format_tag(tag)} at offset {offset} has a VR that allows no undefined length", tag
            )
        fragments = vr in outer.fragment_vrs or tag == PIXEL_DATA
        unknown = outer.explicit and vr == outer.unknown_vr and not fragments
        self._encoding = IMPLICIT_LITTLE_ENDIAN if unknown else outer
        self._sequences.append(
            _Sequence(tag, offset, outer, self._encoding, fragments=fragments, unsettled=outer.explicit)
        )
        self._mode = _ITEMS
        return start

    def _enter_item(self, position: int, start: int, end: int) -> int:
        sequence = self._sequences[-1]
        if sequence.fragments:
            return self._fail(
                end,
                f"the fragment at offset {self._base + position} of {format_tag(sequence.tag)} has no length",
                sequence.tag,
            )
        self._mode = _FIRST_ELEMENT if sequence.unsettled else _ELEMENTS
        self._wanted = sequence.encoding.delimiters
        self._starts = _NO_STARTS
        return start

    def _settle(self, view: Buffer, position: int, end: int) -> bool:
        """Tell from the first element of an item whether it is in explicit VR; False when it is not here yet."""
        if position + 8 > end:
            self._wait(view, position, end, 8)
            return False
        sequence = self._sequences[-1]
        expected = (
            EXPLICIT_LITTLE_ENDIAN if sequence.encoding is IMPLICIT_LITTLE_ENDIAN else sequence.encoding
        )
        raw, vr, _ = expected.unpack_header(view, position)
        if raw not in expected.delimiters:
            if sequence.encoding.explicit:
                if vr not in expected.short_vrs and vr not in expected.long_vrs and expected.little_endian:
                    self._encoding = IMPLICIT_LITTLE_ENDIAN
                    self._remark(f"the item at offset {self._base + position - 8} is in implicit VR")
            elif vr in expected.known_vrs:
                self._encoding = expected
        self._wanted = self._encoding.delimiters
        self._mode = _ELEMENTS
        return True

    def _leave(self, view: Buffer, position: int, end: int, raw: int) -> int:
        """Leave an item at its delimiter; anything else that is no element is the end of the walk."""
        encoding = self._encoding
        offset = self._base + position
        if raw == encoding.raw_item_delimitation and self._sequences:
            _, length = encoding.unpack_item(view, position)
            if length:
                self._remark(f"the item delimiter at offset {offset} has a length")
            self._encoding = self._sequences[-1].encoding
            self._mode = _ITEMS
            return position + 8
        tag = encoding.swap(raw)
        words = f"{format_tag(tag)} at offset {offset}"
        offending = self._data_element(tag)
        if raw in encoding.delimiters:
            return self._fail(end, f"{words} stands where an element should", offending)
        guess = "" if offset else "; is the data set in implicit VR?"
        return self._fail(end, f"the VR of {words} is not two uppercase letters{guess}", offending)

    def _leave_sequence(self, position: int, end: int, raw: int, length: int) -> int:
        sequence = self._sequences[-1]
        offset = self._base + position
        if raw != sequence.encoding.raw_sequence_delimitation:
            return self._fail(
                end,
                f"{format_tag(sequence.encoding.swap(raw))} at offset {offset} stands where an item or the "
                f"delimiter of the sequence {format_tag(sequence.tag)} should",
                sequence.tag,
            )
        if length:
            self._remark(f"the sequence delimiter at offset {offset} has a length")
        self._sequences.pop()
        self._encoding = sequence.outer
        self._wanted = sequence.outer.delimiters if self._sequences else self._top_wanted
        self._starts = _NO_STARTS if self._sequences else self._top_starts
        self._mode = _ELEMENTS
        return position + 8

    def _fail(self, end: int, problem: str, offending: int | None) -> int:
        """Note the first problem; what follows cannot be told apart any more and is let pass."""
        self.problem = problem
        self.offending = offending
        return end

    def _remark(self, text: str) -> None:
        if len(self.remarks) < REMARKS_MAX:
            self.remarks += (text,)
