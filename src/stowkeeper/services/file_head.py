"""What the first bytes of a file say: where its data set begins, and which instance it is.

SOP class and instance are those of the data set, as for `send`: the file meta information of real files often names others.
What has no file meta information is taken for a data set in one of the three uncompressed encodings, by its first element;
whether that is right shows when it is parsed to its end.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.part10 import FileMeta, MoreNeeded, NotPart10, Part10Error, read_file_meta
from stowkeeper.dicom.sop_classes import SOP_CLASS_UID, SOP_INSTANCE_UID
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.dicom.uid import is_acceptable_uid, strip_uid
from stowkeeper.services.limits import FILE_HEAD_BYTES, IDENTIFIERS_BYTES

MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_IDENTIFIERS: Final = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID})


class NoInstanceError(Exception):
    """A file is not taken; the text says why. `skippable` where it is of another kind than an instance."""

    def __init__(self, words: str, *, skippable: bool = False) -> None:
        super().__init__(words)
        self.skippable = skippable


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedHead:
    """What the first bytes of a file tell: where its data set begins, and what it is.

    `values` are the elements that were asked for, as far as they stand there, in the byte order that `little_endian` says.
    """

    offset: int
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    words: str
    values: Mapping[int, bytes] = field(default_factory=dict)
    little_endian: bool = True


def describe_head(
    head: memoryview,
    *,
    is_whole: bool,
    wanted: Collection[int] = (),
) -> DescribedHead:
    """Find the data set of a file and what it is, from its first bytes; `is_whole` where they are all there are.

    `wanted` are tags of the data set that are captured beside SOP class and instance. Raises NoInstanceError.
    """
    meta = _read_meta(head, is_whole=is_whole)
    offset = meta.length if meta is not None else 0
    if meta is not None and meta.media_storage_sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        raise NoInstanceError("it is a DICOMDIR, which lists other files", skippable=True)
    syntax = meta.transfer_syntax_uid if meta is not None else ""
    syntax = syntax or _guess_transfer_syntax(head[offset:])
    if not syntax:
        raise NoInstanceError(
            "its file meta information names no transfer syntax, and its data set does not show it"
        )
    values, little_endian = _scan(head[offset:], syntax, _IDENTIFIERS | set(wanted))
    sop_class = strip_uid(values.get(SOP_CLASS_UID, b""))
    sop_instance = strip_uid(values.get(SOP_INSTANCE_UID, b""))
    words = ""
    if meta is not None:
        stated = meta.media_storage_sop_instance_uid
        if stated and sop_instance and stated != sop_instance:
            words = f"its file meta information names another instance ({stated})"
        sop_class = sop_class or meta.media_storage_sop_class_uid
        sop_instance = sop_instance or stated
    for what, uid in (("SOP Class UID", sop_class), ("SOP Instance UID", sop_instance)):
        if not is_acceptable_uid(uid):
            raise NoInstanceError(f"it has {'a malformed' if uid else 'no'} {what}")
    return DescribedHead(
        offset=offset,
        transfer_syntax_uid=syntax,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        words=words,
        values=values,
        little_endian=little_endian,
    )


def _read_meta(head: memoryview, *, is_whole: bool) -> FileMeta | None:
    """Read file meta information, with a preamble or without; None in front of a bare data set."""
    wanted = FILE_HEAD_BYTES
    preamble_required = True
    while True:
        part = head[:wanted]
        try:
            return read_file_meta(
                part, whole=is_whole and len(part) == len(head), preamble_required=preamble_required
            )
        except MoreNeeded as more:
            if more.total > len(head):
                raise NoInstanceError(f"its file meta information is longer than {len(head)} bytes") from None
            wanted = more.total
        except NotPart10:
            if _guess_transfer_syntax(head):
                return None
            if not preamble_required:
                raise NoInstanceError("it is no DICOM file", skippable=True) from None
            preamble_required = False
        except Part10Error as error:
            if not preamble_required:
                raise NoInstanceError("it is no DICOM file", skippable=True) from None
            raise NoInstanceError(str(error)) from None


def _guess_transfer_syntax(data: memoryview) -> str:
    """Tell the encoding of a bare data set by its first element, one of group 0008; '' if it is none.

    Explicit VR shows its two letters; implicit VR, the default (PS3.5 §10.1), a length that is small.
    """
    tag, vr = bytes(data[:4]), bytes(data[4:6])
    has_vr = len(vr) == 2 and vr.isalpha() and vr.isupper()
    if tag[:2] == b"\x08\0" and tag[2:] <= b"\x18\0" and tag[3:] == b"\0":
        if has_vr:
            return EXPLICIT_VR_LITTLE_ENDIAN
        return IMPLICIT_VR_LITTLE_ENDIAN if bytes(data[6:8]) == b"\0\0" else ""
    if tag[:2] == b"\0\x08" and tag[2:] <= b"\0\x18" and has_vr:
        return EXPLICIT_VR_BIG_ENDIAN
    return ""


def _scan(
    data: memoryview, transfer_syntax_uid: str, wanted: frozenset[int]
) -> tuple[Mapping[int, bytes], bool]:
    """Return elements of a data set, those that are among the bytes given, and whether they are little endian."""
    values: Mapping[int, bytes] = {}
    little_endian = True
    for length in (IDENTIFIERS_BYTES, FILE_HEAD_BYTES, len(data)):
        scanner = HeaderScanner(transfer_syntax_uid, wanted)
        scanner.feed(data[:length])
        scan = scanner.finish()
        values, little_endian = scan.values, scan.little_endian
        if values.keys() >= wanted:
            break
    return values, little_endian
