"""The media types that pixel data may have, and what to read their bitstreams with (PS3.18 Tables 8.7.3-4 and 8.7.3-5)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from stowkeeper.dicom.transfer_syntaxes import (
    JPEG_XL,
    JPEG_XL_JPEG_RECOMPRESSION,
    JPEG_XL_LOSSLESS,
    RLE_LOSSLESS,
)
from stowkeeper.services.building.bitstreams import Bitstream, Header, unreadable
from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.building.jpeg import read_jpeg, read_jpeg_ls
from stowkeeper.services.building.jpeg_2000 import (
    read_high_throughput_jpeg_2000,
    read_jpeg_2000,
    read_jpeg_2000_multi_component,
)
from stowkeeper.services.building.video import read_hevc, read_mpeg_2, read_mpeg_4

_JPEG_XL_CODESTREAM: Final = b"\xff\x0a"
_JPEG_XL_FILE: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_RLE_HEADER_BYTES: Final = 64
_RLE_SEGMENTS_MAX: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMedia:
    """How pixel data of one media type are read. Of a video one part has all frames, of an image one."""

    read: Callable[[BulkPart], Bitstream]
    is_video: bool = False


def _read_rle(part: BulkPart) -> Bitstream:
    """Read the header of a frame in RLE (PS3.5 §G.5), which tells nothing of the image."""
    head = Header(part).some_at(0, _RLE_HEADER_BYTES)
    numbers = [int.from_bytes(head[at : at + 4], "little") for at in range(0, len(head), 4)]
    if len(head) < _RLE_HEADER_BYTES or not 1 <= numbers[0] <= _RLE_SEGMENTS_MAX:
        raise unreadable("it has no header of RLE")
    offsets = numbers[1 : 1 + numbers[0]]
    if offsets[0] != _RLE_HEADER_BYTES or offsets != sorted(offsets) or offsets[-1] >= part.length:
        raise unreadable("its segments of RLE lie elsewhere than in it")
    return Bitstream(transfer_syntaxes=(RLE_LOSSLESS,), begin=0, length=part.length)


def _read_jpeg_xl(part: BulkPart) -> Bitstream:
    """Read the beginning of JPEG XL (ISO/IEC 18181-2).

    Whether samples were lost cannot be told from it, so where nobody says so it is the syntax that leaves it open.
    """
    head = part.read(0, 12)
    if not head.startswith(_JPEG_XL_CODESTREAM) and head != _JPEG_XL_FILE:
        raise unreadable("it does not begin as JPEG XL does")
    return Bitstream(
        transfer_syntaxes=(JPEG_XL, JPEG_XL_LOSSLESS, JPEG_XL_JPEG_RECOMPRESSION), begin=0, length=part.length
    )


_JPEG: Final = FrameMedia(read=read_jpeg)
_JPEG_LS: Final = FrameMedia(read=read_jpeg_ls)
_MPEG_2: Final = FrameMedia(read=read_mpeg_2, is_video=True)

FRAME_MEDIA: Final[Mapping[str, FrameMedia]] = MappingProxyType(
    {
        "image/jpeg": _JPEG,
        "image/jpg": _JPEG,
        "image/jls": _JPEG_LS,
        "image/x-jls": _JPEG_LS,
        "image/jp2": FrameMedia(read=read_jpeg_2000),
        "image/jpx": FrameMedia(read=read_jpeg_2000_multi_component),
        "image/jphc": FrameMedia(read=read_high_throughput_jpeg_2000),
        "image/jxl": FrameMedia(read=_read_jpeg_xl),
        "image/dicom-rle": FrameMedia(read=_read_rle),
        "image/x-dicom-rle": FrameMedia(read=_read_rle),
        "video/mpeg": _MPEG_2,
        "video/mpeg2": _MPEG_2,
        "video/mp4": FrameMedia(read=read_mpeg_4, is_video=True),
        "video/h265": FrameMedia(read=read_hevc, is_video=True),
    }
)
"""By the name of the media type in lower case. image/gif and image/png are not among them: PS3.18 Table 10.5.2-1 wants those
decoded, which is left to the sender."""

_OF_SYNTAX: Final = {
    "4.50": "image/jpeg",
    "4.51": "image/jpeg",
    "4.57": "image/jpeg",
    "4.70": "image/jpeg",
    "4.80": "image/jls",
    "4.81": "image/jls",
    "4.90": "image/jp2",
    "4.91": "image/jp2",
    "4.92": "image/jpx",
    "4.93": "image/jpx",
    "4.100": "video/mpeg",
    "4.101": "video/mpeg",
    "4.102": "video/mp4",
    "4.103": "video/mp4",
    "4.104": "video/mp4",
    "4.105": "video/mp4",
    "4.106": "video/mp4",
    "4.107": "video/h265",
    "4.108": "video/h265",
    "4.110": "image/jxl",
    "4.111": "image/jxl",
    "4.112": "image/jxl",
    "4.201": "image/jphc",
    "4.202": "image/jphc",
    "4.203": "image/jphc",
    "5": "image/dicom-rle",
}


def media_type_of(transfer_syntax_uid: str) -> str:
    """Return the media type that bitstreams of a transfer syntax have; '' where it is none of them."""
    family = transfer_syntax_uid.removeprefix("1.2.840.10008.1.2.")
    return _OF_SYNTAX.get(family) or _OF_SYNTAX.get(family.removesuffix(".1"), "")
