"""Which transfer syntaxes `storescp` takes, and in which order: one list for each of its +x options.

The acceptor's order decides: the first syntax of the list that a peer proposes for a context is chosen, however the
peer ordered its own. The same list serves every abstract syntax.
"""

import sys
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HEVC_M10P51,
    HEVC_MP51,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE_8_BIT,
    JPEG_EXTENDED_12_BIT,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    MPEG2_MPHL,
    MPEG2_MPHL_FRAGMENTABLE,
    MPEG2_MPML,
    MPEG2_MPML_FRAGMENTABLE,
    MPEG4_HP41,
    MPEG4_HP41_BD,
    MPEG4_HP41_BD_FRAGMENTABLE,
    MPEG4_HP41_FRAGMENTABLE,
    MPEG4_HP42_2D,
    MPEG4_HP42_2D_FRAGMENTABLE,
    MPEG4_HP42_3D,
    MPEG4_HP42_3D_FRAGMENTABLE,
    MPEG4_HP42_STEREO,
    MPEG4_HP42_STEREO_FRAGMENTABLE,
    RLE_LOSSLESS,
)

ByteOrder = Literal["little", "big"]

LOCAL_BYTE_ORDER: Final[ByteOrder] = sys.byteorder


class Preference(StrEnum):
    """What a receiver prefers, named as the help text names it; the value is the short option."""

    UNCOMPRESSED = "+x="
    LITTLE_ENDIAN = "+xe"
    BIG_ENDIAN = "+xb"
    JPEG_LOSSLESS = "+xs"
    JPEG_8_BIT = "+xy"
    JPEG_12_BIT = "+xx"
    JPEG_2000_LOSSLESS = "+xv"
    JPEG_2000_LOSSY = "+xw"
    JPEG_LS_LOSSLESS = "+xt"
    JPEG_LS_LOSSY = "+xu"
    MPEG2_MAIN_LEVEL = "+xm"
    MPEG2_HIGH_LEVEL = "+xh"
    MPEG4 = "+xn"
    MPEG4_BD = "+xl"
    MPEG4_2D = "+x2"
    MPEG4_3D = "+x3"
    MPEG4_STEREO = "+xo"
    HEVC = "+x4"
    HEVC_10 = "+x5"
    RLE = "+xr"
    DEFLATED = "+xd"
    IMPLICIT_ONLY = "+xi"
    ACCEPT_ALL = "+xa"


SINGLE_SYNTAXES: Final[Mapping[Preference, str]] = MappingProxyType(
    {
        Preference.JPEG_LOSSLESS: JPEG_LOSSLESS_SV1,
        Preference.JPEG_8_BIT: JPEG_BASELINE_8_BIT,
        Preference.JPEG_12_BIT: JPEG_EXTENDED_12_BIT,
        Preference.JPEG_2000_LOSSLESS: JPEG_2000_LOSSLESS,
        Preference.JPEG_2000_LOSSY: JPEG_2000,
        Preference.JPEG_LS_LOSSLESS: JPEG_LS_LOSSLESS,
        Preference.JPEG_LS_LOSSY: JPEG_LS_NEAR_LOSSLESS,
        Preference.MPEG2_MAIN_LEVEL: MPEG2_MPML,
        Preference.MPEG2_HIGH_LEVEL: MPEG2_MPHL,
        Preference.MPEG4: MPEG4_HP41,
        Preference.MPEG4_BD: MPEG4_HP41_BD,
        Preference.MPEG4_2D: MPEG4_HP42_2D,
        Preference.MPEG4_3D: MPEG4_HP42_3D,
        Preference.MPEG4_STEREO: MPEG4_HP42_STEREO,
        Preference.HEVC: HEVC_MP51,
        Preference.HEVC_10: HEVC_M10P51,
        Preference.RLE: RLE_LOSSLESS,
        Preference.DEFLATED: DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
"""The one syntax that an option puts before the uncompressed ones."""

ACCEPT_ALL_FIRST: Final = (
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_EXTENDED_12_BIT,
    JPEG_BASELINE_8_BIT,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_NEAR_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    MPEG2_MPML,
    MPEG2_MPML_FRAGMENTABLE,
    MPEG2_MPHL,
    MPEG2_MPHL_FRAGMENTABLE,
    MPEG4_HP41,
    MPEG4_HP41_FRAGMENTABLE,
    MPEG4_HP41_BD,
    MPEG4_HP41_BD_FRAGMENTABLE,
    MPEG4_HP42_2D,
    MPEG4_HP42_2D_FRAGMENTABLE,
    MPEG4_HP42_3D,
    MPEG4_HP42_3D_FRAGMENTABLE,
    MPEG4_HP42_STEREO,
    MPEG4_HP42_STEREO_FRAGMENTABLE,
    HEVC_MP51,
    HEVC_M10P51,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    HTJ2K,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
)
"""What +xa takes before the uncompressed syntaxes. The compressed ones come first, so that what a peer holds
compressed is not unpacked for us; their order is DCMTK's."""


def explicit_syntaxes(byte_order: ByteOrder = LOCAL_BYTE_ORDER) -> tuple[str, str]:
    """Return the explicit syntax of a byte order, and the one of the other."""
    if byte_order == "little":
        return EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN
    return EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN


def accepted_transfer_syntaxes(
    preference: Preference, *, byte_order: ByteOrder = LOCAL_BYTE_ORDER
) -> tuple[str, ...]:
    """Return the transfer syntaxes that are accepted, the most wanted first.

    `byte_order` is that of the machine: the default and +xa want its own explicit syntax before the other one.
    """
    if preference is Preference.IMPLICIT_ONLY:
        return (IMPLICIT_VR_LITTLE_ENDIAN,)
    if preference is Preference.LITTLE_ENDIAN:
        return (*explicit_syntaxes("little"), IMPLICIT_VR_LITTLE_ENDIAN)
    if preference is Preference.BIG_ENDIAN:
        return (*explicit_syntaxes("big"), IMPLICIT_VR_LITTLE_ENDIAN)
    if preference in SINGLE_SYNTAXES:
        return (SINGLE_SYNTAXES[preference], *explicit_syntaxes("little"), IMPLICIT_VR_LITTLE_ENDIAN)
    first = ACCEPT_ALL_FIRST if preference is Preference.ACCEPT_ALL else ()
    return (*first, *explicit_syntaxes(byte_order), IMPLICIT_VR_LITTLE_ENDIAN)
