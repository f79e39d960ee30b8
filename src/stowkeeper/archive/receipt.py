"""The receipt: what a file says of its own coming, and the proof that it is whole.

Every file of the archive carries one in its file meta information, as private information
(0002,0102) under our creator UID (0002,0100), PS3.10 §7.1. It is the last element, so it ends where
the data set begins. Its size is fixed: while an instance arrives it is all zeros, and it is written
when the last byte of the data set is there.

A receipt holds identifiers, a digest and a time, and no patient data. Its checksum covers the
preamble and the whole file meta information with the checksum's own field as zeros, the digest covers
the data set: so no byte of the file is outside the proof.
"""

import itertools
import json
import secrets
import struct
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from blake3 import blake3

from stowkeeper.dicom.part10 import PREFIX, encode_file_meta
from stowkeeper.dicom.uid import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    RECEIPT_CREATOR_UID,
)

RECEIPT_LENGTH = 1024
"""Bytes of the receipt in a file. The longest legal one (three UIDs of 64, two AE titles whose every
character needs a JSON escape) takes under 1000."""

RECEIPT_VERSION = 1

CHECKSUM_LENGTH = 32
_GROUP_LENGTH_LENGTH = 12
_EMPTY_CHECKSUM = b"0" * CHECKSUM_LENGTH
_OPENING = b'{"checksum":"'
_CHECKSUM_START = len(_OPENING)
_CHECKSUM_END = _CHECKSUM_START + CHECKSUM_LENGTH

EMPTY_RECEIPT = bytes(RECEIPT_LENGTH)


class ReceiptUnreadableError(ValueError):
    """The bytes where a receipt should be are neither zeros nor a receipt of ours."""


class ReceiptTooLongError(ValueError):
    """A receipt does not fit its fixed place; an identifier in it is longer than the standard allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One act of receiving: which instance, how many bytes, with which digest, when, and from whom.

    `digest` is BLAKE3-256 of the data set bytes in hexadecimal, `data_set_length` their number.
    `received_at` is UTC in ISO 8601 with microseconds. `received_by` is the way in: C-STORE, STOW-RS
    or import.
    """

    receipt_id: str
    digest: str
    data_set_length: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    received_at: str
    received_by: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    association_id: str

    def encode(self, checksum: bytes = _EMPTY_CHECKSUM) -> bytes:
        """Return the receipt's bytes, padded with blanks to RECEIPT_LENGTH.

        Raises ReceiptTooLongError when it does not fit.
        """
        # The checksum stands first, at a fixed offset. Written by hand, since this is on the path of every answer.
        quoted = json.encoder.encode_basestring_ascii
        text = (
            f'","version":{RECEIPT_VERSION},"receipt_id":{quoted(self.receipt_id)},"digest":{quoted(self.digest)}'
            f',"data_set_length":{self.data_set_length},"sop_class_uid":{quoted(self.sop_class_uid)}'
            f',"sop_instance_uid":{quoted(self.sop_instance_uid)}'
            f',"transfer_syntax_uid":{quoted(self.transfer_syntax_uid)},"received_at":{quoted(self.received_at)}'
            f',"received_by":{quoted(self.received_by)},"calling_ae_title":{quoted(self.calling_ae_title)}'
            f',"called_ae_title":{quoted(self.called_ae_title)},"peer_address":{quoted(self.peer_address)}'
            f',"association_id":{quoted(self.association_id)}}}'
        )
        payload = _OPENING + checksum + text.encode("ascii")
        if len(payload) > RECEIPT_LENGTH:
            msg = f"the receipt of {self.sop_instance_uid} takes {len(payload)} bytes, {RECEIPT_LENGTH} are there"
            raise ReceiptTooLongError(msg)
        return payload.ljust(RECEIPT_LENGTH)

    @classmethod
    def decode(cls, payload: bytes) -> Self | None:
        """Read a receipt; None when its place holds zeros only.

        Raises ReceiptUnreadableError for anything else that is not a receipt.
        """
        if not payload.strip(b"\0"):
            return None
        try:
            fields = json.loads(payload)
            if fields.pop("version") != RECEIPT_VERSION:
                msg = "it is of another version"
                raise ReceiptUnreadableError(msg)
            fields.pop("checksum")
            receipt = cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = "the place of the receipt holds something else"
            raise ReceiptUnreadableError(msg) from error
        if type(fields["data_set_length"]) is not int or not all(
            isinstance(value, str) for name, value in fields.items() if name != "data_set_length"
        ):
            msg = "a field of the receipt has the wrong type"
            raise ReceiptUnreadableError(msg)
        return receipt


class ReceiptIds:
    """Makes receipt ids: 32 hexadecimal digits, unique, and in the order of time within a process."""

    __slots__ = ("_counter", "_process")

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._counter = itertools.count()

    def next(self, nanoseconds: int) -> str:
        """Return the id of a receipt of this moment (nanoseconds since 1970)."""
        return f"{nanoseconds:016x}{self._process}{next(self._counter) & 0xFFFFFFFF:08x}"


def timestamp(nanoseconds: int) -> str:
    """Write nanoseconds since 1970 as UTC in ISO 8601 with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_format_seconds(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=8)
def _format_seconds(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def encode_head(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    writing_ae_title: str = "",
    sending_ae_title: str = "",
    receiving_ae_title: str = "",
    preamble: bytes = b"",
) -> bytes:
    """Return preamble and file meta information of a file of the archive, with an empty receipt.

    (0002,0016) names the application entity that wrote the file, (0002,0017) and (0002,0018) the ones
    that sent and received it over the network (PS3.10 §7.1); an empty title leaves its element out. `preamble` has 128
    bytes, or is empty for zeros.
    """
    instance = sop_instance_uid.encode("ascii")
    instance += b"\0" * (len(instance) % 2)
    before, after = _constant_parts(
        sop_class_uid, transfer_syntax_uid, writing_ae_title, sending_ae_title, receiving_ae_title
    )
    length = len(before) + 8 + len(instance) + len(after)
    return b"".join(
        (_group_length(length, preamble), before, _instance_header(len(instance)), instance, after)
    )


_group_length_element = struct.Struct("<132sHH2sHI")
_FIRST_ELEMENT_END = _group_length_element.size
_short_element_header = struct.Struct("<HH2sH")


def _group_length(length: int, preamble: bytes) -> bytes:
    """Return the preamble, the prefix and (0002,0000)."""
    return _group_length_element.pack(
        (preamble or PREFIX[:-4]) + PREFIX[-4:], 0x0002, 0x0000, b"UL", 4, length
    )


def _instance_header(length: int) -> bytes:
    return _short_element_header.pack(0x0002, 0x0003, b"UI", length)


# What an association's heads have in common; its identifiers come from peers, so there is a bound.
@lru_cache(maxsize=256)
def _constant_parts(
    sop_class_uid: str,
    transfer_syntax_uid: str,
    writing_ae_title: str,
    sending_ae_title: str,
    receiving_ae_title: str,
) -> tuple[bytes, bytes]:
    """Return the encoded elements before and after (0002,0003), which is the only one that every instance changes."""
    before = [
        (0x00020001, b"OB", b"\0\1"),
        (0x00020002, b"UI", sop_class_uid.encode("ascii")),
    ]
    after = [
        (0x00020010, b"UI", transfer_syntax_uid.encode("ascii")),
        (0x00020012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
        (0x00020013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    for tag, title in (
        (0x00020016, writing_ae_title),
        (0x00020017, sending_ae_title),
        (0x00020018, receiving_ae_title),
    ):
        if title:
            after.append((tag, b"AE", title.encode("latin-1", "replace")))
    after.append((0x00020100, b"UI", RECEIPT_CREATOR_UID.encode("ascii")))
    after.append((0x00020102, b"OB", EMPTY_RECEIPT))
    return encode_file_meta(before)[_GROUP_LENGTH_LENGTH:], encode_file_meta(after)[_GROUP_LENGTH_LENGTH:]


def seal_head(head: bytes, receipt: Receipt) -> bytes:
    """Return the head with the receipt in its place, its checksum computed over the whole."""
    bare = head[:-RECEIPT_LENGTH]
    payload = receipt.encode()
    checksum = blake3(bare + payload).hexdigest()[:CHECKSUM_LENGTH].encode("ascii")
    return bare + payload[:_CHECKSUM_START] + checksum + payload[_CHECKSUM_END:]


def checksum_holds(head: bytes) -> bool:
    """Tell whether the checksum in a sealed head fits all its other bytes."""
    bare, payload = head[:-RECEIPT_LENGTH], head[-RECEIPT_LENGTH:]
    if not payload.startswith(_OPENING):
        return False
    stated = payload[_CHECKSUM_START:_CHECKSUM_END]
    blank = payload[:_CHECKSUM_START] + _EMPTY_CHECKSUM + payload[_CHECKSUM_END:]
    return blake3(bare + blank).hexdigest()[:CHECKSUM_LENGTH].encode("ascii") == stated


def read_sealed_head(beginning: bytes) -> tuple[int, Receipt] | None:
    """Return the length of the head at the beginning of a file and the receipt in it, where its checksum fits.

    The checksum is over every byte of the head, so one that fits is a head as we wrote it, and its elements need no look.
    None says nothing of the file but that it takes one.
    """
    if len(beginning) < _FIRST_ELEMENT_END:
        return None
    length = _FIRST_ELEMENT_END + int.from_bytes(
        beginning[_FIRST_ELEMENT_END - 4 : _FIRST_ELEMENT_END], "little"
    )
    if not _FIRST_ELEMENT_END + RECEIPT_LENGTH <= length <= len(beginning):
        return None
    head = beginning[:length]
    if not checksum_holds(head):
        return None
    try:
        receipt = Receipt.decode(head[-RECEIPT_LENGTH:])
    except ReceiptUnreadableError:
        return None
    return None if receipt is None else (length, receipt)


def holds_sealed_receipt(head: bytes) -> bool:
    """Tell whether the beginning of a receipt stands somewhere in a head that cannot be read."""
    return _OPENING in head
