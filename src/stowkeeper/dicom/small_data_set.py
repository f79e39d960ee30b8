"""Read a small data set that is whole in memory: a few of its values, and those of the items of a few sequences.

For the data sets of messages, which say one thing each. A data set that is stored is scanned in passing instead, however
long it is (`header`). What is not asked for is stepped over by its length; where there is none, down to
SEQUENCE_DEPTH_MAX, by its delimiters. What does not parse to its last byte is an error, since nothing that it says can be
relied on then; elements out of order, of odd length, and unknown ones are none. VR UN with undefined length holds items in implicit VR little endian
(PS3.5 §6.2.2), and so is a sequence read whose VR is UN.
"""

from collections.abc import Callable, Container, Mapping
from typing import Final

from stowkeeper.dicom.elements import (
    IMPLICIT_LITTLE_ENDIAN,
    ITEM,
    ITEM_DELIMITATION,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    Encoding,
    format_tag,
)
from stowkeeper.dicom.limits import SEQUENCE_DEPTH_MAX

Values = dict[int, bytes]
"""Raw values by tag, padding and all."""

ItemTaker = Callable[[Values], None]
"""Takes the wanted values of the next item of a sequence."""

_NOTHING: Final[frozenset[int]] = frozenset()
_NO_SEQUENCES: Final[Mapping[int, tuple[Container[int], ItemTaker]]] = {}
_DELIMITERS: Final = {
    ITEM: "an item",
    ITEM_DELIMITATION: "the end of an item",
    SEQUENCE_DELIMITATION: "the end of a sequence",
}


class DataSetError(ValueError):
    """A data set that does not parse. `element` is the tag that the problem is about, None where it is about none."""

    def __init__(self, words: str, element: int | None = None) -> None:
        super().__init__(words)
        self.element = element


def read_small_data_set(
    data: bytes,
    encoding: Encoding,
    wanted: Container[int],
    sequences: Mapping[int, tuple[Container[int], ItemTaker]],
) -> Values:
    """Return the values of the `wanted` tags that a data set has at its top level.

    `sequences` has by tag what is wanted of the items of a sequence, and who takes each of them in turn; what that raises
    comes through. An item that lacks all that is wanted is given as well.

    Raises:
        DataSetError: the data set does not parse, or has a wanted element or sequence twice at one level.

    """
    reader = _Reader(data)
    values, _ = reader.read_elements(0, len(data), encoding, wanted, sequences, depth=0, is_delimited=False)
    return values


class _Reader:
    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_elements(
        self,
        position: int,
        end: int,
        encoding: Encoding,
        wanted: Container[int],
        sequences: Mapping[int, tuple[Container[int], ItemTaker]],
        *,
        depth: int,
        is_delimited: bool,
    ) -> tuple[Values, int]:
        """Read elements up to `end`, or to the end of the item where that `is_delimited`; return also where they end."""
        values: Values = {}
        seen: set[int] = set()
        while position < end:
            tag, vr, start, length = self._header(position, end, encoding)
            if tag in _DELIMITERS:
                if is_delimited and tag == ITEM_DELIMITATION:
                    return values, start
                raise DataSetError(f"at offset {position} stands {_DELIMITERS[tag]} that belongs nowhere")
            if tag in sequences:
                if tag in seen:
                    raise _twice(tag)
                seen.add(tag)
                inner = self._encoding_of_sequence(tag, vr, encoding)
                position = self._read_items(tag, start, length, end, inner, sequences[tag], depth)
            elif length == UNDEFINED_LENGTH:
                inner = IMPLICIT_LITTLE_ENDIAN if vr == encoding.unknown_vr else encoding
                position = self._read_items(tag, start, length, end, inner, None, depth)
                if tag in wanted:
                    raise DataSetError(f"{format_tag(tag)} has no length, and is no sequence", tag)
            else:
                position = start + length
                if position > end:
                    raise _cut_off(tag, start)
                if tag in wanted:
                    if tag in values:
                        raise _twice(tag)
                    values[tag] = self._data[start:position]
        if is_delimited:
            raise DataSetError(f"the data set ends at offset {end} inside an item")
        return values, position

    def _header(self, position: int, end: int, encoding: Encoding) -> tuple[int, int, int, int]:
        """Return tag, VR (0 where there is none), offset of the value and its length."""
        start = position + 8
        if start > end:
            raise DataSetError(f"the data set ends at offset {end} inside the header of an element")
        if not encoding.explicit:
            raw, length = encoding.unpack_item(self._data, position)
            return encoding.swap(raw), 0, start, length
        raw, vr, length = encoding.unpack_header(self._data, position)
        if vr in encoding.short_vrs:
            return encoding.swap(raw), vr, start, length
        tag = encoding.swap(raw)
        if tag in _DELIMITERS:
            return tag, 0, start, 0
        if vr not in encoding.long_vrs:
            raise DataSetError(f"{format_tag(tag)} at offset {position} has no value representation", tag)
        start += 4
        if start > end:
            raise _cut_off(tag, position)
        (length,) = encoding.unpack_length(self._data, position + 8)
        if length == UNDEFINED_LENGTH and vr in encoding.never_undefined_vrs:
            raise DataSetError(f"{format_tag(tag)} at offset {position} has no length", tag)
        return tag, vr, start, length

    def _encoding_of_sequence(self, tag: int, vr: int, encoding: Encoding) -> Encoding:
        if not encoding.explicit:
            return encoding
        if vr == encoding.unknown_vr:
            return IMPLICIT_LITTLE_ENDIAN
        if vr != encoding.sequence_vr:
            raise DataSetError(f"{format_tag(tag)} is no sequence", tag)
        return encoding

    def _read_items(
        self,
        tag: int,
        position: int,
        length: int,
        end: int,
        encoding: Encoding,
        asked: tuple[Container[int], ItemTaker] | None,
        depth: int,
    ) -> int:
        """Read the items of a sequence; return where it ends."""
        if depth >= SEQUENCE_DEPTH_MAX:
            raise DataSetError(f"sequences stand more than {SEQUENCE_DEPTH_MAX} deep in one another", tag)
        is_delimited = length == UNDEFINED_LENGTH
        if not is_delimited:
            if position + length > end:
                raise _cut_off(tag, position)
            end = position + length
        wanted, take = asked or (_NOTHING, None)
        while position < end:
            if position + 8 > end:
                raise _cut_off(tag, position)
            raw, item_length = encoding.unpack_item(self._data, position)
            start = position + 8
            if raw == encoding.raw_sequence_delimitation and is_delimited:
                return start
            if raw != encoding.raw_item:
                raise DataSetError(f"at offset {position} there should be an item of {format_tag(tag)}", tag)
            if item_length == UNDEFINED_LENGTH:
                stop, item_is_delimited = end, True
            else:
                stop, item_is_delimited = start + item_length, False
                if stop > end:
                    raise _cut_off(tag, start)
            if take is None and not item_is_delimited:
                position = stop
                continue
            values, position = self.read_elements(
                start, stop, encoding, wanted, _NO_SEQUENCES, depth=depth + 1, is_delimited=item_is_delimited
            )
            if take is not None:
                take(values)
        if is_delimited:
            raise DataSetError(f"the data set ends inside the sequence {format_tag(tag)}", tag)
        return position


def _cut_off(tag: int, offset: int) -> DataSetError:
    return DataSetError(f"{format_tag(tag)} at offset {offset} reaches beyond what it stands in", tag)


def _twice(tag: int) -> DataSetError:
    return DataSetError(f"{format_tag(tag)} is there twice", tag)
