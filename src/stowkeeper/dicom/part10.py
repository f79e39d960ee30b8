"""The head of a DICOM file: preamble, prefix and file meta information (PS3.10 §7.1).

Written as the standard says, and read as files really are: with a group length that is absent or wrong, in
implicit VR, with values of odd length or padded with what came to hand. The data set behind the head is not
looked at here; header.py does that.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.ae_title import normalize_ae_title
from stowkeeper.dicom.elements import SHORT_VRS, Buffer, format_tag
from stowkeeper.dicom.limits import FILE_META_LENGTH_MAX
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import strip_uid

PREFIX: Final = bytes(128) + b"DICM"
"""An empty preamble and the prefix, with which a file begins (PS3.10 §7.1)."""

Element = tuple[int, bytes, bytes]
"""A tag as the 32-bit number ggggeeee, a VR, and a value."""

GROUP_LENGTH: Final = 0x00020000
FILE_META_INFORMATION_VERSION: Final = 0x00020001
MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x00020002
MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x00020003
TRANSFER_SYNTAX_UID: Final = 0x00020010
IMPLEMENTATION_CLASS_UID: Final = 0x00020012
IMPLEMENTATION_VERSION_NAME: Final = 0x00020013
SOURCE_APPLICATION_ENTITY_TITLE: Final = 0x00020016
SENDING_APPLICATION_ENTITY_TITLE: Final = 0x00020017
RECEIVING_APPLICATION_ENTITY_TITLE: Final = 0x00020018
PRIVATE_INFORMATION_CREATOR_UID: Final = 0x00020100
PRIVATE_INFORMATION: Final = 0x00020102

_VR_OF = {
    GROUP_LENGTH: b"UL",
    FILE_META_INFORMATION_VERSION: b"OB",
    MEDIA_STORAGE_SOP_CLASS_UID: b"UI",
    MEDIA_STORAGE_SOP_INSTANCE_UID: b"UI",
    TRANSFER_SYNTAX_UID: b"UI",
    IMPLEMENTATION_CLASS_UID: b"UI",
    IMPLEMENTATION_VERSION_NAME: b"SH",
    SOURCE_APPLICATION_ENTITY_TITLE: b"AE",
    SENDING_APPLICATION_ENTITY_TITLE: b"AE",
    RECEIVING_APPLICATION_ENTITY_TITLE: b"AE",
    PRIVATE_INFORMATION_CREATOR_UID: b"UI",
    PRIVATE_INFORMATION: b"OB",
}
"""VRs of group 0002 (PS3.6 §7), for heads in implicit VR."""

_NUL_PADDED = frozenset((b"UI", b"OB", b"UN"))
_pack_short = struct.Struct("<HH2sH").pack
_pack_long = struct.Struct("<HH2sxxI").pack
_unpack_tag = struct.Struct("<HH").unpack_from
_unpack_length = struct.Struct("<I").unpack_from


class Part10Error(ValueError):
    """The head of a file cannot be read."""


class NotPart10(Part10Error):  # noqa: N818 - says what the file is, its base says that it is an error
    """There is no DICM prefix where one belongs: this is another kind of file, or a bare data set."""


class InvalidFileMeta(Part10Error):  # noqa: N818 - as above
    """The prefix is there, but what follows is no file meta information."""


class MoreNeeded(Exception):  # noqa: N818 - it is a request, not an error
    """The head is not whole: read the first `total` bytes of the file, as far as it has them, and try again."""

    def __init__(self, total: int) -> None:
        super().__init__(f"the first {total} bytes of the file are needed")
        self.total = total


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """File meta information (PS3.10 Table 7.1-1). A text that is absent is empty."""

    media_storage_sop_class_uid: str
    media_storage_sop_instance_uid: str
    transfer_syntax_uid: str
    implementation_class_uid: str
    implementation_version_name: str
    source_application_entity_title: str
    sending_application_entity_title: str
    receiving_application_entity_title: str
    private_information_creator_uid: str
    private_information: bytes
    """As it stands in the file, padding included."""

    elements: tuple[Element, ...]
    """All elements in the order of the file, the group length among them, values as they stand there."""

    length: int
    """Bytes from the beginning of the file to its data set."""


def encode_file_meta(elements: Iterable[Element]) -> bytes:
    """Encode file meta information in explicit VR little endian, its group length first (PS3.10 §7.1).

    `elements` come in ascending order without (0002,0000), which is computed. Odd values are padded: UI, OB
    and UN with NUL, all else with a blank (PS3.5 §6.2). The preamble is not part of it; see PREFIX. Raises
    ValueError for a value that is longer than its VR can have.
    """
    parts = []
    for tag, vr, value in elements:
        length = len(value)
        padding = b""
        if length & 1:
            padding = b"\0" if vr in _NUL_PADDED else b" "
            length += 1
        if vr in SHORT_VRS:
            if length > 0xFFFF:
                msg = f"{format_tag(tag)} has {length} bytes, its VR allows 65534 at most"
                raise ValueError(msg)
            parts.append(_pack_short(tag >> 16, tag & 0xFFFF, vr, length))
        else:
            parts.append(_pack_long(tag >> 16, tag & 0xFFFF, vr, length))
        parts.append(value)
        parts.append(padding)
    group = b"".join(parts)
    return b"\2\0\0\0UL\4\0" + len(group).to_bytes(4, "little") + group


def read_file_meta(head: Buffer, *, whole: bool = False, preamble_required: bool = True) -> FileMeta:
    """Read the head of a file from `head`, its first bytes: as many as there are, or a few thousand.

    `whole` says that the file ends with `head`. Without `preamble_required`, a file may also begin with the
    bare prefix or with the first element of group 0002.

    Raises NotPart10, InvalidFileMeta, and MoreNeeded when the head goes on behind `head`, which never
    happens if `whole`.
    """
    data = bytes(head[:FILE_META_LENGTH_MAX])
    whole = whole and len(head) == len(data)
    start = _find_group(data, whole=whole, preamble_required=preamble_required)
    elements, end = _read_group(data, start, whole=whole)
    if not elements:
        msg = f"no file meta information stands at offset {start}: the file is damaged or was cut"
        raise InvalidFileMeta(msg)
    values: dict[int, bytes] = {}
    for tag, _, value in elements:
        values.setdefault(tag, value)
    return FileMeta(
        media_storage_sop_class_uid=strip_uid(values.get(MEDIA_STORAGE_SOP_CLASS_UID, b"")),
        media_storage_sop_instance_uid=strip_uid(values.get(MEDIA_STORAGE_SOP_INSTANCE_UID, b"")),
        transfer_syntax_uid=strip_uid(values.get(TRANSFER_SYNTAX_UID, b"")),
        implementation_class_uid=strip_uid(values.get(IMPLEMENTATION_CLASS_UID, b"")),
        implementation_version_name=normalize_ae_title(values.get(IMPLEMENTATION_VERSION_NAME, b"")),
        source_application_entity_title=normalize_ae_title(values.get(SOURCE_APPLICATION_ENTITY_TITLE, b"")),
        sending_application_entity_title=normalize_ae_title(
            values.get(SENDING_APPLICATION_ENTITY_TITLE, b"")
        ),
        receiving_application_entity_title=normalize_ae_title(
            values.get(RECEIVING_APPLICATION_ENTITY_TITLE, b"")
        ),
        private_information_creator_uid=strip_uid(values.get(PRIVATE_INFORMATION_CREATOR_UID, b"")),
        private_information=values.get(PRIVATE_INFORMATION, b""),
        elements=tuple(elements),
        length=end,
    )


def _find_group(data: bytes, *, whole: bool, preamble_required: bool) -> int:
    """Return the offset at which group 0002 should begin."""
    if data[128:132] == b"DICM":
        return 132
    if len(data) < 132 and not whole:
        raise MoreNeeded(132)
    if not preamble_required and data.startswith(b"DICM"):
        return 4
    if not preamble_required and data.startswith(b"\2\0"):
        return 0
    msg = "there is no DICM prefix at offset 128: this is no DICOM file, or a data set without its head"
    raise NotPart10(msg)


def _read_group(data: bytes, start: int, *, whole: bool) -> tuple[list[Element], int]:
    """Read the elements of group 0002 from `start` on; return them and the offset behind them.

    The group ends where another begins. The group length is only believed where that cannot be told: at
    the end of `data`, and in front of a deflated data set, which may begin with any bytes.
    """
    elements: list[Element] = []
    explicit = data[start + 4 : start + 6].isalpha() and data[start + 4 : start + 6].isupper()
    position = start
    promised = -1
    while position != promised or (position + 8 <= len(data) and not _is_deflated(elements)):
        if position + 8 > len(data) and whole:
            break
        if position + 8 > len(data):
            raise _more(position + 8, promised)
        group, number = _unpack_tag(data, position)
        if group != 0x0002:
            break
        tag = group << 16 | number
        vr, value_at, length = _read_header(data, position, tag, explicit=explicit)
        end = value_at + length
        if end > len(data) and whole:
            msg = f"the file ends inside {format_tag(tag)} at offset {position}: it was cut"
            raise InvalidFileMeta(msg)
        if end > len(data):
            raise _more(end, promised)
        elements.append((tag, vr, data[value_at:end]))
        position = end
        if tag == GROUP_LENGTH and length == 4:
            promised = end + _unpack_length(data, value_at)[0]
    return elements, position


def _read_header(data: bytes, position: int, tag: int, *, explicit: bool) -> tuple[bytes, int, int]:
    """Return VR, offset and length of the value of the element at `position`.

    Of a header that is not all there, the offset behind it and no length.
    """
    if not explicit:
        return _VR_OF.get(tag, b"UN"), position + 8, _unpack_length(data, position + 4)[0]
    vr = data[position + 4 : position + 6]
    if vr in SHORT_VRS:
        return vr, position + 8, data[position + 6] | data[position + 7] << 8
    if not (vr.isalpha() and vr.isupper()):
        msg = (
            f"the VR of {format_tag(tag)} at offset {position} is not two uppercase letters: repair the file"
        )
        raise InvalidFileMeta(msg)
    if position + 12 > len(data):
        return vr, position + 12, 0
    return vr, position + 12, _unpack_length(data, position + 8)[0]


def _more(needed: int, promised: int) -> Part10Error | MoreNeeded:
    """Return what to raise where `data` ends too early, with the group length as a hint for the next try."""
    if needed > FILE_META_LENGTH_MAX:
        return InvalidFileMeta(
            f"the file meta information is longer than {FILE_META_LENGTH_MAX} bytes: repair the file"
        )
    return MoreNeeded(max(needed, promised if promised <= FILE_META_LENGTH_MAX else 0))


def _is_deflated(elements: list[Element]) -> bool:
    uid = next((value for tag, _, value in elements if tag == TRANSFER_SYNTAX_UID), b"")
    syntax = TRANSFER_SYNTAXES.get(strip_uid(uid))
    return syntax is not None and syntax.deflated
