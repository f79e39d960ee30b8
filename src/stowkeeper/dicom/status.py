"""DIMSE status codes, what class each belongs to, and what it says (PS3.7 Annex C, PS3.4 §B.2.3)."""

from enum import Enum, IntEnum, auto
from typing import Final


class StatusCategory(Enum):
    """The status classes of PS3.7 Annex C."""

    SUCCESS = auto()
    WARNING = auto()
    FAILURE = auto()
    CANCEL = auto()
    PENDING = auto()


class Status(IntEnum):
    """The codes of PS3.7 Annex C, and those that PS3.4 gives to storage and storage commitment.

    A peer may answer with a code that is none of these: read codes from the wire as plain integers and ask
    `category_of` and `meaning_of`.
    """

    SUCCESS = 0x0000

    PENDING = 0xFF00
    PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF01  # PS3.4 §C.4.1.1.4

    CANCEL = 0xFE00

    WARNING = 0x0001
    ATTRIBUTE_LIST_ERROR = 0x0107
    ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
    COERCION_OF_DATA_ELEMENTS = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING = 0xB007

    NO_SUCH_ATTRIBUTE = 0x0105
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    NO_SUCH_ARGUMENT = 0x0114
    INVALID_ARGUMENT_VALUE = 0x0115
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION_TYPE = 0x0123
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_TRANSACTION_UID = 0x0131  # PS3.3 §C.14, a failure reason of storage commitment
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    MOVE_DESTINATION_UNKNOWN = 0xA801  # PS3.4 §C.4.2.1.5
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122  # PS3.18 Table I.2-2: said by STOW-RS alone, DIMSE negotiates it
    STUDY_DIFFERS = 0xC409  # of the range that PS3.18 leaves to servers: another study than the address names


_MEANINGS: Final = {
    Status.SUCCESS: "Success",
    Status.PENDING: "Pending",
    Status.PENDING_WITHOUT_OPTIONAL_KEYS: "Pending: optional keys not supported",
    Status.CANCEL: "Cancel",
    Status.WARNING: "Warning",
    Status.ATTRIBUTE_LIST_ERROR: "Warning: attribute list error",
    Status.ATTRIBUTE_VALUE_OUT_OF_RANGE: "Warning: attribute value out of range",
    Status.COERCION_OF_DATA_ELEMENTS: "Warning: coercion of data elements",
    Status.ELEMENTS_DISCARDED: "Warning: elements discarded",
    Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING: "Warning: data set does not match SOP class",
    Status.NO_SUCH_ATTRIBUTE: "Failed: no such attribute",
    Status.INVALID_ATTRIBUTE_VALUE: "Failed: invalid attribute value",
    Status.PROCESSING_FAILURE: "Failed: processing failure",
    Status.DUPLICATE_SOP_INSTANCE: "Failed: duplicate SOP instance",
    Status.NO_SUCH_SOP_INSTANCE: "Failed: no such SOP instance",
    Status.NO_SUCH_EVENT_TYPE: "Failed: no such event type",
    Status.NO_SUCH_ARGUMENT: "Failed: no such argument",
    Status.INVALID_ARGUMENT_VALUE: "Failed: invalid argument value",
    Status.INVALID_SOP_INSTANCE: "Failed: invalid SOP instance",
    Status.NO_SUCH_SOP_CLASS: "Failed: no such SOP class",
    Status.CLASS_INSTANCE_CONFLICT: "Failed: class-instance conflict",
    Status.MISSING_ATTRIBUTE: "Failed: missing attribute",
    Status.MISSING_ATTRIBUTE_VALUE: "Failed: missing attribute value",
    Status.SOP_CLASS_NOT_SUPPORTED: "Refused: SOP class not supported",
    Status.NO_SUCH_ACTION_TYPE: "Failed: no such action type",
    Status.NOT_AUTHORIZED: "Refused: not authorized",
    Status.DUPLICATE_TRANSACTION_UID: "Failed: duplicate transaction UID",
    Status.DUPLICATE_INVOCATION: "Failed: duplicate invocation",
    Status.UNRECOGNIZED_OPERATION: "Failed: unrecognized operation",
    Status.MISTYPED_ARGUMENT: "Failed: mistyped argument",
    Status.RESOURCE_LIMITATION: "Failed: resource limitation",
    Status.OUT_OF_RESOURCES: "Refused: out of resources",
    Status.MOVE_DESTINATION_UNKNOWN: "Refused: move destination unknown",
    Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "Error: data set does not match SOP class",
    Status.CANNOT_UNDERSTAND: "Error: cannot understand",
    Status.TRANSFER_SYNTAX_NOT_SUPPORTED: "Error: transfer syntax not supported",
    Status.STUDY_DIFFERS: "Error: Study Instance UID differs from the address",
}

_STORAGE_RANGES: Final = (
    (0xA700, 0xA7FF, Status.OUT_OF_RESOURCES),
    (0xA900, 0xA9FF, Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS),
    (0xC000, 0xCFFF, Status.CANNOT_UNDERSTAND),
)
"""PS3.4 Table B.2-1 lets a provider choose the last digits of a C-STORE failure."""

_CATEGORY_WORDS: Final = {
    StatusCategory.SUCCESS: "Success",
    StatusCategory.WARNING: "Warning",
    StatusCategory.FAILURE: "Failed",
    StatusCategory.CANCEL: "Cancel",
    StatusCategory.PENDING: "Pending",
}

_WARNINGS: Final = frozenset(
    {Status.WARNING, Status.ATTRIBUTE_LIST_ERROR, Status.ATTRIBUTE_VALUE_OUT_OF_RANGE},
)
"""The warnings that the ranges of Annex C name one by one."""


def category_of(code: int) -> StatusCategory:
    """Return the class of any status code, by the ranges of PS3.7 Annex C.

    A code outside of every range is a failure: nothing but a plain success may be taken for "it is kept".
    """
    if code == Status.SUCCESS:
        return StatusCategory.SUCCESS
    if code in _WARNINGS or 0xB000 <= code <= 0xBFFF:
        return StatusCategory.WARNING
    if code in {Status.PENDING, Status.PENDING_WITHOUT_OPTIONAL_KEYS}:
        return StatusCategory.PENDING
    if code == Status.CANCEL:
        return StatusCategory.CANCEL
    return StatusCategory.FAILURE


def meaning_of(code: int) -> str:
    """Say any status code of a C-STORE or C-ECHO response in words, as "A700H Refused: out of resources"."""
    try:
        known = Status(code)
    except ValueError:
        within = (general for first, last, general in _STORAGE_RANGES if first <= code <= last)
        general = next(within, None)
        words = _CATEGORY_WORDS[category_of(code)] if general is None else _MEANINGS[general]
    else:
        words = _MEANINGS[known]
    return f"{code:04X}H {words}"
