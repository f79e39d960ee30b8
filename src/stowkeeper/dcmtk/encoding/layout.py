"""How the elements of a data set are laid out in its transfer syntax (PS3.5 Annex A)."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from stowkeeper.dcmtk.encoding.errors import NotWritableError
from stowkeeper.dicom.transfer_syntaxes import (
    GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA,
    TRANSFER_SYNTAXES,
    TransferSyntax,
)

_PACK_ITEM = {True: struct.Struct("<HHI").pack, False: struct.Struct(">HHI").pack}
_PACK_SHORT = {True: struct.Struct("<HH2sH").pack, False: struct.Struct(">HH2sH").pack}
_PACK_LONG = {True: struct.Struct("<HH2sxxI").pack, False: struct.Struct(">HH2sxxI").pack}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout of elements: whether they have VRs, and the byte order."""

    explicit: bool
    little_endian: bool
    pixels_little_endian: bool
    """Byte order of Pixel Data, which a private transfer syntax has apart from all else."""

    pack_item: Callable[[int, int, int], bytes] = field(init=False, compare=False)
    """Encodes group, element and length of an item or delimiter, and of an element in implicit VR."""

    pack_short: Callable[[int, int, bytes, int], bytes] = field(init=False, compare=False)
    """Encodes group, element, VR and a length of 16 bits."""

    pack_long: Callable[[int, int, bytes, int], bytes] = field(init=False, compare=False)
    """Encodes group, element, VR and a length of 32 bits."""

    def __post_init__(self) -> None:
        for name, made in (("pack_item", _PACK_ITEM), ("pack_short", _PACK_SHORT), ("pack_long", _PACK_LONG)):
            object.__setattr__(self, name, made[self.little_endian])


IMPLICIT: Final = Layout(explicit=False, little_endian=True, pixels_little_endian=True)
"""Implicit VR little endian, in which the value of every UN is (PS3.5 §6.2.2)."""


@lru_cache(maxsize=128)  # transfer syntax UIDs come from peers, hence the bound
def layout_of(transfer_syntax: TransferSyntax) -> Layout:
    """Return the layout that a transfer syntax asks for."""
    return Layout(
        explicit=not transfer_syntax.implicit_vr,
        little_endian=transfer_syntax.little_endian,
        pixels_little_endian=transfer_syntax.little_endian
        and transfer_syntax.uid != GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA,
    )


def known_syntax(uid: str) -> TransferSyntax:
    """Return a transfer syntax by its UID; raise EncodingError when it is none that is known."""
    syntax = TRANSFER_SYNTAXES.get(uid)
    if syntax is None:
        raise NotWritableError(f"the transfer syntax {uid} is not known, so the data set cannot be read")
    return syntax
