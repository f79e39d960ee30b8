"""Choose the VR of an element that came without one, where the dictionary leaves it open (PS3.5 Annex A).

DCMTK looks at earlier elements of the same item only. What it then still does not know it writes as US, or as OB.
"""

from typing import Final

from stowkeeper.dcmtk.encoding.limits import PRIVATE_CREATOR_BYTES_MAX
from stowkeeper.dcmtk.encoding.value_representations import (
    AMBIGUOUS_BYTES,
    AMBIGUOUS_NUMBERS,
    OTHER_BYTE,
    OTHER_WORD,
    SIGNED_SHORT,
    UNSIGNED_SHORT,
    ValueRepresentation,
)
from stowkeeper.dicom.elements import PIXEL_DATA

_PIXEL_REPRESENTATION: Final = 0x00280103
_WAVEFORM_BITS_ALLOCATED: Final = 0x54001004
_NUMBERS: Final = frozenset((_PIXEL_REPRESENTATION, _WAVEFORM_BITS_ALLOCATED))

_LIKE_PIXELS: Final = frozenset(
    (
        0x00189810,
        0x00280106,
        0x00280107,
        0x00280108,
        0x00280109,
        0x00280120,
        0x00280121,
        0x00283002,
        0x00409211,
        0x00409216,
        0x00603004,
        0x00603006,
    )
)
"""US or SS, as Pixel Representation says. Other attributes of that kind are US whatever it says."""

_LIKE_WAVEFORM: Final = frozenset((0x54000110, 0x54000112, 0x5400100A, 0x54001010))
"""OB where Waveform Bits Allocated is 8, else OW (PS3.5 §8.3)."""


class Facts:
    """What the elements of an item so far say about those to come."""

    __slots__ = ("_numbers", "creators")

    def __init__(self) -> None:
        self.creators: dict[int, str] = {}
        """Private creators by the block of elements that they reserve (PS3.5 §7.8.1)."""

        self._numbers: dict[int, int] = {}

    def wants_number(self, tag: int) -> bool:
        """Tell whether the value of an element matters here."""
        return tag in _NUMBERS

    def note_number(self, tag: int, number: int) -> None:
        """Remember such a value; of several elements with the same tag the first counts."""
        self._numbers.setdefault(tag, number)

    def number(self, tag: int) -> int | None:
        """Return such a value, None while there is none."""
        return self._numbers.get(tag)


def is_private_creator(tag: int) -> bool:
    """Tell whether a tag is one that names a private creator (PS3.5 §7.8.1)."""
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def note_creator(creators: dict[int, str], tag: int, value: bytes, *, correct_input: bool) -> None:
    """Remember a private creator; blanks at its end are padding only where input is corrected.

    The first one of a block counts. One that is too long for any dictionary is passed over.
    """
    if not 0 < len(value) <= PRIVATE_CREATOR_BYTES_MAX:
        return
    if correct_input and not len(value) & 1:
        value = value.rstrip(b" ")
    creators.setdefault(tag >> 16 << 8 | tag & 0xFF, value.partition(b"\0")[0].decode("latin-1"))


def private_block(tag: int) -> int:
    """Return the block that a private element lies in, as `note_creator` has it; -1 when it lies in none."""
    return tag >> 8 if tag & 0xFFFF >= 0x1000 else -1


def settled(tag: int, vr: ValueRepresentation, facts: Facts) -> ValueRepresentation:
    """Return the VR for what the dictionary says of an element in implicit VR."""
    if vr is AMBIGUOUS_NUMBERS and tag in _LIKE_PIXELS:
        representation = facts.number(_PIXEL_REPRESENTATION)
        if representation is not None:
            return SIGNED_SHORT if representation == 1 else UNSIGNED_SHORT
    elif vr is AMBIGUOUS_BYTES:
        if tag in _LIKE_WAVEFORM:
            bits = facts.number(_WAVEFORM_BITS_ALLOCATED)
            if bits is not None:
                return OTHER_BYTE if bits == 8 else OTHER_WORD
        elif is_overlay_data(tag) or tag == PIXEL_DATA:
            return OTHER_WORD
        elif _in_repeating_group(tag, 0x50003000):
            return OTHER_BYTE
    return vr


def is_overlay_data(tag: int) -> bool:
    """Tell whether a tag is that of Overlay Data (60xx,3000) in any even group."""
    return _in_repeating_group(tag, 0x60003000)


def _in_repeating_group(tag: int, base: int) -> bool:
    return tag & 0xFF01FFFF == base
