"""What storage commitment requests and reports say: the data sets of N-ACTION and N-EVENT-REPORT (PS3.4 §J.3).

Reading is lenient where a request is clear all the same: what is not asked for is passed over, be it retired, private or
unknown, lengths may be defined or not, and UIDs padded in any way. It is strict where something would be promised that
was not understood: an identifier that is missing or is none, a sequence cut short, an element given twice.
"""

import struct
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.ae_title import is_valid_ae_title, normalize_ae_title
from stowkeeper.dicom.elements import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    ITEM,
    Encoding,
    format_tag,
)
from stowkeeper.dicom.limits import AE_TITLES_READ_MAX, REFERENCES_MAX
from stowkeeper.dicom.small_data_set import DataSetError, ItemTaker, Values, read_small_data_set
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.dicom.uid import is_acceptable_uid, strip_uid

RETRIEVE_AE_TITLE: Final = 0x00080054
REFERENCED_SOP_CLASS_UID: Final = 0x00081150
REFERENCED_SOP_INSTANCE_UID: Final = 0x00081155
TRANSACTION_UID: Final = 0x00081195
FAILURE_REASON: Final = 0x00081197
FAILED_SOP_SEQUENCE: Final = 0x00081198
REFERENCED_SOP_SEQUENCE: Final = 0x00081199

REQUEST_STORAGE_COMMITMENT: Final = 1
"""Action Type ID of the one action there is (PS3.4 Table J.3-1)."""

STORAGE_COMMITMENT_SUCCESSFUL: Final = 1
"""Event Type ID of a report in which every instance is committed (PS3.4 Table J.3-2)."""

STORAGE_COMMITMENT_FAILURES_EXIST: Final = 2
"""Event Type ID of a report in which any instance is not (PS3.4 Table J.3-2)."""

COMMITMENT_TRANSFER_SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
"""The transfer syntaxes that these data sets are read and written in. Nothing is gained by compressing them."""

_ENCODINGS: Final = dict(
    zip(
        COMMITMENT_TRANSFER_SYNTAXES,
        (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN),
        strict=True,
    )
)
_NAMES: Final = {
    REFERENCED_SOP_CLASS_UID: "Referenced SOP Class UID",
    REFERENCED_SOP_INSTANCE_UID: "Referenced SOP Instance UID",
    TRANSACTION_UID: "Transaction UID",
    FAILURE_REASON: "Failure Reason",
    REFERENCED_SOP_SEQUENCE: "Referenced SOP Sequence",
}
_WANTED_OF_ITEM: Final = frozenset({REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID, RETRIEVE_AE_TITLE})
_WANTED_OF_FAILED_ITEM: Final = _WANTED_OF_ITEM | {FAILURE_REASON}


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance, as a request or a report names it. Both UIDs of one that came by DICOM have 1 to 64 digits and dots."""

    sop_class_uid: str
    sop_instance_uid: str

    @property
    def is_of_uids(self) -> bool:
        """Tell whether both names are UIDs, so that a request can hold them; what came otherwise may have any text."""
        return is_acceptable_uid(self.sop_class_uid) and is_acceptable_uid(self.sop_instance_uid)


@dataclass(frozen=True, slots=True)
class ActionInformation:
    """What a request asks for (PS3.4 Table J.3-1): that these instances be kept. None is left out, a repeated one is repeated."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class FailedReference:
    """An instance that is not committed, and the Failure Reason, one of PS3.3 §C.14.1.1 or whatever else a peer says."""

    reference: Reference
    reason: int


@dataclass(frozen=True, slots=True)
class EventInformation:
    """What a report says (PS3.4 Table J.3-2). `retrieve_ae_title` is empty where none, or none that is valid, was given."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[FailedReference, ...]
    retrieve_ae_title: str = ""


class CommitmentInformationError(ValueError):
    """A request or report that cannot be taken; its text is for people and names no value that came with it.

    `element` is the tag that it is about, None where it is about none. `too_many` tells that nothing is wrong with the
    data set but its size: it has more than REFERENCES_MAX references.
    """

    def __init__(self, words: str, element: int | None = None, *, too_many: bool = False) -> None:
        super().__init__(words)
        self.element = element
        self.too_many = too_many


# Reading


def decode_action_information(data: bytes, transfer_syntax_uid: str) -> ActionInformation:
    """Read the data set of a storage commitment request.

    Raises:
        CommitmentInformationError: it does not parse, has no Transaction UID or no item, an item without its UIDs, a UID
            that is none, or too many items; or the transfer syntax is none of COMMITMENT_TRANSFER_SYNTAXES.

    """
    references = _References()
    values = _read(
        data,
        transfer_syntax_uid,
        frozenset({TRANSACTION_UID}),
        {REFERENCED_SOP_SEQUENCE: (_WANTED_OF_ITEM, references.take)},
    )
    transaction_uid = _uid(values, TRANSACTION_UID)
    if not references.committed:
        raise CommitmentInformationError(
            f"the {_named(REFERENCED_SOP_SEQUENCE)} has no items", REFERENCED_SOP_SEQUENCE
        )
    return ActionInformation(transaction_uid, tuple(references.committed))


def decode_event_information(data: bytes, transfer_syntax_uid: str) -> EventInformation:
    """Read the data set of a storage commitment report.

    A sequence without items is as good as none, and both may be: whether a report is about what was asked for is to be
    seen by who asked. A failed item without Failure Reason counts as a processing failure (0110H).

    Raises:
        CommitmentInformationError: as by `decode_action_information`, but for items that are missing.

    """
    references = _References()
    values = _read(
        data,
        transfer_syntax_uid,
        frozenset({TRANSACTION_UID, RETRIEVE_AE_TITLE}),
        {
            REFERENCED_SOP_SEQUENCE: (_WANTED_OF_ITEM, references.take),
            FAILED_SOP_SEQUENCE: (_WANTED_OF_FAILED_ITEM, references.take_failed),
        },
    )
    return EventInformation(
        _uid(values, TRANSACTION_UID),
        tuple(references.committed),
        tuple(
            FailedReference(reference, _failure_reason(reason, _ENCODINGS[transfer_syntax_uid]))
            for reference, reason in references.failed
        ),
        _ae_title(values) or references.retrieve_ae_title,
    )


class _References:
    """Gathers the items of both sequences."""

    __slots__ = ("_classes", "committed", "failed", "retrieve_ae_title")

    def __init__(self) -> None:
        self._classes: dict[bytes, str] = {}
        self.committed: list[Reference] = []
        self.failed: list[tuple[Reference, bytes]] = []
        self.retrieve_ae_title = ""

    def take(self, values: Values) -> None:
        self.committed.append(self._reference(values))

    def take_failed(self, values: Values) -> None:
        self.failed.append((self._reference(values), values.get(FAILURE_REASON, b"")))

    def _reference(self, values: Values) -> Reference:
        if len(self.committed) + len(self.failed) >= REFERENCES_MAX:
            raise CommitmentInformationError(
                f"there are more than {REFERENCES_MAX} references", REFERENCED_SOP_SEQUENCE, too_many=True
            )
        if not self.retrieve_ae_title and RETRIEVE_AE_TITLE in values:
            self.retrieve_ae_title = _ae_title(values)
        raw_class = values.get(REFERENCED_SOP_CLASS_UID, b"")
        sop_class_uid = self._classes.get(raw_class)
        if sop_class_uid is None:  # a request names few classes, over and over
            sop_class_uid = self._classes[raw_class] = _uid(values, REFERENCED_SOP_CLASS_UID)
        return Reference(sop_class_uid, _uid(values, REFERENCED_SOP_INSTANCE_UID))


def _read(
    data: bytes,
    transfer_syntax_uid: str,
    wanted: Container[int],
    sequences: Mapping[int, tuple[Container[int], ItemTaker]],
) -> Values:
    try:
        return read_small_data_set(data, _encoding(transfer_syntax_uid), wanted, sequences)
    except DataSetError as error:
        raise CommitmentInformationError(str(error), error.element) from None


def _encoding(transfer_syntax_uid: str) -> Encoding:
    encoding = _ENCODINGS.get(transfer_syntax_uid)
    if encoding is None:
        raise CommitmentInformationError("its transfer syntax is none of those of storage commitment")
    return encoding


def _uid(values: Values, tag: int) -> str:
    raw = values.get(tag)
    if raw is None:
        raise CommitmentInformationError(f"the {_named(tag)} is missing", tag)
    uid = strip_uid(raw)
    if is_acceptable_uid(uid):
        return uid
    raise CommitmentInformationError(f"the {_named(tag)} is {'no UID' if uid else 'empty'}", tag)


def _ae_title(values: Values) -> str:
    """Return the first of the titles; empty when it is none. Nobody depends on it, so a defect does no harm."""
    raw = values.get(RETRIEVE_AE_TITLE, b"")[:AE_TITLES_READ_MAX]
    title = normalize_ae_title(raw.partition(b"\\")[0])
    return title if is_valid_ae_title(title) else ""


def _failure_reason(raw: bytes, encoding: Encoding) -> int:
    if not raw:
        return Status.PROCESSING_FAILURE
    if len(raw) != 2:
        raise CommitmentInformationError(f"the {_named(FAILURE_REASON)} is no number", FAILURE_REASON)
    return int.from_bytes(raw, "little" if encoding.little_endian else "big")


def _named(tag: int) -> str:
    return f"{_NAMES[tag]} {format_tag(tag)}"


# Writing


def encode_action_information(information: ActionInformation, transfer_syntax_uid: str) -> bytes:
    """Write the data set of a storage commitment request.

    Raises:
        CommitmentInformationError: no reference, too many, or a UID that is none; or a transfer syntax that is none of
            COMMITMENT_TRANSFER_SYNTAXES.

    """
    writer = _Writer(_encoding(transfer_syntax_uid))
    _check_number(len(information.references))
    return writer.uid(TRANSACTION_UID, information.transaction_uid) + writer.sequence(
        REFERENCED_SOP_SEQUENCE, (writer.reference(reference) for reference in information.references)
    )


def encode_event_information(information: EventInformation, transfer_syntax_uid: str) -> bytes:
    """Write the data set of a storage commitment report. A sequence without items is left out (PS3.4 Table J.3-2).

    Raises:
        CommitmentInformationError: as by `encode_action_information`, or a Retrieve AE Title that is none, or a Failure
            Reason that is no number of 16 bits.

    """
    writer = _Writer(_encoding(transfer_syntax_uid))
    _check_number(len(information.committed) + len(information.failed))
    pieces = []
    if information.retrieve_ae_title:
        pieces.append(writer.ae_title(RETRIEVE_AE_TITLE, information.retrieve_ae_title))
    pieces.append(writer.uid(TRANSACTION_UID, information.transaction_uid))
    if information.failed:
        failed = (
            writer.reference(failure.reference, writer.number(FAILURE_REASON, failure.reason))
            for failure in information.failed
        )
        pieces.append(writer.sequence(FAILED_SOP_SEQUENCE, failed))
    if information.committed:
        committed = (writer.reference(reference) for reference in information.committed)
        pieces.append(writer.sequence(REFERENCED_SOP_SEQUENCE, committed))
    return b"".join(pieces)


def _check_number(count: int) -> None:
    if not count:
        raise CommitmentInformationError("there is no reference", REFERENCED_SOP_SEQUENCE)
    if count > REFERENCES_MAX:
        raise CommitmentInformationError(
            f"there are {count} references, {REFERENCES_MAX} may be", REFERENCED_SOP_SEQUENCE, too_many=True
        )


class _Writer:
    """Writes elements in one encoding, all lengths defined."""

    __slots__ = ("_classes", "_element", "_encoding", "_item", "_long_element", "_number")

    def __init__(self, encoding: Encoding) -> None:
        order = "<" if encoding.little_endian else ">"
        self._encoding = encoding
        self._element = struct.Struct(order + ("HH2sH" if encoding.explicit else "HHI"))
        self._long_element = struct.Struct(order + ("HH2s2xI" if encoding.explicit else "HHI"))
        self._item = struct.Struct(order + "HHI")
        self._number = struct.Struct(order + "H")
        self._classes: dict[str, bytes] = {}

    def uid(self, tag: int, uid: str) -> bytes:
        if not is_acceptable_uid(uid):
            raise CommitmentInformationError(f"the {_named(tag)} is {'no UID' if uid else 'empty'}", tag)
        return self._short(tag, b"UI", uid.encode("ascii") + b"\0" * (len(uid) % 2))

    def ae_title(self, tag: int, title: str) -> bytes:
        if not is_valid_ae_title(title):
            raise CommitmentInformationError(f"the Retrieve AE Title {format_tag(tag)} is none", tag)
        return self._short(tag, b"AE", title.encode("ascii") + b" " * (len(title) % 2))

    def number(self, tag: int, number: int) -> bytes:
        try:
            return self._short(tag, b"US", self._number.pack(number))
        except struct.error:
            raise CommitmentInformationError(f"the {_named(tag)} is no number of 16 bits", tag) from None

    def reference(self, reference: Reference, more: bytes = b"") -> bytes:
        """Write an item that names an instance, with what else it holds."""
        sop_class = self._classes.get(reference.sop_class_uid)
        if sop_class is None:
            sop_class = self.uid(REFERENCED_SOP_CLASS_UID, reference.sop_class_uid)
            self._classes[reference.sop_class_uid] = sop_class
        body = sop_class + self.uid(REFERENCED_SOP_INSTANCE_UID, reference.sop_instance_uid) + more
        return self._item.pack(ITEM >> 16, ITEM & 0xFFFF, len(body)) + body

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        body = b"".join(items)
        if self._encoding.explicit:
            return self._long_element.pack(tag >> 16, tag & 0xFFFF, b"SQ", len(body)) + body
        return self._long_element.pack(tag >> 16, tag & 0xFFFF, len(body)) + body

    def _short(self, tag: int, vr: bytes, value: bytes) -> bytes:
        if self._encoding.explicit:
            return self._element.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value
        return self._element.pack(tag >> 16, tag & 0xFFFF, len(value)) + value
