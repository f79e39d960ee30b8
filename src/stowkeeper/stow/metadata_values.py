"""Values of data elements out of texts and numbers, as the two metadata formats write them (PS3.18 §F.2.3, PS3.19 §A.1.5).

Whatever is given is either encoded as PS3.5 §6.2 has it, or refused in words that name the tag and not the value.
"""

import binascii
import math
import re
import struct
from collections.abc import Callable, Sequence
from typing import Final

from stowkeeper.dicom.elements import format_tag
from stowkeeper.stow.limits_of_metadata import BULK_URI_LETTERS_MAX, NUMBER_LETTERS_MAX
from stowkeeper.stow.metadata import BULK_VRS, BulkReference, ElementDefectError

DECIMAL_LETTERS_MAX: Final = 16
"""Letters of a DS (PS3.5 Table 6.2-1)."""

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_REAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BLANKS: Final = " \t\r\n"
_BLANKS_IN_BASE64: Final = dict.fromkeys(map(ord, _BLANKS))
_NO_NUMBERS: Final = {
    "NaN": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
}
"""How writers put down what is no number. The second and third are the standard's; Python and Java write the others."""

_INTEGER_VRS: Final = {b"SS": "<h", b"US": "<H", b"SL": "<i", b"UL": "<I", b"SV": "<q", b"UV": "<Q"}
_WHOLE_FLOATS_MAX: Final = 2.0**53
"""From here on a number with a point or an exponent is another one than was written (IEEE 754)."""
_REAL_VRS: Final = {b"FL": "<f", b"FD": "<d"}
TEXT_VRS: Final = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
ONE_VALUE_VRS: Final = frozenset(b"LT ST UR UT".split())
_INLINE_VRS: Final = BULK_VRS - frozenset(b"DS IS LT ST UC UT".split())


def read_tag(text: str) -> int:
    """Return the tag that eight hexadecimal digits say. Raises ElementDefectError."""
    if not _TAG.fullmatch(text):
        raise ElementDefectError("a data element is named by something else than the eight digits of a tag")
    return int(text, 16)


def encode_values(tag: int, vr: bytes, values: Sequence[object]) -> bytes:
    """Encode values: each a text, an integer, a number as its writer put it down in bytes, or None for an empty one.

    Raises:
        ElementDefectError: one of them is none of this VR.

    """
    if vr in TEXT_VRS:
        return _encode_texts(tag, vr, values)
    if vr == b"AT":
        return b"".join(_encode_tag(tag, value) for value in values)
    if vr in _INTEGER_VRS:
        return _packed(tag, _INTEGER_VRS[vr], [_integer(tag, value) for value in values])
    if vr in _REAL_VRS:
        return _packed(tag, _REAL_VRS[vr], [_real(tag, value) for value in values])
    if not values:
        return b""
    raise ElementDefectError(f"{format_tag(tag)} has values in words, which VR {vr.decode()} has not")


def decode_inline(tag: int, vr: bytes, text: object) -> bytes:
    """Return what is written in base64. Raises ElementDefectError."""
    if vr not in _INLINE_VRS:
        raise ElementDefectError(f"{format_tag(tag)} is given in base64, which is not for VR {vr.decode()}")
    if not isinstance(text, str) or not text.isascii():  # asked first: other letters are slow to leave out
        raise ElementDefectError(f"the value of {format_tag(tag)} is no base64")
    try:
        return binascii.a2b_base64(text.translate(_BLANKS_IN_BASE64).encode("ascii"), strict_mode=True)
    except ValueError:
        raise ElementDefectError(f"the value of {format_tag(tag)} is no base64") from None


def read_reference(tag: int, vr: bytes, uri: object) -> BulkReference:
    """Return a reference to bulk data. Raises ElementDefectError."""
    if vr not in BULK_VRS:
        raise ElementDefectError(f"{format_tag(tag)} refers to bulk data, which VR {vr.decode()} cannot")
    if not isinstance(uri, str) or not 0 < len(uri) <= BULK_URI_LETTERS_MAX:
        raise ElementDefectError(f"the reference of {format_tag(tag)} to bulk data is none")
    return BulkReference(uri)


# Texts


def _encode_texts(tag: int, vr: bytes, values: Sequence[object]) -> bytes:
    if vr in ONE_VALUE_VRS and len(values) > 1:
        raise ElementDefectError(f"{format_tag(tag)} has several values, VR {vr.decode()} has one")
    as_text: Callable[[int, object], str] = _text
    if vr == b"IS":
        as_text = _integer_string
    elif vr == b"DS":
        as_text = _decimal_string
    try:
        return "\\".join("" if value is None else as_text(tag, value) for value in values).encode()
    except UnicodeEncodeError:
        raise ElementDefectError(f"{format_tag(tag)} has half a character in it (a lone surrogate)") from None


def _text(tag: int, value: object) -> str:
    if type(value) is not str:
        raise ElementDefectError(f"{format_tag(tag)} has a value that is no text")
    return value


def _integer_string(tag: int, value: object) -> str:
    if type(value) is str:
        return value
    number = _integer(tag, value)
    if not -(2**31) <= number < 2**31:
        raise ElementDefectError(f"{format_tag(tag)} has a number that an IS cannot have")
    return str(number)


def _decimal_string(tag: int, value: object) -> str:
    if type(value) is str:
        return value
    literal = str(value) if type(value) is int else value.decode() if isinstance(value, bytes) else ""
    if literal and literal not in _NO_NUMBERS:
        if len(literal) <= DECIMAL_LETTERS_MAX:
            return literal
        number = _real(tag, value)
        for digits in range(DECIMAL_LETTERS_MAX - 1, 0, -1):
            text = f"{number:.{digits}g}"
            if len(text) <= DECIMAL_LETTERS_MAX:
                return text
    raise ElementDefectError(f"{format_tag(tag)} has a value that is no number")


# Numbers


def _integer(tag: int, value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bytes):
        number = _real(tag, value)
        if number.is_integer() and abs(number) < _WHOLE_FLOATS_MAX:
            return int(number)
    elif isinstance(value, str) and len(value) <= NUMBER_LETTERS_MAX:
        stripped = value.strip(_BLANKS)
        if _INTEGER.fullmatch(stripped):
            return int(stripped)
    raise ElementDefectError(f"{format_tag(tag)} has a value that is no integer")


def _real(tag: int, value: object) -> float:
    try:
        if type(value) is int:
            return float(value)
        if isinstance(value, str | bytes):
            stripped = value.decode() if isinstance(value, bytes) else value.strip(_BLANKS)
            if stripped in _NO_NUMBERS:
                return _NO_NUMBERS[stripped]
            is_short = isinstance(value, bytes) or len(stripped) <= NUMBER_LETTERS_MAX
            if is_short and _REAL.fullmatch(stripped):
                number = float(stripped)
                if math.isfinite(number):
                    return number
    except OverflowError:
        pass
    raise ElementDefectError(f"{format_tag(tag)} has a value that is no number")


def _packed(tag: int, form: str, numbers: Sequence[float]) -> bytes:
    try:
        return struct.pack(f"<{len(numbers)}{form[1]}", *numbers)
    except (struct.error, OverflowError):
        raise ElementDefectError(f"{format_tag(tag)} has a number that its VR cannot have") from None


def _encode_tag(tag: int, value: object) -> bytes:
    if not isinstance(value, str) or not _TAG.fullmatch(value.strip(_BLANKS)):
        raise ElementDefectError(f"{format_tag(tag)} has a value that is not the eight digits of a tag")
    number = int(value.strip(_BLANKS), 16)
    return struct.pack("<HH", number >> 16, number & 0xFFFF)
