"""Value representations as DCMTK reads and writes them.

Besides those of PS3.5 §6.2 there are the names that DCMTK's dictionaries use where the standard leaves the VR open. A
stream that has them as VRs is read by them too.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.byte_order import NUMBER_SIZES
from stowkeeper.dicom.elements import LONG_VRS, SHORT_VRS


class Content(enum.Enum):
    """What a value consists of, which decides how it is padded."""

    TEXT = "text"
    UID = "uid"
    NUMBERS = "numbers"
    BYTES = "bytes"
    WORDS = "words"
    """Numbers of 16 bits, which DCMTK never pads."""
    ITEMS = "items"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValueRepresentation:
    """One VR. There is one object for each, so that `is` tells them apart."""

    code: int
    """Its place in VALUE_REPRESENTATIONS."""

    name: bytes
    written_as: bytes
    is_long: bool
    """Whether it has a length of 32 bits in explicit VR (PS3.5 §7.1.2)."""

    number_size: int
    """Bytes of the numbers in its values, for the byte order."""

    content: Content
    is_new: bool
    """Whether it is younger than 1993, so that it can be asked not to write it."""


_TEXTS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())
_NEW = frozenset(b"OD OF OL OV SV UC UN UR UT UV".split())

# Name, what is written for it, whether it is long, size of its numbers.
_INTERNAL = (
    (b"ox", b"OB", True, 1),  # OB or OW
    (b"px", b"OB", True, 1),  # OB or OW, with fragments in compressed transfer syntaxes
    (b"lt", b"OW", True, 2),  # US, SS or OW, of lookup tables
    (b"xs", b"US", False, 2),  # US or SS
    (b"up", b"UL", False, 4),  # offset in a DICOMDIR
    (b"na", b"", False, 1),  # items and delimiters, which have no VR
    (b"pi", b"", False, 1),  # pixel fragments, likewise
    (b"??", b"UN", False, 1),  # no two uppercase letters
    (b"", b"UN", True, 1),  # two uppercase letters of a later edition, and what no dictionary has
)


def _content(name: bytes) -> Content:
    if name in _TEXTS:
        return Content.TEXT
    if name in {b"OW", b"lt"}:
        return Content.WORDS
    if name in NUMBER_SIZES or name in {b"xs", b"up"}:
        return Content.NUMBERS
    return {b"SQ": Content.ITEMS, b"UI": Content.UID}.get(name, Content.BYTES)


def _all() -> Iterable[ValueRepresentation]:
    standard = ((name, name, name in LONG_VRS, NUMBER_SIZES.get(name, 1)) for name in SHORT_VRS | LONG_VRS)
    for code, (name, written_as, is_long, number_size) in enumerate((*sorted(standard), *_INTERNAL)):
        yield ValueRepresentation(
            code=code,
            name=name,
            written_as=written_as,
            is_long=is_long,
            number_size=number_size,
            content=_content(name),
            is_new=name in _NEW,
        )


VALUE_REPRESENTATIONS: Final = tuple(_all())
BY_NAME: Final = {known.name: known for known in VALUE_REPRESENTATIONS if known.name}

AMBIGUOUS_BYTES: Final = BY_NAME[b"ox"]
AMBIGUOUS_NUMBERS: Final = BY_NAME[b"xs"]
LOOKUP_TABLE: Final = BY_NAME[b"lt"]
NO_VR: Final = BY_NAME[b"na"]
OTHER_BYTE: Final = BY_NAME[b"OB"]
OTHER_WORD: Final = BY_NAME[b"OW"]
PIXELS: Final = BY_NAME[b"px"]
SEQUENCE: Final = BY_NAME[b"SQ"]
SIGNED_SHORT: Final = BY_NAME[b"SS"]
UNSIGNED_LONG: Final = BY_NAME[b"UL"]
UNSIGNED_SHORT: Final = BY_NAME[b"US"]
UNKNOWN: Final = BY_NAME[b"UN"]
UNREADABLE: Final = BY_NAME[b"??"]
UNREGISTERED: Final = VALUE_REPRESENTATIONS[-1]

UNKNOWNS: Final = frozenset({UNKNOWN, UNREADABLE, UNREGISTERED})
"""VRs that tell nothing about the value."""


def vr_of_name(name: bytes) -> ValueRepresentation:
    """Return the VR that two bytes of a stream name."""
    known = BY_NAME.get(name)
    if known is not None:
        return known
    return UNREGISTERED if name.isalpha() and name.isupper() else UNREADABLE
