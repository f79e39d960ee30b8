"""Part 10 files to send, made from a few words each."""

import struct
from pathlib import Path

from stowkeeper.dicom.part10 import PREFIX, encode_file_meta
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

LONG_AGO_NS = 1_000_000_000_000_000_000
"""When files were written that a test writes to again: however soon it does, their time is another one then."""


def data_set_of(
    sop_instance_uid: str,
    *,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    pixels: bytes = b"12345678",
) -> bytes:
    """Return a small data set; encapsulated syntaxes get their pixels as they are."""
    order = ">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<"

    def short(tag: int, vr: bytes, text: str) -> bytes:
        value = text.encode() + (b"\0" if vr == b"UI" else b" ") * (len(text) % 2)
        return struct.pack(order + "HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value

    return (
        short(0x00080016, b"UI", sop_class_uid)
        + short(0x00080018, b"UI", sop_instance_uid)
        + short(0x0020000D, b"UI", "1.2.4")
        + short(0x0020000E, b"UI", "1.2.5")
        + struct.pack(order + "HH2sxxI", 0x7FE0, 0x0010, b"OW", len(pixels))
        + pixels
    )


def file_head(
    sop_instance_uid: str,
    *,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    receipt: bytes = b"",
) -> bytes:
    """Return preamble, prefix and file meta information, with a receipt as the archive writes it if one is given."""
    elements = [
        (0x00020002, b"UI", sop_class_uid.encode()),
        (0x00020003, b"UI", sop_instance_uid.encode()),
        (0x00020010, b"UI", transfer_syntax_uid.encode()),
    ]
    if receipt:
        elements += [(0x00020100, b"UI", RECEIPT_CREATOR_UID.encode()), (0x00020102, b"OB", receipt)]
    return PREFIX + encode_file_meta(elements)


def write_file(
    path: Path,
    number: int = 1,
    *,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    pixels: bytes = b"12345678",
    receipt: bytes = b"",
) -> bytes:
    """Write instance `1.2.3.<number>` into a file; return its data set."""
    uid = f"1.2.3.{number}"
    data_set = data_set_of(
        uid, sop_class_uid=sop_class_uid, transfer_syntax_uid=transfer_syntax_uid, pixels=pixels
    )
    head = file_head(
        uid, sop_class_uid=sop_class_uid, transfer_syntax_uid=transfer_syntax_uid, receipt=receipt
    )
    path.write_bytes(head + data_set)
    return data_set
