"""Command sets: the elements of group 0000 in Implicit VR Little Endian (PS3.7 §6.3, Annex E).

Decoding is tolerant and keeps raw values: elements in any order, odd lengths, unknown elements, a wrong or repeated
group length are all read. What cannot be read as a sequence of group 0000 elements is a `PeerError`. Encoding is
strict: ascending elements, even lengths, the group length computed; a value that its VR does not allow is a
`LocalError`. Nothing here knows which elements a message needs (see `messages`).
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.ae_title import AE_TITLE_LENGTH, normalize_ae_title
from stowkeeper.dicom.uid import UID_LENGTH_MAX, strip_uid
from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import COMMAND_SET_LENGTH_MAX, ERROR_COMMENT_LENGTH_MAX

# Element numbers within group 0000 (PS3.7 Table E.1-1).
COMMAND_GROUP_LENGTH: Final = 0x0000
AFFECTED_SOP_CLASS_UID: Final = 0x0002
REQUESTED_SOP_CLASS_UID: Final = 0x0003
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO: Final = 0x0120
MOVE_DESTINATION: Final = 0x0600
PRIORITY: Final = 0x0700
COMMAND_DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
ERROR_ID: Final = 0x0903
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
REQUESTED_SOP_INSTANCE_UID: Final = 0x1001
EVENT_TYPE_ID: Final = 0x1002
ATTRIBUTE_IDENTIFIER_LIST: Final = 0x1005
ACTION_TYPE_ID: Final = 0x1008
MOVE_ORIGINATOR_AE_TITLE: Final = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID: Final = 0x1031

NO_DATA_SET: Final = 0x0101
"""Command Data Set Type of a message without a data set; any other value announces one (PS3.7 §E.1)."""

_BLANK_PADDED: Final = frozenset({MOVE_DESTINATION, ERROR_COMMENT, MOVE_ORIGINATOR_AE_TITLE})
_TEXT_PADDING: Final = b"\0 "

_element_header: Final = struct.Struct("<HHI")
_unpack_element_header: Final = _element_header.unpack_from
_group_length_element: Final = struct.Struct("<HHII")


@dataclass(frozen=True, slots=True)
class CommandSet:
    """The elements of one command.

    `values` maps the element number (the low half of the tag; the group is 0000) to the value as it was received,
    padding and all. The group length is not among them. The readers below answer None where the element is absent.
    """

    values: Mapping[int, bytes]

    def number(self, element: int) -> int | None:
        """Return an unsigned 16-bit value (VR US); None also when the value is empty.

        A longer value counts by its first two bytes, so a number sent in four bytes is read too.
        """
        value = self.values.get(element)
        return int.from_bytes(value[:2], "little") if value else None

    def uid(self, element: int) -> str | None:
        """Return a UID (VR UI) without the blanks and NULs around it, whatever its characters are."""
        value = self.values.get(element)
        return None if value is None else strip_uid(value)

    def ae_title(self, element: int) -> str | None:
        """Return an AE title (VR AE) without the blanks and NULs around it; None also when nothing is left."""
        value = self.values.get(element)
        return (normalize_ae_title(value) or None) if value else None

    def text(self, element: int) -> str | None:
        """Return a text (VR LO) without the blanks and NULs around it; None also when nothing is left."""
        value = self.values.get(element)
        return (value.strip(_TEXT_PADDING).decode("latin-1") or None) if value else None

    def tags(self, element: int) -> tuple[int, ...]:
        """Return a list of tags (VR AT) as 32-bit numbers ggggeeee; trailing bytes that are no tag are left out."""
        value = self.values.get(element, b"")
        whole = len(value) - len(value) % 4
        return tuple(group << 16 | number for group, number in struct.iter_unpack("<HH", value[:whole]))


def decode_command_set(data: bytes | bytearray | memoryview) -> CommandSet:
    """Read an encoded command set (PS3.7 §6.3.1).

    The group length is not believed, and of a repeated element the last one counts. The values are copies: `data` may
    be reused afterwards.

    Raises:
        PeerError: longer than `COMMAND_SET_LENGTH_MAX`, an element of another group, a truncated element header, or a
            value that ends beyond the command set.

    """
    end = len(data)
    if end > COMMAND_SET_LENGTH_MAX:
        raise PeerError(f"Command set of {end} bytes is longer than {COMMAND_SET_LENGTH_MAX}")
    data = bytes(data)
    values: dict[int, bytes] = {}
    offset = 0
    try:
        while offset < end:
            group, element, length = _unpack_element_header(data, offset)
            start = offset + 8
            offset = start + length
            if group or offset > end:
                raise _element_error(group, element, length, end - start)
            values[element] = data[start:offset]
    except struct.error:
        raise PeerError(
            f"Command set of {end} bytes ends within an element header, at byte {offset} (PS3.7 §6.3.1)"
        ) from None
    values.pop(COMMAND_GROUP_LENGTH, None)
    return CommandSet(values)


def element_places(data: bytes) -> list[tuple[int, slice]]:
    """Return the elements of an encoded command set that `decode_command_set` takes, in their order, and where values stand."""
    places = []
    offset = 0
    while offset < len(data):
        _, element, length = _unpack_element_header(data, offset)
        start = offset + 8
        offset = start + length
        places.append((element, slice(start, offset)))
    return places


def _element_error(group: int, element: int, length: int, left: int) -> PeerError:
    tag = f"({group:04X},{element:04X})"
    if group:
        return PeerError(f"Element {tag} in a command set, whose elements all have group 0000 (PS3.7 §6.3.1)")
    return PeerError(f"Command element {tag} says it has {length} bytes, {left} are left")


def encode_command_set(values: Mapping[int, bytes]) -> bytes:
    """Write a command set: group length first, then the elements in ascending order, each of even length.

    `values` maps element numbers to raw values; a group length among them is left out, since it is computed. A value
    of odd length is padded as its VR demands: text with a blank, anything else with NUL (PS3.5 §6.2).

    Raises:
        LocalError: an element number outside 0000H to FFFFH, or a result longer than `COMMAND_SET_LENGTH_MAX`.

    """
    parts = [b""]
    for element in sorted(values):
        if element == COMMAND_GROUP_LENGTH:
            continue
        if not 0 < element <= 0xFFFF:
            raise LocalError(f"{element:#x} is not the number of a command element")
        parts.append(encode_element(element, values[element]))
    length = sum(map(len, parts))
    if length + _group_length_element.size > COMMAND_SET_LENGTH_MAX:
        raise LocalError(f"Command set of {length} bytes is longer than {COMMAND_SET_LENGTH_MAX}")
    parts[0] = encode_group_length(length)
    return b"".join(parts)


def encode_group_length(length: int) -> bytes:
    """Return the element (0000,0000) that precedes `length` bytes of other elements."""
    return _group_length_element.pack(0, COMMAND_GROUP_LENGTH, 4, length)


def encode_element(element: int, value: bytes) -> bytes:
    """Return one element of group 0000, its value padded to an even length."""
    if len(value) % 2:
        value += b" " if element in _BLANK_PADDED else b"\0"
    return _element_header.pack(0, element, len(value)) + value


def encode_number(value: int) -> bytes:
    """Return a value of VR US; a `LocalError` unless it fits sixteen bits."""
    if not 0 <= value <= 0xFFFF:
        raise LocalError(f"{value} does not fit a 16-bit command element")
    return value.to_bytes(2, "little")


def encode_uid(uid: str) -> bytes:
    """Return a value of VR UI, not padded.

    Any printable ASCII passes, since a response repeats what the request had; the rest is a `LocalError`.
    """
    return _encode_ascii(uid, "UID", UID_LENGTH_MAX)


def encode_ae_title(ae_title: str) -> bytes:
    """Return a value of VR AE, not padded; a `LocalError` unless it is 1 to 16 printable ASCII characters."""
    return _encode_ascii(ae_title, "AE title", AE_TITLE_LENGTH)


def encode_text(text: str) -> bytes:
    """Return a value of VR LO, not padded; a `LocalError` unless it is 1 to 64 printable ASCII characters."""
    return _encode_ascii(text, "Text", ERROR_COMMENT_LENGTH_MAX)


def encode_tags(tags: Iterable[int]) -> bytes:
    """Return a value of VR AT from tags as 32-bit numbers ggggeeee."""
    try:
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
    except struct.error:
        raise LocalError("A tag in a list of tags does not fit 32 bits") from None


def is_encodable(text: str, length_max: int) -> bool:
    """Tell whether `text` is 1 to `length_max` printable ASCII characters."""
    return 0 < len(text) <= length_max and text.isascii() and text.isprintable()


def _encode_ascii(text: str, what: str, length_max: int) -> bytes:
    if not is_encodable(text, length_max):
        raise LocalError(
            f"{what} of {len(text)} characters is not 1 to {length_max} printable ASCII characters"
        )
    return text.encode("ascii")
