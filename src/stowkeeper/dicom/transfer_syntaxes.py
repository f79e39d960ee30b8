"""Transfer syntaxes: how a data set is encoded in each, and which ones are accepted as shipped.

The registry is PS3.6 Table A-1, retired syntaxes included, and one private syntax that old archives are full
of. To read a data set, four facts are enough: whether VRs are explicit, the byte order, whether the whole
data set is deflated, and whether Pixel Data is encapsulated (PS3.5 Annex A).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.98"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
JPEG_BASELINE_8_BIT: Final = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED_12_BIT: Final = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS: Final = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
JPEG_2000_MULTI_COMPONENT_LOSSLESS: Final = "1.2.840.10008.1.2.4.92"
JPEG_2000_MULTI_COMPONENT: Final = "1.2.840.10008.1.2.4.93"
MPEG2_MPML: Final = "1.2.840.10008.1.2.4.100"
MPEG2_MPML_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.100.1"
MPEG2_MPHL: Final = "1.2.840.10008.1.2.4.101"
MPEG2_MPHL_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.101.1"
MPEG4_HP41: Final = "1.2.840.10008.1.2.4.102"
MPEG4_HP41_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.102.1"
MPEG4_HP41_BD: Final = "1.2.840.10008.1.2.4.103"
MPEG4_HP41_BD_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.103.1"
MPEG4_HP42_2D: Final = "1.2.840.10008.1.2.4.104"
MPEG4_HP42_2D_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.104.1"
MPEG4_HP42_3D: Final = "1.2.840.10008.1.2.4.105"
MPEG4_HP42_3D_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.105.1"
MPEG4_HP42_STEREO: Final = "1.2.840.10008.1.2.4.106"
MPEG4_HP42_STEREO_FRAGMENTABLE: Final = "1.2.840.10008.1.2.4.106.1"
HEVC_MP51: Final = "1.2.840.10008.1.2.4.107"
HEVC_M10P51: Final = "1.2.840.10008.1.2.4.108"
JPEG_XL_LOSSLESS: Final = "1.2.840.10008.1.2.4.110"
JPEG_XL_JPEG_RECOMPRESSION: Final = "1.2.840.10008.1.2.4.111"
JPEG_XL: Final = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS: Final = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL: Final = "1.2.840.10008.1.2.4.202"
HTJ2K: Final = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
DEFLATED_IMAGE_FRAME_COMPRESSION: Final = "1.2.840.10008.1.2.8.1"

GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA: Final = "1.2.840.113619.5.2"
"""A GE private syntax, often misnamed "Implicit VR Big Endian": the data set is Implicit VR Little Endian, and
the samples inside Pixel Data alone are big endian. It parses like the default syntax and must not be
relabelled as it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSyntax:
    """How a data set is encoded.

    `deflated` is about the data set as a whole, `encapsulated` about Pixel Data in fragments. `lossless`
    is True where decoding gives back the very samples that were encoded (uncompressed ones among them),
    False where something is lost, and None where the syntax leaves it open or the data set has no pixels.
    """

    uid: str
    name: str
    keyword: str
    implicit_vr: bool
    little_endian: bool
    deflated: bool
    encapsulated: bool
    retired: bool
    lossless: bool | None


_NATIVE = """\
1.2.840.10008.1.2 ImplicitVRLittleEndian Implicit VR Little Endian
1.2.840.10008.1.2.1 ExplicitVRLittleEndian Explicit VR Little Endian
1.2.840.10008.1.2.1.99 DeflatedExplicitVRLittleEndian Deflated Explicit VR Little Endian
1.2.840.10008.1.2.2 ExplicitVRBigEndian Explicit VR Big Endian
1.2.840.10008.1.20 Papyrus3ImplicitVRLittleEndian Papyrus 3 Implicit VR Little Endian
1.2.840.113619.5.2 PrivateGEBigEndianPixelData GE Private Implicit VR Little Endian with Big Endian Pixel Data
"""

_REVERSIBLE = """\
1.2.840.10008.1.2.1.98 EncapsulatedUncompressedExplicitVRLittleEndian \
Encapsulated Uncompressed Explicit VR Little Endian
1.2.840.10008.1.2.4.57 JPEGLossless JPEG Lossless, Non-Hierarchical (Process 14)
1.2.840.10008.1.2.4.58 JPEGLosslessNonHierarchical15 JPEG Lossless, Non-Hierarchical (Process 15)
1.2.840.10008.1.2.4.65 JPEGLosslessHierarchical28 JPEG Lossless, Hierarchical (Process 28)
1.2.840.10008.1.2.4.66 JPEGLosslessHierarchical29 JPEG Lossless, Hierarchical (Process 29)
1.2.840.10008.1.2.4.70 JPEGLosslessSV1 \
JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])
1.2.840.10008.1.2.4.80 JPEGLSLossless JPEG-LS Lossless Image Compression
1.2.840.10008.1.2.4.90 JPEG2000Lossless JPEG 2000 Image Compression (Lossless Only)
1.2.840.10008.1.2.4.92 JPEG2000MCLossless JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)
1.2.840.10008.1.2.4.110 JPEGXLLossless JPEG XL Lossless
1.2.840.10008.1.2.4.201 HTJ2KLossless High-Throughput JPEG 2000 Image Compression (Lossless Only)
1.2.840.10008.1.2.4.202 HTJ2KLosslessRPCL \
High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)
1.2.840.10008.1.2.5 RLELossless RLE Lossless
1.2.840.10008.1.2.8.1 DeflatedImageFrameCompression Deflated Image Frame Compression
"""

_EITHER = """\
1.2.840.10008.1.2.4.91 JPEG2000 JPEG 2000 Image Compression
1.2.840.10008.1.2.4.93 JPEG2000MC JPEG 2000 Part 2 Multi-component Image Compression
1.2.840.10008.1.2.4.112 JPEGXL JPEG XL
1.2.840.10008.1.2.4.203 HTJ2K High-Throughput JPEG 2000 Image Compression
"""

# JPEG XL JPEG Recompression stands here because what it holds is a JPEG image: the step to JPEG XL loses
# nothing, the step before it did.
_LOSSY = """\
1.2.840.10008.1.2.4.50 JPEGBaseline8Bit JPEG Baseline (Process 1)
1.2.840.10008.1.2.4.51 JPEGExtended12Bit JPEG Extended (Process 2 and 4)
1.2.840.10008.1.2.4.52 JPEGExtended35 JPEG Extended (Process 3 and 5)
1.2.840.10008.1.2.4.53 JPEGSpectralSelectionNonHierarchical68 \
JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)
1.2.840.10008.1.2.4.54 JPEGSpectralSelectionNonHierarchical79 \
JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)
1.2.840.10008.1.2.4.55 JPEGFullProgressionNonHierarchical1012 \
JPEG Full Progression, Non-Hierarchical (Process 10 and 12)
1.2.840.10008.1.2.4.56 JPEGFullProgressionNonHierarchical1113 \
JPEG Full Progression, Non-Hierarchical (Process 11 and 13)
1.2.840.10008.1.2.4.59 JPEGExtendedHierarchical1618 JPEG Extended, Hierarchical (Process 16 and 18)
1.2.840.10008.1.2.4.60 JPEGExtendedHierarchical1719 JPEG Extended, Hierarchical (Process 17 and 19)
1.2.840.10008.1.2.4.61 JPEGSpectralSelectionHierarchical2022 \
JPEG Spectral Selection, Hierarchical (Process 20 and 22)
1.2.840.10008.1.2.4.62 JPEGSpectralSelectionHierarchical2123 \
JPEG Spectral Selection, Hierarchical (Process 21 and 23)
1.2.840.10008.1.2.4.63 JPEGFullProgressionHierarchical2426 \
JPEG Full Progression, Hierarchical (Process 24 and 26)
1.2.840.10008.1.2.4.64 JPEGFullProgressionHierarchical2527 \
JPEG Full Progression, Hierarchical (Process 25 and 27)
1.2.840.10008.1.2.4.81 JPEGLSNearLossless JPEG-LS Lossy (Near-Lossless) Image Compression
1.2.840.10008.1.2.4.100 MPEG2MPML MPEG2 Main Profile / Main Level
1.2.840.10008.1.2.4.100.1 MPEG2MPMLF Fragmentable MPEG2 Main Profile / Main Level
1.2.840.10008.1.2.4.101 MPEG2MPHL MPEG2 Main Profile / High Level
1.2.840.10008.1.2.4.101.1 MPEG2MPHLF Fragmentable MPEG2 Main Profile / High Level
1.2.840.10008.1.2.4.102 MPEG4HP41 MPEG-4 AVC/H.264 High Profile / Level 4.1
1.2.840.10008.1.2.4.102.1 MPEG4HP41F Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1
1.2.840.10008.1.2.4.103 MPEG4HP41BD MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1
1.2.840.10008.1.2.4.103.1 MPEG4HP41BDF Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1
1.2.840.10008.1.2.4.104 MPEG4HP422D MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video
1.2.840.10008.1.2.4.104.1 MPEG4HP422DF Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video
1.2.840.10008.1.2.4.105 MPEG4HP423D MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video
1.2.840.10008.1.2.4.105.1 MPEG4HP423DF Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video
1.2.840.10008.1.2.4.106 MPEG4HP42STEREO MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2
1.2.840.10008.1.2.4.106.1 MPEG4HP42STEREOF Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2
1.2.840.10008.1.2.4.107 HEVCMP51 HEVC/H.265 Main Profile / Level 5.1
1.2.840.10008.1.2.4.108 HEVCM10P51 HEVC/H.265 Main 10 Profile / Level 5.1
1.2.840.10008.1.2.4.111 JPEGXLJPEGRecompression JPEG XL JPEG Recompression
"""

# The pixels are elsewhere: behind a JPIP address, in the streams of real-time video, in a MIME part. An
# archive that keeps such a data set has not kept the image.
_PIXELS_ELSEWHERE = """\
1.2.840.10008.1.2.4.94 JPIPReferenced JPIP Referenced
1.2.840.10008.1.2.4.95 JPIPReferencedDeflate JPIP Referenced Deflate
1.2.840.10008.1.2.4.204 JPIPHTJ2KReferenced JPIP HTJ2K Referenced
1.2.840.10008.1.2.4.205 JPIPHTJ2KReferencedDeflate JPIP HTJ2K Referenced Deflate
1.2.840.10008.1.2.6.1 RFC2557MIMEEncapsulation RFC 2557 MIME encapsulation
1.2.840.10008.1.2.6.2 XMLEncoding XML Encoding
1.2.840.10008.1.2.7.1 SMPTEST211020UncompressedProgressiveActiveVideo \
SMPTE ST 2110-20 Uncompressed Progressive Active Video
1.2.840.10008.1.2.7.2 SMPTEST211020UncompressedInterlacedActiveVideo \
SMPTE ST 2110-20 Uncompressed Interlaced Active Video
1.2.840.10008.1.2.7.3 SMPTEST211030PCMDigitalAudio SMPTE ST 2110-30 PCM Digital Audio
"""

_IMPLICIT_VR = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.20", GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA})
_DEFLATED = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
_RETIRED = frozenset(
    {EXPLICIT_VR_BIG_ENDIAN, "1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20"}
    | {f"1.2.840.10008.1.2.4.{process}" for process in (*range(52, 57), *range(58, 67))}
)


def _read_group(text: str, *, encapsulated: bool, lossless: bool | None) -> Iterator[TransferSyntax]:
    for row in text.splitlines():
        uid, keyword, name = row.split(maxsplit=2)
        yield TransferSyntax(
            uid=uid,
            name=name,
            keyword=keyword,
            implicit_vr=uid in _IMPLICIT_VR,
            little_endian=uid != EXPLICIT_VR_BIG_ENDIAN,
            deflated=uid in _DEFLATED,
            encapsulated=encapsulated,
            retired=uid in _RETIRED,
            lossless=lossless,
        )


def _read_all() -> Iterator[TransferSyntax]:
    yield from _read_group(_NATIVE, encapsulated=False, lossless=True)
    yield from _read_group(_REVERSIBLE, encapsulated=True, lossless=True)
    yield from _read_group(_EITHER, encapsulated=True, lossless=None)
    yield from _read_group(_LOSSY, encapsulated=True, lossless=False)
    yield from _read_group(_PIXELS_ELSEWHERE, encapsulated=False, lossless=None)


TRANSFER_SYNTAXES: Final[Mapping[str, TransferSyntax]] = MappingProxyType(
    {known.uid: known for known in _read_all()},
)
"""Every transfer syntax that is known, by its UID."""

SHIPPED_TRANSFER_SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG_LOSSLESS_SV1,
    JPEG_LOSSLESS,
    JPEG_LS_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_2000_MULTI_COMPONENT_LOSSLESS,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_XL_LOSSLESS,
    RLE_LOSSLESS,
    DEFLATED_IMAGE_FRAME_COMPRESSION,
    JPEG_2000,
    JPEG_2000_MULTI_COMPONENT,
    HTJ2K,
    JPEG_XL,
    JPEG_LS_NEAR_LOSSLESS,
    JPEG_EXTENDED_12_BIT,
    JPEG_BASELINE_8_BIT,
    JPEG_XL_JPEG_RECOMPRESSION,
    HEVC_M10P51,
    HEVC_MP51,
    MPEG4_HP42_STEREO,
    MPEG4_HP42_STEREO_FRAGMENTABLE,
    MPEG4_HP42_3D,
    MPEG4_HP42_3D_FRAGMENTABLE,
    MPEG4_HP42_2D,
    MPEG4_HP42_2D_FRAGMENTABLE,
    MPEG4_HP41_BD,
    MPEG4_HP41_BD_FRAGMENTABLE,
    MPEG4_HP41,
    MPEG4_HP41_FRAGMENTABLE,
    MPEG2_MPHL,
    MPEG2_MPHL_FRAGMENTABLE,
    MPEG2_MPML,
    MPEG2_MPML_FRAGMENTABLE,
)
"""The transfer syntaxes accepted as shipped, the best to be sent in first.

Where a sender offers several for one context and the acceptor chooses by preference, the choice decides what
the sender encodes. So a syntax in which nothing can be lost stands before one that leaves it open, and that
before a lossy one. Among those that lose nothing, the ones that need no codec come first, explicit VR (which
keeps the VR of private elements) before implicit, little endian before big. The order is the same on every
machine.
"""
