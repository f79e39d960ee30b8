"""Instances to send: small, well-formed data sets made from a few words each, and what a sender says of them."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Self

from stowkeeper.archive.arrival import Arrival, DuplicatePolicy

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
HANGING_PROTOCOL_STORAGE = "1.2.840.10008.5.1.4.38.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

_LONG_VRS = frozenset({b"OB", b"OW", b"UN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance as its sender has it."""

    sop_instance_uid: str
    data: bytes
    sop_class_uid: str = CT_IMAGE_STORAGE
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP
    calling_ae_title: str = "SCANNER"

    def arrival(self) -> Arrival:
        """Return what the sender names with it."""
        return Arrival(
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            received_by="C-STORE",
            calling_ae_title=self.calling_ae_title,
            called_ae_title="STOWKEEPER",
            writing_ae_title="STOWKEEPER",
            peer_address="192.0.2.17",
            association_id="a-1",
            duplicates=self.duplicates,
        )

    def under_policy(self, duplicates: DuplicatePolicy) -> Self:
        """Return the same, sent by a peer with another policy for duplicates."""
        return replace(self, duplicates=duplicates)

    def sent_by(self, calling_ae_title: str) -> Self:
        """Return the same, sent by another peer."""
        return replace(self, calling_ae_title=calling_ae_title)


def make_instance(
    number: int,
    *,
    study: str = "1.2.10",
    series: str = "1.2.10.1",
    size: int = 600,
    content: int = 0,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    instance_number: int | None = None,
    integers: Mapping[int, int] = MappingProxyType({}),
) -> Instance:
    """Return instance `1.2.3.<number>` with about `size` bytes of pixels; another `content` is another version.

    `integers` are more elements of VR IS, by their tags, of the groups up to 7FDF.
    """
    uid = f"1.2.3.{number}"
    elements = [
        (0x00080016, b"UI", sop_class_uid.encode()),
        (0x00080018, b"UI", uid.encode()),
        (0x00080060, b"CS", b"CT"),
        (0x00100010, b"PN", b"Test^Patient"),
        (0x00100020, b"LO", b"P1"),
    ]
    if study:
        elements += [(0x0020000D, b"UI", study.encode()), (0x0020000E, b"UI", series.encode())]
    if instance_number is not None:
        elements.append((0x00200013, b"IS", str(instance_number).encode()))
    elements += [(tag, b"IS", str(value).encode()) for tag, value in integers.items()]
    elements.sort(key=lambda element: element[0])
    pixels = Random(f"{number} {content}").randbytes(size)
    elements.append((0x7FE00010, b"OB", pixels))
    return Instance(
        sop_instance_uid=uid, data=b"".join(encode_element(*e) for e in elements), sop_class_uid=sop_class_uid
    )


def encode_element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Encode one element in Explicit VR Little Endian (PS3.5 §7.1.2), padded to an even length."""
    if len(value) % 2:
        value += b"\0" if vr in _LONG_VRS or vr == b"UI" else b" "
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in _LONG_VRS:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value
