"""Tell while a data set arrives whether it already has the form that is asked for.

Most instances have: then their bytes stay, and nothing is read or written a second time. So this costs little: it looks
at headers, at the ends of texts, at UIDs and group lengths, and steps over all else. What would be written anew is
never taken for the same; the other way round it may happen, at the cost of writing.

Unlike DCMTK, this takes a deflate stream for the same that inflates to what would be written.

The two loops over elements repeat each other on purpose: they run for every element of every instance received, and a
call or an object more per element is what they have no room for.
"""

import re
from functools import lru_cache
from typing import Final

from stowkeeper.dcmtk.encoding.detector_rules import Rule, Rules, rules_of
from stowkeeper.dcmtk.encoding.dictionary import Dictionary
from stowkeeper.dcmtk.encoding.form import Form
from stowkeeper.dcmtk.encoding.limits import TEXT_AT_ONCE_MAX
from stowkeeper.dcmtk.encoding.plan import DATA_SET_TRAILING_PADDING
from stowkeeper.dcmtk.encoding.vr_choice import is_private_creator, note_creator, private_block
from stowkeeper.dcmtk.limits import PRIVATE_CREATORS_MAX
from stowkeeper.dicom.elements import (
    ITEM,
    ITEM_DELIMITATION,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    Buffer,
)
from stowkeeper.dicom.header_layout import Header, HeaderLayout, Look
from stowkeeper.dicom.inflater import Inflater
from stowkeeper.dicom.limits import INFLATED_BYTES_MAX, LAYOUTS_MAX, SEQUENCE_DEPTH_MAX
from stowkeeper.dicom.piece_walker import PieceWalker

_FOREVER: Final = 1 << 62
_NONE: Final = -1
_VOI_LUT_SEQUENCE: Final = 0x00283010

_ELEMENTS, _ITEMS, _FRAGMENTS = range(3)
"""What comes next."""

_VALUE: Final = int(Rule.VALUE)
_TEXT: Final = int(Rule.TEXT)
_UID: Final = int(Rule.UID)
_LONG_VALUE: Final = int(Rule.LONG_VALUE)
_SEQUENCE: Final = int(Rule.SEQUENCE)
_UNKNOWN: Final = int(Rule.UNKNOWN)
_LOOKED_AT: Final = frozenset(map(int, (Rule.TEXT, Rule.UID, Rule.LONG_TEXT)))

_NO_STARTS: Final[dict[Header, int]] = {}
_BLANKS: Final = b"  "

# White space anywhere, or NULs at the end that are more than one of padding.
_ODD_UID: Final = re.compile(rb"[\t-\r ]|\0\0\Z").search

# As well in several, with a backslash between any two. What it finds within one may be none: that takes a look at each.
_ODD_UIDS: Final = re.compile(rb"[\t-\r ]|\0\0(?:\\|\Z)").search


class FormDetector:
    """Looks at one received data set, fed piece by piece.

    Without a dictionary the shipped one is loaded when it is needed, which explicit VR never does. `wanted` are the tags
    whose values are kept; they are of texts. Data sets of the same `sop_class_uid` are expected to be alike, and looked at
    faster when they are; without one nothing is expected.
    """

    __slots__ = ("_inflater", "_walker")

    def __init__(
        self,
        transfer_syntax_uid: str,
        form: Form,
        dictionary: Dictionary | None = None,
        wanted: frozenset[int] = frozenset(),
        *,
        sop_class_uid: str = "",
    ) -> None:
        rules = rules_of(transfer_syntax_uid, form, dictionary)
        is_known = sop_class_uid and rules.encoding.explicit
        self._walker = _FormWalker(rules, wanted, _layout(rules, wanted, sop_class_uid) if is_known else None)
        self._inflater = Inflater(INFLATED_BYTES_MAX) if rules.deflated else None

    def feed(self, view: Buffer) -> None:
        """Look at `view`, the next piece of the data set, cut anywhere. Keeps no reference to it."""
        if self._inflater is None:
            self._walker.feed(view)
        else:
            self._inflater.feed(view, self._walker)

    @property
    def values(self) -> dict[int, bytes]:
        """Return raw bytes of the wanted elements at the top level that were met; all there are if it is the same."""
        return self._walker.values

    def finish(self) -> bool:
        """Tell whether the whole data set is what `write_data_set` would write of it."""
        return self.reason() is None

    def reason(self) -> str | None:
        """Say in words, now that the data set has ended, why it is written anew; None when it is not."""
        if self._inflater is None:
            return self._walker.finish()
        return self._inflater.finish(self._walker)


@lru_cache(maxsize=LAYOUTS_MAX)  # SOP class UIDs come from peers
def _layout(rules: Rules, wanted: frozenset[int], sop_class_uid: str) -> HeaderLayout:  # noqa: ARG001 - it is what tells layouts apart
    """Return what is known of data sets in explicit VR of a SOP class."""
    swap = rules.encoding.swap

    def look(raw: int, vr: int, length: int) -> Look | None:
        tag = swap(raw)
        rule = rules.rules_of_vrs.get(vr, _LONG_VALUE)
        if rule >= _LONG_VALUE or length & 1 or tag >= PIXEL_DATA or not tag & 0xFFFF:
            return None
        if rule == _UID:
            return Look.UID
        if tag in wanted:
            return Look.WHOLE
        return Look.END if rule == _TEXT and length else Look.NOTHING

    return HeaderLayout(rules.encoding, look)


class _FormWalker(PieceWalker):
    """Walks over a data set until something in it would be written otherwise. `layout` knows the headers of those like it."""

    __slots__ = (
        "_creators",
        "_group",
        "_group_end",
        "_layout",
        "_level_end",
        "_levels",
        "_mode",
        "_previous",
        "_rules",
        "_starts",
        "_top_starts",
        "_wanted",
        "values",
    )

    def __init__(self, rules: Rules, wanted: frozenset[int], layout: HeaderLayout | None) -> None:
        super().__init__()
        self._wanted = wanted
        self._layout = layout
        self._starts = self._top_starts = _NO_STARTS  # where a run of the layout may begin, at this level
        self.values: dict[int, bytes] = {}
        self._rules = rules
        if rules.impossible:
            self.problem = "no data set is taken for the same"
        # Of the level that the walker is in: what comes next, where it ends, the last tag, the group whose length
        # was read, where that group ends, and the private creators, which only implicit VR needs.
        self._mode = _ELEMENTS
        self._level_end = _FOREVER
        self._previous = _NONE
        self._group = _NONE
        self._group_end = _NONE
        self._creators: dict[int, str] = {}
        self._levels: list[tuple[int, int, int, int, int, dict[int, str]]] = []

    def finish(self) -> str | None:
        """Say in words why the data set is written anew, now that it has ended; None when it is not."""
        if self.problem is None and (self._pending or self._skip or not self.size):
            return "it does not end where an element does"
        while self.problem is None and self._levels and self.size == self._level_end:
            self._leave(self.size)
        if self.problem is None and self._levels:
            return "it ends inside a sequence"
        if self.problem is None and self._group_end not in (_NONE, self.size):
            return "a group length is wrong"
        return self.problem

    def _walk(self, view: Buffer, position: int, end: int) -> int:
        """Walk until `view` ends or what comes next changes its kind; return how far that is."""
        offset = self._base + position
        if not offset and self._layout is not None:
            self._layout.begin(view, end)
            self._starts = self._top_starts = self._layout.starts
        if offset >= self._level_end:
            self._leave(offset)
            return position
        if self._mode != _ELEMENTS:
            return self._walk_items(view, position, end)
        if self._rules.encoding.explicit:
            return self._walk_explicit(view, position, end)
        return self._walk_implicit(view, position, end)

    def _walk_explicit(self, view: Buffer, position: int, end: int) -> int:  # noqa: C901 - one loop on purpose, see above
        rules = self._rules
        unpack_header = rules.encoding.unpack_header
        rule_of_vr = rules.rules_of_vrs.get
        little_endian = rules.encoding.little_endian
        level_end = self._level_end - self._base
        last = min(end - 8, level_end - 1)
        previous = self._previous
        wanted = self._wanted
        special_from = PIXEL_DATA if self._group_end < 0 else 0
        while position <= last:
            header = unpack_header(view, position)
            known = special_from and header in self._starts
            behind = known and self._take_run(header, view, position, end, previous)
            if behind:
                previous = self._previous
                position = behind
                continue
            tag, vr, length = header
            if little_endian:
                tag = (tag & 0xFFFF) << 16 | tag >> 16
            if tag >= special_from or not tag & 0xFFFF:
                self._previous = previous
                is_number = vr == rules.unsigned_long and length == 4
                then = self._look_at(view, position, end, tag, is_number=is_number)
                if then >= 0:
                    return then
                special_from = PIXEL_DATA if self._group_end < 0 else 0
            if tag <= previous:
                return self._differ(end, position, "elements are not in order")
            rule = rule_of_vr(vr)
            if rule is None:
                return self._differ(end, position, "a VR is not written as it is")
            if rule >= _LONG_VALUE:
                self._previous = previous
                return self._take_long(view, position, end, tag, vr, rule, length)
            start = position + 8
            stop = start + length
            if length & 1 or stop > level_end:
                return self._differ(end, position, "a length is odd, or beyond the item")
            if tag in wanted:
                if stop > end:
                    self._previous = previous
                    return self._wait(view, position, end, stop - position)
                self._keep(view, start, stop, tag)
            if rule != _VALUE and length:
                if stop > end:
                    self._previous = previous
                    return self._wait(view, position, end, stop - position)
                if _ODD_UID(view, start, stop) if rule == _UID else view[stop - 1] == 32 == view[stop - 2]:
                    return self._differ(end, position, "a text is padded otherwise")
            previous = tag
            position = stop
        self._previous = previous
        return self._pause(view, position, end, level_end)

    def _take_run(self, header: Header, view: Buffer, position: int, end: int, previous: int) -> int:
        """Walk over a run of elements whose headers are known; return how far that is, 0 where they take a look at each."""
        if self._layout is None:
            return 0
        run = self._layout.match(header, view, position, end)
        if run is None:
            return 0
        values = run.values(view, position)
        uids = run.uids(view, position)
        if (
            run.first_tag <= previous
            or _BLANKS in run.ends(view, position)
            or _BLANKS in [value[-2:] for value in values]
            or _ODD_UIDS(b"\\".join(uids))
        ):
            self._starts = self._top_starts = _NO_STARTS
            return 0
        kept = self.values
        kept.update(zip(run.tags, values, strict=True))
        for tag, uid in zip(run.uid_tags, uids, strict=True):
            if tag in self._wanted:
                kept[tag] = uid
        self._previous = run.last_tag
        return position + run.size

    def _take_long(
        self, view: Buffer, position: int, end: int, tag: int, vr: int, rule: int, reserved: int
    ) -> int:
        """Walk over an element with a 32-bit length in explicit VR, or enter it."""
        start = position + 12
        if start > end:
            return self._wait(view, position, end, 12)
        if reserved:
            return self._differ(end, position, "reserved bytes are not zero")
        (length,) = self._rules.encoding.unpack_length(view, position + 8)
        self._previous, previous = tag, self._previous
        if rule == _SEQUENCE or length == UNDEFINED_LENGTH:
            is_pixels = tag == PIXEL_DATA and vr == self._rules.other_byte
            return self._enter(start, end, length, is_sequence=rule == _SEQUENCE, is_pixels=is_pixels)
        stop = start + length
        if length & 1 or self._base + stop > self._level_end:
            return self._differ(end, position, "a length is odd, or beyond the item")
        if tag == _VOI_LUT_SEQUENCE or (tag == PIXEL_DATA and self._rules.encapsulated and not self._levels):
            return self._differ(end, position, "a value is where none is written")
        if rule in _LOOKED_AT and length:
            if length > TEXT_AT_ONCE_MAX:
                return self._differ(end, position, "a text is too long to look at")
            if stop > end:
                self._previous = previous
                return self._wait(view, position, end, stop - position)
            if view[stop - 1] == 32 == view[stop - 2]:
                return self._differ(end, position, "a text is padded otherwise")
        if stop > end:
            self._skip = stop - end
        return min(stop, end)

    def _walk_implicit(self, view: Buffer, position: int, end: int) -> int:
        rules = self._rules
        unpack_item = rules.encoding.unpack_item
        rule_of_tag = rules.rule_of_tag
        creators = self._creators
        level_end = self._level_end - self._base
        last = min(end - 8, level_end - 1)
        previous = self._previous
        special_from = PIXEL_DATA if self._group_end < 0 else 0
        while position <= last:
            tag, length = unpack_item(view, position)
            tag = (tag & 0xFFFF) << 16 | tag >> 16
            if tag >= special_from or not tag & 0xFFFF:
                self._previous = previous
                then = self._look_at(view, position, end, tag, is_number=length == 4)
                if then >= 0:
                    return then
                special_from = PIXEL_DATA if self._group_end < 0 else 0
            if tag <= previous:
                return self._differ(end, position, "elements are not in order")
            start = position + 8
            rule = rule_of_tag(tag, creators.get(private_block(tag), "") if tag & 0x10000 else "")
            if rule == _SEQUENCE or length == UNDEFINED_LENGTH:
                self._previous = tag
                return self._enter(
                    start, end, length, is_sequence=rule in (_SEQUENCE, _UNKNOWN), is_pixels=False
                )
            stop = start + length
            if length & 1 or stop > level_end:
                return self._differ(end, position, "a length is odd, or beyond the item")
            if tag in self._wanted:
                if stop > end:
                    self._previous = previous
                    return self._wait(view, position, end, stop - position)
                self._keep(view, start, stop, tag)
            is_creator = is_private_creator(tag)
            if length and (rule in _LOOKED_AT or is_creator):
                if length > TEXT_AT_ONCE_MAX:
                    return self._differ(end, position, "a text is too long to look at")
                if stop > end:
                    self._previous = previous
                    return self._wait(view, position, end, stop - position)
                if (
                    _ODD_UID(view, start, stop)
                    if rule == _UID
                    else (rule == _TEXT and view[stop - 1] == 32 == view[stop - 2])
                ):
                    return self._differ(end, position, "a text is padded otherwise")
                if is_creator and not self._note_creator(tag, bytes(view[start:stop])):
                    return self._differ(end, position, "there are too many private creators")
            previous = tag
            position = stop
        self._previous = previous
        return self._pause(view, position, end, level_end)

    def _note_creator(self, tag: int, value: bytes) -> bool:
        """Remember a private creator; False when there are too many."""
        if len(self._creators) >= PRIVATE_CREATORS_MAX:
            return False
        note_creator(self._creators, tag, value, correct_input=self._rules.correct_input)
        return True

    def _walk_items(self, view: Buffer, position: int, end: int) -> int:
        """Walk over fragments and empty items; enter the others; leave the sequence at its delimiter."""
        encoding = self._rules.encoding
        has_lengths = self._rules.explicit_lengths
        level_end = self._level_end - self._base
        last = min(end - 8, level_end - 1)
        while position <= last:
            raw, length = encoding.unpack_item(view, position)
            start = position + 8
            if raw == encoding.raw_sequence_delimitation and not length and self._level_end == _FOREVER:
                self._leave(self._base + position)
                return start
            is_undefined = length == UNDEFINED_LENGTH
            if raw != encoding.raw_item or start + (0 if is_undefined else length) > level_end:
                return self._differ(end, position, "there is no item that is written as it is")
            if self._mode == _FRAGMENTS:
                if length & 1:  # which the undefined length is as well
                    return self._differ(end, position, "a fragment has an odd length")
            elif is_undefined is has_lengths:
                return self._differ(end, position, "an item has a length, or has none")
            elif length:
                self._push(_ELEMENTS, _FOREVER if is_undefined else self._base + start + length)
                return start
            position = start + length
        return self._pause(view, position, end, level_end)

    def _keep(self, view: Buffer, start: int, stop: int, tag: int) -> None:
        """Keep the value of a wanted element; inside of sequences it is another's."""
        if not self._levels:
            self.values[tag] = bytes(view[start:stop])

    def _pause(self, view: Buffer, position: int, end: int, level_end: int) -> int:
        """Leave a loop at the end of the level or of the piece."""
        if position > end:
            self._skip = position - end
            return end
        if position < end and position < level_end:
            return self._wait(view, position, end, 8)
        return position

    def _differ(self, end: int, position: int, reason: str) -> int:
        """Note the first reason why the data set is written anew; what follows does not matter any more."""
        if self.problem is None:
            self.problem = f"{reason}, at offset {self._base + position}"
        return end

    # What is not an element like others

    def _look_at(self, view: Buffer, position: int, end: int, tag: int, *, is_number: bool) -> int:
        """Look at an element with a special tag, and at any while the end of a group is awaited.

        Return where the walk goes on; -1 when the element is walked over as any other.
        """
        offset = self._base + position
        if tag == ITEM_DELIMITATION:
            _, length = self._rules.encoding.unpack_item(view, position)
            if length or not self._levels or self._level_end != _FOREVER:
                return self._differ(end, position, "a delimiter is where none is written")
            self._leave(offset)
            return position + 8
        if self._group_end >= 0:
            if (tag >> 16 == self._group) is (offset >= self._group_end) or offset > self._group_end:
                return self._differ(end, position, "a group length is wrong")
            if tag >> 16 != self._group:
                self._group_end = _NONE
        if tag in (ITEM, SEQUENCE_DELIMITATION) or (
            tag == DATA_SET_TRAILING_PADDING and not self._rules.keeps_padding
        ):
            return self._differ(end, position, "padding or a delimiter is where none is written")
        if tag & 0xFFFF:
            return _NONE
        if not is_number or not self._rules.keeps_group_lengths:
            return self._differ(end, position, "a group length is not written as it is")
        if position + 12 > end:
            return self._wait(view, position, end, 12)
        self._group = tag >> 16
        self._group_end = offset + 12 + self._rules.encoding.unpack_length(view, position + 8)[0]
        return _NONE

    def _enter(self, start: int, end: int, length: int, *, is_sequence: bool, is_pixels: bool) -> int:
        """Enter a sequence, or pixel data of undefined length."""
        stop = self._base + start + length
        is_undefined = length == UNDEFINED_LENGTH
        if len(self._levels) >= 2 * SEQUENCE_DEPTH_MAX:
            return self._differ(end, start, "sequences are nested too deeply")
        if not is_sequence and not (is_pixels and self._rules.encapsulated):
            return self._differ(end, start, "a value has no length")
        if not is_sequence:
            self._push(_FRAGMENTS, _FOREVER)
        elif is_undefined is self._rules.explicit_lengths or (not is_undefined and stop > self._level_end):
            return self._differ(end, start, "a sequence has a length, or has none")
        elif length:
            self._push(_ITEMS, _FOREVER if is_undefined else stop)
        return start

    def _push(self, mode: int, level_end: int) -> None:
        self._levels.append(
            (self._mode, self._level_end, self._previous, self._group, self._group_end, self._creators)
        )
        self._mode, self._level_end, self._previous = mode, level_end, _NONE
        self._starts = _NO_STARTS
        self._group = self._group_end = _NONE
        self._creators = {}

    def _leave(self, offset: int) -> None:
        """Leave a level at an offset."""
        if self._group_end not in (_NONE, offset):
            self._differ(0, offset - self._base, "a group length is wrong")
        (self._mode, self._level_end, self._previous, self._group, self._group_end, self._creators) = (
            self._levels.pop()
        )
        if not self._levels:
            self._starts = self._top_starts
