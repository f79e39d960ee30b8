"""The file meta information of received instances, with the elements that DCMTK's receivers write (PS3.10 §7.1)."""

import struct
from functools import lru_cache
from typing import Final

from stowkeeper.dicom.part10 import (
    FILE_META_INFORMATION_VERSION,
    MEDIA_STORAGE_SOP_CLASS_UID,
    MEDIA_STORAGE_SOP_INSTANCE_UID,
    PREFIX,
    SOURCE_APPLICATION_ENTITY_TITLE,
    TRANSFER_SYNTAX_UID,
    Element,
    encode_file_meta,
)
from stowkeeper.dicom.part10 import IMPLEMENTATION_CLASS_UID as IMPLEMENTATION_CLASS_UID_TAG
from stowkeeper.dicom.part10 import IMPLEMENTATION_VERSION_NAME as IMPLEMENTATION_VERSION_NAME_TAG
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, generate_uid

_GROUP_LENGTH: Final = b"\2\0\0\0UL\4\0"
"""The header of (0002,0000), whose value of four bytes follows."""

_SOP_INSTANCE_UID: Final = divmod(MEDIA_STORAGE_SOP_INSTANCE_UID, 0x10000)
_short_header: Final = struct.Struct("<HH2sH").pack

NO_SOP_CLASS_UID: Final = "2.25.227423661739342974956128951334951113195"
"""Stands for the SOP class in files of instances that have none. It is the same in all releases."""


def encode_meta(
    *,
    sop_class_uid: str | None,
    sop_instance_uid: str | None,
    transfer_syntax_uid: str,
    source_application_entity_title: str | None,
) -> bytes:
    """Encode all that stands before the data set in a file: preamble, prefix and file meta information.

    The UIDs are those of the data set (see `identity`), or those of the command where bytes are preserved. A UID that
    is None is not there: then NO_SOP_CLASS_UID or a new UID takes its place. `transfer_syntax_uid` is that of the data
    set as written. The source is the calling AE title, which `dcmrecv` leaves out unless it preserves bytes.
    """
    before, behind = _constant_parts(
        NO_SOP_CLASS_UID if sop_class_uid is None else sop_class_uid,
        transfer_syntax_uid,
        source_application_entity_title,
    )
    instance_uid = _encoded(generate_uid() if sop_instance_uid is None else sop_instance_uid)
    if len(instance_uid) & 1:
        instance_uid += b"\0"
    header = _short_header(*_SOP_INSTANCE_UID, b"UI", len(instance_uid))
    length = len(before) + len(header) + len(instance_uid) + len(behind)
    group_length = length.to_bytes(4, "little")
    return b"".join((PREFIX, _GROUP_LENGTH, group_length, before, header, instance_uid, behind))


@lru_cache(maxsize=256)  # what differs between the instances of an association is the SOP Instance UID alone
def _constant_parts(
    sop_class_uid: str, transfer_syntax_uid: str, source_application_entity_title: str | None
) -> tuple[bytes, bytes]:
    """Encode the elements before the SOP Instance UID, and those behind it."""
    behind: list[Element] = [
        (TRANSFER_SYNTAX_UID, b"UI", _encoded(transfer_syntax_uid)),
        (IMPLEMENTATION_CLASS_UID_TAG, b"UI", _encoded(IMPLEMENTATION_CLASS_UID)),
        (IMPLEMENTATION_VERSION_NAME_TAG, b"SH", _encoded(IMPLEMENTATION_VERSION_NAME)),
    ]
    if source_application_entity_title is not None:
        behind.append((SOURCE_APPLICATION_ENTITY_TITLE, b"AE", _encoded(source_application_entity_title)))
    before: list[Element] = [
        (FILE_META_INFORMATION_VERSION, b"OB", b"\0\1"),
        (MEDIA_STORAGE_SOP_CLASS_UID, b"UI", _encoded(sop_class_uid)),
    ]
    return _elements(before), _elements(behind)


def _elements(elements: list[Element]) -> bytes:
    """Encode elements without a group length in front."""
    return encode_file_meta(elements)[len(_GROUP_LENGTH) + 4 :]


def _encoded(text: str) -> bytes:
    return text.encode("latin-1", "replace")
