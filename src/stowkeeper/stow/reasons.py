"""Why an instance was not stored, or not stored as it came: the codes of a store response (PS3.18 §I.2).

The standard leaves it to a server which codes it gives beyond its own few; ours are listed in the conformance statement. Codes
that other servers send may be any: read them as plain integers and ask `words_of`.
"""

from enum import IntEnum
from typing import Final


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an instance that is not stored."""

    PROCESSING_FAILURE = 0x0110
    DUPLICATE = 0x0111
    INVALID_INSTANCE = 0x0117
    SOP_CLASS = 0x0122
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH = 0xA900
    BULK_DATA_MISSING = 0xA922
    CANNOT_UNDERSTAND = 0xC000
    TRANSFER_SYNTAX = 0xC122
    STUDY_MISMATCH = 0xC409

    @property
    def words(self) -> str:
        """What it means, as a sentence for people without a full stop."""
        return _FAILURES[self]


class WarningReason(IntEnum):
    """Warning Reason (0008,1196) of an instance that is stored, but not as it came or not as it should be."""

    COERCED = 0xB000
    DISCARDED = 0xB006
    DOES_NOT_MATCH = 0xB007

    @property
    def words(self) -> str:
        """What it means, as a sentence for people without a full stop."""
        return _WARNINGS[self]


_FAILURES: Final = {
    FailureReason.PROCESSING_FAILURE: "the instance could not be processed",
    FailureReason.DUPLICATE: "another instance with this SOP Instance UID is kept",
    FailureReason.INVALID_INSTANCE: "the SOP Instance UID is missing or malformed",
    FailureReason.SOP_CLASS: "instances of this SOP class are not accepted",
    FailureReason.NOT_AUTHORIZED: "the sender may not store this instance",
    FailureReason.OUT_OF_RESOURCES: "the server has no room for the instance at present",
    FailureReason.DOES_NOT_MATCH: "the data set is not what its SOP class asks for",
    FailureReason.BULK_DATA_MISSING: "the metadata names bulk data that the request does not hold",
    FailureReason.CANNOT_UNDERSTAND: "the part cannot be read as DICOM",
    FailureReason.TRANSFER_SYNTAX: "this transfer syntax is not accepted",
    FailureReason.STUDY_MISMATCH: "the instance belongs to another study than the one of the request",
}

_WARNINGS: Final = {
    WarningReason.COERCED: "the instance is kept with elements that were changed",
    WarningReason.DISCARDED: "the instance is kept without some of its elements",
    WarningReason.DOES_NOT_MATCH: "the instance is kept, though its data set is not what its SOP class asks for",
}

_FAILURE_RANGES: Final = (
    (0xA700, 0xA7FF, FailureReason.OUT_OF_RESOURCES),
    (0xA900, 0xA9FF, FailureReason.DOES_NOT_MATCH),
    (0xC000, 0xCFFF, FailureReason.CANNOT_UNDERSTAND),
)
"""PS3.18 Table I.2-2 lets a server choose the last digits of these."""


def is_out_of_resources(reason: int) -> bool:
    """Tell whether a Failure Reason says that the same instance may be stored at another time."""
    return 0xA700 <= reason <= 0xA7FF


def words_of(code: int) -> str:
    """Say any Failure or Warning Reason in words, as "A700H the server has no room for the instance at present"."""
    words = "a reason that the standard does not name"
    if code in _WARNINGS:
        words = WarningReason(code).words
    elif code in _FAILURES:
        words = FailureReason(code).words
    else:
        words = next(
            (general.words for first, last, general in _FAILURE_RANGES if first <= code <= last), words
        )
    return f"{code:04X}H {words}"
